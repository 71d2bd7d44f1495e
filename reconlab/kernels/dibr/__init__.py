"""DIB-R's rasteriser (Chen et al., NeurIPS 2019): interpolated foreground, softly covered background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.kernels.dibr.reference import alpha_reference, shade_reference
from reconlab.kernels.faces import check_backend, check_faces, drawable
from reconlab.kernels.zbuffer import zbuffer

Backend = Literal["auto", "reference", "cpu"]


class InterpolatedImage(NamedTuple):
    """What the rasteriser returns."""

    alpha: Tensor  # (M,H,W) in [0,1]: 1 on the foreground
    shade: Tensor | None  # (M,H,W), 0 on the background; None when no face_shade was given


def dibr_rasterize(
    face_xyz: Tensor,
    splits: Tensor | Sequence[int],
    image_size: int | tuple[int, int],
    face_shade: Tensor | None = None,
    *,
    delta: float = 1 / 7000,
    near: float = 0.1,
    far: float = 100.0,
    cutoff: float = 1e-3,
    backend: Backend = "auto",
) -> InterpolatedImage:
    """Rasterise M images of triangles: hard and interpolated where a face is, soft coverage where none is.

    The formulas are stated in :mod:`reconlab.kernels.dibr.reference`. A foreground pixel's alpha is 1 and has no
    gradient: a silhouette shrinks by its background pixels alone, those within reach. The shade has no soft outline.

    Args:
        face_xyz: (F,3,3) per corner x, y in [-1,1] (x right, y down) and camera depth z; the faces of image m
            are ``splits[m]:splits[m+1]``. Faces with a corner before ``near``, beyond ``far`` or non-finite, or
            without area, are not drawn.
        splits: (M+1,) non-decreasing, from 0 to F.
        image_size: Side, or (H, W). Pixel (i, j) has its centre at x = (2j+1)/W - 1, y = (2i+1)/H - 1.
        face_shade: (F,3) grey value of each corner; None for the silhouette alone.
        delta: Softness of the coverage, in squared NDC (the default is the released code's).
        near: Nearest depth drawn.
        far: Farthest depth drawn.
        cutoff: Coverage below which a face does not count at a pixel.
        backend: "cpu" is the numba kernel (CPU float32), "reference" plain torch on any device and dtype.

    Raises:
        ReconlabError: Shapes, splits or settings do not fit together.

    Example:
        >>> triangle = torch.tensor([[[-0.5, 0.5, 2.0], [0.5, 0.5, 2.0], [0.0, -0.5, 2.0]]])
        >>> dibr_rasterize(triangle, [0, 1], 8, delta=0.1).alpha[0, 4]
        tensor([0.0796, 0.4578, 0.9692, 1.0000, 1.0000, 0.9692, 0.4578, 0.0796])
    """
    offsets = torch.as_tensor(splits, dtype=torch.int64).cpu()
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not (delta > 0 and 0 < near < far and 0 < cutoff < 1):
        raise ReconlabError(
            "dibr_rasterize needs delta > 0, 0 < near < far and 0 < cutoff < 1; got "
            f"delta={delta}, near={near}, far={far}, cutoff={cutoff}."
        )
    check_faces("dibr_rasterize", face_xyz, offsets, size, face_shade)
    fast = check_backend("dibr_rasterize", backend, face_xyz)
    drawn = drawable(face_xyz, near, far)
    seen = zbuffer(drawn, offsets, size, near=near).face
    if fast:
        alpha, shade = _NumbaDibr.apply(face_xyz, face_shade, drawn, offsets, seen, float(delta), float(cutoff))
        return InterpolatedImage(alpha, None if face_shade is None else shade)
    count = (offsets[1:] - offsets[:-1]).to(face_xyz.device)
    image_of_face = torch.repeat_interleave(torch.arange(len(count), device=face_xyz.device), count)
    use = drawn[:, 0, 0].isfinite().nonzero()[:, 0]
    budget = 1 << (18 if face_xyz.device.type == "cpu" else 22)
    alpha = alpha_reference(face_xyz[use], image_of_face[use], seen, delta, cutoff, budget)
    if face_shade is None:
        return InterpolatedImage(alpha, None)
    return InterpolatedImage(alpha, shade_reference(face_xyz, offsets, seen, face_shade))


class _NumbaDibr(torch.autograd.Function):
    """The numba kernel; the backward pass recomputes each pair instead of storing it."""

    @staticmethod
    def forward(
        ctx: Any,
        face_xyz: Tensor,
        face_shade: Tensor | None,
        drawn: Tensor,
        splits: Tensor,
        seen: Tensor,
        delta: float,
        cutoff: float,
    ) -> tuple[Tensor, Tensor | None]:
        from reconlab.kernels.dibr import cpu

        xyz = drawn.contiguous()
        grey = None if face_shade is None else face_shade.detach().to(torch.float32).contiguous()
        alpha, shade, through = cpu.forward(xyz, grey, splits.tolist(), seen, delta, cutoff)
        ctx.save_for_backward(xyz, grey, seen, through)
        ctx.settings = splits.tolist(), delta, cutoff
        return alpha, shade

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_alpha: Tensor, grad_shade: Tensor | None) -> tuple[Tensor | None, ...]:
        from reconlab.kernels.dibr import cpu

        xyz, grey, seen, through = ctx.saved_tensors
        splits, delta, cutoff = ctx.settings
        by_corners, by_grey = cpu.backward(xyz, grey, splits, seen, through, grad_alpha, grad_shade, delta, cutoff)
        return by_corners, by_grey, None, None, None, None, None
