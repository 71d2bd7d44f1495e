"""Evaluating files: reading a mesh or a cloud, bringing it into the true shape's frame, and the true batch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reconlab.batch import Batch
from reconlab.datasets.content import outer_surface, shape_rng
from reconlab.datasets.inside import cell_centres, inside, surface_cells
from reconlab.datasets.orient import Oriented, orient
from reconlab.errors import ReconlabError
from reconlab.metrics.base import sample_generator
from reconlab.shapes import Mesh, PointCloud, Shape

NORMALIZE = {
    "none": "none: both files are in the object frame already, the true shape inside [-0.5, 0.5]³",
    "gt-box": "both shapes moved and scaled together so that the true one's bounding box has its centre at 0 and "
    "diagonal 1 (the object frame of training runs)",
    "gt-sphere": "both shapes moved and scaled together so that the true one's bounding box has its centre at 0 and "
    "its farthest point is at 0.5",
}
SURFACES = {
    "all": "area-uniform on every face of the true mesh, as on the predicted one",
    "outer": "area-uniform on the true mesh, points with solid on both sides left out (as in built datasets)",
}
QUERIES = 100_000
CUBE = 0.55  # under ``none``: half a cube and a little


class NotApplicableError(ReconlabError):
    """This kind of file has no form that the metric works on."""


@dataclass(frozen=True)
class Raw:
    """A file as read: a mesh without unused vertices, or a cloud.

    Attributes:
        vertices: ``(V, 3)`` float64, finite.
        faces: ``(F, 3)`` int64; None for a cloud.
        normals: ``(V, 3)`` of a cloud, if its file has them.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    normals: np.ndarray | None = None


def suffixes() -> tuple[str, ...]:
    """Suffixes of the mesh and point files that the installed trimesh reads."""
    import trimesh

    others = {"zip", "bz2", "tar.gz", "tar.bz2", "dxf", "svg", "json", "stl_ascii"}
    return tuple(sorted(f".{kind}" for kind in trimesh.available_formats() if kind not in others))


def read_raw(path: Path) -> Raw:
    """Read a mesh or point file; of a scene all parts in their places.

    Raises:
        ReconlabError: The file is missing, empty or damaged, has nothing to measure, or holds numbers that are not
            finite.
    """
    import trimesh

    logging.getLogger("trimesh").setLevel(logging.ERROR)  # its notes on damaged files are no sentences for users
    if not path.is_file():
        raise ReconlabError(f"{path} does not exist.")
    if path.stat().st_size == 0:
        raise ReconlabError(f"{path} is empty (0 bytes).")
    options: dict[str, Any] = {"skip_materials": True} if path.suffix.lower() == ".obj" else {}
    try:
        loaded: Any = trimesh.load(path, process=False, **options)
        parts = _parts(loaded)
    except Exception as error:  # every reader of trimesh fails in its own way
        said = " ".join(str(error).split())[:200]
        raise ReconlabError(f"{path} cannot be read ({type(error).__name__}: {said}).") from error
    meshes = [(v, f) for v, f, _ in parts if f is not None and len(f)]
    if meshes:
        return _checked_mesh(path, meshes)
    clouds = [(v, n) for v, _, n in parts if len(v)]
    if not clouds:
        raise ReconlabError(f"{path} has no points and no faces.")
    vertices = np.concatenate([v for v, _ in clouds])
    if not np.isfinite(vertices).all():
        raise ReconlabError(f"{path} has points that are not finite numbers (NaN or infinity).")
    normals = clouds[0][1] if len(clouds) == 1 else None
    return Raw(vertices, None, normals)


def _parts(loaded: Any) -> list[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
    """``(vertices, faces or None, normals or None)`` of everything in a file."""
    import trimesh

    items = [loaded]
    if isinstance(loaded, trimesh.Scene):
        items = []
        for node in loaded.graph.nodes_geometry:
            transform, name = loaded.graph[node]
            items.append(loaded.geometry[name].copy().apply_transform(transform))
    parts: list[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]] = []
    for item in items:
        vertices = np.asarray(getattr(item, "vertices", np.zeros((0, 3))), np.float64)
        if vertices.ndim != 2 or vertices.shape[1] != 3:
            raise ValueError(f"points of shape {vertices.shape}; expected (N, 3)")
        if isinstance(item, trimesh.Trimesh):
            parts.append((vertices, np.asarray(item.faces, np.int64).reshape(-1, 3), None))
        elif isinstance(item, trimesh.PointCloud):
            parts.append((vertices, None, _ply_normals(item, len(vertices))))
    return parts


