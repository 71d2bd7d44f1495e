"""The z-buffer by Triton: the numba kernel's images; in the interpreter without a GPU."""

import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.kernels.zbuffer import zbuffer
from tests.kernels.test_zbuffer import soup

pytest.importorskip("triton")

from reconlab.kernels.zbuffer import cuda


def check(device, xyz, splits, size, **kw):
    mine = zbuffer(xyz.to(device), splits, size, barycentrics=True, backend="cuda", **kw)
    numba = zbuffer(xyz, splits, size, barycentrics=True, backend="cpu", **kw)
    assert torch.equal(mine.face.cpu(), numba.face)
    assert mine.face.dtype == torch.int32
    assert torch.equal(mine.depth.cpu(), numba.depth)
    torch.testing.assert_close(mine.bary.cpu(), numba.bary, rtol=1e-6, atol=1e-7)
    return numba


@pytest.mark.parametrize(("count", "spread"), [(90, 0.05), (30, 0.4), (12, 20.0)])
def test_is_the_numba_kernel(triton_device, count, spread):
    """Several images, one empty; sizes that are no multiple of the tile; from faces smaller than a pixel up."""
    found = check(triton_device, soup(count, spread), [0, count // 3, count // 3, count], (9, 14))
    assert (found.face >= 0).any()
    assert (found.face[1] == -1).all()


def test_edges_through_pixel_centres_go_to_the_first_face(triton_device):
    """A grid of squares, two triangles each, whose corners and edges all pass through centres, in two layers."""
    line = (2 * torch.tensor([0, 1, 3, 5, 7]) + 1) / 8 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    corner = torch.stack([x, y, torch.ones_like(x)], -1)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]
    faces = torch.stack([torch.stack([a, b, c], 2), torch.stack([a, c, d], 2)], 2).reshape(-1, 3, 3)
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    found = check(triton_device, torch.cat([faces[order] + torch.tensor([0, 0, 1.0]), faces, faces]), [0, 96], 8)
    assert bool(((found.face >= 32) & (found.face < 64)).all())


def test_a_fan_leaves_no_cracks(triton_device):
    angle = torch.linspace(0, 2 * torch.pi, 40)
    rim = 5 * torch.stack([angle.cos(), angle.sin()], -1)
    rim[-1] = rim[0]
    fan = torch.stack([torch.tensor([1 / 8, 1 / 8]).expand(39, 2), rim[:-1], rim[1:]], 1)
    found = check(triton_device, torch.cat([fan, torch.ones(39, 3, 1)], -1), [0, 39], 8)
    assert (found.face >= 0).all()


def test_parts_are_merged_and_the_first_of_equals_wins(triton_device):
    xyz, splits = soup(140, 0.3), torch.tensor([0, 140])
    xyz[70:] = xyz[:70]  # each face twice, often in different parts
    xyz = xyz.to(triton_device)
    whole = cuda.zbuffer(xyz, splits, 8, 8, 1e-4, True, parts=1)
    for mine, theirs in zip(cuda.zbuffer(xyz, splits, 8, 8, 1e-4, True, parts=3), whole, strict=True):
        assert torch.equal(mine, theirs)
    assert int(whole[1].max()) < 70


def test_unusable_faces_are_skipped(triton_device):
    good = torch.tensor([[-3.0, -3.0, 2.0], [3.0, -3.0, 2.0], [0.0, 3.0, 2.0]])
    bad = good.repeat(7, 1, 1)
    bad[0, 0, 2] = -1
    bad[1, 1, 0] = float("nan")
    bad[2, 2, 2] = float("inf")
    bad[3] = bad[3, :1]
    bad[4, :, 2] = 0
    bad[5, 1, 1] = float("-inf")
    bad[6, 0, 2] = float("nan")
    found = check(triton_device, torch.cat([bad, good[None]]), [0, 8], 4)
    assert (found.face == 7).all()
    huge = good.clone()
    huge[:, :2] *= 1e30
    check(triton_device, torch.stack([huge, good]), [0, 2], 4)


def test_nothing_to_draw(triton_device):
    empty = zbuffer(torch.zeros(0, 3, 3, device=triton_device), [0, 0], (2, 3), barycentrics=True, backend="cuda")
    assert empty.depth.isinf().all()
    assert (empty.face == -1).all()
    assert empty.bary.shape == (1, 2, 3, 3)
    assert zbuffer(torch.zeros(0, 3, 3, device=triton_device), [0], 4, backend="cuda").depth.shape == (0, 4, 4)


def test_other_precisions_are_drawn_in_float32(triton_device):
    xyz = soup(6, 0.5)
    plain = zbuffer(xyz.to(triton_device), [0, 6], 8, backend="cuda")
    double = zbuffer(xyz.double().to(triton_device), [0, 6], 8, backend="cuda")
    assert torch.equal(plain.face, double.face)
    assert torch.equal(plain.depth, double.depth)


def test_backends_are_named():
    with pytest.raises(ReconlabError, match=r"zbuffer\(\) has the backends auto, reference, cpu, cuda"):
        zbuffer(torch.zeros(1, 3, 3), [0, 1], 4, backend="gpu")


def test_work_is_counted():
    assert cuda.work(10, 2, 3) == (280.0, 96.0)
