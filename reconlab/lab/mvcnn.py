"""Training of the multi-view CNN behind the MVCNN distance: pictures of meshes to categories and sub-kinds."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from reconlab.batch import Batch
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.datasets.format import SPLITS
from reconlab.datasets.synth import CATEGORIES, generate
from reconlab.errors import ReconlabError
from reconlab.features.mvcnn import ELEVATION, VIEWS, MultiViewCNN, render_ring, retrieval
from reconlab.features.weights import load_mvcnn
from reconlab.metrics import Metric
from reconlab.shapes import Mesh

FIRST_SEED = 2_000_000  # of the procedural shapes drawn here: far from those of any built dataset
KEPT = 2048  # procedural meshes held in memory


def kinds_of(category: str) -> list[str]:
    """The sub-kinds of a procedural category, none for any other."""
    if category not in CATEGORIES:
        return []
    drawn = list(importlib.import_module(f"reconlab.datasets.synth.{category}").KINDS)
    return [*drawn, "biplane"] if category == "airplane" else drawn  # what some of the light ones become


def meshes_of(batch: Batch) -> list[Mesh]:
    """The batch's true meshes, one by one.

    Raises:
        ReconlabError: It has none.
    """
    if batch.mesh is None:
        raise ReconlabError("The multi-view classifier reads the true mesh, and the batch has none.")
    return [batch.mesh[i] for i in range(len(batch))]


class Retrieval(torchmetrics.Metric):
    """Top-1 and mAP of nearest neighbours among all samples seen, over all processes (see ``retrieval``)."""

    full_state_update = False
    descriptors: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("descriptors", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, descriptors: Tensor, labels: Tensor) -> None:
        """Add ``(B, D)`` descriptors and ``(B,)`` integer labels."""
        self.descriptors.append(descriptors)
        self.labels.append(labels)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Top-1 and mAP."""
        descriptors, labels = dim_zero_cat(self.descriptors).double(), dim_zero_cat(self.labels)
        values = retrieval(torch.cdist(descriptors, descriptors), [str(k) for k in labels.tolist()])
        top, mean = (torch.tensor(v, device=descriptors.device) for v in values)
        return top, mean


