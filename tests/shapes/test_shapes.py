import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ConversionError, ReconlabError
from reconlab.shapes import ImplicitField, Mesh, PointCloud, VoxelGrid


def box(extents=(1.0, 1.0, 1.0)) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.box(extents)
    return torch.tensor(np.array(mesh.vertices), dtype=torch.float32), torch.tensor(np.array(mesh.faces))


def sphere(radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(3, radius)
    return torch.tensor(np.array(mesh.vertices), dtype=torch.float32), torch.tensor(np.array(mesh.faces))


def test_packed_meshes_keep_their_items():
    a, b = box(), sphere(0.4)
    packed = Mesh.from_list([a, b])
    for i, (v, f) in enumerate((a, b)):
        torch.testing.assert_close(packed.item(i)[0], v)
        assert bool((packed.item(i)[1] == f).all())
    again = Mesh.cat([packed[1], packed[0]])
    torch.testing.assert_close(again.item(0)[0], b[0])
    assert len(packed[0:2]) == 2
    with pytest.raises(IndexError):
        packed[2]


def test_batched_vertices_share_faces():
    v, f = box()
    mesh = Mesh(torch.stack([v, 2 * v]), f)
    torch.testing.assert_close(mesh.item(1)[0], 2 * v)
    assert bool((mesh.item(1)[1] == f).all())
    own = Mesh(torch.stack([v, v]), torch.stack([f, f.flip(1)]))
    assert bool((own.item(1)[1] == f.flip(1)).all())


def test_areas_and_normals_of_a_box():
    mesh = Mesh(*box((1.0, 2.0, 3.0)))
    torch.testing.assert_close(mesh.face_areas().sum(), torch.tensor(22.0))
    centres = mesh.face_vertices().mean(1)
    assert bool(((mesh.face_normals() * centres).sum(-1) > 0).all()), "outward"
    torch.testing.assert_close(mesh.vertex_normals().norm(dim=-1), torch.ones(8))


def test_samples_lie_on_the_surface_and_are_uniform():
    mesh = Mesh(*box((1.0, 1.0, 2.0)))
    points, normals = mesh.surface(20000, torch.Generator().manual_seed(1))
    p = points[0] / torch.tensor([0.5, 0.5, 1.0])
    torch.testing.assert_close(p.abs().amax(-1), torch.ones(20000), atol=1e-5, rtol=0)
    share = (normals[0, :, 2].abs() > 0.5).float().mean()  # the two square ends: 2 of 10
    assert abs(float(share) - 0.2) < 0.01
    assert abs(float(points.mean())) < 0.01


def test_sampling_is_differentiable_and_seeded():
    v, f = sphere(0.3)
    v.requires_grad_(True)
    mesh = Mesh(v, f)
    first = mesh.points(500, torch.Generator().manual_seed(3))
    torch.testing.assert_close(first, mesh.points(500, torch.Generator().manual_seed(3)))
    first.square().sum().backward()
    assert v.grad is not None
    assert float((v.grad * v.detach()).sum()) > 0, "growing the sphere grows the sum of squares"


def test_gradient_of_degenerate_faces_is_finite():
    v = torch.zeros(3, 3, requires_grad=True)
    mesh = Mesh(v, torch.tensor([[0, 1, 2]]))
    (mesh.face_areas().sum() + mesh.face_normals().sum() + mesh.vertex_normals().sum()).backward()
    assert v.grad is not None
    assert bool(v.grad.isfinite().all())


def test_validity_by_sample():
    v, f = box()
    broken = v.clone()
    broken[0, 0] = float("nan")
    flat = torch.zeros(3, 3), torch.tensor([[0, 1, 2]])
    empty = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)
    mesh = Mesh.from_list([(v, f), (broken, f), flat, empty])
    assert mesh.valid().tolist() == [True, False, False, False]
    with pytest.raises(ReconlabError, match="sample 2"):  # the faces of sample 1 that are finite can still be sampled
        mesh.points(10)


def test_mesh_errors_name_the_shapes():
    with pytest.raises(ReconlabError, match=r"\(4, 2\)"):
        Mesh(torch.zeros(4, 2), torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ReconlabError, match="vertices 0 to 7, but there are 3"):
        Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 7]]))
    with pytest.raises(ReconlabError, match="both vertex_splits and face_splits"):
        Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), torch.tensor([0, 3]))
    with pytest.raises(ReconlabError, match="vertices 0 to 3, but there are 3"):
        Mesh(torch.zeros(2, 3, 3), torch.tensor([[0, 1, 3]]))  # would be a vertex of the second mesh
    with pytest.raises(ReconlabError, match="splits end at 2 vertices"):
        Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), torch.tensor([0, 2]), torch.tensor([0, 1]))
    with pytest.raises(ReconlabError, match="at least one"):
        Mesh.from_list([])


def test_filled_voxels_of_a_box():
    # 0.5 wide at resolution 16: exactly 8 cells a side, all filled.
    grid = Mesh(*box((0.5, 0.5, 0.5))).voxels(16).values[0]
    assert int(grid.sum()) == 8**3
    assert bool((grid[4:12, 4:12, 4:12] == 1).all())


