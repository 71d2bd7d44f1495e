"""What is shown: the input's view is really that, the other one really turned."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from reconlab.cameras import softras_cameras
from reconlab.datasets import format as files
from reconlab.errors import ReconlabError
from reconlab.shapes import Mesh, PointCloud
from reconlab.study import pictures


@pytest.fixture(scope="module")
def folder(data):
    return next(p.parent for p in sorted(data.glob(f"chair/*/{files.MESH}")))


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"), np.float32)


@pytest.mark.parametrize("view", [0, 3])
def test_the_true_shape_lies_over_the_input_picture(folder, view):
    seen = opened(pictures.input_picture(folder, view, 64)) < 240
    cameras = pictures.cameras_of(folder, view, [0.0, 50.0])
    aligned, turned = (opened(p) < 240 for p in pictures.shape_pictures(pictures.true_shape(folder), cameras, 64))
    assert (seen & aligned).sum() / (seen | aligned).sum() > 0.93
    assert (seen & turned).sum() / (seen | turned).sum() < 0.85


def test_turned_cameras_stand_where_they_should(folder):
    eyes = pictures.cameras_of(folder, 1, [0.0, 50.0, -50.0]).position.double().numpy()
    azimuth = np.degrees(np.arctan2(eyes[:, 0], -eyes[:, 2]))
    assert np.abs((azimuth[1:] - azimuth[0] + 180) % 360 - 180) == pytest.approx([50, 50], abs=1e-3)
    assert eyes[:, 1] == pytest.approx([eyes[0, 1]] * 3, abs=1e-5)  # the same height
    assert np.linalg.norm(eyes, axis=1) == pytest.approx([2.0] * 3, abs=1e-4)  # and distance


def test_unknown_view_is_said(folder):
    with pytest.raises(ReconlabError, match="has 4 cameras, but the network was given picture 9"):
        pictures.cameras_of(folder, 9, [0.0])
    with pytest.raises(ReconlabError, match=r"009\.png is missing"):
        pictures.input_picture(folder, 9, 64)


def test_points_are_drawn_where_they_are(folder):
    cloud = PointCloud(pictures.true_shape(folder).points(4000, torch.Generator().manual_seed(0)))
    cameras = pictures.cameras_of(folder, 0, [0.0])
    seen = opened(pictures.input_picture(folder, 0, 64)) < 240
    drawn = opened(pictures.shape_pictures(cloud, cameras, 64)[0]) < 240
    assert (seen & drawn).sum() / (seen | drawn).sum() > 0.6  # dots of a pixel: wider than the shape


def test_crumpled_shapes_are_not_recognised(folder):
    shape, cameras = pictures.true_shape(folder), pictures.cameras_of(folder, 0, [0.0])
    seen = opened(pictures.shape_pictures(shape, cameras, 64)[0]) < 240
    ruined = opened(pictures.shape_pictures(pictures.crumpled(shape, np.random.default_rng(0)), cameras, 64)[0]) < 240
    assert (seen & ruined).sum() / (seen | ruined).sum() < 0.5
    assert np.concatenate([ruined[0], ruined[-1], ruined[:, 0], ruined[:, -1]]).mean() < 0.1  # and stay in view


def test_out_of_view_is_said(folder):
    far = Mesh(torch.tensor([[50.0, 0, 0], [51, 0, 0], [50, 1, 0]]), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ReconlabError, match="nothing of the shape is in view"):
        pictures.shape_pictures(far, pictures.cameras_of(folder, 0, [0.0]), 64)


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 180.0, 270.0])
def test_the_light_comes_from_over_the_viewers_left_shoulder(azimuth):
    camera = softras_cameras(azimuth, 20.0).reshape(1)
    towards = torch.tensor(pictures.shoulder_light(camera).direction)
    eye = camera.position[0]
    assert float(towards @ eye) > 0, "it shades what the camera sees"
    ahead = camera.transform(torch.stack([torch.zeros(3), towards]))
    ahead = ahead.reshape(2, 3)[1] - ahead.reshape(2, 3)[0]
    assert float(ahead[0]) < 0, "from the left"
    assert float(ahead[1]) < 0, "and from above"
