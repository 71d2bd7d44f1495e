"""Cameras of other programs, to and from ours.

Every pair of functions is the other's inverse on what the other program's format can say: DPC's keeps the viewing
direction only (focal length and distance are fixed), Choy's the position (focal length fixed; its in-plane rotation,
0 in all published files, is read and never written).

===============  ===========================  =============================  =====================================
program          world                        camera frame                   image
===============  ===========================  =============================  =====================================
reconlab         y up, front -z               x right, y down, z forward     [-1, 1], x right, y down
PyTorch3D        as the mesh                  x left, y up, z forward        NDC [-1, 1], x left, y up; row vectors
OpenGL           as the mesh                  x right, y up, z backward      NDC [-1, 1], x right, y up
Blender          z up: (x, -z, y) of the obj  as OpenGL                      as OpenGL
DPC              Blender's, position only     looks at the origin, no roll   f = 1.875 image widths, distance 2
Choy (R2N2)      y up, front +x (ShapeNet v1) azimuth, elevation, distance   35 mm lens on a 32 mm sensor
Occupancy N.     x scale + loc is v1's        as reconlab                    pixels, the corner is (0, 0)
===============  ===========================  =============================  =====================================
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.cameras import DPC_DISTANCE, DPC_FOCAL, Cameras, look_at
from reconlab.errors import ReconlabError

CHOY_DISTANCE = 1.75  # the unit of the distance column of rendering_metadata.txt
CHOY_FOCAL = 35.0 / 16.0  # half-widths; Pixel2Mesh's code has 248 pixels of 224, that is 2.214
OCCNET_SIZE = 137  # pixels of Choy's pictures

# Rows: Blender's axes in the object's. Blender imports an .obj (y up) as (x, -z, y).
_OBJECT_TO_BLENDER = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


class PyTorch3DCameras(NamedTuple):
    """Arguments of ``PerspectiveCameras(R, T, focal_length, principal_point, in_ndc=True)``, each with ``(N, …)``."""

    R: Tensor
    T: Tensor
    focal_length: Tensor
    principal_point: Tensor


def to_pytorch3d(cameras: Cameras) -> PyTorch3DCameras:
    """PyTorch3D's row-vector convention, ``x_camera = x_world R + T``, for square images."""
    flip = torch.tensor([-1.0, -1.0, 1.0], device=cameras.device)
    R = (flip.unsqueeze(-1) * cameras.R).transpose(-1, -2)
    return PyTorch3DCameras(R, flip * cameras.t, cameras.focal, -cameras.centre)


def from_pytorch3d(R: Tensor, T: Tensor, focal_length: Tensor, principal_point: Tensor | None = None) -> Cameras:
    """The inverse of :func:`to_pytorch3d`; shapes ``(..., 3, 3)``, ``(..., 3)``, ``(..., 2)``, ``(..., 2)``."""
    flip = torch.tensor([-1.0, -1.0, 1.0], device=R.device)
    centre = torch.zeros_like(focal_length) if principal_point is None else -principal_point
    return Cameras(flip.unsqueeze(-1) * R.transpose(-1, -2), flip * T, focal_length, centre)


def to_opengl(cameras: Cameras) -> Tensor:
    """``(..., 4, 4)`` camera-to-world matrices (OpenGL, trimesh, glTF, NeRF)."""
    flip = torch.tensor([1.0, -1.0, -1.0], device=cameras.device)
    matrix = cameras.R.new_zeros(*cameras.shape, 4, 4)
    matrix[..., :3, :3] = cameras.R.transpose(-1, -2) * flip
    matrix[..., :3, 3] = cameras.position
    matrix[..., 3, 3] = 1
    return matrix


def from_opengl(matrix: Tensor, focal: Tensor, centre: Tensor | None = None) -> Cameras:
    """The inverse of :func:`to_opengl`.

    Args:
        matrix: ``(..., 4, 4)`` rigid camera-to-world matrices.
        focal: ``(..., 2)`` in image half-widths and half-heights.
        centre: ``(..., 2)`` in our image coordinates; the image's middle if None.

    Raises:
        ReconlabError: A matrix is not a rotation and a translation.
    """
    rotation = matrix[..., :3, :3]
    error = (rotation @ rotation.transpose(-1, -2) - torch.eye(3, device=matrix.device)).abs().amax()
    if not bool(error < 1e-3):
        raise ReconlabError("from_opengl: the matrices' upper 3×3 part is not a rotation; remove their scale first.")
    flip = torch.tensor([1.0, -1.0, -1.0], device=matrix.device)
    R = flip.unsqueeze(-1) * rotation.transpose(-1, -2)
    t = -(R @ matrix[..., :3, 3:]).squeeze(-1)
    return Cameras(R, t, focal, torch.zeros_like(focal) if centre is None else centre)


def to_blender(cameras: Cameras) -> Tensor:
    """``(..., 4, 4)`` ``matrix_world`` of a Blender camera that sees the imported .obj as ours sees the object."""
    world = torch.eye(4, device=cameras.device)
    world[:3, :3] = _OBJECT_TO_BLENDER
    return world @ to_opengl(cameras)


def from_blender(matrix: Tensor, focal: Tensor, centre: Tensor | None = None) -> Cameras:
    """The inverse of :func:`to_blender`; focal is ``2 · lens / sensor_width`` for square images."""
    world = torch.eye(4, device=matrix.device, dtype=matrix.dtype)
    world[:3, :3] = _OBJECT_TO_BLENDER.T.to(matrix)
    return from_opengl(world @ matrix, focal, centre)


