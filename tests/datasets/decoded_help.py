"""What the tests of the decoded cache share: a dataset's samples, and whether two of them are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reconlab.batch import NEEDS
from reconlab.datasets import readers
from reconlab.datasets.datamodule import ReconstructionData

EVERYTHING = tuple(NEEDS)


def data_of(root: Path, needs: Any = EVERYTHING, stage: str = "fit", **kwargs: Any) -> ReconstructionData:
    settings: dict[str, Any] = {"image_size": 40, "batch_size": 3, "points": 100, "queries": 64, "views": 2}
    data = ReconstructionData(str(root), **{**settings, **kwargs})
    data.require(needs, "a test")
    data.setup(stage)
    return data


def samples_of(data: ReconstructionData, split: str = "train") -> list[dict[str, Any]]:
    dataset = data.dataset(split)
    return [dataset[epoch, i] for epoch in (0, 3) for i in range(len(dataset))]


def leaves(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for part in value for leaf in leaves(part)]
    if hasattr(value, "focal"):
        return [value.R, value.t, value.focal, value.centre]
    return [value]


def assert_same(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    assert len(a) == len(b) > 0
    for left, right in zip(a, b, strict=True):
        assert list(left) == list(right)
        for x, y in zip(leaves(list(left.values())), leaves(list(right.values())), strict=True):
            if isinstance(x, torch.Tensor):
                assert x.dtype == y.dtype
                assert torch.equal(x, y)
            else:
                assert x == y


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no file of a shape is read."""

    def refuse(path: Path, *names: str) -> Any:
        raise AssertionError(f"{path} was read")

    for name in ("read_npz", "read_png", "read_binvox"):
        monkeypatch.setattr(readers.files, name, refuse)
