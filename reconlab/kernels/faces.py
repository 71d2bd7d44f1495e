"""What the hard rasterisers share: checks of packed screen-space triangles, and which of them are drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.soft_rasterize.reference import Settings, usable_faces


def check_faces(
    who: str, face_xyz: Tensor, splits: Tensor, image_size: tuple[int, int], face_shade: Tensor | None
) -> None:
    """Whether corners (F,3,3), splits (M+1,), image size and grey values (F,3) fit together.

    Raises:
        ReconlabError: They do not.
    """
    if face_xyz.ndim != 3 or face_xyz.shape[1:] != (3, 3) or not face_xyz.is_floating_point():
        raise ReconlabError(f"{who} takes face_xyz (F,3,3) of floats, got {tuple(face_xyz.shape)} {face_xyz.dtype}.")
    falls = splits.ndim != 1 or len(splits) < 1 or bool((splits[1:] < splits[:-1]).any())
    if falls or int(splits[0]) != 0 or int(splits[-1]) != len(face_xyz):
        raise ReconlabError(
            f"{who} needs splits that rise from 0 to the number of faces ({len(face_xyz)}), "
            f"got {splits.tolist()[:8]}."
        )
    if face_shade is not None and face_shade.shape != face_xyz.shape[:2]:
        raise ReconlabError(
            f"{who} takes face_shade (F,3) = {tuple(face_xyz.shape[:2])}, got {tuple(face_shade.shape)}."
        )
    if min(image_size) < 1:
        raise ReconlabError(f"{who} needs an image of at least one pixel, got {image_size[0]} x {image_size[1]}.")


def check_backend(who: str, backend: str, face_xyz: Tensor) -> bool:
    """Whether the numba kernel serves: it takes float32 on the CPU.

    Raises:
        ReconlabError: It was asked for and does not, or the backend is unknown.
    """
    suited = face_xyz.device.type == "cpu" and face_xyz.dtype == torch.float32
    if backend not in ("auto", "reference", "cpu"):
        raise ReconlabError(f"{who} has the backends auto, cpu and reference, not {backend!r}.")
    if backend == "cpu" and not suited:
        raise ReconlabError(
            f"{who}(backend='cpu') takes float32 on the CPU, got {face_xyz.dtype} on {face_xyz.device}; "
            "use backend='auto'."
        )
    return suited and backend != "reference"


def drawable(face_xyz: Tensor, near: float, far: float) -> Tensor:
    """``face_xyz`` without a gradient, with the faces that are not to be drawn replaced by NaN.

    Those are what the soft rasteriser drops: a corner non-finite, nearer than ``near``, beyond ``far`` or absurdly
    far off the image, or next to no area.
    """
    xyz = face_xyz.detach()
    settings = Settings(1, 1, 1.0, 1.0, near, far, 0.0, 0.5)  # of which only the planes matter here
    return torch.where(usable_faces(xyz, settings)[:, None, None], xyz, torch.nan)