def _ply_normals(cloud: Any, count: int) -> np.ndarray | None:
    data = cloud.metadata.get("_ply_raw", {}).get("vertex", {}).get("data")
    try:
        normals = np.stack([np.asarray(data[k], np.float64).reshape(-1) for k in ("nx", "ny", "nz")], 1)
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return normals if normals.shape == (count, 3) and np.isfinite(normals).all() else None


def _checked_mesh(path: Path, parts: list[tuple[np.ndarray, np.ndarray]]) -> Raw:
    for vertices, faces in parts:
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise ReconlabError(f"{path} has faces that name vertices which it does not have.")
    offsets = np.cumsum([0] + [len(v) for v, _ in parts])
    faces = np.concatenate([f + o for (_, f), o in zip(parts, offsets[:-1], strict=True)])
    used, index = np.unique(faces, return_inverse=True)
    vertices, faces = np.concatenate([v for v, _ in parts])[used], index.reshape(-1, 3)
    if not np.isfinite(vertices).all():
        raise ReconlabError(f"{path} has vertices that are not finite numbers (NaN or infinity).")
    corners = (vertices - vertices.mean(0))[faces]
    with np.errstate(over="ignore", invalid="ignore"):
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not (area > 0).any():
        raise ReconlabError(f"{path} has no face with an area.")
    return Raw(vertices, faces)


def frame(truth: Raw, how: str) -> tuple[np.ndarray, float]:
    """``loc (3,)`` and ``scale`` such that ``(x - loc) / scale`` is where shapes are compared.

    Args:
        truth: The true shape.
        how: A key of :data:`NORMALIZE`.

    Raises:
        ReconlabError: The true shape has no size, or under ``none`` lies outside of the cube.
    """
    low, high = truth.vertices.min(0), truth.vertices.max(0)
    if how == "none":
        far = max(float(-low.min()), float(high.max()))
        if far > CUBE:
            raise ReconlabError(
                f"the true shape reaches to {far:.4g}, but --normalize none takes files as in [-0.5, 0.5]³: "
                "use --normalize gt-box."
            )
        return np.zeros(3), 1.0
    loc = (low + high) / 2
    with np.errstate(over="ignore"):
        scale = np.linalg.norm(high - low)
        if how == "gt-sphere":
            scale = 2 * np.linalg.norm(truth.vertices - loc, axis=1).max()
    if not 0 < scale < np.inf:
        raise ReconlabError(f"the true shape's size is {scale}: it cannot be brought to size 1.")
    return loc, float(scale)


