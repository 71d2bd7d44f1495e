"""What DRWR reads from a silhouette: fields, registration, sampling, boundary bias, memory."""

import math

import numpy as np
import pytest
import torch

from reconlab.losses import drwr_field
from reconlab.losses.drwr_field import sample_bilinear, sample_corners, silhouette_fields


def test_smooth_field_by_hand() -> None:
    """Eq. 3 on one foreground pixel (0, 0) of 4 x 4: the farthest pixel is sqrt(18) away."""
    mask = torch.zeros(1, 4, 4)
    mask[0, 0, 0] = 1
    field = silhouette_fields(mask, 4).smooth[0]
    assert field[0, 0] == 1
    assert field[0, 3].item() == pytest.approx(1 - 3 / math.sqrt(18))
    assert field[2, 1].item() == pytest.approx(1 - math.sqrt(5 / 18))
    assert field[3, 3] == 0
    literal = silhouette_fields(mask, 4, kind="literal").smooth[0]
    assert literal[0, 1] == 1  # the first ring counts as foreground: the reason not to take the text literally
    assert literal[0, 3].item() == pytest.approx(1 - 2 / (math.sqrt(18) - 1))
    assert torch.equal(silhouette_fields(mask, 4, kind="binary").smooth, mask)


def test_released_field_by_hand() -> None:
    mask = torch.zeros(1, 128, 128)
    mask[0, 64, :50] = 1
    mask[0, 64, 50] = 0.3
    field = silhouette_fields(mask, 128, kind="released").smooth[0]
    assert field[64, 10] == 1
    assert field[64, 50].item() == pytest.approx(0.3)
    assert field[64, 51].item() == pytest.approx(220 / 255 - 2 / (64 * math.sqrt(2)), rel=1e-5)
    reduced = silhouette_fields(mask, 32, kind="released").smooth[0]
    assert torch.equal(reduced, field[::4, ::4])


@pytest.mark.parametrize("reduction", ["subsample", "area"])
@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_masks_are_registered(reduction: str, resolution: int) -> None:
    """A pixel of the reduced mask stands where its source pixels do."""
    maps = silhouette_fields(torch.rand(1, 64, 64).round(), resolution, reduction)  # type: ignore[arg-type]
    step = 64 // resolution
    source = torch.arange(resolution) * step + (0 if reduction == "subsample" else (step - 1) / 2)
    x = (2 * source + 1) / 64 - 1
    torch.testing.assert_close(maps.pixel(x), torch.arange(resolution).float(), atol=1e-5, rtol=0)
    assert 2 * maps.scale == pytest.approx(resolution)  # pixels per image side


def test_area_reduction_cuts_at_half() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, :2, :2] = 1
    mask[0, 0, 2] = 1
    assert torch.equal(silhouette_fields(mask, 2, "area").mask, torch.tensor([[[1.0, 0], [0, 0]]]))
    assert torch.equal(silhouette_fields(mask, 2, "subsample").mask, torch.tensor([[[1.0, 1], [0, 0]]]))


def test_bilinear_by_hand() -> None:
    """Eq. 2: between the centres of four pixels."""
    maps = torch.tensor([[[0.0, 1], [2, 5]]])
    at = torch.tensor([[[0.0, 0], [1, 1], [0.25, 0], [0.25, 0.5]]])
    torch.testing.assert_close(sample_bilinear(maps, at), torch.tensor([[0.0, 5, 0.25, 0.5 * 0.25 + 0.5 * 2.75]]))


def test_boundary_bias_agrees_with_loops() -> None:
    """Fig. 4 in scalar code: corners at floor(c) - r and floor(c) + 1 + r, clamped, blended by the inner cell."""
    generator = np.random.default_rng(0)
    mask = (generator.random((9, 9)) > 0.5).astype(np.float32)
    at = generator.random((20, 2)) * 8
    maps = silhouette_fields(torch.from_numpy(mask)[None], 9, scales=5)
    got = sample_corners(maps.corners, torch.from_numpy(at).float()[None])[0]
    for value, (x, y) in zip(got.tolist(), at, strict=True):
        x0, y0 = int(x), int(y)
        total = 0.0
        for r in range(5):
            for yy, wy in ((max(y0 - r, 0), 1 - (y - y0)), (min(y0 + 1 + r, 8), y - y0)):
                for xx, wx in ((max(x0 - r, 0), 1 - (x - x0)), (min(x0 + 1 + r, 8), x - x0)):
                    total += wy * wx * mask[yy, xx]
        assert value == pytest.approx(total / 5, abs=1e-5)


def test_fields_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = drwr_field._distance_field
    monkeypatch.setattr(drwr_field, "_distance_field", lambda *a: calls.append(1) or original(*a))
    torch.manual_seed(123)
    masks = torch.rand(3, 16, 16).round()
    first = silhouette_fields(masks, 16).smooth
    assert len(calls) == 3
    assert torch.equal(silhouette_fields(masks.flip(0), 16).smooth.flip(0), first)
    assert len(calls) == 3
    monkeypatch.setattr(drwr_field, "CACHE_BYTES", 0)
    silhouette_fields(1 - masks, 16)
    assert not drwr_field._cache
    assert drwr_field._cache_bytes == 0


@pytest.mark.parametrize("kind", ["normalised", "literal", "released"])
def test_a_gpu_makes_the_same_fields(kind: str) -> None:
    """The fields that torch makes where the silhouettes are, against SciPy's on the CPU."""
    g = torch.Generator().manual_seed(0)
    images = (torch.rand(6, 31, 31, generator=g) > torch.tensor([0.1, 0.5, 0.9, 0.99, 0, 1]).view(-1, 1, 1)).float()
    images[5] = 0
    images[1] *= torch.rand(31, 31, generator=g)  # soft edges, as released fields keep them
    ours = drwr_field.fields_in_place(images, kind)
    torch.testing.assert_close(ours, drwr_field._cached_fields(images, kind), atol=1e-6, rtol=0)
    assert bool((ours[4:] == 1).all()), "full and empty"


def test_distance_transform_is_exact_in_blocks(monkeypatch) -> None:
    from scipy.ndimage import distance_transform_edt

    inside = torch.rand(3, 20, 33, generator=torch.Generator().manual_seed(1)) > 0.97
    expected = torch.stack([torch.from_numpy(distance_transform_edt(~m.numpy())).float() for m in inside])
    for block in (1, 5000, 1 << 24):
        monkeypatch.setattr(drwr_field, "BLOCK", block)
        assert torch.equal(drwr_field.distance_transform(inside), expected)
    assert drwr_field.distance_transform(torch.zeros(1, 4, 4, dtype=torch.bool)).isinf().all()
    assert drwr_field.distance_transform(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4, 4)