def test_voxels_are_indexed_xyz():
    v, f = box((0.1, 0.1, 0.1))
    grid = Mesh(v + torch.tensor([0.4, 0.0, -0.4]), f).voxels(10).values[0]
    cells = grid.nonzero().float().mean(0)
    assert cells[0] > 8
    assert 3.5 < cells[1] < 5.5
    assert cells[2] < 1


@given(st.floats(0.15, 0.45))
@settings(max_examples=10, deadline=None)
def test_marching_cubes_returns_the_sphere(radius):
    axis = (torch.arange(32) + 0.5) / 32 - 0.5
    r = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).norm(dim=-1)
    grid = VoxelGrid(((radius - r) * 16 + 0.5).clamp(0, 1).unsqueeze(0))
    vertices, faces = grid.mesh().item(0)
    assert float((vertices.norm(dim=-1) - radius).abs().max()) < 0.01
    volume = trimesh.Trimesh(vertices.numpy(), faces.numpy()).volume
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05), "closed and turned outwards"


def test_empty_and_full_grids():
    grids = VoxelGrid(torch.stack([torch.zeros(8, 8, 8), torch.ones(8, 8, 8)]))
    mesh = grids.mesh()
    assert grids.valid().tolist() == [False, True]
    assert mesh.valid().tolist() == [False, True]
    assert mesh.item(1)[0].abs().max() == pytest.approx(0.5, abs=1e-3)


def test_voxel_resampling_keeps_the_mean():
    grid = VoxelGrid(torch.rand(1, 32, 32, 32))
    assert float(grid.voxels(8).values.mean()) == pytest.approx(float(grid.values.mean()), abs=1e-5)
    assert grid.voxels(32) is grid


def test_point_clouds():
    cloud = PointCloud(torch.rand(2, 100, 3) - 0.5)
    assert cloud.points() is cloud.positions
    few = cloud.points(10, torch.Generator().manual_seed(0))
    matches = torch.cdist(few[0], cloud.positions[0]).min(1)
    assert float(matches.values.max()) < 1e-3
    assert len(set(matches.indices.tolist())) == 10, "without replacement"
    assert cloud.points(300).shape == (2, 300, 3)
    with pytest.raises(ConversionError, match="PointCloud has no conversion to a mesh"):
        cloud.mesh()
    with pytest.raises(ConversionError, match="normals"):
        cloud.surface(10)
    bad = cloud.positions.clone()
    bad[1, 3, 0] = float("inf")
    assert PointCloud(bad).valid().tolist() == [True, False]
    assert PointCloud(torch.zeros(1, 0, 3)).valid().tolist() == [False]


def test_points_to_voxels_by_hand():
    cloud = PointCloud(torch.tensor([[[-0.49, -0.49, 0.49], [0.0, 0.01, 0.26], [0.9, 0.0, 0.0], [float("nan")] * 3]]))
    grid = cloud.voxels(4).values[0]
    assert grid.nonzero().tolist() == [[0, 0, 3], [2, 2, 3]]
    shell = Mesh(*sphere(0.4)).points(60000)
    assert int(PointCloud(shell).voxels(16).values[0, 8, 8, 8]) == 1, "a closed shell is filled"


def test_implicit_slices_and_voxels():
    radii = torch.tensor([0.2, 0.4])
    field = ImplicitField(lambda x: 40 * (radii.reshape(-1, 1) - x.norm(dim=-1)), 2, torch.device("cpu"), 24)
    assert len(field[1]) == 1
    small, large = field[0].voxels(24).values.sum(), field[1].voxels(24).values.sum()
    assert float(large / small) == pytest.approx(8, rel=0.2)  # a soft edge
    assert field.valid().tolist() == [True, True]
    vertices, _ = field[1].mesh().item(0)
    assert float((vertices.norm(dim=-1) - 0.4).abs().max()) < 0.002, "a twentieth of a cell, steep logits or not"


def test_a_mesh_is_fingerprinted_before_it_leaves_the_cpu(monkeypatch) -> None:
    g = torch.Generator().manual_seed(0)
    items = [(torch.rand(5, 3, generator=g), torch.tensor([[0, 1, 2]])) for _ in range(2)]
    mesh = Mesh.from_list([*items, (items[0][0].flip(0), items[0][1]), items[0]])
    prints = mesh.fingerprints()
    assert prints[0] == pytest.approx(prints[3], abs=1e-9)
    assert abs(prints[0] - prints[1]) > 1e-3
    # A tensor on "meta" has no numbers: whatever is known there was brought along.
    assert mesh.to("meta").fingerprints() == prints
    asked: list[Mesh] = []
    monkeypatch.setattr(Mesh, "fingerprints", lambda self: asked.append(self) or [])
    mesh.to("cpu")
    assert not asked, "who stays need not be fingerprinted: most losses never ask"
    mesh.to("meta")
    assert asked == [mesh]
    monkeypatch.undo()
    assert Mesh.from_list([(-items[0][0], items[0][1]), items[0]]).fingerprints()[0] != pytest.approx(prints[0])
