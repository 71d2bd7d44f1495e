"""DIB-R in numba: faces scattered over their boxes, both ways; the backward pass recomputes each pair.

Formula: ``reference.py``. O(1) memory per pixel and no limit on the faces per pixel.
"""

# mypy: disable-error-code="call-arg, no-untyped-def"

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reconlab.kernels.dibr.reference import LEAST
from reconlab.kernels.jit import njit
from reconlab.threads import parallel_map


@njit(nogil=True, cache=True)
def _box(a, b, c, radius, size):
    """First pixel, and the one after the last, whose centres lie within ``radius`` of [min, max] of a, b, c."""
    first = math.ceil(max((min(a, b, c) - radius + 1) * size / 2 - 0.5, 0.0))
    last = math.floor(min((max(a, b, c) + radius + 1) * size / 2 - 0.5, size - 1.0))
    return first, last + 1


@njit(nogil=True, cache=True)
def _closest(xyz, f, x, y):
    """Squared distance of a point from a face's outline, the edge where it is least and the place along it."""
    best, edge, place = math.inf, 0, 0.0
    for e in range(3):
        n = (e + 1) % 3
        ax, ay = np.float64(xyz[f, e, 0]), np.float64(xyz[f, e, 1])
        ex, ey = xyz[f, n, 0] - ax, xyz[f, n, 1] - ay
        along = ((x - ax) * ex + (y - ay) * ey) / max(ex * ex + ey * ey, 1e-30)
        along = min(max(along, 0.0), 1.0)
        dx, dy = x - ax - along * ex, y - ay - along * ey
        if dx * dx + dy * dy < best:
            best, edge, place = dx * dx + dy * dy, e, along
    return best, edge, place


@njit("void(float32[:,:,::1], int32[:,::1], float64, float64, float64[:,::1])", nogil=True, cache=True)
def _alpha(xyz, seen, delta, reach, through):
    """Multiplies ``through`` by 1 - exp(-d / δ) of every face, on the background."""
    height, width = seen.shape
    radius = math.sqrt(reach)
    for f in range(xyz.shape[0]):
        if not abs(xyz[f, 0, 0]) < math.inf:  # not drawn: see kernels.faces.drawable
            continue
        left, right = _box(xyz[f, 0, 0], xyz[f, 1, 0], xyz[f, 2, 0], radius, width)
        top, bottom = _box(xyz[f, 0, 1], xyz[f, 1, 1], xyz[f, 2, 1], radius, height)
        for row in range(top, bottom):
            y = (2 * row + 1) / height - 1
            for column in range(left, right):
                if seen[row, column] >= 0:
                    continue
                squared = _closest(xyz, f, (2 * column + 1) / width - 1, y)[0]
                if squared < reach:
                    through[row, column] *= -math.expm1(-max(squared / delta, LEAST))


@njit(
    "void(float32[:,:,::1], int32[:,::1], float64, float64, float64[:,::1], float32[:,:,::1])",
    nogil=True, cache=True,
)  # fmt: skip
def _alpha_grad(xyz, seen, delta, reach, pull, out):
    """Adds to ``out`` the gradient of alpha; ``pull`` is the image's times the product ``through``."""
    height, width = seen.shape
    radius = math.sqrt(reach)
    for f in range(xyz.shape[0]):
        if not abs(xyz[f, 0, 0]) < math.inf:
            continue
        left, right = _box(xyz[f, 0, 0], xyz[f, 1, 0], xyz[f, 2, 0], radius, width)
        top, bottom = _box(xyz[f, 0, 1], xyz[f, 1, 1], xyz[f, 2, 1], radius, height)
        for row in range(top, bottom):
            y = (2 * row + 1) / height - 1
            for column in range(left, right):
                if seen[row, column] >= 0 or pull[row, column] == 0:
                    continue
                x = (2 * column + 1) / width - 1
                squared, e, along = _closest(xyz, f, x, y)
                exponent = squared / delta
                if squared >= reach or exponent <= LEAST:
                    continue
                # d alpha / d cover = through / (1 - cover), and d cover / d squared = -cover / δ
                slope = -pull[row, column] * math.exp(-exponent) / (-math.expm1(-exponent) * delta)
                n = (e + 1) % 3
                dx = x - (1 - along) * xyz[f, e, 0] - along * xyz[f, n, 0]
                dy = y - (1 - along) * xyz[f, e, 1] - along * xyz[f, n, 1]
                out[f, e, 0] -= 2 * slope * dx * (1 - along)
                out[f, e, 1] -= 2 * slope * dy * (1 - along)
                out[f, n, 0] -= 2 * slope * dx * along
                out[f, n, 1] -= 2 * slope * dy * along


