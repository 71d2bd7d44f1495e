import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ConversionError, ReconlabError
from reconlab.lab import Reconstruction
from reconlab.losses import Balanced, Loss, WeightedSum
from reconlab.losses.balanced import shape_tensors
from reconlab.networks import AtlasNet, Network
from reconlab.networks.checkpoint import load_checkpoint
from reconlab.shapes import ImplicitField, Mesh, PointCloud, TemplateMesh, VoxelGrid
from tests.ranks import one_rank, run_ranks

BATCH = Batch(["a"], ["x"])


class Quadratic(Loss):
    """``scale · |points - centre|²``, of gradient ``2 · scale · distance``."""

    def __init__(self, scale: float, centre: float = 0.0) -> None:
        super().__init__()
        self.scale, self.centre = scale, centre

    def forward(self, shape, batch):
        loss = self.scale * (shape.points() - self.centre).square().sum()
        return {"loss": loss, "part": loss.detach()}


class Free(Network):
    needs = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.tensor([[[1.0, 2.0, 3.0]]]))

    def forward(self, images, cameras: Cameras | None = None):
        return PointCloud(self.points)

    def reconstruct(self, batch):
        return PointCloud(self.points)


def two(far: float = 1000.0, **settings) -> Balanced:
    return Balanced({"near": Quadratic(1.0), "far": Quadratic(far, 5.0)}, **settings)


def norms(loss: Balanced, points) -> dict[str, float]:
    """Gradient norm of each weighted term, from scratch."""
    found = {}
    for name, weight in zip(loss.names, loss.weights().tolist(), strict=True):
        leaf = points.detach().clone().requires_grad_()
        (weight * loss.terms[name](PointCloud(leaf), BATCH)["loss"]).backward()
        found[name] = float(leaf.grad.norm())
    return found


@pytest.mark.parametrize(("ratios", "ratio"), [(None, 1.0), ({"far": 0.25}, 0.25)])
def test_gradients_a_thousandfold_apart_end_with_norms_of_the_ratio(ratios, ratio):
    loss = two(reference="near", ratios=ratios)
    points = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    unweighted = norms(WeightedNorms(loss), points)
    assert unweighted["far"] > 1000 * unweighted["near"]
    parts = loss(PointCloud(points), BATCH)
    weighted = norms(loss, points)
    assert weighted["near"] == pytest.approx(unweighted["near"], rel=1e-6), "the reference keeps its gradient"
    assert weighted["far"] == pytest.approx(ratio * weighted["near"], rel=1e-5)
    assert float(parts["weight/near"]) == 1
    assert parts["loss"].item() == pytest.approx(float((parts["near"] + parts["weight/far"] * parts["far"]).detach()))
    assert {"near/part", "far/part"} < parts.keys()


class WeightedNorms:
    """The same terms with factors 1."""

    def __init__(self, loss: Balanced) -> None:
        self.names, self.terms = loss.names, loss.terms

    def weights(self):
        return torch.ones(len(self.names))


def test_balanced_quadratics_meet_halfway_where_their_plain_sum_follows_the_stronger():
    # a(x) = |x|² and b(x) = 1000 |x - 5|²: with equal gradient norms only their midpoint is at rest.
    loss, network = two(every=1, momentum=0.5), Free()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(100):
        loss.advance(step, 100)
        optimizer.zero_grad()
        loss(network.reconstruct(BATCH), BATCH)["loss"].backward()
        optimizer.step()
    found = norms(loss, network.points)
    assert found["far"] == pytest.approx(found["near"], rel=1e-2)
    # At rest the two gradients cancel, which with equal norms holds anywhere between 0 and 5 on the line to it.
    assert bool((network.points < 4).all()), "1000 times stronger alone, the plain sum ends within 0.005 of 5"


def test_norms_are_a_moving_average_of_measurements_every_few_steps():
    loss = two(every=2, momentum=0.75)
    seen = []
    for step, x in enumerate((1.0, 2.0, 3.0, 4.0)):
        loss.advance(step, 4)
        loss(PointCloud(torch.tensor([[[x, 0.0, 0.0]]], requires_grad=True)), BATCH)
        seen.append(float(loss.norms[loss.names.index("near")]))
    assert seen == pytest.approx([2.0, 2.0, 0.75 * 2 + 0.25 * 6, 3.0]), "steps 0 and 2 measure"


