"""The soft rasteriser: reference against a dense oracle and finite differences, numba against the reference."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.soft_rasterize import soft_rasterize


def scene(faces=(40, 0, 25), spread=0.25, seed=0):
    """Random triangles around the image, some partly or wholly outside of it."""
    g = torch.Generator().manual_seed(seed)
    n = sum(faces)
    xy = torch.rand(n, 1, 2, generator=g) * 2.4 - 1.2 + torch.randn(n, 3, 2, generator=g) * spread
    z = 2.2 + torch.rand(n, 3, 1, generator=g)
    splits = torch.tensor([0, *faces]).cumsum(0)
    return torch.cat([xy, z], -1), splits, torch.rand(n, 3, generator=g)


def oracle(xyz, shade, size, sigma, gamma, near, far, eps, cutoff):
    """SoftRas' formulas for one image, pixels × faces, as they are printed; written apart from the kernel."""
    height, width = size
    ys, xs = torch.meshgrid(
        (torch.arange(height).double() + 0.5) * 2 / height - 1,
        (torch.arange(width).double() + 0.5) * 2 / width - 1,
        indexing="ij",
    )
    p = torch.stack([xs, ys, torch.ones_like(xs)], -1).reshape(-1, 1, 3)
    homogeneous = torch.cat([xyz[..., :2], torch.ones_like(xyz[..., :1])], -1)  # rows are corners
    bary = torch.einsum("pi,fij->pfj", p[:, 0], torch.linalg.inv(homogeneous))
    distance = None
    for i in range(3):
        a, b = xyz[:, i, :2], xyz[:, (i + 1) % 3, :2]
        t = (((p[..., :2] - a) * (b - a)).sum(-1) / (b - a).square().sum(-1)).clamp(0, 1)
        d = (p[..., :2] - a - t[..., None] * (b - a)).square().sum(-1)
        distance = d if distance is None else torch.minimum(distance, d)
    sign = torch.where((bary >= 0).all(-1), 1.0, -1.0)
    cover = torch.sigmoid(sign * distance / sigma)
    cover = torch.where((sign > 0) | (cover > cutoff), cover, 0)
    alpha = 1 - (1 - cover).prod(1)
    clipped = bary.clamp(0, 1)
    clipped = clipped / clipped.sum(-1, keepdim=True)
    depth = 1 / (clipped / xyz[:, :, 2]).sum(-1)
    weight = cover * torch.exp((far - depth) / (far - near) / gamma - 1 / gamma)  # -1/γ on both: no overflow
    background = torch.exp(torch.tensor((eps - 1) / gamma, dtype=torch.float64))
    image = (weight * (clipped * shade).sum(-1)).sum(1) / (weight.sum(1) + background)
    return alpha.view(size), image.view(size)


CONSTANTS = {"near": 1.0, "far": 4.0, "eps": 1e-3, "cutoff": 1e-5}


@pytest.mark.parametrize("gamma", [0.3, 0.01])
def test_reference_is_the_formula(gamma):
    xyz, _, shade = scene((30,))
    xyz, shade = xyz.double().requires_grad_(), shade.double().requires_grad_()
    ours = soft_rasterize(xyz, [0, 30], (12, 16), shade, sigma=1e-3, gamma=gamma, backend="reference", **CONSTANTS)
    theirs = oracle(xyz, shade, (12, 16), 1e-3, gamma, **CONSTANTS)
    weight = torch.rand(12, 16, dtype=torch.float64)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine[0], other, rtol=1e-9, atol=1e-11)
        got = torch.autograd.grad((mine[0] * weight).sum(), (xyz, shade), allow_unused=True, retain_graph=True)
        want = torch.autograd.grad((other * weight).sum(), (xyz, shade), allow_unused=True, retain_graph=True)
        torch.testing.assert_close(got[0], want[0], rtol=1e-7, atol=1e-9)
        assert got[0].abs().max() > 1


def test_reference_gradients_are_those_of_finite_differences():
    xyz, _, shade = scene((5,), spread=0.5)

    def render(xyz, shade):
        result = soft_rasterize(xyz, [0, 5], 5, shade, sigma=0.02, gamma=0.05, backend="reference", **CONSTANTS)
        return result.alpha, result.shade

    inputs = (xyz.double().requires_grad_(), shade.double().requires_grad_())
    assert torch.autograd.gradcheck(render, inputs, eps=1e-7, atol=1e-4)


