"""The splat kernel: an independent dense computation, finite differences, fast path against reference, odd input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.splat import splat_silhouettes


def by_hand(position: np.ndarray, size: int, sigma: float, taps: int, scale: float) -> np.ndarray:
    """The formula for one image in float64 with loops, in another order than the kernel's."""
    volume = np.zeros((size, size, size))
    grid = np.arange(size)
    for point in position:  # hat functions instead of corners
        hats = [np.maximum(0, 1 - np.abs(grid - p)) for p in point]
        volume += hats[2][:, None, None] * hats[1][:, None] * hats[0]
    volume = np.clip(volume, 0, 1)
    offset = np.subtract.outer(grid, grid)
    line = np.exp(-(offset**2) / (2 * sigma**2)) * (np.abs(offset) <= taps // 2)
    line /= np.exp(-((np.arange(taps) - taps // 2) ** 2) / (2 * sigma**2)).sum()
    occupancy = np.einsum("ai,bj,ck,ijk->abc", line, line, line, volume) * scale
    occupancy = np.clip(np.clip(occupancy, 0, 1), 1e-5, 1 - 1e-5)
    escape = np.ones((size, size))
    image = np.zeros((size, size))
    for z in range(size):  # the sum of termination probabilities, as DPC defines it
        image += occupancy[z] * escape
        escape *= 1 - occupancy[z]
    return image


def cloud(images: int, count: int, size: int, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return size * (0.5 + spread * (torch.rand(images, count, 3, generator=g) - 0.5)) - 0.5


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("count", "size", "sigma", "taps", "scale", "spread"),
    [
        (40, 12, 1.0, 5, 0.8, 1.0),
        (1, 9, 2.0, 21, 1.0, 0.5),  # a kernel wider than the grid
        (300, 10, 0.2, 11, 1.0, 1.4),  # points outside, cells above 1
        (200, 8, 0.7, 1, 3.0, 0.3),  # no blur, saturated occupancy
    ],
)
def test_agrees_with_loops(
    backend: str, count: int, size: int, sigma: float, taps: int, scale: float, spread: float
) -> None:
    position = cloud(2, count, size, spread)
    factor = torch.tensor([scale, 0.5 * scale])
    image = splat_silhouettes(position, size, sigma, taps, factor, backend=backend)  # type: ignore[arg-type]
    for m in range(2):
        expected = by_hand(position[m].double().numpy(), size, sigma, taps, factor[m].item())
        np.testing.assert_allclose(image[m].numpy(), expected, atol=3e-6)


def test_one_point_without_blur() -> None:
    """A point in the middle of a face of cells weighs half in two of them: 1 - (1 - 1/2)² along z, 1/2 along x."""
    position = torch.tensor([[[2.0, 3.0, 3.5]], [[2.5, 3.0, 3.0]]])
    for backend in ("reference", "cpu"):
        along_z, along_x = splat_silhouettes(position, 8, 1.0, 1, backend=backend)  # type: ignore[arg-type]
        empty = 1 - (1 - 1e-5) ** 8
        assert along_z[3, 2].item() == pytest.approx(0.75, abs=1e-4)
        assert along_x[3, 2:4].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
        assert along_z[0, 0].item() == pytest.approx(empty, rel=0.05)


def test_reference_by_finite_differences() -> None:
    position = cloud(2, 7, 7, 0.9).double().requires_grad_()
    scale = torch.tensor([0.7, 1.2], dtype=torch.float64, requires_grad=True)

    def value(p: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return splat_silhouettes(p, 7, 0.8, 5, s)

    assert torch.autograd.gradcheck(value, (position, scale), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "size", "sigma", "taps", "spread"),
    [
        (300, 32, 3.0, 21, 0.6),
        (300, 32, 0.2, 21, 1.3),
        (2000, 24, 1.1, 11, 0.3),
        (5, 16, 1.5, 3, 2.5),
        (1, 8, 3.0, 21, 0.1),
        (400, 64, 1.6, 21, 0.5),
    ],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_kernel_equals_reference(count: int, size: int, sigma: float, taps: int, spread: float, scaled: bool) -> None:
    position = cloud(3, count, size, spread, seed=count)
    scale = torch.tensor([0.3, 1.0, 1.7]) if scaled else None
    upstream = torch.randn(3, size, size, generator=torch.Generator().manual_seed(1))
    results = []
    for kind, backend in ((torch.float64, "reference"), (torch.float32, "cpu")):
        p = position.to(kind).requires_grad_()
        s = None if scale is None else scale.to(kind).requires_grad_()
        image = splat_silhouettes(p, size, sigma, taps, s, backend=backend)  # type: ignore[arg-type]
        inputs = [p] if s is None else [p, s]
        gradients = torch.autograd.grad((image * upstream).sum(), inputs)
        results.append([image.detach().double(), *(g.double() for g in gradients)])
    (true_image, *true_gradients), (image, *gradients) = results
    torch.testing.assert_close(image, true_image, rtol=0, atol=3e-6)
    for given_gradient, true in zip(gradients, true_gradients, strict=True):
        # Voxels at the edge of a clip may fall on either side of it.
        assert (given_gradient - true).abs().max() <= 5e-5 * true.abs().max()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 3.0), st.sampled_from([1, 5, 11]))
def test_symmetries(seed: int, sigma: float, taps: int) -> None:
    """Blind to the order of points and to reversing the depth; mirrored and transposed points mirror the image."""
    size = 12
    position = cloud(2, 60, size, 1.1, seed)
    image = splat_silhouettes(position, size, sigma, taps)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    close = {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(splat_silhouettes(position[:, order], size, sigma, taps), image, **close)
    far = position.clone()
    far[..., 2] = size - 1 - far[..., 2]
    torch.testing.assert_close(splat_silhouettes(far, size, sigma, taps), image, **close)
    mirrored = position.clone()
    mirrored[..., 0] = size - 1 - mirrored[..., 0]
    torch.testing.assert_close(splat_silhouettes(mirrored, size, sigma, taps), image.flip(2), **close)
    turned = position[..., [1, 0, 2]]
    torch.testing.assert_close(splat_silhouettes(turned, size, sigma, taps), image.transpose(1, 2), **close)
    alone = splat_silhouettes(position[1:], size, sigma, taps)
    torch.testing.assert_close(alone[0], image[1])


def test_gradient_stops_at_the_clips() -> None:
    """A cell above 1 and an occupancy above 1 - 1e-5 give nothing back; each alone suffices."""
    crowded = torch.full((1, 3, 3), 4.0) + torch.tensor([0.1, 0.05, 0.02])  # three equal points: corner weight > 1
    for backend in ("reference", "cpu"):
        p = crowded.clone().requires_grad_()
        image = splat_silhouettes(p, 9, 1.0, 1, backend=backend)  # type: ignore[arg-type]
        (g,) = torch.autograd.grad(image[0, 4, 4], p)
        assert (g[..., :2].abs() < 1e-4).all()
        s = torch.tensor([5.0], requires_grad=True)
        image = splat_silhouettes(torch.full((1, 1, 3), 4.0), 9, 1.0, 1, s, backend=backend)  # type: ignore[arg-type]
        (g,) = torch.autograd.grad(image[0, 4, 4], s)
        assert g.item() == 0


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_points_outside_and_not_finite(backend: str) -> None:
    position = cloud(3, 20, 8, 0.5)
    position[0] = torch.tensor([-1.0, 3.0, 3.0])  # an image without a point in the grid
    position[1, 3] = torch.tensor([1e30, -1e30, 8.0])
    position[2, 5, 1] = torch.nan
    position.requires_grad_()
    image = splat_silhouettes(position, 8, 1.0, 5, backend=backend)  # type: ignore[arg-type]
    torch.testing.assert_close(image[0], torch.full((8, 8), 1 - (1 - 1e-5) ** 8), rtol=0, atol=1e-6)
    assert image[2].isnan().all()
    (g,) = torch.autograd.grad(image[:2].sum(), position)
    assert g[:2].isfinite().all()
    assert (g[0] == 0).all()
    assert (g[1, 3] == 0).all()
    assert g[1].abs().sum() > 0
    rest = torch.cat([position[1, :3], position[1, 4:]]).detach()[None]
    torch.testing.assert_close(splat_silhouettes(rest, 8, 1.0, 5)[0], image[1].detach(), rtol=1e-4, atol=1e-5)
    scale = torch.tensor([1.0, math.nan, 1.0])
    assert splat_silhouettes(position.detach(), 8, 1.0, 5, scale, backend=backend)[1].isnan().all()  # type: ignore[arg-type]


def test_no_points_and_no_images() -> None:
    for backend in ("reference", "cpu"):
        empty = splat_silhouettes(torch.zeros(2, 0, 3), 4, 1.0, 3, backend=backend)  # type: ignore[arg-type]
        assert empty.max().item() == pytest.approx(4e-5, rel=0.01)
        assert splat_silhouettes(torch.zeros(0, 5, 3), 4, 1.0, 3, backend=backend).shape == (0, 4, 4)  # type: ignore[arg-type]


def test_half_precision_is_computed_in_float32() -> None:
    position = cloud(1, 30, 8, 0.5).half()
    image = splat_silhouettes(position, 8, 1.0, 5)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, splat_silhouettes(position.float(), 8, 1.0, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = splat_silhouettes(position.float(), 8, 1.0, 5, backend="reference")
    torch.testing.assert_close(again, image, rtol=1e-4, atol=1e-5)


def test_threads_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    position = cloud(5, 100, 16, 0.8).requires_grad_()
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("RECONLAB_THREADS", threads)
        image = splat_silhouettes(position, 16, 1.0, 5)
        results.append((image, *torch.autograd.grad(image.square().sum(), position)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"position": torch.zeros(2, 3)}, r"positions \(M, J, 3\)"),
        ({"scale": torch.ones(3)}, "one an image"),
        ({"resolution": 0}, "positive resolution"),
        ({"sigma": 0.0}, "positive resolution and sigma"),
        ({"sigma": math.nan}, "positive resolution and sigma"),
        ({"kernel_size": 4}, "odd kernel_size"),
        ({"backend": "gpu"}, "'gpu'"),
        ({"backend": "cpu", "position": torch.zeros(2, 3, 3).double()}, "float32"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], word: str) -> None:
    given_input = {"position": torch.zeros(2, 3, 3), "resolution": 8, "sigma": 1.0} | change
    with pytest.raises(ReconlabError, match=word):
        splat_silhouettes(**given_input)  # type: ignore[arg-type]
