"""Geometric regularisers: hand-computed folds and grids, dense matrices, invariances, derivatives, any shape."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import GeometricRegularizer
from reconlab.losses import mesh_regularizers as terms
from reconlab.shapes import ImplicitField, Mesh, PointCloud, TemplateMesh, VoxelGrid
from reconlab.shapes.connectivity import connectivity

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
HINGE = torch.tensor([[0, 1, 2], [1, 0, 3]])
EMPTY = Batch(ids=["a"], categories=["c"])


def sphere(level: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    from trimesh.creation import icosphere

    ball = icosphere(subdivisions=level)
    return torch.tensor(ball.vertices), torch.tensor(ball.faces).long()


def bumpy(batch: int = 2, level: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ball, faces = sphere(level)
    g = torch.Generator().manual_seed(seed)
    return 0.4 * ball + 0.05 * torch.randn(batch, *ball.shape, generator=g, dtype=torch.float64), faces


def grid(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A flat square grid in the plane z = 0, each square cut by the same diagonal."""
    index = torch.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = torch.cat([torch.stack(x, -1).reshape(-1, 3) for x in ((a, b, d), (a, d, c))])
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], -1).reshape(1, -1, 3).double(), faces


def hinge(angle: float) -> torch.Tensor:
    """Two triangles on the edge from 0 to (1, 0, 0) that make a dihedral angle, in degrees."""
    a = math.radians(angle)
    corners = [[0, 0, 0], [1, 0, 0], [0.3, 2, 0], [0.8, 3 * math.cos(a), 3 * math.sin(a)]]
    return torch.tensor([corners], dtype=torch.float64)


# -- connectivity ----------------------------------------------------------------------------------------------


def test_connectivity_of_a_closed_surface_obeys_euler():
    for level in range(3):
        ball, faces = sphere(level)
        net = connectivity(faces, len(ball))
        assert len(ball) - len(net.edges) + len(faces) == 2
        assert len(net.wings) == len(net.edges), "every edge has two faces"
        assert int(net.degree.sum()) == 2 * len(net.edges)


def test_wings_are_the_faces_beside_their_edge():
    ball, faces = sphere(1)
    known = {frozenset(f) for f in faces.tolist()}
    for a, b, c, d in connectivity(faces, len(ball)).wings.tolist():
        assert {frozenset((a, b, c)), frozenset((a, b, d))} <= known
        assert c != d


def test_borders_crowded_and_degenerate_edges_have_no_wings():
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4], [5, 5, 6]])
    net = connectivity(faces, 9)
    assert len(net.wings) == 0
    assert net.degree.tolist() == [4, 4, 2, 2, 2, 0, 0, 0, 0]
    assert net.edges.tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [1, 3], [1, 4]]


def test_connectivity_is_found_once_and_again_after_a_change():
    faces = TETRAHEDRON.clone()
    net = connectivity(faces, 4)
    assert connectivity(faces, 4) is net
    assert len(connectivity(faces, 5).degree) == 5
    faces[3] = torch.tensor([1, 2, 4])
    assert connectivity(faces, 5).edges.tolist()[-1] == [2, 4]
    with pytest.raises(ReconlabError, match="name vertices 0 to 4, but there are 4"):
        connectivity(faces.clone(), 4)


# -- hand-computed cases ---------------------------------------------------------------------------------------


def test_flat_grid_has_no_laplacian_inside_and_no_fold():
    positions, faces = grid(5)
    inside = terms.laplacian(positions, faces)[0].reshape(5, 5, 3)[1:-1, 1:-1]
    assert inside.abs().max() < 1e-12
    assert terms.flatten(positions, faces) < 1e-12
    # Its edges: 2 · 5 · 4 of length 1 and 16 diagonals of squared length 2.
    assert terms.edge_length(positions, faces).item() == pytest.approx((40 + 16 * 2) / 56)


@pytest.mark.parametrize("angle", [180, 150, 90, 60, 10, 0])
def test_a_fold_costs_its_angle(angle):
    value = terms.flatten(hinge(angle), HINGE).item()
    assert value == pytest.approx((math.cos(math.radians(angle)) + 1) ** 2, abs=1e-6)


