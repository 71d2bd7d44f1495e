"""Hard renderings by z-buffer: antialiased RGBA pictures, depth and face maps. Not differentiable.

Triangles that cross the near plane are clipped there; those behind it vanish.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.kernels.zbuffer import zbuffer
from reconlab.renderers.shading import Light, turn_to_viewer

GREY = 0.8  # albedo where no colours are given
PIXELS_AT_ONCE = 1 << 22  # bounds the memory of one chunk of views


class DepthImages(NamedTuple):
    """What each pixel's centre sees."""

    depth: Tensor  # (V,H,W) float32 camera z; +inf on the background
    face: Tensor  # (V,H,W) int64 index into the mesh's faces; -1 on the background


@torch.no_grad()
def render_depth(
    vertices: Tensor, faces: Tensor, cameras: Cameras, image_size: int | tuple[int, int], *, near: float = 1e-2
) -> DepthImages:
    """Depth and visible face of one mesh at every pixel centre.

    Two pixels of different views show the same surface when the one's point, lifted by its depth, projects
    onto the other with the depth found there.

    Args:
        vertices: (N,3) in the object frame.
        faces: (F,3) indices.
        cameras: Shape (V,).
        image_size: Side, or (H, W).
        near: The near plane, in object units; faces are clipped there.

    Raises:
        ReconlabError: Wrong shapes.
    """
    _check(vertices, faces, cameras)
    parts = [_draw(vertices, faces, rig, image_size, near) for rig in _chunks(cameras, image_size)]
    return DepthImages(torch.cat([p.depth for p in parts]), torch.cat([p.face for p in parts]))


