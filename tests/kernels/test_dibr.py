"""DIB-R: the reference against the printed formula and finite differences, numba against the reference, bad input."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.dibr import dibr_rasterize
from reconlab.kernels.zbuffer import zbuffer

BACKENDS = ["cpu", "reference"]


def scene(faces=(25, 0, 35), spread=0.15, seed=0):
    """Random triangles around the image, some partly or wholly outside of it."""
    g = torch.Generator().manual_seed(seed)
    n = sum(faces)
    xy = torch.rand(n, 1, 2, generator=g) * 2.4 - 1.2 + torch.randn(n, 3, 2, generator=g) * spread
    z = 2.2 + torch.rand(n, 3, 1, generator=g)
    splits = torch.tensor([0, *faces]).cumsum(0)
    return torch.cat([xy, z], -1), splits, torch.rand(n, 3, generator=g)


def oracle(xyz, shade, size, delta, cutoff):
    """The paper's formulas for one image, pixel by pixel, written apart from the kernel; alpha and grey value."""
    alpha, grey = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    inverses = torch.linalg.inv(torch.cat([xyz[..., :2], torch.ones_like(xyz[..., :1])], 2)).tolist()
    for i, j in itertools.product(range(size[0]), range(size[1])):
        x, y = (2 * j + 1) / size[1] - 1, (2 * i + 1) / size[0] - 1
        nearest, through = None, 1.0
        for corners, values, m in zip(xyz.tolist(), shade.tolist(), inverses, strict=True):
            bary = [x * m[0][k] + y * m[1][k] + m[2][k] for k in range(3)]
            if min(bary) >= 0:
                inverse = sum(b / c[2] for b, c in zip(bary, corners, strict=True))
                value = sum(b / c[2] * s for b, c, s in zip(bary, corners, values, strict=True)) / inverse
                nearest = max(nearest or (0, 0), (inverse, value))
            distance = math.inf
            for a, b in itertools.pairwise([*corners, corners[0]]):
                ex, ey = b[0] - a[0], b[1] - a[1]
                t = min(max(((x - a[0]) * ex + (y - a[1]) * ey) / (ex * ex + ey * ey), 0), 1)
                distance = min(distance, math.hypot(x - a[0] - t * ex, y - a[1] - t * ey))
            cover = math.exp(-(distance**2) / delta)
            through *= 1 - cover if cover > cutoff else 1
        alpha[i, j] = 1 if nearest else 1 - through
        grey[i, j] = nearest[1] if nearest else 0
    return alpha, grey


def test_the_reference_is_the_formula():
    xyz, _, shade = scene((8,), spread=0.5)
    xyz, shade = xyz.double(), shade.double()
    image = dibr_rasterize(xyz, [0, 8], (9, 12), shade, delta=5e-3, backend="reference")
    alpha, grey = oracle(xyz, shade, (9, 12), 5e-3, 1e-3)
    torch.testing.assert_close(image.alpha[0], alpha)
    torch.testing.assert_close(image.shade[0], grey)
    assert 0.2 < (alpha == 1).double().mean() < 0.8


def test_reference_gradients_are_those_of_finite_differences():
    xyz, _, shade = scene((4,), spread=0.4)

    def render(xyz, shade):
        result = dibr_rasterize(xyz, [0, 4], 5, shade, delta=0.05, cutoff=1e-9, backend="reference")
        return result.alpha, result.shade

    assert torch.autograd.gradcheck(render, (xyz.double().requires_grad_(), shade.double().requires_grad_()))


