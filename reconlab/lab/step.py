"""What makes a training step cheap on a GPU: compiled parts, and a loss that is looked at without waiting for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from reconlab.errors import ReconlabError

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
"""``torch.compile``'s modes; ``reduce-overhead`` replays CUDA graphs."""


class FiniteWatch:
    """Ends a training whose loss is not finite, before anything of it is saved.

    On the CPU at once. On a GPU asking for a value would hold the host until the device has caught up, in every
    step; there a step's values travel while the next one is prepared, and are looked at then, or before a checkpoint
    is written (:meth:`settle`).

    Args:
        later: Look one step later; None decides by the values' device.
    """

    def __init__(self, later: bool | None = None) -> None:
        self.later = later
        self._waiting: tuple[int, list[str], Tensor, torch.cuda.Event | None] | None = None

    def see(self, step: int, parts: Mapping[str, Tensor]) -> None:
        """Take the parts of a step's loss, scalars of which ``loss`` must be finite.

        Raises:
            ReconlabError: This step's loss, or the one before, is not finite.
        """
        card = parts["loss"].device.type == "cuda"
        values = torch.stack([v.detach().float().reshape(()) for v in parts.values()])
        self.settle()
        event = None
        if card:
            host = torch.empty(values.shape, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._waiting = (step, list(parts), values, event)
        if not (card if self.later is None else self.later):
            self.settle()

    def settle(self) -> None:
        """Look at what was taken last.

        Raises:
            ReconlabError: It is not finite.
        """
        if self._waiting is None:
            return
        (step, names, values, event), self._waiting = self._waiting, None
        if event is not None:
            event.synchronize()
        shown = dict(zip(names, values.tolist(), strict=True))
        if not torch.isfinite(values[names.index("loss")]):
            text = ", ".join(f"{k} {v:.4g}" for k, v in shown.items())
            raise ReconlabError(
                f"The loss is not finite at step {step} ({text}); lower model.lr or set model.gradient_norm."
            )


def compile_parts(network: nn.Module, mode: CompileMode | None, backend: str = "inductor") -> int:
    """Compile a network's parts in place (``torch.compile``): names and states of modules stay as they are.

    Its direct children are compiled each by itself, those within lists too: they map tensors to tensors, while the
    network itself makes shapes. Shapes of tensors are taken as fixed; another batch size compiles once more.

    Args:
        network: Whose parts.
        mode: Of ``torch.compile``; None leaves it to the backend.
        backend: Of ``torch.compile``. Inductor needs a C++ compiler on the CPU and triton on a GPU.

    Returns:
        How many parts there are.
    """
    parts = [m for child in network.children() for m in (child if isinstance(child, nn.ModuleList) else [child])]
    for part in parts:
        part.compile(backend=backend, mode=mode, dynamic=False)
    return len(parts)
