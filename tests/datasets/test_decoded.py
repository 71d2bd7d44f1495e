"""The decoded cache: the same samples, never stale, never half-made, and a sentence where it cannot be kept."""

from __future__ import annotations

import errno
import multiprocessing
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
from reconlab.cli.data import main
from reconlab.datasets import decode as making
from reconlab.datasets import decoded, readers
from reconlab.datasets.check import check
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.datasets.decoded import Shard, UnusableError, write_shard
from reconlab.datasets.loading import collate
from reconlab.errors import ReconlabError

EVERYTHING = tuple(NEEDS)


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_root, tmp_path / "data")
    return tmp_path / "data"


def _data(root: Path, needs: Any = EVERYTHING, stage: str = "fit", **kwargs: Any) -> ReconstructionData:
    settings: dict[str, Any] = {"image_size": 40, "batch_size": 3, "points": 100, "queries": 64, "views": 2}
    data = ReconstructionData(str(root), **{**settings, **kwargs})
    data.require(needs, "a test")
    data.setup(stage)
    return data


def _samples(data: ReconstructionData, split: str = "train") -> list[dict[str, Any]]:
    dataset = data.dataset(split)
    return [dataset[epoch, i] for epoch in (0, 3) for i in range(len(dataset))]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for part in value for leaf in _leaves(part)]
    if hasattr(value, "focal"):
        return [value.R, value.t, value.focal, value.centre]
    return [value]


