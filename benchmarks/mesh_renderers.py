"""The differentiable mesh renderers side by side: SoftRas, NMR and DIB-R, forward and backward of all views.

The sphere of the Shape Generator at a training's size, from mesh to gradients by its vertices, the loss being one
minus the soft intersection over union with an ellipsoid. Also the gradient's likeness to SoftRas': cosine and length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import measure, parse, save, show
from torch import Tensor

from reconlab.cameras import hemisphere_views
from reconlab.losses.silhouette_iou import silhouette_iou
from reconlab.losses.view_images import Images, Renderer, RenderSettings, render_views
from reconlab.networks.shape_generator import geodesic_sphere
from reconlab.shapes import Mesh

RENDERERS: tuple[Renderer, ...] = ("softras", "nmr", "dibr")


def gradient(mesh: Mesh, target: Tensor, views: int, settings: RenderSettings) -> Tensor:
    """Render, compare with the target as silhouettes are (shaded images too), gradient by the vertices."""
    vertices = mesh.vertices.detach().requires_grad_()
    images = render_views(
        Mesh(vertices, mesh.faces, mesh.vertex_splits, mesh.face_splits),
        hemisphere_views(half_fov=11.5)[:views],
        settings,
    )
    silhouette_iou(images, target).mean().backward()
    assert vertices.grad is not None
    return vertices.grad


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    records: list[dict[str, Any]] = []
    shape = torch.tensor([0.36, 0.28, 0.2])
    for frequency, size, batch, views in ((8, 64, 8, 2), (8, 256, 2, 2), (16, 64, 8, 2)):
        sphere, faces = geodesic_sphere(frequency)
        mesh = Mesh((sphere * 0.25).expand(batch, -1, -1).contiguous(), faces)
        truth = Mesh((sphere * shape).expand(batch, -1, -1).contiguous(), faces)
        for images in ("silhouette", "shaded"):
            kind: Images = "silhouette" if images == "silhouette" else "shaded"
            settings = {r: RenderSettings(kind, size, 1e-4, 1e-3, "smooth", r) for r in RENDERERS}
            with torch.no_grad():
                target = render_views(truth, hemisphere_views(half_fov=11.5)[:views], settings["softras"])
            contestants: dict[str, Callable[[], Any]] = {
                name: partial(gradient, mesh, target, views, s) for name, s in settings.items()
            }
            title = f"{images}: {len(faces)} faces, {size}², {batch} meshes × {views} views, forward and backward"
            record = show(title, measure(contestants, options.rounds))
            soft = gradient(mesh, target, views, settings["softras"])
            likeness = {}
            for name in RENDERERS[1:]:
                other = gradient(mesh, target, views, settings[name])
                length = float(other.norm() / soft.norm())
                cosine = float((other * soft).sum() / (other.norm() * soft.norm()))
                likeness[name] = {"cosine": cosine, "length": length}
                print(f"  {name}: cosine with SoftRas' gradient {cosine:.3f}, {length:.2f} times as long")
            record["gradient"] = likeness
            records.append(record)
    save(records, options)


if __name__ == "__main__":
    main()
