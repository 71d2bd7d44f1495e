"""Soft rasterisation in plain torch: states the formula, and serves every device that has no kernel yet.

Source: Liu, Li, Chen, Li, "Soft Rasterizer", ICCV 2019, eq. 1 (probability), 2-3 (colour), 5 (silhouette).
Only (face, pixel) pairs inside a face's enlarged bounding box are listed, in chunks of bounded size, each
recomputed in the backward pass: memory is O(inputs + outputs + one chunk).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MIN_AREA2 = 1e-10  # |twice the signed area| in squared NDC below which a face is dropped, as SoftRas' clamp
MAX_COORDINATE = 1e6  # |x|, |y| in NDC beyond which a face is dropped: squares of larger ones may overflow


@dataclass(frozen=True)
class Settings:
    """The numbers of one call; see :func:`reconlab.kernels.soft_rasterize.soft_rasterize`."""

    height: int
    width: int
    sigma: float
    gamma: float
    near: float
    far: float
    eps: float
    cutoff: float

    @property
    def limit(self) -> float:
        """Largest d²/σ outside a face at which it still counts: sigmoid(-limit) = cutoff."""
        return math.log(1.0 / self.cutoff - 1.0)

    @property
    def radius(self) -> float:
        """Largest distance (NDC) from a face at which it still counts."""
        return math.sqrt(self.limit * self.sigma)

    @property
    def depth_scale(self) -> float:
        """Depth over which a face's weight falls by e: γ (far - near)."""
        return self.gamma * (self.far - self.near)


def usable_faces(face_xyz: Tensor, settings: Settings) -> Tensor:
    """(F,) bool: finite, wholly between the planes, not degenerate."""
    xy, z = face_xyz[..., :2], face_xyz[..., 2]
    corner = xy.double()  # exact products: a line must have no area
    ab, ac = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    area2 = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    inside = ((z >= settings.near) & (z <= settings.far)).all(1)
    inside = inside & (xy.abs() < MAX_COORDINATE).flatten(1).all(1)
    return inside & face_xyz.isfinite().all(2).all(1) & (area2.abs() > MIN_AREA2)


def pixel_boxes(face_xyz: Tensor, height: int, width: int, radius: float) -> Tensor:
    """(F,4) int64 x0, y0, columns, rows: the pixels whose centres lie in the face's box grown by ``radius``."""
    size = torch.tensor([width, height], device=face_xyz.device, dtype=face_xyz.dtype)
    low = (face_xyz[..., :2].amin(1) - radius + 1) * size / 2 - 0.5
    high = (face_xyz[..., :2].amax(1) + radius + 1) * size / 2 - 0.5
    first = torch.minimum(low.ceil().clamp(min=0), size)
    last = torch.minimum(high.floor().clamp(min=-1), size - 1)
    return torch.cat([first, (last - first + 1).clamp(min=0)], 1).long()