def _assert_same(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    assert len(a) == len(b) > 0
    for left, right in zip(a, b, strict=True):
        assert list(left) == list(right)
        for x, y in zip(_leaves(list(left.values())), _leaves(list(right.values())), strict=True):
            if isinstance(x, torch.Tensor):
                assert x.dtype == y.dtype
                assert torch.equal(x, y)
            else:
                assert x == y


def _forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no file of a shape is read."""

    def refuse(path: Path, *names: str) -> Any:
        raise AssertionError(f"{path} was read")

    for name in ("read_npz", "read_png", "read_binvox"):
        monkeypatch.setattr(readers.files, name, refuse)


@pytest.mark.parametrize("needs", [*([n] for n in NEEDS), EVERYTHING])
@pytest.mark.parametrize("view", ["random", 1])
def test_samples_are_bit_identical(root: Path, needs: Any, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _samples(_data(root, needs, train_view=view))
    cached = _data(root, needs, train_view=view, cache="auto")
    cached.dataset("train")
    _forbid_reading(monkeypatch)
    _assert_same(plain, _samples(cached))
    _assert_same(plain, _samples(_data(root, needs, train_view=view, cache="auto")))  # and of a second run


@pytest.mark.parametrize(
    "settings",
    [{"view_size": 24}, {"resolution": 8}, {"resolution": 16}, {"points": 900}, {"image_size": 48, "view_size": 48}],
)
def test_settings_that_change_samples_share_one_cache(root: Path, settings: dict[str, Any]) -> None:
    _data(root, cache="auto").dataset("train")
    before = {p.name: p.stat().st_mtime_ns for p in (root / ".decoded").glob("*.train.*")}
    _assert_same(_samples(_data(root, **settings)), _samples(_data(root, cache="auto", **settings)))
    after = {p.name: p.stat().st_mtime_ns for p in (root / ".decoded").glob("*.train.*")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2 * ("resolution" in settings)  # coarser voxels of two categories


def test_every_view_and_each_split(root: Path) -> None:
    for split in ("val", "test"):
        plain, cached = (_data(root, stage="", eval_view="all", cache=c) for c in (None, "auto"))
        _assert_same(_samples(plain, split), _samples(cached, split))
    assert {p.name.split(".")[1] for p in (root / ".decoded").glob("*.decoded")} == {"val", "test"}


def test_published_archives(trees: Any, tmp_path: Path) -> None:
    """JPEG without alpha, cameras of another convention, half precision, 24-bit resampling."""
    needs = ("images", "cameras", "surface", "normals", "occupancy", "voxels")
    plain, cached = (_data(trees.occnet, needs, "test", cache=c) for c in (None, str(tmp_path)))
    _assert_same(_samples(plain, "test"), _samples(cached, "test"))
    assert not (trees.occnet / ".decoded").exists()


def test_workers_and_ranks_see_the_same_batches(root: Path) -> None:
    def batches(rank: int, world: int, **kwargs: Any) -> list[Any]:
        data = _data(root, batch_size=2, **kwargs)
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
    dataset = _data(root, cache="auto").dataset("train")
    before = dataset[0]
    for value in _leaves(list(dataset[0].values())):
        if isinstance(value, torch.Tensor):
            value.zero_()
    _assert_same([before], [dataset[0]])
    again = pickle.loads(pickle.dumps(dataset))
    _assert_same([before], [again[0]])
    assert len(pickle.dumps(again)) < 20_000  # no arrays


def _rewrite(path: Path, **changes: np.ndarray) -> None:
    arrays = readers.files.read_npz(path)
    path.write_bytes(readers.files.npz_bytes({**arrays, **changes}))


@pytest.mark.parametrize("kept", ["nothing", "size"])
def test_a_changed_file_is_read_anew(root: Path, kept: str, capfd: pytest.CaptureFixture[str]) -> None:
    _data(root, cache="auto").dataset("train")
    chair = _data(root).items["train"][0]
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
    _assert_same(_samples(_data(root)), _samples(_data(root, cache="auto")))
    kind = "surface" if kept == "nothing" else "pictures"
    said = capfd.readouterr().err
    assert f"{chair.category}.train.{kind}.decoded was made of another state of the dataset" in said
    assert said.count("\n") == 1


def test_changed_lists_are_read_anew(root: Path) -> None:
    _data(root, cache="auto").dataset("train")
    names = (root / "chair" / "train.lst").read_text().split()
    (root / "chair" / "train.lst").write_text("\n".join(names[::-1][:1]))
    _assert_same(_samples(_data(root)), _samples(_data(root, cache="auto")))
    (root / "chair" / "train.lst").write_text("\n".join([*names, names[0]]))  # named twice
    _assert_same(_samples(_data(root)), _samples(_data(root, cache="auto")))


@pytest.mark.parametrize("damage", ["empty", "short", "cut", "tail", "table", "garbage"])
def test_a_damaged_cache_is_named_and_made_again(root: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    plain = _samples(_data(root))
    _data(root, cache="auto").dataset("train")
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
    _assert_same(plain, _samples(_data(root, cache="auto")))
    said = capfd.readouterr().err
    assert "lamp.train.surface.decoded is damaged" in said
    assert said.count("\n") == 1
    assert path.read_bytes() == good


def test_a_flipped_bit_is_found_by_data_check(root: Path) -> None:
    _data(root, cache="auto").dataset("train")
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


def test_bytes_are_said_before_anything_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(making, "write_shard", lambda *a: said.append(capfd.readouterr().err))
    with pytest.raises(ReconlabError, match="was changed during the run"):
        _samples(_data(root, ("images",), cache="auto"))
    pictures = sum(len(list(i.folder.glob("views/*.png"))) for i in _data(root).items["train"])
    size = pictures * 48 * 48 * 4
    assert f"making the decoded cache {root / '.decoded'}, about {size / 1000:.3g} kB, once." in said[0]
    monkeypatch.undo()
    _data(root, ("images",), cache="auto").dataset("train")
    stored = sum(p.stat().st_size for p in (root / ".decoded").glob("*.decoded"))
    assert size <= stored < 1.02 * size


def _make(root: str, ready: Any, out: Any) -> None:
    """In another process: all begin at once."""
    data = _data(Path(root))
    data.cache = "auto"
    built: list[str] = []
    write = making.write_shard

    def counted(path: Path, *rest: Any) -> None:
        built.append(path.name)
        write(path, *rest)

    making.write_shard = counted  # type: ignore[assignment]
    ready.wait()
    samples = _samples(data)
    out.put((built, [float(collate([s]).images.double().sum()) for s in samples]))


def test_several_processes_make_it_once(root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, out = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_make, args=(str(root), ready, out)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [out.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    built = results[0][0] + results[1][0]
    assert len(built) == len(set(built)) == 2 * len(making.KINDS)
    assert results[0][1] == results[1][1]
    plain = [float(collate([s]).images.double().sum()) for s in _samples(_data(root))]
    assert results[0][1] == plain
    assert not list((root / ".decoded").glob(".*.tmp"))


def test_a_killed_process_leaves_nothing_that_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def kill(*_: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(decoded.files, "sync_folder", kill)
    with pytest.raises(KeyboardInterrupt):
        _data(root, cache="auto").dataset("train")
    monkeypatch.undo()
    (root / ".decoded" / ".chair.train.mesh.decoded.host.1.tmp").write_bytes(b"half")
    kept = {p.name: p.stat().st_mtime_ns for p in (root / ".decoded").glob("*.decoded")}
    assert len(kept) == 3
    _assert_same(_samples(_data(root)), _samples(_data(root, cache="auto")))
    assert kept.items() <= {p.name: p.stat().st_mtime_ns for p in (root / ".decoded").glob("*.decoded")}.items()
    assert not list((root / ".decoded").glob(".*.tmp"))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("trouble", ["read-only", "full before", "full meanwhile"])
def test_where_it_cannot_be_kept(
    root: Path,
    tmp_path: Path,
    given: bool,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    plain = _samples(_data(root))

    def fail(code: int) -> Any:
        def raise_it(*_: Any, **__: Any) -> None:
            raise OSError(code, os.strerror(code))

        return raise_it

    if trouble == "read-only":
        monkeypatch.setattr(Path, "mkdir", fail(errno.EROFS))
    elif trouble == "full before":
        monkeypatch.setattr(making.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    else:
        monkeypatch.setattr(decoded.os, "fsync", fail(errno.ENOSPC))
    why = {
        "read-only": "Read-only",
        "full before": r"it takes about .*, and 1 kB are free",
        "full meanwhile": "No space",
    }
    data = _data(root, cache=str(tmp_path / "cache") if given else "auto")
    capfd.readouterr()
    if given:
        with pytest.raises(ReconlabError, match=rf"The decoded cache .* cannot be written \(.*{why[trouble]}"):
            data.dataset("train")
    else:
        _assert_same(plain, _samples(data))
        said = capfd.readouterr().err.splitlines()
        assert f"no decoded cache, since {root / '.decoded'} cannot be written" in said[-1]
    monkeypatch.undo()
    place = tmp_path / "cache" if given else root
    assert not [p for p in place.rglob("*") if ".train." in p.name]


def test_a_read_only_dataset_with_a_cache_uses_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _samples(_data(root))
    _data(root, cache="auto").dataset("train")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    _forbid_reading(monkeypatch)
    _assert_same(plain, _samples(_data(root, cache="auto")))


def test_datasets_do_not_share_a_given_folder(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "other" / "data")
    for each in (root, tmp_path / "other" / "data", root):
        _data(each, cache=str(tmp_path / "cache")).dataset("val")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_bad_files_are_named_before_the_first_step(root: Path) -> None:
    path = _data(root).items["train"][1].folder / "points.npz"
    path.write_bytes(b"x")
    with pytest.raises(ReconlabError, match=r"points\.npz cannot be read"):
        _data(root, cache="auto").dataset("train")


def test_replaced_during_the_run(root: Path) -> None:
    dataset = _data(root, cache="auto").dataset("train")
    shutil.rmtree(root / ".decoded")
    with pytest.raises(ReconlabError, match="was changed during the run"):
        dataset[0]


def test_the_command_makes_what_a_run_reads(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", str(root), "--needs", *EVERYTHING, "--splits", "train"]) == 0
    assert capsys.readouterr().out.startswith("train: 4 shapes, ")
    plain = _samples(_data(root))
    _forbid_reading(monkeypatch)
    _assert_same(plain, _samples(_data(root, cache="auto")))
    with pytest.raises(ReconlabError, match="needs 'colour', which no batch has"):
        main(["cache", str(root), "--needs", "colour"])


def test_the_command_says_where_it_cannot(root: Path) -> None:
    (root / ".decoded").write_text("a file")
    with pytest.raises(ReconlabError, match=r"no decoded cache of .*give --out a folder"):
        main(["cache", str(root)])


def test_shards_keep_any_array(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [
        [rng.normal(size=(3, 5)).astype(kind) for kind in (np.float16, np.float32, np.float64)],
        [],
        [rng.random((3, 3, 3)) < 0.5, np.zeros(0, bool), np.arange(7, dtype=np.int64), np.float32([2.5])[0:1]],
        [np.zeros((0, 3), np.float32), rng.integers(0, 255, (5, 4, 3, 2), np.uint8)[:, ::-1]],
    ]
    path = tmp_path / "any.decoded"
    write_shard(path, {"fingerprint": "f"}, list("abcd"), parts)
    shard = Shard(path, "f")
    for name, arrays in zip("abcd", parts, strict=True):
        assert shard.count(name) == len(arrays)
        for i, array in enumerate(arrays):
            got = shard.array(name, i)
            assert got.dtype == array.dtype
            assert got.shape == array.shape
            assert np.array_equal(got, array)
    assert shard.damaged() == []
    with pytest.raises(UnusableError, match="another state"):
        Shard(path, "g")
