"""Hard rasterisation with the hand-made gradient of Neural 3D Mesh Renderer (Kato et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.kernels.faces import check_backend, check_faces, drawable
from reconlab.kernels.nmr import reference
from reconlab.kernels.zbuffer import zbuffer

Backend = Literal["auto", "reference", "cpu"]


class HardImage(NamedTuple):
    """What the rasteriser returns."""

    alpha: Tensor  # (M,H,W), 0 or 1
    shade: Tensor | None  # (M,H,W), 0 on the background; None when no face_shade was given


def nmr_rasterize(
    face_xyz: Tensor,
    splits: Tensor | Sequence[int],
    image_size: int | tuple[int, int],
    face_shade: Tensor | None = None,
    *,
    near: float = 0.1,
    far: float = 100.0,
    eps: float = 1e-3,
    backend: Backend = "auto",
) -> HardImage:
    """Rasterise M images of triangles hard; their gradient by the corners' x and y is the paper's ramps.

    The images are those of the z-buffer: a pixel shows the nearest face at its centre, with the corners' grey
    values interpolated perspective-correctly. The gradient by the grey values is exact; that by x and y is stated
    in :mod:`reconlab.kernels.nmr.reference`; that by z is 0. It is no derivative of the image, which has none, and
    of two images drawn at once each pulls by its own pixels. The released code differs in that it sums the pulls of
    a pixel's channels before it asks for their sign.

    Args:
        face_xyz: (F,3,3) per corner x, y in [-1,1] (x right, y down) and camera depth z; the faces of image m
            are ``splits[m]:splits[m+1]``. Faces with a corner before ``near``, beyond ``far`` or non-finite, or
            without area, are not drawn.
        splits: (M+1,) non-decreasing, from 0 to F.
        image_size: Side, or (H, W). Pixel (i, j) has its centre at x = (2j+1)/W - 1, y = (2i+1)/H - 1.
        face_shade: (F,3) grey value of each corner; None for the silhouette alone.
        near: Nearest depth drawn.
        far: Farthest depth drawn.
        eps: Distance (NDC) added to those that vertices would have to move, against poles.
        backend: "cpu" is the numba kernel (CPU float32), "reference" plain torch on any device and dtype.

    Raises:
        ReconlabError: Shapes, splits or settings do not fit together.

    Example:
        >>> triangle = torch.tensor([[[-0.5, 0.5, 2.0], [0.5, 0.5, 2.0], [0.0, -0.5, 2.0]]], requires_grad=True)
        >>> alpha = nmr_rasterize(triangle, [0, 1], 8).alpha
        >>> int(alpha.sum())
        8
        >>> (-alpha[0, 4, 7]).backward()  # more of the pixel on the right, please: the right edge goes there
        >>> triangle.grad[0, :, 0]
        tensor([ 0.0000, -1.1099, -0.6662])
    """
    offsets = torch.as_tensor(splits, dtype=torch.int64).cpu()
    if not (0 < near < far and eps > 0):
        raise ReconlabError(f"nmr_rasterize needs 0 < near < far and eps > 0; got near={near}, far={far}, eps={eps}.")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    check_faces("nmr_rasterize", face_xyz, offsets, size, face_shade)
    fast = check_backend("nmr_rasterize", backend, face_xyz)
    hits = zbuffer(drawable(face_xyz, near, far), offsets, size, near=near, barycentrics=face_shade is not None)
    alpha = _Ramps.apply(face_xyz, (hits.face >= 0).to(face_xyz.dtype), offsets, hits.face, eps, fast)
    if face_shade is None or hits.bary is None:
        return HardImage(alpha, None)
    shown = hits.face >= 0
    index = (hits.face + offsets[:-1].to(hits.face.device)[:, None, None]).clamp(min=0)[shown]
    values = (face_shade[index] * hits.bary[shown].to(face_shade.dtype)).sum(1)
    shade = torch.zeros_like(hits.depth, dtype=face_shade.dtype).masked_scatter(shown, values)
    return HardImage(alpha, _Ramps.apply(face_xyz, shade, offsets, hits.face, eps, fast))


class _Ramps(torch.autograd.Function):
    """The identity in the image, with the ramps as its gradient by the corners."""

    @staticmethod
    def forward(
        ctx: Any, face_xyz: Tensor, image: Tensor, splits: Tensor, seen: Tensor, eps: float, fast: bool
    ) -> Tensor:
        ctx.save_for_backward(face_xyz, image, seen)
        ctx.settings = splits, eps, fast
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        face_xyz, image, seen = ctx.saved_tensors
        splits, eps, fast = ctx.settings
        by_corners = None
        if ctx.needs_input_grad[0]:
            xy = face_xyz[..., :2].contiguous()
            if fast:
                from reconlab.kernels.nmr import cpu

                by_xy = cpu.ramp_gradient(xy, splits.tolist(), seen, image, grad.float().contiguous(), eps)
            else:
                by_xy = reference.ramp_gradient(xy, splits, seen, image, grad, eps)
            by_corners = torch.cat([by_xy, torch.zeros_like(by_xy[..., :1])], 2)
        return by_corners, grad if ctx.needs_input_grad[1] else None, None, None, None, None
