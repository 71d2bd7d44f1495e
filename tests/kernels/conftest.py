"""Where Triton's kernels run: on a GPU if there is one, in the interpreter if not."""

import importlib.util

import pytest
import torch


@pytest.fixture(scope="session")
def triton_device() -> torch.device:
    """The device whose tensors ``backend="cuda"`` takes here."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
