"""Nearest neighbours by Triton: against the reference and hand-computed cases; in the interpreter without a GPU."""

import pytest
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.nearest import nearest
from tests.kernels.test_nearest import cloud

pytest.importorskip("triton")

from reconlab.kernels.nearest import cuda


@pytest.mark.parametrize(
    ("sources", "targets", "source_kind", "target_kind"),
    [
        (1, 1, "volume", "volume"),
        (64, 32, "sphere", "volume"),
        (65, 33, "volume", "sphere"),
        (3, 700, "lattice", "heavy tail"),  # targets in several spans
        (200, 5, "heavy tail", "lattice"),
    ],
)
def test_agrees_with_the_reference(
    triton_device: torch.device, sources: int, targets: int, source_kind: str, target_kind: str
) -> None:
    source = cloud(source_kind, 2, sources, 0).to(triton_device)
    target = cloud(target_kind, 2, targets, 1).to(triton_device)
    distance, index = nearest(source, target, backend="cuda")
    expected, _ = nearest(source, target, backend="reference")
    assert index.dtype == torch.int64
    torch.testing.assert_close(distance, expected, rtol=1e-6, atol=0)
    chosen = target.gather(1, index[..., None].expand(-1, -1, 3))
    torch.testing.assert_close((source - chosen).square().sum(-1), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("programs", [1, 64])
def test_ties_take_the_lowest_index(
    triton_device: torch.device, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "PROGRAMS", programs)
    monkeypatch.setattr(cuda, "LEAST", 32)
    source, target = cloud("lattice", 2, 70, 2) + 0.5, cloud("lattice", 2, 300, 3)  # exact in float32
    assert (cuda.spans(2, 70, 300)[0] > 1) == (programs > 1)
    _, index = nearest(source.to(triton_device), target.to(triton_device), backend="cuda")
    square = (source[:, :, None] - target[:, None]).square().sum(-1)
    first = (square == square.amin(2, keepdim=True)).int().argmax(2)
    assert torch.equal(index.cpu(), first)


@pytest.mark.parametrize(
    ("batch", "sources", "targets"), [(1, 1, 1), (1, 9, 100_000), (32, 2500, 2500), (1, 65, 257)]
)
def test_spans_cover_the_targets_once(batch: int, sources: int, targets: int) -> None:
    splits, span = cuda.spans(batch, sources, targets)
    assert span % cuda.COLUMNS == 0
    assert (splits - 1) * span < targets <= splits * span
    assert splits == 1 or span >= cuda.LEAST // 2


def test_close_points_far_from_the_origin_keep_their_distance(triton_device: torch.device) -> None:
    """Differences of near numbers are exact; |a|² + |b|² - 2ab would be off by more than the distance."""
    target = torch.tensor([[[1000.0, 0, 0], [1000.0, 2**-10, 0], [1000.0, 3 * 2**-10, 0]]], device=triton_device)
    source = target + torch.tensor([0.0, 0.0, 2**-12], device=triton_device)
    distance, index = nearest(source, target, backend="cuda")
    assert (distance == 2.0**-24).all()
    assert index.tolist() == [[0, 1, 2]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the interpreter
def test_points_that_are_not_finite(triton_device: torch.device) -> None:
    source, target = cloud("volume", 2, 30, 6), cloud("volume", 2, 40, 7)
    source[0, 3, 1], source[0, 4], source[0, 5] = torch.nan, torch.inf, 1e25
    target[0, ::2] = torch.nan
    target[1] = torch.inf
    source, target = (x.to(triton_device).requires_grad_() for x in (source, target))
    distance, index = nearest(source, target, backend="cuda")
    bad = torch.zeros(2, 30, dtype=torch.bool)
    bad[0, 3:6], bad[1] = True, True
    bad = bad.to(triton_device)
    assert distance[bad].isinf().all()
    assert (index[bad] == 0).all()
    expected, at = nearest(source, target, backend="reference")
    torch.testing.assert_close(distance, expected, rtol=1e-6, atol=0)
    assert torch.equal(index, at)
    got = torch.autograd.grad(distance[~bad].sum(), (source, target))
    right = torch.autograd.grad(expected[~bad].sum(), (source, target))
    for g, e in zip(got, right, strict=True):
        assert g.isfinite().all()
        torch.testing.assert_close(g, e)
    assert (got[0][bad] == 0).all()
    poisoned = torch.where(bad, torch.nan, 1.0)  # what comes from above a point without a match does not matter
    distance, _ = nearest(source, target, backend="cuda")
    assert all(g.isfinite().all() for g in torch.autograd.grad(distance, (source, target), poisoned))


def crowded(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Sources of which most choose one target, some targets are chosen by none, and upstream gradients."""
    source, target = cloud("volume", 2, 90, 8), cloud("volume", 2, 37, 9) + 2
    target[0, 5], target[1, 36] = 0.0, 0.0
    source[:, :20] += 2
    upstream = torch.randn(2, 90, generator=torch.Generator().manual_seed(10))
    return source.to(device).requires_grad_(), target.to(device).requires_grad_(), upstream.to(device)


@pytest.mark.parametrize("ordered", [False, True])
def test_gradient_in_both_clouds(triton_device: torch.device, ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "deterministic", lambda: ordered)
    source, target, upstream = crowded(triton_device)
    distance, index = nearest(source, target, backend="cuda")
    assert (index[0] == 5).sum() > 50
    got = torch.autograd.grad(distance, (source, target), upstream, retain_graph=True)
    brute = (source[:, :, None] - target[:, None]).square().sum(-1).amin(2)
    expected = torch.autograd.grad(brute, (source, target), upstream)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-5)
    if ordered:
        again = torch.autograd.grad(distance, (source, target), upstream)
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


def test_deterministic_mode_adds_up_without_atomics(
    triton_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    source, target, upstream = crowded(triton_device)
    kernel, used = cuda._steps, []

    class Recorder:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            return lambda *a, **k: (used.append(k["SCATTER"]), kernel[grid](*a, **k))

    monkeypatch.setattr(cuda, "_steps", Recorder())
    nearest(source, target, backend="cuda")[0].backward(upstream)
    assert used == [False]
    # The target's gradient is minus the sum of its sources' steps, wherever it is added up.
    assert source.grad is not None
    assert target.grad is not None
    torch.testing.assert_close(source.grad.sum(1), -target.grad.sum(1), rtol=1e-5, atol=1e-4)


def test_gradient_is_the_slope_of_the_value(triton_device: torch.device) -> None:
    source, target, upstream = crowded(triton_device)
    distance, _ = nearest(source, target, backend="cuda")
    slopes = torch.autograd.grad(distance, (source, target), upstream)
    g = torch.Generator().manual_seed(11)
    for which, slope in enumerate(slopes):
        motion = torch.randn(slope.shape, generator=g).to(triton_device)
        ends = []
        for step in (1e-3, -1e-3):
            clouds = [source.detach(), target.detach()]
            clouds[which] = clouds[which] + step * motion
            ends.append((nearest(*clouds, backend="cuda")[0] * upstream).double().sum())
        numeric = (ends[0] - ends[1]).item() / 2e-3
        assert (slope * motion).sum().item() == pytest.approx(numeric, rel=5e-3)


def test_only_one_cloud_needs_a_gradient_and_no_points(triton_device: torch.device) -> None:
    source, target, upstream = crowded(triton_device)
    both = torch.autograd.grad(nearest(source, target, backend="cuda")[0], (source, target), upstream)
    (first,) = torch.autograd.grad(nearest(source, target.detach(), backend="cuda")[0], source, upstream)
    assert torch.equal(first, both[0])
    (second,) = torch.autograd.grad(nearest(source.detach(), target, backend="cuda")[0], target, upstream)
    torch.testing.assert_close(second, both[1])
    none = torch.zeros(2, 0, 3, device=triton_device)
    distance, index = nearest(none, target, backend="cuda")
    assert distance.shape == index.shape == (2, 0)
    (zero,) = torch.autograd.grad(distance.sum(), target)
    assert (zero == 0).all()
    assert nearest(none[:0], target[:0], backend="cuda")[0].shape == (0, 0)


def test_clouds_that_are_not_contiguous(triton_device: torch.device) -> None:
    wide = cloud("volume", 2, 40, 12).to(triton_device)
    source, target = wide[:, ::2], wide[:1, 1::3].expand(2, -1, -1)
    distance, index = nearest(source, target, backend="cuda")
    expected, at = nearest(source, target, backend="reference")
    torch.testing.assert_close(distance, expected, rtol=1e-6, atol=0)
    assert torch.equal(index, at)


def test_float64_is_refused(triton_device: torch.device) -> None:
    points = torch.zeros(1, 2, 3, device=triton_device, dtype=torch.float64)
    with pytest.raises(ReconlabError, match="float32"):
        nearest(points, points, backend="cuda")


def test_work_is_counted_by_hand() -> None:
    """2 clouds of 3 and 5 points: 30 pairs; 16 points read, 6 distances and 6 indices of 8 bytes written."""
    assert cuda.work(2, 3, 5) == (2 * 9 * 30, 16 * 12 + 6 * 4 + 6 * 8)
