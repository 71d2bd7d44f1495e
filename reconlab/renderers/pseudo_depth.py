"""Orthographic depth: of meshes by z-buffer, and of points by EPCG's pseudo-renderer (Lin et al., AAAI 2018).

An orthographic view is a rotation R to a camera frame (x right, y down, z forward) at distance 1 from the object's
centre: depth is ``z + 1`` and the image sees [-0.5, 0.5]² of x and y, which holds every object whose bounding box
has a diagonal of 1. Pixel i of S is centred at ``(i + 0.5) / S - 0.5``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from reconlab.cameras import look_at
from reconlab.errors import ReconlabError
from reconlab.kernels.zbuffer import zbuffer

DISTANCE = 1.0
"""From the camera to the object's centre; the background's depth in EPCG's losses."""

OFFSET = 10.0
"""Added to depths before they are inverted, as in the published code: points behind the camera stay positive."""

UNSEEN_LOGIT = -1.0
"""Mask logit of a pixel onto which no point falls."""

FIXED_VIEWS = 8


def fixed_views() -> Tensor:
    """``(8, 3, 3)`` rotations of EPCG's fixed views, from the corners of a centred cube.

    Its file of viewpoints was not used; the paper says corners. Order: upper four, then lower four, by azimuth.
    """
    corner = 35.264389682754654  # degrees of elevation: atan(1 / √2)
    azimuth = [45.0, 135.0, 225.0, 315.0] * 2
    return look_at(azimuth, [corner] * 4 + [-corner] * 4, DISTANCE, 1.0).R


def random_views(count: int, seed: int) -> Tensor:
    """``(count, 3, 3)`` rotations of views uniform on the sphere without roll, the same for the same seed."""
    u = torch.rand(2, count, generator=torch.Generator().manual_seed(seed))
    return look_at(360 * u[0], torch.rad2deg(torch.asin(2 * u[1] - 1)), DISTANCE, 1.0).R


def to_view(points: Tensor, rotations: Tensor, size: int) -> Tensor:
    """Object frame to pixels and depth: ``(B, N, 3)`` and ``(V, 3, 3)`` to ``(B, V, N, 3)``."""
    camera = points.unsqueeze(1) @ rotations.to(points).transpose(-1, -2)
    xy = (camera[..., :2] + 0.5) * size - 0.5
    return torch.cat([xy, camera[..., 2:] + DISTANCE], -1)


def from_view(pixels: Tensor, rotations: Tensor, size: int) -> Tensor:
    """Pixels and depth of each view back to the object frame: ``(B, V, N, 3)`` to ``(B, V, N, 3)``."""
    xy = (pixels[..., :2] + 0.5) / size - 0.5
    return torch.cat([xy, pixels[..., 2:] - DISTANCE], -1) @ rotations.to(pixels)


@torch.no_grad()
def render_orthographic_depth(vertices: Tensor, faces: Tensor, rotations: Tensor, size: int) -> Tensor:
    """True depth maps of one mesh. Not differentiable.

    Args:
        vertices: ``(N, 3)`` in the object frame.
        faces: ``(F, 3)`` indices.
        rotations: ``(V, 3, 3)``.
        size: Pixels a side.

    Returns:
        ``(V, size, size)`` float32 depth at the pixels' centres, +inf on the background.

    Raises:
        ReconlabError: Wrong shapes.
    """
    if vertices.ndim != 2 or vertices.shape[-1] != 3 or faces.ndim != 2 or faces.shape[-1] != 3:
        raise ReconlabError(
            "render_orthographic_depth() takes vertices (N, 3) and faces (F, 3) of one mesh, "
            f"not {tuple(vertices.shape)} and {tuple(faces.shape)}."
        )
    seen = to_view(vertices[None].float(), rotations, size)[0]
    # The z-buffer interpolates 1/z linearly across a face, as perspective asks. Given z = 1 / (OFFSET - depth) that
    # is the depth itself, in the same order from near to far.
    xy = (2 * seen[..., :2] + 1) / size - 1
    corners = torch.cat([xy, 1 / (OFFSET - seen[..., 2:])], -1)[:, faces].flatten(0, 1)
    splits = [len(faces) * v for v in range(len(rotations) + 1)]
    found = zbuffer(corners, splits, size)
    return torch.where(found.face >= 0, OFFSET - 1 / found.depth, torch.inf)


