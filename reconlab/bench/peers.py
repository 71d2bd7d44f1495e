"""Other libraries beside us: which there are, whether they are installed, and how each does a case's work."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reconlab.errors import ReconlabError


@dataclass(frozen=True)
class Peer:
    """A library that ``--peer`` names.

    Attributes:
        title: Its name in tables.
        module: What is imported.
        package: What is installed.
        how: How to get it, a clause.
    """

    title: str
    module: str
    package: str
    how: str


PEERS = {
    "pytorch3d": Peer("PyTorch3D", "pytorch3d", "pytorch3d", "it has no wheel and must be built from its source"),
    "open3d": Peer("Open3D", "open3d", "open3d", "pip install open3d"),
    "pot": Peer("POT", "ot", "POT", "pip install 'reconlab[eval]'"),
    "embreex": Peer("embreex", "embreex", "embreex", "pip install 'reconlab[eval]'"),
}
"""SciPy and scikit-image always take part: this package depends on them."""


def choose_peers(names: Iterable[str]) -> frozenset[str]:
    """Check that the named peers exist and are installed.

    Raises:
        ReconlabError: One does not, or is not.
    """
    chosen = list(names)
    for name in chosen:
        if name not in PEERS:
            close = difflib.get_close_matches(name, PEERS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(PEERS)}."
            raise ReconlabError(f"There is no peer {name!r}; {hint}")
        if not installed(name):
            raise ReconlabError(
                f"The peer {name!r} is not installed ({PEERS[name].how}): install it or leave it out."
            )
    return frozenset(chosen)


def installed(name: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(PEERS[name].module) is not None


def version(name: str) -> str | None:
    """Of an installed peer."""
    try:
        return metadata.version(PEERS[name].package)
    except metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(PEERS[name].module), "__version__", "")) or None


def pytorch3d_soft(xyz: Tensor, splits: list[int], grey: Tensor | None, size: int, faces_per_pixel: int) -> Tensor:
    """The soft image by PyTorch3D's rasteriser and its sigmoid or softmax blending.

    Depths are left linear on the screen: with ``perspective_correct`` its gradient by the corners is far from the
    differences of its own images, beyond the faces' outlines.
    """
    from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend, softmax_rgb_blend
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.renderer.mesh.rasterizer import Fragments

    fragments = Fragments(
        *rasterize_meshes(
            _pytorch3d_meshes(xyz, splits),
            size,
            blur_radius=11.5e-4,
            faces_per_pixel=faces_per_pixel,
            perspective_correct=False,
            clip_barycentric_coords=True,
        )
    )
    blend = BlendParams(sigma=1e-4, gamma=1e-3, background_color=(0.0, 0.0, 0.0))
    colours = torch.ones(*fragments.pix_to_face.shape, 3, device=xyz.device)
    if grey is None:
        return sigmoid_alpha_blend(colours, fragments, blend)[..., 3]
    value = (grey[fragments.pix_to_face.clamp(min=0)] * fragments.bary_coords).sum(-1, keepdim=True)
    blended = softmax_rgb_blend(value * colours, fragments, blend, 0.1, 100.0)
    return blended[..., 0] * blended[..., 3]


def _pytorch3d_meshes(xyz: Tensor, splits: list[int]) -> Any:
    """Screen faces, equally many a view, as PyTorch3D's rasteriser takes them: its x points left and its y up."""
    from pytorch3d.structures import Meshes

    views, count = len(splits) - 1, splits[1]
    triangles = torch.arange(3 * count, device=xyz.device).view(1, count, 3).expand(views, -1, -1)
    return Meshes(xyz.view(views, 3 * count, 3) * xyz.new_tensor([-1.0, -1.0, 1.0]), triangles)


def pytorch3d_depth(xyz: Tensor, splits: list[int], size: int) -> Tensor:
    """``(M, size, size)`` depth of the nearest face, 0 without one."""
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes

    faces, depth = rasterize_meshes(_pytorch3d_meshes(xyz, splits), size, 0.0, 1, perspective_correct=True)[:2]
    return torch.where(faces >= 0, depth, 0.0)[..., 0]


