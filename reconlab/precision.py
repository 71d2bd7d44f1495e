"""What stays in float32 under mixed precision: coordinates, and whatever a loss computes.

``--trainer.precision=bf16-mixed`` runs a network's convolutions and matrix products in bfloat16, whose eight binary
digits place a coordinate near 0.5 only to within 0.002, a fifth of a pixel at 128². So layers that take or give
coordinates are wrapped in :func:`full_precision`, every :class:`~reconlab.shapes.Shape` holds float32 at least, and
losses run outside of autocast (:class:`~reconlab.lab.Reconstruction`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def at_least_single(x: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is.

    Example:
        >>> [at_least_single(torch.zeros(1, dtype=d)).dtype for d in (torch.bfloat16, torch.float64)]
        [torch.float32, torch.float64]
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``layer(x)`` outside of autocast, half precision raised to float32 first. Differentiable."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(at_least_single(x))


def as_now(function: Callable[P, R], device: str) -> Callable[P, R]:
    """``function`` under the autocast that is on now, whenever it is called.

    A shape that is decoded only when a loss asks for its points is the network's work all the same, and is done in
    the network's precision.

    Args:
        function: Any.
        device: Type of the device that it computes on.
    """
    on, kind = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def later(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast(device, kind, enabled=on):
            return function(*args, **kwargs)

    return later if on else function
