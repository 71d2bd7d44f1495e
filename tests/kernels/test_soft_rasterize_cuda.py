"""The soft rasteriser by Triton: value and gradient against the reference; in the interpreter without a GPU."""

import pytest
import torch
from torch import Tensor

from reconlab.kernels.soft_rasterize import soft_rasterize
from reconlab.kernels.soft_rasterize.reference import Settings, pixel_boxes, usable_faces
from tests.kernels.test_soft_rasterize import scene

pytest.importorskip("triton")

from reconlab.kernels.soft_rasterize import cuda, cuda_grad


def render(xyz: Tensor, splits, size, shade, backend: str, **kw) -> tuple[list[Tensor], list[Tensor]]:
    """Values, and gradients of weighted sums of them, of the shaded image and of the silhouette alone."""
    x, c = xyz.clone().requires_grad_(), shade.clone().requires_grad_()
    alpha, image = soft_rasterize(x, splits, size, c, backend=backend, **kw)
    only = soft_rasterize(x, splits, size, backend=backend, **kw)
    assert only.shade is None
    weight = torch.rand(*alpha.shape, generator=torch.Generator().manual_seed(1)).to(xyz)
    total = (alpha * image * weight + alpha * weight.flip(2) + image * weight.flip(1)).sum()
    gradients = [*torch.autograd.grad(total, (x, c)), *torch.autograd.grad((only.alpha * weight).sum(), x)]
    return [alpha.detach(), image.detach(), only.alpha.detach()], gradients


def check(device: torch.device, xyz: Tensor, splits, size, shade, value: float = 1e-5, gradient: float = 1e-4, **kw):
    """Float32 kernels against the float64 reference."""
    mine = render(xyz.to(device), splits, size, shade.to(device), "cuda", **kw)
    true = render(xyz.double(), splits, size, shade.double(), "reference", **kw)
    for a, b in zip(mine[0], true[0], strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.cpu().double(), b, atol=value, rtol=0)
    for a, b in zip(mine[1], true[1], strict=True):
        assert float((a.cpu().double() - b).norm()) <= gradient * float(b.norm()) + 1e-9
    return mine


@pytest.mark.parametrize(
    ("size", "sigma", "gamma"),
    [((9, 14), 1e-4, 1e-3), ((17, 7), 1e-3, 1e-2), (1, 1e-3, 0.3)],
)
def test_agrees_with_the_reference(triton_device, size, sigma, gamma):
    """Several images, one without faces; sizes that are no multiple of the tile; faces partly outside."""
    xyz, splits, shade = scene((8, 0, 5))
    values, _ = check(triton_device, xyz, splits, size, shade, sigma=sigma, gamma=gamma, near=1.0, far=4.0)
    assert float(values[0].max()) > 0.1 or size == 1
    assert not values[0][1].any()
    assert not values[1][1].any()


def test_large_faces_cover_every_tile(triton_device):
    xyz = torch.tensor(
        [[[-9.0, -5, 2], [8, -6, 3], [0.5, 9, 2.5]], [[-0.9, -0.9, 2], [5, -0.8, 2.1], [-0.7, 7, 2.2]]]
    )
    shade = torch.tensor([[0.2, 0.9, 0.5], [0.7, 0.1, 0.4]])
    values, gradients = check(triton_device, xyz, [0, 2], (20, 18), shade, gamma=1e-2, near=1.0, far=4.0)
    assert bool((values[0] > 0.9).all())
    assert all(bool(g.any()) for g in gradients[:2])


def test_background_counts_where_it_is_near(triton_device):
    """With a wide softmax and a near background all the terms of the weights matter, the nearest depth too."""
    xyz, splits, shade = scene((6,), spread=0.5)
    check(triton_device, xyz, splits, 8, shade, sigma=1e-2, gamma=1.0, eps=0.7, near=1.0, far=4.0)


def test_many_faces_in_groups_and_parts(triton_device):
    """More faces than a group holds, drawn in one part and in three: the parts are merged into the same image."""
    xyz, splits, shade = scene((70, 80), spread=0.05)
    xyz[::3, :, :2] += 9  # out of sight
    s = Settings(8, 12, 1e-3, 1e-3, 0.1, 100.0, 1e-3, 1e-5)
    single = xyz.to(triton_device), shade.to(triton_device), splits, s
    whole, split = cuda.forward(*single, parts=1), cuda.forward(*single, parts=3)
    true = soft_rasterize(xyz.double(), splits, (8, 12), shade.double(), sigma=1e-3, gamma=1e-3, backend="reference")
    for mine in (whole, split):
        torch.testing.assert_close(mine[0].cpu().double(), true.alpha, atol=1e-5, rtol=0)
        torch.testing.assert_close(mine[1].cpu().double(), true.shade, atol=1e-5, rtol=0)
    for mine, theirs in zip(split[2], whole[2], strict=True):
        torch.testing.assert_close(mine[:3], theirs[:3], atol=1e-5, rtol=1e-5)