def to_dpc(cameras: Cameras) -> Tensor:
    """``(..., 3)`` positions in Blender's world, the ``pos`` key of DPC's ``camera_k.mat``.

    Raises:
        ReconlabError: A camera does not look at the origin without roll: DPC's format cannot say so.
    """
    back = from_dpc(_to_blender_point(cameras.position), distance=None)
    if (back.R - cameras.R).abs().max() > 1e-3:
        raise ReconlabError("to_dpc: a camera does not look at the origin without roll.")
    return _to_blender_point(cameras.position)


def from_dpc(position: Tensor, distance: float | None = DPC_DISTANCE) -> Cameras:
    """DPC's cameras from their positions in Blender's world: only the direction counts there, the distance is 2.

    Args:
        position: ``(..., 3)``.
        distance: None takes the position's own norm.
    """
    eye = position.float() @ _OBJECT_TO_BLENDER.to(position.device)
    azimuth, elevation, norm = _angles(eye)
    return look_at(azimuth, elevation, norm if distance is None else distance, DPC_FOCAL)


def to_choy(cameras: Cameras) -> Tensor:
    """``(..., 3)`` azimuth and elevation in degrees and the distance ratio of ``rendering_metadata.txt``."""
    azimuth, elevation, norm = _angles(cameras.position)
    return torch.stack([(azimuth - 90) % 360, elevation, norm / CHOY_DISTANCE], -1)


def from_choy(
    azimuth: Tensor,
    elevation: Tensor,
    distance_ratio: Tensor,
    focal: float = CHOY_FOCAL,
    in_plane: Tensor | None = None,
) -> Cameras:
    """Cameras of ShapeNetRendering (3D-R2N2) from columns 1, 2, 4 (and 3) of ``rendering_metadata.txt``.

    The object frame is ShapeNet v1's: azimuth 0 stands at +x, which is the front there, 90 at +z.

    Args:
        azimuth: ``(...)`` degrees.
        elevation: ``(...)`` degrees above the horizon.
        distance_ratio: ``(...)`` in units of 1.75.
        focal: In image half-widths. The file's fifth column (25) is not the field of view: the renderer leaves the
            lens at Blender's 35 mm.
        in_plane: ``(...)`` degrees by which the camera is rolled (the picture turns counter-clockwise); 0 if None.
    """
    cameras = look_at(azimuth + 90, elevation, CHOY_DISTANCE * distance_ratio, focal)
    if in_plane is None or not bool((in_plane != 0).any()):
        return cameras
    roll = torch.deg2rad(in_plane.double())
    c, s, zero, one = roll.cos(), roll.sin(), torch.zeros_like(roll), torch.ones_like(roll)
    turn = torch.stack([c, s, zero, -s, c, zero, zero, zero, one], -1).reshape(*roll.shape, 3, 3)
    R, t = turn @ cameras.R.double(), (turn @ cameras.t.double().unsqueeze(-1)).squeeze(-1)
    return Cameras(R.float(), t.float(), cameras.focal, cameras.centre)


def to_occnet(cameras: Cameras, size: int = OCCNET_SIZE) -> tuple[Tensor, Tensor]:
    """``world_mat (..., 3, 4)`` and ``camera_mat (..., 3, 3)`` of Occupancy Networks' ``cameras.npz``.

    Images are square.
    """
    world = torch.cat([cameras.R, cameras.t.unsqueeze(-1)], -1)
    matrix = cameras.R.new_zeros(*cameras.shape, 3, 3)
    matrix[..., 0, 0], matrix[..., 1, 1] = (cameras.focal * size / 2).unbind(-1)
    matrix[..., 0, 2], matrix[..., 1, 2] = ((cameras.centre + 1) * size / 2).unbind(-1)
    matrix[..., 2, 2] = 1
    return world, matrix


def from_occnet(world_mat: Tensor, camera_mat: Tensor, size: int = OCCNET_SIZE) -> Cameras:
    """The inverse of :func:`to_occnet`: cameras in ShapeNet v1's frame.

    A point of the archive is ``x * scale + loc`` there.

    Args:
        world_mat: ``(..., 3, 4)``, to a camera frame that is ours.
        camera_mat: ``(..., 3, 3)``, to pixels of which (0, 0) is the corner of the picture.
        size: Side of the pictures that ``camera_mat`` belongs to.

    Raises:
        ReconlabError: A matrix is no rotation and translation, or no calibration matrix.
    """
    R, t = world_mat[..., :3, :3], world_mat[..., :3, 3]
    eye = torch.eye(3, dtype=R.dtype, device=R.device)
    if not bool(((R @ R.transpose(-1, -2) - eye).abs() < 1e-3).all() and (torch.linalg.det(R) > 0).all()):
        raise ReconlabError("from_occnet: the left 3×3 part of a world_mat is not a rotation.")
    K = camera_mat / camera_mat[..., 2:, 2:]
    focal, centre = K[..., (0, 1), (0, 1)] * 2 / size, K[..., :2, 2] * 2 / size - 1
    rest = torch.stack([K[..., 0, 1], K[..., 1, 0], K[..., 2, 0], K[..., 2, 1]])
    if not bool((focal > 0).all() and (rest.abs() < 1e-3).all() and torch.isfinite(K).all()):
        raise ReconlabError("from_occnet: a camera_mat is no calibration matrix [[f, 0, u], [0, f, v], [0, 0, 1]].")
    return Cameras(R.float(), t.float(), focal.float(), centre.float())


def _to_blender_point(point: Tensor) -> Tensor:
    return point @ _OBJECT_TO_BLENDER.T.to(point.device)


def _angles(eye: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    norm = eye.norm(dim=-1)
    azimuth = torch.rad2deg(torch.atan2(eye[..., 0], -eye[..., 2]))
    elevation = torch.rad2deg(torch.asin((eye[..., 1] / norm.clamp_min(1e-12)).clamp(-1, 1)))
    return azimuth, elevation, norm
