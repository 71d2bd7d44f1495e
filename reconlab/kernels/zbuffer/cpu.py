"""The z-buffer in numba, one image per task."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reconlab.kernels.jit import njit
from reconlab.threads import parallel_map


@njit("void(float32[:,:,::1], float64, float64[:,::1], int32[:,::1])", nogil=True, cache=True)
def _draw(xyz, near, inverse, face):
    """Draw one image into ``inverse`` (1 / depth, zeros) and ``face`` (-1)."""
    height, width = inverse.shape
    for f in range(xyz.shape[0]):
        ok = True
        for i in range(3):
            if not (xyz[f, i, 2] >= near and xyz[f, i, 2] < math.inf):
                ok = False
            if not (abs(xyz[f, i, 0]) < math.inf and abs(xyz[f, i, 1]) < math.inf):
                ok = False
        if not ok:
            continue
        # float64 by name: numba's float() leaves a float32 what it is.
        ax, ay, bx = np.float64(xyz[f, 0, 0]), np.float64(xyz[f, 0, 1]), np.float64(xyz[f, 1, 0])
        by, cx, cy = np.float64(xyz[f, 1, 1]), np.float64(xyz[f, 2, 0]), np.float64(xyz[f, 2, 1])
        x0 = int(max(math.ceil(max((min(ax, bx, cx) + 1) * width / 2 - 0.5, -1.0)), 0.0))
        x1 = int(min(math.floor(min((max(ax, bx, cx) + 1) * width / 2 - 0.5, float(width))), width - 1.0))
        y0 = int(max(math.ceil(max((min(ay, by, cy) + 1) * height / 2 - 0.5, -1.0)), 0.0))
        y1 = int(min(math.floor(min((max(ay, by, cy) + 1) * height / 2 - 0.5, float(height))), height - 1.0))
        if x0 > x1 or y0 > y1:
            continue
        area2 = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area2 == 0:
            continue
        inv = 1 / area2
        iza, izb, izc = 1 / np.float64(xyz[f, 0, 2]), 1 / np.float64(xyz[f, 1, 2]), 1 / np.float64(xyz[f, 2, 2])
        for row in range(y0, y1 + 1):
            py = (2 * row + 1) / height - 1
            for col in range(x0, x1 + 1):
                px = (2 * col + 1) / width - 1
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inv
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inv
                wc = ((ax - px) * (by - py) - (ay - py) * (bx - px)) * inv
                if wa >= 0 and wb >= 0 and wc >= 0:
                    iz = wa * iza + wb * izb + wc * izc
                    if iz > inverse[row, col]:
                        inverse[row, col] = iz
                        face[row, col] = f


def zbuffer(xyz: Tensor, splits: list[int], height: int, width: int, near: float) -> tuple[Tensor, Tensor]:
    """Depth and face of every image; see :func:`reconlab.kernels.zbuffer.zbuffer`."""
    images = len(splits) - 1
    depth = np.empty((images, height, width), np.float32)
    face = np.full((images, height, width), -1, np.int32)
    points = xyz.numpy()
    near = float(np.float32(near))  # depths are compared in float32, as torch does

    def one(m: int) -> None:
        inverse = np.zeros((height, width), np.float64)
        _draw(points[splits[m] : splits[m + 1]], near, inverse, face[m])
        with np.errstate(divide="ignore"):
            np.divide(1.0, inverse, out=depth[m], casting="same_kind")

    parallel_map(one, range(images))
    return torch.from_numpy(depth), torch.from_numpy(face)