def to_shape(raw: Raw, loc: np.ndarray, scale: float) -> Mesh | PointCloud:
    """A batch of one in the frame ``(x - loc) / scale``, float32.

    Raises:
        ReconlabError: Coordinates overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        vertices = torch.from_numpy(((raw.vertices - loc) / scale).astype(np.float32))
    if not bool(vertices.isfinite().all()):
        raise ReconlabError("its coordinates are too large beside the true shape's.")
    if raw.faces is not None:
        return Mesh(vertices, torch.from_numpy(raw.faces))
    normals = None
    if raw.normals is not None:
        normals = torch.nn.functional.normalize(torch.from_numpy(raw.normals.astype(np.float32)), dim=-1)[None]
    return PointCloud(vertices[None], normals)


class Truth:
    """A true shape in the frame of comparison; gives metrics the parts of the batch that they need.

    Args:
        category: Of the sample; with ``sample`` it seeds what is drawn.
        sample: Its id.
        shape: A batch of one.
        points: Surface points drawn of a mesh (a cloud gives all that it has).
        surface: A key of :data:`SURFACES`.
    """

    def __init__(self, category: str, sample: str, shape: Shape, points: int, surface: str = "all") -> None:
        self.category, self.sample, self.shape = category, sample, shape
        self.count, self.surface = points, surface
        self._parts: dict[Any, Any] = {}

    def batch(self, needs: frozenset[str], resolution: int = 32) -> Batch:
        """A batch of one with the fields of ``needs``.

        Raises:
            NotApplicableError: This kind of file has no such form.
            ReconlabError: The true shape cannot be brought to it.
        """
        batch = Batch(ids=[self.sample], categories=[self.category])
        for need in sorted(needs):
            if need in ("surface", "normals"):
                batch.points, batch.normals = self._once("surface", self._surface)
                if need == "normals" and batch.normals is None:
                    raise NotApplicableError("the true point cloud has no normals")
            elif not isinstance(self.shape, Mesh) or need not in ("mesh", "voxels", "occupancy"):
                kind = "mesh" if isinstance(self.shape, Mesh) else "point cloud"
                raise NotApplicableError(f"the truth is a {kind}, which has no {need}")
            elif need == "mesh":
                batch.mesh = self.shape
            elif need == "voxels":
                batch.voxels = self._once(resolution, lambda: self._voxels(resolution))
            else:
                batch.query_points, batch.query_occupancies = self._once("occupancy", self._occupancy)
        return batch

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._parts:
            self._parts[key] = make()
        return self._parts[key]

    def _surface(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        if isinstance(self.shape, PointCloud):
            return self.shape.positions, self.shape.normals
        if self.surface == "all":
            return self.shape.surface(self.count, sample_generator(self.category, self.sample, "true surface"))
        mesh = self._oriented()
        rng = shape_rng(0, self.category, self.sample)
        points, normals = outer_surface(mesh.vertices, mesh.faces, lambda p: inside(p, mesh), self.count, rng)
        return (torch.from_numpy(points.astype(np.float32))[None], torch.from_numpy(normals.astype(np.float32))[None])

    def _oriented(self) -> Oriented:
        def make() -> Oriented:
            vertices, faces = self.shape.mesh().item(0)
            mesh = orient(vertices.numpy(), faces.numpy())
            if len(mesh.faces) == 0:
                raise ReconlabError("the true mesh has no face with an area")
            return mesh

        found: Oriented = self._once("oriented", make)
        return found

    def _voxels(self, resolution: int) -> torch.Tensor:
        # The rule of built datasets (reconlab.datasets.inside.voxelize): centres inside, or a face meets the cell.
        mesh = self._oriented()
        filled = inside(cell_centres(resolution), mesh).reshape((resolution,) * 3)
        filled |= surface_cells(mesh.vertices, mesh.faces, resolution)
        return torch.from_numpy(filled).float()[None]

    def _occupancy(self) -> tuple[torch.Tensor, torch.Tensor]:
        rng = shape_rng(0, self.category, self.sample)
        points = rng.uniform(-0.5, 0.5, (QUERIES, 3)).astype(np.float32)
        held = inside(points.astype(np.float64), self._oriented())
        return torch.from_numpy(points)[None], torch.from_numpy(held).float()[None]


class StoredTruth(Truth):
    """A shape of a built dataset: the very files that training runs are judged by.

    Args:
        category: Of the sample.
        sample: Its id.
        folder: The shape's folder.
        points: Surface points taken, as ``data.points``.
    """

    def __init__(self, category: str, sample: str, folder: Path, points: int) -> None:
        from reconlab.datasets.format import MESH
        from reconlab.datasets.samples import read_mesh_arrays

        self.folder = folder
        arrays = read_mesh_arrays(folder / MESH)
        shape = Mesh(torch.from_numpy(arrays["vertices"].astype(np.float32)), torch.from_numpy(arrays["faces"]))
        super().__init__(category, sample, shape, points)

    def batch(self, needs: frozenset[str], resolution: int = 32) -> Batch:
        """As :meth:`Truth.batch`, from the dataset's files."""
        from reconlab.datasets.datamodule import collate
        from reconlab.datasets.samples import Item, Loading, ShapeDataset, missing_files

        item = Item(self.category, self.sample, self.folder)
        if (lack := missing_files([item], needs)) is not None:
            raise NotApplicableError(f"the dataset has no {lack[1]}, which {lack[0]!r} is read from")
        loading = Loading(needs, 64, self.count, QUERIES, 1, None, 0, 0, resolution if "voxels" in needs else None)
        return collate([ShapeDataset([item], loading)[0]])