@torch.no_grad()
def render_rgba(
    vertices: Tensor,
    faces: Tensor,
    cameras: Cameras,
    image_size: int | tuple[int, int],
    face_colors: Tensor | None = None,
    supersample: int = 2,
    light: Light | None = None,
) -> Tensor:
    """Pictures of one mesh, flat-shaded on both sides, with an antialiased alpha channel.

    Args:
        vertices: (N,3) in the object frame.
        faces: (F,3) indices.
        cameras: Shape (V,).
        image_size: Side, or (H, W).
        face_colors: (F,3) uint8, or floats in [0,1]; light grey if None.
        supersample: Samples per pixel along each axis.
        light: Light and ambient; ``Light()`` if None.

    Returns:
        (V,H,W,4) uint8, colour not multiplied by alpha, black where alpha is 0.

    Raises:
        ReconlabError: Wrong shapes.

    Example:
        >>> from reconlab.cameras import orbit_views
        >>> tetrahedron = torch.tensor([[0, .4, 0], [-.4, -.3, -.3], [.4, -.3, -.3], [0, -.3, .4]])
        >>> faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
        >>> pictures = render_rgba(tetrahedron, faces, orbit_views(4), 32)
        >>> pictures.shape, int(pictures[0, 16, 16, 3]), int(pictures[0, 0, 0, 3])
        (torch.Size([4, 32, 32, 4]), 255, 0)
    """
    _check(vertices, faces, cameras)
    if supersample < 1:
        raise ReconlabError(f"render_rgba: supersample is {supersample}; expected at least 1.")
    light = light or Light()
    if face_colors is None:
        albedo = vertices.new_full((len(faces), 3), GREY, dtype=torch.float32)
    elif face_colors.shape != faces.shape:
        raise ReconlabError(f"render_rgba: face_colors is {tuple(face_colors.shape)}; expected {tuple(faces.shape)}.")
    else:
        albedo = face_colors.float() / (255 if face_colors.dtype == torch.uint8 else 1)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    fine = (height * supersample, width * supersample)
    corners = vertices.float()[faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.nn.functional.normalize(normals, dim=-1)
    pictures = [torch.zeros(0, height, width, 4, dtype=torch.uint8, device=vertices.device)]
    for rig in _chunks(cameras, fine):
        face = _draw(vertices, faces, rig, fine, 1e-2).face
        turned = turn_to_viewer(normals[:, None], normals, corners.mean(1), rig.position.to(corners))[:, :, 0]
        colour = light.shade(turned)[..., None] * albedo  # (V,F,3)
        colour = torch.cat([colour, torch.ones_like(colour[..., :1])], -1)
        colour = torch.cat([colour, colour.new_zeros(len(colour), 1, 4)], 1)  # the background is the last face
        first = torch.arange(len(face), device=face.device)[:, None, None] * (len(faces) + 1)
        index, colour = torch.where(face < 0, len(faces), face) + first, colour.flatten(0, 1)
        image = torch.zeros(len(face), height, width, 4, device=face.device)
        for k in range(supersample**2):
            image += colour[index[:, k // supersample :: supersample, k % supersample :: supersample]]
        image /= supersample**2
        image[..., :3] /= image[..., 3:].clamp(min=1e-6)
        pictures.append((image.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(pictures)


def _check(vertices: Tensor, faces: Tensor, cameras: Cameras) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ReconlabError(
            "Rendering takes vertices (N,3) and faces (F,3) of one mesh, "
            f"got {tuple(vertices.shape)} and {tuple(faces.shape)}."
        )
    if len(cameras.shape) != 1:
        raise ReconlabError(f"Rendering takes cameras of shape (V,), got {tuple(cameras.shape)}.")


def _chunks(cameras: Cameras, image_size: int | tuple[int, int]) -> Iterator[Cameras]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    step = max(1, PIXELS_AT_ONCE // (height * width))
    for start in range(0, max(1, len(cameras)), step):
        yield cameras[start : start + step]


def _draw(
    vertices: Tensor, faces: Tensor, cameras: Cameras, image_size: int | tuple[int, int], near: float
) -> DepthImages:
    views, count = len(cameras), len(faces)
    rig = cameras.to(vertices.device)
    points = rig.transform(vertices.float())  # (V,N,3)
    behind = points[..., 2] < near
    drawn_from = near * (1 - 1e-6)  # corners cut at the plane must not fall before it by rounding
    crossing = torch.zeros(views, count, dtype=torch.bool, device=faces.device)
    if bool(behind.any()):
        hidden = behind[:, faces].sum(2)
        crossing = (hidden > 0) & (hidden < 3)
    corners = _to_image(points, rig)[:, faces]  # faces with a corner behind the plane are skipped by the kernel
    if not bool(crossing.any()):
        depth, face, _ = zbuffer(
            corners.flatten(0, 1), [count * v for v in range(views + 1)], image_size, near=drawn_from
        )
        return DepthImages(depth, face.long())
    packed, sources = [], []
    for v in range(views):
        cut = crossing[v].nonzero()[:, 0]
        pieces, parent = clip_near(points[v][faces[cut]], near)
        packed.append(torch.cat([corners[v], _to_image(pieces.flatten(0, 1)[None], rig[v : v + 1]).view(-1, 3, 3)]))
        sources.append(torch.cat([torch.arange(count, device=faces.device), cut[parent]]))
    splits = torch.tensor([0] + [len(p) for p in packed]).cumsum(0)
    depth, face, _ = zbuffer(torch.cat(packed), splits, image_size, near=drawn_from)
    found = [torch.where(f < 0, -1, s[f.long().clamp(min=0)]) for f, s in zip(face, sources, strict=True)]
    return DepthImages(depth, torch.stack(found))


def _to_image(points: Tensor, cameras: Cameras) -> Tensor:
    """Camera frame (V,N,3) -> x, y in NDC and depth; the rest of the pinhole projection."""
    depth = points[..., 2:]
    xy = points[..., :2] / depth.clamp(min=1e-4) * cameras.focal[:, None] + cameras.centre[:, None]
    return torch.cat([xy, depth], -1)


def clip_near(corners: Tensor, near: float) -> tuple[Tensor, Tensor]:
    """Cut triangles that cross the plane z = ``near`` and keep what lies beyond it.

    Args:
        corners: (K,3,3) in the camera frame, each with one or two corners nearer than ``near``.
        near: The plane.

    Returns:
        (L,3,3) triangles of the same orientation with all z >= ``near``, and (L,) the triangle each came from.
    """
    hidden = corners[..., 2] < near
    single = hidden.sum(1) == 1
    # Turn each triangle so that corner 0 is the odd one out: the only hidden, or the only visible corner.
    odd = torch.where(single[:, None], hidden, ~hidden).int().argmax(1)
    order = (odd[:, None] + torch.arange(3, device=corners.device)) % 3
    a, b, c = corners.gather(1, order[..., None].expand(-1, -1, 3)).unbind(1)

    def cut(p: Tensor, q: Tensor) -> Tensor:
        point = p + ((near - p[:, 2]) / (q[:, 2] - p[:, 2]))[:, None] * (q - p)
        return torch.cat([point[:, :2], torch.full_like(point[:, :1], near)], 1)

    ab, ac = cut(a, b), cut(a, c)
    index = torch.arange(len(corners), device=corners.device)
    tip = torch.stack([a, ab, ac], 1)[~single]
    quad = torch.cat([torch.stack([ab, b, c], 1)[single], torch.stack([ab, c, ac], 1)[single]])
    return torch.cat([tip, quad]), torch.cat([index[~single], index[single], index[single]])
