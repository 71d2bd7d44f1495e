"""A small built dataset, and published layouts, each made once per test run."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from reconlab.datasets.builder import build_synth
from reconlab.datasets.content import Sizes, sample_surface
from reconlab.datasets.inside import surface_cells
from reconlab.datasets.synth import generate

TINY = Sizes(views=3, image_size=48, points=500, queries=2000)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chairs and lamps, four each. Do not change it: copy it first."""
    root = tmp_path_factory.mktemp("tiny") / "data"
    report = build_synth(root, ["chair", "lamp"], 4, seed=3, sizes=TINY, fractions=(0.5, 0.25, 0.25), progress=False)
    assert report.ok
    return root


# The layouts of Choy et al., ShapeNetCore and Occupancy Networks, written by the published conventions
# and without this program's cameras, renderer and writers.

FOCAL = 137 * 35 / 32
"""Pixels: Blender's lens of 35 mm on a sensor of 32 mm."""


def _about(axis: int, degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    out = np.eye(3)
    out[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    return out


def blender_matrix(azimuth: float, elevation: float, in_plane: float, ratio: float) -> np.ndarray:
    """``(3, 4)`` world_mat, from the frame of the v1 .obj to a camera with x right, y down, z forward.

    As the released renderer sets it up: Blender imports (x, y, z) as (x, -z, y); the camera stands at
    (1.75 ratio, 0, 0), its Euler angles are (0, 90, 90) in the order z, x, y; its parent's are
    (-in_plane, -elevation, -azimuth) in the order x, y, z.
    """
    imported = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    parent = _about(2, -azimuth) @ _about(1, -elevation) @ _about(0, -in_plane)
    turned = parent @ _about(1, 90) @ _about(2, 90)
    place = parent @ [1.75 * ratio, 0, 0]
    seen = np.diag([1.0, -1, -1]) @ turned.T  # Blender's camera looks along -z, its y is up
    return np.concatenate([seen @ imported, -(seen @ place)[:, None]], 1)


def draw(vertices: np.ndarray, faces: np.ndarray, world: np.ndarray, size: int = 137) -> np.ndarray:
    """``(H, H, 4)`` uint8: triangles filled from far to near, eight times as large, then reduced."""
    camera = vertices @ world[:, :3].T + world[:, 3]
    pixels = (FOCAL * camera[:, :2] / camera[:, 2:] + 68.5) * 8 * size / 137
    image = Image.new("RGBA", (8 * size, 8 * size))
    pen = ImageDraw.Draw(image)
    corners = camera[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    shade = 60 + 150 * np.abs(normal[:, 2]) / np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    for k in np.argsort(-corners[..., 2].mean(1)):
        grey = int(shade[k])
        pen.polygon([tuple(p) for p in (pixels[faces[k]] - 0.5).tolist()], fill=(grey, grey, grey + 30, 255))
    return np.asarray(image.convert("RGBa").resize((size, size), Image.Resampling.BOX).convert("RGBA"))


def write_binvox(path: Path, cells: np.ndarray, translate: tuple[float, ...], scale: float) -> None:
    """Cells indexed [x, y, z], one run at a time, y fastest and x slowest."""
    x, y, z = cells.shape
    flat = [bool(cells[i, k, j]) for i in range(x) for j in range(z) for k in range(y)]
    data, at = bytearray(), 0
    while at < len(flat):
        end = at
        while end < len(flat) and flat[end] == flat[at] and end - at < 255:
            end += 1
        data += bytes((flat[at], end - at))
        at = end
    place = " ".join(f"{t:.6f}" for t in translate)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        f"#binvox 1\ndim {x} {z} {y}\ntranslate {place}\nscale {scale:.6f}\ndata\n".encode() + bytes(data)
    )


def write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Two objects, a material library that is not there, indices of both kinds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = len(faces) // 2
    lines = ["# ShapeNet", "mtllib model.mtl", *(f"v {a:.7f} {b:.7f} {c:.7f}" for a, b, c in vertices), "o first"]
    lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in faces[:half] + 1]
    lines += ["o second", "usemtl wood"]
    lines += [f"f {a} {b} {c}" for a, b, c in faces[half:] - len(vertices)]
    path.write_text("\n".join(lines) + "\n")


@dataclass
class Trees:
    """Folders of published layouts that show the same shapes; ``vertices`` have ShapeNet v1's axes."""

    root: Path
    models: dict[str, list[str]]
    vertices: dict[str, np.ndarray] = field(default_factory=dict)
    faces: dict[str, np.ndarray] = field(default_factory=dict)
    world: dict[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def blender_matrix(azimuth: float, elevation: float, in_plane: float, ratio: float) -> np.ndarray:
        """See the function of that name."""
        return blender_matrix(azimuth, elevation, in_plane, ratio)

    @property
    def renders(self) -> Path:
        """ShapeNetRendering."""
        return self.root / "renders"

    @property
    def voxels(self) -> Path:
        """ShapeNetVox32."""
        return self.root / "voxels"

    @property
    def v1(self) -> Path:
        """ShapeNetCore.v1."""
        return self.root / "v1"

    @property
    def v2(self) -> Path:
        """ShapeNetCore.v2."""
        return self.root / "v2"

    @property
    def occnet(self) -> Path:
        """Occupancy Networks' archive."""
        return self.root / "occnet"


def _write_model(trees: Trees, synset: str, name: str, category: str, number: int, views: int) -> None:
    rng, shape = np.random.default_rng(number), generate(category, number)
    vertices, faces, _ = shape.mesh()
    made, faces = vertices.astype(np.float64), faces.astype(np.int64)
    v1 = np.stack([-made[:, 2], made[:, 1], made[:, 0]], 1)  # the front is at +x there
    trees.vertices[name], trees.faces[name] = v1, faces
    write_obj(trees.v1 / synset / name / "model.obj", v1, faces)
    write_obj(trees.v2 / synset / name / "models" / "model_normalized.obj", made - made.mean(0), faces)
    # ShapeNetRendering
    folder = trees.renders / synset / name / "rendering"
    folder.mkdir(parents=True)
    rows = [(float(rng.uniform(0, 360)), float(rng.uniform(25, 30)), 0.0, float(rng.uniform(0.65, 0.95)), 25.0)]
    rows += [
        (float(a), float(e), 0.0, float(r), 25.0)
        for a, e, r in rng.uniform((0, 25, 0.65), (360, 30, 1), (views - 1, 3))
    ]
    trees.world[name] = np.stack([blender_matrix(*row[:4]) for row in rows])
    images = [draw(v1, faces, world) for world in trees.world[name]]
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{k:02d}.png")
    (folder / "rendering_metadata.txt").write_text("".join(" ".join(map(repr, row)) + "\n" for row in rows))
    (folder / "renderings.txt").write_text("".join(f"{k:02d}.png\n" for k in range(views)))
    # ShapeNetVox32: the longest edge fills the grid, the shape is centred in it
    edge = float(np.ptp(v1, 0).max())
    centres = (np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1) + 0.5) / 32 - 0.5
    x, y, z = edge * centres.reshape(-1, 3).T
    cells = shape.occupancy(np.stack([z, y, -x], 1)).reshape(32, 32, 32) | surface_cells(v1 / edge, faces, 32)
    stale = number % 2  # some headers say nothing of the shape
    write_binvox(
        trees.voxels / synset / name / "model.binvox",
        cells,
        (-0.5,) * 3 if stale else (-edge / 2,) * 3,
        1.0 if stale else edge,
    )
    # Occupancy Networks
    model = trees.occnet / synset / name
    (model / "img_choy2016").mkdir(parents=True)
    shutil.copy(trees.voxels / synset / name / "model.binvox", model)
    frame = {"loc": np.full(3, 0.001 * number), "scale": np.float64(edge)}
    points, normals = sample_surface(v1, faces, 100000, rng)
    points = (points - frame["loc"]) / edge
    np.savez(model / "pointcloud.npz", points=points.astype(np.float16), normals=normals.astype(np.float16), **frame)
    asked = rng.uniform(-0.55, 0.55, (4003, 3)).astype(np.float16)
    x, y, z = (asked.astype(np.float64) * edge + frame["loc"]).T
    inside = np.packbits(shape.occupancy(np.stack([z, y, -x], 1)))
    np.savez(model / "points.npz", points=asked, occupancies=inside, **frame)
    K = np.array([[FOCAL, 0, 68.5], [0, FOCAL, 68.5], [0, 0, 1]])
    mats = {f"world_mat_{k}": w for k, w in enumerate(trees.world[name])} | {
        f"camera_mat_{k}": K for k in range(views)
    }
    np.savez(model / "img_choy2016" / "cameras.npz", **mats)
    for k, image in enumerate(images):
        white = Image.new("RGBA", (137, 137), (255, 255, 255, 255))
        white.alpha_composite(Image.fromarray(image))
        white.convert("RGB").save(model / "img_choy2016" / f"{k:03d}.jpg", quality=90)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """Four chairs and two airplanes: ``renders``, ``voxels``, ``v1``, ``v2``, ``occnet``. Do not change them."""
    models = {"02691156": ["plane_a", "plane_b"], "03001627": ["chair_a", "chair_b", "chair_c", "chair_d"]}
    trees = Trees(tmp_path_factory.mktemp("published"), models)
    for synset, category in (("02691156", "airplane"), ("03001627", "chair")):
        for number, name in enumerate(models[synset]):
            _write_model(trees, synset, name, category, number, 4)
        lists = {"train": models[synset][:-1], "val": [], "test": models[synset][-1:]}
        for split, names in lists.items():
            (trees.occnet / synset / f"{split}.lst").write_text("".join(f"{n}\n" for n in names))
    (trees.occnet / "metadata.yaml").write_text("03001627: {id: '03001627', name: 'chair,seat'}\n")
    return trees


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """A copy of the small dataset, which a test may change."""
    shutil.copytree(tiny_root, tmp_path / "data")
    return tmp_path / "data"
