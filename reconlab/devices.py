"""Sending to a GPU what was made on the CPU, without waiting until the GPU has caught up."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor.to(device)``; from the CPU to a GPU through pinned memory.

    A plain copy holds the host until everything that the GPU was asked for before is done. Random numbers are drawn
    on the CPU, so that a seed means the same everywhere: every step has some to send.

    Args:
        tensor: Anywhere; not changed afterwards.
        device: Where to.
    """
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