def compare(xyz, splits, size, shade, **kw):
    """Relative differences of the numba float32 path from the float64 reference: values, then gradients."""
    results = []
    for dtype, backend in ((torch.float32, "cpu"), (torch.float64, "reference")):
        x, c = xyz.to(dtype).requires_grad_(), shade.to(dtype).requires_grad_()
        alpha, image = soft_rasterize(x, splits, size, c, backend=backend, **kw)
        only = soft_rasterize(x, splits, size, backend=backend, **kw)
        assert only.shade is None
        weight = torch.rand(*alpha.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        flipped = weight.flip(2)
        gradients = [
            *torch.autograd.grad((alpha * weight).sum(), x, retain_graph=True),
            *torch.autograd.grad((image * weight).sum(), (x, c), retain_graph=True),
            *torch.autograd.grad((alpha * image * weight + alpha * flipped).sum(), (x, c)),
            *torch.autograd.grad((only.alpha * weight).sum(), x),
        ]
        results.append(([alpha, image, only.alpha], gradients))
    (values, gradients), (true_values, true_gradients) = results
    value = [float((a - b).detach().abs().max()) for a, b in zip(values, true_values, strict=True)]
    gradient = [float((a - b).norm() / (b.norm() + 1e-6)) for a, b in zip(gradients, true_gradients, strict=True)]
    return value, gradient


@pytest.mark.parametrize("size", [32, (17, 37), (40, 5), 1])
@pytest.mark.parametrize(("sigma", "gamma"), [(1e-4, 1e-3), (1e-3, 1e-4), (1e-5, 1e-2)])
def test_numba_is_the_reference(size, sigma, gamma):
    value, gradient = compare(*scene()[:2], size, scene()[2], sigma=sigma, gamma=gamma)
    assert max(value) < 1e-4 if gamma < 1e-3 else max(value) < 1e-5
    assert max(gradient) < (1e-3 if size == 1 else 2e-4), gradient


def test_numba_is_the_reference_on_a_large_image():
    xyz, splits, shade = scene((60,), spread=0.1)
    value, gradient = compare(xyz, splits, 96, shade)
    assert max(value) < 1e-5
    assert max(gradient) < 5e-5, gradient


def test_float32_reference_serves_as_fallback():
    xyz, splits, shade = scene()
    fast = soft_rasterize(xyz, splits, 24, shade)
    slow = soft_rasterize(xyz, splits, 24, shade, backend="reference")
    assert slow.alpha.dtype == torch.float32
    torch.testing.assert_close(fast.alpha, slow.alpha, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.shade, slow.shade, atol=1e-4, rtol=0)


number = st.floats(-1.5, 1.5, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[number] * 6, *[st.floats(0.0625, 4, width=32)] * 3), min_size=1, max_size=4))
def test_random_triangles_agree(corners):
    flat = torch.tensor(corners)
    xyz = torch.cat([flat[:, :6].view(-1, 3, 2), flat[:, 6:, None]], -1)
    shade = torch.linspace(0.1, 1, 3).expand(len(xyz), 3).contiguous()
    fast = soft_rasterize(xyz, [0, len(xyz)], 16, shade, sigma=1e-3, backend="cpu")
    exact = soft_rasterize(xyz.double(), [0, len(xyz)], 16, shade.double(), sigma=1e-3, backend="reference")
    # A face whose area is within rounding of the least one may be dropped by one and not the other.
    ab, ac = xyz[:, 1, :2] - xyz[:, 0, :2], xyz[:, 2, :2] - xyz[:, 0, :2]
    area2 = (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]).abs()
    assert fast.alpha.isfinite().all()
    assert fast.shade.isfinite().all()
    if not bool(((area2 > 0) & (area2 < 1e-4)).any()):
        torch.testing.assert_close(fast.alpha.double(), exact.alpha, atol=1e-4, rtol=0)
        # shade alone jumps where a face comes into reach; times alpha it does not
        torch.testing.assert_close((fast.shade * fast.alpha).double(), exact.shade * exact.alpha, atol=1e-3, rtol=0)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_area_of_sharp_shapes(backend):
    triangle = torch.tensor([[[-0.8, -0.6, 2], [0.7, -0.5, 2], [0.1, 0.9, 2.0]]])
    pixel = (2 / 128) ** 2
    alpha = soft_rasterize(triangle, [0, 1], 128, sigma=1e-7, backend=backend).alpha
    assert float(alpha.sum()) * pixel == pytest.approx(0.5 * (1.5 * 1.5 - 0.1 * 0.9), rel=5e-3)
    s = 0.5
    square = torch.tensor([[[-s, -s, 2], [s, -s, 2], [s, s, 2]], [[-s, -s, 2], [s, s, 2], [-s, s, 2.0]]])
    alpha = soft_rasterize(square, [0, 2], 128, sigma=1e-7, backend=backend).alpha
    assert float(alpha.sum()) * pixel == pytest.approx(1.0, rel=5e-3)
    assert float(alpha[0, 40, 80]) == pytest.approx(1)
    assert float(alpha[0, 20, 64]) == 0


