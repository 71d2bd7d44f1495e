"""What the Triton kernels share: which path an operator takes, and where and how a kernel is launched.

A kernel lives in its operator's ``cuda.py``, which imports triton and is itself imported only where it is used:
triton is a wheel that comes with torch's CUDA builds on Linux, and nothing else needs it. What it needs itself is
seen to in ``triton_setup.py``. Under ``TRITON_INTERPRET=1``, set before the first import of a ``cuda.py``, the same
kernels run on CPU tensors in Triton's interpreter, which is how they are checked where there is no GPU.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.triton_setup import has_triton, interpreting, lacking, provide_compiler, ready

Backend = Literal["auto", "reference", "cpu", "cuda"]
"""What a caller may ask for; ``auto`` takes the fast path of the tensors' device and dtype, else the reference."""

# Triton 3.9 warns that fused multiply-adds will cease to be the default. The kernels are checked with them.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


def deterministic() -> bool:
    """Whether the same input must give the same bits: ``torch.use_deterministic_algorithms(True)`` asks for it.

    Kernels then add up without atomics, and an operator that cannot says so in its docstring.
    """
    return torch.are_deterministic_algorithms_enabled()


def choose_backend(who: str, backend: str, *tensors: Tensor, cpu: bool = True) -> Literal["reference", "cpu", "cuda"]:
    """The path that an operator takes for tensors on one device.

    Args:
        who: The operator's name, for messages.
        backend: What the caller asked for, of :data:`Backend`.
        tensors: What the kernel would read; it takes float32 alone.
        cpu: Whether the operator has a numba kernel.

    Raises:
        ReconlabError: The backend is unknown, or does not take these tensors.
    """
    offered = ("auto", "reference", "cpu", "cuda") if cpu else ("auto", "reference", "cuda")
    if backend not in offered:
        raise ReconlabError(f"{who}() has the backends {', '.join(offered)}, not {backend!r}.")
    single = all(t.dtype == torch.float32 for t in tensors)
    host = all(t.device.type == "cpu" for t in tensors)
    # A kernel that is given another GPU's memory ends the process's use of both; torch says what is wrong.
    card = all(t.device.type == "cuda" for t in tensors) and len({t.device for t in tensors}) == 1
    if backend == "cpu" and not (host and single):
        raise ReconlabError(f"{who}(backend='cpu') takes float32 tensors on the CPU.")
    if backend == "cuda":
        missing = lacking() if card or not has_triton() else None
        if missing is not None:
            raise ReconlabError(f"{who}(backend='cuda') cannot run: {missing}.")
        if not (single and (card or (host and interpreting()))):
            raise ReconlabError(
                f"{who}(backend='cuda') takes float32 tensors on one GPU (on the CPU only under TRITON_INTERPRET=1)."
            )
        provide_compiler()
        return "cuda"
    if backend == "reference" or not single:
        return "reference"
    if host:
        return "cpu" if cpu else "reference"
    return "cuda" if card and ready(torch.cuda.get_device_capability(tensors[0].device)) else "reference"


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Launch kernels within this: Triton uses the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else contextlib.nullcontext()


@dataclass(frozen=True)
class Example:
    """One compilation of a kernel, typical of its use: ``cuda.py`` files list theirs in ``EXAMPLES``.

    Attributes:
        kernel: The jitted function.
        types: Of each argument in order, Triton's names: ``*fp32``, ``*i64``, ``i32``, ``fp32``; constexprs left out.
        constants: Values of the constexprs.
        warps: Warps a program.
        label: Which variant, if the kernel has several.
        divisible: Integers that 16 divides in typical use, as Triton finds out at run time. Pointers are taken to be
            aligned so in any case: torch's are.
    """

    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    warps: int = 4
    label: str = ""
    divisible: tuple[str, ...] = ()
