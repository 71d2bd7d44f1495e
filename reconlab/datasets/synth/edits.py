"""Edits of single parts, in the shape's own frame: nothing else moves and nothing is normalised again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from reconlab.datasets.synth.parts import Part, SynthShape
from reconlab.datasets.synth.primitives import Array, unit
from reconlab.errors import ReconlabError

Names = str | Sequence[str]


def _apply(shape: SynthShape, names: Sequence[str], change: Callable[[Part], Part]) -> SynthShape:
    return dataclasses.replace(shape, parts=tuple(change(p) if p.name in names else p for p in shape.parts))


def remove_part(shape: SynthShape, names: Names) -> SynthShape:
    """Take parts away, with what hangs on them (a leg's castor, a wheel's rim).

    Args:
        shape: the shape; it is not changed.
        names: a part's name, a glob pattern (``bar_*``) or several.

    Returns:
        A new shape. `normalized()` on it fits the bounding box anew.

    Raises:
        ReconlabError: a name matches no part, or nothing would be left.
    """
    chosen = shape.select(names)
    gone = {*chosen, *shape.followers(chosen)}
    rest = tuple(p for p in shape.parts if p.name not in gone)
    if not rest:
        raise ReconlabError(f"Removing {', '.join(sorted(gone))} would leave nothing of this {shape.category}.")
    return dataclasses.replace(shape, parts=rest)


def thicken(shape: SynthShape, names: Names, factor: float) -> SynthShape:
    """Scale the cross-section of bars, or the thickness of plates, by `factor` about their core.

    Args:
        shape: the shape; it is not changed.
        names: a part's name, a glob pattern (``leg_*``) or several.
        factor: > 1 thicker, < 1 thinner.

    Raises:
        ReconlabError: the factor is not positive or a name matches no part.
    """
    _positive(factor)
    return _apply(
        shape, shape.select(names), lambda p: dataclasses.replace(p, vertices=p.core + factor * (p.vertices - p.core))
    )


def lengthen(shape: SynthShape, names: Names, factor: float) -> SynthShape:
    """Scale parts' length by `factor`; the attached end stays, the far end moves, the section is kept.

    Legs grow downwards out of the seat along their own direction, so bars between them stay attached as long
    as the leg still reaches them; what hangs on the leg (a castor) moves with it.

    Args:
        shape: the shape; it is not changed.
        names: a part's name, a glob pattern (``leg_*``) or several.
        factor: > 1 longer, < 1 shorter.

    Raises:
        ReconlabError: the factor is not positive or a name matches no part.
    """
    _positive(factor)

    for name in shape.select(names):
        part = shape[name]
        reach = part.core - part.anchor
        d = reach[np.argmax(np.einsum("ij,ij->i", reach, reach))] if part.axis is None else part.axis
        if not np.any(d):
            continue
        d = unit(d)
        along = reach @ d
        shift = (factor - 1) * along[:, None] * d
        longer = dataclasses.replace(part, vertices=part.vertices + shift, core=part.core + shift)
        moved = {name: longer}
        for other in shape.followers([name]):
            p = shape[other]
            at = float(np.clip((p.core.mean(0) - part.anchor) @ d, 0.0, along.max()))
            moved[other] = p.moved(1.0, (factor - 1) * at * d)
        shape = dataclasses.replace(shape, parts=tuple(moved.get(p.name, p) for p in shape.parts))
    return shape


def move_part(shape: SynthShape, names: Names, offset: ArrayLike) -> SynthShape:
    """Shift parts, with what hangs on them, by `offset` (3,) in the shape's frame (y up, front towards -z).

    Args:
        shape: the shape; it is not changed.
        names: a part's name, a glob pattern (``bar_*``) or several.
        offset: (3,), object units (the shape's diagonal is 1).
    """
    o = np.asarray(offset, float)
    chosen = shape.select(names)
    return _apply(shape, [*chosen, *shape.followers(chosen)], lambda p: p.moved(1.0, o))


def bend_back(shape: SynthShape, degrees: float) -> SynthShape:
    """Bend a chair's back backwards about the seat's rear edge, along an arc.

    Args:
        shape: a chair with parts of kind ``back``; it is not changed.
        degrees: turn of the tangent at the top; negative bends forwards.

    Raises:
        ReconlabError: the shape has no back.
    """
    names = [p.name for p in shape.parts if p.kind == "back"]
    if not names:
        raise ReconlabError(f"This {shape.category} has no back to bend.")
    low = min(float(shape[n].vertices[:, 1].min()) for n in names)
    high = max(float(shape[n].vertices[:, 1].max()) for n in names)
    if "seat" in shape.names:
        low = float(np.clip(shape["seat"].bounds[1, 1], low, 0.9 * high + 0.1 * low))
    curvature = np.radians(degrees) / (high - low)

    def bend(p: Array) -> Array:
        s = np.maximum(p[:, 1] - low, 0.0)  # height above the hinge = arc length
        a = curvature * s
        arc_y = s * np.sinc(a / np.pi)
        arc_z = s * np.sin(a / 2) * np.sinc(a / (2 * np.pi))
        zero = float(hinge)
        out = p.copy()
        out[:, 1] = np.where(s > 0, low + arc_y - np.sin(a) * (p[:, 2] - zero), p[:, 1])
        out[:, 2] = np.where(s > 0, zero + arc_z + np.cos(a) * (p[:, 2] - zero), p[:, 2])
        return out

    near = np.concatenate([shape[n].core for n in names])
    hinge = near[np.argsort(np.abs(near[:, 1] - low))[:8], 2].mean()
    return _apply(shape, names, lambda p: dataclasses.replace(p, vertices=bend(p.vertices), core=bend(p.core)))


def _positive(factor: float) -> None:
    if not factor > 0:
        raise ReconlabError(f"factor is {factor}: choose a number > 0.")
