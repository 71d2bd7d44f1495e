"""The C++ peer of ``rasterizer.py --peer cpp``: compiles ``rasterizer_peer.cpp`` and gives it the kernel's signature.

It is loaded through ctypes, so that a C++ compiler is all it takes.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.soft_rasterize import SoftImage
from reconlab.kernels.soft_rasterize.reference import Settings

FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")


def compiled() -> ctypes.CDLL:
    """The peer, compiled anew into a folder that goes again.

    Raises:
        ReconlabError: There is no C++ compiler, or it fails.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise ReconlabError("--peer cpp needs a C++ compiler: g++ or clang++ on the PATH, or CXX naming one.")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "peer.so"
        source = Path(__file__).with_name("rasterizer_peer.cpp")
        done = subprocess.run([compiler, *FLAGS, str(source), "-o", str(target)], capture_output=True, text=True)
        if done.returncode:
            raise ReconlabError(f"--peer cpp: {compiler} failed: {done.stderr.strip()[:500]}")
        return ctypes.CDLL(str(target))


def _pointer(array: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.data_ptr())


class _Peer(torch.autograd.Function):
    """Forward and backward over the images in turn, as the kernel has them."""

    @staticmethod
    def forward(ctx: Any, xyz: Tensor, shade: Tensor | None, splits: list[int], s: Settings, library: Any) -> Any:
        xyz = xyz.detach().contiguous()
        numbers = (ctypes.c_float * 5)(s.sigma, s.limit, s.near, s.far, s.depth_scale)
        size = (len(splits) - 1, s.height, s.width)
        through = torch.ones(size)
        planes = [torch.empty(size if shade is not None else 0) for _ in range(3)]
        nearest = [0.0] * size[0]
        for m, (a, b) in enumerate(pairwise(splits)):
            top, weights, values = (p[m] if shade is not None else p for p in planes)
            if shade is not None:
                nearest[m] = float(xyz[a:b, :, 2].min()) if b > a else s.far
                top.fill_(s.eps / s.gamma - (s.far - nearest[m]) / s.depth_scale)
                weights.fill_(1.0)
                values.zero_()
            library.peer_draw(
                _pointer(xyz[a:b]), _pointer(None if shade is None else shade[a:b]), ctypes.c_int64(b - a), numbers,
                ctypes.c_float(nearest[m]), s.height, s.width, _pointer(through[m]), _pointer(top), _pointer(weights),
                _pointer(values),
            )  # fmt: skip
        image = planes[2].div_(planes[1])
        ctx.save_for_backward(xyz, shade, through, *planes[:2], image)
        ctx.splits, ctx.settings, ctx.nearest, ctx.library, ctx.numbers = splits, s, nearest, library, numbers
        return 1 - through, image

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_alpha: Tensor, grad_image: Tensor) -> Any:
        xyz, shade, through, top, weights, image = ctx.saved_tensors
        s = ctx.settings
        pull = grad_alpha * through
        share = grad_image / weights if shade is not None else through
        grad = torch.zeros_like(xyz)
        grad_shade = None if shade is None else torch.zeros_like(shade)
        for m, (a, b) in enumerate(pairwise(ctx.splits)):
            of = (lambda p, m=m: p[m]) if shade is not None else (lambda p: p)
            ctx.library.peer_gather(
                _pointer(xyz[a:b]), _pointer(None if shade is None else shade[a:b]), ctypes.c_int64(b - a),
                ctx.numbers, ctypes.c_float(ctx.nearest[m]), s.height, s.width, _pointer(pull[m]),
                _pointer(of(share)), _pointer(of(top)), _pointer(of(image)), _pointer(grad[a:b]),
                _pointer(None if grad_shade is None else grad_shade[a:b]),
            )  # fmt: skip
        return grad, grad_shade, None, None, None


def cpp_peer() -> Callable[..., SoftImage]:
    """``soft_rasterize`` by the C++ peer, with the default settings."""
    library = compiled()
    library.peer_draw.restype = library.peer_gather.restype = None

    def rasterize(xyz: Tensor, splits: list[int], size: int, shade: Tensor | None) -> SoftImage:
        settings = Settings(size, size, 1e-4, 1e-3, 0.1, 100.0, 1e-3, 1e-5)
        alpha, image = _Peer.apply(xyz, shade, splits, settings, library)
        return SoftImage(alpha, None if shade is None else image)

    return rasterize


def agree(name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Stop unless two results agree to ``tolerance`` of the larger's greatest magnitude."""
    error = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-30))
    print(f"  peer agrees in {name} to {error:.1e}")
    if not math.isfinite(error) or error > tolerance:
        raise SystemExit(f"the C++ peer differs in {name}: {error:.1e} of the largest value.")
