"""IM-Net's loss (Chen & Zhang, CVPR 2019): squared error of occupancies at points, and of codes."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reconlab.batch import Batch
from reconlab.devices import send
from reconlab.errors import ConversionError, ReconlabError
from reconlab.losses.base import Loss
from reconlab.shapes import ImplicitField, Shape, VoxelGrid


def occupancy_mse(pred: Tensor, target: Tensor) -> Tensor:
    """Mean over points of ``(pred - target)²``: two ``(B, N)`` to ``(B,)``.

    Example:
        >>> occupancy_mse(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([0.1250])
    """
    if pred.shape != target.shape or pred.dim() != 2:
        raise ReconlabError(
            f"occupancy_mse() compares (B, N) with (B, N), not {tuple(pred.shape)} with {tuple(target.shape)}."
        )
    return (pred - target).square().mean(1)


def near_surface(voxels: Tensor) -> Tensor:
    """Cells one of whose six neighbours is of the other kind: ``(B, D, D, D)`` occupancies to bool.

    Beyond the border is empty.

    Example:
        >>> ball = torch.zeros(1, 4, 4, 4)
        >>> ball[0, 1, 1, 1] = 1
        >>> int(near_surface(ball).sum())
        7
    """
    full = F.pad(voxels >= 0.5, (1, 1, 1, 1, 1, 1))
    here = full[:, 1:-1, 1:-1, 1:-1]
    near = torch.zeros_like(here)
    for axis in (1, 2, 3):
        for shift in (1, -1):
            near |= torch.roll(full, shift, axis)[:, 1:-1, 1:-1, 1:-1] != here
    return near


def sample_cells(voxels: Tensor, count: int, near: float) -> tuple[Tensor, Tensor]:
    """Centres of random cells, some of them near the surface.

    Args:
        voxels: ``(B, D, D, D)``, occupied from 0.5 on.
        count: ``N``, drawn with replacement.
        near: Share of the points that is drawn of the cells :func:`near_surface`; the rest is uniform. A grid
            without such cells gives uniform points.

    Returns:
        Points ``(B, N, 3)`` and their occupancies ``(B, N)`` in {0, 1}.
    """
    batch, size = voxels.shape[:2]
    flat = near_surface(voxels).flatten(1).float()
    found = flat.sum(1, keepdim=True)
    share = torch.where(found > 0, near, 0.0)
    weights = share * flat / found.clamp_min(1) + (1 - share) / flat.shape[1]
    index = torch.multinomial(weights, count, replacement=True)
    occupied = (voxels.flatten(1) >= 0.5).gather(1, index).float()
    cell = torch.stack([index // size**2, index // size % size, index % size], -1)
    return (cell + 0.5) / size - 0.5, occupied.reshape(batch, count)


class OccupancyMSE(Loss):
    """Squared error of a field's occupancy at random points, mean over points and samples.

    IM-Net draws its points from voxels, near the surface first, at 16³, then 32³, then 64³ cells, and trains on
    each in turn (200, 200 and 400 epochs of 4096 points a step). So does this loss with ``source: voxels``: of the
    resolutions the last takes the second half of the run, the others share the first. Coarser grids are averages of
    the batch's, occupied from a half on. A field that knows its own occupancies (``occupancies(points)``, IM-Net's
    leaky clip) is asked for them; of any other the sigmoid of the logits is taken, and grids are interpolated.

    Args:
        points: Per sample and step.
        source: ``voxels``, or ``queries``: the dataset's points with exact occupancies, which are uniform in the
            cube and do not favour the surface.
        near: Share of the points next to the surface (``voxels`` only).
        resolutions: Ascending, up to that of the batch's voxels (``voxels`` only).

    Raises:
        ReconlabError: A setting is out of range.
    """

    def __init__(
        self,
        points: int = 4096,
        source: Literal["voxels", "queries"] = "voxels",
        near: float = 0.5,
        resolutions: tuple[int, ...] = (16, 32),
    ) -> None:
        super().__init__()
        if points < 1:
            raise ReconlabError(f"OccupancyMSE: points is {points}; expected at least 1.")
        if source not in ("voxels", "queries"):
            raise ReconlabError(f"OccupancyMSE: source is {source!r}; choose voxels or queries.")
        if not 0 <= near <= 1:
            raise ReconlabError(f"OccupancyMSE: near is {near}; expected a share in [0, 1].")
        if not resolutions or min(resolutions) < 1 or list(resolutions) != sorted(set(resolutions)):
            raise ReconlabError(f"OccupancyMSE: resolutions are {list(resolutions)}; expected ascending numbers.")
        self.needs = frozenset({"voxels"} if source == "voxels" else {"occupancy"})
        self.points, self.source, self.near = points, source, near
        self.resolutions = tuple(resolutions)
        self.resolution = self.resolutions[-1]

    def advance(self, step: int, total: int) -> None:
        """Choose the resolution."""
        earlier = len(self.resolutions) - 1
        done = step / max(total, 1)
        self.resolution = self.resolutions[-1 if done >= 0.5 or not earlier else int(2 * done * earlier)]

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``loss``, and ``agree``: the share of points that lie on the right side (no gradient)."""
        if len(shape) != len(batch):
            raise ReconlabError(f"OccupancyMSE got {len(shape)} shapes for a batch of {len(batch)}.")
        points, target = self._truth(batch)
        pred = occupancies(shape, points)
        agree = ((pred.detach() >= 0.5) == (target >= 0.5)).float().mean()
        return {"loss": occupancy_mse(pred, target.to(pred)).mean(), "agree": agree}

    def _truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.source == "queries":
            points = batch.require("query_points", "OccupancyMSE")
            target = batch.require("query_occupancies", "OccupancyMSE")
            if points.shape[1] <= self.points:
                return points, target
            chosen = send(torch.randperm(points.shape[1])[: self.points], points.device)
            return points[:, chosen], target[:, chosen]
        voxels = batch.require("voxels", "OccupancyMSE")
        have = voxels.shape[1]
        if self.resolution > have:
            raise ReconlabError(
                f"OccupancyMSE: resolutions reach {self.resolution} but the data's voxels are {have}³; list smaller "
                "ones or build finer voxels."
            )
        if self.resolution < have:
            voxels = F.adaptive_avg_pool3d(voxels.unsqueeze(1).float(), self.resolution).squeeze(1)
        return sample_cells(voxels, self.points, self.near)