class MultiViewClassification(pl.LightningModule):
    """Trains a :class:`~reconlab.features.mvcnn.MultiViewCNN` on meshes that are rendered as they are needed.

    The classifier has one output for every sub-kind of a procedural category (``chair/swivel``) and one for any other
    category. A shape of the dataset is known by its category alone: its probability is the sum over the category's
    outputs. A procedural shape, of which ``procedural`` are added to each step, is known by its sub-kind. So the
    descriptors of one category are told apart where somebody could say how, and real shapes find their own place
    among them. Each training shape is shown by ``views`` random views of the ring of 12, turned about y by a random
    angle, with the elevation, the scale, the place in the picture and, now and then, the vertices disturbed.

    Args:
        categories: That the classifier knows; every category of the dataset must be among them.
        procedural: Procedural shapes added to each training step; 0 trains on the dataset alone.
        pool: Different procedural shapes of each category.
        views: Views of a training shape, at most 12.
        widths: See :class:`MultiViewCNN`.
        dimensions: Of the descriptor.
        size: Pixels a side of the views.
        scale: Of the logits.
        lr: Highest learning rate of a one-cycle schedule (AdamW).
        weight_decay: AdamW's.
        jitter: Half of the shapes get vertex noise of a deviation up to this (object units).
        init_from: Weights to start from: ``bundled``, a ``.safetensors`` file or a checkpoint of such a run.
    """

    def __init__(
        self,
        categories: Sequence[str] = CATEGORIES,
        procedural: int = 4,
        pool: int = 300,
        views: int = 4,
        widths: Sequence[int] = (32, 64, 128, 128),
        dimensions: int = 128,
        size: int = 64,
        scale: float = 16.0,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        jitter: float = 0.006,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="init_from")
        if not 1 <= views <= VIEWS:
            raise ReconlabError(f"model.views is {views}; expected 1 to {VIEWS}.")
        for name, value in {"procedural": procedural, "weight_decay": weight_decay, "jitter": jitter}.items():
            if value < 0:
                raise ReconlabError(f"model.{name} is {value}; expected at least 0.")
        if lr <= 0 or pool < 1:
            raise ReconlabError(f"model.lr is {lr} and model.pool {pool}; expected positive numbers.")
        self.procedural, self.pool, self.views, self.jitter = procedural, pool, views, jitter
        self.lr, self.weight_decay = lr, weight_decay
        self.names = list(dict.fromkeys(categories))
        self.classes = [f"{c}/{k}" if k else c for c in self.names for k in (kinds_of(c) or [""])]
        self.network = MultiViewCNN(len(self.classes), widths, dimensions, size, scale)
        if init_from is not None:
            state = load_mvcnn(init_from).state_dict()
            own = self.network.state_dict()
            if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in own.items()}:
                raise ReconlabError(f"init_from: {init_from} holds a network of other sizes or classes.")
            self.network.load_state_dict(state)
        member = torch.zeros(len(self.classes), len(self.names))
        for row, name in enumerate(self.classes):
            member[row, self.names.index(name.split("/")[0])] = 1
        self.register_buffer("outside", (member == 0).T, persistent=False)  # (categories, classes)
        self.outside: Tensor
        self.retrieval = Retrieval()
        self.accuracy = torchmetrics.MeanMetric()
        self._made: OrderedDict[tuple[str, int], tuple[Mesh, str]] = OrderedDict()

    @property
    def needs(self) -> frozenset[str]:
        """Meshes alone: the pictures are rendered here."""
        return frozenset({"mesh"})

    def metric_items(self) -> dict[str, Metric]:
        """None: nothing is reconstructed, so nothing is judged against a true shape."""
        return {}

    def declare(self, data: ReconstructionData) -> None:
        """Tell the data what is needed."""
        data.require(self.needs, "the multi-view classifier", SPLITS)

    def setup(self, stage: str) -> None:
        """See that the classifier knows the dataset's categories.

        Raises:
            ReconlabError: It does not know one.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ReconstructionData):
            return
        if not self.needs <= data.needs:
            self.declare(data)
            data.setup(stage)
        unknown = [c for c in data.categories if c not in self.names]
        if unknown:
            raise ReconlabError(
                f"The dataset {data.root} has the category {unknown[0]!r}, which the classifier does not know: name "
                f"all categories in model.init_args.categories (now {', '.join(self.names)})."
            )

    def category_scores(self, logits: Tensor) -> Tensor:
        """``(B, classes)`` logits to ``(B, categories)`` log-probabilities: the sum over a category's outputs."""
        scores = logits.log_softmax(1)[:, None].masked_fill(self.outside, -math.inf)
        return scores.logsumexp(2)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross entropy: of categories for the dataset's shapes, of sub-kinds for procedural ones."""
        generator = self._generator()
        shown = [self._disturbed(mesh, generator) for mesh in meshes_of(batch)]
        kinds = []
        for _ in range(self.procedural):
            mesh, kind = self._procedural(generator)
            shown.append(self._disturbed(mesh, generator))
            kinds.append(self.classes.index(kind))
        logits = self.network(torch.stack(shown).to(self.device))
        scores = self.category_scores(logits[: len(batch)])
        loss = torch.nn.functional.nll_loss(scores, self._targets(batch), reduction="sum")
        if kinds:
            target = torch.tensor(kinds, device=logits.device)
            loss = loss + torch.nn.functional.cross_entropy(logits[len(batch) :], target, reduction="sum")
        loss = loss / len(shown)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, batch_size=len(shown))
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(shown))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Describe the shapes from the undisturbed ring."""
        self._judge(batch)

    def test_step(self, batch: Batch, index: int) -> None:
        """As in validation."""
        self._judge(batch)

    def _judge(self, batch: Batch) -> None:
        views = torch.stack([render_ring(m, self.network.size) for m in meshes_of(batch)]).to(self.device)
        found = self.network.describe(views)
        target = self._targets(batch)
        self.retrieval.update(found, target)
        right = self.category_scores(self.network.classify(found)).argmax(1) == target
        self.accuracy.update(right.float())

    def on_validation_epoch_end(self) -> None:
        """Log ``val/accuracy``, ``val/top1`` and ``val/map``."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/accuracy``, ``test/top1`` and ``test/map``."""
        self._report("test")

    def _report(self, stage: str) -> None:
        top, mean = self.retrieval.compute()
        values = {"accuracy": self.accuracy.compute(), "top1": top, "map": mean}
        for name, value in values.items():
            self.log(f"{stage}/{name}", value.float(), rank_zero_only=False)
        if not self.trainer.sanity_checking:
            text = ", ".join(f"{k} {100 * float(v):.1f} %" for k, v in values.items())
            self.print(f"{stage}: {text} (accuracy of categories; retrieval, each shape among the others)")
        self.retrieval.reset()
        self.accuracy.reset()

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle; biases, normalisation and the like do not decay."""
        parameters = list(self.network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, max(int(total), 2), pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _targets(self, batch: Batch) -> Tensor:
        return torch.tensor([self.names.index(c) for c in batch.categories], device=self.device)

    def _generator(self) -> torch.Generator:
        # As in Reconstruction: draws depend on (seed, step, rank), so a resumed run draws as the whole one.
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        text = f"mvcnn {seed} {self.global_step} {self.global_rank}".encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)

    def _procedural(self, generator: torch.Generator) -> tuple[Mesh, str]:
        known = [c for c in self.names if c in CATEGORIES]
        if not known:
            raise ReconlabError(
                f"model.procedural is {self.procedural}, but none of the categories {', '.join(self.names)} is "
                f"procedural ({', '.join(CATEGORIES)}): set it to 0."
            )
        category = known[int(torch.randint(len(known), (), generator=generator))]
        key = (category, FIRST_SEED + int(torch.randint(self.pool, (), generator=generator)))
        if key not in self._made:
            shape = generate(*key)
            vertices, faces, _ = shape.mesh()
            mesh = Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))
            self._made[key] = (mesh, f"{category}/{shape.params['kind']}")
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        return self._made[key]

    def _disturbed(self, mesh: Mesh, generator: torch.Generator) -> Tensor:
        """``(views, size, size)`` random views of a randomly disturbed mesh."""
        turn, lift, zoom, noisy, amount = torch.rand(5, generator=generator).tolist()
        vertices = mesh.vertices.float() * (0.85 + 0.2 * zoom)
        if noisy < 0.5 and self.jitter:
            vertices = vertices + (
                self.jitter * amount * torch.randn(vertices.shape, generator=generator).to(vertices)
            )
        step = 360.0 / VIEWS
        chosen = torch.randperm(VIEWS, generator=generator)[: self.views].tolist()
        azimuths = [step * (k + turn) for k in chosen]
        elevation = ELEVATION + 10 * (lift - 0.5)
        pictures = render_ring(Mesh(vertices, mesh.faces), self.network.size, azimuths, elevation)
        flip, down, right = (int(torch.randint(n, (), generator=generator)) for n in (2, 5, 5))
        pictures = pictures.flip(2) if flip else pictures
        return pictures.roll((down - 2, right - 2), (1, 2))
