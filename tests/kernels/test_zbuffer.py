"""The z-buffer: numba against the torch reference and both against hand-made cases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.zbuffer import zbuffer

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "reference"])


def soup(count, spread, seed=0):
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, 1, 2, generator=g) * 2 - 1 + torch.randn(count, 3, 2, generator=g) * spread
    return torch.cat([xy, torch.rand(count, 3, 1, generator=g) + 1], -1)


@pytest.mark.parametrize("spread", [0.02, 0.3, 20.0])
def test_numba_is_the_reference(spread, monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "2")
    xyz, splits = soup(700, spread), [0, 300, 300, 700]
    fast = zbuffer(xyz, splits, (33, 50), barycentrics=True, backend="cpu")
    slow = zbuffer(xyz, splits, (33, 50), barycentrics=True, backend="reference")
    assert (fast.face >= 0).any()
    assert (fast.face[1] == -1).all()
    assert fast.depth[1].isinf().all()
    assert torch.equal(fast.face, slow.face)
    torch.testing.assert_close(fast.depth, slow.depth)
    torch.testing.assert_close(fast.bary, slow.bary)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-3, 3, width=32)] * 6, *[st.floats(-1, 5, width=32)] * 3), min_size=1, max_size=5)
)
def test_random_triangles_agree(corners):
    flat = torch.tensor(corners)
    xyz = torch.cat([flat[:, :6].view(-1, 3, 2), flat[:, 6:, None]], -1)
    fast, slow = (zbuffer(xyz, [0, len(xyz)], 9, backend=b) for b in ("cpu", "reference"))
    same = fast.face == slow.face  # equal depths and centres on edges may fall to either within rounding
    assert same.float().mean() > 0.9 or torch.allclose(fast.depth[~same], slow.depth[~same], rtol=1e-4)
    torch.testing.assert_close(fast.depth[same], slow.depth[same], rtol=1e-3, atol=0)
    assert (fast.depth >= 1e-4).all()


@BACKENDS
def test_depth_is_perspective_correct(backend):
    """The plane z = 2 + x_cam, seen with focal length 1: z = 2 / (1 - x)."""
    x = torch.tensor([-0.9, 0.5, -0.9])
    y = torch.tensor([-0.9, -0.9, 0.9])
    triangle = torch.stack([x, y, 2 / (1 - x)], -1)[None]
    result = zbuffer(triangle, [0, 1], 40, barycentrics=True, backend=backend)
    inside = result.face[0] == 0
    centres = (2 * torch.arange(40) + 1) / 40 - 1
    expected = (2 / (1 - centres)).expand(40, 40)
    assert int(inside.sum()) == pytest.approx(0.5 * 1.4 * 1.8 * 400, rel=0.05)
    torch.testing.assert_close(result.depth[0][inside], expected[inside], rtol=1e-5, atol=0)
    # Barycentrics give the point on the surface back.
    point = result.bary[0][inside] @ (triangle[0] * torch.tensor([1, 1, 1.0]) * triangle[0, :, 2:])[:, :2]
    torch.testing.assert_close(point[:, 0], (centres.expand(40, 40) * expected)[inside], rtol=1e-4, atol=1e-5)
    assert result.bary[0][~inside].abs().max() == 0


@BACKENDS
def test_nearest_wins_and_the_first_of_equals(backend):
    a = torch.tensor([[-3.0, -3.0, 2.0], [3.0, -3.0, 2.0], [0.0, 3.0, 2.0]])
    near, far = a - torch.tensor([0, 0, 1.0]), a + torch.tensor([0, 0, 1.0])
    assert (zbuffer(torch.stack([far, a, near]), [0, 3], 4, backend=backend).face == 2).all()
    assert (zbuffer(torch.stack([far, near, near.flip(0)]), [0, 3], 4, backend=backend).face == 1).all()


@BACKENDS
def test_adjacent_faces_leave_no_cracks(backend):
    """A fan around pixel centres and corners covers the image wholly, thin wedges too."""
    angle = torch.linspace(0, 2 * torch.pi, 400)
    rim = 5 * torch.stack([angle.cos(), angle.sin()], -1)
    rim[-1] = rim[0]
    for hub in ([1 / 64, 1 / 64], [0.013, -0.37]):
        fan = torch.stack([torch.tensor(hub).expand(399, 2), rim[:-1], rim[1:]], 1)
        fan = torch.cat([fan, torch.ones(399, 3, 1)], -1)
        found = zbuffer(fan, [0, 399], 64, backend=backend)
        assert (found.face >= 0).all()
        assert (found.depth == 1).all()  # to the bit: areas and weights are float64


@BACKENDS
def test_unusable_faces_are_skipped(backend):
    good = torch.tensor([[-3.0, -3.0, 2.0], [3.0, -3.0, 2.0], [0.0, 3.0, 2.0]])
    bad = good.repeat(5, 1, 1)
    bad[0, 0, 2] = -1
    bad[1, 1, 0] = float("nan")
    bad[2, 2, 2] = float("inf")
    bad[3] = bad[3, :1]
    bad[4, :, 2] = 0
    result = zbuffer(torch.cat([bad, good[None]]), [0, 6], 4, backend=backend)
    assert (result.face == 5).all()
    assert (result.depth == 2).all()
    empty = zbuffer(torch.zeros(0, 3, 3), [0, 0], (2, 3), barycentrics=True, backend=backend)
    assert empty.depth.isinf().all()
    assert empty.bary.shape == (1, 2, 3, 3)


def test_wrong_arguments_are_named():
    with pytest.raises(ReconlabError, match=r"face_xyz \(F,3,3\)"):
        zbuffer(torch.zeros(3, 3), [0, 3], 8)
    with pytest.raises(ReconlabError, match="splits that rise"):
        zbuffer(torch.zeros(3, 3, 3), [0, 2], 8)