def pytorch3d_marching(fields: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Vertices, in cells, and faces of the surfaces where ``(B, X, Y, Z)`` fields are 0, closed at the border."""
    from pytorch3d.ops.marching_cubes import marching_cubes

    padded = torch.nn.functional.pad(fields, (1, 1, 1, 1, 1, 1), value=-1.0)
    vertices, faces = marching_cubes(padded, 0.0, return_local_coords=False)
    return vertices, faces


def pytorch3d_nearest(source: Tensor, target: Tensor) -> Tensor:
    """Squared distances ``(B, N)`` by ``knn_points``."""
    from pytorch3d.ops import knn_points

    distances: Tensor = knn_points(source, target).dists[..., 0]
    return distances


def pytorch3d_chamfer(pred: Tensor, target: Tensor) -> Tensor:
    """Both directions' mean squared distances added, ``(B,)``."""
    from pytorch3d.loss import chamfer_distance

    value: Tensor = chamfer_distance(pred, target, batch_reduction=None)[0]
    return value


def open3d_nearest(source: Tensor, target: Tensor) -> Tensor:
    """Squared distances ``(B, N)`` by ``core.nns.NearestNeighborSearch``, a cloud at a time."""
    import open3d

    found = []
    for s, t in zip(source.numpy(), target.numpy(), strict=True):
        search = open3d.core.nns.NearestNeighborSearch(open3d.core.Tensor(np.ascontiguousarray(t)))
        search.knn_index()
        _, squares = search.knn_search(open3d.core.Tensor(np.ascontiguousarray(s)), 1)
        found.append(torch.from_numpy(squares.numpy()[:, 0].copy()))
    return torch.stack(found)


def pot_transport(apart: np.ndarray) -> float:
    """The least mean distance of two equally large clouds by POT's network simplex.

    Args:
        apart: ``(N, N)`` float64 distances.
    """
    import ot

    uniform = np.full(len(apart), 1 / len(apart))
    return float(ot.emd2(uniform, uniform, apart, numItermax=10**7))


class EmbreeViews:
    """First hits of rays through all pixel centres of some views, by embreex through trimesh.

    Args:
        vertices: ``(V, 3)`` in the object frame.
        faces: ``(F, 3)``.
        cameras: ``(M,)``, perspective.
        size: Pixels a side.
    """

    def __init__(self, vertices: Tensor, faces: Tensor, cameras: Any, size: int) -> None:
        self.vertices, self.faces = vertices.double().numpy(), faces.numpy()
        axis = (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        screen = torch.stack([x, y], -1).view(1, -1, 2)
        focal, centre = (c.double().view(len(cameras), 1, 2) for c in (cameras.focal, cameras.centre))
        rays = torch.cat([(screen - centre) / focal, torch.ones(len(cameras), size * size, 1).double()], -1)
        self.directions = (rays @ cameras.R.double()).numpy()  # as long as depth is 1 at their end
        self.origins = cameras.position.double().numpy()
        self.shape = (len(cameras), size, size)

    def faces_hit(self) -> list[np.ndarray]:
        """The face of every pixel, -1 without one, a view at a time."""
        import trimesh
        from trimesh.ray.ray_pyembree import RayMeshIntersector

        shape = trimesh.Trimesh(self.vertices, self.faces, process=False)
        caster = RayMeshIntersector(shape)
        return [
            caster.intersects_first(np.broadcast_to(o, d.shape), d)
            for o, d in zip(self.origins, self.directions, strict=True)
        ]

    def depth(self, hits: list[np.ndarray]) -> Tensor:
        """``(M, size, size)`` camera-frame z of the hits, 0 without one."""
        corners = self.vertices[self.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        found = []
        for o, d, hit in zip(self.origins, self.directions, hits, strict=True):
            n = normals[hit]
            z = ((corners[hit, 0] - o) * n).sum(-1) / (d * n).sum(-1)
            found.append(np.where(hit >= 0, z, 0.0))
        return torch.from_numpy(np.stack(found)).view(self.shape)
