"""The splat by Triton: against the reference and hand-computed cases; in the interpreter without a GPU."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.splat import splat_silhouettes
from tests.kernels.test_splat import cloud

pytest.importorskip("triton")

from reconlab.kernels.splat import cuda


def both_ways(
    backend: str, position: Tensor, upstream: Tensor, size: int, sigma: float, taps: int, scale: Tensor | None
) -> list[Tensor]:
    """Image, gradient by the positions and, if there is a scale, by it; the reference's in float64."""
    kind = torch.float64 if backend == "reference" else torch.float32
    inputs = [x.detach().to(kind).requires_grad_() for x in (position, scale) if x is not None]
    image = splat_silhouettes(inputs[0], size, sigma, taps, *inputs[1:], backend=backend)  # type: ignore[arg-type]
    return [image.detach(), *torch.autograd.grad(image, inputs, upstream.to(kind))]


def check(got: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(got[0].double(), expected[0], rtol=0, atol=3e-6)
    for g, e in zip(got[1:], expected[1:], strict=True):
        assert (g - e).abs().max() <= 2e-5 * e.abs().max()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(
    ("count", "size", "sigma", "taps", "scale", "spread"),
    [
        (12, 9, 0.6, 3, 0.8, 0.3),  # two tiles and a rest; a box in the middle
        (3, 4, 2.0, 11, 1.0, 0.5),  # a kernel wider than the grid
        (90, 6, 0.2, 11, 1.0, 1.4),  # points outside, cells above 1
        (60, 5, 0.7, 1, 3.0, 0.3),  # no blur, saturated occupancy
        (20, 4, 3.0, 3, None, 1.0),
        (1, 1, 1.0, 3, 1.0, 0.0),  # one voxel
    ],
)
def test_agrees_with_the_reference(
    triton_device: torch.device,
    count: int,
    size: int,
    sigma: float,
    taps: int,
    scale: float | None,
    spread: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda, "TILE", 4)
    images = 2 if size < 6 else 1
    position = cloud(images, count, size, spread, seed=count).to(triton_device)
    factor = None if scale is None else torch.tensor([scale, 0.5 * scale], device=triton_device)[:images]
    upstream = noise(images, size, size).to(triton_device)
    rest = (position, upstream, size, sigma, taps, factor)
    check(both_ways("cuda", *rest), both_ways("reference", *rest))


def test_one_point_without_blur(triton_device: torch.device) -> None:
    """A point in the middle of a face of cells weighs half in two of them: 1 - (1 - 1/2)² along z, 1/2 along x."""
    position = torch.tensor([[[2.0, 3.0, 3.5]], [[2.5, 3.0, 3.0]]], device=triton_device)
    along_z, along_x = splat_silhouettes(position, 8, 1.0, 1, backend="cuda")
    assert along_z[3, 2].item() == pytest.approx(0.75, abs=2e-4)
    assert along_x[3, 2:4].tolist() == pytest.approx([0.5, 0.5], abs=2e-4)
    assert along_z[0, 0].item() == pytest.approx(1 - (1 - 1e-5) ** 8, abs=5e-7)


def poisoned(empty: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def allocate(*args: Any, **settings: Any) -> Tensor:
        out = empty(*args, **settings)
        return out.fill_(math.nan) if out.is_floating_point() else out

    return allocate


def test_memory_that_was_not_written_is_not_read(
    triton_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "TILE", 4)
    position = cloud(1, 6, 9, 0.2, seed=5).to(triton_device) - 2
    rest = (position, noise(1, 9, 9).to(triton_device), 9, 0.6, 3, torch.ones(1, device=triton_device))
    clean = both_ways("cuda", *rest)
    for where, name in ((Tensor, "new_empty"), (torch, "empty_like")):
        monkeypatch.setattr(where, name, poisoned(getattr(where, name)))
    for one, other in zip(both_ways("cuda", *rest), clean, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_upstream_gradients_of_any_strides(triton_device: torch.device, axes: tuple[int, int, int]) -> None:
    """As after a permutation of the images: what is multiplied with them takes their order in memory."""
    position = cloud(2, 12, 5, 0.5, seed=3).to(triton_device)
    back = tuple(axes.index(k) for k in range(3))
    upstream = noise(2, 5, 5).permute(axes).contiguous().permute(back).to(triton_device)
    assert not upstream.is_contiguous()
    rest = (position, upstream, 5, 0.8, 3, torch.tensor([0.5, 0.9], device=triton_device))
    check(both_ways("cuda", *rest), both_ways("reference", *rest))


def test_gradient_stops_at_the_clips(triton_device: torch.device) -> None:
    """A cell above 1 and an occupancy above 1 - 1e-5 give nothing back; each alone suffices."""
    crowded = torch.full((1, 3, 3), 4.0) + torch.tensor([0.1, 0.05, 0.02])  # three equal points: corner weight > 1
    p = crowded.to(triton_device).requires_grad_()
    (g,) = torch.autograd.grad(splat_silhouettes(p, 6, 1.0, 1, backend="cuda")[0, 4, 4], p)
    assert (g[..., :2].abs() < 1e-4).all()
    s = torch.tensor([5.0], device=triton_device, requires_grad=True)
    point = torch.full((1, 1, 3), 4.0, device=triton_device)
    (g,) = torch.autograd.grad(splat_silhouettes(point, 6, 1.0, 1, s, backend="cuda")[0, 4, 4], s)
    assert g.item() == 0
    # A cell of weight exactly 1 is not clipped: a step sideways takes from it and from the image.
    p = point.clone().requires_grad_()
    (g,) = torch.autograd.grad(splat_silhouettes(p, 6, 1.0, 1, torch.full_like(s, 0.5), backend="cuda")[0, 4, 4], p)
    assert g[0, 0].tolist() == pytest.approx([-0.5] * 3, abs=1e-4)


def test_sums_do_not_overflow(triton_device: torch.device) -> None:
    """All points in one place: their sum is nearly 2^32."""
    count = 255
    assert 2**31 < count * 2 ** cuda.fraction_bits(count) < 2**32
    position = torch.full((1, count, 3), 1.0, device=triton_device)
    rest = (position, noise(1, 3, 3).to(triton_device), 3, 0.8, 3, torch.tensor([0.5], device=triton_device))
    check(both_ways("cuda", *rest), both_ways("reference", *rest))


def test_weights_of_64_bits(triton_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    position = cloud(2, 60, 4, 0.8, seed=2).to(triton_device)
    rest = (position, noise(2, 4, 4).to(triton_device), 4, 0.8, 3, torch.ones(2, device=triton_device))
    usual = both_ways("cuda", *rest)
    monkeypatch.setattr(cuda, "LEAST_BITS", 33)
    assert cuda.fraction_bits(60) == 32
    wide = both_ways("cuda", *rest)
    check(wide, both_ways("reference", *rest))
    check(wide, [x.double() for x in usual])


@pytest.mark.parametrize("count", [0, 1, 255, 256, 2000, 8000, 16000, 32767, 32768, 10**6])
def test_bits_of_a_weight(count: int) -> None:
    bits = cuda.fraction_bits(count)
    assert (count * 2**bits < 2**32 and 17 <= bits <= 24) if count < 2**15 else bits == 32
    assert {2000: 21, 8000: 19, 16000: 18}.get(count, bits) == bits


def test_order_of_the_points_does_not_matter(triton_device: torch.device) -> None:
    """Not by a bit: neither do the atomics' order and the run."""
    position = cloud(1, 200, 4, 0.7, seed=1).to(triton_device)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1)).to(triton_device)
    rest = (noise(1, 4, 4).to(triton_device), 4, 0.8, 3, torch.ones(1, device=triton_device))
    image, by_position, by_scale = both_ways("cuda", position, *rest)
    other = both_ways("cuda", position[:, order], *rest)
    assert torch.equal(other[0], image)
    assert torch.equal(other[1], by_position[:, order])
    assert torch.equal(other[2], by_scale)


def test_points_outside_and_not_finite(triton_device: torch.device) -> None:
    position = cloud(5, 20, 4, 0.5).to(triton_device)
    position[0] = torch.tensor([-1.0, 3.0, 3.0])  # an image without a point in the grid
    position[1, 3] = torch.tensor([1e30, -1e30, 4.0])
    position[2, 5, 1], position[3, 0, 0] = torch.nan, -torch.inf
    position.requires_grad_()
    scale = torch.tensor([1.0, 1.0, 1.0, 1.0, math.nan], device=triton_device, requires_grad=True)
    image = splat_silhouettes(position, 4, 1.0, 3, scale, backend="cuda")
    torch.testing.assert_close(image[0], torch.full_like(image[0], 1 - (1 - 1e-5) ** 4), rtol=0, atol=5e-7)
    assert image[1].isfinite().all()
    assert image[2:].isnan().all()
    by_position, by_scale = torch.autograd.grad(image.sum(), (position, scale))
    assert (by_position[0] == 0).all()
    assert (by_position[1, 3] == 0).all()
    assert by_position[1].isfinite().all()
    assert by_position[1].abs().sum() > 0
    assert by_position[2:].isnan().all()
    assert by_scale.isfinite().tolist() == [True, True, False, False, False]
    rest = torch.cat([position[1, :3], position[1, 4:]]).detach()[None]
    torch.testing.assert_close(splat_silhouettes(rest, 4, 1.0, 3, backend="cuda")[0], image[1].detach())


def test_no_points_and_no_images(triton_device: torch.device) -> None:
    none = torch.zeros(2, 0, 3, device=triton_device, requires_grad=True)
    image = splat_silhouettes(none, 4, 1.0, 3, backend="cuda")
    torch.testing.assert_close(image, torch.full_like(image, 4e-5), rtol=0, atol=5e-7)
    assert torch.autograd.grad(image.sum(), none)[0].shape == (2, 0, 3)
    none = torch.zeros(0, 5, 3, device=triton_device, requires_grad=True)
    image = splat_silhouettes(none, 4, 1.0, 3, backend="cuda")
    assert image.shape == (0, 4, 4)
    image.sum().backward()
    assert none.grad is not None
    assert none.grad.shape == (0, 5, 3)


def test_what_asks_for_a_gradient(triton_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value is the same without; a scale alone keeps no volume; the way back can be gone twice."""
    position = cloud(2, 20, 4, 0.8).half().to(triton_device)  # half is computed in float32
    scale = torch.tensor([0.5, 0.7], device=triton_device)
    upstream = noise(2, 4, 1).to(triton_device).expand(2, 4, 4)  # not contiguous
    setting = (4, 0.8, 3)
    image, by_position, by_scale = both_ways("cuda", position, upstream, *setting, scale)
    kept: list[Any] = []
    render = cuda.render
    monkeypatch.setattr(cuda, "render", lambda *a: (kept.append(render(*a)), kept[-1])[1])
    assert torch.equal(splat_silhouettes(position, *setting, scale, backend="cuda"), image)
    assert kept.pop()[1] is None
    s = scale.clone().requires_grad_()
    alone = splat_silhouettes(position, *setting, s, backend="cuda")
    assert kept.pop()[1].free is None
    assert torch.equal(torch.autograd.grad(alone, s, upstream)[0], by_scale)
    p = position.float().requires_grad_()
    again = splat_silhouettes(p, *setting, scale, backend="cuda")
    assert kept.pop()[1].free is not None
    for _ in range(2):  # without a gradient by the scale, which needs none
        assert torch.equal(torch.autograd.grad(again, p, upstream, retain_graph=True)[0], by_position)
    swapped = p.detach().transpose(0, 1).contiguous().transpose(0, 1)
    assert not swapped.is_contiguous()
    assert torch.equal(splat_silhouettes(swapped, *setting, scale, backend="cuda"), image)


def test_what_is_refused(triton_device: torch.device) -> None:
    point = torch.zeros(1, 1, 3, device=triton_device)
    with pytest.raises(ReconlabError, match="float32"):
        splat_silhouettes(point.double(), 4, 1.0, backend="cuda")
    with pytest.raises(ReconlabError, match="up to 1024, not 1025"):
        splat_silhouettes(point, 1025, 1.0, backend="cuda")


def test_work_is_counted_by_hand() -> None:
    """Cells 2×3×4 of a 10³ grid, blurred by a tap on either side: 4×3×4, 4×5×4 and 4×5×6 voxels."""
    operations, moved = cuda.work(2, 7, 10, 1, (2, 3, 4))
    assert moved == 2 * (4 * (1000 + 24 + 48 + 48 + 80 + 80 + 120) + 12 * 100 + 121 * 7)
    assert operations == 2 * (4 * (48 + 80 + 120) + 12 * 120 + 40 * 7)
    operations, moved = cuda.work(2, 7, 10, 1, (2, 3, 4), backward=True)
    assert moved == 2 * (4 * (120 + 80 + 80 + 48 + 48) + 20 * 100 + 25 * 7)
    assert operations == 2 * (4 * (80 + 48) + 80 + 4 * 4 * 17 * 7 + 5 * 100)
    assert cuda.work(1, 0, 8, 2)[1] == 4 * 512 * 7 + 12 * 64
