"""How cost grows with size: an exponent, and how far it can be trusted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from reconlab.errors import ReconlabError

LEAST_SIZES = 4


@dataclass(frozen=True)
class Growth:
    """A power law through times over sizes.

    Attributes:
        exponent: b of ``a size^b``, by least squares of the logarithms.
        factor: a, seconds.
        error: Standard error of the exponent, from the residuals.
        r2: Share of the logarithms' variance that the line explains; 1 if they do not vary.
        residual: Largest factor between a time and the line, 1 or more.
        local: Exponent between the two largest sizes.
        offset: Seconds that every size costs alike, of the best ``offset + c size^expected`` with neither negative
            (least squares of relative errors).
        offset_until: Largest size at which that offset is more than half of it; None if it is so at no size.
    """

    exponent: float
    factor: float
    error: float
    r2: float
    residual: float
    local: float
    offset: float
    offset_until: float | None

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return asdict(self)


def fit_growth(sizes: Sequence[float], seconds: Sequence[float], expected: float) -> Growth:
    """Fit a power law, and a fixed offset under the expected one.

    Args:
        sizes: Four or more, rising, positive.
        seconds: Of each, positive.
        expected: The exponent that the algorithm should have for large sizes.

    Raises:
        ReconlabError: There are fewer than four sizes, they do not rise, or a number is not positive.

    Example:
        >>> found = fit_growth([1, 2, 4, 8], [3, 12, 48, 192], expected=2)
        >>> round(found.exponent, 6), round(found.factor, 6), found.offset_until
        (2.0, 3.0, None)
    """
    if len(sizes) != len(seconds) or len(sizes) < LEAST_SIZES:
        raise ReconlabError(
            f"A growth needs at least {LEAST_SIZES} sizes with one time each, not {len(sizes)} sizes and "
            f"{len(seconds)} times."
        )
    given = [*sizes, *seconds]
    rising = all(a < b for a, b in itertools.pairwise(sizes))
    if not (rising and all(math.isfinite(v) and v > 0 for v in given)):
        raise ReconlabError("A growth needs rising sizes, and sizes and times that are positive and finite.")
    n, t = np.asarray(sizes, float), np.asarray(seconds, float)
    x, y = np.log(n), np.log(t)
    dx = x - x.mean()
    slope = float(dx @ (y - y.mean()) / (dx @ dx))
    intercept = float(y.mean() - slope * x.mean())
    rest = y - (intercept + slope * x)
    total = float(((y - y.mean()) ** 2).sum())
    offset, rate = _offset(n, t, expected)
    over = [float(size) for size in n if offset > rate * size**expected]
    return Growth(
        exponent=slope,
        factor=math.exp(intercept),
        error=math.sqrt(float(rest @ rest) / (len(n) - 2) / float(dx @ dx)),
        # Times that do not vary leave nothing to explain, and rounding must not make a share of it.
        r2=1.0 if total < 1e-20 else 1 - float(rest @ rest) / total,
        residual=math.exp(float(np.abs(rest).max())),
        local=float((y[-1] - y[-2]) / (x[-1] - x[-2])),
        offset=offset,
        offset_until=over[-1] if over else None,
    )


def _offset(n: np.ndarray, t: np.ndarray, expected: float) -> tuple[float, float]:
    """Both constants of ``offset + rate n^expected``, neither negative."""
    from scipy.optimize import nnls

    scale = n.max() ** expected
    rows = np.stack([np.ones_like(n), n**expected / scale], 1) / t[:, None]
    (offset, rate), _ = nnls(rows, np.ones_like(t))
    return float(offset), float(rate / scale)
