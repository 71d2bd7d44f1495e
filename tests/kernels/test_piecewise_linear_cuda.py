"""The piecewise-linear score by Triton: against the reference and hand-computed cases; interpreted without a GPU."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.piecewise_linear import piecewise_linear
from tests.kernels.test_piecewise_linear import detector

pytest.importorskip("triton")

from reconlab.kernels.piecewise_linear import cuda


def both_ways(backend: str, images: Tensor, filters: tuple[Tensor, ...], upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and gradient by the images; the reference's in float64."""
    kind = torch.float64 if backend == "reference" else torch.float32
    images = images.detach().to(kind).requires_grad_()
    scores = piecewise_linear(images, *(x.to(kind) for x in filters), backend=backend)  # type: ignore[arg-type]
    return scores.detach(), torch.autograd.grad(scores, images, upstream.to(kind))[0]


def scene(
    device: torch.device, m: int, height: int, width: int, *shape: int
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Images, filters, and an upstream gradient."""
    g = torch.Generator().manual_seed(height * width)
    images = torch.rand(m, 1, height, width, generator=g)
    filters = tuple(x.to(device) for x in detector(*shape))
    kernel = shape[-1]
    upstream = torch.randn(m, 1, height - kernel + 1, width - kernel + 1, generator=g)
    return images.to(device), filters, upstream.to(device)


@pytest.mark.parametrize(
    ("m", "height", "width", "terms", "pieces", "kernel"),
    [
        (2, 8, 40, 4, 4, 3),  # two blocks and a rest in both directions
        (1, 23, 22, 4, 4, 21),  # the paper's filters
        (1, 19, 33, 3, 3, 2),  # neither a power of two, even filters, a group that is not full
        (2, 5, 6, 1, 5, 5),  # more pieces than a group's table is made for
        (1, 4, 5, 5, 1, 4),  # no maximum at all
        (1, 7, 7, 5, 4, 1),  # winners of ten bits; filters of one pixel
        (1, 3, 3, 15, 3, 3),  # 64 filters, one row of pixels at a time
        (1, 1, 1, 2, 2, 1),
    ],
)
def test_agrees_with_the_reference(
    triton_device: torch.device, m: int, height: int, width: int, terms: int, pieces: int, kernel: int
) -> None:
    rest = scene(triton_device, m, height, width, terms, pieces, kernel)
    scores, slope = both_ways("cuda", *rest)
    expected, gradient = both_ways("reference", *rest)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope.double(), gradient, rtol=1e-5, atol=1e-5)


def test_by_hand(triton_device: torch.device) -> None:
    """I = 1/4: max(1/4, 1/4) - max(1/2, 1) = -3/4; I = 1: max(1, -1/2) - max(2, 1) = -1; equal pieces: the first."""
    weight = torch.tensor([1.0, -1.0, 2.0, 0.0], device=triton_device).view(4, 1, 1, 1)
    bias = torch.tensor([0.0, 0.5, 0.0, 1.0], device=triton_device)
    signs = torch.tensor([1.0, -1.0], device=triton_device)
    images = torch.tensor([0.25, 1.0], device=triton_device).view(1, 1, 1, 2).requires_grad_()
    scores = piecewise_linear(images, weight, bias, signs, backend="cuda")
    assert scores.flatten().tolist() == [-0.75, -1.0]
    assert torch.autograd.grad(scores.sum(), images)[0].flatten().tolist() == [1.0, -1.0]


def test_gradient_is_the_slope_of_the_value(triton_device: torch.device) -> None:
    images, filters, upstream = scene(triton_device, 1, 6, 9, 4, 4, 3)
    _, slope = both_ways("cuda", images, filters, upstream)
    motion = torch.randn(images.shape, generator=torch.Generator().manual_seed(4)).to(triton_device)
    ends = [
        (piecewise_linear(images + step * motion, *filters, backend="cuda") * upstream).double().sum().item()
        for step in (1e-3, -1e-3)
    ]
    assert (slope * motion).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=5e-3)


def test_what_is_kept(triton_device: torch.device) -> None:
    """A byte a pixel, and nothing without a gradient; the way back can be gone twice, to the same bits."""
    images, filters, upstream = scene(triton_device, 2, 6, 7, 4, 4, 3)
    score, code = cuda.scores(images, *filters, keep=True)
    assert code is not None
    assert (code.dtype, code.shape) == (torch.uint8, (2, 4, 5))
    same, nothing = cuda.scores(images, *filters, keep=False)
    assert nothing is None
    assert torch.equal(same, score)
    assert not piecewise_linear(images, *filters, backend="cuda").requires_grad
    images.requires_grad_()
    score = piecewise_linear(images, *filters, backend="cuda")
    first, again = (torch.autograd.grad(score, images, upstream, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)
    sideways = images.detach().mT.contiguous().mT
    assert not sideways.is_contiguous()
    assert torch.equal(piecewise_linear(sideways, *filters, backend="cuda"), score.detach())
    (flat,) = torch.autograd.grad(score.sum(), images)  # an upstream gradient that is expanded
    torch.testing.assert_close(flat, both_ways("reference", images, filters, torch.ones_like(score))[1].float())


def test_filters_of_any_strides(triton_device: torch.device) -> None:
    images, (weight, bias, signs), upstream = scene(triton_device, 1, 6, 9, 4, 4, 3)
    turned = weight.mT.contiguous().mT
    every_other = [x.repeat_interleave(2)[::2] for x in (bias, signs)]
    assert not any(x.is_contiguous() for x in (turned, *every_other))
    got = both_ways("cuda", images, (turned, *every_other), upstream)
    for g, e in zip(got, both_ways("cuda", images, (weight, bias, signs), upstream), strict=True):
        assert torch.equal(g, e)


def test_no_images(triton_device: torch.device) -> None:
    _, filters, _ = scene(triton_device, 1, 5, 5, 4, 4, 3)
    none = torch.zeros(0, 1, 5, 6, device=triton_device, requires_grad=True)
    scores = piecewise_linear(none, *filters, backend="cuda")
    assert scores.shape == (0, 1, 3, 4)
    assert torch.autograd.grad(scores.sum(), none)[0].shape == none.shape


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the interpreter
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_pixel_that_is_not_finite(triton_device: torch.device, value: float) -> None:
    """Scores in its reach are not finite, the others are untouched; so are the gradients of those."""
    images, filters, upstream = scene(triton_device, 1, 7, 8, 4, 3, 3)
    clean, _ = both_ways("cuda", images, filters, upstream)
    images[0, 0, 2, 4] = value
    scores, slope = both_ways("cuda", images, filters, torch.nn.functional.pad(upstream[..., 3:, :], (0, 0, 3, 0)))
    reached = torch.zeros_like(scores, dtype=torch.bool)
    reached[..., :3, 2:5] = True
    assert not scores[reached].isfinite().any()
    assert torch.equal(scores[~reached], clean[~reached])
    assert slope.isfinite().all()


@pytest.mark.parametrize(("terms", "pieces"), [(4, 4), (3, 3), (5, 1), (2, 9), (1, 2)])
def test_every_combination_is_in_the_table(terms: int, pieces: int) -> None:
    weight, _, signs = detector(terms, pieces, 2)
    table, bits = cuda.combinations(weight, signs)
    width = (pieces - 1).bit_length()
    together = bits // width if width else terms
    assert table.shape == (4, -(-terms // together), 1 << bits)
    for winners in product(range(pieces), repeat=terms):
        code = sum(piece << (n * width) for n, piece in enumerate(winners))
        found = sum(table[:, g, (code >> (g * bits)) & ((1 << bits) - 1)] for g in range(table.shape[1]))
        expected = sum(signs[n] * weight[n * pieces + piece, 0].flatten() for n, piece in enumerate(winners))
        torch.testing.assert_close(found, expected)


def test_what_is_refused(triton_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(1, 1, 4, 4, device=triton_device)
    for terms, pieces in ((9, 5), (1, 65), (32, 2)):
        filters = [x.to(triton_device) for x in detector(terms, pieces, 3)]
        with pytest.raises(ReconlabError, match=f"not {terms} terms of {pieces}"):
            piecewise_linear(images, *filters, backend="cuda")
    weight, bias, signs = (x.to(triton_device) for x in detector(2, 2, 3))
    with pytest.raises(ReconlabError, match="no gradient by the filters"):
        piecewise_linear(images, weight.requires_grad_(), bias, signs, backend="cuda")
    with pytest.raises(ReconlabError, match="float32"):
        piecewise_linear(images.double(), weight, bias, signs, backend="cuda")


def test_work_is_counted_by_hand() -> None:
    """2 images of 10 × 12, filters of 3 × 3: 8 × 10 scores, of 4 × 4 filters at 9 taps."""
    assert cuda.work(2, 10, 12, 3, 4, 4) == (2 * 2 * 9 * 80 * 16, 2 * (4 * 120 + 5 * 80))
    assert cuda.work(2, 10, 12, 3, 4, 4, backward=True) == (2 * 2 * 9 * 120 * 16, 2 * (4 * 120 + 5 * 80))
    assert cuda.work(1, 10, 12, 3, 5, 4)[1] == 4 * 120 + 8 * 80
