"""Meshes seen from cameras as the rasterising kernels take them: packed screen-space corners with grey values."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.renderers.shading import Light, turn_to_viewer
from reconlab.shapes import Mesh

Normals = Literal["smooth", "flat"]

FARTHEST = 1e6  # coordinates beyond it are taken for lost: products of their squares overflow


def screen_faces(
    mesh: Mesh, cameras: Cameras, normals: Normals, light: Light | None, shading: bool, who: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Faces of all meshes from all cameras, view after view within a mesh. Differentiable.

    Args:
        mesh: B meshes.
        cameras: Shape (V,), shared, or (B,V).
        normals: "smooth" (area-weighted vertex normals) or "flat".
        light: Light and ambient; ``Light()`` if None.
        shading: Whether to make grey values.
        who: The renderer, for error messages.

    Returns:
        Corners (ΣF·V, 3, 3): x, y in [-1,1] and depth; splits (B·V + 1,); grey values (ΣF·V, 3), or None.

    Raises:
        ReconlabError: The cameras' shape does not fit the mesh, or ``normals`` is neither.
    """
    if normals not in ("smooth", "flat"):
        raise ReconlabError(f"{who}: normals is {normals!r}; expected 'smooth' or 'flat'.")
    rig = _rig(cameras.send(mesh.device), len(mesh), who)
    batch, views = rig.shape
    corners = mesh.face_vertices()
    shades = _FaceShades(_presentable(mesh), normals) if shading else None
    sizes = [x.diff().tolist() for x in (mesh.vertex_splits, mesh.face_splits)]
    if batch and all(len(set(x)) == 1 for x in sizes):
        return _all_at_once(mesh, rig, sizes[0][0], sizes[1][0], shades, light or Light())
    xyz, grey, counts = [corners[:0]], [corners[:0, :, 0]], [0]
    for b in range(batch):
        (v0, v1), (f0, f1) = mesh.vertex_splits[b : b + 2].tolist(), mesh.face_splits[b : b + 2].tolist()
        xy, depth = rig[b].project(mesh.vertices[v0:v1].expand(views, -1, -1))
        points = torch.cat([xy, depth.unsqueeze(-1)], -1)
        xyz.append(points[:, mesh.faces[f0:f1] - v0].reshape(-1, 3, 3))
        if shades is not None:
            grey.append(shades.seen_from(slice(f0, f1), (), rig[b].position, light or Light()))
        counts += [f1 - f0] * views
    return torch.cat(xyz), torch.tensor(counts).cumsum(0), torch.cat(grey) if shading else None


def _all_at_once(
    mesh: Mesh, rig: Cameras, vertices: int, faces: int, shades: _FaceShades | None, light: Light
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same of meshes of one size, as networks make them, without a loop: on a GPU a loop is all launches."""
    batch, views = rig.shape
    xy, depth = rig.project(mesh.vertices.reshape(batch, 1, vertices, 3))
    points = torch.cat([xy, depth.unsqueeze(-1)], -1).reshape(-1, 3)
    image = torch.arange(batch * views, device=mesh.device).reshape(batch, views, 1) * vertices
    own = torch.arange(batch, device=mesh.device).reshape(batch, 1, 1) * vertices
    index = mesh.faces.reshape(batch, 1, 3 * faces) - own + image
    xyz = points.index_select(0, index.flatten()).reshape(-1, 3, 3)
    grey = None if shades is None else shades.seen_from(slice(None), (batch, faces), rig.position, light)
    return xyz, torch.arange(batch * views + 1) * faces, grey


class _FaceShades:
    """Normals of a packed mesh, and the grey values of its corners from any cameras."""

    def __init__(self, mesh: Mesh, normals: str) -> None:
        self.face_normals = mesh.face_normals()
        flat = self.face_normals[:, None].expand(-1, 3, -1)
        self.corner_normals = mesh.vertex_normals()[mesh.faces] if normals == "smooth" else flat
        self.centres = mesh.face_vertices().detach().mean(1)

    def seen_from(self, part: slice, lead: tuple[int, ...], eyes: Tensor, light: Light) -> Tensor:
        """(V·F,3) grey values of the corners of the faces in ``part``, which ``lead`` divides into meshes' (B, F)."""
        normals, faces, centres = (
            x[part].reshape(*lead, *x.shape[1:]) if lead else x[part]
            for x in (self.corner_normals, self.face_normals, self.centres)
        )
        return light.shade(turn_to_viewer(normals, faces, centres, eyes.to(centres.dtype))).reshape(-1, 3)


def _presentable(mesh: Mesh) -> Mesh:
    """The mesh without corners so far away that their normals overflow; the kernels do not draw their faces.

    Else one lost vertex would spoil the smooth normals of its neighbours.
    """
    fine = (mesh.vertices.detach().abs() < FARTHEST).all(1, keepdim=True)
    faces = torch.where(fine[mesh.faces, 0].all(1, keepdim=True), mesh.faces, 0)
    return Mesh(torch.where(fine, mesh.vertices, 0.0), faces, mesh.vertex_splits, mesh.face_splits)


def _rig(cameras: Cameras, batch: int, who: str) -> Cameras:
    shape = tuple(cameras.shape)
    if len(shape) == 1:
        return cameras.reshape(1, *shape).expand(batch, *shape)
    if len(shape) == 2 and shape[0] == batch:
        return cameras
    raise ReconlabError(
        f"{who}: the cameras have shape {shape} and there are {batch} meshes; "
        f"expected (V,) for shared cameras or ({batch}, V)."
    )
