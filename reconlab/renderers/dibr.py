"""Interpolated views of meshes with softly covered background (DIB-R, Chen et al., NeurIPS 2019)."""

from __future__ import annotations

import torch

from reconlab.cameras import Cameras
from reconlab.kernels import dibr as kernel
from reconlab.renderers.screen import Normals, screen_faces
from reconlab.renderers.shading import Light
from reconlab.renderers.soft import SoftImages
from reconlab.shapes import Mesh


def render_dibr(
    mesh: Mesh,
    cameras: Cameras,
    image_size: int | tuple[int, int] = 128,
    *,
    delta: float = 1 / 7000,
    normals: Normals = "smooth",
    light: Light | None = None,
    shading: bool = True,
    near: float = 0.1,
    far: float = 100.0,
    backend: kernel.Backend = "auto",
) -> SoftImages:
    """Render a batch of meshes, differentiably with respect to ``mesh.vertices``.

    The silhouette is 1 on covered pixels and soft on those beside them, which alone carry its gradient. The shaded
    view is hard; its gradient (through interpolation, depth and normals) is that of the foreground's values, and its
    outline has none: beside a shaded loss the paper always has one on silhouettes.

    Args:
        mesh: B meshes of any sizes; an empty one gives empty images.
        cameras: Shape (V,), shared, or (B,V).
        image_size: Side, or (H, W).
        delta: Softness of the coverage, in squared NDC.
        normals: "smooth" or "flat".
        light: Light and ambient; ``Light()`` if None.
        shading: Whether to make ``shaded``.
        near: Faces with a corner nearer than this are not drawn.
        far: Nor those with a corner beyond this.
        backend: See :func:`reconlab.kernels.dibr.dibr_rasterize`.

    Returns:
        ``silhouette`` and ``shaded`` on black, each (B,V,H,W).

    Raises:
        ReconlabError: The cameras' shape does not fit the mesh, or a setting is out of range.
    """
    with torch.autocast(mesh.device.type, enabled=False):
        xyz, splits, grey = screen_faces(mesh, cameras, normals, light, shading, "render_dibr")
        image = kernel.dibr_rasterize(xyz, splits, image_size, grey, delta=delta, near=near, far=far, backend=backend)
    alpha = image.alpha.view(len(mesh), cameras.shape[-1], *image.alpha.shape[1:])
    return SoftImages(alpha, None if image.shade is None else image.shade.view(alpha.shape))
