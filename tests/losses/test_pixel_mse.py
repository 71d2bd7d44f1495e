import pytest
import torch

from reconlab.batch import Batch, Views
from reconlab.cameras import orbit_views
from reconlab.errors import ReconlabError
from reconlab.losses.pixel_mse import PixelMSE, pixel_mse
from reconlab.renderers import soft_rasterize
from reconlab.shapes import Mesh

FACES = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
CORNERS = torch.tensor([[0.3, 0.3, 0.3], [0.3, -0.3, -0.3], [-0.3, 0.3, -0.3], [-0.3, -0.3, 0.3]])


def make_batch(size=64):
    mesh = Mesh(torch.stack([CORNERS, 0.7 * CORNERS]), FACES)
    cameras = orbit_views(5).reshape(1, 5).expand(2, 5)
    silhouettes = soft_rasterize(mesh, cameras, size).silhouette
    return Batch(ids=["a", "b"], categories=["t", "t"], mesh=mesh, views=Views(cameras, silhouettes))


def test_by_hand():
    pred, target = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    pred[1, 0, 0, 0], target[1, 0, 1, 1] = 1.0, 0.5
    assert pixel_mse(pred, target).flatten().tolist() == pytest.approx([0.0, (1 + 0.25) / 4])


@pytest.mark.parametrize("images", ["silhouette", "shaded"])
def test_truth_costs_nothing_and_gradient_points_to_it(images):
    batch = make_batch()
    loss = PixelMSE(images=images, views_per_step=3)
    assert float(loss(batch.mesh, batch)["loss"]) < 1e-6
    scale = torch.tensor(0.9, requires_grad=True)
    mesh = Mesh(torch.stack([CORNERS, 0.7 * CORNERS]) * scale, FACES)
    value = loss(mesh, batch)["loss"]
    value.backward()
    assert float(value.detach()) > 1e-4
    assert float(scale.grad) < 0  # growing back lowers it


def test_gradient_equals_finite_differences():
    batch = make_batch()
    loss = PixelMSE(sigma=1e-3, views_per_step=2)

    def value(scale):
        return loss(Mesh(torch.stack([CORNERS, 0.7 * CORNERS]) * scale, FACES), batch)["loss"]

    scale = torch.tensor(0.85, requires_grad=True)
    value(scale).backward()
    with torch.no_grad():
        difference = float(value(torch.tensor(0.853)) - value(torch.tensor(0.847))) / 0.006
    assert float(scale.grad) == pytest.approx(difference, rel=0.05)


def test_dataset_views_are_compared_at_the_losses_size():
    batch = make_batch(size=128)
    loss = PixelMSE(target="views", image_size=64, views_per_step=None)
    assert loss.needs == {"views"}
    assert float(loss(batch.mesh, batch)["loss"]) < 2e-3
    other = Mesh(torch.stack([0.7 * CORNERS, CORNERS]), FACES)
    assert float(loss(other, batch)["loss"]) > 2e-2
    assert loss.per_view(other, batch).shape == (2, 5)


def test_cache_and_chunks_change_nothing():
    batch = make_batch()
    values = []
    for settings in ({}, {"cache_bytes": 0}, {"views_per_chunk": 1}):
        loss = PixelMSE(views_per_step=4, **settings)
        vertices = (0.9 * torch.stack([CORNERS, 0.7 * CORNERS])).requires_grad_()
        out = loss(Mesh(vertices, FACES), batch)["loss"]
        again = loss(Mesh(vertices, FACES), batch)["loss"]
        assert torch.equal(out, again)
        out.backward()
        values.append((out.detach(), vertices.grad))
    for value, gradient in values[1:]:
        torch.testing.assert_close(value, values[0][0])
        torch.testing.assert_close(gradient, values[0][1], rtol=1e-4, atol=1e-7)


def test_empty_reconstruction_is_finite_with_a_gradient():
    batch = make_batch()
    vertices = torch.zeros(2, 0, 3, requires_grad=True)
    out = PixelMSE()(Mesh(vertices, torch.zeros(0, 3).long()), batch)["loss"]
    out.backward()
    assert torch.isfinite(out)


def test_user_errors():
    with pytest.raises(ReconlabError, match="silhouette"):
        PixelMSE(images="shaded", target="views")
    with pytest.raises(ReconlabError, match="must be one of"):
        PixelMSE(images="depth")
    with pytest.raises(ReconlabError, match="image_size"):
        PixelMSE(image_size=0)
    with pytest.raises(ReconlabError, match="needs 'mesh'"):
        PixelMSE()(make_batch().mesh, Batch(ids=["a", "b"], categories=["t", "t"]))
