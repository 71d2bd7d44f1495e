"""DRWR's figures: the measures by hand, the pictures by what they must show."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from reconlab.cameras import dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses.drwr import Reading
from reconlab.report import drwr_figures as figures
from reconlab.report.drwr_figures import Setting, draw_figure, fit, spread

QUICK = Setting(points=300, steps=80, resolution=32)


@pytest.fixture(scope="module")
def scene():
    camera = dpc_cameras(QUICK.azimuth, QUICK.elevation)
    return camera, figures.silhouette_of(*figures.read_shape(QUICK), camera)


def test_spread_by_hand():
    mask = torch.zeros(64, 64)
    mask[0:4, 0:4] = 1  # two by two cells of two pixels
    mask[63, 63] = 1  # fills no cell
    centre = (2 * torch.tensor([[0.0, 0], [1, 1], [3, 0], [63, 63], [30, 30], [64, 5]]) + 1) / 64 - 1
    result = spread(centre, mask)
    assert result.inside == pytest.approx(4 / 6)
    assert result.covered == 0.5
    counts = np.array([2, 1, 0, 0])
    assert result.variation == pytest.approx(counts.std() / counts.mean())


def test_spread_of_a_thin_shape_and_of_points_elsewhere():
    mask = torch.zeros(64, 64)
    mask[:, 31] = 1
    result = spread(torch.tensor([[5.0, 5.0]]), mask)
    assert result[:2] == (0, 0)
    assert np.isnan(result.variation)


def test_uniform_draw_is_inside_and_even(scene):
    _, mask = scene
    xy = figures.uniform_draw(mask, 4000)
    result = spread(xy, mask)
    assert (result.inside, result.covered) == (1, 1)
    mean = 4000 / (mask > 0.5).sum().item() * 16
    assert result.variation == pytest.approx(mean**-0.5, rel=0.2), "as a Poisson process has it"


def test_silhouette_is_the_shape_seen_by_rays(scene):
    camera, mask = scene
    vertices, faces = figures.read_shape(QUICK)
    pixel = torch.tensor([[16 * x + 8, 16 * y + 8] for y in range(8) for x in range(8)])
    xy = (2 * pixel + 1) / 128 - 1
    rays = torch.cat([xy / camera.focal, torch.ones(64, 1)], 1) @ camera.R
    # Ray against triangle (Möller and Trumbore 1997), all pairs.
    origin, a, b, c = camera.position.double(), *vertices.double()[faces].unbind(1)
    p = torch.linalg.cross(rays.double()[:, None], (c - a)[None])
    volume = ((b - a) * p).sum(-1)
    u = ((origin - a) * p).sum(-1) / volume
    q = torch.linalg.cross(origin - a, b - a)
    v = (rays.double()[:, None] * q).sum(-1) / volume
    hit = ((u >= 0) & (v >= 0) & (u + v <= 1)).any(1).numpy()
    sure = (mask[pixel[:, 1], pixel[:, 0]] - 0.5).abs() > 0.49
    assert sure.sum() > 50
    assert np.array_equal(hit[sure], (mask[pixel[:, 1], pixel[:, 0]] > 0.5)[sure].numpy())


def test_what_the_figures_claim(scene):
    camera, mask = scene
    start = figures.initial_cloud(QUICK)

    def end(**settings):
        return spread(camera.project(fit(start, mask, camera, QUICK, Reading(**settings)))[0], mask)

    before = spread(camera.project(start)[0], mask)
    pixel = end(field="binary", off_image="clip", pairwise=False)
    smooth, both = end(pairwise=False), end()
    assert pixel.inside < before.inside + 0.15, "Eq. 2 moves only what is at the border"
    assert smooth.inside > 0.9
    assert both.inside > 0.85
    assert both.covered > smooth.covered
    assert both.variation < smooth.variation


def test_panels_show_points_where_they_project():
    mask, smooth = torch.zeros(128, 128), torch.linspace(0, 1, 64).expand(64, 64)
    mask[:, 64:] = 1
    xy = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])
    size = 200
    for ground in ("silhouette", "field"):
        image = figures.panel("t", "n", ground, mask, smooth, xy, size).astype(int)
        red = (image[..., 0] - image[..., 1:].max(-1)) > 80
        rows, columns = np.nonzero(red)
        upper = rows < 24 + size // 2
        for x, y, chosen in ((0.5, -0.5, upper), (-0.5, 0.5, ~upper)):
            assert columns[chosen].mean() == pytest.approx(8 + size / 2 * (1 + x / figures.EXTENT), abs=1)
            assert rows[chosen].mean() == pytest.approx(24 + size / 2 * (1 + y / figures.EXTENT), abs=1)
        middle = 24 + size // 2
        assert tuple(image[middle, 8 + size * 3 // 4]) == figures.SLATE
        left = image[middle, 8 + size // 2 - 20]
        assert (left == 255).all() if ground == "silhouette" else left[0] < 220


def test_figures_are_reproducible_and_six_and_four_panels(scene):
    quick = replace(QUICK, points=30, steps=2)
    three, five = draw_figure("drwr-fig3", quick), draw_figure("drwr-fig5", quick)
    assert (three.width / 3, three.height / 2) == (five.width / 2, five.height / 2)
    assert three.tobytes() == draw_figure("drwr-fig3", quick).tobytes()
    assert three.tobytes() != draw_figure("drwr-fig3", replace(quick, seed=1)).tobytes()
    assert isinstance(three, Image.Image)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"points": 0}, "--points is 0"),
        ({"steps": -1}, "--steps is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"beta": float("nan")}, "--beta is nan"),
        ({"elevation": 90.0}, "--elevation"),
    ],
)
def test_settings_out_of_range(setting, named):
    with pytest.raises(ReconlabError, match=named):
        Setting(**setting)


def test_flat_mesh_has_no_silhouette(tmp_path):
    path = tmp_path / "flat.obj"
    path.write_text("v 0 0 -1\nv 0 0 1\nv 0 0 0\nf 1 2 3\n")
    with pytest.raises(ReconlabError, match="empty or full"):
        draw_figure("drwr-fig3", Setting(mesh=path))
    path.write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    with pytest.raises(ReconlabError, match=r"flat\.obj: the mesh has a bounding box of diagonal 0"):
        draw_figure("drwr-fig3", Setting(mesh=path))
