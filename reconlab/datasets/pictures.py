"""Pictures as networks and losses see them: of one size, on white, with their coverage."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def paint(rgba: np.ndarray, rgb: np.ndarray, alpha: np.ndarray) -> None:
    """Composite a picture on white, at the size of ``rgb`` and ``alpha``, which are written.

    Colours are resampled multiplied by alpha, so that the hidden colour of transparent pixels cannot bleed in; with
    a bilinear filter as wide as the step, which is ``torch.nn.functional.interpolate(mode="bilinear",
    align_corners=False, antialias=True)`` up to rounding.

    Args:
        rgba: ``(H, W, 4)`` uint8, straight alpha.
        rgb: ``(3, S, T)`` float32, contiguous; becomes colours in [0, 1].
        alpha: ``(S, T)`` float32, contiguous; becomes coverage in [0, 1].
    """
    from reconlab.datasets.picture_kernels import convert, resample

    rgba = np.ascontiguousarray(rgba)
    if rgba.shape[:2] == alpha.shape:
        convert(rgba, rgb, alpha)
    else:
        rows, columns = (_taps(n, m) for n, m in zip(rgba.shape[:2], alpha.shape, strict=True))
        resample(rgba, *rows, *columns, rgb, alpha)


@lru_cache(maxsize=64)
def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """First source pixel of each target pixel, ``(target,)``; weights of it and those after it, ``(K, target)``."""
    step = source / target
    reach = max(step, 1.0)
    centre = step * (np.arange(target) + 0.5)
    low = np.maximum(np.floor(centre - reach + 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(centre + reach + 0.5), source).astype(np.int64)
    count = int((high - low).max())
    low = np.minimum(low, source - count)
    offset = np.arange(count)[:, None] + low - centre + 0.5
    weights = np.maximum(1 - np.abs(offset) / reach, 0)
    return low, (weights / weights.sum(0)).astype(np.float32)
