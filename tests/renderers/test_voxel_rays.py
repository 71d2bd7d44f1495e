"""Voxels along camera rays and ray termination, against loops and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.cameras import Cameras, dpc_cameras, look_at
from reconlab.errors import ReconlabError
from reconlab.losses.silhouettes import reduce_silhouettes
from reconlab.renderers import ray_silhouettes, ray_termination, resample_voxels


def trilinear(values: np.ndarray, point: np.ndarray) -> float:
    """One value at an object-frame point, cells beyond the grid being 0."""
    size = len(values)
    at = (point + 0.5) * size - 0.5
    low = np.floor(at).astype(int)
    total = 0.0
    for corner in itertools.product((0, 1), repeat=3):
        index = low + corner
        if (index >= 0).all() and (index < size).all():
            weight = np.prod([f if c else 1 - f for c, f in zip(corner, at - low, strict=True)])
            total += weight * values[tuple(index)]
    return total


def test_against_loops() -> None:
    """Every sample of two oblique cameras: the point that projects to its pixel at its depth, read by hand."""
    values = torch.rand(2, 5, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cameras = dpc_cameras([[20.0, 250.0], [80.0, 5.0]], [[10.0, -30.0], [35.0, 60.0]])
    pixels, depths, extent = 4, 3, 0.7
    result = resample_voxels(values, cameras, pixels, depths, extent)
    assert result.shape == (2, 2, depths, pixels, pixels)
    for b, v, k, i, j in itertools.product(range(2), range(2), range(depths), range(pixels), range(pixels)):
        camera = cameras[b, v].to(torch.float64)
        depth = camera.t[2] + extent * ((k + 0.5) / depths - 0.5)
        xy = torch.tensor([(2 * j + 1) / pixels - 1, (2 * i + 1) / pixels - 1], dtype=torch.float64)
        in_camera = torch.cat([(xy - camera.centre) / camera.focal * depth, depth[None]])
        point = camera.R.T @ (in_camera - camera.t)
        expected = trilinear(values[b].numpy(), point.numpy())
        assert result[b, v, k, i, j].item() == pytest.approx(expected, abs=1e-6)


def test_nearest_first_and_axes() -> None:
    """A cell on the camera's side comes first in depth; +x, which is left of the front camera, lies left."""
    values = torch.zeros(3, 9, 9, 9)
    values[0, 4, 4, 1] = 1  # towards -z, where the front camera stands
    values[1, 7, 4, 4] = 1
    values[2, 4, 7, 4] = 1
    seen = resample_voxels(values, dpc_cameras([0.0], [0.0]).reshape(1, 1).expand(3, 1), 33)[:, 0]
    peaks = [np.unravel_index(int(s.argmax()), s.shape) for s in seen]
    assert (peaks[0][0] < 12, peaks[0][1:]) == (True, (16, 16))
    assert (peaks[1][1], peaks[1][2] < 12) == (16, True)
    assert (peaks[2][1] < 12, peaks[2][2]) == (True, 16)


def test_registration_with_a_sub_sampled_mask() -> None:
    """Pixel i of the sub-sampled grid looks where source pixel k i does."""
    values = torch.rand(1, 8, 8, 8)
    cameras = dpc_cameras([33.0], [12.0]).reshape(1, 1)
    reduced = reduce_silhouettes(torch.zeros(1, 32, 32), 8, "subsample", "test")
    small = resample_voxels(values, cameras, 8, 16, scale=reduced.scale, shift=reduced.shift)
    large = resample_voxels(values, cameras, 32, 16)
    torch.testing.assert_close(small, large[..., ::4, ::4], rtol=1e-4, atol=1e-5)