def test_nearer_face_hides_the_farther_one():
    near = torch.tensor([[[-0.5, -0.5, 2.0], [0.6, -0.5, 2.0], [0.0, 0.6, 2.0]]])
    far = near + torch.tensor([0, 0, 0.5])
    grey = torch.tensor([[0.3] * 3, [0.9] * 3])
    for order in (slice(None), [1, 0]):
        image = soft_rasterize(torch.cat([near, far])[order], [0, 2], 16, grey[order], gamma=1e-4)
        assert float(image.shade[0, 8, 8]) == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_order_and_winding_of_faces_do_not_matter(backend):
    xyz, _, shade = scene((30,))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    a = soft_rasterize(xyz, [0, 30], 24, shade, backend=backend)
    b = soft_rasterize(xyz[order].flip(1), [0, 30], 24, shade[order].flip(1), backend=backend)
    torch.testing.assert_close(a.alpha, b.alpha, atol=2e-6, rtol=0)
    torch.testing.assert_close(a.shade * a.alpha, b.shade * b.alpha, atol=2e-5, rtol=0)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_ragged_batch_equals_its_items(backend, monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "2")
    xyz, splits, shade = scene()
    batch = soft_rasterize(xyz, splits, 20, shade, backend=backend)
    assert batch.alpha[1].abs().max() == 0
    assert batch.shade[1].abs().max() == 0
    for m, (i, j) in enumerate(itertools.pairwise(splits.tolist())):
        item = soft_rasterize(xyz[i:j], [0, j - i], 20, shade[i:j], backend=backend)
        torch.testing.assert_close(batch.alpha[m], item.alpha[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(batch.shade[m], item.shade[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("with_shade", [True, False])
def test_unusable_faces_draw_nothing_and_stay_finite(backend, with_shade):
    good = torch.tensor([[-0.5, -0.5, 2.0], [0.6, -0.5, 2.0], [0.0, 0.6, 2.0]])
    bad = good.repeat(8, 1, 1)
    bad[0, 1, 2] = -1  # behind the camera
    bad[1, :, 2] = 0.01  # before the near plane
    bad[2, 2, 2] = 1e3  # beyond the far plane
    bad[3] = bad[3, :1]  # a point
    bad[4, 2] = (bad[4, 0] + bad[4, 1]) / 2  # a line
    bad[5, 0, 0] = float("nan")
    bad[6, 1, 1] = float("inf")
    bad[7, 1, 0] = 1e12
    xyz = torch.cat([bad, good[None]])
    shade = torch.full((9, 3), 0.5) if with_shade else None
    x = xyz.clone().requires_grad_()
    out = soft_rasterize(x, [0, 8, 9], 16, shade, backend=backend)
    assert float(out.alpha[0].detach().max()) == 0
    assert float(out.alpha[1].detach().max()) > 0.9
    total = out.alpha.sum() if out.shade is None else (out.alpha * out.shade).sum()
    (gradient,) = torch.autograd.grad(total, x)
    assert gradient.isfinite().all()
    assert gradient[:8].abs().max() == 0
    assert gradient[8].abs().max() > 0


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_lines_have_no_area_whatever_the_rounding(backend):
    g = torch.Generator().manual_seed(0)
    xyz = torch.rand(500, 3, 3, generator=g) + torch.tensor([-0.5, -0.5, 1])
    xyz[:, 2, :2] = xyz[:, 1, :2]  # two corners at one place
    xyz[250:] = xyz[250:].roll(1, 1)
    xyz.requires_grad_()
    out = soft_rasterize(xyz, [0, 500], 16, torch.ones(500, 3), backend=backend)
    assert not out.alpha.any()
    (gradient,) = torch.autograd.grad((out.alpha + out.shade).sum(), xyz)
    assert not gradient.any()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_faces_at_all(backend):
    xyz = torch.zeros(0, 3, 3, requires_grad=True)
    out = soft_rasterize(xyz, [0, 0, 0], (4, 6), torch.zeros(0, 3), backend=backend)
    assert out.alpha.shape == out.shade.shape == (2, 4, 6)
    assert not out.alpha.any()
    assert not out.shade.any()
    assert soft_rasterize(xyz, [0], 4, backend=backend).alpha.shape == (0, 4, 4)


def test_far_plane_costs_no_precision():
    """Depths enter as differences, so planes at 1 and 1000 give what near ones give at the same softness."""
    xyz, splits, shade = scene((30,))
    tight = soft_rasterize(xyz, splits, 24, shade, near=1.0, far=11.0, gamma=1e-2)
    wide = soft_rasterize(xyz, splits, 24, shade, near=1.0, far=1001.0, gamma=1e-4)
    torch.testing.assert_close(tight.shade, wide.shade, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"face_xyz": torch.zeros(4, 3)}, r"face_xyz \(F,3,3\)"),
        ({"splits": [0, 3]}, "splits that rise"),
        ({"splits": [0, 5, 4]}, "splits that rise"),
        ({"face_shade": torch.zeros(4)}, "face_shade"),
        ({"image_size": 0}, "at least one pixel"),
        ({"sigma": 0.0}, "sigma, gamma > 0"),
        ({"near": 5.0, "far": 2.0}, "near < far"),
        ({"face_xyz": torch.zeros(4, 3, 3).double(), "backend": "cpu"}, "float32 tensors on the CPU"),
        ({"backend": "gpu"}, "has the backends"),
    ],
)
def test_wrong_arguments_are_named(change, says):
    call = {"face_xyz": torch.zeros(4, 3, 3), "splits": [0, 4], "image_size": 8, **change}
    with pytest.raises(ReconlabError, match=says):
        soft_rasterize(**call)
