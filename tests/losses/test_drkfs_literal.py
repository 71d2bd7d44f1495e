"""DRKFS against its equations written out in plain torch: patches unfolded, nothing cached, folded or left out."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.features import load_detector, load_hardnet
from reconlab.losses.drkfs import DRKFS
from reconlab.losses.view_images import render_views
from reconlab.shapes import Mesh


def literal(image, target, radius):
    """One view (H, W) against the truth's."""
    detector, hardnet = load_detector().requires_grad_(False), load_hardnet().requires_grad_(False)

    def score(x):
        padded = F.pad(x[None, None], (10, 10, 10, 10), mode="reflect")
        out = (detector(padded, padded=False))[0, 0]
        assert out.shape == x.shape
        return out

    def features(poi):
        grid = (poi.shape[0] - 32) // 16 + 1
        out = []
        for row, column in itertools.product(range(grid), repeat=2):
            patch = poi[16 * row : 16 * row + 32, 16 * column : 16 * column + 32]
            normal = (patch - patch.detach().mean()) / (patch.detach().std() + hardnet.eps)
            d = hardnet.features(normal[None, None]).flatten()
            out.append((d / d.norm(), patch.mean().clamp(min=0).detach()))
        return out, grid

    scores = score(image), score(target)
    low, high = scores[1].min(), scores[1].max()
    (a, grid), (b, _) = (features((s - low) / (high - low)) for s in scores)
    total = 0.0
    for query, key in ((a, b), (b, a)):
        for i, (d, w) in enumerate(query):
            near = [
                (d - key[j][0]).square().mean()
                for j in range(grid * grid)
                if abs(j // grid - i // grid) <= radius and abs(j % grid - i % grid) <= radius
            ]
            total = total + w * torch.stack(near).min()
    return total


def shapes():
    corners = torch.tensor(list(itertools.product((-0.5, 0.5), repeat=3)))
    faces = torch.tensor([
        (0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1),
        (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3),
    ])  # fmt: skip
    truth = Mesh(corners * torch.tensor([0.5, 0.2, 0.6]), faces)
    start = corners * torch.tensor([0.4, 0.3, 0.5]) + torch.tensor([0.03, 0.0, 0.02])
    return truth, start, faces


@pytest.mark.parametrize(("flat_std", "rel", "least"), [(0.0, 1e-4, 0.99999), (5e-3, 0.02, 0.99)])
def test_equals_the_equations_written_out(flat_std, rel, least):
    """Value and gradient at the vertices; flat patches left out (the default) cost under 2 % and a cosine of 0.99.

    fp16 targets and folded BatchNorm are within the first tolerance, too.
    """
    truth, start, faces = shapes()
    batch = Batch(ids=["0"], categories=["box"], mesh=truth)
    loss = DRKFS(image_size=96, flat_std=flat_std, half_fov=11.5)
    values, gradients = [], []
    for quick in (True, False):
        vertices = start.clone().requires_grad_()
        mesh = Mesh(vertices, faces)
        if quick:
            value = sum(loss.per_view(mesh, batch, views=[3, 14])).mean()
        else:
            pairs = [render_views(m, loss.cameras[[3, 14]], loss.render)[0] for m in (mesh, truth)]
            value = sum(literal(i, t, radius=1) for i, t in zip(*pairs, strict=True)) / 2
        value.backward()
        values.append(float(value.detach()))
        gradients.append(vertices.grad.flatten())
    assert values[0] == pytest.approx(values[1], rel=rel)
    assert float(F.cosine_similarity(*gradients, dim=0)) > least


def test_dense_descriptor_on_both_sides():
    """The truth costs nothing, a wrong shape costs something near the exact value and pulls near its way."""
    truth, start, faces = shapes()
    batch = Batch(ids=["0"], categories=["box"], mesh=truth)
    found = {}
    for kind in ("exact", "dense"):
        loss = DRKFS(image_size=96, half_fov=11.5, descriptor=kind)
        assert float(loss(truth, batch)["loss"]) < 1e-5
        vertices = start.clone().requires_grad_()
        value = sum(loss.per_view(Mesh(vertices, faces), batch, views=[3, 9, 14, 20])).mean()
        value.backward()
        found[kind] = float(value.detach()), vertices.grad.flatten()
    assert found["dense"][0] == pytest.approx(found["exact"][0], rel=0.35)
    assert float(F.cosine_similarity(found["dense"][1], found["exact"][1], dim=0)) > 0.5


def test_dense_descriptor_on_blank_views_is_finite():
    truth, start, faces = shapes()
    batch = Batch(ids=["0"], categories=["box"], mesh=truth)
    vertices = (start + 50).requires_grad_()
    out = DRKFS(image_size=64, descriptor="dense")(Mesh(vertices, faces), batch)["loss"]
    out.backward()
    assert torch.isfinite(out)
    assert float(out.detach()) > 0
    assert torch.isfinite(vertices.grad).all()


def test_unknown_descriptor_is_one_clear_error():
    with pytest.raises(ReconlabError, match="descriptor must be one of exact, dense, not 'quick'"):
        DRKFS(descriptor="quick")
