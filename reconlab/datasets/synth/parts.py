"""`Part` and `SynthShape`: a procedural shape as a list of named, closed, coloured solids."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reconlab.datasets.synth.primitives import Array, Index, Solid
from reconlab.errors import ReconlabError, optional_import

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One closed, outward-oriented solid of a shape.

    Attributes:
        name: unique in the shape: leg_0, bar_1, back_slat_2, arm_left.
        vertices: (V, 3) float64.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        color: RGB, 0 to 255.
        kind: what the part is: leg, bar, seat, back, arm, wheel, body, window, wing, shade...
        core: (V, 3) skeleton or mid-surface point of every vertex (see `primitives`).
        anchor: (3,) where the part is attached; lengthening keeps it in place.
        axis: (3,) unit direction of lengthening; None: from the anchor to the farthest core point.
        follows: name of the part that this one hangs on (a castor on its leg, a rim on its wheel), or None.
    """

    name: str
    vertices: Array
    faces: Index
    color: Color
    kind: str
    core: Array
    anchor: Array
    axis: Array | None = None
    follows: str | None = None

    def moved(self, scale: float, offset: ArrayLike) -> Part:
        """Scale about the origin, then shift."""
        o = np.asarray(offset, float)
        return dataclasses.replace(
            self,
            vertices=self.vertices * scale + o,
            core=self.core * scale + o,
            anchor=self.anchor * scale + o,
        )

    @property
    def bounds(self) -> Array:
        """(2, 3) lowest and highest corner."""
        return np.stack([self.vertices.min(0), self.vertices.max(0)])


