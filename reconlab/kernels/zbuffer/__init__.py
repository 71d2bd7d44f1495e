"""Hard z-buffer of packed screen-space triangles: nearest depth and face of every pixel. Not differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.gpu import Backend, choose_backend
from reconlab.kernels.zbuffer.reference import barycentrics_at, zbuffer_reference


class ZBuffer(NamedTuple):
    """What each pixel's centre sees."""

    depth: Tensor  # (M,H,W) float32 camera z; +inf on the background
    face: Tensor  # (M,H,W) int32 index within the image's own faces; -1 on the background
    bary: Tensor | None  # (M,H,W,3) float32 perspective-correct, 0 on the background; None unless asked for


def zbuffer(
    face_xyz: Tensor,
    splits: Tensor | Sequence[int],
    image_size: int | tuple[int, int],
    *,
    near: float = 1e-4,
    barycentrics: bool = False,
    backend: Backend = "auto",
) -> ZBuffer:
    """Nearest face at every pixel centre, with perspective-correct depth.

    A centre on an edge belongs to all the faces there, so adjacent faces leave no cracks; of equal depths the
    first face wins. Both sides of a face are seen. Coverage and depth are computed in float64.

    Args:
        face_xyz: (F,3,3) per corner x, y in [-1,1] (x right, y down) and camera depth z; the faces of image m
            are ``splits[m]:splits[m+1]``. Faces with a corner nearer than ``near``, with a non-finite number or
            without area are skipped: clip before (``renderers.hard`` does).
        splits: (M+1,) non-decreasing, from 0 to F.
        image_size: Side, or (H, W). Pixel (i, j) has its centre at x = (2j+1)/W - 1, y = (2i+1)/H - 1.
        near: Nearest depth drawn.
        barycentrics: Whether to return ``bary``.
        backend: "cpu" is the numba kernel (on the CPU), "cuda" the Triton kernels (on a GPU), both of which take any
            floats and draw them in float32; "reference" plain torch on any device; "auto" the kernel of the tensor's
            device. The GPU's give the numba kernel's depths and faces to the bit, take O(faces + pixels) memory and
            do not make the host wait if ``splits`` is on the CPU.

    Raises:
        ReconlabError: Shapes and splits do not fit together.

    Example:
        >>> near = torch.tensor([[[-1.0, -1.0, 2.0], [1.0, -1.0, 2.0], [-1.0, 1.0, 2.0]]])
        >>> zbuffer(torch.cat([near + torch.tensor([0, 0, 1.0]), near]), [0, 2], 2).face
        tensor([[[ 1,  1],
                 [ 1, -1]]], dtype=torch.int32)
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    offsets = torch.as_tensor(splits, dtype=torch.int64).cpu()
    if face_xyz.ndim != 3 or face_xyz.shape[1:] != (3, 3) or height < 1 or width < 1:
        raise ReconlabError(
            f"zbuffer takes face_xyz (F,3,3) and an image of at least one pixel, got {tuple(face_xyz.shape)} "
            f"and {height} x {width}."
        )
    if bool((offsets[1:] < offsets[:-1]).any()) or int(offsets[0]) != 0 or int(offsets[-1]) != len(face_xyz):
        raise ReconlabError(
            f"zbuffer needs splits that rise from 0 to the number of faces ({len(face_xyz)}), "
            f"got {offsets.tolist()[:8]}."
        )
    xyz = face_xyz.detach()
    single = xyz.to(torch.float32).contiguous()
    path = choose_backend("zbuffer", backend, single)
    if path == "reference":
        depth, face = zbuffer_reference(xyz, offsets, height, width, near)
    elif path == "cuda":
        from reconlab.kernels.zbuffer import cuda

        return ZBuffer(*cuda.zbuffer(single, offsets, height, width, float(near), barycentrics))
    else:
        from reconlab.kernels.zbuffer import cpu

        depth, face = cpu.zbuffer(single, offsets.tolist(), height, width, near)
    return ZBuffer(depth, face, barycentrics_at(xyz, offsets, face) if barycentrics else None)
