"""The decoded cache: made once by whoever comes first, and a sentence where it cannot be kept."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reconlab.cli.data import main
from reconlab.datasets import decode as making
from reconlab.datasets import decoded
from reconlab.datasets.decoded import Shard, UnusableError, write_shard
from reconlab.datasets.loading import collate
from reconlab.errors import ReconlabError
from tests.datasets.decoded_help import EVERYTHING, assert_same, data_of, forbid_reading, samples_of


def test_bytes_are_said_before_anything_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(making, "write_shard", lambda *a: said.append(capfd.readouterr().err))
    with pytest.raises(ReconlabError, match="was changed during the run"):
        samples_of(data_of(root, ("images",), cache="auto"))
    pictures = sum(len(list(i.folder.glob("views/*.png"))) for i in data_of(root).items["train"])
    size = pictures * 48 * 48 * 4
    assert f"making the decoded cache {root / '.decoded'}, about {size / 1000:.3g} kB, once." in said[0]
    monkeypatch.undo()
    data_of(root, ("images",), cache="auto").dataset("train")
    stored = sum(p.stat().st_size for p in (root / ".decoded").glob("*.decoded"))
    assert size <= stored < 1.02 * size


def _make(root: str, ready: Any, out: Any) -> None:
    """In another process: all begin at once."""
    data = data_of(Path(root))
    data.cache = "auto"
    built: list[str] = []
    write = making.write_shard

    def counted(path: Path, *rest: Any) -> None:
        built.append(path.name)
        write(path, *rest)

    making.write_shard = counted  # type: ignore[assignment]
    ready.wait()
    samples = samples_of(data)
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
    plain = [float(collate([s]).images.double().sum()) for s in samples_of(data_of(root))]
    assert results[0][1] == plain
    assert not list((root / ".decoded").glob(".*.tmp"))


def test_a_killed_process_leaves_nothing_that_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def kill(*_: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(decoded.files, "sync_folder", kill)
    with pytest.raises(KeyboardInterrupt):
        data_of(root, cache="auto").dataset("train")
    monkeypatch.undo()
    (root / ".decoded" / ".chair.train.mesh.decoded.host.1.tmp").write_bytes(b"half")
    kept = {p.name: p.stat().st_mtime_ns for p in (root / ".decoded").glob("*.decoded")}
    assert len(kept) == 3
    assert_same(samples_of(data_of(root)), samples_of(data_of(root, cache="auto")))
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
    plain = samples_of(data_of(root))

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
    data = data_of(root, cache=str(tmp_path / "cache") if given else "auto")
    capfd.readouterr()
    if given:
        with pytest.raises(ReconlabError, match=rf"The decoded cache .* cannot be written \(.*{why[trouble]}"):
            data.dataset("train")
    else:
        assert_same(plain, samples_of(data))
        said = capfd.readouterr().err.splitlines()
        assert f"no decoded cache, since {root / '.decoded'} cannot be written" in said[-1]
    monkeypatch.undo()
    place = tmp_path / "cache" if given else root
    assert not [p for p in place.rglob("*") if ".train." in p.name]


def test_a_read_only_dataset_with_a_cache_uses_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = samples_of(data_of(root))
    data_of(root, cache="auto").dataset("train")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    forbid_reading(monkeypatch)
    assert_same(plain, samples_of(data_of(root, cache="auto")))


def test_datasets_do_not_share_a_given_folder(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "other" / "data")
    for each in (root, tmp_path / "other" / "data", root):
        data_of(each, cache=str(tmp_path / "cache")).dataset("val")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_bad_files_are_named_before_the_first_step(root: Path) -> None:
    path = data_of(root).items["train"][1].folder / "points.npz"
    path.write_bytes(b"x")
    with pytest.raises(ReconlabError, match=r"points\.npz cannot be read"):
        data_of(root, cache="auto").dataset("train")


def test_replaced_during_the_run(root: Path) -> None:
    dataset = data_of(root, cache="auto").dataset("train")
    shutil.rmtree(root / ".decoded")
    with pytest.raises(ReconlabError, match="was changed during the run"):
        dataset[0]


def test_the_command_makes_what_a_run_reads(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", str(root), "--needs", *EVERYTHING, "--splits", "train"]) == 0
    assert capsys.readouterr().out.startswith("train: 4 shapes, ")
    plain = samples_of(data_of(root))
    forbid_reading(monkeypatch)
    assert_same(plain, samples_of(data_of(root, cache="auto")))
    with pytest.raises(ReconlabError, match="needs 'colour', which no batch has"):
        main(["cache", str(root), "--needs", "colour"])


def test_the_command_says_where_it_cannot(root: Path) -> None:
    (root / ".decoded").write_text("a file")
    with pytest.raises(ReconlabError, match=r"no decoded cache of .*give --out a folder"):
        main(["cache", str(root)])


@pytest.mark.parametrize("given", [False, True])
def test_pruning_removes_what_no_run_reads(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    cache = str(tmp_path / "cache") if given else "auto"
    for split in ("train", "val"):
        data_of(root, cache=cache).dataset(split)
    data_of(root, ("voxels",), cache=cache, resolution=16).dataset("train")
    place = next((tmp_path / "cache").iterdir()) if given else root / ".decoded"
    before = {path.name for path in place.glob("*.decoded")}
    assert main(["cache", str(root), "--prune", "--out", cache]) == 0
    assert capsys.readouterr().out == "0 files removed, 0.0 MB.\n"
    category = data_of(root).items["train"][0].category
    listed = root / category / "train.lst"
    listed.write_text("\n".join(listed.read_text().split()[:-1]) + "\n")  # its shards are of another list now
    whole = (place / f"{category}.val.mesh.decoded").read_bytes()
    (place / f"{category}.val.mesh.decoded").write_bytes(whole[:-9])
    (place / "gone.train.mesh.decoded").write_bytes(whole)
    (place / "odd.decoded").write_bytes(b"x")
    (place / f".{category}.val.mesh.decoded.host.1.tmp").write_bytes(b"half")
    (place / "mine.txt").write_text("not ours")
    assert main(["cache", str(root), "--prune", "--out", cache]) == 0
    said = capsys.readouterr().out
    lost = {name for name in before if name.startswith(f"{category}.train.")} | {f"{category}.val.mesh.decoded"}
    assert {path.name for path in place.glob("*.decoded")} == before - lost
    assert not list(place.glob(".*.tmp"))
    assert (place / "mine.txt").is_file()
    assert f"{place / 'odd.decoded'}: removed, 0.0 MB." in said
    assert f"{len(lost) + 3} files removed, " in said
    kept = {item.category for item in data_of(root).items["val"]} - {category}
    assert all((place / f"{other}.val.mesh.decoded").is_file() for other in kept), "the rest is read as it was"


def test_pruning_where_there_is_nothing(root: Path) -> None:
    with pytest.raises(ReconlabError, match=r"There is no decoded cache .*\.decoded"):
        main(["cache", str(root), "--prune"])
    with pytest.raises(ReconlabError, match="--prune looks at the whole cache: leave --categories out"):
        main(["cache", str(root), "--prune", "--categories", "chair"])


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
