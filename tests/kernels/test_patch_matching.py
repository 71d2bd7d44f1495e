import pytest
import torch

from reconlab.kernels.patch_matching import match_patches


def brute_force(query, key, radius):
    m, gh, gw, _ = query.shape
    out = torch.zeros(m, gh, gw)
    index = torch.zeros(m, gh, gw, dtype=torch.long)
    for i in range(m):
        for y in range(gh):
            for x in range(gw):
                window = [
                    (float((query[i, y, x] - key[i, v, u]).square().mean()), v * gw + u)
                    for v in range(max(0, y - radius), min(gh, y + radius + 1))
                    for u in range(max(0, x - radius), min(gw, x + radius + 1))
                ]
                out[i, y, x], index[i, y, x] = min(window)
    return out, index


@pytest.mark.parametrize("radius", [0, 1, 2, 9])
def test_equals_brute_force_with_clipped_windows(radius):
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    distance, index = match_patches(query, key, radius)
    expected, where = brute_force(query, key, radius)
    torch.testing.assert_close(distance, expected)
    assert torch.equal(index, where)


def test_ties_go_to_the_undisplaced_patch():
    same = torch.ones(1, 3, 3, 2)
    distance, index = match_patches(same, same, 1)
    assert index.flatten().tolist() == list(range(9))
    assert float(distance.sum()) == 0.0


def test_many_may_match_one():
    key = torch.tensor([5.0, 0.0, 5.0]).view(1, 1, 3, 1)
    _, index = match_patches(torch.zeros(1, 1, 3, 1), key, 1)
    assert index.flatten().tolist() == [1, 1, 1]


def test_gradcheck_in_both_arguments():
    torch.manual_seed(0)
    query = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    key = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, k: match_patches(q, k, 1)[0], (query, key))


def test_errors():
    with pytest.raises(ValueError, match="one shape"):
        match_patches(torch.zeros(1, 3, 3, 4), torch.zeros(1, 3, 2, 4))
    with pytest.raises(ValueError, match="radius"):
        match_patches(torch.zeros(1, 3, 3, 4), torch.zeros(1, 3, 3, 4), -1)
