"""Hard views of meshes with a hand-made gradient (Neural 3D Mesh Renderer, Kato et al., CVPR 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reconlab.cameras import Cameras
from reconlab.kernels import nmr as kernel
from reconlab.renderers.screen import Normals, screen_faces
from reconlab.renderers.shading import Light
from reconlab.renderers.soft import SoftImages
from reconlab.shapes import Mesh


def render_nmr(
    mesh: Mesh,
    cameras: Cameras,
    image_size: int | tuple[int, int] = 128,
    *,
    antialias: bool = True,
    eps: float = 1e-3,
    normals: Normals = "smooth",
    light: Light | None = None,
    shading: bool = True,
    near: float = 0.1,
    far: float = 100.0,
    backend: kernel.Backend = "auto",
) -> SoftImages:
    """Render a batch of meshes hard; ``mesh.vertices`` get the paper's ramps as their gradient.

    Silhouettes and shaded views pull the vertices by :mod:`reconlab.kernels.nmr.reference`'s ramps along x and y;
    the grey values carry their exact gradient into the normals. The depth has none.

    Args:
        mesh: B meshes of any sizes; an empty one gives empty images.
        cameras: Shape (V,), shared, or (B,V).
        image_size: Side, or (H, W).
        antialias: Draw at twice the size and average 2×2 pixels, as the released code does.
        eps: Distance (NDC) added to those that vertices would have to move.
        normals: "smooth" or "flat" (the released code's).
        light: Light and ambient; ``Light()`` if None.
        shading: Whether to make ``shaded``.
        near: Faces with a corner nearer than this are not drawn.
        far: Nor those with a corner beyond this.
        backend: See :func:`reconlab.kernels.nmr.nmr_rasterize`.

    Returns:
        ``silhouette`` and ``shaded`` on black, each (B,V,H,W).

    Raises:
        ReconlabError: The cameras' shape does not fit the mesh, or a setting is out of range.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    factor = 2 if antialias else 1
    with torch.autocast(mesh.device.type, enabled=False):
        xyz, splits, grey = screen_faces(mesh, cameras, normals, light, shading, "render_nmr")
        size = (factor * height, factor * width)
        image = kernel.nmr_rasterize(xyz, splits, size, grey, near=near, far=far, eps=eps, backend=backend)
        views = [None if x is None else _halve(x) if antialias else x for x in image]
    shape = (len(mesh), cameras.shape[-1], height, width)
    alpha, shade = views
    assert alpha is not None  # noqa: S101 - for the type checker
    return SoftImages(alpha.reshape(shape), None if shade is None else shade.reshape(shape))


def _halve(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(images.unsqueeze(1), 2).squeeze(1) if len(images) else images[:, ::2, ::2]
