"""NMR's ramps: by hand, numba against the reference, direction of the pull, occlusion, bad input."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.nmr import nmr_rasterize
from reconlab.kernels.zbuffer import zbuffer

BACKENDS = ["cpu", "reference"]


def scene(faces=(25, 0, 35), spread=0.25, seed=0):
    """Random triangles around the image, some partly or wholly outside of it."""
    g = torch.Generator().manual_seed(seed)
    n = sum(faces)
    xy = torch.rand(n, 1, 2, generator=g) * 2.4 - 1.2 + torch.randn(n, 3, 2, generator=g) * spread
    z = 2.2 + torch.rand(n, 3, 1, generator=g)
    splits = torch.tensor([0, *faces]).cumsum(0)
    return torch.cat([xy, z], -1), splits, torch.rand(n, 3, generator=g)


def square(x0, y0, x1, y1, z=2.0):
    a, b, c, d = ([x, y, z] for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    return torch.tensor([[a, b, c], [a, c, d]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("eps", [1e-3, 0.1])
def test_a_pixel_outside_pulls_the_edge_as_computed_by_hand(backend, eps):
    xyz = torch.tensor([[[-0.5, 0.5, 2.0], [0.5, 0.5, 2.0], [0.0, -0.5, 2.0]]], requires_grad=True)
    alpha = nmr_rasterize(xyz, [0, 1], 8, eps=eps, backend=backend).alpha
    (-alpha[0, 4, 7]).backward()  # the pixel at (0.875, 0.125) should be covered
    # Along x the right edge (0.5, 0.5)-(0, -0.5) is met at t = 0.375, x = 0.3125. No edge is above or below.
    t, distance = 0.375, 0.875 - 0.3125
    expected = torch.zeros(1, 3, 3)
    expected[0, 1, 0] = -1 / (distance / (1 - t) + eps)
    expected[0, 2, 0] = -1 / (distance / t + eps)
    torch.testing.assert_close(xyz.grad, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pixel_inside_lets_both_edges_in(backend):
    xyz = torch.tensor([[[-0.7, 0.5, 2.0], [0.7, 0.5, 2.0], [0.0, -0.9, 2.0]]], requires_grad=True)
    alpha = nmr_rasterize(xyz, [0, 1], 8, eps=1e-3, backend=backend).alpha
    alpha[0, 4, 4].backward()  # the pixel at (0.125, 0.125) should be uncovered
    got = xyz.grad[0]
    left, right = -0.7 + 0.375 / 2, 0.7 - 0.375 / 2  # where the slanted edges meet the row: 0.375 below the top
    t = 0.375 / 1.4  # from the top corner of each to the lower one
    torch.testing.assert_close(got[0, 0].item(), -1 / ((0.125 - left) / (1 - t) + 1e-3), rtol=1e-4, atol=0)
    torch.testing.assert_close(got[1, 0].item(), -1 / ((0.125 - right) / (1 - t) - 1e-3), rtol=1e-4, atol=0)
    assert got[0, 0] < 0 < got[1, 0], "descent moves both inwards, past the pixel"
    # Along y the column meets the top edge at t = 0.825 / 1.4 from corner 0, and the right edge below.
    t = 0.825 / 1.4
    torch.testing.assert_close(got[0, 1].item(), -1 / ((0.125 - 0.5) / (1 - t) - 1e-3), rtol=1e-4, atol=0)
    assert (got[:, 2] == 0).all()


def run(xyz, splits, size, shade, dtype, backend, **kw):
    x, c = xyz.to(dtype).requires_grad_(), shade.to(dtype).requires_grad_()
    image = nmr_rasterize(x, splits, size, c, backend=backend, **kw)
    only = nmr_rasterize(x, splits, size, backend=backend, **kw)
    assert only.shade is None
    assert torch.equal(only.alpha, image.alpha)
    weight = torch.randn(*image.alpha.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [
        image.shade.detach(),
        *torch.autograd.grad((image.alpha * weight).sum(), x, retain_graph=True),
        *torch.autograd.grad((image.shade * weight).sum(), (x, c), retain_graph=True),
        *torch.autograd.grad((image.shade * weight + image.alpha * weight.flip(1)).sum(), x),
    ]


@pytest.mark.parametrize("size", [16, (17, 37), (40, 5), 2, 1])
def test_numba_is_the_reference(size):
    xyz, splits, shade = scene()
    fast = run(xyz, splits, size, shade, torch.float32, "cpu")
    exact = run(xyz, splits, size, shade, torch.float64, "reference")
    for mine, theirs in zip(fast, exact, strict=True):
        assert float((mine - theirs).norm() / (theirs.norm() + 1e-9)) < 2e-5
    if size == 16:
        assert exact[1].norm() > 1000


number = st.floats(-1.5, 1.5, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[number] * 6, *[st.floats(0.125, 4, width=32)] * 3), min_size=1, max_size=4))
def test_any_triangles_agree_within_rounding(corners):
    flat = torch.tensor(corners)
    xyz = torch.cat([flat[:, :6].view(-1, 3, 2), flat[:, 6:, None]], -1)
    xyz = xyz + 1e-3 * torch.sin(torch.arange(xyz.numel()).view_as(xyz) * 1.7)  # no corner on a pixel's centre
    shade = torch.linspace(0.1, 1, 3).expand(len(xyz), 3).contiguous()
    fast = run(xyz, [0, len(xyz)], 9, shade, torch.float32, "cpu", eps=0.05)
    slow = run(xyz, [0, len(xyz)], 9, shade, torch.float64, "reference", eps=0.05)
    for mine, theirs in zip(fast, slow, strict=True):
        assert mine.isfinite().all()
        assert float((mine - theirs).norm()) < 1e-3 * float(theirs.norm()) + 1e-3


def test_the_reference_does_not_depend_on_its_chunks(monkeypatch):
    from reconlab.kernels.nmr import reference

    xyz, splits, _ = scene()
    seen = zbuffer(xyz, splits, 12).face
    image = (seen >= 0).float()
    grad = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    whole = reference.ramp_gradient(xyz[..., :2], splits, seen, image, grad, 1e-3)
    parts = reference.ramp_gradient(xyz[..., :2], splits, seen, image, grad, 1e-3, budget=1)
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_images_are_the_z_buffers(backend):
    xyz, splits, shade = scene((40,))
    image = nmr_rasterize(xyz, splits, 24, shade, backend=backend)
    hits = zbuffer(xyz, splits, 24, barycentrics=True)
    assert torch.equal(image.alpha, (hits.face >= 0).float())
    expected = (hits.bary * shade[hits.face.clamp(min=0).long()]).sum(-1)
    torch.testing.assert_close(image.shade, expected)
    assert not image.shade[image.alpha == 0].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_an_edge_goes_where_pixels_want_to_be_covered(backend, axis):
    xyz = square(-0.55, -0.55, 0.15, 0.15).requires_grad_()
    alpha = nmr_rasterize(xyz, [0, 2], 16, backend=backend).alpha
    wanted = torch.zeros(1, 16, 16)
    part = wanted[:, 4:9] if axis == 0 else wanted[:, :, 4:9].transpose(1, 2)
    part[:, :, 10:14] = 1
    (-(alpha * wanted).sum()).backward()
    near = xyz[..., axis].detach() > 0
    pull = -xyz.grad[..., axis]
    assert (pull[near] >= 0).all(), "descent moves it up the axis"
    # The far side is pulled by the diagonal alone, an edge like any other
    assert (pull[~near] >= 0).all()
    assert pull[~near].sum() < 0.3 * pull[near].sum()
    # The other way round: pixels that are covered and should not be
    xyz.grad = None
    alpha = nmr_rasterize(xyz, [0, 2], 16, backend=backend).alpha
    alpha[:, :, 8:].sum().backward() if axis == 0 else alpha[:, 8:].sum().backward()
    assert (xyz.grad[..., axis][near] >= 0).all()
    assert xyz.grad[..., axis][near].sum() > 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_hidden_edges_are_not_pulled(backend):
    hidden, wall = square(-0.3, -0.3, 0.3, 0.3, z=3.0), square(-0.6, -0.6, 0.6, 0.6)
    xyz = torch.cat([hidden, wall]).requires_grad_()
    image = nmr_rasterize(xyz, [0, 4], 16, torch.tensor([[0.2] * 3] * 2 + [[0.9] * 3] * 2), backend=backend)
    weight = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    ((image.alpha + image.shade) * weight).sum().backward()
    assert not xyz.grad[:2].any()
    assert xyz.grad[2:].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_that_are_as_wanted_pull_nothing(backend):
    xyz = square(-0.55, -0.55, 0.15, 0.15).requires_grad_()
    alpha = nmr_rasterize(xyz, [0, 2], 16, backend=backend).alpha
    target = alpha.detach()
    ((alpha - 0.1) * (1 - target) - alpha * target).sum().backward()
    assert not xyz.grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_square_finds_its_place_and_its_size(backend):
    target = nmr_rasterize(square(-0.2, -0.4, 0.7, 0.5), [0, 2], 24).alpha
    shift, scale = torch.tensor([-0.3, 0.2], requires_grad=True), torch.tensor(0.55, requires_grad=True)
    optimizer = torch.optim.Adam([shift, scale], lr=0.02)
    unit = square(-0.45, -0.45, 0.45, 0.45)
    path = []
    for _ in range(100):
        optimizer.zero_grad()
        xyz = torch.cat([unit[..., :2] * scale + shift, unit[..., 2:]], -1)
        alpha = nmr_rasterize(xyz, [0, 2], 24, backend=backend).alpha
        (alpha - target).square().mean().backward()
        optimizer.step()
        path.append(torch.cat([shift, scale[None]]).detach().clone())
    # The image is hard: at the end the square steps to and fro over the pixels' centres, 0.083 apart.
    x, y, side = torch.stack(path[-40:]).mean(0).tolist()
    assert (x, y) == pytest.approx((0.25, 0.05), abs=0.05)
    assert side == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_batch_equals_its_items(backend, monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "2")
    xyz, splits, shade = scene()
    xyz.requires_grad_()
    weight = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0))
    batch = nmr_rasterize(xyz, splits, 12, shade, backend=backend)
    (together,) = torch.autograd.grad((batch.alpha * weight).sum() + (batch.shade * weight).sum(), xyz)
    assert not batch.alpha[1].any()
    for m, (i, j) in enumerate(itertools.pairwise(splits.tolist())):
        part = xyz[i:j].detach().requires_grad_()
        item = nmr_rasterize(part, [0, j - i], 12, shade[i:j], backend=backend)
        torch.testing.assert_close(batch.shade[m], item.shade[0])
        (alone,) = torch.autograd.grad((item.alpha * weight[m]).sum() + (item.shade * weight[m]).sum(), part)
        torch.testing.assert_close(together[i:j], alone)


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
    out = nmr_rasterize(x, [0, 8, 9], 16, torch.full((9, 3), 0.5), backend=backend)
    assert not out.alpha[0].any()
    assert out.alpha[1].any()
    weight = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(((out.alpha + out.shade) * weight).sum(), x)
    assert gradient.isfinite().all()
    assert not gradient[:8].any()
    assert gradient[8].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_faces_at_all(backend):
    xyz = torch.zeros(0, 3, 3, requires_grad=True)
    out = nmr_rasterize(xyz, [0, 0, 0], (4, 6), torch.zeros(0, 3), backend=backend)
    assert out.alpha.shape == out.shade.shape == (2, 4, 6)
    assert not out.alpha.any()
    (gradient,) = torch.autograd.grad((out.alpha + out.shade).sum(), xyz)
    assert gradient.shape == (0, 3, 3)
    assert nmr_rasterize(xyz, [0], 4, backend=backend).alpha.shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"face_xyz": torch.zeros(4, 3)}, r"face_xyz \(F,3,3\)"),
        ({"splits": [0, 3]}, "splits that rise"),
        ({"face_shade": torch.zeros(4)}, "face_shade"),
        ({"image_size": 0}, "at least one pixel"),
        ({"eps": 0.0}, "eps > 0"),
        ({"near": 5.0, "far": 2.0}, "near < far"),
        ({"face_xyz": torch.zeros(4, 3, 3).double(), "backend": "cpu"}, "backend='auto'"),
    ],
)
def test_wrong_arguments_are_named(change, says):
    call = {"face_xyz": torch.zeros(4, 3, 3), "splits": [0, 4], "image_size": 8, **change}
    with pytest.raises(ReconlabError, match=says):
        nmr_rasterize(**call)