@pytest.mark.parametrize("method", ["gradient", "uncertainty"])
def test_a_fixed_term_takes_no_part(method):
    shape = PointCloud(torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True))
    terms = {"regularizer": Quadratic(-7.0), "near": Quadratic(1.0), "far": Quadratic(1000.0, 5.0)}
    with_it, without = Balanced(terms, method=method, fixed={"regularizer": 0.1}), two(method=method)
    assert with_it.reference == "near", "the first that is not fixed"
    ours, theirs = with_it(shape, BATCH), without(shape, BATCH)
    assert ours["loss"].item() == pytest.approx(theirs["loss"].item() - 0.1 * 7 * 14, rel=1e-5)
    assert torch.equal(with_it.weights(), without.weights())
    assert "weight/regularizer" not in ours


def test_a_term_that_begins_is_measured_at_once():
    loss = two(every=100, start={"far": 0.5})
    shape = PointCloud(torch.tensor([[[1.0, 0.0, 0.0]]], requires_grad=True))
    loss.advance(49, 100)
    assert "weight/far" not in loss(shape, BATCH)
    loss.advance(51, 100)
    parts = loss(shape, BATCH)
    far = 2000 * math.sqrt(16 + 25 + 25)
    assert float(parts["weight/far"]) == pytest.approx(2 / far, rel=1e-5)


def test_gradients_of_zero_do_not_count():
    loss = Balanced({"near": Quadratic(1.0), "far": Quadratic(10.0, 1.0)}, every=5)

    def weight(step: int, x: float) -> float:
        loss.advance(step, 100)
        return float(loss(PointCloud(torch.full((1, 1, 3), x, requires_grad=True)), BATCH)["weight/far"])

    assert weight(0, 0.0) == 1, "the reference has none: the ratio itself"
    assert weight(5, 1.0) == pytest.approx(2 / 20), "far had one of 20 √3 then, near has one of 2 √3 now"
    loss = Balanced({"near": Quadratic(1.0), "far": Quadratic(10.0, 1.0)}, every=5)
    assert weight(0, 1.0) == 0, "far has none: it waits"
    assert weight(4, 2.0) == 0, "measured once; the next time is not yet"
    assert weight(5, 2.0) == pytest.approx((0.9 * 2 + 0.1 * 4) / 20)


def test_weights_carry_no_gradient():
    loss = two()
    points = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    parts = loss(PointCloud(points), BATCH)
    parts["loss"].backward()
    by_hand = 2 * points + float(parts["weight/far"]) * 2000 * (points - 5)
    assert torch.allclose(points.grad, by_hand, rtol=1e-5)


@pytest.mark.parametrize("method", ["gradient", "uncertainty"])
def test_frozen_weights_make_a_weighted_sum(method):
    loss = two(method=method)
    shape = PointCloud(torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True))
    loss(shape, BATCH)
    loss.eval()
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    terms = {"near": Quadratic(1.0), "far": Quadratic(1000.0, 5.0)}
    plain = WeightedSum(terms, dict(zip(loss.names, loss.weights().tolist(), strict=True)))
    other = PointCloud(torch.tensor([[[0.3, -1.0, 2.0]]], requires_grad=True))
    ours, theirs = loss(other, BATCH), plain(other, BATCH)
    assert ours["loss"].item() == pytest.approx(theirs["loss"].item(), rel=1e-6)
    assert set(theirs) == {k for k in ours if not k.startswith("weight/")}
    assert all(torch.equal(v, before[k]) for k, v in loss.state_dict().items()), "eval mode learns nothing"


def test_uncertainty_weights_converge_to_the_analytic_optimum():
    loss = two(method="uncertainty")
    first = PointCloud(torch.tensor([[[1.0, 2.0, 3.0]]]))
    values = {name: float(term(first, BATCH)["loss"]) for name, term in loss.terms.items()}
    parts = loss(first, BATCH)
    for name, value in values.items():
        assert float(parts[f"weight/{name}"]) == pytest.approx(0.5 / value, rel=1e-4), "starts at the optimum"
    # Later the terms are smaller: the learned weights follow.
    later = PointCloud(torch.tensor([[[0.1, -0.2, 0.1]]]))
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss(later, BATCH)["loss"].backward()
        optimizer.step()
    for name, term in loss.terms.items():
        value = float(term(later, BATCH)["loss"])
        s = loss.speed * loss.log_variances[loss.names.index(name)].item()
        assert math.exp(-s) == pytest.approx(1 / value, rel=1e-3)


