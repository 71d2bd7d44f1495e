"""EPCG's loss: hand-computed terms of both stages, the true maps' cache, odd input."""

import math

import pytest
import torch
import trimesh

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import EPCG
from reconlab.losses.epcg import fixed_view_terms, novel_view_terms
from reconlab.renderers import render_orthographic_depth
from reconlab.renderers.pseudo_depth import fixed_views, random_views
from reconlab.shapes import Mesh, PointCloud

SIZE = 32


class Maps(PointCloud):
    """What the loss reads of a network's shape."""

    def __init__(self, maps: torch.Tensor, logits: torch.Tensor) -> None:
        super().__init__(torch.zeros(len(maps), 1, 3))
        self.view_maps, self.view_logits = maps, logits


def box(x: float, y: float, z: float) -> tuple[torch.Tensor, torch.Tensor]:
    made = trimesh.creation.box((x, y, z))
    return torch.tensor(made.vertices, dtype=torch.float32), torch.tensor(made.faces)


def exact(mesh: tuple[torch.Tensor, torch.Tensor], size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps and logits of a perfect network, (1, 8, 3, S, S) and (1, 8, S, S), with confident masks."""
    depth = render_orthographic_depth(*mesh, fixed_views(), size)
    row, column = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    seen = depth.isfinite()
    maps = torch.stack([column.expand_as(depth), row.expand_as(depth), torch.where(seen, depth, 1.0)], 1)
    return maps[None], torch.where(seen, 20.0, -20.0)[None]


def batch_of(*meshes: tuple[torch.Tensor, torch.Tensor]) -> Batch:
    names = [str(i) for i in range(len(meshes))]
    return Batch(names, ["x"] * len(meshes), mesh=Mesh.from_list(list(meshes)))


def test_first_stage_by_hand():
    """Four pixels, one true with depth .8; predicted masks at two."""
    truth = torch.full((1, 8, 2, 2), math.inf)
    truth[..., 0, 0] = 0.8
    logits = torch.tensor([[1.0, 2.0], [-3.0, -4.0]]).expand(1, 8, 2, 2)
    maps = torch.zeros(1, 8, 3, 2, 2)
    maps[:, :, 2] = 0.7
    terms = fixed_view_terms(maps, logits, truth)
    sp = [math.log1p(math.exp(-1)), math.log1p(math.exp(2)), math.log1p(math.exp(-3)), math.log1p(math.exp(-4))]
    assert terms.mask.item() == pytest.approx(sum(sp) / 4, rel=1e-5)
    assert terms.xy.item() == pytest.approx((0 + 1 + 1 + 2) / 4)
    assert terms.depth.item() == pytest.approx((0.1 + 0.3) / 4, rel=1e-5)  # the background is at 1; masked: 0
    assert terms.overlap.item() == 0.5


def test_a_perfect_network_has_no_loss_in_the_fixed_views():
    mesh = box(0.5, 0.3, 0.4)
    out = EPCG()(Maps(*exact(mesh)), batch_of(mesh))
    assert out["loss"].item() < 1e-6
    assert out["iou"].item() == 1


def test_a_perfect_network_is_close_in_novel_views_and_better_than_a_shifted_one():
    mesh = box(0.5, 0.3, 0.4)
    maps, logits = exact(mesh, 64)
    loss = EPCG("novel", views_per_step=3, pool=5)
    out = loss(Maps(maps, logits), batch_of(mesh))
    assert out["iou"].item() > 0.85
    assert out["depth"].item() < 5e-3
    shifted = maps.clone()
    shifted[:, :, 2] += 0.1
    worse = loss(Maps(shifted, logits), batch_of(mesh))
    assert worse["loss"].item() > 1.5 * out["loss"].item()


def test_novel_views_by_hand():
    """One visible point near the centre; the truth is a plane at depth .9 over the whole image."""
    maps = torch.full((1, 8, 3, 2, 2), 100.0)  # off every image
    maps[0, 0, :, 0, 0] = torch.tensor([0.51, 0.51, 1.0])  # just off the pixels' common corner
    logits = torch.full((1, 8, 2, 2), -9.0)
    logits[0, 0, 0, 0] = 3.0
    terms = novel_view_terms(maps, logits, fixed_views()[:1], torch.full((1, 1, 2, 2), 0.9))
    unseen = math.log1p(math.exp(1.0))
    assert terms.mask.item() == pytest.approx((3 * unseen + math.log1p(math.exp(-3))) / 4, rel=1e-4)
    assert terms.depth.item() == pytest.approx(0.1 / 4, rel=1e-3)


def test_finite_differences():
    mesh = box(0.5, 0.3, 0.4)
    maps, logits = exact(mesh, 4)
    g = torch.Generator().manual_seed(0)
    maps = (maps + 0.2 * torch.randn(maps.shape, generator=g)).double().requires_grad_()
    logits = torch.randn(logits.shape, generator=g).double().requires_grad_()
    for stage, views in (("fixed", fixed_views()), ("novel", random_views(2, 0))):
        truth = render_orthographic_depth(*mesh, views, 4)[None].double()

        def value(m, a, stage=stage, views=views, truth=truth):
            terms = fixed_view_terms(m, a, truth) if stage == "fixed" else novel_view_terms(m, a, views, truth)
            return terms.mask + terms.xy + terms.depth

        assert torch.autograd.gradcheck(value, (maps, logits), eps=1e-7, atol=1e-5, fast_mode=True)


def test_true_maps_are_drawn_once_and_dropped_at_the_limit():
    meshes = [box(0.5, 0.3, 0.4), box(0.2, 0.6, 0.3)]
    maps = [exact(m) for m in meshes]
    shape = Maps(torch.cat([m[0] for m in maps]), torch.cat([m[1] for m in maps]))
    loss, small = EPCG(), EPCG(cache_bytes=5 * SIZE * SIZE * 4)
    first = loss(shape, batch_of(*meshes))["loss"]
    assert (len(loss.cache), loss.cache.hits) == (16, 0)
    assert loss(shape, batch_of(*meshes))["loss"] == first
    assert loss.cache.hits == 16
    assert small(shape, batch_of(*meshes))["loss"] == first
    assert len(small.cache) == 5


def test_views_change_with_the_step_in_training_only():
    mesh = box(0.5, 0.3, 0.4)
    shape, batch, loss = Maps(*exact(mesh)), batch_of(mesh), EPCG("novel", views_per_step=2, pool=30)
    values = []
    for step in (0, 1, 0):
        loss.advance(step, 10)
        values.append(loss(shape, batch)["loss"].item())
    assert values[0] == values[2] != values[1]
    loss.eval()
    assert loss(shape, batch)["loss"].item() not in values
    assert "views_per_step=2" in repr(loss)


@pytest.mark.parametrize("stage", ["fixed", "novel"])
@pytest.mark.parametrize("logit", [-5.0, 5.0])
def test_empty_and_full_masks_stay_finite(stage, logit):
    mesh = box(0.5, 0.3, 0.4)
    maps, logits = exact(mesh, 8)
    maps.requires_grad_()
    logits = torch.full_like(logits, logit).requires_grad_()
    out = EPCG(stage, views_per_step=2)(Maps(maps, logits), batch_of(mesh))
    out["loss"].backward()
    assert all(value.isfinite() for value in out.values())
    assert maps.grad.isfinite().all()
    assert logits.grad.isfinite().all()


def test_mistakes_are_named():
    mesh = box(0.5, 0.3, 0.4)
    with pytest.raises(ReconlabError, match="stage is 'third'"):
        EPCG("third")
    with pytest.raises(ReconlabError, match="no more views than the pool"):
        EPCG(views_per_step=5, pool=4)
    with pytest.raises(ReconlabError, match="depth_weight is -1"):
        EPCG(depth_weight=-1)
    with pytest.raises(ReconlabError, match="use the network EPCGNet"):
        EPCG()(PointCloud(torch.zeros(1, 4, 3)), batch_of(mesh))
    with pytest.raises(ReconlabError, match="needs 'mesh'"):
        EPCG()(Maps(*exact(mesh)), Batch(["a"], ["x"]))
    with pytest.raises(ReconlabError, match="1 reconstructions for 2 meshes"):
        EPCG()(Maps(*exact(mesh)), batch_of(mesh, mesh))
