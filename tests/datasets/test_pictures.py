"""Pictures on white, of any size: the numba pass against the same in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reconlab.datasets.pictures import paint


def resize(rgba: np.ndarray, size: tuple[int, int]) -> Tensor:
    """``(H, W, 4)`` uint8, straight alpha -> ``(4, S, T)`` float in [0, 1], colour multiplied by alpha."""
    image = torch.from_numpy(rgba.astype(np.float32) / 255.0).permute(2, 0, 1)
    image = torch.cat([image[:3] * image[3:], image[3:]])
    if image.shape[1:] != size:
        image = torch.nn.functional.interpolate(
            image[None], size=size, mode="bilinear", align_corners=False, antialias=True
        )[0].clamp(0, 1)
    return image


def on_white(image: Tensor) -> Tensor:
    return (image[:3] + 1.0 - image[3:]).clamp(0, 1)


def painted(rgba: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rgb, alpha = np.full((3, *size), np.nan, np.float32), np.full(size, np.nan, np.float32)
    paint(rgba, rgb, alpha)
    return rgb, alpha


def noise(height: int, width: int) -> np.ndarray:
    rgba = np.random.default_rng(height + width).integers(0, 256, (height, width, 4), np.uint8)
    rgba[: height // 3, :, 3] = 0
    rgba[:, : width // 3, 3] = 255
    return rgba


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (128, 128), (137, 137)])
def test_own_size_is_exact(height: int, width: int) -> None:
    rgba = noise(height, width)
    rgb, alpha = painted(rgba, (height, width))
    expected = resize(rgba, (height, width))
    assert torch.equal(torch.from_numpy(alpha), expected[3])
    assert torch.equal(torch.from_numpy(rgb), on_white(expected))


@pytest.mark.parametrize("height", [1, 2, 7, 48, 137])
@pytest.mark.parametrize("width", [3, 64, 137])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (24, 24), (64, 47), (128, 128), (200, 224)])
def test_other_sizes_are_pytorchs(height: int, width: int, size: tuple[int, int]) -> None:
    rgba = noise(height, width)
    rgb, alpha = painted(rgba, size)
    expected = resize(rgba, size)
    # PyTorch computes where a pixel falls in single precision: 1e-5 where it enlarges 137 pixels.
    torch.testing.assert_close(torch.from_numpy(alpha), expected[3], rtol=0, atol=3e-5)
    torch.testing.assert_close(torch.from_numpy(rgb), on_white(expected), rtol=0, atol=3e-5)


def test_hand_computed() -> None:
    """Four pixels to two: each weighs (3, 3, 1) of the three in reach, by its distance of 0.5, 0.5 and 1.5 of 2."""
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[0, :, 3] = 255, 0, 255, 255
    rgba[0, :, 0] = 255, 255, 0, 255
    rgb, alpha = painted(rgba, (1, 2))
    assert alpha[0] == pytest.approx([4 / 7, 6 / 7], abs=1e-6)  # (3 + 0 + 1) / 7, (3 + 3 + 0) / 7
    assert rgb[0, 0] == pytest.approx(
        [3 / 7 + 3 / 7, 3 / 7 + 1 / 7], abs=1e-6
    )  # red premultiplied, and the white behind
    assert rgb[1, 0] == pytest.approx([3 / 7, 1 / 7], abs=1e-6)


def test_hidden_colour_does_not_bleed() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (255, 0, 0, 255)
    rgba[2:, :, 1] = 255  # green, but transparent
    rgb, _ = painted(rgba, (2, 2))
    assert np.allclose(rgb[:, 1, 0], [1.0, 0.9, 0.9], atol=0.2)
    assert rgb[1].max() <= 1


def test_a_part_of_a_mapped_array_is_read() -> None:
    """Not contiguous, not writable: as slices and mapped files are."""
    whole = noise(40, 40)
    whole.setflags(write=False)
    part = whole[::2, ::2]
    expected, got = painted(np.ascontiguousarray(part), (20, 20)), painted(part, (20, 20))
    assert np.array_equal(expected[0], got[0])
    assert np.array_equal(expected[1], got[1])
