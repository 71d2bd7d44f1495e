import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.features.detector import PiecewiseLinearDetector, poi_map, score_range, sigmoid_map


def loop_score(detector, image, y, x):
    """Eq. 1 at one pixel, written out: odd terms (the first, ...) count +, even ones -."""
    half = detector.kernel // 2
    h, w = image.shape

    def reflect(i, n):
        i = -i if i < 0 else i
        return 2 * (n - 1) - i if i >= n else i

    total = 0.0
    for n in range(detector.terms):
        best = -float("inf")
        for m in range(detector.pieces):
            f = n * detector.pieces + m
            value = float(detector.bias.detach()[f])
            for dy in range(-half, half + 1):
                for dx in range(-half, half + 1):
                    pixel = image[reflect(y + dy, h), reflect(x + dx, w)]
                    value += float(detector.weight.detach()[f, 0, dy + half, dx + half]) * float(pixel)
            best = max(best, value)
        total += best if n % 2 == 0 else -best
    return total


def test_equals_equation_1_written_out_borders_included():
    torch.manual_seed(0)
    detector = PiecewiseLinearDetector(terms=3, pieces=2, kernel=5)
    torch.nn.init.normal_(detector.bias)
    image = torch.rand(9, 8)
    scores = detector(image.view(1, 1, 9, 8)).detach()[0, 0]
    assert scores.shape == image.shape
    for y, x in ((0, 0), (0, 7), (4, 3), (8, 0), (8, 7)):
        assert float(scores[y, x]) == pytest.approx(loop_score(detector, image, y, x), abs=1e-5)


def test_by_hand():
    detector = PiecewiseLinearDetector(terms=2, pieces=2, kernel=1)
    with torch.no_grad():
        detector.weight.copy_(torch.tensor([1.0, -1.0, 2.0, 0.0]).view(4, 1, 1, 1))
        detector.bias.copy_(torch.tensor([0.0, 0.5, 0.0, 1.0]))
    # I = 0.25: max(.25, .25) - max(.5, 1) = -.75;  I = 1: max(1, -.5) - max(2, 1) = -1
    out = detector(torch.tensor([0.25, 1.0]).view(1, 1, 1, 2))
    assert out.flatten().tolist() == pytest.approx([-0.75, -1.0])


def test_valid_mode_is_the_middle_of_the_padded_map():
    torch.manual_seed(1)
    detector = PiecewiseLinearDetector(kernel=21)
    x = torch.rand(1, 1, 40, 40)
    torch.testing.assert_close(detector(x, padded=False), detector(x)[..., 10:-10, 10:-10])


def test_poi_map_uses_the_ground_truths_range():
    scores = torch.tensor([[[[2.0, 6.0]]], [[[1.0, 8.0]]]])
    low, high = score_range(scores[:1], torch.tensor([-1.0, 1.0]))
    assert poi_map(scores[:1], low, high).flatten().tolist() == [0.0, 1.0]
    assert poi_map(scores[1:], low, high).flatten().tolist() == [-0.25, 1.5]


def test_a_blank_view_keeps_a_sane_range():
    low, high = score_range(torch.full((1, 1, 4, 4), 3.0), torch.tensor([0.0, 10.0]))
    assert float(low) == 3.0
    assert float(high) == pytest.approx(3.5)


def test_sigmoid_map_is_monotone_and_centred():
    out = sigmoid_map(torch.tensor([[[[0.0, 5.0, 10.0]]]]), torch.tensor([0.0, 10.0])).flatten()
    assert float(out[1]) == pytest.approx(0.5)
    assert float(out[0]) == pytest.approx(0.018, abs=1e-3)
    assert float(out[2]) == pytest.approx(0.982, abs=1e-3)


def test_errors():
    with pytest.raises(ReconlabError, match="odd"):
        PiecewiseLinearDetector(kernel=20)
    with pytest.raises(ReconlabError, match=r"\(M, 1, H, W\)"):
        PiecewiseLinearDetector()(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ReconlabError, match="more than 10 pixels"):
        PiecewiseLinearDetector(kernel=21)(torch.zeros(1, 1, 10, 64))


@pytest.mark.parametrize(("size", "kernel"), [((30, 41), 9), ((64, 64), 21)])
def test_quick_way_back_equals_torchs(size, kernel):
    """Frozen filters take the Fourier transform back, filters in training torch's own convolution."""
    torch.manual_seed(0)
    detector = PiecewiseLinearDetector(kernel=kernel).double()
    upstream = torch.randn(2, 1, *size, dtype=torch.float64)
    gradients = []
    for frozen in (False, True):
        detector.requires_grad_(not frozen)
        torch.manual_seed(1)
        image = torch.rand(2, 1, *size, dtype=torch.float64, requires_grad=True)
        score = detector(image)
        assert ("Score" in type(score.grad_fn).__name__) is frozen
        gradients.append(torch.autograd.grad(score, image, upstream)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)