def test_regular_tetrahedron():
    corners = torch.tensor([[[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]], dtype=torch.float64)
    # Each vertex' neighbours have their mean at minus a third of it; the dihedral angle's cosine is 1/3.
    torch.testing.assert_close(terms.laplacian(corners, TETRAHEDRON), corners * 4 / 3)
    assert terms.laplacian_smoothness(corners, TETRAHEDRON).item() == pytest.approx(4 * 3 * 16 / 9)
    assert terms.laplacian_smoothness(corners, TETRAHEDRON, "mean").item() == pytest.approx(3 * 16 / 9)
    assert terms.flatten(corners, TETRAHEDRON).item() == pytest.approx(6 * (4 / 3) ** 2)
    assert terms.edge_length(corners, TETRAHEDRON).item() == pytest.approx(8)


def test_laplacian_is_the_dense_matrix():
    positions, faces = bumpy()
    adjacency = torch.zeros(42, 42, dtype=torch.float64)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        adjacency[faces[:, i], faces[:, j]] = 1
        adjacency[faces[:, j], faces[:, i]] = 1
    matrix = torch.eye(42) - adjacency / adjacency.sum(1, keepdim=True)
    torch.testing.assert_close(terms.laplacian(positions, faces), matrix @ positions)


def test_flatten_is_the_face_normals_angle():
    positions, faces = bumpy()
    expected = []
    for vertices in positions:
        mesh = Mesh(vertices, faces)
        normals = mesh.face_normals()
        total = 0.0
        for a, b, c, d in connectivity(faces, 42).wings.tolist():
            one, two = (next(i for i, f in enumerate(faces.tolist()) if {a, b, x} == set(f)) for x in (c, d))
            total += (1 - float(normals[one] @ normals[two])) ** 2
        expected.append(total)
    torch.testing.assert_close(
        terms.flatten(positions, faces), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0
    )


def test_move_and_laplacian_change():
    before, faces = bumpy()
    shift = torch.tensor([0.3, -0.4, 0.0], dtype=torch.float64)
    torch.testing.assert_close(terms.move(before, before + shift), torch.full((2,), 0.25, dtype=torch.float64))
    assert terms.laplacian_change(before, before + shift, faces).abs().max() < 1e-20
    after, _ = bumpy(seed=1)
    apart = terms.laplacian(after, faces) - terms.laplacian(before, faces)
    torch.testing.assert_close(terms.laplacian_change(before, after, faces), apart.square().sum(-1).mean(1))


def test_normals_of_a_plane_and_across_it():
    positions, faces = grid(3)
    points = positions + torch.tensor([0.0, 0, 0.1], dtype=torch.float64)
    up = torch.tensor([0.0, 0, 5], dtype=torch.float64).expand_as(points)
    assert terms.normal_alignment(positions, faces, points, up).item() == pytest.approx(0, abs=1e-9)
    # Along x: edges in x have |cos| 1, in y 0, diagonals √½.
    side = torch.tensor([-2.0, 0, 0], dtype=torch.float64).expand_as(points)
    expected = (6 * 1 + 6 * 0 + 4 * math.sqrt(0.5)) / 16
    assert terms.normal_alignment(positions, faces, points, side).item() == pytest.approx(expected, rel=1e-6)


def test_normals_are_those_next_to_either_end():
    positions = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    faces = torch.tensor([[0, 1, 2]])
    points = torch.tensor([[[0.0, 0, 0.1], [1, 0, 0.1], [0, 1, 0.1], [9, 9, 9]]])
    normals = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]])
    # Edge 01: 1 at 0, 0 at 1. Edge 02: 0 and 0. Edge 12 (√½, √½): √½ at 1, 0 at 2.
    value = terms.normal_alignment(positions, faces, points, normals).item()
    assert value == pytest.approx((1 + math.sqrt(0.5)) / 6, rel=1e-6)
    given_index = terms.normal_alignment(positions, faces, points, normals, torch.tensor([[0, 1, 2]]))
    assert given_index.item() == pytest.approx(value)


# -- invariances and scale -------------------------------------------------------------------------------------


def rotation(seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))
    return q


def everything(positions, before, faces, points, normals) -> dict[str, torch.Tensor]:
    return {
        "laplacian": terms.laplacian_smoothness(positions, faces),
        "flatten": terms.flatten(positions, faces),
        "edge": terms.edge_length(positions, faces),
        "change": terms.laplacian_change(before, positions, faces),
        "move": terms.move(before, positions),
        "normal": terms.normal_alignment(positions, faces, points, normals),
    }


