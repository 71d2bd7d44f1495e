"""The decoded cache: the same samples, never stale, never of damaged files."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from reconlab.batch import NEEDS
from reconlab.datasets import readers
from reconlab.datasets.check import check
from tests.datasets.decoded_help import EVERYTHING, assert_same, data_of, forbid_reading, leaves, samples_of


@pytest.mark.parametrize("needs", [*([n] for n in NEEDS), EVERYTHING])
@pytest.mark.parametrize("view", ["random", 1])
def test_samples_are_bit_identical(root: Path, needs: Any, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = samples_of(data_of(root, needs, train_view=view))
    cached = data_of(root, needs, train_view=view, cache="auto")
    cached.dataset("train")
    forbid_reading(monkeypatch)
    assert_same(plain, samples_of(cached))
    assert_same(plain, samples_of(data_of(root, needs, train_view=view, cache="auto")))  # and of a second run


@pytest.mark.parametrize(
    "settings",
    [{"view_size": 24}, {"resolution": 8}, {"resolution": 16}, {"points": 900}, {"image_size": 48, "view_size": 48}],
)
def test_settings_that_change_samples_share_one_cache(root: Path, settings: dict[str, Any]) -> None:
    data_of(root, cache="auto").dataset("train")
    before = {p.name: p.stat().st_mtime_ns for p in (root / ".decoded").glob("*.train.*")}
    assert_same(samples_of(data_of(root, **settings)), samples_of(data_of(root, cache="auto", **settings)))
    after = {p.name: p.stat().st_mtime_ns for p in (root / ".decoded").glob("*.train.*")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2 * ("resolution" in settings)  # coarser voxels of two categories


def test_every_view_and_each_split(root: Path) -> None:
    for split in ("val", "test"):
        plain, cached = (data_of(root, stage="", eval_view="all", cache=c) for c in (None, "auto"))
        assert_same(samples_of(plain, split), samples_of(cached, split))
    assert {p.name.split(".")[1] for p in (root / ".decoded").glob("*.decoded")} == {"val", "test"}


def test_published_archives(trees: Any, tmp_path: Path) -> None:
    """JPEG without alpha, cameras of another convention, half precision, 24-bit resampling."""
    needs = ("images", "cameras", "surface", "normals", "occupancy", "voxels")
    plain, cached = (data_of(trees.occnet, needs, "test", cache=c) for c in (None, str(tmp_path)))
    assert_same(samples_of(plain, "test"), samples_of(cached, "test"))
    assert not (trees.occnet / ".decoded").exists()


def test_workers_and_ranks_see_the_same_batches(root: Path) -> None:
    def batches(rank: int, world: int, **kwargs: Any) -> list[Any]:
        data = data_of(root, batch_size=2, **kwargs)
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace())))
        loop.epoch_loop.batch_progress.current.completed = 0
        cpu = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world, strategy=cpu, fit_loop=loop)  # type: ignore[assignment]
        return [data.dataset("train").items[i].id for _, i in data.train_dataloader().sampler] + list(
            data.train_dataloader()
        )

    for rank in range(2):
        for plain, cached in zip(batches(rank, 2), batches(rank, 2, cache="auto", num_workers=rank), strict=True):
            if isinstance(plain, str):
                assert plain == cached
            else:
                assert plain.ids == cached.ids
                assert torch.equal(plain.images, cached.images)
                assert torch.equal(plain.points, cached.points)
                assert torch.equal(plain.mesh.vertices, cached.mesh.vertices)


def test_samples_may_be_written_to_and_the_dataset_travels(root: Path) -> None:
    dataset = data_of(root, cache="auto").dataset("train")
    before = dataset[0]
    for value in leaves(list(dataset[0].values())):
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert_same([before], [dataset[0]])
    again = pickle.loads(pickle.dumps(dataset))
    assert_same([before], [again[0]])
    assert len(pickle.dumps(again)) < 20_000  # no arrays


def _rewrite(path: Path, **changes: np.ndarray) -> None:
    arrays = readers.files.read_npz(path)
    path.write_bytes(readers.files.npz_bytes({**arrays, **changes}))


@pytest.mark.parametrize("kept", ["nothing", "size"])
def test_a_changed_file_is_read_anew(root: Path, kept: str, capfd: pytest.CaptureFixture[str]) -> None:
    data_of(root, cache="auto").dataset("train")
    chair = data_of(root).items["train"][0]
    if kept == "nothing":
        points = readers.read_cloud(chair.folder / "pointcloud.npz")["points"]
        _rewrite(chair.folder / "pointcloud.npz", points=points[::-1].copy())
    else:  # a picture of as many bytes
        picture = chair.folder / "views" / "001.png"
        stat, rgba = picture.stat(), readers.files.read_png(picture)
        shutil.copy(chair.folder / "views" / "002.png", picture)
        padding = stat.st_size - picture.stat().st_size
        data = picture.read_bytes()
        picture.write_bytes(data + bytes(padding) if padding > 0 else readers.files.png_bytes(rgba[::-1].copy()))
        os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    capfd.readouterr()
    assert_same(samples_of(data_of(root)), samples_of(data_of(root, cache="auto")))
    kind = "surface" if kept == "nothing" else "pictures"
    said = capfd.readouterr().err
    assert f"{chair.category}.train.{kind}.decoded was made of another state of the dataset" in said
    assert said.count("\n") == 1


def test_changed_lists_are_read_anew(root: Path) -> None:
    data_of(root, cache="auto").dataset("train")
    names = (root / "chair" / "train.lst").read_text().split()
    (root / "chair" / "train.lst").write_text("\n".join(names[::-1][:1]))
    assert_same(samples_of(data_of(root)), samples_of(data_of(root, cache="auto")))
    (root / "chair" / "train.lst").write_text("\n".join([*names, names[0]]))  # named twice
    assert_same(samples_of(data_of(root)), samples_of(data_of(root, cache="auto")))


@pytest.mark.parametrize("damage", ["empty", "short", "cut", "tail", "table", "garbage"])
def test_a_damaged_cache_is_named_and_made_again(root: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    plain = samples_of(data_of(root))
    data_of(root, cache="auto").dataset("train")
    path = root / ".decoded" / "lamp.train.surface.decoded"
    good = path.read_bytes()
    bad = {
        "empty": b"",
        "short": good[:10],
        "cut": good[: len(good) // 2],
        "tail": good[:-1],
        "table": good[:-40] + bytes([good[-40] ^ 1]) + good[-39:],
        "garbage": b"x" * len(good),
    }[damage]
    path.unlink()  # what is mapped stays as it was
    path.write_bytes(bad)
    capfd.readouterr()
    assert_same(plain, samples_of(data_of(root, cache="auto")))
    said = capfd.readouterr().err
    assert "lamp.train.surface.decoded is damaged" in said
    assert said.count("\n") == 1
    assert path.read_bytes() == good


def test_a_flipped_bit_is_found_by_data_check(root: Path) -> None:
    data_of(root, cache="auto").dataset("train")
    assert check(root).ok
    path = root / ".decoded" / "chair.train.pictures.decoded"
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    problem = check(root).problems
    assert len(problem) == 1
    assert str(path) in problem[0]
    assert "delete it" in problem[0]
    path.write_bytes(b"x")
    assert "is damaged (cut off)" in check(root).problems[0]
