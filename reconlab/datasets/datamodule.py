"""The one LightningDataModule: built datasets in, batches out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from reconlab.batch import NEEDS, Batch
from reconlab.datasets import format as files
from reconlab.datasets.builder import EMBEDDED_COUNT, ensure_embedded
from reconlab.datasets.decode import decode, kinds_of
from reconlab.datasets.decoded import Decoded
from reconlab.datasets.items import Item, every_view, find_items, missing_files
from reconlab.datasets.loading import collate, start_worker, worker_context
from reconlab.datasets.samplers import EpochSampler
from reconlab.datasets.samples import Loading, ShapeDataset
from reconlab.errors import ReconlabError

__all__ = ["ReconstructionData", "collate"]


class ReconstructionData(pl.LightningDataModule):
    """Samples of a built dataset, with only the fields that network, losses and metrics need.

    Args:
        root: The dataset's folder.
        categories: To use; all that the dataset has if None.
        image_size: Side of the input images in pixels; they are resampled if the files differ.
        batch_size: Samples per step and process.
        num_workers: Data-loader processes; 0 loads in the main one.
        points: Surface points per sample.
        queries: Occupancy points per sample.
        views: Supervision views per sample; the first is the input's.
        view_size: Side of the supervision views; their size on disk if None.
        train_view: Index of the input view in training, or ``random``.
        eval_view: Index of the input view in validation and test; ``all`` judges each shape once from each of its
            views, as DPC does (metrics are then means over shapes and views).
        seed: Of shuffling, views and point choices; all are functions of (seed, epoch, sample). None is 0 here, and
            ``seed_everything`` on the command line.
        build: ``synth`` builds the embedded procedural set at ``root`` if it is not there; ``never`` does not.
        embedded_count: Shapes per category of that set.
        cache_mib: Decoded data kept in memory per process, in MiB.
        resolution: Of the voxels, a divisor of the dataset's, which gives exactly what a build of that resolution
            has; as they are on disk if None.
        cache: Where decoded data are kept on disk, made once and shared by all workers and later runs: ``auto`` for
            the folder ``.decoded`` of the dataset, where it can be written; or a folder. None keeps nothing. Samples
            are the same. It takes 4 bytes per pixel of every picture: see docs/data.md for when it pays.
    """

    def __init__(
        self,
        root: str = "data/synth",
        categories: Sequence[str] | None = None,
        image_size: int = 128,
        batch_size: int = 8,
        num_workers: int = 0,
        points: int = 2500,
        queries: int = 2048,
        views: int = 4,
        view_size: int | None = None,
        train_view: int | Literal["random"] = "random",
        eval_view: int | Literal["all"] = 0,
        seed: int | None = None,
        build: Literal["never", "synth"] = "never",
        embedded_count: int = EMBEDDED_COUNT,
        cache_mib: int = 1024,
        resolution: int | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        seed = 0 if seed is None else seed
        sizes = {"image_size": image_size, "batch_size": batch_size, "points": points, "queries": queries}
        sizes |= {"views": views, "embedded_count": embedded_count}
        for name, value in sizes.items():
            if value < 1:
                raise ReconlabError(f"data.{name} is {value}: choose at least 1.")
        for name, value in {"num_workers": num_workers, "seed": seed, "cache_mib": cache_mib}.items():
            if value < 0:
                raise ReconlabError(f"data.{name} is {value}: choose at least 0.")
        if view_size is not None and view_size < 1:
            raise ReconlabError(f"data.view_size is {view_size}: choose at least 1, or null.")
        if resolution is not None and resolution < 1:
            raise ReconlabError(f"data.resolution is {resolution}: choose at least 1, or null.")
        self.root, self.resolution = Path(root), resolution
        self.only = list(categories) if categories is not None else None
        self.image_size, self.batch_size, self.num_workers = image_size, batch_size, num_workers
        self.points, self.queries, self.views, self.view_size = points, queries, views, view_size
        self.train_view, self.eval_view, self.seed = train_view, eval_view, seed
        self.build, self.embedded_count, self.cache_mib, self.cache = build, embedded_count, cache_mib, cache
        self.wanted: dict[str, dict[str, frozenset[str]]] = {}  # need -> who needs it -> in which splits
        self.items: dict[str, list[Item]] = {}
        self._datasets: dict[str, ShapeDataset] = {}

    @property
    def needs(self) -> frozenset[str]:
        """Fields that will be loaded (see ``reconlab.batch.NEEDS``)."""
        return frozenset(self.wanted)

    def needs_of(self, split: str) -> frozenset[str]:
        """Fields that the samples of a split will have."""
        return frozenset(need for need, users in self.wanted.items() if any(split in s for s in users.values()))

    def require(self, needs: Iterable[str], who: str, splits: Iterable[str] = files.SPLITS) -> None:
        """Ask for fields of the batch, before ``setup``.

        Args:
            needs: Names as in ``reconlab.batch.NEEDS``.
            who: Who needs them, for error messages.
            splits: Where. Metrics judge val and test only, so that training data need no ground truth for them.

        Raises:
            ReconlabError: A name does not exist.
        """
        for need in needs:
            if need not in NEEDS:
                raise ReconlabError(f"{who} needs {need!r}, which no batch has: choose from {', '.join(NEEDS)}.")
            users = self.wanted.setdefault(need, {})
            users[who] = users.get(who, frozenset()) | frozenset(splits)
        self._datasets.clear()

    @property
    def categories(self) -> list[str]:
        """The categories in use, sorted; the dataset must exist."""
        found = files.list_categories(self.root)
        if self.only is None:
            return found
        missing = [c for c in self.only if c not in found]
        if missing:
            raise ReconlabError(f"{self.root} has no category {missing[0]!r}: it has {', '.join(found)}.")
        return sorted(set(self.only))

    def prepare_data(self) -> None:
        """Build the embedded set if asked to (one process does it, and the others wait)."""
        if self.build == "synth":
            ensure_embedded(self.root, None, self.embedded_count)

    def setup(self, stage: str | None = None) -> None:
        """Read the lists and see that the dataset can meet every need.

        Raises:
            ReconlabError: The dataset or a category is missing or empty, or a need cannot be met.
        """
        categories = self.categories
        self.items = {s: find_items(self.root, s, categories) for s in files.SPLITS}
        present = {i.category for s in files.SPLITS for i in self.items[s]}
        for category in categories:
            if category not in present:
                raise ReconlabError(f"The category {self.root / category} is empty: its split lists name no shape.")
        used = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for split in used.get(stage or "", ()):
            if not self.items[split]:
                raise ReconlabError(
                    f"The {split} split of {self.root} is empty: its {split}.lst files name no shape."
                )
        for split in files.SPLITS:
            lacking = missing_files(self.items[split], self.needs_of(split))
            if lacking is not None:
                need, what = lacking
                users = " and ".join(who for who, splits in self.wanted[need].items() if split in splits)
                raise ReconlabError(
                    f"{users} needs {need!r}, but the dataset {self.root} lacks {what}: rebuild it with "
                    "`reconlab data build`, or choose another loss, metric or dataset."
                )
        self._datasets.clear()

    def dataset(self, split: str) -> ShapeDataset:
        """The samples of a split, in the order of its lists."""
        if split not in self._datasets:
            if split not in self.items:
                self.setup()
            view = self.train_view if split == "train" else self.eval_view
            items = self.items[split]
            if view == "all":
                pictures = self.needs_of(split) & {"images", "cameras", "views"}
                items, view = every_view(items) if pictures else items, 0
            needs = self.needs_of(split)
            sizes = (self.image_size, self.points, self.queries, self.views, self.view_size)
            loading = Loading(needs, *sizes, view, self.seed, self.resolution)
            decoded = self._decoded(split) if self.cache is not None else None
            self._datasets[split] = ShapeDataset(items, loading, self.cache_mib << 20, decoded)
        return self._datasets[split]

    def _decoded(self, split: str) -> Decoded | None:
        folder = None if self.cache in ("auto", None) else Path(self.cache)
        kinds = kinds_of(self.needs_of(split), self.resolution)
        first = self.trainer is None or self.trainer.global_rank == 0
        return decode(self.root, self.items[split], split, kinds, folder, announce=first)

    def loader(self, split: str) -> DataLoader[Batch]:
        """The batches of a split: shuffled for training, each sample exactly once otherwise."""
        data, train = self.dataset(split), split == "train"
        rank, world, done = 0, 1, 0
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            if train:  # resumed in the middle of an epoch: go on where it was
                done = self.trainer.fit_loop.epoch_loop.batch_progress.current.completed
        sampler = EpochSampler(len(data), train, self.seed, rank, world)
        # A last batch of one would break BatchNorm in training; a set smaller than a batch is used whole.
        drop_last = train and -(-len(data) // world) > self.batch_size
        batches = len(sampler) // self.batch_size if drop_last else -(-len(sampler) // self.batch_size)
        sampler.skip = done * self.batch_size if done < batches else 0  # all done: the next epoch begins
        trained_on = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return DataLoader(
            data,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            collate_fn=collate,
            worker_init_fn=start_worker,
            multiprocessing_context=worker_context() if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            pin_memory=trained_on.type == "cuda",
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches."""
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation batches."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test batches."""
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test batches."""
        return self.loader("test")

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch as a whole; from pinned memory without waiting for it."""
        return batch.to(device, non_blocking=device.type == "cuda")
