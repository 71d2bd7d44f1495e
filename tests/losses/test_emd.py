import pytest
import torch

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import EMD
from reconlab.losses.chamfer import chamfer
from reconlab.losses.emd import emd, same_size
from reconlab.shapes import Mesh, PointCloud


def test_by_hand():
    pred = torch.tensor([[[0.0, 0, 0], [10, 0, 0]]])
    target = torch.tensor([[[10.0, 3, 0], [0, 0, 1]]])
    assert emd(pred, target).item() == pytest.approx((1 + 3) / 2)
    # All points of one cloud at once: the crowd that Chamfer's nearest neighbours do not mind costs here.
    crowd = target[:, [1, 1]]
    assert emd(crowd, target, 1e-6).item() == pytest.approx(110**0.5 / 2)


@pytest.mark.parametrize("size", [64, 512])
def test_against_pot(size):
    ot = pytest.importorskip("ot")
    g = torch.Generator().manual_seed(size)
    pred = torch.rand(2, size, 3, generator=g) - 0.5
    target = 0.4 * torch.nn.functional.normalize(torch.randn(2, size, 3, generator=g), dim=-1)
    for tolerance in (1e-2, 1e-5):
        found = emd(pred, target, tolerance)
        for b in range(2):
            uniform = torch.full((size,), 1 / size, dtype=torch.float64).numpy()
            cost = torch.cdist(pred[b].double(), target[b].double()).numpy()
            best = ot.emd2(uniform, uniform, cost, numItermax=10**6)
            assert best * (1 - 1e-6) <= found[b].item() <= best * (1 + tolerance)


def test_gradients_by_finite_differences():
    g = torch.Generator().manual_seed(0)
    pred = torch.rand(2, 12, 3, generator=g, dtype=torch.float64).requires_grad_()
    target = torch.rand(2, 12, 3, generator=g, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, t: emd(p, t, 1e-9), (pred, target), eps=1e-7, atol=1e-6)


def test_points_that_coincide_have_no_gradient():
    points = torch.rand(1, 20, 3)
    pred = points.clone().requires_grad_()
    distance = emd(pred, points)
    distance.sum().backward()
    assert distance.item() == 0
    assert (pred.grad == 0).all()


def test_a_point_that_is_not_finite_makes_its_sample_infinite_without_gradient():
    pred = torch.rand(2, 5, 3)
    pred[1, 2] = torch.inf
    pred.requires_grad_()
    found = emd(pred, torch.rand(2, 5, 3))
    assert found.isfinite().tolist() == [True, False]
    found.sum().backward()
    assert pred.grad.isfinite().all()
    assert (pred.grad[1] == 0).all()


def test_unequal_sizes():
    points = torch.arange(5.0).reshape(1, 5, 1).expand(1, 5, 3)
    g = torch.Generator().manual_seed(0)
    fewer = same_size(points, 3, g)[0, :, 0].tolist()
    assert len(set(fewer)) == 3
    more = same_size(points, 12, g)[0, :, 0].tolist()
    assert sorted(more[:10]) == sorted([*range(5)] * 2)
    assert len(set(more[10:])) == 2
    assert same_size(points, 5) is points
    # A cloud against twice itself: every point has two places.
    pred = torch.cat([points + 0.1, points + 0.1], dim=1)
    assert emd(pred, points).item() == pytest.approx(0.1 * 3**0.5, rel=1e-4)
    assert emd(points, pred, generator=g).shape == (1,)


def test_it_spreads_points_that_chamfer_leaves_in_a_crowd():
    # Nine tenths of the points begin at one end of a line of evenly spaced targets.
    target = torch.zeros(1, 60, 3)
    target[0, :, 0] = torch.linspace(0, 1, 60)
    ends = {}
    for name, function in (("emd", emd), ("chamfer", lambda p, t: chamfer(p, t, squared=False))):
        g = torch.Generator().manual_seed(0)
        pred = 0.05 * torch.rand(1, 60, 3, generator=g)
        pred[0, :6, 0] += torch.linspace(0.1, 0.95, 6)
        pred.requires_grad_()
        optimizer = torch.optim.Adam([pred], lr=0.02)
        for _ in range(100):
            optimizer.zero_grad()
            function(pred, target).sum().backward()
            optimizer.step()
        ends[name] = (pred.detach()[0, :, 0] > 0.5).float().mean().item()
    assert ends["emd"] == pytest.approx(0.5, abs=0.05)
    assert ends["chamfer"] < 0.4


def batch(points: torch.Tensor) -> Batch:
    return Batch([str(i) for i in range(len(points))], ["x"] * len(points), points=points)


def test_class_means_over_the_batch_and_bounds_its_error():
    pred, target = torch.rand(3, 50, 3), torch.rand(3, 50, 3)
    result = EMD(points=None, tolerance=1e-2)(PointCloud(pred), batch(target))
    exact = emd(pred, target, 1e-8).mean()
    assert exact.item() * (1 - 1e-6) <= result["loss"].item() <= exact.item() + result["bound"].item()
    assert result["bound"].item() <= 1e-2 * result["loss"].item()


def test_class_samples_both_sides():
    torch.manual_seed(0)
    mesh = Mesh(torch.rand(2, 4, 3), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    mesh.vertices.requires_grad_()
    result = EMD(points=30)(mesh, batch(torch.rand(2, 100, 3)))
    result["loss"].backward()
    assert (mesh.vertices.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EMD(points=0), "EMD: points is 0"),
        (lambda: EMD(tolerance=0.0), "EMD: tolerance is 0.0"),
        (lambda: emd(torch.rand(2, 5, 3), torch.rand(1, 5, 3)), r"not \(2, 5, 3\) and \(1, 5, 3\)"),
        (lambda: emd(torch.rand(1, 0, 3), torch.rand(1, 5, 3)), "a cloud without points"),
        (lambda: emd(torch.rand(1, 5, 3), torch.rand(1, 0, 3)), "a cloud without points"),
        (lambda: emd(torch.rand(1, 5, 3), torch.rand(1, 5, 3), -1.0), "the tolerance is -1.0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ReconlabError, match=message):
        call()
