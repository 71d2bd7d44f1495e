"""The z-buffer in plain torch: lists the (face, pixel) pairs of the faces' boxes and keeps the nearest."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.kernels.soft_rasterize.reference import face_chunks, list_pairs, pixel_boxes, pixel_centres

BUDGET = 1 << 22  # pairs per chunk


def usable_faces(face_xyz: Tensor, near: float) -> Tensor:
    """(F,) bool: finite, in front of the near plane, of non-zero screen area."""
    ab, ac = (face_xyz[:, k, :2].double() - face_xyz[:, 0, :2].double() for k in (1, 2))
    area2 = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    return face_xyz.isfinite().all(2).all(1) & (face_xyz[..., 2] >= near).all(1) & (area2 != 0)


def screen_barycentrics(corner: Tensor, point: Tensor) -> Tensor:
    """(P,3) barycentric coordinates of ``point`` (P,2) in the screen triangles ``corner`` (P,3,3)."""
    a, b, c = corner[..., :2].unbind(1)

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    raw = [cross(b - point, c - point), cross(c - point, a - point), cross(a - point, b - point)]
    return torch.stack(raw, 1) / cross(b - a, c - a)[:, None]


def zbuffer_reference(
    face_xyz: Tensor, splits: Tensor, height: int, width: int, near: float
) -> tuple[Tensor, Tensor]:
    """Depth (M,H,W) float32 and face (M,H,W) int32; see :func:`reconlab.kernels.zbuffer.zbuffer`."""
    images, device = len(splits) - 1, face_xyz.device
    count = (splits[1:] - splits[:-1]).to(device)
    image_of_face = torch.repeat_interleave(torch.arange(images, device=device), count)
    use = usable_faces(face_xyz, near).nonzero()[:, 0]
    xyz, image = face_xyz[use].double(), image_of_face[use]
    local = use - splits[:-1].to(device)[image]
    boxes = pixel_boxes(xyz, height, width, 0.0)
    best = torch.zeros(images * height * width, dtype=torch.float64, device=device)  # 1 / depth
    winner = torch.full_like(best, -1, dtype=torch.int64)
    for c in face_chunks(boxes, BUDGET):
        face, column, row = list_pairs(boxes[c])
        point = pixel_centres(column, row, height, width, torch.float64)
        corner = xyz[c][face]
        bary = screen_barycentrics(corner, point)
        hit = (bary >= 0).all(1)
        pixel = ((image[c][face] * height + row) * width + column)[hit]
        inverse = (bary / corner[..., 2]).sum(1)[hit]
        nearest = best.scatter_reduce(0, pixel, inverse, "amax")
        first = torch.full_like(winner, len(face_xyz))
        wins = (inverse == nearest[pixel]) & (inverse > best[pixel])
        first = first.scatter_reduce(0, pixel[wins], local[c][face][hit][wins], "amin")
        winner = torch.where(nearest > best, first, winner)
        best = nearest
    size = (images, height, width)
    return (1 / best).float().view(size), winner.int().view(size)


def barycentrics_at(face_xyz: Tensor, splits: Tensor, face: Tensor) -> Tensor:
    """(M,H,W,3) perspective-correct barycentric coordinates of the pixel centres in the faces seen there."""
    _, height, width = face.shape
    image, row, column = (face >= 0).nonzero(as_tuple=True)
    corner = face_xyz[face[image, row, column] + splits[:-1].to(face.device)[image]].double()
    point = pixel_centres(column, row, height, width, torch.float64)
    weight = screen_barycentrics(corner, point) / corner[..., 2]
    bary = torch.zeros(*face.shape, 3, device=face.device)
    bary[image, row, column] = (weight / weight.sum(1, keepdim=True)).float()
    return bary