def test_large_boxes_are_gathered_by_more_warps(triton_device):
    """By the first kernel alone, by both, by the second alone: the same gradient, and no face left out."""
    xyz, splits, shade = (x.to(triton_device) for x in scene((3, 0, 2), spread=0.6))
    s = Settings(24, 40, 1e-2, 1e-2, 0.1, 100.0, 1e-3, 1e-5)
    _, image, state = cuda.forward(xyz, shade, splits.cpu(), s)
    pixels = pixel_boxes(xyz, 24, 40, s.radius)[:, 2:].prod(1)
    most = int(pixels.median())
    assert int(pixels.max()) > 256  # more than one step
    up = torch.rand(2, *image.shape, generator=torch.Generator().manual_seed(0)).to(triton_device)
    small, both, large = (cuda_grad.backward(xyz, shade, image, state, *up, s, n) for n in (10**6, most, 0))
    for a, b, c in zip(small, both, large, strict=True):
        assert bool(a.flatten(1).any(1).all())
        torch.testing.assert_close(b, a, atol=float(a.abs().max()) * 1e-5, rtol=0)
        torch.testing.assert_close(c, a, atol=float(a.abs().max()) * 1e-5, rtol=0)
        assert torch.equal(b[pixels <= most], a[pixels <= most])
        assert torch.equal(b[pixels > most], c[pixels > most])


def test_same_input_gives_the_same_bits(triton_device):
    xyz, splits, shade = scene((4, 2))
    runs = [render(xyz.to(triton_device), splits, 8, shade.to(triton_device), "cuda") for _ in range(2)]
    for a, b in zip(runs[0][0] + runs[0][1], runs[1][0] + runs[1][1], strict=True):
        assert torch.equal(a, b)


def test_unusable_faces_draw_nothing_and_stay_finite(triton_device):
    good = torch.tensor([[-0.5, -0.5, 2.0], [0.6, -0.5, 2.0], [0.0, 0.6, 2.0]])
    bad = good.repeat(9, 1, 1)
    bad[0, 1, 2] = -1  # behind the camera
    bad[1, :, 2] = 0.01  # before the near plane
    bad[2, 2, 2] = 1e3  # beyond the far plane
    bad[3] = bad[3, :1]  # a point
    bad[4, 2] = (bad[4, 0] + bad[4, 1]) / 2  # a line
    bad[5, 0, 0] = float("nan")
    bad[6, 1, 1] = float("inf")
    bad[7, 1, 0] = 1e12
    bad[8, 0] = float("nan")
    x = torch.cat([bad, good[None]]).to(triton_device).requires_grad_()
    shade = torch.full((10, 3), 0.5, device=triton_device, requires_grad=True)
    out = soft_rasterize(x, [0, 9, 10], 12, shade, backend="cuda")
    assert not out.alpha[0].any()
    assert float(out.alpha[1].detach().max()) > 0.9
    assert bool(out.shade.isfinite().all())
    gradients = torch.autograd.grad((out.alpha * out.shade).sum(), (x, shade))
    for gradient in gradients:
        assert bool(gradient.isfinite().all())
        assert not gradient[:9].any()
        assert gradient[9].any()


def test_lines_have_no_area_whatever_the_rounding(triton_device):
    xyz = torch.rand(30, 3, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([-0.5, -0.5, 1])
    xyz[:, 2, :2] = xyz[:, 1, :2]  # two corners at one place
    xyz[15:] = xyz[15:].roll(1, 1)
    xyz = xyz.to(triton_device).requires_grad_()
    out = soft_rasterize(xyz, [0, 30], 8, torch.ones(30, 3, device=triton_device), backend="cuda")
    assert not out.alpha.any()
    (gradient,) = torch.autograd.grad((out.alpha + out.shade).sum(), xyz)
    assert not gradient.any()


def test_no_faces_at_all(triton_device):
    xyz = torch.zeros(0, 3, 3, device=triton_device, requires_grad=True)
    out = soft_rasterize(xyz, [0, 0, 0], (4, 6), torch.zeros(0, 3, device=triton_device), backend="cuda")
    assert out.alpha.shape == out.shade.shape == (2, 4, 6)
    assert not out.alpha.any()
    assert not out.shade.any()
    (out.alpha + out.shade).sum().backward()
    assert xyz.grad.shape == (0, 3, 3)
    assert soft_rasterize(xyz, [0], 4, backend="cuda").alpha.shape == (0, 4, 4)


def test_shade_of_another_precision_is_taken_over(triton_device):
    xyz, splits, shade = scene((3,))
    shade = shade.double().to(triton_device).requires_grad_()
    out = soft_rasterize(xyz.to(triton_device), splits, 8, shade, backend="cuda")
    out.shade.sum().backward()
    assert out.shade.dtype == torch.float32
    assert shade.grad.dtype == torch.float64


def test_work_grows_with_what_is_asked_for():
    plain, shaded = cuda.work(100, 10, 50, False, False), cuda.work(100, 10, 50, True, False)
    assert plain == (5700.0, 10 * 36 + 50 * 8)
    assert cuda.work(100, 10, 50, True, True) > shaded > plain


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_gpu(triton_device):
    xyz, splits, shade = scene((500, 300), spread=0.05)
    x, c = xyz.to(triton_device).requires_grad_(), shade.to(triton_device).requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = soft_rasterize(x, splits, 64, c, backend="cuda")
        (out.alpha * out.shade).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert x.grad.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter is too slow")
def test_agrees_with_the_reference_at_full_size(triton_device):
    xyz, splits, shade = scene((1200, 900, 0, 1500), spread=0.05)
    xyz = xyz.to(triton_device)
    assert int((pixel_boxes(xyz, 128, 128, 0.03)[:, 2:].prod(1) > 0).sum()) > 3000
    assert bool(usable_faces(xyz, Settings(128, 128, 1e-4, 1e-3, 0.1, 100.0, 1e-3, 1e-5)).all())
    mine = render(xyz, splits, 128, shade.to(triton_device), "cuda")
    true = render(xyz.double(), splits, 128, shade.double().to(triton_device), "reference")
    for a, b in zip(mine[0], true[0], strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-4, rtol=0)
    for a, b in zip(mine[1], true[1], strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 1e-3