def list_pairs(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Face, column and row (each (P,) int64) of every pixel of every box."""
    count = boxes[:, 2] * boxes[:, 3]
    face = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), count)
    nth = torch.arange(len(face), device=boxes.device) - (count.cumsum(0) - count)[face]
    box = boxes[face]
    return face, box[:, 0] + nth % box[:, 2], box[:, 1] + nth // box[:, 2]


def pixel_centres(column: Tensor, row: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """(P,2) NDC of the centres of pixels given by integers."""
    return torch.stack([(2 * column + 1).to(dtype) / width - 1, (2 * row + 1).to(dtype) / height - 1], 1)


def face_chunks(boxes: Tensor, budget: int) -> list[slice]:
    """Consecutive runs of faces with at most ``budget`` pairs each (one face may exceed it)."""
    total = (boxes[:, 2] * boxes[:, 3]).cumsum(0).cpu()
    chunks, start, done = [], 0, 0
    while start < len(total):
        stop = max(start + 1, int(torch.searchsorted(total, done + budget, right=True)))
        chunks.append(slice(start, stop))
        start, done = stop, int(total[stop - 1])
    return chunks


def _signed_distance(x: Tensor, y: Tensor, px: Tensor, py: Tensor) -> tuple[Tensor, Tensor]:
    """Of corners (3,P) and points (P,): squared distance to the outline, positive inside, and barycentrics (3,P)."""
    ex, ey = x.roll(-1, 0) - x, y.roll(-1, 0) - y  # edge i leads from corner i to corner i + 1
    dx, dy = px - x, py - y
    area2 = ex[2] * ey[0] - ey[2] * ex[0]
    bary = ((ex * dy - ey * dx) / area2).roll(-1, 0)  # edge i is opposite to corner i + 2
    along = ((dx * ex + dy * ey) / (ex * ex + ey * ey).clamp(min=1e-30)).clamp(0, 1)
    squared = ((dx - along * ex).square() + (dy - along * ey).square()).amin(0)
    return torch.where((bary >= 0).all(0), squared, -squared), bary


def _pair_terms(xyz: Tensor, nearest: Tensor, boxes: Tensor, s: Settings) -> tuple[Tensor, ...]:
    """Of the pairs within reach: face, flat pixel, d²/σ (negative outside), clipped barycentrics, depth exponent."""
    face, column, row = list_pairs(boxes)
    px, py = pixel_centres(column, row, s.height, s.width, xyz.dtype).unbind(1)
    corners = xyz.permute(2, 1, 0)  # coordinate, corner, face: pairs come last, where torch is fast
    with torch.no_grad():  # most of a box is out of reach: drop it before anything is kept for the backward
        signed = _signed_distance(corners[0][:, face], corners[1][:, face], px, py)[0]
        keep = (signed > -s.limit * s.sigma).nonzero()[:, 0]
    face = face[keep]
    x, y, z = corners[:, :, face]
    signed, bary = _signed_distance(x, y, px[keep], py[keep])
    bary = bary.clamp(0, 1)
    bary = bary / bary.sum(0)
    exponent = (nearest[face] - 1 / (bary / z).sum(0)) / s.depth_scale
    return face, row[keep] * s.width + column[keep], signed / s.sigma, bary, exponent


def soft_rasterize_reference(
    face_xyz: Tensor, image_of_face: Tensor, images: int, face_shade: Tensor | None, settings: Settings, budget: int
) -> tuple[Tensor, Tensor | None]:
    """Alpha (M,H,W) and, with ``face_shade``, the shade image (M,H,W), by autograd-friendly torch.

    Args:
        face_xyz: (F,3,3) x, y in NDC and camera depth of each corner.
        image_of_face: (F,) int64 image that each face belongs to.
        images: M.
        face_shade: (F,3) grey value of each corner, or None.
        settings: Image size and the formula's constants.
        budget: Pairs per chunk.
    """
    s = settings
    pixels = images * s.height * s.width
    with torch.no_grad():
        use = usable_faces(face_xyz, s).nonzero()[:, 0]
    xyz, image = face_xyz[use], image_of_face[use]
    shade = None if face_shade is None else face_shade[use]
    boxes = pixel_boxes(xyz.detach(), s.height, s.width, s.radius)
    chunks = face_chunks(boxes, budget)
    # Depth exponents are taken from each image's nearest vertex: the softmax does not feel the shift, float32 does.
    nearest = xyz.new_full((images,), s.far).scatter_reduce(0, image, xyz.detach()[..., 2].amin(1), "amin")
    background = s.eps / s.gamma - (s.far - nearest) / s.depth_scale
    highest = background.repeat_interleave(s.height * s.width)
    if shade is not None:
        with torch.no_grad():
            for c in chunks:
                face, pixel, _, _, exponent = _pair_terms(xyz[c], nearest[image[c]], boxes[c], s)
                pixel = pixel + image[c][face] * (s.height * s.width)
                highest = highest.scatter_reduce(0, pixel, exponent, "amax")

    def partial(xyz: Tensor, shade: Tensor | None, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        face, pixel, logit, bary, exponent = _pair_terms(xyz, nearest[image], boxes, s)
        pixel = pixel + image[face] * (s.height * s.width)
        zero = xyz.new_zeros(pixels)
        through = zero.index_add(0, pixel, -torch.nn.functional.softplus(logit))  # log(1 - sigmoid)
        if shade is None:
            return through, zero, zero
        weight = torch.sigmoid(logit) * (exponent - highest[pixel]).exp()
        value = (bary * shade.T[:, face]).sum(0)
        return through, zero.index_add(0, pixel, weight), zero.index_add(0, pixel, weight * value)

    through = xyz.new_zeros(pixels) + xyz[:0].sum()  # a gradient of 0, not none, where nothing is seen
    weights = (background.repeat_interleave(s.height * s.width) - highest).exp()
    values = xyz.new_zeros(pixels)
    for c in chunks:
        part = checkpoint(
            partial, xyz[c], None if shade is None else shade[c], image[c], boxes[c], use_reentrant=False
        )
        through, weights, values = through + part[0], weights + part[1], values + part[2]
    size = (images, s.height, s.width)
    return -torch.expm1(through).view(size), None if shade is None else (values / weights).view(size)