def test_uncertainty_by_hand():
    loss = two(method="uncertainty", speed=1.0)
    shape = PointCloud(torch.tensor([[[1.0, 2.0, 3.0]]]))
    loss(shape, BATCH)
    loss.log_variances.data = torch.tensor([2.0, -1.0])  # far, near
    far, near = 1000 * (16 + 9 + 4), 14
    total = 0.5 * (math.exp(-2) * far + 2 + math.exp(1) * near - 1)
    assert loss(shape, BATCH)["loss"].item() == pytest.approx(total, rel=1e-6)


def test_log_variances_have_a_gradient_while_only_fixed_terms_are_active():
    # A distributed run refuses parameters without one
    terms = {"smooth": Quadratic(1.0), "far": Quadratic(3.0, 5.0)}
    loss = Balanced(terms, method="uncertainty", fixed={"smooth": 2.0}, start={"far": 0.5})
    loss.advance(0, 10)
    value = loss(PointCloud(torch.tensor([[[1.0, 2.0, 3.0]]])), BATCH)["loss"]
    value.backward()
    assert value.item() == pytest.approx(28.0)
    assert loss.log_variances.grad.tolist() == [0.0]


@pytest.mark.parametrize("method", ["gradient", "uncertainty"])
def test_a_resumed_training_is_the_uninterrupted_one(method, tmp_path):
    def begin():
        # Rows listed in another order than the names'.
        model = Reconstruction(Free(), two(method=method, every=3), {}, lr=0.1)
        return model, model.configure_optimizers()

    def train(model, optimizer, steps):
        for step in steps:
            model.loss.advance(step, 20)
            optimizer.zero_grad()
            model.loss(model.network.reconstruct(BATCH), BATCH)["loss"].backward()
            optimizer.step()

    whole, optimizer = begin()
    train(whole, optimizer, range(20))
    first, optimizer = begin()
    train(first, optimizer, range(8))
    checkpoint = {"state_dict": first.state_dict(), "hyper_parameters": {}, "optimizer": optimizer.state_dict()}
    first.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    second, optimizer = begin()
    content = load_checkpoint(tmp_path / "a.ckpt")
    second.on_load_checkpoint(content)
    second.load_state_dict(content["state_dict"], strict=second.strict_loading)
    optimizer.load_state_dict(content["optimizer"])
    train(second, optimizer, range(8, 20))
    assert torch.equal(second.network.points, whole.network.points)
    assert torch.equal(second.loss.weights(), whole.loss.weights())


def test_log_variances_are_optimised_with_the_network_and_do_not_decay():
    model = Reconstruction(Free(), two(method="uncertainty"), {}, weight_decay=0.1)
    _, kept = model.configure_optimizers().param_groups
    assert any(p is model.loss.log_variances for p in kept["params"])
    assert kept["weight_decay"] == 0


def process(folder: Path, rank: int) -> None:
    with one_rank(folder, rank):
        found = {}
        for method in ("gradient", "uncertainty"):
            loss = two(method=method)
            loss(PointCloud(torch.tensor([[[1.0 + rank, 0.0, 0.0]]], requires_grad=True)), BATCH)
            found[method] = loss.weights()
        torch.save(found, folder / f"{rank}.pt")


def test_processes_share_the_mean(tmp_path):
    run_ranks(__file__, tmp_path)
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    far = [2000 * math.sqrt((5 - x) ** 2 + 50) for x in (1, 2)]
    assert a["gradient"].tolist() == pytest.approx([(2 + 4) / sum(far), 1], rel=1e-5)
    assert a["uncertainty"].tolist() == pytest.approx([0.5 / (500 * (66 + 59)), 0.5 / 2.5], rel=1e-4)
    assert all(torch.equal(a[method], b[method]) for method in a)


def test_where_gradients_are_compared():
    points, faces = torch.rand(1, 4, 3), torch.tensor([[0, 1, 2], [0, 2, 3]])
    logits = torch.rand(1, 2, 2, 2)
    assert shape_tensors(PointCloud(points))[0] is points
    mesh = Mesh(points, faces)
    assert shape_tensors(mesh)[0] is mesh.vertices
    assert shape_tensors(TemplateMesh(points, faces))[0] is points
    assert shape_tensors(VoxelGrid(logits))[0] is logits
    assert shape_tensors(VoxelGrid.from_logits(logits))[0] is logits
    field = ImplicitField(lambda x: x.sum(-1), 1, torch.device("cpu"))
    field.code = torch.rand(1, 8)
    assert shape_tensors(field)[0] is field.code
    surface = AtlasNet(patches=1, latent=4, hidden=4, grid=2, encoder_width=8)(torch.rand(2, 3, 32, 32))
    assert shape_tensors(surface)[0] is surface.latent
    with pytest.raises(ConversionError, match=r"ImplicitField has no tensors .* give it a method anchors"):
        shape_tensors(ImplicitField(lambda x: x.sum(-1), 1, torch.device("cpu")))


