"""Differentiable silhouettes and shaded views of meshes (SoftRas, Liu et al., ICCV 2019)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.kernels import soft_rasterize as kernel
from reconlab.renderers.shading import Light, turn_to_viewer
from reconlab.shapes import Mesh


class SoftImages(NamedTuple):
    """Views of B meshes from V cameras."""

    silhouette: Tensor  # (B,V,H,W) in [0,1], 1 inside
    shaded: Tensor | None  # (B,V,H,W) grey in [0,1] on black; None without shading


def soft_rasterize(
    mesh: Mesh,
    cameras: Cameras,
    image_size: int | tuple[int, int] = 128,
    *,
    sigma: float = 1e-4,
    gamma: float = 1e-3,
    normals: Literal["smooth", "flat"] = "smooth",
    light: Light | None = None,
    shading: bool = True,
    near: float = 0.1,
    far: float = 100.0,
    backend: kernel.Backend = "auto",
) -> SoftImages:
    """Render a batch of meshes softly, differentiably with respect to ``mesh.vertices``.

    The gradient flows through projection, depth and normals. ``shaded`` is the softmax colour times the
    silhouette: without that product its outline is hard and it has next to no silhouette gradient. Smooth
    normals and γ = 1e-3 are the defaults because with flat normals nearly all of the gradient sits on a few
    sliver triangles. Faces are visible from both sides.

    Args:
        mesh: B meshes of any sizes; an empty one gives empty images.
        cameras: Shape (V,), shared, or (B,V).
        image_size: Side, or (H, W).
        sigma: Blur of the outline in squared NDC (the image is 2 wide): 1e-4 blurs over about 0.01.
        gamma: Softness of the depth order in units of ``far - near``: the default lets faces within about
            0.1 object units in depth mix, as SoftRas' planes 1 and 100 do at the same γ.
        normals: "smooth" (area-weighted vertex normals) or "flat".
        light: Light and ambient; ``Light()`` if None.
        shading: Whether to make ``shaded``; silhouettes alone are about twice as fast.
        near: Faces with a corner nearer than this are not drawn.
        far: Nor those beyond this.
        backend: See :func:`reconlab.kernels.soft_rasterize.soft_rasterize`.

    Returns:
        ``silhouette`` and ``shaded``, each (B,V,H,W).

    Raises:
        ReconlabError: The cameras' shape does not fit the mesh, or a setting is out of range.

    Example:
        >>> from reconlab.cameras import orbit_views
        >>> square = Mesh(torch.tensor([[-.4, -.4, 0], [.4, -.4, 0], [.4, .4, 0], [-.4, .4, 0.]]),
        ...               torch.tensor([[0, 1, 2], [0, 2, 3]]))
        >>> views = soft_rasterize(square, orbit_views(3, elevation=0.0), 32)
        >>> views.silhouette.shape, bool(views.silhouette[0, 0, 14, 20] > 0.99)
        (torch.Size([1, 3, 32, 32]), True)
    """
    if normals not in ("smooth", "flat"):
        raise ReconlabError(f"soft_rasterize: normals is {normals!r}; expected 'smooth' or 'flat'.")
    batch = len(mesh)
    with torch.autocast(mesh.device.type, enabled=False):  # geometry in half precision is noise
        if mesh.vertices.dtype in (torch.float16, torch.bfloat16):
            mesh = Mesh(mesh.vertices.float(), mesh.faces, mesh.vertex_splits, mesh.face_splits)
        xyz, splits, grey = _screen_faces(mesh, _rig(cameras, batch).to(mesh.device), normals, light, shading)
        image = kernel.soft_rasterize(
            xyz, splits, image_size, grey, sigma=sigma, gamma=gamma, near=near, far=far, backend=backend
        )
    alpha = image.alpha.view(batch, cameras.shape[-1], *image.alpha.shape[1:])
    return SoftImages(alpha, None if image.shade is None else image.shade.view(alpha.shape) * alpha)


def _screen_faces(
    mesh: Mesh, rig: Cameras, normals: str, light: Light | None, shading: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Faces of all meshes from all cameras (B,V) as the kernel takes them: corners, splits, grey values."""
    batch, views = rig.shape
    corners = mesh.face_vertices()
    shades = _FaceShades(mesh, corners, normals) if shading else None
    xyz, grey, counts = [corners[:0]], [corners[:0, :, 0]], [0]
    for b in range(batch):
        (v0, v1), (f0, f1) = mesh.vertex_splits[b : b + 2].tolist(), mesh.face_splits[b : b + 2].tolist()
        xy, depth = rig[b].project(mesh.vertices[v0:v1].expand(views, -1, -1))
        points = torch.cat([xy, depth.unsqueeze(-1)], -1)
        xyz.append(points[:, mesh.faces[f0:f1] - v0].reshape(-1, 3, 3))
        if shades is not None:
            grey.append(shades.seen_from(slice(f0, f1), rig[b].position, light or Light()))
        counts += [f1 - f0] * views
    return torch.cat(xyz), torch.tensor(counts).cumsum(0), torch.cat(grey) if shading else None


class _FaceShades:
    """Normals of a packed mesh, and the grey values of its corners from any cameras."""

    def __init__(self, mesh: Mesh, corners: Tensor, normals: str) -> None:
        self.face_normals = mesh.face_normals()
        flat = self.face_normals[:, None].expand(-1, 3, -1)
        self.corner_normals = mesh.vertex_normals()[mesh.faces] if normals == "smooth" else flat
        self.centres = corners.detach().mean(1)

    def seen_from(self, part: slice, eyes: Tensor, light: Light) -> Tensor:
        """(V·F,3) grey values of the corners of the faces in ``part``."""
        turned = turn_to_viewer(
            self.corner_normals[part], self.face_normals[part], self.centres[part], eyes.to(self.centres.dtype)
        )
        return light.shade(turned).reshape(-1, 3)


def _rig(cameras: Cameras, batch: int) -> Cameras:
    shape = tuple(cameras.shape)
    if len(shape) == 1:
        return cameras.reshape(1, *shape).expand(batch, *shape)
    if len(shape) == 2 and shape[0] == batch:
        return cameras
    raise ReconlabError(
        f"soft_rasterize: the cameras have shape {shape} and there are {batch} meshes; "
        f"expected (V,) for shared cameras or ({batch}, V)."
    )