@njit(
    "void(float32[:,:,::1], float32[:,::1], int32[:,::1], float32[:,::1], boolean,"
    " float32[:,::1], float32[:,:,::1], float32[:,::1])",
    nogil=True, cache=True,
)  # fmt: skip
def _shade(xyz, shade, seen, grad, backward, image, out, out_shade):
    """The foreground's grey values into ``image``; or, backward, their gradients added to ``out``, ``out_shade``."""
    height, width = seen.shape
    slope = np.empty(3)
    weight = np.empty(3)
    for row in range(height):
        y = (2 * row + 1) / height - 1
        for column in range(width):
            f = seen[row, column]
            if f < 0:
                continue
            x = (2 * column + 1) / width - 1
            ax, ay = xyz[f, 0, 0] - x, xyz[f, 0, 1] - y
            bx, by = xyz[f, 1, 0] - x, xyz[f, 1, 1] - y
            cx, cy = xyz[f, 2, 0] - x, xyz[f, 2, 1] - y
            area2 = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            ba, bb, bc = (bx * cy - by * cx) / area2, (cx * ay - cy * ax) / area2, (ax * by - ay * bx) / area2
            weight[0], weight[1], weight[2] = ba / xyz[f, 0, 2], bb / xyz[f, 1, 2], bc / xyz[f, 2, 2]
            total = weight[0] + weight[1] + weight[2]
            value = 0.0
            for i in range(3):
                weight[i] /= total
                value += weight[i] * shade[f, i]
            if not backward:
                image[row, column] = value
                continue
            g = grad[row, column]
            for i in range(3):
                out_shade[f, i] += g * weight[i]
                rise = g * (shade[f, i] - value)
                slope[i] = rise / (total * xyz[f, i, 2])  # by the barycentric coordinate
                out[f, i, 2] -= rise * weight[i] / xyz[f, i, 2]
            # Moving corner j moves every coordinate as moving the point the other way by b_j would
            by_x = (slope[0] * (by - cy) + slope[1] * (cy - ay) + slope[2] * (ay - by)) / area2
            by_y = (slope[0] * (cx - bx) + slope[1] * (ax - cx) + slope[2] * (bx - ax)) / area2
            out[f, 0, 0] -= ba * by_x
            out[f, 0, 1] -= ba * by_y
            out[f, 1, 0] -= bb * by_x
            out[f, 1, 1] -= bb * by_y
            out[f, 2, 0] -= bc * by_x
            out[f, 2, 1] -= bc * by_y


def forward(
    face_xyz: Tensor, grey: Tensor | None, splits: list[int], seen: Tensor, delta: float, cutoff: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Alpha and shade (M,H,W) of drawable faces, and the products ``Π (1 - cover)`` in float64."""
    reach = -math.log(cutoff) * delta
    xyz, faces = face_xyz.numpy(), seen.numpy()
    through = np.ones(seen.shape)
    image = np.zeros(seen.shape, np.float32)
    none = np.zeros((0, 3, 3), np.float32)

    def one(m: int) -> None:
        part = slice(splits[m], splits[m + 1])
        _alpha(xyz[part], faces[m], delta, reach, through[m])
        if grey is not None:
            _shade(xyz[part], grey.numpy()[part], faces[m], image[m], False, image[m], none, none[:, 0])

    parallel_map(one, range(len(splits) - 1))
    products = torch.from_numpy(through)
    alpha = torch.where(seen >= 0, 1.0, 1 - products).float()
    return alpha, None if grey is None else torch.from_numpy(image), products


def backward(
    face_xyz: Tensor,
    grey: Tensor | None,
    splits: list[int],
    seen: Tensor,
    through: Tensor,
    grad_alpha: Tensor,
    grad_shade: Tensor | None,
    delta: float,
    cutoff: float,
) -> tuple[Tensor, Tensor | None]:
    """Gradients by the corners (F,3,3) and by the grey values (F,3)."""
    reach = -math.log(cutoff) * delta
    xyz, faces = face_xyz.numpy(), seen.numpy()
    out = np.zeros_like(xyz)
    out_shade = None if grey is None else np.zeros_like(grey.numpy())
    pull = (grad_alpha * through).double().contiguous().numpy()
    given = None if grad_shade is None else grad_shade.float().contiguous().numpy()

    def one(m: int) -> None:
        part = slice(splits[m], splits[m + 1])
        _alpha_grad(xyz[part], faces[m], delta, reach, pull[m], out[part])
        if grey is not None and given is not None and out_shade is not None:
            _shade(xyz[part], grey.numpy()[part], faces[m], given[m], True, given[m], out[part], out_shade[part])

    parallel_map(one, range(len(splits) - 1))
    return torch.from_numpy(out), None if out_shade is None else torch.from_numpy(out_shade)
