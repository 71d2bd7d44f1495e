"""The ramps of ``reference.py`` in numba, one image per task: crossing by crossing, nothing is listed."""

# mypy: disable-error-code="call-arg, no-untyped-def"

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reconlab.kernels.jit import njit
from reconlab.kernels.nmr.reference import TINY
from reconlab.threads import parallel_map


@njit(
    "void(float32[:,:,:], int32[:,::1], float32[:,::1], float32[:,::1], float64, float32[:,:,:])",
    nogil=True, cache=True, error_model="numpy",
)  # fmt: skip
def _along(xy, seen, image, grad, eps, out):
    """Adds the gradients by the corners' first coordinate; rows run along it. Arguments as in the reference."""
    height, width = seen.shape
    for f in range(xy.shape[0]):
        for e in range(3):
            n, o = (e + 1) % 3, (e + 2) % 3
            # float64 by name: numba's float() leaves a float32 what it is.
            px, py = np.float64(xy[f, e, 0]), np.float64(xy[f, e, 1])
            qx, qy = np.float64(xy[f, n, 0]), np.float64(xy[f, n, 1])
            rise = qy - py
            low, high = min(py, qy), max(py, qy)
            # A face with a corner that is not a number is never seen; both tests fail for it.
            if not (rise != 0 and high > -1 and low < 1):
                continue
            area2 = (qx - px) * (np.float64(xy[f, o, 1]) - py) - rise * (np.float64(xy[f, o, 0]) - px)
            side = 1 if area2 * rise < 0 else -1
            first = max(math.ceil(max((low + 1) * height / 2 - 0.5, 0.0)) - 1, 0)
            last = min(math.ceil(min((high + 1) * height / 2 - 0.5, float(height))) + 1, height)
            for row in range(first, last):
                y = (2 * row + 1) / height - 1
                if not (low <= y and y < high):
                    continue
                t = (y - py) / rise
                c = px + t * (qx - px)
                place = (c + 1) * width / 2 - 0.5
                if not (place > -1 and place < width):
                    continue
                i = math.ceil(place) if side > 0 else math.floor(place)
                k = i - side
                if i < 0 or i >= width or k < 0 or k >= width or seen[row, i] != f:
                    continue
                by_p, by_q = 0.0, 0.0
                value = image[row, i]
                other = image[row, k]
                while k >= 0 and k < width:
                    wanted = grad[row, k] * (value - image[row, k])
                    if wanted < 0:
                        distance = (2 * k + 1) / width - 1 - c - side * TINY
                        by_p += wanted * (1 - t) / (distance - side * eps * (1 - t))
                        by_q += wanted * t / (distance - side * eps * t)
                    k -= side
                k = i
                # Beyond the face's own span no pixel of the row can show it.
                end = (
                    max(xy[f, 0, 0], xy[f, 1, 0], xy[f, 2, 0])
                    if side > 0
                    else min(xy[f, 0, 0], xy[f, 1, 0], xy[f, 2, 0])
                )
                while k >= 0 and k < width and side * (end - ((2 * k + 1) / width - 1)) > -1e-5:
                    if seen[row, k] == f:
                        wanted = grad[row, k] * (other - image[row, k])
                        if wanted < 0:
                            distance = (2 * k + 1) / width - 1 - c + side * TINY
                            by_p += wanted * (1 - t) / (distance + side * eps * (1 - t))
                            by_q += wanted * t / (distance + side * eps * t)
                    k += side
                out[f, e, 0] += by_p
                out[f, n, 0] += by_q


def ramp_gradient(
    face_xy: Tensor, splits: list[int], seen: Tensor, image: Tensor, grad: Tensor, eps: float
) -> Tensor:
    """As :func:`reconlab.kernels.nmr.reference.ramp_gradient`, for float32 on the CPU."""
    xy = face_xy.numpy()
    out = np.zeros_like(xy)
    faces, images, grads = seen.numpy(), image.numpy(), grad.numpy()

    def one(m: int) -> None:
        part = slice(splits[m], splits[m + 1])
        if not (faces[m] >= 0).any():
            return
        _along(xy[part], faces[m], images[m], grads[m], eps, out[part])
        turned = [np.ascontiguousarray(a[m].T) for a in (faces, images, grads)]
        _along(xy[part, :, ::-1], *turned, eps, out[part, :, ::-1])

    parallel_map(one, range(len(splits) - 1))
    return torch.from_numpy(out)
