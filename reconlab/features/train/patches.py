"""Training patches: pairs of renders of one shape, and where the same surface point is seen in both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reconlab.cameras import Cameras, softras_cameras
from reconlab.renderers.shading import Light
from reconlab.shapes import Mesh


@dataclass
class ViewPair:
    """Two views of one shape, near one another in direction, scale and light.

    Attributes:
        grey: ``(2, H, W)`` shaded renders in [0, 1] on black, as the loss sees them.
        depth: ``(2, H, W)`` camera z, inf where nothing is seen.
        cameras: ``(2,)``.
    """

    grey: Tensor
    depth: Tensor
    cameras: Cameras


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def view_pairs(meshes: Iterable[Mesh], pairs: int, size: int, generator: torch.Generator) -> Iterator[ViewPair]:
    """Render ``pairs`` pairs of each mesh.

    The second view differs by up to 15° in azimuth, 8° in elevation, 8 % in scale, and its light by up to 15°.

    Args:
        meshes: Batches of one mesh.
        pairs: Per mesh.
        size: Pixels a side.
        generator: Of every random choice.
    """
    from reconlab.renderers import render_depth, soft_rasterize

    for mesh in meshes:
        for _ in range(pairs):
            azimuth, elevation = uniform(generator, 0, 360), uniform(generator, 5, 65)
            half_fov = uniform(generator, 11.5, 15.0)
            tilt = [uniform(generator, -1, 1) for _ in range(3)]
            cameras = Cameras.stack(
                [
                    softras_cameras(azimuth, elevation, half_fov=half_fov),
                    softras_cameras(
                        azimuth + 15 * tilt[0],
                        elevation + 8 * tilt[1],
                        half_fov=half_fov * (1 + 0.08 * tilt[2]),
                    ),
                ]
            )
            normals: Literal["flat", "smooth"] = "flat" if uniform(generator, 0, 1) < 0.7 else "smooth"
            grey = []
            for i in range(2):
                light = _turned(Light(), generator, 0.13)
                view = soft_rasterize(mesh, cameras[i : i + 1], size, normals=normals, light=light)
                grey.append(view.silhouette[0, 0] if view.shaded is None else view.shaded[0, 0])
            depth = render_depth(mesh.vertices, mesh.faces, cameras, size).depth
            yield ViewPair(torch.stack(grey).detach(), depth, cameras)


def corners(grey: Tensor, count: int, margin: int = 16, quality: float = 0.05) -> Tensor:
    """The strongest Shi-Tomasi corners of an image.

    Args:
        grey: ``(H, W)``.
        count: At most this many.
        margin: None nearer to the border, in pixels.
        quality: None weaker than this fraction of the strongest.

    Returns:
        ``(N, 2)`` integer row and column, strongest first, at least 4 pixels apart.
    """
    from kornia.feature import gftt_response

    response = gftt_response(grey[None, None], "sobel")[0, 0]
    peak = (response == F.max_pool2d(response[None, None], 9, 1, 4)[0, 0]) & (response > quality * response.max())
    peak[:margin], peak[-margin:], peak[:, :margin], peak[:, -margin:] = False, False, False, False
    where = peak.nonzero()
    order = response[peak].argsort(descending=True)[:count]
    return where[order]


def transfer(pair: ViewPair, points: Tensor, tolerance: float = 0.02) -> tuple[Tensor, Tensor]:
    """Where points of the first view are in the second.

    A point's depth is the nearest within its 3×3 pixels, so that a corner on the outline belongs to the object.

    Args:
        pair: The two views.
        points: ``(N, 2)`` integer row and column in the first.
        tolerance: Depth by which a point may miss the second view's surface and still be seen there.

    Returns:
        ``(N, 2)`` float row and column in the second view, and ``(N,)`` bool: on the object, inside the image
        and not hidden.
    """
    size = pair.grey.shape[-1]
    near = -F.max_pool2d(-pair.depth[:, None], 3, 1, 1)[:, 0]
    z = near[0][points[:, 0], points[:, 1]]
    seen = torch.isfinite(z)
    first, second = pair.cameras[0], pair.cameras[1]
    xy = (2 * points.flip(1).float() + 1) / size - 1
    z = torch.where(seen, z, torch.ones_like(z))
    rays = torch.cat([(xy - first.centre) / first.focal, torch.ones(len(xy), 1)], dim=1)
    world = (rays * z[:, None] - first.t) @ first.R  # R^T applied to row vectors
    there, depth = second.project(world)
    at = ((there.flip(1) + 1) * size - 1) / 2
    cell = at.round().long()
    inside = ((cell >= 1) & (cell < size - 1)).all(dim=1)
    cell = cell.clamp(1, size - 2)
    gaps = torch.stack(
        [(pair.depth[1][cell[:, 0] + dy, cell[:, 1] + dx] - depth).abs() for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    )
    return at, seen & inside & (gaps.amin(dim=0) < tolerance)


def cut(image: Tensor, centres: Tensor, size: int = 32) -> Tensor:
    """Patches ``(N, size, size)`` of ``(H, W)`` around float centres (row, column), bilinear, zero outside."""
    height, width = image.shape
    steps = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    rows = centres[:, 0, None, None] + steps[None, :, None]
    columns = centres[:, 1, None, None] + steps[None, None, :]
    rows, columns = torch.broadcast_tensors(rows, columns)
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    grid = grid.reshape(1, -1, size, 2)
    out = F.grid_sample(image[None, None], grid, align_corners=False, padding_mode="zeros")
    return out.view(-1, size, size)


def spread(points: Tensor, distance: float, count: int) -> Tensor:
    """Indices of at most ``count`` of the points ``(N, 2)``, in order, none nearer to another than ``distance``."""
    chosen: list[int] = []
    for i in range(len(points)):
        gap = (points[chosen] - points[i]).float().norm(dim=1) if chosen else torch.full((1,), torch.inf)
        if bool((gap >= distance).all()):
            chosen.append(i)
        if len(chosen) == count:
            break
    return torch.tensor(chosen, dtype=torch.long)


def _turned(light: Light, generator: torch.Generator, amount: float) -> Light:
    """The light with its direction turned by about ``amount`` radians at most."""
    towards = F.normalize(torch.tensor(light.direction), dim=0)
    noise = torch.tensor([uniform(generator, -1, 1) for _ in range(3)])
    x, y, z = (towards + amount * noise).tolist()
    return replace(light, direction=(x, y, z))
