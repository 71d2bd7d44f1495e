import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab import camera_converters as convert
from reconlab.cameras import Cameras, dpc_cameras, hemisphere_views, look_at, orbit_views, softras_cameras
from reconlab.errors import ReconlabError

ANGLES = st.tuples(st.floats(-179, 179), st.floats(-85, 85), st.floats(1, 5), st.floats(0.5, 5))


def some(angles) -> Cameras:
    return look_at(*angles)


def close(a: Cameras, b: Cameras) -> None:
    for key in ("R", "t", "focal", "centre"):
        torch.testing.assert_close(getattr(a, key), getattr(b, key), atol=2e-5, rtol=1e-4)


def test_front_view_by_hand():
    # The camera at (0, 0, -2) sees the object's front: its right is the object's -x, its down is -y.
    xy, depth = dpc_cameras(0.0, 0.0).project(torch.tensor([[0.1, 0.2, -0.5], [0.0, 0.0, 0.5]]))
    torch.testing.assert_close(depth, torch.tensor([1.5, 2.5]))
    torch.testing.assert_close(xy[0], torch.tensor([-3.75 * 0.1 / 1.5, -3.75 * 0.2 / 1.5]))


def test_azimuth_turns_towards_x_and_elevation_up():
    torch.testing.assert_close(
        look_at(90.0, 0.0, 2.0, 1.0).position, torch.tensor([2.0, 0.0, 0.0]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        look_at(0.0, 90.0, 2.0, 1.0).position, torch.tensor([0.0, 2.0, 0.0]), atol=1e-6, rtol=0
    )


def test_softras_frame_edge():
    # A point at the edge of the field of view, half-angle 15 degrees, lands on the image's border.
    edge = 2.732 * math.tan(math.radians(15))
    xy, _ = softras_cameras(0.0, 0.0).project(torch.tensor([[-edge, 0.0, 0.0]]))
    torch.testing.assert_close(xy, torch.tensor([[1.0, 0.0]]), atol=1e-5, rtol=0)


def test_view_sets():
    views = hemisphere_views()
    assert views.shape == (25,)
    eyes = views.position
    torch.testing.assert_close(eyes.norm(dim=-1), torch.full((25,), 2.732), atol=1e-5, rtol=0)
    assert bool((eyes[:, 1] > 0.4).all()), "all on the upper hemisphere"
    gaps = torch.cdist(eyes, eyes) + 10 * torch.eye(25)
    assert float(gaps.min()) > 0.8, "no two views coincide"
    assert orbit_views(24).shape == (24,)
    with pytest.raises(ReconlabError, match="count is 0"):
        orbit_views(0)


@given(ANGLES)
@settings(max_examples=30, deadline=None)
def test_rotations_are_proper(angles):
    R = some(angles).R.double()
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
    assert float(torch.det(R)) > 0.999


@given(ANGLES)
@settings(max_examples=30, deadline=None)
def test_converters_round_trip(angles):
    camera = some(angles)
    close(convert.from_pytorch3d(*convert.to_pytorch3d(camera)), camera)
    close(convert.from_opengl(convert.to_opengl(camera), camera.focal, camera.centre), camera)
    close(convert.from_blender(convert.to_blender(camera), camera.focal, camera.centre), camera)
    dpc = dpc_cameras(angles[0], angles[1])
    close(convert.from_dpc(convert.to_dpc(dpc)), dpc)
    choy = look_at(angles[0], angles[1], angles[2], convert.CHOY_FOCAL)
    close(convert.from_choy(*convert.to_choy(choy).unbind(-1)), choy)


@given(ANGLES)
@settings(max_examples=20, deadline=None)
def test_pytorch3d_projection_agrees(angles):
    # The formula of PyTorch3D's documentation, written out: NDC has x left and y up.
    camera = some(angles)
    points = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    R, T, focal, principal = convert.to_pytorch3d(camera)
    view = points @ R + T
    ndc = focal * view[:, :2] / view[:, 2:] + principal
    xy, depth = camera.project(points)
    torch.testing.assert_close(-ndc, xy, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(view[:, 2], depth, atol=1e-5, rtol=1e-5)


def test_opengl_looks_along_minus_z():
    camera = look_at(40.0, 20.0, 2.0, 3.0)
    matrix = convert.to_opengl(camera)
    torch.testing.assert_close(-matrix[:3, 2] * 2.0, -camera.position, atol=1e-5, rtol=0)
    assert float(matrix[1, 1]) > 0, "the camera's up points up"


def test_blender_is_z_up():
    position = convert.to_blender(look_at(0.0, 30.0, 2.0, 3.0))[:3, 3]
    # The object's front, -z, is +y in Blender after import; up is z.
    torch.testing.assert_close(position, torch.tensor([0.0, 2 * math.cos(math.pi / 6), 1.0]), atol=1e-5, rtol=0)


def test_converter_errors():
    with pytest.raises(ReconlabError, match="not a rotation"):
        convert.from_opengl(2 * torch.eye(4), torch.ones(2))
    rolled = look_at(10.0, 20.0, 2.0, 3.75)
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(ReconlabError, match="roll"):
        convert.to_dpc(Cameras(quarter @ rolled.R, quarter @ rolled.t, rolled.focal, rolled.centre))
    with pytest.raises(ReconlabError, match=r"expected \(..., 3, 3\)"):
        Cameras(torch.eye(3), torch.zeros(2, 3), torch.ones(2), torch.zeros(2))


def test_points_behind_the_camera_stay_finite():
    xy, depth = dpc_cameras(0.0, 0.0).project(torch.tensor([[0.3, 0.1, -5.0]]))
    assert bool(xy.isfinite().all())
    assert float(depth[0]) < 0


def test_batching():
    views = orbit_views(6)
    pair = Cameras.stack([views, views])
    assert pair.shape == (2, 6)
    assert pair[0, 2:4].shape == (2,)
    close(Cameras.cat([views[:2], views[2:]]), views)
    close(views.reshape(2, 3).reshape(6), views)
    assert views.expand(4, 6).shape == (4, 6)
