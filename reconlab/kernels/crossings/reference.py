"""Ray crossings in plain torch: every point against every triangle, in blocks.

Along +z and -z from a point ``p``, a triangle is crossed where the point's (x, y) lies in its projection and its
plane there lies above or below; the sign is that of its normal against the ray.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS = 1 << 20
"""Point-triangle pairs at once; bounds the memory."""


def axis_crossings(points: Tensor, corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Signed, odd and free counts, ``(N,)`` int64, of the two rays along z; float64 inputs."""
    a, b, c = corners.unbind(1)
    results = []
    for p in points.split(max(1, PAIRS // max(1, len(corners)))):
        x, y, z = (v.unsqueeze(1) for v in p.unbind(1))

        def side(u: Tensor, v: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:  # twice the signed area of (u, v, p)
            return (v[:, 0] - u[:, 0]) * (y - u[:, 1]) - (v[:, 1] - u[:, 1]) * (x - u[:, 0])

        wa, wb, wc = side(b, c), side(c, a), side(a, b)
        area = wa + wb + wc
        inside = ((wa > 0) & (wb > 0) & (wc > 0)) | ((wa < 0) & (wb < 0) & (wc < 0))
        height = (wa * a[:, 2] + wb * b[:, 2] + wc * c[:, 2]) / torch.where(inside, area, 1.0)
        sign = area.sign().long()
        up, down = inside & (height > z), inside & (height <= z)
        signed = (sign * up).sum(1) - (sign * down).sum(1)
        n_up, n_down = up.sum(1), down.sum(1)
        odd = n_up % 2 + n_down % 2
        results.append((signed, odd, (n_up == 0).long() + (n_down == 0).long()))
    return tuple(torch.cat(x) for x in zip(*results, strict=True))  # type: ignore[return-value]
