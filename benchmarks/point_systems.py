"""CAP and EPCG: a whole loss step, forward and backward, against plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness import measure, parse, save, show
from torch import Tensor

from reconlab.cameras import Cameras, dpc_cameras
from reconlab.kernels.gated_nearest import gated_nearest
from reconlab.losses.cap import CAPTerms, cap, silhouette_terms
from reconlab.losses.epcg import fixed_view_terms, novel_view_terms
from reconlab.renderers.point_gaussians import render_point_gaussians
from reconlab.renderers.pseudo_depth import fixed_views, random_views


def step(terms: CAPTerms) -> None:
    """Weigh as CAPNet does and go back."""
    (terms.cross_entropy + 1e-4 * (terms.covering + terms.straying)).mean().backward()


def plain(points: Tensor, masks: Tensor, cameras: Cameras) -> None:
    """The same by autograd: the Gaussians as two matrices (V x J)(J x V), a view at a time."""
    drawn = []
    for b in range(len(points)):
        for v in range(cameras.shape[1]):
            xy, _ = cameras[b, v].project(points[b])
            pixel = xy * 32 + 31.75
            grid = torch.arange(64.0)
            down = torch.exp(-(grid - pixel[:, 1:]).square())
            across = torch.exp(-(grid - pixel[:, :1]).square())
            drawn.append((down.t() @ across).tanh())
    step(silhouette_terms(torch.stack(drawn), masks.flatten(0, 1)[:, ::2, ::2] > 0.5))


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    records = []
    g = torch.Generator().manual_seed(0)
    cameras = dpc_cameras(22.5 * torch.arange(16), 0.0).reshape(4, 4)
    masks = torch.zeros(4, 4, 128, 128)
    masks[:, :, 30:98, 40:88] = 1
    for count in (2000, 8000, 16000):
        cloud = (0.7 * (torch.rand(4, count, 3, generator=g) - 0.5)).requires_grad_()
        contestants: dict[str, Callable[[], Any]] = {
            "kernels": lambda cloud=cloud: step(cap(cloud, masks, cameras)),
            "torch and autograd": lambda cloud=cloud: plain(cloud, masks, cameras),
        }
        records.append(show(f"CAP, 4 x 4 views at 64 px of {count} points", measure(contestants, options.rounds)))

    # The gated minimum costs most where little is covered: sparse drawings.
    for name, count in (("300 points", 300), ("2000 points", 2000)):
        cloud = 0.5 * (torch.rand(4, count, 3, generator=g) - 0.5)
        drawn = render_point_gaussians(cloud, cameras).flatten(0, 1)
        gate, mask = drawn + (1 - drawn) * 1e6, masks.flatten(0, 1)[:, ::2, ::2] > 0.5
        searches: dict[str, Callable[[], Any]] = {
            "search": lambda gate=gate, mask=mask: gated_nearest(gate, mask),
            "torch, blocks of pairs": lambda gate=gate, mask=mask: gated_nearest(gate, mask, backend="reference"),
        }
        records.append(show(f"gated nearest pixel, 16 images of {name}", measure(searches, options.rounds)))

    size = 64
    maps = torch.rand(4, 8, 3, size, size, generator=g) * torch.tensor([size, size, 1.0])[:, None, None]
    maps = maps.requires_grad_()
    logits = torch.randn(4, 8, size, size, generator=g).requires_grad_()
    truth = torch.rand(4, 8, size, size, generator=g) + 0.5
    views = random_views(5, 0)
    stages: dict[str, Callable[[], Any]] = {
        "fixed views": lambda: sum(fixed_view_terms(maps, logits, truth)[:3]).sum().backward(),  # type: ignore[union-attr]
        "five novel views": lambda: sum(novel_view_terms(maps, logits, views, truth[:, :5])[:3]).sum().backward(),  # type: ignore[union-attr]
    }
    assert len(fixed_views()) == maps.shape[1]
    records.append(show("EPCG, 4 shapes, maps of 64 px, true maps cached", measure(stages, options.rounds)))
    save(records, options)


if __name__ == "__main__":
    main()