def run(xyz, splits, size, shade, dtype, backend, **kw):
    x, c = xyz.to(dtype).requires_grad_(), shade.to(dtype).requires_grad_()
    image = dibr_rasterize(x, splits, size, c, backend=backend, **kw)
    only = dibr_rasterize(x, splits, size, backend=backend, **kw)
    assert only.shade is None
    assert torch.equal(only.alpha, image.alpha)
    weight = torch.randn(*image.alpha.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [
        image.alpha.detach(),
        image.shade.detach(),
        *torch.autograd.grad((only.alpha * weight).sum(), x),
        *torch.autograd.grad((image.shade * weight).sum(), (x, c), retain_graph=True),
        *torch.autograd.grad((image.shade * weight + image.alpha * weight.flip(1)).sum(), (x, c)),
    ]


@pytest.mark.parametrize("size", [16, (17, 37), (40, 5), 2, 1])
@pytest.mark.parametrize("delta", [1 / 7000, 1e-2])
def test_numba_is_the_reference(size, delta):
    xyz, splits, shade = scene()
    fast = run(xyz, splits, size, shade, torch.float32, "cpu", delta=delta)
    exact = run(xyz, splits, size, shade, torch.float64, "reference", delta=delta)
    for mine, theirs in zip(fast, exact, strict=True):
        assert float((mine - theirs).norm()) < 3e-5 * float(theirs.norm()) + 1e-6
    if size == 16:
        assert exact[2].norm() > 10
        assert exact[3].norm() > 10


number = st.floats(-1.5, 1.5, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[number] * 6, *[st.floats(0.125, 4, width=32)] * 3), min_size=1, max_size=4))
def test_any_triangles_agree_within_rounding(corners):
    flat = torch.tensor(corners)
    xyz = torch.cat([flat[:, :6].view(-1, 3, 2), flat[:, 6:, None]], -1)
    xyz = xyz + 1e-3 * torch.sin(torch.arange(xyz.numel()).view_as(xyz) * 1.7)  # no corner on a pixel's centre
    shade = torch.linspace(0.1, 1, 3).expand(len(xyz), 3).contiguous()
    fast = run(xyz, [0, len(xyz)], 9, shade, torch.float32, "cpu", delta=1e-2)
    exact = run(xyz, [0, len(xyz)], 9, shade, torch.float64, "reference", delta=1e-2)
    ab, ac = xyz[:, 1, :2] - xyz[:, 0, :2], xyz[:, 2, :2] - xyz[:, 0, :2]
    slivers = (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]).abs() < 1e-3
    for mine, theirs in zip(fast, exact, strict=True):
        assert mine.isfinite().all()
        if not slivers.any():
            assert float((mine - theirs).norm()) < 1e-3 * float(theirs.norm()) + 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_foreground_is_the_z_buffers_and_has_no_gradient_in_alpha(backend):
    xyz, splits, shade = scene((40,))
    x = xyz.clone().requires_grad_()
    image = dibr_rasterize(x, splits, 24, shade, backend=backend)
    hits = zbuffer(xyz, splits, 24, barycentrics=True)
    seen = hits.face >= 0
    assert (image.alpha[seen] == 1).all()
    assert (image.alpha[~seen] < 1).all()
    torch.testing.assert_close(image.shade, (hits.bary * shade[hits.face.clamp(min=0).long()]).sum(-1))
    (gradient,) = torch.autograd.grad(image.alpha[seen].sum(), x)
    assert not gradient.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_edge_beside_a_pixel_by_hand(backend):
    """One pixel beside a vertical edge: alpha = exp(-d²/δ), and its slope by the edge's shift 2 d/δ alpha."""
    edge, delta = 0.1, 0.02
    xyz = torch.tensor([[[edge, -3.0, 2], [edge, 3.0, 2], [-3.0, 0.0, 2]]], requires_grad=True)
    alpha = dibr_rasterize(xyz, [0, 1], 8, delta=delta, backend=backend).alpha[0, 4]
    d = 0.375 - edge  # the centre of column 5
    expected = math.exp(-d * d / delta)
    assert alpha[5].item() == pytest.approx(expected, rel=1e-5)
    alpha[5].backward()
    gradient = xyz.grad[0]
    assert (gradient[0, 0] + gradient[1, 0]).item() == pytest.approx(2 * d / delta * expected, rel=1e-4)
    # The centre's row lies 0.125 below the middle of the edge, of length 6
    assert (gradient[1, 0] / (gradient[0, 0] + gradient[1, 0])).item() == pytest.approx(0.5 + 0.125 / 6, rel=1e-4)
    assert not gradient[2].any()
    assert gradient[:, 2].abs().max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_square_finds_its_place_and_its_size(backend):
    corner = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * 0.45
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])

    def place(shift, scale):
        xy = corner * scale + shift
        return torch.cat([xy, torch.full((4, 1), 2.0)], 1)[faces]

    target = dibr_rasterize(place(torch.tensor([0.25, 0.05]), 1.0), [0, 2], 24, delta=3e-3).alpha
    shift, scale = torch.tensor([0.1, 0.0], requires_grad=True), torch.tensor(0.8, requires_grad=True)
    optimizer = torch.optim.Adam([shift, scale], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        alpha = dibr_rasterize(place(shift, scale), [0, 2], 24, delta=3e-3, backend=backend).alpha
        (alpha - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(shift.detach(), torch.tensor([0.25, 0.05]), atol=0.05, rtol=0)
    assert scale.item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_batch_equals_its_items(backend, monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "2")
    xyz, splits, shade = scene()
    xyz.requires_grad_()
    weight = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0))
    batch = dibr_rasterize(xyz, splits, 12, shade, backend=backend)
    (together,) = torch.autograd.grad((batch.alpha * weight).sum() + (batch.shade * weight).sum(), xyz)
    assert not batch.alpha[1].any()
    for m, (i, j) in enumerate(itertools.pairwise(splits.tolist())):
        part = xyz[i:j].detach().requires_grad_()
        item = dibr_rasterize(part, [0, j - i], 12, shade[i:j], backend=backend)
        torch.testing.assert_close(batch.alpha[m], item.alpha[0])
        (alone,) = torch.autograd.grad((item.alpha * weight[m]).sum() + (item.shade * weight[m]).sum(), part)
        torch.testing.assert_close(together[i:j], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unusable_faces_draw_nothing_and_stay_finite(backend):
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
    x = torch.cat([bad, good[None]]).requires_grad_()
    out = dibr_rasterize(x, [0, 8, 9], 16, torch.full((9, 3), 0.5), delta=1e-2, backend=backend)
    assert not out.alpha[0].any()
    assert out.alpha[1].any()
    weight = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(((out.alpha + out.shade) * weight).sum(), x)
    assert gradient.isfinite().all()
    assert not gradient[:8].any()
    assert gradient[8].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_centre_on_the_outline_stays_finite(backend):
    """Centres at distance 0 of a face are covered; those within rounding of it have cover 1 and no slope."""
    xyz = torch.tensor([[[-0.75, -0.75, 2.0], [0.25, -0.75, 2.0], [-0.75, 0.25, 2.0]]])
    for shift in (0.0, 1e-7, -1e-7):
        x = (xyz + torch.tensor([shift, shift, 0])).requires_grad_()
        alpha = dibr_rasterize(x, [0, 1], 8, delta=1e-2, backend=backend).alpha
        (gradient,) = torch.autograd.grad(alpha.sum(), x)
        assert alpha.isfinite().all()
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 200


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_faces_at_all(backend):
    xyz = torch.zeros(0, 3, 3, requires_grad=True)
    out = dibr_rasterize(xyz, [0, 0, 0], (4, 6), torch.zeros(0, 3), backend=backend)
    assert out.alpha.shape == out.shade.shape == (2, 4, 6)
    assert not out.alpha.any()
    (gradient,) = torch.autograd.grad((out.alpha + out.shade).sum(), xyz)
    assert gradient.shape == (0, 3, 3)
    assert dibr_rasterize(xyz, [0], 4, backend=backend).alpha.shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"face_xyz": torch.zeros(4, 3)}, r"face_xyz \(F,3,3\)"),
        ({"splits": [0, 3]}, "splits that rise"),
        ({"face_shade": torch.zeros(4)}, "face_shade"),
        ({"image_size": 0}, "at least one pixel"),
        ({"delta": 0.0}, "delta > 0"),
        ({"cutoff": 1.0}, "cutoff < 1"),
        ({"backend": "gpu"}, "backends auto, cpu and reference"),
        ({"face_xyz": torch.zeros(4, 3, 3).double(), "backend": "cpu"}, "backend='auto'"),
    ],
)
def test_wrong_arguments_are_named(change, says):
    call = {"face_xyz": torch.zeros(4, 3, 3), "splits": [0, 4], "image_size": 8, **change}
    with pytest.raises(ReconlabError, match=says):
        dibr_rasterize(**call)
