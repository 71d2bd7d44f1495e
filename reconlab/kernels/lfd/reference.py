"""The Light Field Descriptor in plain NumPy: what :mod:`reconlab.kernels.lfd.cpu` computes, formula by formula.

One view is an orthographic silhouette of 256 x 256 pixels over [-1, 1]^2, row 0 at the bottom; a pixel is inside if
its centre is in the projection of a face. Its centre is that of the silhouette's pixel box. Contours (their order of
visits is a convention, not a formula) come from :mod:`reconlab.kernels.lfd.contour`.
"""

from __future__ import annotations

import math

import numpy as np

SIZE = 256
LUT = 50  # nodes from the centre of the table of ART bases to its rim
ANGULAR, RADIAL = 12, 3


def art_table() -> np.ndarray:
    """(101 * 101, 72): cos(pi n r) exp(i p theta) at the nodes of the disc r < 1, real parts, then imaginary parts.

    Node (y, x) is row ``101 y + x``; columns run over p = 0..11 and, within, n = 0..2.
    """
    y, x = np.mgrid[-LUT : LUT + 1, -LUT : LUT + 1]
    r, theta = np.hypot(x, y) / LUT, np.arctan2(y, x)
    p, n = np.arange(ANGULAR)[:, None], np.arange(RADIAL)
    basis = np.cos(np.pi * n * r[..., None, None]) * np.exp(1j * p * theta[..., None, None])
    basis = (basis * (r < 1)[..., None, None]).reshape(r.size, -1)
    return np.ascontiguousarray(np.concatenate([basis.real, basis.imag], 1))


def silhouette(points: np.ndarray, faces: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """(256, 256) bool by testing every pixel centre against every face; edges belong to it."""
    screen = points @ frame.T * (SIZE / 2) + (SIZE / 2 - 0.5)  # pixel k has its centre at k
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    mask = np.zeros((SIZE, SIZE), bool)
    for a, b, c in screen[faces]:
        sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        low, high = np.minimum.reduce(sides), np.maximum.reduce(sides)
        if (b[0] - a[0]) * (c[1] - a[1]) != (b[1] - a[1]) * (c[0] - a[0]):
            mask |= (low >= 0) | (high <= 0)
    return mask


def canonical(masks: list[np.ndarray]) -> np.ndarray:
    """The first, read row by row, of the masks and their mirror images."""
    return min((m for mask in masks for m in (mask, mask[:, ::-1])), key=lambda m: m.tobytes())


def regions(mask: np.ndarray, cx: float, cy: float, radius: float) -> np.ndarray:
    """(35,) magnitudes of the mean ART basis over the pixels, bilinear between the table's nodes, without [0][0].

    The original means to divide by the magnitude of [0][0] (about 1) but divides that one by itself first, so that
    the others stay as they are.
    """
    side = 2 * LUT + 1
    table = np.zeros((side + 1, side + 1, 2 * ANGULAR * RADIAL))
    table[:side, :side] = art_table().reshape(side, side, -1)
    y, x = np.nonzero(mask)
    tx, ty = ((v - c) * (LUT / radius if radius > 0 else 0) + LUT for v, c in ((x, cx), (y, cy)))
    ix, iy = tx.astype(int), ty.astype(int)
    fx, fy = (tx - ix)[:, None], (ty - iy)[:, None]
    near = table[iy, ix] * (1 - fx) + table[iy, ix + 1] * fx
    far = table[iy + 1, ix] * (1 - fx) + table[iy + 1, ix + 1] * fx
    mean = (near * (1 - fy) + far * fy).mean(0).reshape(2, -1)
    return np.hypot(mean[0], mean[1])[1:]


def fourier_of_contour(contour: np.ndarray, cx: float, cy: float) -> np.ndarray:
    """(10,) ``|F_k| / |F_0|`` of the distance to the centre along a contour (N, 2); zeros where N < 8."""
    out = np.zeros(10)
    if len(contour) >= 8:
        spectrum = np.abs(np.fft.rfft(np.hypot(contour[:, 0] - cx, contour[:, 1] - cy)))[:11]
        out[: len(spectrum) - 1] = spectrum[1:] / spectrum[0]
    return out


def circularity(mask: np.ndarray) -> float:
    """``4 pi A / p^2``, at most 1; ``p`` counts the pixels with one of their eight neighbours outside."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    inner = mask.copy()
    for dy in range(3):
        for dx in range(3):
            inner &= padded[dy : dy + height, dx : dx + width]
    border = int(mask.sum() - inner.sum())
    return min(1.0, 4 * math.pi * float(mask.sum()) / border**2)


def eccentricity(mask: np.ndarray, cx: float, cy: float) -> float:
    """``((i20 - i02)^2 + 4 i11^2) / (i20 + i02)^2`` about the centre; 0 for one pixel."""
    y, x = np.nonzero(mask)
    i20, i02, i11 = ((x - cx) ** 2).sum(), ((y - cy) ** 2).sum(), ((x - cx) * (y - cy)).sum()
    return float(min(1.0, ((i20 - i02) ** 2 + 4 * i11**2) / (i20 + i02) ** 2)) if len(x) > 1 else 0.0


def light_field_reference(points: np.ndarray, faces: np.ndarray, frames: np.ndarray, equivariant: bool) -> np.ndarray:
    """(10, 47) features of one light field before quantisation; ``frames`` (10, K, 2, 3)."""
    from reconlab.kernels.lfd.contour import MARGIN, fourier

    masks, centres, radius = [], [], 0.0
    for view in frames:
        images = [silhouette(points, faces, frame) for frame in view]
        masks.append(canonical(images) if equivariant else images[0])
        y, x = np.nonzero(masks[-1])
        centres.append(((x.min() + x.max()) / 2, (y.min() + y.max()) / 2) if len(x) else (0.0, 0.0))
        if len(x):
            radius = max(radius, float(np.hypot(x - centres[-1][0], y - centres[-1][1]).max()))
    out = np.zeros((len(frames), 47))
    for row, mask, (cx, cy) in zip(out, masks, centres, strict=True):
        if mask.any():
            row[:35] = regions(mask, cx, cy, radius)
            fourier(np.pad(mask, MARGIN).astype(np.uint8), cx + MARGIN, cy + MARGIN, row[35:45])
            row[45:] = circularity(mask), eccentricity(mask, cx, cy)
    return out


def distance_reference(query: np.ndarray, other: np.ndarray, weights: np.ndarray, perms: np.ndarray) -> int:
    """The least, over pairs of light fields and alignments, of the summed view costs."""
    difference = np.abs(query[:, :, None, None].astype(np.int64) - other[None, None].astype(np.int64))
    cost = (difference * weights).sum(-1).transpose(0, 2, 1, 3)  # field, field', view, view'
    views = np.arange(cost.shape[-1])
    return int(min(cost[:, :, views, perm].sum(-1).min() for perm in perms))
