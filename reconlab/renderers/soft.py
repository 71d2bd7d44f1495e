"""Differentiable silhouettes and shaded views of meshes (SoftRas, Liu et al., ICCV 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.kernels import soft_rasterize as kernel
from reconlab.renderers.screen import Normals, screen_faces
from reconlab.renderers.shading import Light
from reconlab.shapes import Mesh


class SoftImages(NamedTuple):
    """Views of B meshes from V cameras."""

    silhouette: Tensor  # (B,V,H,W) in [0,1], 1 inside
    shaded: Tensor | None  # (B,V,H,W) grey in [0,1] on black; None without shading


def soft_rasterize(
    mesh: Mesh,
    cameras: Cameras,
    image_size: int | tuple[int, int] = 128,
    *,
    sigma: float = 1e-4,
    gamma: float = 1e-3,
    normals: Normals = "smooth",
    light: Light | None = None,
    shading: bool = True,
    near: float = 0.1,
    far: float = 100.0,
    backend: kernel.Backend = "auto",
) -> SoftImages:
    """Render a batch of meshes softly, differentiably with respect to ``mesh.vertices``.

    The gradient flows through projection, depth and normals. ``shaded`` is the softmax colour times the
    silhouette: without that product its outline is hard and it has next to no silhouette gradient. Smooth
    normals and γ = 1e-3 are the defaults because with flat normals nearly all of the gradient sits on a few
    sliver triangles. Faces are visible from both sides.

    Args:
        mesh: B meshes of any sizes; an empty one gives empty images.
        cameras: Shape (V,), shared, or (B,V).
        image_size: Side, or (H, W).
        sigma: Blur of the outline in squared NDC (the image is 2 wide): 1e-4 blurs over about 0.01.
        gamma: Softness of the depth order in units of ``far - near``: the default lets faces within about
            0.1 object units in depth mix, as SoftRas' planes 1 and 100 do at the same γ.
        normals: "smooth" (area-weighted vertex normals) or "flat".
        light: Light and ambient; ``Light()`` if None.
        shading: Whether to make ``shaded``; silhouettes alone are about twice as fast.
        near: Faces with a corner nearer than this are not drawn.
        far: Nor those beyond this.
        backend: See :func:`reconlab.kernels.soft_rasterize.soft_rasterize`.

    Returns:
        ``silhouette`` and ``shaded``, each (B,V,H,W).

    Raises:
        ReconlabError: The cameras' shape does not fit the mesh, or a setting is out of range.

    Example:
        >>> from reconlab.cameras import orbit_views
        >>> square = Mesh(torch.tensor([[-.4, -.4, 0], [.4, -.4, 0], [.4, .4, 0], [-.4, .4, 0.]]),
        ...               torch.tensor([[0, 1, 2], [0, 2, 3]]))
        >>> views = soft_rasterize(square, orbit_views(3, elevation=0.0), 32)
        >>> views.silhouette.shape, bool(views.silhouette[0, 0, 14, 20] > 0.99)
        (torch.Size([1, 3, 32, 32]), True)
    """
    with torch.autocast(mesh.device.type, enabled=False):  # geometry in half precision is noise
        xyz, splits, grey = screen_faces(mesh, cameras, normals, light, shading, "soft_rasterize")
        image = kernel.soft_rasterize(
            xyz, splits, image_size, grey, sigma=sigma, gamma=gamma, near=near, far=far, backend=backend
        )
    alpha = image.alpha.view(len(mesh), cameras.shape[-1], *image.alpha.shape[1:])
    return SoftImages(alpha, None if image.shade is None else image.shade.view(alpha.shape) * alpha)
