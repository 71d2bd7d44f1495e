"""What a benchmark asks of a GPU: its peak rates, and whether it still answers."""

from __future__ import annotations

import torch

from reconlab.kernels.triton_setup import lacking, provide_compiler


def peaks() -> dict[str, float] | None:
    """Peak float32 and float64 operations and bytes a second of this GPU, where its driver tells them.

    Triton asks the driver; CUDA 13 has taken the clocks out of what torch asks.
    """
    if not torch.cuda.is_available() or lacking():
        return None
    provide_compiler()
    from triton.runtime import driver

    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    said = driver.active.utils.get_device_properties(torch.cuda.current_device())
    clock, memory, bus = (said.get(k, 0) for k in ("sm_clock_rate", "mem_clock_rate", "mem_bus_width"))  # kHz, bits
    if not (clock and memory and bus):
        return None
    lanes = 64 if (card.major, card.minor) in ((7, 0), (7, 5), (8, 0)) else 128
    double = {(7, 0): 32, (8, 0): 32, (9, 0): 64, (10, 0): 64}.get((card.major, card.minor), 2)
    rate = 2e3 * clock * card.multi_processor_count  # a fused multiply-add is two
    return {"float32": rate * lanes, "float64": rate * double, "bytes": 2e3 * memory * bus / 8}


def use(device: str) -> None:
    """Make a GPU the current one; ``cuda`` without a number is that already, and torch takes it for a mistake."""
    where = torch.device(device)
    if where.index is not None:
        torch.cuda.set_device(where)


def answers() -> bool:
    """Whether the GPU still does: after a kernel went where it must not, nothing works in this process."""
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
