"""The rasterisers on the CPU: numba against the torch reference, and PyTorch3D (25 faces per pixel) if installed.

Soft: forward and backward of all views of an ellipsoid, and the forward alone. Hard: the z-buffer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import trimesh
from harness import measure, parse, save, show
from torch import Tensor

from reconlab.cameras import hemisphere_views, orbit_views
from reconlab.kernels.soft_rasterize import soft_rasterize
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


def train_step(xyz: Tensor, splits: list[int], grey: Tensor | None, size: int, backend: Any) -> None:
    """Render, sum of squares, gradients."""
    xyz = xyz.detach().requires_grad_()
    out = soft_rasterize(xyz, splits, size, grey, backend=backend)
    (out.alpha if out.shade is None else out.alpha * out.shade).square().sum().backward()


def forward(xyz: Tensor, splits: list[int], grey: Tensor | None, size: int, backend: Any) -> None:
    """Render only."""
    with torch.no_grad():
        soft_rasterize(xyz, splits, size, grey, backend=backend)


def pytorch3d_step(xyz: Tensor, splits: list[int], grey: Tensor | None, size: int, faces_per_pixel: int = 25) -> None:
    """The same step by PyTorch3D's rasteriser and its sigmoid or softmax blending."""
    from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend, softmax_rgb_blend
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.renderer.mesh.rasterizer import Fragments
    from pytorch3d.structures import Meshes

    corners = xyz.detach().requires_grad_()
    count = splits[1]
    triangles = torch.arange(3 * count).view(1, count, 3).expand(len(splits) - 1, -1, -1)
    meshes = Meshes(corners.view(len(splits) - 1, 3 * count, 3), triangles)
    fragments = Fragments(
        *rasterize_meshes(
            meshes, size, blur_radius=11.5e-4, faces_per_pixel=faces_per_pixel, perspective_correct=False
        )
    )
    blend = BlendParams(sigma=1e-4, gamma=1e-3, background_color=(0.0, 0.0, 0.0))
    colours = torch.ones(*fragments.pix_to_face.shape, 3)
    if grey is None:
        image = sigmoid_alpha_blend(colours, fragments, blend)[..., 3]
    else:
        value = (grey[fragments.pix_to_face.clamp(min=0)] * fragments.bary_coords).sum(-1, keepdim=True)
        image = softmax_rgb_blend(value * colours, fragments, blend)[..., 0]
    image.square().sum().backward()


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    records = []
    every = hemisphere_views()
    # The reference is slow at the larger sizes: fewer views there, it is the ratio that counts.
    for subdivisions, size, views in ((3, 64, 25), (3, 256, 4), (4, 64, 5), (4, 256, 2)):
        xyz, splits, grey = scene(subdivisions, every[:views])
        for shades, kind in ((None, "silhouette"), (grey, "shaded")):
            work = (xyz, splits, shades, size)
            contestants: dict[str, Callable[[], Any]] = {
                "kernel (numba), step": lambda w=work: train_step(*w, "cpu"),
                "kernel (numba), forward": lambda w=work: forward(*w, "cpu"),
                "torch reference, step": lambda w=work: train_step(*w, "reference"),
            }
            if importlib.util.find_spec("pytorch3d"):
                contestants["PyTorch3D, step"] = lambda w=work: pytorch3d_step(*w)
            title = f"soft, {kind}: {splits[1]} faces, {size}², {views} views"
            rounds = options.rounds if size < 256 else min(options.rounds, 2)
            records.append(show(title, measure(contestants, rounds)))
    xyz, splits, _ = scene(5, orbit_views(24))
    hard: dict[str, Callable[[], Any]] = {
        "kernel (numba)": lambda: zbuffer(xyz, splits, 256, backend="cpu"),
        "torch reference": lambda: zbuffer(xyz, splits, 256, backend="reference"),
    }
    records.append(show(f"z-buffer: {splits[1]} faces, 256², 24 views", measure(hard, min(options.rounds, 2))))
    save(records, options)


if __name__ == "__main__":
    main()