def occupancies(shape: Shape, points: Tensor) -> Tensor:
    """``(B, N, 3) -> (B, N)`` of a field or grid, differentiable.

    Raises:
        ConversionError: The shape has no occupancies at points.
    """
    own = getattr(shape, "occupancies", None)
    if own is not None:
        values: Tensor = own(points)
        return values
    if isinstance(shape, ImplicitField):
        return shape.logits(points).sigmoid()
    if isinstance(shape, VoxelGrid):
        # grid_sample's x, y, z index the last, the middle and the first axis.
        where = (2 * points.to(shape.values)).flip(-1).reshape(len(shape), -1, 1, 1, 3)
        grid = F.grid_sample(shape.values.unsqueeze(1), where, padding_mode="border", align_corners=False)
        return grid.reshape(len(shape), -1)
    who = type(shape).__name__
    raise ConversionError(f"{who} has no occupancies at points; OccupancyMSE takes fields and grids.")


def code_regression(pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of codes: two ``(B, Z)`` to ``(B,)``."""
    if pred.shape != target.shape or pred.dim() != 2:
        raise ReconlabError(
            f"code_regression() compares (B, Z) with (B, Z), not {tuple(pred.shape)} with {tuple(target.shape)}."
        )
    return (pred - target).square().mean(1)


class CodeRegression(Loss):
    """IM-Net's image stage: the code of the image against that of the voxels, mean over numbers and samples.

    Reads ``code`` and ``target_code`` of the shape, which :class:`~reconlab.networks.IMNet` has with
    ``regress_codes``.
    """

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``loss``.

        Raises:
            ConversionError: The shape carries no codes.
        """
        code, target = getattr(shape, "code", None), getattr(shape, "target_code", None)
        if code is None or target is None:
            raise ConversionError(
                f"CodeRegression needs a shape with code and target_code, which {type(shape).__name__} does not "
                "give here; use IMNet with regress_codes and decoder_from, while training."
            )
        return {"loss": code_regression(code, target).mean()}
