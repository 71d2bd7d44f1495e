"""DIB-R in plain torch: states the formula, and serves every device that has no kernel.

Source: Chen et al., "Learning to Predict 3D Objects with an Interpolation-based Differentiable Renderer", NeurIPS
2019, eqs. 1-6. A pixel whose centre some face covers is foreground, all others are background.

- Foreground: the nearest face's grey values, interpolated at the centre by weights that depend on the corners,
  ``Σ w_i s_i`` with ``w_i ∝ b_i / z_i`` (b: barycentric on the screen, z: depth); alpha is 1 and constant.
- Background: ``alpha = 1 - Π_j (1 - exp(-d_j / δ))`` over all faces, d_j being the squared distance of the
  centre from face j (the paper says distance; the released code squares it); the grey value is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reconlab.kernels.soft_rasterize.reference import face_chunks, list_pairs, pixel_boxes, pixel_centres
from reconlab.kernels.zbuffer.reference import screen_barycentrics

LEAST = 1e-12  # of d / δ: the logarithm of 0 would spoil the product's gradient


def shade_reference(face_xyz: Tensor, splits: Tensor, seen: Tensor, face_shade: Tensor) -> Tensor:
    """(M,H,W) grey values, 0 on the background, by autograd-friendly torch.

    Args:
        face_xyz: (F,3,3) x, y in NDC and camera depth of each corner.
        splits: (M+1,) where each image's faces begin and end.
        seen: (M,H,W) index of the face that each pixel shows, within its image's; -1 where none.
        face_shade: (F,3) grey value of each corner.
    """
    height, width = seen.shape[1:]
    image, row, column = (seen >= 0).nonzero(as_tuple=True)
    face = seen[image, row, column] + splits[:-1].to(seen.device)[image]
    corner = face_xyz[face]
    weight = screen_barycentrics(corner, pixel_centres(column, row, height, width, face_xyz.dtype)) / corner[..., 2]
    value = (weight * face_shade[face]).sum(1) / weight.sum(1)
    out = torch.zeros(seen.shape, dtype=value.dtype, device=seen.device)
    return out.index_put((image, row, column), value)


def alpha_reference(
    face_xyz: Tensor, image_of_face: Tensor, seen: Tensor, delta: float, cutoff: float, budget: int
) -> Tensor:
    """(M,H,W) soft coverage, by autograd-friendly torch.

    Args:
        face_xyz: (F,3,3) corners of the faces that are drawn.
        image_of_face: (F,) int64 image that each belongs to.
        seen: (M,H,W), at least 0 on the foreground.
        delta: Softness, in squared NDC.
        cutoff: Coverage below which a face does not count.
        budget: (face, pixel) pairs per chunk.
    """
    images, height, width = seen.shape
    reach = float(-torch.tensor(cutoff, dtype=torch.float64).log()) * delta
    boxes = pixel_boxes(face_xyz.detach(), height, width, reach**0.5)
    empty = (seen < 0).flatten()

    def partial(xyz: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        face, column, row = list_pairs(boxes)
        pixel = (image[face] * height + row) * width + column
        with torch.no_grad():
            keep = empty[pixel].nonzero()[:, 0]
            near = squared_distance(xyz[face[keep]], pixel_centres(column[keep], row[keep], height, width, xyz.dtype))
            keep = keep[near < reach]
        face, pixel = face[keep], pixel[keep]
        point = pixel_centres(column[keep], row[keep], height, width, xyz.dtype)
        exponent = (squared_distance(xyz[face], point) / delta).clamp(min=LEAST)
        return xyz.new_zeros(empty.numel()).index_add(0, pixel, torch.log(-torch.expm1(-exponent)))

    through = face_xyz.new_zeros(empty.numel()) + face_xyz[:0].sum()  # a gradient of 0, not none
    for c in face_chunks(boxes, budget):
        through = through + checkpoint(partial, face_xyz[c], image_of_face[c], boxes[c], use_reentrant=False)
    return torch.where(empty, -torch.expm1(through), 1.0).view(images, height, width)


def squared_distance(corner: Tensor, point: Tensor) -> Tensor:
    """(P,) squared distance of points (P,2) from the outlines of triangles (P,3,3), on the screen."""
    a = corner[..., :2]
    edge, to = a.roll(-1, 1) - a, point[:, None] - a
    along = ((to * edge).sum(-1) / edge.square().sum(-1).clamp(min=1e-30)).clamp(0, 1)
    return (to - along[..., None] * edge).square().sum(-1).amin(1)