@dataclasses.dataclass(frozen=True, eq=False)
class SynthShape:
    """A procedural shape: y up, front towards -z, bounding box centred at 0 with diagonal 1 when generated.

    Attributes:
        category: airplane, car, chair or lamp.
        seed: what it was generated from.
        params: the choices made; `params["kind"]` is the sub-kind, a label for classification.
        parts: named solids; they may overlap, the shape is their union.
    """

    category: str
    seed: int
    params: dict[str, Any]
    parts: tuple[Part, ...]

    def __getitem__(self, name: str) -> Part:
        """The part called `name`."""
        for part in self.parts:
            if part.name == name:
                return part
        raise ReconlabError(f"This {self.category} has no part {name!r}; its parts are {', '.join(self.names)}.")

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    @property
    def names(self) -> list[str]:
        """Names of all parts, in order."""
        return [part.name for part in self.parts]

    def select(self, names: str | Sequence[str]) -> list[str]:
        """Resolve a name, a glob pattern (``leg_*``) or several; raise if one matches nothing."""
        wanted = [names] if isinstance(names, str) else list(names)
        found: list[str] = []
        for pattern in wanted:
            hits = [n for n in self.names if fnmatch.fnmatchcase(n, pattern)]
            if not hits:
                raise ReconlabError(
                    f"This {self.category} has no part {pattern!r}; its parts are {', '.join(self.names)}."
                )
            found += [n for n in hits if n not in found]
        return found

    def followers(self, names: Sequence[str]) -> list[str]:
        """Names of the parts that hang on any of `names`, directly or through others."""
        found: list[str] = []
        for part in self.parts:  # a part always stands after the one that it follows
            if part.follows in names or part.follows in found:
                found.append(part.name)
        return [n for n in found if n not in names]

    @property
    def bounds(self) -> Array:
        """(2, 3) lowest and highest corner of all parts."""
        b = np.stack([part.bounds for part in self.parts])
        return np.stack([b[:, 0].min(0), b[:, 1].max(0)])

    def normalized(self) -> SynthShape:
        """Copy with the bounding box centred at 0 and its diagonal 1."""
        low, high = self.bounds
        scale = 1.0 / float(np.linalg.norm(high - low))
        offset = -scale * (low + high) / 2
        return dataclasses.replace(self, parts=tuple(p.moved(scale, offset) for p in self.parts))

    def mesh(self) -> tuple[NDArray[np.float32], Index, NDArray[np.uint8]]:
        """All parts as one triangle soup of closed pieces.

        Returns:
            vertices (V, 3) float32, faces (F, 3) int64, face colours (F, 3) uint8.
        """
        start = np.cumsum([0, *(len(p.vertices) for p in self.parts)])
        vertices = np.concatenate([p.vertices for p in self.parts]).astype(np.float32)
        faces = np.concatenate([p.faces + s for p, s in zip(self.parts, start, strict=False)])
        colors = np.concatenate([np.broadcast_to(np.array(p.color, np.uint8), (len(p.faces), 3)) for p in self.parts])
        return vertices, faces, colors

    def part_index(self) -> NDArray[np.int64]:
        """(F,) index into `parts` of every face of `mesh()`."""
        return np.repeat(np.arange(len(self.parts)), [len(p.faces) for p in self.parts])

    def occupancy(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Whether each of `points` (N, 3) lies inside any part; exact on the closed parts."""
        from reconlab.datasets.synth.occupancy import inside_parts

        return inside_parts([(p.vertices, p.faces) for p in self.parts], np.asarray(points, float))

    def union(self) -> tuple[NDArray[np.float32], Index]:
        """The parts' union as one watertight surface, without anything inside.

        Returns:
            vertices (V, 3) float32, faces (F, 3) int64.

        Raises:
            ReconlabError: manifold3d (extra ``eval``) is not installed.
        """
        manifold3d = optional_import("manifold3d", "eval", "The union of a shape's parts")
        solids = [
            manifold3d.Manifold(
                manifold3d.Mesh64(
                    np.ascontiguousarray(p.vertices, np.float64), np.ascontiguousarray(p.faces, np.uint64)
                )
            )
            for p in self.parts
        ]
        mesh = manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add).to_mesh64()
        return (
            np.asarray(mesh.vert_properties)[:, :3].astype(np.float32),
            np.asarray(mesh.tri_verts).astype(np.int64),
        )


class Builder:
    """Collects parts while a generator builds a shape in metres."""

    def __init__(self, category: str, seed: int) -> None:
        self.category = category
        self.seed = seed
        self.params: dict[str, Any] = {}
        self.parts: list[Part] = []

    def add(
        self,
        name: str,
        solid: Solid,
        color: Color,
        kind: str | None = None,
        anchor: ArrayLike | None = None,
        axis: ArrayLike | None = None,
        follows: str | None = None,
    ) -> None:
        """Add a part; `kind` defaults to the name without its number, `anchor` to the highest core point."""
        if kind is None:
            kind = name.rstrip("0123456789").rstrip("_")
        top = solid.core[np.argmax(solid.core[:, 1])] if anchor is None else np.asarray(anchor, float)
        way = None if axis is None else np.asarray(axis, float)
        self.parts.append(Part(name, solid.vertices, solid.faces, color, kind, solid.core, top, way, follows))

    def pair(
        self, name: str, solid: Solid, color: Color, kind: str | None = None, follows: str | None = None
    ) -> None:
        """Add a part at +x as `name_right` and its mirror image as `name_left`; `follows` gets the same ending."""
        kind = kind or name.rstrip("0123456789").rstrip("_")
        for side, half in (("right", solid), ("left", solid.mirrored())):
            self.add(f"{name}_{side}", half, color, kind, follows=f"{follows}_{side}" if follows else None)

    def shape(self) -> SynthShape:
        """The normalised shape."""
        return SynthShape(self.category, self.seed, self.params, tuple(self.parts)).normalized()


class Dice:
    """Draws from a NumPy PCG64 generator, returning plain Python values.

    Args:
        rng: the generator.
        stratum: number in [0, 1) that decides the kind; from a low-discrepancy sequence over the seeds, so
            that even a small set has every kind in its proportion.
    """

    def __init__(self, rng: np.random.Generator, stratum: float) -> None:
        self.rng = rng
        self.stratum = stratum

    def kind(self, weights: dict[str, float]) -> str:
        """The sub-kind that the seed's stratum falls into."""
        return _choose(weights, self.stratum)

    def number(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return float(low + (high - low) * self.rng.random())

    def integer(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return bool(self.rng.random() < probability)

    def pick(self, weights: dict[str, float]) -> str:
        """A key of `weights`, in proportion to its weight."""
        return _choose(weights, float(self.rng.random()))

    def color(self, palette: Sequence[Color], jitter: int = 12) -> Color:
        """A colour of `palette`, varied in brightness and a little in hue by about `jitter` levels."""
        base = np.array(palette[int(self.rng.integers(len(palette)))], float)
        shift = self.rng.uniform(-jitter, jitter) + self.rng.uniform(-jitter / 3, jitter / 3, 3)
        r, g, b = (int(v) for v in np.clip(np.round(base + shift), 0, 255))
        return r, g, b


def _choose(weights: dict[str, float], u: float) -> str:
    w = np.array(list(weights.values()))
    edge = np.cumsum(w) / w.sum()
    return list(weights)[min(int(np.searchsorted(edge, u, "right")), len(w) - 1)]


def shade(color: Color, factor: float) -> Color:
    """Darker (< 1) or lighter (> 1) version of a colour."""
    r, g, b = (int(min(255, max(0, round(c * factor)))) for c in color)
    return r, g, b


WOOD: tuple[Color, ...] = ((150, 100, 60), (181, 134, 84), (110, 68, 40), (205, 170, 120), (80, 50, 34))
METAL: tuple[Color, ...] = ((170, 172, 178), (120, 122, 128), (60, 61, 66), (196, 190, 176))
FABRIC: tuple[Color, ...] = (
    (150, 60, 55), (60, 90, 140), (90, 120, 80), (190, 175, 150), (70, 70, 78), (200, 150, 60), (110, 80, 120),
)  # fmt: skip
PLASTIC: tuple[Color, ...] = ((225, 225, 222), (40, 42, 46), (200, 60, 50), (240, 190, 60), (70, 140, 160))
BRASS: tuple[Color, ...] = ((190, 150, 80), (160, 120, 60), (120, 90, 60))
GLASS: Color = (52, 64, 78)
RUBBER: Color = (34, 34, 36)
