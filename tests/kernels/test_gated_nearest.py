"""The cheapest pixel by distance times gate: hand-computed, both backends against the full table."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.gated_nearest import gated_nearest
from reconlab.kernels.gated_nearest import reference as reference_module

BACKENDS = ["reference", "cpu"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend):
    """From the corner: itself 10, beside 2 · 6, diagonally (1 + √2) · 4 = 9.66."""
    gate = torch.tensor([[[10.0, 6.0], [6.0, 4.0]]])
    assert gated_nearest(gate, gate > 9, backend=backend).tolist() == [[[3, -1], [-1, -1]]]
    assert gated_nearest(torch.ones(1, 2, 2), gate > 0, backend=backend).tolist() == [[[0, 1], [2, 3]]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_costs_take_the_first(backend):
    gate = torch.tensor([[[1.0, 9.0, 1.0]]])
    assert gated_nearest(gate, gate > 2, backend=backend).tolist() == [[[-1, 0, -1]]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.floats(0, 6))
def test_backends_against_the_table(seed, height, width, decades):
    g = torch.Generator().manual_seed(seed)
    gate = 10 ** (decades * torch.rand(2, height, width, generator=g))
    mask = torch.rand(2, height, width, generator=g) < 0.6
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).reshape(-1, 2)
    table = (torch.cdist(grid.double(), grid.double()) + 1) * gate.double().flatten(1)[:, None]
    least = table.min(-1).values
    for backend in BACKENDS:
        found = gated_nearest(gate, mask, backend=backend)
        assert torch.equal(found >= 0, mask)
        cost = table.gather(-1, found.clamp_min(0).flatten(1)[..., None])[..., 0]
        torch.testing.assert_close(cost[mask.flatten(1)], least[mask.flatten(1)], rtol=1e-5, atol=0)


def test_blocks(monkeypatch):
    gate, mask = torch.rand(1, 9, 9) + 0.1, torch.rand(1, 9, 9) < 0.5
    whole = gated_nearest(gate, mask, backend="reference")
    monkeypatch.setattr(reference_module, "BLOCK", 200)
    assert torch.equal(gated_nearest(gate, mask, backend="reference"), whole)


def test_mistakes_are_named():
    with pytest.raises(ReconlabError, match="bool mask of its shape"):
        gated_nearest(torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    with pytest.raises(ReconlabError, match="backend"):
        gated_nearest(torch.ones(1, 2, 2).double(), torch.ones(1, 2, 2) > 0, backend="cpu")
