"""Numbers below 1e-38 are flushed inside of kernels that make many of them, and nowhere else."""

import platform

import numpy as np
import pytest
import torch

from reconlab.kernels.jit import flush_subnormals, njit, restore_subnormals
from reconlab.kernels.soft_rasterize import soft_rasterize

TINY = np.float32(1e-30)


@njit("void(float32[::1], float32[::1], float32[::1])")
def _multiply(a, b, out):
    out[0] = a[0] * b[0]
    before = flush_subnormals()
    out[1] = a[1] * b[1]
    restore_subnormals(before)
    out[2] = a[2] * b[2]


def test_flushed_within_and_restored() -> None:
    out = np.full(3, np.nan, np.float32)
    _multiply(np.full(3, TINY), np.full(3, 1e-10, np.float32), out)
    exact = float(TINY) * 1e-10
    assert out[0] == out[2] == pytest.approx(exact, rel=1e-3)
    if platform.machine() in ("x86_64", "AMD64"):
        assert out[1] == 0


def images(shaded: bool) -> torch.Tensor:
    """A thousand faces on one another, as many pixels' products of all of them vanish; with the gradient."""
    g = torch.Generator().manual_seed(0)
    xyz = torch.rand(1000, 3, 3, generator=g) * torch.tensor([1.0, 1.0, 0.5]) + torch.tensor([-0.5, -0.5, 2.0])
    xyz.requires_grad_()
    out = soft_rasterize(xyz, [0, 1000], 16, torch.rand(1000, 3, generator=g) if shaded else None)
    image = out.alpha if out.shade is None else out.alpha * out.shade
    image.square().sum().backward()
    assert xyz.grad is not None
    return torch.cat([image.detach().flatten(), xyz.grad.flatten()])


@pytest.mark.parametrize("shaded", [False, True])
def test_drawing_leaves_the_thread_as_it_was(shaded: bool, monkeypatch) -> None:
    monkeypatch.setenv("RECONLAB_THREADS", "1")  # in this thread, whose state is looked at
    plain = images(shaded)
    assert np.multiply(TINY, np.float32(1e-10)) != 0
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        assert torch.equal(images(shaded), plain), "the user's own choice changes nothing"
        assert np.multiply(TINY, np.float32(1e-10)) == 0, "nor is it changed"
    finally:
        torch.set_flush_denormal(False)
