"""DRC's loss on masks (Tulsiani et al., CVPR 2017): rays through a voxel grid against silhouettes.

Each sampled pixel's ray stops in a cell or escapes (:mod:`reconlab.renderers.ray_consistency`). With masks, every
stop of a background ray costs 1, and so does a foreground ray's escape; the expected cost is then linear in the
escape probability T: ``1 - T`` in the background, ``T`` in the foreground.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.devices import send
from reconlab.errors import ReconlabError
from reconlab.kernels.voxel_rays import Backend, escape_probability
from reconlab.losses.base import Loss
from reconlab.losses.occupancy import occupancy
from reconlab.renderers.ray_consistency import pixel_centres, pixel_rays
from reconlab.shapes import Shape

FOREGROUND = 0.5
"""Silhouette value at which a pixel counts as foreground."""


class Rays(NamedTuple):
    """Rays of sampled pixels.

    Attributes:
        origins, directions: ``(B, R, 3)`` float64, object frame, unit directions.
        foreground: ``(B, R)`` bool.
    """

    origins: Tensor
    directions: Tensor
    foreground: Tensor


class DRCTerms(NamedTuple):
    """The loss of each ray, ``(B, R)`` each.

    Attributes:
        cost: Expected cost, weighted.
        escape: Probability that nothing stops the ray.
        foreground: Whether it should be stopped.
    """

    cost: Tensor
    escape: Tensor
    foreground: Tensor

    def total(self) -> Tensor:
        """``(B,)`` sum of the rays' costs, the published code's gradient.

        Deep inside an opaque grid the gradient is tiny: with a mean it would drown in Adam's ε.
        """
        return self.cost.sum(1)


def sample_rays(silhouettes: Tensor, cameras: Cameras, rays: int, generator: torch.Generator | None = None) -> Rays:
    """Rays through the centres of random pixels, drawn with replacement; ray r looks from view ``r mod V``.

    Args:
        silhouettes: ``(B, V, H, H)`` in [0, 1].
        cameras: ``(B, V)``.
        rays: Per sample, over all its views.
        generator: On the CPU; torch's global one if None.

    Raises:
        ReconlabError: Shapes do not fit, or there is no ray.
    """
    if silhouettes.dim() != 4 or tuple(cameras.shape) != tuple(silhouettes.shape[:2]) or silhouettes.numel() == 0:
        raise ReconlabError(
            f"DRC takes silhouettes (B, V, H, H) and cameras (B, V), "
            f"not {tuple(silhouettes.shape)} and {tuple(cameras.shape)}."
        )
    height, width = silhouettes.shape[2:]
    if height != width:
        raise ReconlabError(f"DRC takes square silhouettes, not images of {(height, width)} pixels.")
    if rays < 1:
        raise ReconlabError(f"DRC: rays is {rays}; expected at least 1.")
    device = silhouettes.device
    count, views = silhouettes.shape[:2]
    share = -(-rays // views)
    # Drawn on the CPU, so that a seed gives the same rays on every device.
    pixel = send(torch.randint(height * width, (count, views, share), generator=generator), device)
    xy = pixel_centres(height, width, device).flatten(0, 1)[pixel]
    origins, directions = pixel_rays(cameras.to(device), xy)
    foreground = silhouettes.flatten(2).gather(2, pixel) >= FOREGROUND
    origins, directions = (x.transpose(1, 2).flatten(1, 2)[:, :rays] for x in (origins, directions))
    return Rays(origins, directions, foreground.transpose(1, 2).flatten(1)[:, :rays])


def drc(grid: Tensor, rays: Rays, background: float = 0.2, backend: Backend = "auto") -> DRCTerms:
    """The expected cost of each ray.

    Args:
        grid: ``(B, D, D, D)`` occupancy in [0, 1], indexed [x, y, z] over [-0.5, 0.5]³; half precision is computed in
            float32.
        rays: Of :func:`sample_rays`, or others.
        background: Weight of background rays; the foreground's is 1.
        backend: See :func:`reconlab.kernels.voxel_rays.escape_probability`.

    Returns:
        The terms. A ray that misses the grid escapes: it costs 1 in the foreground, without a gradient (0 in
        the published code), and nothing in the background.

    Raises:
        ReconlabError: Shapes do not fit, or the grid has no cell.

    Example:
        >>> from reconlab.cameras import dpc_cameras
        >>> rays = sample_rays(torch.zeros(1, 1, 64, 64), dpc_cameras([[0.0]], [[20.0]]), 100)
        >>> drc(torch.zeros(1, 8, 8, 8), rays).total()  # an empty grid casts the empty silhouette
        tensor([0.])
    """
    escape = escape_probability(grid, rays.origins, rays.directions, backend=backend)
    cost = torch.where(rays.foreground, escape, background * (1 - escape))
    return DRCTerms(cost, escape, rays.foreground)


class DRC(Loss):
    """DRC on any shape that yields voxels differentiably (grids, implicit fields).

    Random numbers come from torch's global generator.

    Args:
        rays: Per sample, over all its views (the paper's 3000 over 5).
        background: Weight of background rays (0.2, chosen by the authors on validation data).
        resolution: Cells along each axis of the grid that is asked of the shape.

    Raises:
        ReconlabError: A setting is out of range.
    """

    needs = frozenset({"views"})

    def __init__(self, rays: int = 3000, background: float = 0.2, resolution: int = 32) -> None:
        super().__init__()
        for name, value in (("rays", rays), ("resolution", resolution)):
            if value < 1:
                raise ReconlabError(f"DRC: {name} is {value}; expected at least 1.")
        if not background >= 0:
            raise ReconlabError(f"DRC: background is {background}; expected 0 or more.")
        self.rays, self.background, self.resolution = rays, background, resolution

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, the mean over samples; ``per_ray``, a ray's mean cost; ``inside`` and ``outside``.

        The last two are the mean stopping probabilities of foreground rays (should become 1) and background rays
        (0); either is NaN where no such ray was drawn.
        """
        views = batch.require("views", "DRC")
        grid = occupancy(shape, self.resolution, len(views.silhouettes), "DRC")
        terms = drc(grid, sample_rays(views.silhouettes, views.cameras, self.rays), self.background)
        stop = 1 - terms.escape.detach()
        return {
            "loss": terms.total().mean(),
            "per_ray": terms.cost.detach().mean(),
            "inside": stop[terms.foreground].mean(),
            "outside": stop[~terms.foreground].mean(),
        }

    def extra_repr(self) -> str:
        """The settings."""
        return f"rays={self.rays}, background={self.background}, resolution={self.resolution}"
