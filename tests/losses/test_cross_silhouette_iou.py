"""The four cross-rendered terms against SilhouetteIoU's own, the schedule of sigma, and bad input."""

from dataclasses import replace

import pytest
import torch
import trimesh

from reconlab.batch import Batch, Views
from reconlab.cameras import softras_cameras
from reconlab.errors import ReconlabError
from reconlab.losses import CrossSilhouetteIoU, SilhouetteIoU
from reconlab.renderers import soft_rasterize
from reconlab.shapes import Mesh, TemplateMesh


def ball(*radii: float) -> TemplateMesh:
    mesh = trimesh.creation.icosphere(subdivisions=2)
    unit = torch.tensor(mesh.vertices).float()
    return TemplateMesh(torch.stack([unit * r for r in radii]), torch.tensor(mesh.faces))


def scene(views: int = 3) -> Batch:
    cameras = softras_cameras(torch.arange(2 * views).view(2, views) * 50.0)
    truth = ball(0.3, 0.2)
    silhouettes = soft_rasterize(truth, cameras, 64, shading=False).silhouette
    return Batch(["a", "b"], ["x"] * 2, views=Views(cameras, silhouettes))


def paired(first: TemplateMesh, second: TemplateMesh) -> TemplateMesh:
    first.second = second
    return first


def test_it_is_the_mean_of_the_four_terms() -> None:
    batch = scene()
    a, b = ball(0.25, 0.3), ball(0.15, 0.2)
    terms = []
    for mesh in (a, b):
        for view in (0, 1):
            one = Views(batch.views.cameras[:, view : view + 1], batch.views.silhouettes[:, view : view + 1])
            term = SilhouetteIoU(target="views", views_per_step=None, sigma=1e-4)(mesh, replace(batch, views=one))
            terms.append(term["loss"])
    got = CrossSilhouetteIoU(sigma=1e-4)(paired(a, b), batch)
    torch.testing.assert_close(got["loss"], sum(terms) / 4)
    torch.testing.assert_close(got["first"], sum(terms[:2]) / 2)
    torch.testing.assert_close(got["second"], sum(terms[2:]) / 2)
    assert min(terms) > 0.1


def test_only_the_first_two_views_count_and_both_meshes_learn() -> None:
    batch = scene()
    changed = batch.views.silhouettes.clone()
    changed[:, 2] = 1 - changed[:, 2]
    other = replace(batch, views=Views(batch.views.cameras, changed))
    a, b = ball(0.25, 0.25), ball(0.15, 0.2)
    a.vertices.requires_grad_()
    b.vertices.requires_grad_()
    loss = CrossSilhouetteIoU()
    value = loss(paired(a, b), batch)["loss"]
    torch.testing.assert_close(value, loss(a, other)["loss"])
    value.backward()
    assert a.vertices.grad.norm() > 0
    assert b.vertices.grad.norm() > 0


def test_a_mesh_without_a_second_is_judged_by_both_views() -> None:
    batch = scene()
    mesh = Mesh.from_list([ball(0.25).item(0), ball(0.2).item(0)])
    two = replace(batch, views=Views(batch.views.cameras[:, :2], batch.views.silhouettes[:, :2]))
    expected = SilhouetteIoU(target="views", views_per_step=None)(mesh, two)["loss"]
    assert CrossSilhouetteIoU()(mesh, batch).keys() == {"loss"}
    torch.testing.assert_close(CrossSilhouetteIoU()(mesh, batch)["loss"], expected)
    one = replace(batch, views=Views(batch.views.cameras[:, :1], batch.views.silhouettes[:, :1]))
    assert CrossSilhouetteIoU()(mesh, one)["loss"].isfinite()


def test_sigma_falls_where_the_learning_rate_does() -> None:
    loss = CrossSilhouetteIoU(sigma=1e-4, sigma_milestones=[0.6, 0.8], sigma_decay=0.3)
    seen = []
    for step in (0, 59, 60, 79, 80, 99):
        loss.advance(step, 100)
        seen.append(loss.render.sigma)
    assert seen == pytest.approx([1e-4, 1e-4, 3e-5, 3e-5, 9e-6, 9e-6])
    loss.advance(10, 0)
    assert loss.render.sigma == 1e-4


def test_mistakes_are_named() -> None:
    for wrong in ({"sigma": 0.0}, {"sigma_decay": 0.0}, {"sigma_milestones": [2.0]}):
        with pytest.raises(ReconlabError, match="sigma_milestones in"):
            CrossSilhouetteIoU(**wrong)
    with pytest.raises(ReconlabError, match="image_size must be at least 1"):
        CrossSilhouetteIoU(image_size=0)
    batch = scene(views=1)
    with pytest.raises(ReconlabError, match=r"set data\.views to 2"):
        CrossSilhouetteIoU()(paired(ball(0.2, 0.2), ball(0.2, 0.2)), batch)
    with pytest.raises(ReconlabError, match="declare 'views'"):
        CrossSilhouetteIoU()(ball(0.2, 0.2), replace(batch, views=None))
    with pytest.raises(ReconlabError, match="1 reconstructions for 2"):
        CrossSilhouetteIoU()(ball(0.2), batch)
