"""Embedded data: seeded procedural airplanes, cars, chairs and lamps, made of editable closed parts."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module

import numpy as np

from reconlab.datasets.synth.edits import bend_back, lengthen, move_part, remove_part, thicken
from reconlab.datasets.synth.parts import Builder, Dice, Part, SynthShape
from reconlab.errors import ReconlabError

CATEGORIES = ("airplane", "car", "chair", "lamp")

__all__ = [
    "CATEGORIES",
    "Part",
    "SynthShape",
    "bend_back",
    "generate",
    "lengthen",
    "move_part",
    "remove_part",
    "thicken",
]


def generate(category: str, seed: int) -> SynthShape:
    """Make the shape number `seed` of a category; the same arguments always give the same shape.

    Args:
        category: airplane, car, chair or lamp.
        seed: any integer >= 0.

    Returns:
        The shape, y up, front towards -z, bounding box centred at 0 with diagonal 1.

    Raises:
        ReconlabError: unknown category or negative seed.

    >>> generate("chair", 0).category
    'chair'
    """
    if category not in CATEGORIES:
        raise ReconlabError(f"Unknown category {category!r}: choose one of {', '.join(CATEGORIES)}.")
    if seed < 0:
        raise ReconlabError(f"seed is {seed}: choose an integer >= 0.")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([zlib.crc32(category.encode()), seed])))
    builder = Builder(category, seed)
    build: Callable[[Builder, Dice], None] = import_module(f"reconlab.datasets.synth.{category}").build
    stratum = (0.5 + seed * 0.6180339887498949) % 1.0  # golden-ratio sequence: evenly spread in any run of seeds
    build(builder, Dice(rng, stratum))
    return builder.shape()
