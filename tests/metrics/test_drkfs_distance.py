"""DR-KFS as a metric: it is the loss, for one mesh at a time, and it counts failures."""

import pickle

import pytest
import torch
import trimesh

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import DRKFS
from reconlab.metrics import DRKFSDistance
from reconlab.shapes import Mesh


def ball(radius: float) -> Mesh:
    solid = trimesh.creation.icosphere(subdivisions=2, radius=radius)
    return Mesh(torch.tensor(solid.vertices).float(), torch.tensor(solid.faces))


def rod() -> Mesh:
    solid = trimesh.creation.box((0.9, 0.1, 0.1))
    return Mesh(torch.tensor(solid.vertices).float(), torch.tensor(solid.faces))


def batch(*meshes: Mesh) -> Batch:
    return Batch([str(i) for i in range(len(meshes))], ["x"] * len(meshes), mesh=Mesh.cat(meshes))


@pytest.fixture(scope="module")
def metric() -> DRKFSDistance:
    return DRKFSDistance(views=4, image_size=64)


def test_is_the_loss_of_each_sample(metric):
    """Against the loss, told to use all 25 views and asked for those four."""
    loss = DRKFS(views_per_step=None, image_size=64).eval()
    pred, truth = Mesh.cat([rod(), ball(0.4)]), batch(ball(0.4), ball(0.3))
    with torch.no_grad():
        forth, back = loss.per_view(pred, truth, views=[3, 9, 15, 21])
    values = metric.per_sample(pred, truth)["drkfs"]
    assert values.tolist() == pytest.approx((forth + back).mean(1).tolist(), rel=1e-4)
    assert DRKFSDistance().protocol.formula.startswith("mean over 25 views")


def test_the_truth_is_at_zero_and_likeness_orders(metric):
    shapes = [ball(0.4), ball(0.38), rod()]
    same, near, far = metric.per_sample(Mesh.cat(shapes), batch(*[shapes[0]] * 3))["drkfs"].tolist()
    assert 0 <= same < 1e-5
    assert 10 * same < near < far < metric.protocol.worst_value


def test_does_not_depend_on_the_batch(metric):
    pred, truth = [rod(), ball(0.3)], [ball(0.4), ball(0.35)]
    together = metric.per_sample(Mesh.cat(pred), batch(*truth))["drkfs"].tolist()
    alone = [metric.per_sample(p, batch(t))["drkfs"].item() for p, t in zip(pred, truth, strict=True)]
    assert together == alone


def test_failures_are_charged_and_a_bad_truth_is_named(metric):
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    broken = Mesh(ball(0.3).vertices * torch.nan, ball(0.3).faces)
    values = metric.per_sample(Mesh.cat([empty, ball(0.4), broken]), batch(*[ball(0.4)] * 3))
    assert values["drkfs/failed"].tolist() == [True, False, True]
    # nine patches, weight 1 each, orthogonal unit descriptors of 128 numbers, two directions
    assert values["drkfs"][0].item() == pytest.approx(9 * 2 / 128 * 2)
    with pytest.raises(ReconlabError, match="ground truth of x/1"):
        metric.per_sample(Mesh.cat([rod(), rod()]), batch(rod(), empty))
    with pytest.raises(ReconlabError, match="needs 'mesh' of the batch"):
        metric.per_sample(rod(), Batch(["a"], ["x"]))
    with pytest.raises(ReconlabError, match="expected 1 to 25"):
        DRKFSDistance(views=26)


def test_networks_are_not_part_of_a_checkpoint(metric):
    assert list(metric.state_dict()) == []
    assert list(metric.parameters()) == []
    again = pickle.loads(pickle.dumps(metric))
    value = again.per_sample(rod(), batch(ball(0.4)))["drkfs"]
    assert torch.equal(value, metric.per_sample(rod(), batch(ball(0.4)))["drkfs"])
