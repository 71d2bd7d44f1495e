"""Perspective cameras, the two papers' presets, and view sets.

One convention everywhere: the object frame is y up with the object's front towards -z; the camera frame is
OpenCV's (x right, y down, z forward); image coordinates are normalised to [-1, 1], x right, y down, with the
centre of pixel ``i`` of ``W`` at ``(2 i + 1) / W - 1`` (``align_corners=False`` of ``grid_sample``).
Azimuth 0 looks at the object's front (the camera stands at -z); positive azimuths move the camera towards +x.
Converters to other programs' cameras live in :mod:`reconlab.camera_converters`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reconlab.devices import send
from reconlab.errors import ReconlabError

DPC_FOCAL = 3.75  # 1.875 image widths (60 mm lens on a 32 mm sensor); the image is 2 units wide here
DPC_DISTANCE = 2.0
SOFTRAS_DISTANCE = 2.732
SOFTRAS_HALF_FOV = 15.0

Angle = float | Sequence[float] | Tensor


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras of any leading shape ``(...)``.

    Attributes:
        R: ``(..., 3, 3)`` rotation from the object to the camera frame.
        t: ``(..., 3)`` translation: ``x_camera = R x + t``.
        focal: ``(..., 2)`` focal lengths in image half-widths and half-heights.
        centre: ``(..., 2)`` principal point in normalised image coordinates.

    Example:
        >>> cameras = orbit_views(4)
        >>> cameras.shape
        torch.Size([4])
        >>> xy, depth = cameras.project(torch.zeros(4, 1, 3))
        >>> bool(xy.abs().max() < 1e-6), round(float(depth[0, 0]), 3)
        (True, 2.732)
    """

    R: Tensor
    t: Tensor
    focal: Tensor
    centre: Tensor

    def __post_init__(self) -> None:
        lead = self.t.shape[:-1]
        expected = ((*lead, 3, 3), (*lead, 3), (*lead, 2), (*lead, 2))
        given = tuple(tuple(x.shape) for x in (self.R, self.t, self.focal, self.centre))
        if given != expected:
            raise ReconlabError(
                f"Cameras: R, t, focal, centre have shapes {given}; "
                "expected (..., 3, 3), (..., 3), (..., 2), (..., 2)."
            )

    @property
    def shape(self) -> torch.Size:
        """The leading (batch) shape."""
        return self.t.shape[:-1]

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.t.device

    @property
    def position(self) -> Tensor:
        """``(..., 3)`` the eye in the object frame."""
        return -(self.R.transpose(-1, -2) @ self.t.unsqueeze(-1)).squeeze(-1)

    def __len__(self) -> int:
        return self.t.shape[0]

    def __getitem__(self, index: object) -> Cameras:
        return Cameras(self.R[index], self.t[index], self.focal[index], self.centre[index])  # type: ignore[index]

    def to(self, *args: object, **kwargs: object) -> Cameras:
        """Move or cast all tensors, as ``Tensor.to`` does."""
        return Cameras(*(x.to(*args, **kwargs) for x in (self.R, self.t, self.focal, self.centre)))  # type: ignore[call-overload]

    def send(self, device: torch.device | str) -> Cameras:
        """Move all tensors without waiting for the device."""
        return Cameras(*(send(x, device) for x in (self.R, self.t, self.focal, self.centre)))

    def reshape(self, *shape: int) -> Cameras:
        """Reshape the leading dimensions."""
        return Cameras(
            self.R.reshape(*shape, 3, 3),
            self.t.reshape(*shape, 3),
            self.focal.reshape(*shape, 2),
            self.centre.reshape(*shape, 2),
        )

    def expand(self, *shape: int) -> Cameras:
        """Expand the leading dimensions, as ``Tensor.expand`` does."""
        return Cameras(
            self.R.expand(*shape, 3, 3),
            self.t.expand(*shape, 3),
            self.focal.expand(*shape, 2),
            self.centre.expand(*shape, 2),
        )

    @staticmethod
    def stack(cameras: Sequence[Cameras]) -> Cameras:
        """Stack cameras of equal shape along a new first dimension."""
        return Cameras(*(torch.stack([getattr(c, k) for c in cameras]) for k in ("R", "t", "focal", "centre")))

    @staticmethod
    def cat(cameras: Sequence[Cameras]) -> Cameras:
        """Concatenate along the first dimension."""
        return Cameras(*(torch.cat([getattr(c, k) for c in cameras]) for k in ("R", "t", "focal", "centre")))

    def transform(self, points: Tensor) -> Tensor:
        """Object to camera frame: ``(..., N, 3) -> (..., N, 3)``."""
        return points @ self.R.transpose(-1, -2).to(points.dtype) + self.t.unsqueeze(-2).to(points.dtype)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Project points (DRWR Eq. 1).

        Args:
            points: ``(..., N, 3)`` in the object frame; leading dimensions broadcast with the cameras'.

        Returns:
            ``xy (..., N, 2)`` in normalised image coordinates and ``depth (..., N)``, the camera-frame z.
            Points at or behind the camera plane (depth below 1e-4) are projected with depth 1e-4, so that
            coordinates stay finite; test ``depth`` to exclude them.
        """
        camera = self.transform(points)
        depth = camera[..., 2]
        safe = depth.clamp_min(1e-4).unsqueeze(-1)
        focal, centre = self.focal.unsqueeze(-2).to(points.dtype), self.centre.unsqueeze(-2).to(points.dtype)
        return focal * camera[..., :2] / safe + centre, depth


def _tensor(value: Angle) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32)


def look_at(
    azimuth: Angle,
    elevation: Angle,
    distance: Angle,
    focal: Angle,
    *,
    target: Sequence[float] = (0.0, 0.0, 0.0),
) -> Cameras:
    """Cameras on a sphere that look at ``target``, without roll; all arguments broadcast.

    Args:
        azimuth: Degrees; 0 stands at -z (the object's front), 90 at +x.
        elevation: Degrees above the horizontal plane, in [-90, 90].
        distance: From the eye to the target, object units.
        focal: Focal length in image half-widths (``1 / tan(half field of view)``).
        target: The point looked at.
    """
    az, el, dist, foc = torch.broadcast_tensors(*(_tensor(x) for x in (azimuth, elevation, distance, focal)))
    a, e = torch.deg2rad(az.double()), torch.deg2rad(el.double())
    # The frame is written down from the angles, so that the pole needs no "up" vector of its own.
    forward = -torch.stack([e.cos() * a.sin(), e.sin(), -e.cos() * a.cos()], -1)
    right = torch.stack([-a.cos(), torch.zeros_like(a), -a.sin()], -1)
    down = torch.linalg.cross(forward, right)
    R = torch.stack([right, down, forward], -2)
    eye = torch.tensor(target, dtype=torch.float64, device=az.device) - forward * dist.double().unsqueeze(-1)
    t = -(R @ eye.unsqueeze(-1)).squeeze(-1)
    return Cameras(
        R.float(), t.float(), foc.unsqueeze(-1).expand(*foc.shape, 2).clone(), foc.new_zeros(*foc.shape, 2)
    )


def dpc_cameras(azimuth: Angle, elevation: Angle) -> Cameras:
    """Cameras of Differentiable Point Clouds (and DRWR): focal 1.875 image widths, distance 2."""
    return look_at(azimuth, elevation, DPC_DISTANCE, DPC_FOCAL)


def softras_cameras(
    azimuth: Angle,
    elevation: Angle = 30.0,
    distance: float = SOFTRAS_DISTANCE,
    half_fov: float = SOFTRAS_HALF_FOV,
) -> Cameras:
    """Cameras of Soft Rasterizer: half field of view 15 degrees, distance 2.732, elevation 30 by default."""
    return look_at(azimuth, elevation, distance, 1.0 / math.tan(math.radians(half_fov)))


def hemisphere_views(distance: float = SOFTRAS_DISTANCE, half_fov: float = SOFTRAS_HALF_FOV) -> Cameras:
    """DR-KFS' 25 views on the upper hemisphere: the pole and rings at 10, 30 and 55 degrees of 8 azimuths each.

    The paper says "25 viewpoints, sampled on a semi-sphere" and no more; this fixed set is our reading.
    """
    ring = [45.0 * k for k in range(8)]
    azimuth = [0.0] + [a + 22.5 * (i % 2) for i in range(3) for a in ring]
    elevation = [90.0] + [e for e in (10.0, 30.0, 55.0) for _ in ring]
    return softras_cameras(azimuth, elevation, distance, half_fov)


def orbit_views(
    count: int,
    elevation: float = 30.0,
    distance: float = SOFTRAS_DISTANCE,
    half_fov: float = SOFTRAS_HALF_FOV,
) -> Cameras:
    """``count`` cameras at equal azimuth steps from 0, SoftRas' (24 of them) by default."""
    if count < 1:
        raise ReconlabError(f"orbit_views: count is {count}; expected at least 1.")
    return softras_cameras([360.0 * k / count for k in range(count)], elevation, distance, half_fov)
