"""A small built dataset, made once per test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconlab.datasets.builder import build_synth
from reconlab.datasets.content import Sizes

TINY = Sizes(views=3, image_size=48, points=500, queries=2000)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chairs and lamps, four each. Do not change it: copy it first."""
    root = tmp_path_factory.mktemp("tiny") / "data"
    report = build_synth(root, ["chair", "lamp"], 4, seed=3, sizes=TINY, fractions=(0.5, 0.25, 0.25), progress=False)
    assert report.ok
    return root