def test_gradients_by_finite_differences() -> None:
    values = torch.rand(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    cameras = dpc_cameras([15.0, 70.0], [10.0, 40.0]).reshape(1, 2)

    def value(x: torch.Tensor) -> torch.Tensor:
        return ray_silhouettes(resample_voxels(x, cameras, 4), dim=2)

    assert torch.autograd.gradcheck(value, values)


def test_nothing_outside_of_the_cube_or_behind_the_camera() -> None:
    full = torch.ones(1, 4, 4, 4)
    wide = look_at([0.0], [0.0], 2.0, 0.5).reshape(1, 1)  # sees far more than the cube
    seen = resample_voxels(full, wide, 16, 12, extent=2.0)
    assert (seen[..., 0, :] == 0).all()
    assert seen[:, :, :2].abs().max() == 0  # in front of the cube
    assert seen[0, 0, 6, 8, 8].item() == pytest.approx(1.0)
    within = look_at([0.0], [0.0], 0.2, 1.0).reshape(1, 1)
    inside = resample_voxels(full, within, 8, 10)
    depth = 0.2 + (torch.arange(10) + 0.5) / 10 - 0.5
    assert (inside[0, 0, depth <= 1e-3] == 0).all()
    torch.testing.assert_close(inside[0, 0, depth > 1e-3][0], torch.ones(8, 8))


def test_half_precision_and_autocast() -> None:
    values = torch.rand(1, 4, 4, 4).half()
    cameras = dpc_cameras([33.0], [12.0]).reshape(1, 1)
    expected = resample_voxels(values.float(), cameras, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(resample_voxels(values, cameras, 8), expected)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"values": torch.zeros(1, 4, 4, 5)}, r"values \(B, D, D, D\)"),
        ({"cameras": dpc_cameras([0.0], [0.0])}, r"cameras \(B, V\) for 1 grids"),
        ({"resolution": 0}, "positive resolution"),
        ({"depths": 0}, "positive resolution"),
        ({"extent": math.nan}, "positive resolution"),
        ({"scale": 4.0}, "scale and shift together"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], word: str) -> None:
    settings_ = {"values": torch.zeros(1, 4, 4, 4), "cameras": dpc_cameras([[0.0]], [[0.0]]), "resolution": 4}
    with pytest.raises(ReconlabError, match=word):
        resample_voxels(**(settings_ | change))  # type: ignore[arg-type]


def test_ray_termination_by_hand() -> None:
    """p_i = o_i Π (1 - o_k): 1/2, 1/2 · 1/4, 1/2 · 3/4 · 0.9, and what is left escapes."""
    p = ray_termination(torch.tensor([[0.5, 0.25, 0.9]], dtype=torch.float64), dim=1)
    assert p.tolist()[0] == pytest.approx([0.5, 0.125, 0.3375, 0.0375])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 2))
def test_events_are_probabilities_and_sum_to_one(occupancy: list[float], dim: int) -> None:
    shape = [1, 1, 1]
    shape[dim] = len(occupancy)
    o = torch.tensor(occupancy).reshape(shape).double()
    p = ray_termination(o, dim - 3)
    assert p.shape[dim] == len(occupancy) + 1
    assert (p >= 0).all()
    assert p.sum().item() == pytest.approx(1)
    ended = p.narrow(dim, 0, len(occupancy)).sum(dim)
    torch.testing.assert_close(ray_silhouettes(o, dim), ended)
    expected = 1 - np.prod(1 - np.clip(occupancy, 1e-5, 1 - 1e-5))
    assert ended.item() == pytest.approx(expected)


def test_ray_termination_gradients() -> None:
    o = torch.tensor([[0.0, 0.4, 0.7, 1.0, 0.2]], dtype=torch.float64)
    inner = o[:, [1, 2, 4]].clone().requires_grad_()
    assert torch.autograd.gradcheck(ray_termination, inner)
    assert torch.autograd.gradcheck(ray_silhouettes, inner)
    o.requires_grad_()
    for result in (ray_termination(o)[0, 1], ray_silhouettes(o)[0]):
        (g,) = torch.autograd.grad(result, o)
        assert g.isfinite().all()
        assert g[0, 0] == g[0, 3] == 0  # beyond the clip
    with pytest.raises(ReconlabError, match="at least one cell"):
        ray_termination(torch.zeros(3, 0))
    with pytest.raises(ReconlabError, match="axis 2"):
        ray_silhouettes(torch.zeros(3, 4), 2)


def test_cameras_may_differ_in_focal_and_centre() -> None:
    """A shifted principal point shifts the image by as much."""
    values = torch.rand(1, 6, 6, 6)
    plain = dpc_cameras([40.0], [20.0]).reshape(1, 1)
    moved = Cameras(plain.R, plain.t, plain.focal, plain.centre + torch.tensor([2 / 8, -2 / 8]))  # one pixel of 8
    one, other = resample_voxels(values, plain, 8), resample_voxels(values, moved, 8)
    torch.testing.assert_close(other[..., :-1, 1:], one[..., 1:, :-1], rtol=1e-4, atol=1e-5)
