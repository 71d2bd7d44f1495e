"""EPCG's network: sizes, fusion of maps to points, empty masks, the second stage's start, learning one shape."""

import pytest
import torch
import trimesh

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import EPCG
from reconlab.networks import EPCGNet
from reconlab.networks.epcg import fuse
from reconlab.renderers import render_orthographic_depth
from reconlab.renderers.pseudo_depth import fixed_views
from reconlab.shapes import Mesh


def true_maps(size: int) -> tuple[trimesh.Trimesh, torch.Tensor, torch.Tensor]:
    box = trimesh.creation.box((0.6, 0.3, 0.4))
    vertices, faces = torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces)
    depth = render_orthographic_depth(vertices, faces, fixed_views(), size)
    row, column = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    maps = torch.stack([column.expand_as(depth), row.expand_as(depth), depth.nan_to_num(posinf=1.0)], 1)
    return box, maps[None], torch.where(depth.isfinite(), 1.0, -1.0)[None]


def test_parameters():
    encoder = 2688 + 110720 + 221376 + 442624 + 8390656 + 2098176 + 524800
    layers = 525312 + 2099200 + 8392704
    images = 442560 + 221312 + 110688 + 55360 + 27696
    assert sum(p.numel() for p in EPCGNet().parameters()) == encoder + layers + images + 48 * 32 + 32 * 128**2
    small = encoder + layers + 442560 + 221312 + 110688 + 96 * 32 + 32 * 32**2
    assert sum(p.numel() for p in EPCGNet(size=32).parameters()) == small


def test_maps_begin_at_their_own_pixels():
    torch.manual_seed(0)
    network = EPCGNet(size=16, points=30, norm="group")
    with torch.no_grad():
        network.decoder[-1].weight.zero_()
    shape = network(torch.rand(2, 3, 128, 128))
    assert shape.view_maps.shape == (2, 8, 3, 16, 16)
    assert shape.view_maps[1, 3, :, 5, 7].tolist() == [7, 5, 1]
    assert (shape.view_logits == 0).all()


def test_true_maps_fuse_to_the_surface():
    box, maps, logits = true_maps(64)
    shape = fuse(maps, logits, 3000)
    points = shape.points()[0].numpy()
    _, distance, _ = trimesh.proximity.closest_point_naive(box, points[::10])
    assert distance.max() < 1e-4
    sample = trimesh.sample.sample_surface(box, 300, seed=0)[0]
    nearest = torch.cdist(torch.tensor(sample).float(), shape.points()[0]).min(1).values
    assert nearest.max() < 0.04, "all sides are seen"


def test_which_points_are_taken():
    """Of five pixels, ten points take each twice, two the second and the fourth."""
    maps = torch.rand(1, 8, 3, 2, 2)
    logits = torch.full((1, 8, 2, 2), -1.0)
    logits.view(-1)[[0, 5, 9, 10, 31]] = 1.0
    five = fuse(maps, logits, 5).positions[0]
    torch.testing.assert_close(fuse(maps, logits, 10).positions[0], five.repeat_interleave(2, 0))
    torch.testing.assert_close(fuse(maps, logits, 2).positions[0], five[[1, 3]])


def test_an_empty_mask_is_a_failed_prediction():
    _, maps, logits = true_maps(16)
    maps.requires_grad_()
    shape = fuse(torch.cat([maps, maps]), torch.cat([logits, -logits.abs()]), 50)
    assert shape.valid().tolist() == [True, False]
    assert shape.positions[1].isnan().all()
    shape.positions[0].sum().backward()
    assert maps.grad.isfinite().all()


def test_slices_keep_the_maps():
    _, maps, logits = true_maps(16)
    shape = fuse(torch.cat([maps, 2 * maps]), torch.cat([logits, logits]), 20)
    part = shape[1:].to("cpu")
    torch.testing.assert_close(part.view_maps, 2 * maps)
    assert part.view_logits.shape == logits.shape
    assert len(part) == 1


def checkpoint_of(network: torch.nn.Module, path) -> str:
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {}}, path)
    return str(path)


def test_the_second_stage_begins_where_the_first_ended(tmp_path):
    torch.manual_seed(0)
    first = EPCGNet(size=8, points=10)
    first(torch.rand(3, 3, 64, 64))  # moves the running statistics
    path = checkpoint_of(first, tmp_path / "first.ckpt")
    second = EPCGNet(size=8, points=99, decoder_from=path)
    for key, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[key], value)
    with pytest.raises(ReconlabError, match="does not hold this EPCGNet"):
        EPCGNet(size=16, decoder_from=path)
    with pytest.raises(ReconlabError, match="does not exist"):
        EPCGNet(size=8, decoder_from=str(tmp_path / "none.ckpt"))


def test_mistakes_are_named():
    with pytest.raises(ReconlabError, match="size is 100"):
        EPCGNet(size=100)
    with pytest.raises(ReconlabError, match="points is 0"):
        EPCGNet(size=8, points=0)
    with pytest.raises(ReconlabError, match="norm is 'layer'"):
        EPCGNet(size=8, norm="layer")
    with pytest.raises(ReconlabError, match=r"images \(B, 3, S, S\)"):
        EPCGNet(size=8)(torch.rand(3, 64, 64))


def test_overfits_one_shape_and_the_second_stage_keeps_it():
    """First stage: masks agree to .8, points lie near the box. Second: the loss in novel views falls."""
    torch.manual_seed(0)
    box, _, _ = true_maps(8)
    mesh = Mesh(torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces))
    batch = Batch(["a"], ["x"], images=torch.rand(1, 3, 64, 64), mesh=mesh)
    network = EPCGNet(size=32, points=1000, norm="group")

    def train(loss: EPCG, steps: int, lr: float) -> list[dict[str, torch.Tensor]]:
        optimizer = torch.optim.Adam(network.parameters(), lr)
        parts = []
        for step in range(steps):
            loss.advance(step, steps)
            optimizer.zero_grad()
            parts.append(loss(network.reconstruct(batch), batch))
            parts[-1]["loss"].backward()
            optimizer.step()
        return parts

    first = train(EPCG(), 40, 1e-3)
    assert first[-1]["iou"].item() > 0.8
    assert first[-1]["depth"].item() < 0.02
    points = network(batch.images).points()[0].detach().numpy()
    _, distance, _ = trimesh.proximity.closest_point_naive(box, points[::10])
    assert distance.mean() < 0.045  # 0.25 untrained
    novel = train(EPCG("novel", views_per_step=2, pool=2), 6, 1e-5)
    assert novel[-1]["loss"] < novel[0]["loss"]


def test_one_image_cannot_be_normalised_by_batch() -> None:
    network = EPCGNet(size=32, norm="batch")
    with pytest.raises(ReconlabError, match="norm: group"):
        network(torch.rand(1, 3, 64, 64))
    with pytest.raises(ReconlabError, match="square images"):
        network(torch.rand(2, 3, 64, 32))
