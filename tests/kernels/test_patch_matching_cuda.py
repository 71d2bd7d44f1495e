"""Patch matching by Triton: against the reference and hand-computed cases; in the interpreter without a GPU."""

import pytest
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.patch_matching import match_patches

pytest.importorskip("triton")

from reconlab.kernels.patch_matching import cuda


def grids(shape: tuple[int, ...], device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(shape, generator=g).to(device).requires_grad_() for _ in range(2))
    return query, key, torch.randn(shape[:3], generator=g).to(device)


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 1, 3, 1), (3, 5, 1, 130), (1, 3, 3, 128)])
def test_agrees_with_the_reference(triton_device: torch.device, shape: tuple[int, ...], radius: int) -> None:
    query, key, upstream = grids(shape, triton_device)
    distance, index = match_patches(query, key, radius, backend="cuda")
    expected, where = match_patches(query, key, radius, backend="reference")
    assert index.dtype == torch.int64
    assert torch.equal(index, where)
    torch.testing.assert_close(distance, expected)
    got = torch.autograd.grad(distance, (query, key), upstream)
    right = torch.autograd.grad(expected, (query, key), upstream)
    for g, e in zip(got, right, strict=True):
        torch.testing.assert_close(g, e)


def test_gradient_is_the_slope_of_the_value(triton_device: torch.device) -> None:
    query, key, upstream = grids((2, 3, 4, 7), triton_device, 1)
    distance, _ = match_patches(query, key, 1, backend="cuda")
    slopes = torch.autograd.grad(distance, (query, key), upstream)
    g = torch.Generator().manual_seed(2)
    for which, slope in enumerate(slopes):
        motion = torch.randn(slope.shape, generator=g).to(triton_device)
        ends = []
        for step in (1e-3, -1e-3):
            moved = [query.detach(), key.detach()]
            moved[which] = moved[which] + step * motion
            ends.append((match_patches(*moved, 1, backend="cuda")[0] * upstream).double().sum())
        numeric = (ends[0] - ends[1]).item() / 2e-3
        assert (slope * motion).sum().item() == pytest.approx(numeric, rel=2e-3, abs=2e-3)


def test_ties_go_to_the_undisplaced_patch_then_to_the_first(triton_device: torch.device) -> None:
    same = torch.ones(1, 3, 3, 2, device=triton_device)
    distance, index = match_patches(same, same, 1, backend="cuda")
    assert index.flatten().tolist() == list(range(9))
    assert float(distance.sum()) == 0.0
    # Own patches are 1 off, all neighbours of the grid's middle exact: the first of them in row order wins.
    key = torch.zeros(1, 3, 3, 2, device=triton_device)
    key[0, 1, 1] = 1
    _, index = match_patches(torch.zeros_like(key), key, 1, backend="cuda")
    assert index[0, 1, 1] == 0
    # And one that comes before the undisplaced patch loses if it is only as good.
    _, index = match_patches(torch.zeros_like(key), torch.full_like(key, 2.0), 2, backend="cuda")
    assert index.flatten().tolist() == list(range(9))


def test_many_may_match_one(triton_device: torch.device) -> None:
    """Key 1 at 0 is chosen by queries at 1, 2 and 3: its gradient is 2 (0 - 1) + 2 (0 - 2) + 2 (0 - 3)."""
    query = torch.tensor([1.0, 2.0, 3.0], device=triton_device).view(1, 1, 3, 1).requires_grad_()
    key = torch.tensor([9.0, 0.0, 9.0], device=triton_device).view(1, 1, 3, 1).requires_grad_()
    distance, index = match_patches(query, key, 1, backend="cuda")
    assert index.flatten().tolist() == [1, 1, 1]
    assert distance.flatten().tolist() == [1, 4, 9]
    by_query, by_key = torch.autograd.grad(distance.sum(), (query, key))
    assert by_query.flatten().tolist() == [2, 4, 6]
    assert by_key.flatten().tolist() == [0, -12, 0]


def test_patches_that_are_not_numbers(triton_device: torch.device) -> None:
    """They match themselves and spoil nothing else, as in the reference."""
    query, key, upstream = grids((1, 4, 4, 5), triton_device, 3)
    with torch.no_grad():
        query[0, 0, 0, 2] = torch.nan
        key[0, 2, 2, 1] = torch.nan
    distance, index = match_patches(query, key, 1, backend="cuda")
    expected, where = match_patches(query, key, 1, backend="reference")
    assert torch.equal(index, where)
    torch.testing.assert_close(distance, expected, equal_nan=True)
    got = torch.autograd.grad(distance, (query, key), upstream)
    right = torch.autograd.grad(expected, (query, key), upstream)
    for g, e in zip(got, right, strict=True):
        torch.testing.assert_close(g, e, equal_nan=True)


def test_one_gradient_alone_strides_and_the_same_bits(triton_device: torch.device) -> None:
    query, key, upstream = grids((2, 3, 3, 6), triton_device, 4)
    both = torch.autograd.grad(match_patches(query, key, 1, backend="cuda")[0], (query, key), upstream)
    strided = key.detach().permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0).requires_grad_()
    (one,) = torch.autograd.grad(match_patches(query, strided.detach(), 1, backend="cuda")[0], query, upstream)
    (other,) = torch.autograd.grad(match_patches(query.detach(), strided, 1, backend="cuda")[0], strided, upstream)
    assert torch.equal(one, both[0])
    assert torch.equal(other, both[1])


def test_no_patches_and_unfitting_input(triton_device: torch.device) -> None:
    empty = torch.zeros(0, 3, 3, 4, device=triton_device)
    distance, index = match_patches(empty, empty, 1, backend="cuda")
    assert distance.shape == index.shape == (0, 3, 3)
    with pytest.raises(ReconlabError, match="float32"):
        match_patches(empty.double(), empty.double(), backend="cuda")
    with pytest.raises(ReconlabError, match="auto, reference, cuda"):
        match_patches(empty, empty, backend="cpu")  # type: ignore[arg-type]


def test_work_is_counted_by_hand() -> None:
    """A 2 x 3 grid at radius 1: rows pair 2 + 2 = 4 times, columns 3 + 4 = 7; 28 pairs of patches, 5 channels."""
    assert cuda.work(1, 2, 3, 5) == (4 * 28 * 5, 6 * (2 * 4 * 5 + 12))
    assert cuda.work(2, 2, 3, 5, radius=0)[0] == 4 * 2 * 6 * 5
