"""The piecewise-linear score: loops, hand-computed cases, finite differences, which way is taken, odd input."""

import numpy as np
import pytest
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.piecewise_linear import piecewise_linear


def detector(terms: int, pieces: int, kernel: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, bias and signs."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(terms * pieces, 1, kernel, kernel, generator=g) / kernel
    return weight, torch.randn(terms * pieces, generator=g), 1 - 2 * (torch.arange(terms) % 2).float()


def by_hand(
    image: np.ndarray, weight: np.ndarray, bias: np.ndarray, signs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of one image with loops, and the gradient of their sum."""
    kernel, pieces = weight.shape[-1], len(weight) // len(signs)
    high, wide = image.shape[0] - kernel + 1, image.shape[1] - kernel + 1
    scores, slope = np.zeros((high, wide)), np.zeros_like(image)
    for y in range(high):
        for x in range(wide):
            window = image[y : y + kernel, x : x + kernel]
            for n, sign in enumerate(signs):
                values = [(weight[n * pieces + p, 0] * window).sum() + bias[n * pieces + p] for p in range(pieces)]
                best = int(np.argmax(values))
                scores[y, x] += sign * values[best]
                slope[y : y + kernel, x : x + kernel] += sign * weight[n * pieces + best, 0]
    return scores, slope


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("terms", "pieces", "kernel"), [(4, 4, 3), (3, 1, 2), (1, 5, 5)])
def test_agrees_with_loops(backend: str, terms: int, pieces: int, kernel: int) -> None:
    weight, bias, signs = detector(terms, pieces, kernel)
    images = torch.rand(2, 1, 9, 11, generator=torch.Generator().manual_seed(1), requires_grad=True)
    scores = piecewise_linear(images, weight, bias, signs, backend=backend)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(scores.sum(), images)
    for m in range(2):
        image = images[m, 0].detach().double().numpy()
        expected, gradient = by_hand(image, *(x.double().numpy() for x in (weight, bias, signs)))
        np.testing.assert_allclose(scores[m, 0].detach().numpy(), expected, atol=2e-6)
        np.testing.assert_allclose(slope[m, 0].numpy(), gradient, atol=2e-6)


def test_gradients_by_finite_differences() -> None:
    """By the images with constant filters, and by everything in training."""
    weight, bias, signs = (x.double() for x in detector(2, 3, 3))
    images = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i: piecewise_linear(i, weight, bias, signs), (images,))
    weight.requires_grad_()
    bias.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, w, b: piecewise_linear(i, w, b, signs), (images, weight, bias))


def test_which_way_is_taken() -> None:
    weight, bias, signs = detector(2, 2, 3)
    images = torch.rand(1, 1, 6, 6, requires_grad=True)

    def way() -> str:
        return type(piecewise_linear(images, weight, bias, signs).grad_fn).__name__

    assert "Score" in way()
    bias.requires_grad_()
    assert "Score" not in way()  # its gradient is wanted, too
    with torch.no_grad():
        still = piecewise_linear(images, weight, bias, signs, backend="cpu")
    torch.testing.assert_close(still, piecewise_linear(images, weight, bias, signs).detach())
    for backend in ("cpu", "cuda"):
        with pytest.raises(ReconlabError, match=r"no gradient by the filters|triton|float32 tensors on one GPU"):
            piecewise_linear(images, weight, bias, signs, backend=backend)  # type: ignore[arg-type]


def test_autocast_and_half_do_not_touch_the_precision() -> None:
    weight, bias, signs = detector(4, 4, 5)
    images = torch.rand(1, 1, 9, 9).half()
    plain = piecewise_linear(images.float(), weight, bias, signs)
    assert torch.equal(piecewise_linear(images, weight, bias, signs), plain)
    with torch.autocast("cpu", torch.bfloat16):
        again = piecewise_linear(images.float().requires_grad_(), weight, bias, signs)
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, plain)


def test_no_images() -> None:
    weight, bias, signs = detector(4, 4, 3)
    none = torch.zeros(0, 1, 5, 6, requires_grad=True)
    scores = piecewise_linear(none, weight, bias, signs)
    assert scores.shape == (0, 1, 3, 4)
    assert torch.autograd.grad(scores.sum(), none)[0].shape == none.shape


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"images": torch.zeros(1, 3, 8, 8)}, r"images \(M, 1, H, W\)"),
        ({"images": torch.zeros(1, 1, 8, 2)}, "at least 3 pixels"),
        ({"weight": torch.zeros(4, 1, 3, 2)}, r"\(4, 1, 3, 2\)"),
        ({"weight": torch.zeros(5, 1, 3, 3)}, r"\(5, 1, 3, 3\) and \(2,\)"),
        ({"signs": torch.zeros(0)}, r"and \(0,\)"),
        ({"bias": torch.zeros(3)}, r"bias \(4,\), not \(3,\)"),
        ({"backend": "gpu"}, "'gpu'"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], word: str) -> None:
    weight, bias, signs = detector(2, 2, 3)
    settings = {"images": torch.zeros(1, 1, 8, 8), "weight": weight, "bias": bias, "signs": signs} | change
    with pytest.raises(ReconlabError, match=word):
        piecewise_linear(**settings)  # type: ignore[arg-type]
