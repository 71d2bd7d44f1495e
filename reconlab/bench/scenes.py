"""Inputs that measurements share: points on surfaces, screen faces of an ellipsoid, clouds and their silhouettes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from reconlab.batch import Batch
    from reconlab.cameras import Cameras
    from reconlab.losses import Loss
    from reconlab.shapes import Mesh

RADII = (0.36, 0.28, 0.2)
"""Of the ellipsoid that is rasterised: its box has a diagonal of 1.0."""


def surface(batch: int, count: int, seed: int) -> Tensor:
    """``(batch, count, 3)`` points on the faces of a box, as clouds of surfaces are."""
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(batch, count, 3, generator=g) - 0.5
    axis = torch.randint(3, (batch, count, 1), generator=g)
    side = torch.randint(2, (batch, count, 1), generator=g) - 0.5
    return points.scatter(2, axis, side) * torch.tensor([0.6, 0.9, 0.4])


def shell(images: int, count: int, generator: torch.Generator) -> Tensor:
    """``(images, count, 3)`` points on an ellipsoid of diameters 0.9, 0.5 and 0.3."""
    direction = torch.nn.functional.normalize(torch.randn(images, count, 3, generator=generator), dim=-1)
    return direction * torch.tensor([0.45, 0.25, 0.15])


def disc(images: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """DRWR's repulsion at work: points in a disc of 8 % of an image of 32 units, weights and exponent biases.

    Returns:
        ``(images, count, 2)``, and twice ``(images, count)`` in [0, 1).
    """
    turn = 6.2832 * torch.rand(images, count, generator=generator)
    radius = 5 * torch.rand(images, count, generator=generator).sqrt()
    points = 16 + torch.stack([radius * turn.cos(), radius * turn.sin()], -1)
    weights, bias = (torch.rand(images, count, generator=generator) for _ in range(2))
    return points, weights, bias


def ellipsoid(subdivisions: int, radii: tuple[float, float, float] = RADII) -> Mesh:
    """An icosphere of ``20 · 4^subdivisions`` faces, stretched."""
    import trimesh

    from reconlab.shapes import Mesh

    ball = trimesh.creation.icosphere(subdivisions)
    vertices = torch.tensor(ball.vertices, dtype=torch.float32) * torch.tensor(radii)
    return Mesh(vertices, torch.tensor(ball.faces))


def screen_faces(subdivisions: int, cameras: Cameras) -> tuple[Tensor, list[int], Tensor]:
    """The ellipsoid as rasterisers take it.

    Returns:
        ``(F, 3, 3)`` corners on the screen with depths, of all cameras one after another; where each camera's faces
        begin, and the end; ``(F, 3)`` random grey values of the corners.
    """
    mesh = ellipsoid(subdivisions)
    views = len(cameras)
    xy, depth = cameras.project(mesh.vertices.expand(views, -1, -1))
    xyz = torch.cat([xy, depth[..., None]], -1)[:, mesh.faces].reshape(-1, 3, 3)
    grey = torch.rand(len(xyz), 3, generator=torch.Generator().manual_seed(0))
    return xyz, [len(mesh.faces) * v for v in range(views + 1)], grey


def shadows(generator: torch.Generator) -> Batch:
    """Four samples with four views: silhouettes of 8 to 12 % of 128 pixels squared, as DRWR's classes have."""
    from reconlab.batch import Batch, Views
    from reconlab.cameras import dpc_cameras

    x, y = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="xy")
    radii = 0.25 + 0.15 * torch.rand(4, 4, 2, 1, 1, generator=generator)
    silhouettes = ((x / radii[:, :, 0]) ** 2 + (y / radii[:, :, 1]) ** 2 < 1).float()
    cameras = dpc_cameras(22.5 * torch.arange(16), 0.0).reshape(4, 4)
    images = 1 - 0.5 * silhouettes[:, :1].expand(4, 3, 128, 128)
    return Batch(["a", "b", "c", "d"], ["none"] * 4, images=images, views=Views(cameras, silhouettes))


def settle(cloud: Tensor, loss: Loss, data: Batch) -> Tensor:
    """The cloud as DRWR arranges it in the silhouettes after some steps: most points weigh, as in training."""
    from reconlab.shapes import PointCloud

    cloud = cloud.clone().requires_grad_()
    optimiser = torch.optim.Adam([cloud], 0.02)
    for _ in range(15):
        optimiser.zero_grad()
        loss(PointCloud(cloud), data)["loss"].backward()
        optimiser.step()
    return cloud.detach().requires_grad_()


def smooth_fields(count: int, size: int) -> Tensor:
    """``(count, size, size, size)`` smooth random fields, whose zeros have some tens of thousands of faces."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(0).standard_normal((count, size, size, size))
    return torch.from_numpy(np.stack([gaussian_filter(n, size / 12) for n in noise])).float() * size


def bumpy(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a sphere with a wavy surface and thin spikes."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions)
    x, y, z = ball.vertices.T
    radius = 1 + 0.2 * np.sin(5 * x) * np.cos(4 * y + z) + 0.6 * (np.sin(9 * x + 3 * z) > 0.97)
    return ball.vertices * radius[:, None] * [1, 0.7, 0.5], np.array(ball.faces, np.int64)


def gradient_of(run: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The value of ``run(*inputs)``, and its sum's gradients by the inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    value = run(*leaves)
    return (value.detach(), *torch.autograd.grad(value.sum(), leaves))
