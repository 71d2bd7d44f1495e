"""Pixel2Mesh's loss: against an independent computation, its unit, its stages, what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from reconlab.batch import Batch
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.errors import ConversionError, ReconlabError
from reconlab.losses import GeometricRegularizer, Pixel2MeshLoss
from reconlab.losses.pixel2mesh import pixel2mesh_terms
from reconlab.shapes import PointCloud, TemplateMesh
from reconlab.shapes.ellipsoid import ellipsoid, insert_midpoints, subdivide


def stages(scale: float = 1.0, batch: int = 2) -> TemplateMesh:
    g = torch.Generator().manual_seed(0)
    vertices, faces = ellipsoid(vertices=12)
    before = vertices.double().expand(batch, -1, -1)
    shapes: list[TemplateMesh] = []
    for level in range(3):
        after = before + 0.1 * torch.randn(before.shape, generator=g, dtype=torch.float64)
        shapes.append(TemplateMesh(scale * after, faces, scale * before))
        faces, ends = subdivide(faces, after.shape[1])
        before = insert_midpoints(after.transpose(0, 1), ends).transpose(0, 1)
        assert len(shapes) == level + 1
    last = shapes[-1]
    return TemplateMesh(last.positions, last.template_faces, last.before, shapes[:-1])


def truth(scale: float = 1.0, batch: int = 2) -> Batch:
    g = torch.Generator().manual_seed(1)
    points = scale * (torch.rand(batch, 40, 3, generator=g, dtype=torch.float64) - 0.5)
    normals = torch.randn(batch, 40, 3, generator=g, dtype=torch.float64)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    return Batch(ids=["a"] * batch, categories=["c"] * batch, points=points, normals=normals)


def by_hand(shape: TemplateMesh, batch: Batch, b: int) -> dict[str, float]:
    """The published formulas in numpy, loop by loop, for one sample."""
    total = dict.fromkeys(("chamfer", "edge", "change", "move", "normal"), 0.0)
    points, normals = batch.points[b].numpy(), batch.normals[b].numpy()
    for k, stage in enumerate([*shape.stages, shape]):
        after, before = stage.positions[b].numpy(), stage.before[b].numpy()
        faces = stage.template_faces.tolist()
        edges = sorted({tuple(sorted(e)) for a, b_, c in faces for e in ((a, b_), (b_, c), (c, a))})
        near: dict[int, set[int]] = {i: set() for i in range(len(after))}
        for i, j in edges:
            near[i].add(j)
            near[j].add(i)
        to_vertex, _ = cKDTree(after).query(points)
        to_point, index = cKDTree(points).query(after)
        total["chamfer"] += (to_vertex**2).mean() + 0.55 * (to_point**2).mean()
        total["edge"] += np.mean([((after[i] - after[j]) ** 2).sum() for i, j in edges])
        delta = [[x[i] - np.mean([x[j] for j in near[i]], axis=0) for i in range(len(x))] for x in (before, after)]
        total["change"] += (0.2, 1, 1)[k] * ((np.array(delta[1]) - np.array(delta[0])) ** 2).sum(1).mean()
        if k:
            total["move"] += ((after - before) ** 2).sum(1).mean()
        cosines = []
        for i, j in edges:
            along = (after[i] - after[j]) / np.linalg.norm(after[i] - after[j])
            cosines += [abs(along @ normals[index[i]]), abs(along @ normals[index[j]])]
        total["normal"] += np.mean(cosines)
    return total


def test_it_is_the_published_sum():
    shape, batch = stages(), truth()
    parts = Pixel2MeshLoss(unit=1.0)(shape, batch)
    hand = [by_hand(shape, batch, b) for b in range(2)]
    mean = {name: (hand[0][name] + hand[1][name]) / 2 for name in hand[0]}
    for name, value in mean.items():
        assert parts[name].item() == pytest.approx(value, rel=1e-6), name
    weights = {"chamfer": 3000, "edge": 300, "change": 1500, "move": 100, "normal": 0.5}  # the authors'
    expected = sum(weights[name] * mean[name] for name in mean) / 3000
    assert parts["loss"].item() == pytest.approx(expected, rel=3e-3)  # 0.033 and 1.6e-4 are rounded


def test_terms_are_per_sample():
    shape, batch = stages(), truth()
    for b in range(2):
        terms = pixel2mesh_terms([s[b] for s in (*shape.stages, shape)], batch.points[b : b + 1])
        assert set(terms) == {"chamfer", "edge", "change", "move"}
        hand = by_hand(shape, batch, b)
        for name, value in terms.items():
            assert value.shape == (1,)
            assert value.item() == pytest.approx(hand[name], rel=1e-6), name


def test_our_unit_keeps_the_published_proportions():
    # A scene at the authors' size under the authors' weights, and the same at ours: one number, up to the square.
    published = Pixel2MeshLoss(unit=1.0)(stages(0.57), truth(0.57))["loss"]
    ours = Pixel2MeshLoss()(stages(), truth())["loss"]
    torch.testing.assert_close(published, 0.57**2 * ours, rtol=1e-5, atol=0)


def test_every_stage_is_taught():
    shape = stages()
    leaves = [TemplateMesh(s.positions.requires_grad_(), s.template_faces, s.before) for s in (*shape.stages, shape)]
    last = leaves[-1]
    loss = Pixel2MeshLoss()(TemplateMesh(last.positions, last.template_faces, last.before, leaves[:-1]), truth())
    loss["loss"].backward()
    assert all(s.positions.grad.abs().sum() > 0 for s in leaves)


def test_the_regulariser_alone_is_the_rest_of_the_loss():
    shape, batch = stages(), truth()
    rest = Pixel2MeshLoss(chamfer=0.0)(shape, batch)["loss"]
    apart = GeometricRegularizer(normal=1.6e-4 / 0.57**2)(shape, batch)["loss"]
    torch.testing.assert_close(apart, rest)


def test_a_sphere_without_stages_can_be_taught():
    vertices, faces = ellipsoid(vertices=42)
    leaf = vertices.double()[None].clone().requires_grad_()
    parts = Pixel2MeshLoss()(TemplateMesh(leaf, faces), truth(batch=1))
    assert parts["change"] == 0
    assert parts["move"] == 0
    parts["loss"].backward()
    assert leaf.grad.abs().sum() > 0


def test_points_are_drawn_with_their_normals():
    shape, batch = stages(), truth()
    torch.manual_seed(0)
    chosen = torch.randperm(40)[:25]
    torch.manual_seed(0)
    drawn = Pixel2MeshLoss(points=25)(shape, batch)["loss"]
    fewer = Batch(ids=batch.ids, categories=batch.categories)
    fewer.points, fewer.normals = batch.points[:, chosen], batch.normals[:, chosen]
    torch.testing.assert_close(drawn, Pixel2MeshLoss(points=None)(shape, fewer)["loss"])


@pytest.mark.parametrize("spoil", ["explode", "collapse", "one"])
def test_bad_meshes_give_finite_losses_and_gradients(spoil):
    shape, batch = stages(), truth()
    leaves = []
    for s in (*shape.stages, shape):
        x = s.positions.float()
        if spoil == "explode":
            x *= 1e6
        elif spoil == "collapse":
            x *= 0
        else:
            x[:, 3] = 1e6
        leaves.append(TemplateMesh(x.requires_grad_(), s.template_faces, s.before.float()))
    last = leaves[-1]
    whole = TemplateMesh(last.positions, last.template_faces, last.before, leaves[:-1])
    parts = Pixel2MeshLoss()(whole, batch)
    assert parts["loss"].isfinite()
    parts["loss"].backward()
    assert all(s.positions.grad.isfinite().all() for s in leaves)


def test_other_shapes_are_refused_by_name():
    with pytest.raises(ConversionError, match="not on a PointCloud: choose another loss"):
        Pixel2MeshLoss()(PointCloud(torch.rand(2, 5, 3)), truth())


def test_data_without_normals_are_refused_before_training(tmp_path: Path):
    folder = tmp_path / "chair" / "one"
    folder.mkdir(parents=True)
    np.savez(folder / "pointcloud.npz", points=np.random.default_rng(0).random((50, 3), np.float32))
    for split in ("train", "val", "test"):
        (tmp_path / "chair" / f"{split}.lst").write_text("one\n")
    with_normals, without = Pixel2MeshLoss(), Pixel2MeshLoss(normal=0.0)
    assert with_normals.needs == {"surface", "normals"}
    assert without.needs == {"surface"}
    data = ReconstructionData(str(tmp_path))
    data.require(with_normals.needs, "the loss Pixel2MeshLoss", ("train",))
    with pytest.raises(ReconlabError, match=r"the loss Pixel2MeshLoss needs 'normals'.* lacks normals in"):
        data.setup("fit")
    data = ReconstructionData(str(tmp_path))
    data.require(without.needs, "the loss Pixel2MeshLoss", ("train",))
    data.setup("fit")
    without(stages(batch=1), next(iter(data.train_dataloader())))
    with pytest.raises(ReconlabError, match="needs 'normals' of the batch"):
        with_normals(stages(batch=1), next(iter(data.train_dataloader())))


@pytest.mark.parametrize(
    "settings", [{"move": -1.0}, {"opposite": float("nan")}, {"unit": 0.0}, {"points": 0}, {"change_stages": []}]
)
def test_mistakes_are_named(settings):
    with pytest.raises(ReconlabError, match=f"Pixel2MeshLoss: {next(iter(settings))} is"):
        Pixel2MeshLoss(**settings)
