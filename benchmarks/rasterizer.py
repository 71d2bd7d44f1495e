"""The rasterisers on the CPU: numba against the torch reference and, if asked, against peers.

Soft: all views of an ellipsoid, the forward alone and with the backward. Hard: the z-buffer. ``--peer cpp`` compiles
the same formula written plainly in C++ (``rasterizer_peer.cpp``), checks that it gives the same image and gradient,
and measures it; ``--peer pytorch3d`` measures PyTorch3D where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import trimesh
from harness import measure, parse, save, show
from rasterizer_peer import agree, cpp_peer
from torch import Tensor

from reconlab.cameras import hemisphere_views, orbit_views
from reconlab.kernels.soft_rasterize import SoftImage, soft_rasterize
from reconlab.kernels.zbuffer import zbuffer


def scene(subdivisions: int, cameras: Any) -> tuple[Tensor, list[int], Tensor]:
    """Screen faces of an ellipsoid of diagonal 1 from all cameras, their splits, and random grey values."""
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    vertices = torch.tensor(mesh.vertices).float() * torch.tensor([0.36, 0.28, 0.2])
    views, faces = len(cameras), torch.tensor(mesh.faces)
    xy, depth = cameras.project(vertices.expand(views, -1, -1))
    xyz = torch.cat([xy, depth[..., None]], -1)[:, faces].reshape(-1, 3, 3)
    grey = torch.rand(len(xyz), 3, generator=torch.Generator().manual_seed(0))
    return xyz, [len(faces) * v for v in range(views + 1)], grey


def pytorch3d(corners: Tensor, splits: list[int], size: int, grey: Tensor | None) -> SoftImage:
    """The same images by PyTorch3D's rasteriser and its sigmoid or softmax blending."""
    from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend, softmax_rgb_blend
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.renderer.mesh.rasterizer import Fragments
    from pytorch3d.structures import Meshes

    count = splits[1]
    triangles = torch.arange(3 * count).view(1, count, 3).expand(len(splits) - 1, -1, -1)
    meshes = Meshes(corners.view(len(splits) - 1, 3 * count, 3), triangles)
    fragments = Fragments(
        *rasterize_meshes(meshes, size, blur_radius=11.5e-4, faces_per_pixel=25, perspective_correct=False)
    )
    blend = BlendParams(sigma=1e-4, gamma=1e-3, background_color=(0.0, 0.0, 0.0))
    colours = torch.ones(*fragments.pix_to_face.shape, 3)
    if grey is None:
        return SoftImage(sigmoid_alpha_blend(colours, fragments, blend)[..., 3], None)
    value = (grey[fragments.pix_to_face.clamp(min=0)] * fragments.bary_coords).sum(-1, keepdim=True)
    blended = softmax_rgb_blend(value * colours, fragments, blend)
    return SoftImage(blended[..., 3], blended[..., 0])


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
    options = parse(__doc__, peers=("cpp", "pytorch3d"))
    peer = cpp_peer() if "cpp" in options.peers else None
    records = []
    every = hemisphere_views()
    # The reference is slow at the larger sizes: fewer views there, it is the ratio that counts.
    for subdivisions, size, views in ((3, 64, 25), (3, 128, 8), (3, 256, 4), (4, 64, 5), (4, 128, 4), (4, 256, 2)):
        xyz, splits, grey = scene(subdivisions, every[:views])
        for shades, kind in ((None, "silhouette"), (grey, "shaded")):
            work = (splits, size, shades)
            contestants = {
                "kernel (numba)": partial(soft_rasterize, splits=splits, image_size=size, face_shade=shades),
                "torch reference": lambda x, w=work: soft_rasterize(x, *w, backend="reference"),
            }
            if peer is not None:
                contestants["C++, scalar, -O3 -ffast-math"] = lambda x, w=work: peer(x, *w)
                check(*(contestants[k] for k in ("kernel (numba)", "C++, scalar, -O3 -ffast-math")), xyz)
            if "pytorch3d" in options.peers:
                contestants["PyTorch3D, 25 faces per pixel"] = lambda x, w=work: pytorch3d(x, *w)
            rounds = options.rounds if size < 256 else min(options.rounds, 3)
            for verb, run in (("forward", forward), ("forward and backward", step)):
                title = f"soft, {kind}, {verb}: {splits[1]} faces, {size}², {views} views"
                timed = {name: partial(run, rasterize, xyz) for name, rasterize in contestants.items()}
                records.append(show(title, measure(timed, rounds)))
    xyz, splits, _ = scene(5, orbit_views(24))
    hard: dict[str, Callable[[], Any]] = {
        "kernel (numba)": lambda: zbuffer(xyz, splits, 256, backend="cpu"),
        "torch reference": lambda: zbuffer(xyz, splits, 256, backend="reference"),
    }
    records.append(show(f"z-buffer: {splits[1]} faces, 256², 24 views", measure(hard, min(options.rounds, 2))))
    save(records, options)


if __name__ == "__main__":
    main()
