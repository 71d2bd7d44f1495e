import numpy as np
import pytest
import torch
import trimesh

from reconlab.cameras import softras_cameras
from reconlab.errors import ReconlabError
from reconlab.lab.export import export_shape
from reconlab.lab.pictures import gallery, image_tile, render_points, render_shape, save_picture
from reconlab.shapes import Mesh, PointCloud


def box(offset: float = 0.0) -> Mesh:
    mesh = trimesh.creation.box((0.4, 0.3, 0.2))
    vertices = torch.tensor(np.array(mesh.vertices) + np.array([offset, 0, 0]), dtype=torch.float32)
    return Mesh(vertices, torch.tensor(np.array(mesh.faces)))


@pytest.mark.parametrize("kind", ["obj", "glb", "ply", "off", "stl"])
def test_formats_round_trip(tmp_path, kind):
    (path,) = export_shape(box(0.1), 0, tmp_path / "deep" / "x", (kind,))
    loaded = trimesh.load(path, force="mesh")
    assert loaded.volume == pytest.approx(0.4 * 0.3 * 0.2, rel=1e-3)
    assert loaded.bounds[0, 0] == pytest.approx(-0.1, abs=1e-5)
    assert [p.name for p in path.parent.iterdir()] == [f"x.{kind}"], "nothing half-written stays"


def test_point_clouds_are_written_as_points(tmp_path):
    written = export_shape(PointCloud(torch.rand(1, 50, 3)), 0, tmp_path / "cloud")
    assert [p.suffix for p in written] == [".glb"]
    assert len(next(iter(trimesh.load(written[0]).geometry.values())).vertices) == 50


def test_export_errors(tmp_path):
    with pytest.raises(ReconlabError, match="Unknown mesh format 'dae'"):
        export_shape(box(), 0, tmp_path / "x", ("dae",))
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ReconlabError, match="x is empty or not finite"):
        export_shape(empty, 0, tmp_path / "x")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReconlabError, match="Cannot write"):
        export_shape(box(), 0, tmp_path / "file" / "x")


def test_meshes_and_points_are_drawn_in_place():
    cameras = softras_cameras([0.0], [0.0])
    mesh_tile = render_shape(box(0.3), 0, cameras, 64)[0]
    points_tile = render_shape(PointCloud(box(0.3).points(2000)), 0, cameras, 64)[0]
    for tile in (mesh_tile, points_tile):
        dark = (tile.min(-1) < 250).nonzero()
        # From the front (the camera at -z) the object's +x is on the left.
        assert dark[1].max() < 32
        assert 25 < dark[0].mean() < 39
    nothing = render_points(torch.full((5, 3), float("nan")), cameras, 32)
    assert bool((nothing == 255).all())


def test_gallery_layout(tmp_path):
    shapes = Mesh.cat([box(), box(0.1)])
    sheet = gallery(
        torch.rand(2, 3, 32, 32), shapes, {"a": shapes, "b": PointCloud(torch.rand(2, 9, 3))}, ["x", "y"], 40
    )
    assert sheet.size == (40 * 7, 22 + 80)
    save_picture(sheet, tmp_path / "new" / "sheet.png")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["sheet.png"]
    red = torch.zeros(3, 8, 8)
    red[0] = 1
    assert image_tile(red, 16)[8, 8].tolist() == [255, 0, 0]
