"""Soft IoU of silhouettes against set arithmetic, and as a training loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import SilhouetteIoU
from reconlab.losses.silhouette_iou import silhouette_iou
from reconlab.shapes import Mesh


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=16, max_size=16))
@settings(max_examples=50, deadline=None)
def test_on_masks_it_is_set_arithmetic(pixels):
    a = {i for i, (x, _) in enumerate(pixels) if x}
    b = {i for i, (_, y) in enumerate(pixels) if y}
    masks = torch.tensor(pixels, dtype=torch.float64).T.reshape(2, 1, 1, 4, 4)
    expected = 1 - len(a & b) / len(a | b) if a | b else 0.0
    assert silhouette_iou(masks[0], masks[1]).item() == pytest.approx(expected, abs=1e-12)


def test_gradient_is_the_derivative():
    g = torch.Generator().manual_seed(0)
    pred = torch.rand(2, 3, 5, 4, generator=g, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 3, 5, 4, generator=g, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: silhouette_iou(x, target), pred)


def test_empty_views_have_gradient_zero():
    pred = torch.zeros(1, 1, 4, 4, requires_grad=True)
    silhouette_iou(pred, torch.zeros(1, 1, 4, 4)).sum().backward()
    assert pred.grad is not None
    assert not pred.grad.any()


def test_unequal_views_are_refused():
    with pytest.raises(ReconlabError, match="of one shape"):
        silhouette_iou(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))


def test_a_shrunken_shape_grows_back():
    corners = torch.tensor([[x, y, z] for x in (-0.2, 0.2) for y in (-0.2, 0.2) for z in (-0.2, 0.2)])
    faces = torch.tensor(
        [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
         [1, 5, 7], [1, 7, 3]]
    )  # fmt: skip
    batch = Batch(ids=["cube"], categories=["box"], mesh=Mesh(corners, faces))
    loss = SilhouetteIoU(views_per_step=4, image_size=32, sigma=1e-3)
    scale = torch.tensor(0.6, requires_grad=True)
    optimizer = torch.optim.Adam([scale], lr=0.02)
    values = []
    for step in range(60):
        loss.advance(step, 60)
        optimizer.zero_grad()
        value = loss(Mesh(corners * scale, faces), batch)["loss"]
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert scale.item() == pytest.approx(1.0, abs=0.05)
    assert values[-1] < 0.3 * values[0], "the soft outline of the truth costs 0.15 against itself"