class PseudoDepth(NamedTuple):
    """What EPCG's pseudo-renderer makes of points in each view; all ``(B, V, size, size)``.

    Attributes:
        depth: Of the nearest visible point where ``sharing`` is 1; +inf where no point is visible. Where ``sharing``
            is more it is not meaningful (inverse depths of colliding points are added).
        logit: Mask logit: the largest of the visible points' (summed where they collide), else the mean over the
            pixel's cells of the invisible ones', else -1.
        sharing: Most visible points that share one cell of the pixel.
    """

    depth: Tensor
    logit: Tensor
    sharing: Tensor


def render_pseudo_depth(
    points: Tensor, logits: Tensor, rotations: Tensor, size: int, upscale: int = 5
) -> PseudoDepth:
    """Depth and mask of points by EPCG's pseudo-renderer: scatter onto a finer grid, then pool.

    Every point falls into one cell of an image ``upscale`` times finer; inverse depths, logits and ones are added
    up there, and pixels take the maximum over their cells. Visible points are those with a positive logit.
    Differentiable by logits and by depth (through the winning point), not by the position in the image.

    Args:
        points: ``(B, N, 3)`` in the object frame; those that are not finite, or 8 and more behind the camera, are not
            drawn.
        logits: ``(B, N)`` mask logits.
        rotations: ``(V, 3, 3)`` for all samples.
        size: Pixels a side.
        upscale: Cells along a pixel's side.

    Raises:
        ReconlabError: Wrong shapes.
    """
    if points.dim() != 3 or points.shape[-1] != 3 or logits.shape != points.shape[:2] or size < 1 or upscale < 1:
        raise ReconlabError(
            "render_pseudo_depth() takes points (B, N, 3), logits (B, N), and at least one pixel and cell, "
            f"not {tuple(points.shape)}, {tuple(logits.shape)}, {size} and {upscale}."
        )
    batch, views, fine = len(points), len(rotations), size * upscale
    seen = to_view(points, rotations, fine)
    # Inside before rounding: a position that is not finite must not become an integer.
    xy, depth = seen[..., :2].detach(), seen[..., 2]
    inside = ((xy > -0.5) & (xy < fine - 0.5)).all(-1) & (depth > 2 - OFFSET) & depth.isfinite()
    where = inside.nonzero(as_tuple=True)
    column, row = xy[where].round().long().clamp(0, fine - 1).unbind(-1)
    cell = ((where[0] * views + where[1]) * fine + row) * fine + column
    chosen = logits[where[0], where[2]]
    inverse = 1 / (depth[where] + OFFSET)
    visible = chosen > 0

    def scatter(values: Tensor, keep: Tensor) -> Tensor:
        image = values.new_zeros(batch * views * fine * fine).index_add(0, cell[keep], values[keep])
        return image.reshape(batch * views, 1, fine, fine)

    top = F.max_pool2d(scatter(inverse, visible), upscale).reshape(batch, views, size, size)
    seen_logit = F.max_pool2d(scatter(chosen, visible), upscale).view_as(top)
    unseen = F.avg_pool2d(scatter(chosen, ~visible), upscale).view_as(top)
    sharing = F.max_pool2d(scatter(torch.ones_like(inverse.detach()), visible), upscale).view_as(top)
    hit = sharing > 0
    distance = torch.where(hit, 1 / torch.where(hit, top, torch.ones_like(top)) - OFFSET, torch.inf)
    logit = torch.where(hit, seen_logit, torch.where(unseen < 0, unseen, torch.full_like(unseen, UNSEEN_LOGIT)))
    # A NaN logit is neither positive nor negative: let it show.
    return PseudoDepth(distance, torch.where(unseen.isnan(), unseen, logit), sharing)
