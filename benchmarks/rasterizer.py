"""The rasterisers on the CPU: numba against the torch reference and, if asked, against C++.

Soft: all views of an ellipsoid, the forward alone and with the backward. Hard: the z-buffer. ``--peer cpp`` compiles
the same formula written plainly in C++ (``rasterizer_peer.cpp``), checks that it gives the same image and gradient,
and measures it. PyTorch3D is measured by ``reconlab bench --only rasterizer --peer pytorch3d``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import measure, parse, save, show
from rasterizer_peer import agree, cpp_peer
from torch import Tensor

from reconlab.bench.scenes import screen_faces
from reconlab.cameras import hemisphere_views, orbit_views
from reconlab.kernels.soft_rasterize import SoftImage, soft_rasterize
from reconlab.kernels.zbuffer import zbuffer


def step(rasterize: Callable[[Tensor], SoftImage], xyz: Tensor) -> None:
    """Render, sum of squares, gradients."""
    out = rasterize(xyz.detach().requires_grad_())
    (out.alpha if out.shade is None else out.alpha * out.shade).square().sum().backward()


def forward(rasterize: Callable[[Tensor], SoftImage], xyz: Tensor) -> None:
    """Render only."""
    with torch.no_grad():
        rasterize(xyz)


def check(ours: Callable[[Tensor], SoftImage], theirs: Callable[[Tensor], SoftImage], xyz: Tensor) -> None:
    """Stop unless the C++ peer has our image and our gradient: else its time means nothing."""
    results = []
    for rasterize in (ours, theirs):
        corners = xyz.detach().requires_grad_()
        out = rasterize(corners)
        image = out.alpha if out.shade is None else out.alpha * out.shade
        image.square().sum().backward()
        results.append((image.detach(), corners.grad))
    agree("the image", results[0][0], results[1][0], 1e-5)
    agree("the gradient", results[0][1], results[1][1], 2e-3)  # float32: nearest edges tie at a corner


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__, peers=("cpp",))
    peer = cpp_peer() if "cpp" in options.peers else None
    records = []
    every = hemisphere_views()
    # The reference is slow at the larger sizes: fewer views there, it is the ratio that counts.
    for subdivisions, size, views in ((3, 64, 25), (3, 128, 8), (3, 256, 4), (4, 64, 5), (4, 128, 4), (4, 256, 2)):
        xyz, splits, grey = screen_faces(subdivisions, every[:views])
        for shades, kind in ((None, "silhouette"), (grey, "shaded")):
            work = (splits, size, shades)
            contestants = {
                "kernel (numba)": partial(soft_rasterize, splits=splits, image_size=size, face_shade=shades),
                "torch reference": lambda x, w=work: soft_rasterize(x, *w, backend="reference"),
            }
            if peer is not None:
                contestants["C++, scalar, -O3 -ffast-math"] = lambda x, w=work: peer(x, *w)
                check(*(contestants[k] for k in ("kernel (numba)", "C++, scalar, -O3 -ffast-math")), xyz)
            rounds = options.rounds if size < 256 else min(options.rounds, 3)
            for verb, run in (("forward", forward), ("forward and backward", step)):
                title = f"soft, {kind}, {verb}: {splits[1]} faces, {size}², {views} views"
                timed = {name: partial(run, rasterize, xyz) for name, rasterize in contestants.items()}
                records.append(show(title, measure(timed, rounds)))
    xyz, splits, _ = screen_faces(5, orbit_views(24))
    hard: dict[str, Callable[[], Any]] = {
        "kernel (numba)": lambda: zbuffer(xyz, splits, 256, backend="cpu"),
        "torch reference": lambda: zbuffer(xyz, splits, 256, backend="reference"),
    }
    records.append(show(f"z-buffer: {splits[1]} faces, 256², 24 views", measure(hard, min(options.rounds, 2))))
    save(records, options)


if __name__ == "__main__":
    main()
