"""`check` finds each kind of damage and names the file; published archives pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reconlab.datasets import format as files
from reconlab.datasets.check import check
from reconlab.errors import ReconlabError


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_root, tmp_path / "data")
    return tmp_path / "data"


def test_a_fresh_build_has_no_problems(tiny_root: Path) -> None:
    report = check(tiny_root)
    assert report.problems == []
    assert report.shapes == 8
    assert "8 shapes checked, 0 problems" in report.summary()


def _truncate(root: Path) -> str:
    path = root / "chair" / "chair_00001" / "views" / "001.png"
    path.write_bytes(path.read_bytes()[:40])
    return "chair_00001/views/001.png differs"


def _lose(root: Path) -> str:
    (root / "lamp" / "lamp_00000" / "points.npz").unlink()
    return "lamp_00000/points.npz is missing"


def _lose_shape(root: Path) -> str:
    shutil.rmtree(root / "lamp" / "lamp_00002")
    return "lamp_00002 does not exist"


def _lose_list(root: Path) -> str:
    (root / "chair" / "val.lst").unlink()
    return "val.lst is missing"


def _twice(root: Path) -> str:
    name = files.read_list(root / "chair" / "train.lst")[0]
    (root / "chair" / "test.lst").write_text(name + "\n")
    return "which train.lst of this category names too"


def _spoil_sums(root: Path) -> str:
    (root / "chair" / "chair_00000" / "checksums.json").write_text("{")
    return "checksums.json cannot be read"


def _add_picture(root: Path) -> str:
    folder = root / "chair" / "chair_00000" / "views"
    shutil.copy(folder / "000.png", folder / "009.png")
    return "009.png is not among the checksums"


def _not_finite(root: Path) -> str:
    folder = root / "chair" / "chair_00000"
    arrays = files.read_npz(folder / "pointcloud.npz")
    arrays["points"][3, 1] = np.nan
    (folder / "pointcloud.npz").write_bytes(files.npz_bytes(arrays))
    (folder / "checksums.json").unlink()  # as in a published archive
    return "points has numbers that are not finite"


def _camera_short(root: Path) -> str:
    folder = root / "chair" / "chair_00000"
    arrays = files.read_npz(folder / "views" / "cameras.npz")
    (folder / "views" / "cameras.npz").write_bytes(files.npz_bytes({k: v[:2] for k, v in arrays.items()}))
    (folder / "checksums.json").unlink()
    return "has 2 cameras, but"


def _bad_voxels(root: Path) -> str:
    folder = root / "chair" / "chair_00000"
    (folder / "model.binvox").write_bytes(b"#binvox 1\ndim 32 32 32\ndata\n\x01\x05")
    (folder / "checksums.json").unlink()
    return "model.binvox is not a readable binvox file"


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _lose,
        _lose_shape,
        _lose_list,
        _twice,
        _spoil_sums,
        _add_picture,
        _not_finite,
        _camera_short,
        _bad_voxels,
    ],
)
def test_damage_is_named(root: Path, damage: Callable[[Path], str]) -> None:
    expected = damage(root)
    report = check(root)
    assert not report.ok
    assert any(expected in p for p in report.problems), report.problems


def test_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(ReconlabError, match="does not exist"):
        check(tmp_path / "nothing")
    with pytest.raises(ReconlabError, match="no category folder"):
        check(tmp_path)


def test_round_trips(tmp_path: Path) -> None:
    grid = np.random.default_rng(0).random((32, 32, 32)) > 0.7
    grid[4:20] = True  # runs longer than 255
    (tmp_path / "a.binvox").write_bytes(files.binvox_bytes(grid))
    assert np.array_equal(files.read_binvox(tmp_path / "a.binvox"), grid)
    assert np.array_equal(files.unpack_occupancies(np.packbits(grid.reshape(-1)[:13]), 13), grid.reshape(-1)[:13])
    assert np.array_equal(files.unpack_occupancies(grid.reshape(-1)[:13], 13), grid.reshape(-1)[:13])
    rgba = np.random.default_rng(1).integers(0, 256, (5, 5, 4), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(files.png_bytes(rgba))
    assert np.array_equal(files.read_png(tmp_path / "a.png"), rgba)


def test_binvox_agrees_with_trimesh(tmp_path: Path) -> None:
    binvox = pytest.importorskip("trimesh.exchange.binvox")
    grid = np.zeros((8, 8, 8), bool)
    grid[1, 2, 3] = grid[5, 2, 7] = True
    (tmp_path / "a.binvox").write_bytes(files.binvox_bytes(grid))
    with (tmp_path / "a.binvox").open("rb") as file:
        theirs = binvox.load_binvox(file, axis_order="xzy")
    assert np.array_equal(theirs.matrix, grid)
