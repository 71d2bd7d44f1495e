"""The hand-made gradient of Neural 3D Mesh Renderer in plain torch: states the formula, and serves every device.

Source: Kato, Ushiku, Harada, "Neural 3D Mesh Renderer", CVPR 2018, section 3.2 and Fig. 4. The image is drawn hard.
Moving a vertex moves an edge, and once the edge has crossed a pixel's centre the pixel changes at one stroke. The
paper puts a linear ramp between here and there: its slope stands in for the derivative, which is 0 or infinite.

Along each row of pixel centres (and, x and y exchanged, each column) and for each edge pq of a face f:

- the edge meets the row at ``c = p + t (q - p)``; i is the first centre on the face's side of c, o the one before
  it. The crossing counts if both lie in the image and f is what pixel i shows (else the edge is hidden);
- moving p alone by ``δ_p(k) = (k - c) / (1 - t)`` would bring the edge to the pixel centre k, q by ``(k - c) / t``;
- a pixel k from o outwards would turn from its value ``I_k`` to the face's, ``I_i``: ``ΔI_k = I_i - I_k``;
- a pixel k of the row that shows f would be uncovered and turn to ``I_o``: ``ΔI_k = I_o - I_k``;
- with g the loss' gradient in the image, the pixels where ``g_k ΔI_k < 0``, those that the loss wants to change,
  pull the vertices: ``∂L/∂p = Σ_k g_k ΔI_k / (δ_p(k) ± eps)``, the sign being δ's; likewise q.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-30  # keeps 0 / 0 from an edge that ends on a pixel's centre
BUDGET = 1 << 22  # numbers per array of a chunk


def ramp_gradient(
    face_xy: Tensor, splits: Tensor, seen: Tensor, image: Tensor, grad: Tensor, eps: float, budget: int = BUDGET
) -> Tensor:
    """The stand-in for the derivative of ``(image * grad).sum()`` by the corners.

    Args:
        face_xy: (F,3,2) corners of the faces in [-1,1], finite where the face is seen.
        splits: (M+1,) where each image's faces begin and end.
        seen: (M,H,W) index of the face that each pixel shows, within its image's; -1 where none.
        image: (M,H,W) values drawn.
        grad: (M,H,W) the loss' gradient by them.
        eps: Least distance that a vertex moves, in NDC.
        budget: Faces × edges × pixels treated at once.

    Returns:
        (F,3,2), 0 for faces that no pixel shows.
    """
    out = torch.zeros_like(face_xy)
    for m, first in enumerate(splits[:-1].tolist()):
        shown = seen[m][seen[m] >= 0].unique().long()  # a face that is not seen has no crossing that counts
        for part in shown.split(max(1, budget // (3 * seen[m].numel()))):
            xy = face_xy[first + part]
            along_x = _along(xy, part, seen[m], image[m], grad[m], eps)
            along_y = _along(xy.flip(2), part, seen[m].T, image[m].T, grad[m].T, eps)
            out[first + part] = torch.stack([along_x, along_y], 2)
    return out


def _along(xy: Tensor, face: Tensor, seen: Tensor, image: Tensor, grad: Tensor, eps: float) -> Tensor:
    """(F,3) gradients by the corners' first coordinate; rows of ``seen``, ``image``, ``grad`` run along it."""
    height, width = seen.shape
    column, row = torch.arange(width, device=xy.device), torch.arange(height, device=xy.device)
    x, y = (2 * column + 1).to(xy) / width - 1, (2 * row + 1).to(xy) / height - 1
    p, q, r = xy, xy.roll(-1, 1), xy.roll(-2, 1)  # edge e leads from corner e to corner e + 1
    area2 = (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
    rise = q[..., 1] - p[..., 1]
    low, high = torch.minimum(p[..., 1:], q[..., 1:]), torch.maximum(p[..., 1:], q[..., 1:])
    crosses = (low <= y) & (y < high)
    t = torch.where(crosses, (y - p[..., 1:]) / torch.where(rise == 0, 1, rise)[..., None], 0.5)
    c = p[..., :1] + t * (q[..., :1] - p[..., :1])  # (F,3,H)
    side = torch.where(area2 * rise < 0, 1, -1)[..., None]  # of the face, seen from its edge, along x
    place = (c + 1) * width / 2 - 0.5
    inner = torch.where(side > 0, place.ceil(), place.floor()).clamp(-2, width + 1).long()
    outer = inner - side
    here, there = inner.clamp(0, width - 1), outer.clamp(0, width - 1)
    counts = crosses & (inner == here) & (outer == there) & (seen[row, here] == face[:, None, None])
    new_in, new_out = image[row, here][..., None], image[row, there][..., None]
    beyond = (column - outer[..., None]) * side[..., None] <= 0  # (F,3,H,W): o and outwards
    shows = (seen == face[:, None, None])[:, None]
    change = torch.where(beyond, new_in - image, torch.where(shows, new_out - image, 0))
    wanted = (grad * change).clamp(max=0) * counts[..., None]
    way = torch.where(beyond, -side[..., None], side[..., None]).to(xy.dtype)
    distance = x - c[..., None] + way * TINY
    by_p = wanted * (1 - t)[..., None] / (distance + way * eps * (1 - t)[..., None])
    by_q = wanted * t[..., None] / (distance + way * eps * t[..., None])
    return by_p.sum((2, 3)) + by_q.sum((2, 3)).roll(1, 1)
