"""The DataModule: exact batches, seeded samples, sharding without repeats, clear errors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reconlab.batch import NEEDS, Batch
from reconlab.datasets import format as files
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.datasets.loading import PRELOAD, collate, start_worker
from reconlab.datasets.samplers import EpochSampler
from reconlab.datasets.samples import ShapeDataset, choose
from reconlab.errors import ReconlabError


def _data(root: Path, needs: object = tuple(NEEDS), **kwargs: object) -> ReconstructionData:
    settings: dict = {"image_size": 48, "batch_size": 3, "points": 100, "queries": 64, "views": 2}
    data = ReconstructionData(str(root), **{**settings, **kwargs})
    data.require(needs, "a test")  # type: ignore[arg-type]
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_root, tmp_path / "data")
    return tmp_path / "data"


def _equal(a: Batch, b: Batch) -> bool:
    tensors = ("images", "points", "normals", "voxels", "query_points", "query_occupancies")
    same = all(torch.equal(getattr(a, k), getattr(b, k)) for k in tensors)
    return same and a.ids == b.ids and torch.equal(a.views.cameras.R, b.views.cameras.R)  # type: ignore[union-attr]


def test_batch_contents(tiny_root: Path) -> None:
    batch = next(iter(_data(tiny_root).train_dataloader()))
    assert len(batch) == 3
    assert batch.images.shape == (3, 3, 48, 48)
    assert batch.cameras.shape == (3,)
    assert batch.views.cameras.shape == (3, 2)
    assert batch.views.silhouettes.shape == (3, 2, 48, 48)
    assert batch.views.images.shape == (3, 2, 3, 48, 48)
    assert batch.points.shape == batch.normals.shape == (3, 100, 3)
    assert torch.allclose(batch.normals.norm(dim=-1), torch.ones(3, 100), atol=2e-3)
    assert batch.voxels.shape == (3, 32, 32, 32)
    assert set(batch.voxels.unique().tolist()) == {0.0, 1.0}
    assert batch.query_points.shape == (3, 64, 3)
    assert batch.query_occupancies.shape == (3, 64)
    assert len(batch.mesh) == 3
    assert bool(batch.mesh.valid().all())
    for name in ("images", "points", "voxels", "query_points", "query_occupancies"):
        assert getattr(batch, name).dtype == torch.float32
    # White where there is no object; the input is the first view.
    assert torch.allclose(batch.images[:, :, 0, 0], torch.ones(3, 3))
    assert torch.equal(batch.images, batch.views.images[:, 0])
    assert torch.equal(batch.cameras.R, batch.views.cameras.R[:, 0])


def test_only_what_is_needed_is_loaded(tiny_root: Path) -> None:
    batch = next(iter(_data(tiny_root, {"surface"}).train_dataloader()))
    assert batch.points is not None
    assert all(getattr(batch, k) is None for k in ("images", "cameras", "views", "voxels", "query_points", "mesh"))


def test_surface_and_inside_project_into_the_silhouettes(tiny_root: Path) -> None:
    """One picture proves four conventions: axes, cameras, image orientation, and the frame of all content."""
    data = _data(tiny_root, views=3, points=500, queries=2000, batch_size=8)
    for split in files.SPLITS:
        for batch in data.loader(split):
            for i in range(len(batch)):
                inside = batch.query_points[i][batch.query_occupancies[i] > 0]
                cells = batch.voxels[i].nonzero()
                for points, least in ((batch.points[i], 0.97), (inside, 0.97)):
                    if len(points):
                        assert _contained(points, batch, i) >= least, batch.ids[i]
                centres = (cells + 0.5) / 32 - 0.5
                assert _contained(centres, batch, i, grow=3) >= 0.97
                # and they fill it: the silhouette of the cells covers the true one
                assert _covered(centres, batch, i) >= 0.95


def _contained(points: torch.Tensor, batch: Batch, i: int, grow: int = 0) -> float:
    masks = batch.views.silhouettes[i][:, None]
    masks = torch.nn.functional.max_pool2d(masks, 2 * grow + 1, 1, grow) if grow else masks
    xy, _ = batch.views.cameras[i].project(points)
    values = torch.nn.functional.grid_sample(masks, xy[:, :, None], align_corners=False)
    return float((values > 0.02).float().mean())


def _covered(points: torch.Tensor, batch: Batch, i: int) -> float:
    masks = batch.views.silhouettes[i]
    xy, _ = batch.views.cameras[i].project(points)
    size = masks.shape[-1]
    pixel = ((xy + 1) / 2 * size).floor().long().clamp(0, size - 1)
    drawn = torch.zeros_like(masks)
    for v in range(len(masks)):
        drawn[v, pixel[v, :, 1], pixel[v, :, 0]] = 1
    drawn = torch.nn.functional.max_pool2d(drawn[:, None], 5, 1, 2)[:, 0]
    return float((drawn * masks).sum() / masks.sum())


def test_samples_are_functions_of_seed_epoch_and_id(tiny_root: Path) -> None:
    def epoch(number: int, **kwargs: object) -> list[Batch]:
        loader = _data(tiny_root, **kwargs).train_dataloader()
        loader.sampler.set_epoch(number)
        return list(loader)

    assert all(_equal(a, b) for a, b in zip(epoch(2), epoch(2), strict=True))
    first, other, seeded = epoch(0)[0], epoch(1)[0], epoch(0, seed=9)[0]
    assert not torch.equal(first.points, other.points)
    assert not torch.equal(first.points, seeded.points)
    # What else is loaded, and how samples are batched, changes nothing.
    lone = {b.ids[i]: b.points[i] for b in epoch(0, needs={"surface"}, batch_size=1) for i in range(len(b))}
    for i, name in enumerate(first.ids):
        assert torch.equal(lone[name], first.points[i])


def test_evaluation_is_fixed_and_complete(tiny_root: Path) -> None:
    data = _data(tiny_root)
    first, second = list(data.val_dataloader()), list(data.val_dataloader())
    assert all(_equal(a, b) for a, b in zip(first, second, strict=True))
    assert [n for b in first for n in b.ids] == [i.id for i in data.items["val"]]
    camera = files.read_npz(data.items["val"][0].folder / "views" / "cameras.npz")
    assert np.allclose(first[0].cameras.R[0], camera["R"][0])


def test_workers_give_the_same_batches(tiny_root: Path) -> None:
    plain, worker = _data(tiny_root), _data(tiny_root, num_workers=1)
    assert all(_equal(a, b) for a, b in zip(plain.train_dataloader(), worker.train_dataloader(), strict=True))


def test_workers_import_little() -> None:
    """What they unpickle, and what is imported for them beforehand, needs no Lightning and no network."""
    code = (
        "import importlib, sys\n"
        "from reconlab.datasets.loading import PRELOAD, collate\n"
        "for name in PRELOAD: importlib.import_module(name)\n"
        "print([m for m in sys.modules if m.startswith(('pytorch_lightning', 'kornia', 'reconlab.networks'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert {collate.__module__, ShapeDataset.__module__, start_worker.__module__} <= set(PRELOAD)


def test_seven_samples_on_two_processes_count_as_seven() -> None:
    shards = [[i for _, i in EpochSampler(7, False, rank=r, world=2)] for r in range(2)]
    assert sorted(shards[0] + shards[1]) == list(range(7))
    assert [len(EpochSampler(7, False, rank=r, world=2)) for r in range(2)] == [4, 3]


def test_training_shards_take_equal_steps_and_cover_everything() -> None:
    shards = []
    for rank in range(3):
        sampler = EpochSampler(7, True, seed=1, rank=rank, world=3)
        sampler.set_epoch(4)
        shards.append(list(sampler))
        assert len(shards[-1]) == len(sampler) == 3
    assert {i for s in shards for _, i in s} == set(range(7))
    assert {e for s in shards for e, _ in s} == {4}
    whole = EpochSampler(7, True, seed=1)
    whole.set_epoch(4)
    assert sorted(i for _, i in whole) == list(range(7))


def test_loader_shards_by_the_trainers_rank(tiny_root: Path) -> None:
    names = []
    for rank in range(2):
        data = _data(tiny_root, {"surface"})
        cpu = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, strategy=cpu)  # type: ignore[assignment]
        names += [n for b in data.test_dataloader() for n in b.ids]
    assert sorted(names) == sorted(i.id for i in _data(tiny_root, {"surface"}).items["test"])


def test_categories(tiny_root: Path) -> None:
    assert _data(tiny_root).categories == ["chair", "lamp"]
    data = _data(tiny_root, categories=["lamp"])
    assert {i.category for s in files.SPLITS for i in data.items[s]} == {"lamp"}
    with pytest.raises(ReconlabError, match="no category 'boat'"):
        _data(tiny_root, categories=["boat"])


def test_embedded_data_is_built_on_first_use(tmp_path: Path) -> None:
    data = ReconstructionData(str(tmp_path / "new"), build="synth", embedded_count=1)
    data.require({"surface"}, "a test")
    data.prepare_data()
    assert data.categories == ["airplane", "car", "chair", "lamp"]


def test_other_sizes(tiny_root: Path) -> None:
    batch = next(iter(_data(tiny_root, image_size=32, view_size=24, points=900).val_dataloader()))
    assert batch.images.shape[-1] == 32
    assert batch.views.silhouettes.shape[-1] == 24
    assert batch.points.shape[1] == 900  # more than the 500 on disk: with repetition
    full = next(iter(_data(tiny_root).val_dataloader()))
    assert abs(float(full.views.silhouettes.mean() - batch.views.silhouettes.mean())) < 0.01


def test_points_are_chosen_without_repetition_while_there_are_enough() -> None:
    assert choose(5, 5, np.random.default_rng(0)).tolist() != choose(5, 5, np.random.default_rng(1)).tolist()
    assert len(set(choose(9, 5, np.random.default_rng(0)).tolist())) == 5
    # More than there are: every one, about equally often.
    assert np.bincount(choose(5, 13, np.random.default_rng(0))).tolist().count(3) == 3
    assert np.bincount(choose(5, 13, np.random.default_rng(0))).min() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": 4}, "views is 4, but .* has 3 pictures"),
        ({"train_view": 7}, "input view is 7"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"view_size": 0}, "data.view_size is 0"),
        ({"needs": {"colour"}}, "needs 'colour'"),
    ],
)
def test_bad_settings(tiny_root: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ReconlabError, match=message):
        next(iter(_data(tiny_root, **arguments).train_dataloader()))


def test_a_need_that_cannot_be_met_names_both(root: Path) -> None:
    for path in root.rglob("mesh.npz"):
        path.unlink()
    data = ReconstructionData(str(root))
    data.require({"surface"}, "Chamfer")
    data.require({"mesh"}, "DRKFS")
    with pytest.raises(ReconlabError, match=r"DRKFS needs 'mesh', but the dataset .* lacks .*mesh\.npz"):
        data.setup("fit")


def test_missing_dataset_and_empty_splits(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ReconlabError, match=r"does not exist.*reconlab data build"):
        ReconstructionData(str(tmp_path / "nowhere")).setup("fit")
    for category in ("chair", "lamp"):
        (root / category / "val.lst").write_text("")
    with pytest.raises(ReconlabError, match=r"val split .* is empty"):
        ReconstructionData(str(root)).setup("fit")
    for split in files.SPLITS:
        (root / "lamp" / f"{split}.lst").write_text("\n")
    with pytest.raises(ReconlabError, match=r"category .*lamp is empty"):
        ReconstructionData(str(root)).setup("test")
    (root / "chair" / "train.lst").write_text("chair_77777\n")
    with pytest.raises(ReconlabError, match=r"train\.lst names 'chair_77777'"):
        ReconstructionData(str(root)).setup("fit")


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("views/000.png", "images"),
        ("views/cameras.npz", "cameras"),
        ("pointcloud.npz", "surface"),
        ("points.npz", "occupancy"),
        ("model.binvox", "voxels"),
        ("mesh.npz", "mesh"),
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_corrupt_files_are_named(root: Path, name: str, need: str, damage: str) -> None:
    for path in root.rglob(name.rsplit("/", 1)[-1]):
        good = path.read_bytes()
        path.write_bytes({"truncated": good[: len(good) // 2], "garbage": b"x" * 99, "empty": b""}[damage])
    with pytest.raises(ReconlabError, match=name.rsplit("/", 1)[-1].replace(".", r"\.")):
        list(_data(root, {need}).val_dataloader())


def test_published_archives_load(root: Path) -> None:
    """Half-precision clouds, no checksums, no views, no mesh: as Occupancy Networks distributes ShapeNet."""
    for folder in (p for p in root.glob("*/*") if p.is_dir()):
        cloud = files.read_npz(folder / "pointcloud.npz")
        cloud = {k: v.astype(np.float16) if v.ndim else v for k, v in cloud.items()}
        np.savez(folder / "pointcloud.npz", **cloud)
        shutil.rmtree(folder / "views")
        (folder / "mesh.npz").unlink()
        (folder / "checksums.json").unlink()
    (root / "metadata.yaml").write_text("'03001627': {id: '03001627', name: chair}\n")
    batch = next(iter(_data(root, {"surface", "occupancy", "voxels"}).train_dataloader()))
    assert batch.points.dtype == torch.float32
    with pytest.raises(ReconlabError, match="needs 'images'"):
        _data(root, {"images"})


def test_cache_is_bounded(tiny_root: Path) -> None:
    data = _data(tiny_root, cache_mib=0)
    whole = _data(tiny_root)
    assert all(_equal(a, b) for a, b in zip(data.val_dataloader(), whole.val_dataloader(), strict=True))
    assert data.dataset("val").cache.entries == {}
    assert len(whole.dataset("val").cache.entries) > 0


def test_pinning_and_moving_reach_every_tensor(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU there is no pinned memory; what counts is that every tensor is asked, and nothing changes."""
    batch = next(iter(_data(tiny_root, views=3).train_dataloader()))
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: asked.append(tensor) or tensor.clone())
    pinned = batch.pin_memory()
    assert _equal(batch, pinned)
    assert torch.equal(batch.masks, pinned.masks)
    assert torch.equal(batch.mesh.vertices, pinned.mesh.vertices)
    assert torch.equal(batch.mesh.faces, pinned.mesh.faces)
    assert torch.equal(batch.views.silhouettes, pinned.views.silhouettes)
    assert torch.equal(batch.cameras.focal, pinned.cameras.focal)
    assert pinned.input_view == batch.input_view
    # images, masks, points, normals, voxels, queries (2), mesh (2), views (2), two sets of cameras (4 each)
    assert len(asked) == 19
    meta = batch.to("meta", non_blocking=True)
    moved = (meta.images, meta.mesh.faces, meta.views.images, meta.views.cameras.R, meta.cameras.t, meta.voxels)
    assert all(tensor.device.type == "meta" for tensor in moved)
    assert meta.mesh.vertex_splits.device.type == "cpu"


def test_every_view_is_judged(tiny_root: Path) -> None:
    data = _data(tiny_root, eval_view="all")
    one = _data(tiny_root)
    pictures = len(list((one.items["val"][0].folder / files.VIEWS).glob("*.png")))
    dataset = data.dataset("val")
    assert len(dataset) == pictures * len(one.dataset("val"))
    assert dataset.per_shape() == pictures
    assert one.dataset("val").per_shape() == 1
    seen = [(i, v) for batch in data.val_dataloader() for i, v in zip(batch.ids, batch.input_view, strict=True)]
    assert len(set(seen)) == len(seen) == len(dataset)
    # The input image is the view's own picture, and its camera comes first.
    sample = dataset[1]
    assert sample["view"] == 1
    assert torch.equal(sample["camera"].R, sample["views"][0].R[0])
    fixed = _data(tiny_root, eval_view=1).dataset("val")[0]
    assert torch.equal(sample["image"], fixed["image"])
    # Training is untouched; needs without pictures have no views to go through.
    assert len(data.dataset("train")) == len(one.dataset("train"))
    assert len(_data(tiny_root, needs=("surface",), eval_view="all").dataset("val")) == len(one.dataset("val"))
