"""Matryoshka's losses: by hand, against the released formula written out, finite differences, bad inputs."""

import pytest
import torch

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.losses.matryoshka import Matryoshka, depth_terms, soft_overlap
from reconlab.networks.matryoshka import ShapeLayerGrid
from reconlab.shapes import VoxelGrid
from reconlab.shapes.shape_layers import encode, to_depths


def batch_of(voxels: torch.Tensor) -> Batch:
    names = [str(i) for i in range(len(voxels))]
    return Batch(ids=names, categories=["thing"] * len(names), voxels=voxels.float())


def random_case(seed: int = 0, layers: int = 2, side: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    voxels = torch.rand(3, side, side, side, generator=g) < 0.3
    depths = torch.rand(3, layers, 6, side, side, generator=g, dtype=torch.float64) * (side + 3) - 2
    return depths, voxels


def test_depth_terms_by_hand():
    target = torch.zeros(2, 1, 2, 2, 2)
    target[0, 0, 0] = torch.tensor([[2.0, 5.0], [0.0, 0.0]])
    pred = torch.zeros_like(target) - 3
    pred[0, 0, 0] = torch.tensor([[1.0, 7.0], [-0.5, 2.0]])
    terms = depth_terms(pred, target)
    assert terms.foreground.tolist() == [3 / 4, 0]
    assert terms.background.tolist() == [3.5 / 4, 0]
    assert terms.foreground_share.tolist() == [0.5, 0]
    assert terms.background_share.tolist() == [1.5, 2]
    # Means over the batch: .375 by max(1, .25), .4375 by 1.75.
    assert terms.total().item() == pytest.approx(0.375 + 0.4375 / 1.75)


def test_depth_loss_is_the_released_formula():
    depths, voxels = random_case()
    target = to_depths(encode(voxels, 2)).double()
    fore = back = fore_share = back_share = 0.0
    for layer in range(2):
        for channel in range(6):
            p, t = depths[:, layer, channel], target[:, layer, channel]
            fore += sum(abs(a - b) for a, b in zip(p[t > 0].tolist(), t[t > 0].tolist(), strict=True)) / p.numel()
            back += sum(max(0.0, a + 1) for a in p[t <= 0].tolist()) / p.numel()
            fore_share += (t > 0).sum().item() / p.numel()
            back_share += (t <= 0).sum().item() / p.numel()
    expected = fore / max(1.0, fore_share) + back / max(1.0, back_share)
    parts = Matryoshka()(ShapeLayerGrid(depths, 0.15, False), batch_of(voxels))
    assert parts["loss"].item() == pytest.approx(expected)
    assert parts["foreground"].item() == pytest.approx(fore / max(1.0, fore_share))
    assert parts["background"].item() == pytest.approx(back / max(1.0, back_share))


def test_overlap_by_hand():
    pred, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    pred[0, 0], target[0, :, 0] = 0.5, 1
    iou, cosine = soft_overlap(pred, target)
    assert iou.item() == pytest.approx(1 / (2 + 4 - 1))
    assert cosine.item() == pytest.approx(1 / (1 * 2))
    iou, cosine = soft_overlap(target, target)
    assert (iou.item(), cosine.item()) == (1, 1)


def test_gradients_by_finite_differences():
    depths, voxels = random_case(1, side=3)
    target = to_depths(encode(voxels, 2)).double()
    assert torch.autograd.gradcheck(lambda d: depth_terms(d, target).total(), depths.requires_grad_())

    def overlap(d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return soft_overlap(ShapeLayerGrid(d, 0.5, False).values, voxels)

    assert torch.autograd.gradcheck(overlap, depths)


def test_the_truth_costs_nothing_and_weights_add_up():
    depths, voxels = random_case(2)
    voxels = voxels | voxels.flip(1)
    truth = to_depths(encode(voxels, 3))
    # Background may lie anywhere behind -1.
    pred = torch.where(truth > 0, truth, -1.0)
    assert Matryoshka()(ShapeLayerGrid(pred, 0.15, False), batch_of(voxels))["loss"] == 0
    shape = ShapeLayerGrid(depths, 0.15, False)
    single = [Matryoshka(*w)(shape, batch_of(voxels))["loss"] for w in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    both = Matryoshka(1.0, 2.0, 3.0)(shape, batch_of(voxels))
    torch.testing.assert_close(both["loss"], single[0] + 2 * single[1] + 3 * single[2])
    assert set(both) == {"loss", "depth", "iou", "cosine", "foreground", "background"}
    assert set(Matryoshka(0, 0, 1)(shape, batch_of(voxels))) == {"loss", "cosine"}


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_empty_and_full_grids_are_finite(value: float, weights: tuple[float, float, float]):
    voxels = torch.full((2, 4, 4, 4), value)
    for pred in (torch.zeros(2, 1, 6, 4, 4), to_depths(encode(voxels)), torch.full((2, 1, 6, 4, 4), -50.0)):
        pred = pred.clone().requires_grad_()
        loss = Matryoshka(*weights)(ShapeLayerGrid(pred, 0.15, False), batch_of(voxels))["loss"]
        loss.backward()
        assert loss.isfinite()
        assert pred.grad is not None
        assert pred.grad.isfinite().all()
    nothing = torch.zeros(1, 4, 4, 4)
    assert [v.item() for v in soft_overlap(nothing, nothing)] == [1, 1]
    assert [v.item() for v in soft_overlap(nothing, nothing + 1)] == [0, 0]
    assert [v.item() for v in soft_overlap(nothing + 1, nothing)] == [0, 0]


def test_mistakes_are_named():
    depths, voxels = random_case()
    grid = ShapeLayerGrid(depths, 0.15, False)
    with pytest.raises(ReconlabError, match=r"voxels are \(3, 8, 8, 8\).* maps 4 cells wide"):
        Matryoshka()(grid, batch_of(torch.zeros(3, 8, 8, 8)))
    with pytest.raises(ConversionError, match="VoxelGrid does not have"):
        Matryoshka()(VoxelGrid(voxels.float()), batch_of(voxels))
    with pytest.raises(ReconlabError, match="needs 'voxels'"):
        Matryoshka()(grid, Batch(ids=["a"], categories=["b"]))
    for weights in ((0, 0, 0), (-1, 1, 0)):
        with pytest.raises(ReconlabError, match="the weights are"):
            Matryoshka(*weights)
    with pytest.raises(ReconlabError, match="depth maps are"):
        depth_terms(depths, depths[:, :1])
    with pytest.raises(ReconlabError, match="the predicted grid is"):
        soft_overlap(voxels.float(), voxels[:1])