def samples(seed: int):
    positions, faces = bumpy(seed=seed)
    before, _ = bumpy(seed=seed + 1)
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(2, 30, 3, generator=g, dtype=torch.float64)
    return positions, before, faces, points, torch.randn(2, 30, 3, generator=g, dtype=torch.float64)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_nothing_depends_on_the_frame(seed):
    positions, before, faces, points, normals = samples(seed)
    shift = torch.tensor([3.0, -2, 5], dtype=torch.float64)
    turn = rotation(seed)
    there = everything(positions @ turn + shift, before @ turn + shift, faces, points @ turn + shift, normals @ turn)
    for name, value in everything(positions, before, faces, points, normals).items():
        torch.testing.assert_close(there[name], value, msg=name)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_nothing_depends_on_the_numbering(seed):
    positions, before, faces, points, normals = samples(seed)
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(42, generator=g)
    new = torch.empty_like(order)
    new[order] = torch.arange(42)
    shuffled = new[faces][torch.randperm(len(faces), generator=g)].roll(seed % 3, 1)
    there = everything(positions[:, order], before[:, order], shuffled, points, normals)
    for name, value in everything(positions, before, faces, points, normals).items():
        torch.testing.assert_close(there[name], value, msg=name)


@given(st.floats(0.2, 50))
@settings(max_examples=15, deadline=None)
def test_scale(s):
    positions, before, faces, points, normals = samples(0)
    there = everything(s * positions, s * before, faces, s * points, normals)
    for name, value in everything(positions, before, faces, points, normals).items():
        factor = 1 if name in ("flatten", "normal") else s**2
        torch.testing.assert_close(there[name], factor * value, rtol=1e-4, atol=0, msg=name)


def test_gradients_are_the_derivatives():
    positions, before, faces, points, normals = samples(3)
    positions = positions[:1].requires_grad_()
    before = before[:1].requires_grad_()
    index = torch.arange(42).unsqueeze(0) % 30  # fixed, for the true match jumps

    def both(x, y):
        return (
            terms.laplacian_smoothness(x, faces),
            terms.flatten(x, faces),
            terms.edge_length(x, faces),
            terms.laplacian_change(y, x, faces),
            terms.move(y, x),
            terms.normal_alignment(x, faces, points[:1], normals[:1], index),
        )

    assert torch.autograd.gradcheck(both, (positions, before))


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["explode", "collapse", "sliver", "fold"])
def test_bad_meshes_have_finite_values_and_gradients(spoil):
    positions, faces = bumpy()
    positions = positions.float()
    if spoil == "explode":
        positions[0] *= 1e6
        positions[1, 3] = 1e6
    elif spoil == "collapse":
        positions[0] = 0.1
        positions[1, faces[0]] = positions[1, faces[0, 0]].clone()
    elif spoil == "sliver":
        a, b, c = faces[0].tolist()
        positions[:, c] = (positions[:, a] + positions[:, b]) / 2 + 1e-7
    else:
        positions[..., 2] = 0
    positions.requires_grad_()
    points, normals = torch.rand(2, 9, 3), torch.zeros(2, 9, 3)
    for name, value in everything(positions, positions.detach() * 0.9, faces, points, normals).items():
        (gradient,) = torch.autograd.grad(value.sum(), positions, allow_unused=True)
        assert value.isfinite().all(), name
        assert gradient.isfinite().all(), name


def test_a_mesh_without_faces_costs_nothing():
    positions = torch.rand(2, 4, 3, requires_grad=True)
    none = torch.zeros(0, 3, dtype=torch.long)
    for name, value in everything(positions, positions, none, torch.rand(2, 5, 3), torch.rand(2, 5, 3)).items():
        assert value.tolist() == [0, 0], name


def test_mistakes_are_named():
    positions, faces = bumpy()
    with pytest.raises(ReconlabError, match=r"move compares positions .* not \(2, 42, 3\) and \(1, 42, 3\)"):
        terms.move(positions, positions[:1])
    with pytest.raises(ReconlabError, match=r"edge_length takes positions \(B, V, 3\), not \(42, 3\)"):
        terms.edge_length(positions[0], faces)
    with pytest.raises(ReconlabError, match="expected 'sum' or 'mean'"):
        terms.laplacian_smoothness(positions, faces, "max")
    with pytest.raises(ReconlabError, match="flatten is -1"):
        GeometricRegularizer(flatten=-1)
    with pytest.raises(ReconlabError, match="change_stages is empty"):
        GeometricRegularizer(change_stages=[])
    with pytest.raises(ReconlabError, match="normals have shape"):
        terms.normal_alignment(positions, faces, positions, positions[:, :3])


