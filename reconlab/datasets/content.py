"""What a built shape holds: from triangles and an inside test to the bytes of its files."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from reconlab.datasets import format as files
from reconlab.datasets.inside import cell_centres, inside, surface_cells
from reconlab.datasets.meshes import RawMesh, normalization
from reconlab.datasets.orient import orient
from reconlab.datasets.views import random_cameras, render_views
from reconlab.errors import ReconlabError

Occupancy = Callable[[np.ndarray], np.ndarray]

SIDE = 2e-3
"""How far from a surface sample its two sides are tested, in the object frame."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything each shape gets.

    Attributes:
        views: Pictures from random viewpoints.
        image_size: Their side in pixels.
        points: Surface points with normals.
        queries: Points with occupancies, uniform over [-0.5, 0.5]³.
        resolution: Cells of the voxel grid along each axis.
    """

    views: int = 5
    image_size: int = 128
    points: int = 10000
    queries: int = 100000
    resolution: int = 32

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ReconlabError(f"{name} is {value!r}: choose an integer of at least 1.")


def shape_rng(seed: int, category: str, name: str) -> np.random.Generator:
    """A generator that depends on the build's seed and the shape's name alone, not on the order of work."""
    return np.random.default_rng([seed, zlib.crc32(f"{category}/{name}".encode())])


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Area-uniform points and face normals, each ``(count, 3)`` float64."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    cumulative = np.cumsum(area)
    face = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right").clip(0, len(faces) - 1)
    a, b = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    points = (1 - a) * corners[face, 0] + a * (1 - b) * corners[face, 1] + a * b * corners[face, 2]
    return points, cross[face] / np.maximum(area[face], 1e-300)[:, None]


def outer_surface(
    vertices: np.ndarray, faces: np.ndarray, occupancy: Occupancy, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points on the boundary of the solid and on sheets, without what lies inside of it.

    CAD parts overlap and have insides; a sample with solid on both sides belongs to no surface that can be seen
    and is drawn again. If hardly any sample is left, the shape is taken as it is.

    Returns:
        Points and unit normals (away from the solid), each ``(count, 3)`` float64.
    """
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    total, rounds, drawn = 0, 0, 0
    while total < count:
        # As many as the share kept so far suggests, and a few more.
        wanted = min(count, round((count - total) * 1.1 * drawn / max(total, 1)) + 100) if drawn else count
        points, normals = sample_surface(vertices, faces, wanted, rng)
        drawn += wanted
        if rounds < 6:
            both = occupancy(np.concatenate([points + SIDE * normals, points - SIDE * normals])).reshape(2, -1)
            normals = np.where((both[0] & ~both[1])[:, None], -normals, normals)
            visible = ~(both[0] & both[1])
            points, normals = points[visible], normals[visible]
        kept.append((points, normals))
        total, rounds = total + len(points), rounds + 1
    return tuple(np.concatenate(x)[:count] for x in zip(*kept, strict=True))  # type: ignore[return-value]


def shape_content(
    raw: RawMesh,
    sizes: Sizes,
    rng: np.random.Generator,
    occupancy: Occupancy | None = None,
) -> dict[str, bytes]:
    """All files of one shape.

    Args:
        raw: Its triangles, any frame that is y up with the front towards -z.
        sizes: How much to make.
        rng: Of everything random.
        occupancy: The inside test in the raw frame where it is known exactly; the triangles are then taken to be
            clean and turned outward. Otherwise they are cleaned and oriented and the test is found from them.

    Returns:
        File bytes by path relative to the shape's folder.

    Raises:
        ReconlabError: The mesh cannot be used.
    """
    loc, scale = normalization(raw.vertices, raw.faces)
    vertices, faces, colors = (raw.vertices - loc) / scale, raw.faces, raw.face_colors
    if occupancy is None:
        mesh = orient(vertices, faces, seed=int(rng.integers(2**31)))
        if len(mesh.faces) == 0:
            raise ReconlabError("the mesh has no face with an area.")
        vertices, faces = mesh.vertices, mesh.faces
        colors = None if colors is None else colors[mesh.source]
        ray_seed = int(rng.integers(2**31))

    def occupied(points: np.ndarray) -> np.ndarray:
        if occupancy is not None:
            return np.asarray(occupancy(points * scale + loc), bool)
        return inside(points, mesh, ray_seed)

    frame = {"loc": np.asarray(loc, np.float64), "scale": np.asarray(scale, np.float64)}
    points, normals = outer_surface(vertices, faces, occupied, sizes.points, rng)
    # Rounded to half precision before the test, so that what is stored is exactly what was tested.
    queries = rng.uniform(-0.5, 0.5, (sizes.queries, 3)).astype(np.float16)
    grid = occupied(cell_centres(sizes.resolution)).reshape((sizes.resolution,) * 3)
    grid |= surface_cells(vertices, faces, sizes.resolution)
    cameras = random_cameras(sizes.views, rng)
    images = render_views(vertices, faces, cameras, sizes.image_size, colors)
    arrays = {"vertices": vertices.astype(np.float32), "faces": faces.astype(np.int32)}
    if colors is not None:
        arrays["face_colors"] = colors
    out = {
        files.POINTCLOUD: files.npz_bytes(
            {"points": points.astype(np.float32), "normals": normals.astype(np.float16), **frame}
        ),
        files.POINTS: files.npz_bytes(
            {"points": queries, "occupancies": np.packbits(occupied(queries.astype(np.float64))), **frame}
        ),
        files.VOXELS: files.binvox_bytes(grid),
        files.MESH: files.npz_bytes({**arrays, **frame}),
        files.CAMERAS: files.npz_bytes(
            {k: getattr(cameras, k).numpy().astype(np.float32) for k in ("R", "t", "focal", "centre")}
        ),
    }
    for i, image in enumerate(images):
        out[f"{files.VIEWS}/{i:03d}.png"] = files.png_bytes(image)
    return out
