"""Dimensions that an airplane's parts share."""

from __future__ import annotations

import dataclasses

import numpy as np

from reconlab.datasets.synth.parts import Color
from reconlab.datasets.synth.primitives import Array


@dataclasses.dataclass
class Plane:
    """Lengths in units of the fuselage's length; nose at z = -0.5, tail at +0.5."""

    kind: str
    radius: float
    paint: Color
    accent: Color
    droop: float  # how far the nose tip lies below the axis
    rise: float  # how far the tail tip lies above the axis
    nose: float  # length of the nose's rounding
    tail: float  # length of the tail's taper
    tip: float = 0.12  # radius of the tail tip, in radii

    def centre(self, z: float) -> Array:
        """Centre of the fuselage section at z."""
        n = np.clip((self.nose - (z + 0.5)) / self.nose, 0, 1)
        t = np.clip((z - (0.5 - self.tail)) / self.tail, 0, 1)
        return np.array([0.0, -self.droop * n**2 + self.rise * t**1.3, z])

    def size(self, z: float) -> float:
        """Radius of the fuselage section at z."""
        n = np.clip((self.nose - (z + 0.5)) / self.nose, 0, 1)
        t = np.clip((z - (0.5 - self.tail)) / self.tail, 0, 1)
        front = np.sqrt(max(1 - n**2, 0.0)) if self.kind != "fighter" else (1 - n) ** 0.7
        return float(self.radius * front * (1 - (1 - self.tip) * t**1.6))


@dataclasses.dataclass
class Wing:
    """Plan of the right wing."""

    root: Array  # leading edge at the root
    tip: Array
    root_chord: float
    tip_chord: float
    thickness: float

    def leading(self, u: float) -> Array:
        """Leading edge at the span fraction u."""
        return self.root + u * (self.tip - self.root)

    def chord(self, u: float) -> float:
        """Chord at the span fraction u (without the root's kink)."""
        return self.root_chord + u * (self.tip_chord - self.root_chord)
