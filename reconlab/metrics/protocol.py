"""The protocol: everything that must be said beside a number before it can be compared with another one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from reconlab.errors import ReconlabError

Scale = Literal["object", "unit_ball", "unit_edge"]

SCALES: dict[str, str] = {
    "object": "as stored: the true shape's bounding-box diagonal is 1",
    "unit_ball": "both shapes scaled so that the true one's farthest point from its mean is at 1",
    "unit_edge": "both shapes scaled so that the true one's longest bounding-box edge is 1",
}

# The longest distance that two well-placed shapes can have: across the cube of side 1, or across the unit ball.
# A failed prediction is charged this distance by every metric that measures one.
WORST_DISTANCE: dict[str, float] = {"object": math.sqrt(3), "unit_ball": 2.0, "unit_edge": math.sqrt(3)}


@dataclass(frozen=True)
class Protocol:
    """How a number was made. ``as_dict()`` is written beside it.

    Attributes:
        name: Key of the number in logs and tables.
        formula: The definition, in one line; ``P`` is the prediction, ``T`` the truth, ``d`` Euclidean.
        unit: Unit of the raw value (before ``factor``).
        squared: Whether distances are squared; None where there is no distance.
        points: Points compared on each side: a count, ``"all"``, or None where there are none.
        alignment: What is done to the shapes before comparing, besides ``scale``.
        scale: The length that is 1 (a key of :data:`SCALES`).
        threshold: The metric's threshold, in ``scale``'s unit where it is a distance.
        factor: Tables print ``value * factor``. It is applied to printing only, never to a stored value.
        higher_is_better: Direction.
        worst_value: Raw value that a failed prediction is given.
        source: Who defined it so.

    Example:
        >>> from reconlab.metrics import ChamferDistance
        >>> protocol = ChamferDistance("dpc").protocol
        >>> protocol.factor, protocol.squared, protocol.printed(0.0431)
        (100.0, False, '4.31')
    """

    name: str
    formula: str
    unit: str
    squared: bool | None
    points: int | str | None
    alignment: str
    scale: str
    threshold: float | None
    factor: float
    higher_is_better: bool
    worst_value: float
    source: str

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values that JSON and YAML can carry."""
        return asdict(self)

    def printed(self, value: float, digits: int = 2) -> str:
        """The value as tables print it: times the factor, with ``digits`` decimals."""
        return f"{value * self.factor:.{digits}f}"

    @property
    def header(self) -> str:
        """The column title: name, factor and direction.

        Example:
            >>> from reconlab.metrics import ChamferDistance
            >>> ChamferDistance("atlasnet").protocol.header
            'chamfer_atlasnet ×1000 ↓'
        """
        factor = "" if self.factor == 1 else f" ×{self.factor:g}"
        return f"{self.name}{factor} {'↑' if self.higher_is_better else '↓'}"


def scale_factor(points: Tensor, scale: str) -> Tensor:
    """The number by which object units are multiplied to reach ``scale``.

    Distances do not change when both shapes move together, so a scale needs no centre.

    Args:
        points: ``(N, 3)`` all known points of the true surface, object units.
        scale: A key of :data:`SCALES`.

    Returns:
        A scalar of the points' dtype, at least float32.

    Raises:
        ReconlabError: The scale is unknown, or the true shape is a single point.
    """
    if scale not in SCALES:
        raise ReconlabError(f"Unknown scale {scale!r}; choose one of {', '.join(SCALES)}.")
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    if scale == "object":
        return points.new_ones(())
    if scale == "unit_ball":
        extent = (points - points.mean(0)).norm(dim=-1).max()
    else:
        extent = (points.amax(0) - points.amin(0)).max()
    if not bool(extent > 0):
        raise ReconlabError(f"The scale {scale!r} cannot be taken from a true surface that is a single point.")
    return 1 / extent