@pytest.mark.parametrize("form", ["mesh", "template", "logits", "latent"])
def test_terms_on_different_forms_meet_at_the_shape(form):
    class Area(Loss):
        def forward(self, shape, batch):
            return {"loss": shape.mesh().face_areas().sum()}

    class Sum(Loss):
        def forward(self, shape, batch):
            return {"loss": 100 * (shape.values if form == "logits" else shape.points(50)).square().sum()}

    class Grid(VoxelGrid):
        def mesh(self):
            return Mesh(self.logits.reshape(1, -1)[:, :12].reshape(1, 4, 3), faces)

    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    free = torch.rand(1, 4, 3, requires_grad=True)
    shape = {
        "mesh": lambda: Mesh(2 * free, faces),
        "template": lambda: TemplateMesh(2 * free, faces),
        "logits": lambda: Grid.from_logits(torch.rand(1, 3, 3, 3, requires_grad=True)),
        "latent": lambda: AtlasNet(patches=2, latent=4, hidden=4, grid=3, encoder_width=8)(torch.rand(2, 3, 32, 32)),
    }[form]()
    loss = Balanced({"a": Area(), "b": Sum()})
    loss(shape, BATCH)["loss"].backward()
    assert bool((loss.norms > 0).all())


def terms():
    return {"near": Quadratic(1.0), "far": Quadratic(2.0)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"reference": "visual"}, r"the reference is 'visual'; the terms are \['far', 'near'\]"),
        ({"ratios": {"visual": 1.0}}, r"ratios names 'visual'; the terms beside the reference are \['far'\]"),
        ({"ratios": {"near": 1.0}}, "ratios names 'near'"),
        ({"ratios": {"far": 0.0}}, r"ratios\.far is 0\.0; expected a positive number"),
        ({"every": 0}, "every is 0"),
        ({"momentum": 1.0}, "momentum 1.0"),
        ({"speed": 0.0}, "speed 0.0"),
        ({"start": {"near": 0.5}}, "the reference 'near' starts at 0.5"),
        ({"fixed": {"x": 1.0}}, r"fixed names \['x'\] of the terms \['far', 'near'\]"),
        ({"fixed": {"near": 1.0, "far": 1.0}}, "expected some, not all"),
        ({"fixed": {"far": 1.0}, "reference": "far"}, r"the reference is 'far'; the terms are \['near'\]"),
        ({"start": {"x": 0.5}}, "Balanced: start names 'x'"),
        ({"method": "uncertainty", "ratios": {"far": 2.0}}, "belong to method 'gradient'"),
        ({"method": "uncertainty", "reference": "far"}, "belong to method 'gradient'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ReconlabError, match=message):
        Balanced(terms(), **settings)


def test_bad_terms():
    with pytest.raises(ReconlabError, match="Balanced: there are no terms"):
        Balanced({})
    with pytest.raises(ReconlabError, match="a term cannot be called 'weight'"):
        Balanced({"weight": Quadratic(1.0)})


def test_a_negative_term_under_uncertainty():
    loss = Balanced({"a": Quadratic(-1.0)}, method="uncertainty")
    with pytest.raises(ReconlabError, match="'a' is -3, but uncertainty weights need terms that are not negative"):
        loss(PointCloud(torch.ones(1, 1, 3)), BATCH)


def test_a_term_that_does_not_reach_the_shape():
    class Elsewhere(Loss):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.ones(()))

        def forward(self, shape, batch):
            return {"loss": self.value.square()}

    loss = Balanced({"near": Quadratic(1.0), "other": Elsewhere()})
    with pytest.raises(ReconlabError, match="'other' does not depend on the shape's own tensors"):
        loss(PointCloud(torch.ones(1, 1, 3, requires_grad=True)), BATCH)
    with pytest.raises(ReconlabError, match="the PointCloud carries no gradient"):
        loss(PointCloud(torch.ones(1, 1, 3)), BATCH)


if __name__ == "__main__":
    process(Path(sys.argv[1]), int(sys.argv[2]))
