"""Triangle meshes of unequal sizes in one packed batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reconlab.devices import send
from reconlab.errors import ReconlabError
from reconlab.precision import at_least_single
from reconlab.shapes.base import Shape
from reconlab.shapes.voxels import VoxelGrid

if TYPE_CHECKING:
    import trimesh


class Mesh(Shape):
    """``B`` triangle meshes, packed: all vertices after one another, faces indexing the packed vertices.

    Args:
        vertices: ``(ΣV, 3)`` packed, ``(V, 3)`` for one mesh, or ``(B, V, 3)``.
        faces: ``(ΣF, 3)`` integers into the packed vertices; with ``(B, V, 3)`` vertices ``(F, 3)`` shared or
            ``(B, F, 3)``, then into each mesh's own.
        vertex_splits: ``(B + 1,)`` where each mesh's vertices begin and end; omit for one mesh or for ``(B, V, 3)``.
        face_splits: ``(B + 1,)`` likewise for faces.

    Example:
        >>> triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
        >>> len(triangle), triangle.points(10).shape
        (1, torch.Size([1, 10, 3]))
        >>> bool(torch.allclose(triangle.points(10).sum(-1), torch.ones(1, 10)))
        True
    """

    def __init__(
        self,
        vertices: Tensor,
        faces: Tensor,
        vertex_splits: Tensor | None = None,
        face_splits: Tensor | None = None,
    ) -> None:
        faces = faces.long()
        if vertices.ndim == 3:
            batch, count = vertices.shape[:2]
            _check_range(faces, count)
            if faces.ndim == 2:
                faces = faces.unsqueeze(0).expand(batch, -1, -1)
            offset = torch.arange(batch, device=faces.device).reshape(-1, 1, 1) * count
            vertex_splits = torch.arange(batch + 1) * count
            face_splits = torch.arange(batch + 1) * faces.shape[1]
            faces = (faces + offset).reshape(-1, 3)
            vertices = vertices.reshape(-1, 3)
        if vertices.ndim != 2 or vertices.shape[-1] != 3 or faces.ndim != 2 or faces.shape[-1] != 3:
            raise ReconlabError(
                f"Mesh: vertices have shape {tuple(vertices.shape)} and faces {tuple(faces.shape)}; "
                "expected (V, 3) and (F, 3), or (B, V, 3) and (F, 3)."
            )
        if (vertex_splits is None) != (face_splits is None):
            raise ReconlabError("Mesh: give both vertex_splits and face_splits, or neither.")
        if vertex_splits is None or face_splits is None:
            vertex_splits, face_splits = torch.tensor([0, len(vertices)]), torch.tensor([0, len(faces)])
        _check_range(faces, len(vertices))
        if int(vertex_splits[-1]) != len(vertices) or int(face_splits[-1]) != len(faces):
            raise ReconlabError(
                f"Mesh: the splits end at {int(vertex_splits[-1])} vertices and {int(face_splits[-1])} faces, "
                f"but there are {len(vertices)} and {len(faces)}."
            )
        self.vertices = at_least_single(vertices)
        self.faces = faces
        self.vertex_splits = vertex_splits.cpu()
        self.face_splits = face_splits.cpu()
        self._fingerprints: list[float] | None = None

    @classmethod
    def from_list(cls, items: Sequence[tuple[Tensor, Tensor]]) -> Mesh:
        """Pack ``(vertices (V, 3), faces (F, 3))`` pairs; faces index each pair's own vertices."""
        if not items:
            raise ReconlabError("Mesh.from_list: the list is empty; expected at least one mesh.")
        v_count = torch.tensor([0] + [len(v) for v, _ in items]).cumsum(0)
        f_count = torch.tensor([0] + [len(f) for _, f in items]).cumsum(0)
        faces = torch.cat([f.long() + int(o) for (_, f), o in zip(items, v_count[:-1], strict=True)])
        return cls(torch.cat([v for v, _ in items]), faces, v_count, f_count)

    @classmethod
    def cat(cls, meshes: Sequence[Mesh]) -> Mesh:
        """Concatenate batches."""
        return cls.from_list([m.item(i) for m in meshes for i in range(len(m))])

    def __len__(self) -> int:
        return len(self.vertex_splits) - 1

    def __getitem__(self, index: slice | int) -> Mesh:
        s = self.as_slice(index, len(self))
        return Mesh.from_list([self.item(i) for i in range(*s.indices(len(self)))])

    @property
    def device(self) -> torch.device:
        """Where vertices and faces live (the splits stay on the CPU)."""
        return self.vertices.device

    def to(self, device: torch.device | str) -> Mesh:
        """Move to a device."""
        return self.changed(lambda tensor: tensor.to(device))

    def changed(self, change: Callable[[Tensor], Tensor]) -> Mesh:
        """With vertices and faces moved or copied by ``change``.

        What leaves the CPU, or is pinned in order to, is fingerprinted before: there it would have to be waited for.
        """
        moved = Mesh(change(self.vertices), change(self.faces), self.vertex_splits, self.face_splits)
        leaves = moved.device.type != "cpu" or moved.vertices.is_pinned()
        moved._fingerprints = self.fingerprints() if leaves and self.device.type == "cpu" else self._fingerprints
        return moved

    def fingerprints(self) -> list[float]:
        """A number for each mesh that other vertices, or an order of them, would hardly give; remembered."""
        if self._fingerprints is None:
            vertices = self.vertices.detach().double()
            # The phase: without it, every point-symmetric shape would sum to 0
            wave = torch.tensor([1.0, 1.618, 2.414], dtype=torch.float64, device=self.device)
            sums = torch.cat([wave.new_zeros(1), (vertices @ wave + 0.7).sin().cumsum(0)])
            self._fingerprints = sums.cpu()[self.vertex_splits].diff().tolist()
        return self._fingerprints

    def item(self, i: int) -> tuple[Tensor, Tensor]:
        """Mesh ``i`` alone: ``(vertices (V, 3), faces (F, 3))`` with its own indices."""
        v0, v1 = self.vertex_splits[i].item(), self.vertex_splits[i + 1].item()
        f0, f1 = self.face_splits[i].item(), self.face_splits[i + 1].item()
        return self.vertices[v0:v1], self.faces[f0:f1] - v0

    def to_trimesh(self, i: int) -> trimesh.Trimesh:
        """Mesh ``i`` as a trimesh object, unprocessed."""
        import trimesh

        vertices, faces = self.item(i)
        return trimesh.Trimesh(vertices.detach().cpu().numpy(), faces.cpu().numpy(), process=False)

    def face_vertices(self) -> Tensor:
        """``(ΣF, 3, 3)`` corners of every face. Differentiable."""
        return self.vertices[self.faces]

    def anchors(self) -> list[Tensor]:
        """The packed vertices."""
        return [self.vertices]

    def _face_cross(self) -> Tensor:
        a, b, c = self.face_vertices().unbind(1)
        return torch.linalg.cross(b - a, c - a)

    def face_areas(self) -> Tensor:
        """``(ΣF,)``. Differentiable; degenerate and non-finite faces have area and gradient zero."""
        square = self._face_cross().square().sum(-1)
        return torch.where(square > 0, square.clamp_min(1e-30), 1e-30).sqrt() / 2 * (square > 0)

    def face_normals(self) -> Tensor:
        """``(ΣF, 3)`` unit normals by the right-hand rule; zero for degenerate faces. Differentiable."""
        return torch.nn.functional.normalize(self._face_cross(), dim=-1, eps=1e-12)

    def vertex_normals(self) -> Tensor:
        """``(ΣV, 3)`` unit normals, the area-weighted mean of the adjacent faces'. Differentiable."""
        cross = self._face_cross().repeat_interleave(3, dim=0)
        total = torch.zeros_like(self.vertices).index_add(0, self.faces.reshape(-1), cross)
        return torch.nn.functional.normalize(total, dim=-1, eps=1e-12)

    def valid(self) -> Tensor:
        """``(B,)`` bool: at least one face of positive area, all used vertices finite."""
        areas = self.face_areas().detach()
        finite = self.face_vertices().detach().isfinite().all(-1).all(-1)
        ok = []
        for f0, f1 in zip(self.face_splits[:-1].tolist(), self.face_splits[1:].tolist(), strict=True):
            ok.append(bool(f1 > f0) and bool(finite[f0:f1].all()) and bool((areas[f0:f1] > 0).any()))
        return torch.tensor(ok, dtype=torch.bool, device=self.device)

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """``(B, n, 3)`` area-uniform samples (2500 if ``n`` is None). Differentiable in the vertices."""
        return self.surface(2500 if n is None else n, generator)[0]

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Area-uniform samples and their face normals, each ``(B, n, 3)``. Differentiable in the vertices.

        Raises:
            ReconlabError: A mesh has no face of positive area (see :meth:`valid`).
        """
        where = generator.device if generator is not None else torch.device("cpu")
        areas = self.face_areas().detach().double().to(where)
        chosen = []
        for i, (f0, f1) in enumerate(zip(self.face_splits[:-1].tolist(), self.face_splits[1:].tolist(), strict=True)):
            cdf = areas[f0:f1].cumsum(0)
            if f1 == f0 or not bool(cdf[-1] > 0) or not bool(cdf[-1].isfinite()):
                raise ReconlabError(f"Mesh: sample {i} has no face of positive, finite area to draw points from.")
            u = torch.rand(n, generator=generator, device=where, dtype=torch.float64) * cdf[-1]
            chosen.append(torch.searchsorted(cdf, u, right=True).clamp_max(f1 - f0 - 1) + f0)
        index = send(torch.cat(chosen), self.device)
        uv = send(torch.rand(len(index), 2, generator=generator, device=where), self.device).to(self.vertices.dtype)
        root = uv[:, :1].sqrt()
        weights = torch.cat([1 - root, root * (1 - uv[:, 1:]), root * uv[:, 1:]], 1)
        corners = self.vertices[self.faces[index]]
        points = (corners * weights.unsqueeze(-1)).sum(1)
        a, b, c = corners.unbind(1)
        normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-12)
        return points.reshape(len(self), n, 3), normals.reshape(len(self), n, 3)

    def mesh(self) -> Mesh:
        """The mesh itself."""
        return self

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """Cells that the surface crosses and the cells that they enclose. Not differentiable.

        The same rule closes a watertight mesh and a set of open patches whose gaps are narrower than a cell.
        """
        from reconlab.kernels.voxelize import fill_enclosed, triangles_to_cells

        grids = []
        for i in range(len(self)):
            vertices, faces = self.item(i)
            corners = vertices.detach().float()[faces]
            grids.append(triangles_to_cells(corners[corners.isfinite().all(-1).all(-1)], resolution))
        return VoxelGrid(fill_enclosed(torch.stack(grids)).float().to(self.device))


def _check_range(faces: Tensor, count: int) -> None:
    # On an accelerator the check would stall the queue; indexing there has its own.
    if faces.numel() and faces.device.type == "cpu" and (int(faces.min()) < 0 or int(faces.max()) >= count):
        raise ReconlabError(
            f"Mesh: faces name vertices {int(faces.min())} to {int(faces.max())}, but there are {count}."
        )