# -- the class, on any shape -----------------------------------------------------------------------------------


def staged() -> TemplateMesh:
    shapes = []
    for level, seed in ((0, 1), (1, 2), (2, 3)):
        before, faces = bumpy(level=level, seed=seed)
        after, _ = bumpy(level=level, seed=seed + 10)
        shapes.append(TemplateMesh(after.requires_grad_(), faces, before))
    last = shapes[-1]
    return TemplateMesh(last.positions, last.template_faces, last.before, shapes[:-1])


def test_a_deformed_template_gets_pixel2meshs_terms():
    shape = staged()
    loss = GeometricRegularizer()
    assert loss.needs == frozenset()
    parts = loss(shape, EMPTY)
    stages = [*shape.stages, shape]
    edge = sum(terms.edge_length(s.positions, s.template_faces) for s in stages)
    change = sum(
        f * terms.laplacian_change(s.before, s.positions, s.template_faces)
        for f, s in zip((0.2, 1, 1), stages, strict=True)
    )
    move = sum(terms.move(s.before, s.positions) for s in stages[1:])
    torch.testing.assert_close(parts["loss"], (0.1 * edge + 0.5 * change + 0.033 * move).mean())
    assert set(parts) == {"loss", "edge", "change", "move"}
    parts["loss"].backward()
    assert all(s.positions.grad.abs().sum() > 0 for s in stages)


def test_normals_are_needed_if_they_count():
    loss = GeometricRegularizer(normal=1.6e-4)
    assert loss.needs == {"surface", "normals"}
    shape = staged()
    batch = Batch(ids=["a", "b"], categories=["c", "c"], points=torch.rand(2, 50, 3), normals=torch.rand(2, 50, 3))
    extra = loss(shape, batch)["loss"] - GeometricRegularizer()(shape, batch)["loss"]
    stages = [*shape.stages, shape]
    expected = [terms.normal_alignment(s.positions, s.template_faces, batch.points, batch.normals) for s in stages]
    torch.testing.assert_close(extra, 1.6e-4 * sum(expected).mean())
    with pytest.raises(ReconlabError, match="needs 'normals' of the batch"):
        loss(shape, Batch(ids=["a"], categories=["c"], points=torch.rand(1, 5, 3)))


def test_other_meshes_get_laplacian_and_flatten():
    positions, faces = bumpy()
    expected = 5e-3 * terms.laplacian_smoothness(positions, faces) + 5e-4 * terms.flatten(positions, faces)
    for shape in (TemplateMesh(positions, faces), Mesh(positions, faces)):
        parts = GeometricRegularizer()(shape, EMPTY)
        torch.testing.assert_close(parts["loss"], expected.mean())
        assert set(parts) == {"loss", "laplacian", "flatten"}
    assert set(GeometricRegularizer(flatten=0)(shape, EMPTY)) == {"loss", "laplacian"}


def test_shapes_without_connectivity_give_zero_in_their_graph():
    leaf = torch.full((2, 4, 3), float("nan"), requires_grad=True)
    value = GeometricRegularizer()(PointCloud(leaf), EMPTY)["loss"]
    assert value.item() == 0
    value.backward()
    assert leaf.grad is not None
    assert not leaf.grad.any()
    grid_values = torch.rand(1, 4, 4, 4, requires_grad=True)
    field = ImplicitField(lambda x: x.sum(-1), 1, torch.device("cpu"))
    for shape in (VoxelGrid(grid_values), field):
        value = GeometricRegularizer()(shape, EMPTY)["loss"]
        value.backward()
        assert value.item() == 0


def test_descent_unfolds_a_crumpled_sphere():
    positions, faces = bumpy(batch=1, level=2)
    x = positions.float().requires_grad_()
    optimizer = torch.optim.Adam([x], 2e-3)
    loss = GeometricRegularizer()
    first = loss(TemplateMesh(x, faces), EMPTY)
    for _ in range(60):
        optimizer.zero_grad()
        parts = loss(TemplateMesh(x, faces), EMPTY)
        parts["loss"].backward()
        optimizer.step()
    assert parts["flatten"] < 0.1 * first["flatten"]
    assert parts["laplacian"] < 0.25 * first["laplacian"]
