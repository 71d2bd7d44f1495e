"""Samples -> batches, in this process or in workers that start quickly.

A worker imports what it unpickles. This module and :mod:`reconlab.datasets.samples` need neither Lightning nor any
network, and the server that workers fork from has imported them already: see :func:`worker_context`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields as dataclass_fields
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.shapes import Mesh

PRELOAD = ["reconlab.datasets.loading", "reconlab.datasets.samples", "reconlab.datasets.picture_kernels"]
"""What the fork server imports once for all workers; importing starts no threads."""


def worker_context() -> Any:
    """How workers start: from a server that has imported what they need, or anew where the platform has none.

    Not fork: a forked worker would inherit thread pools of torch and numba, which may hang there.
    """
    methods = torch.multiprocessing.get_all_start_methods()
    if "forkserver" not in methods:
        return torch.multiprocessing.get_context("spawn")
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)  # without effect if a server runs already
    return context


def start_worker(_: int) -> None:
    """One thread per worker."""
    from reconlab.threads import limit_threads

    limit_threads(1)


def collate(samples: Sequence[dict[str, Any]]) -> Batch:
    """Samples of :class:`~reconlab.datasets.samples.ShapeDataset` with equal fields -> a batch."""
    batch = Batch(ids=[s["id"] for s in samples], categories=[s["category"] for s in samples])
    first = samples[0]
    if "view" in first:
        batch.input_view = [s["view"] for s in samples]
    if "image" in first:
        batch.images = _stack([s["image"] for s in samples])
    if "camera" in first:
        batch.cameras = Cameras.stack([s["camera"] for s in samples])
    if "views" in first:
        shapes = {tuple(s["views"][1].shape) for s in samples}
        if len(shapes) > 1:
            raise ReconlabError("The supervision views of this dataset have different sizes: set data.view_size.")
        batch.views = Views(
            Cameras.stack([s["views"][0] for s in samples]),
            _stack([s["views"][1] for s in samples]),
            _stack([s["views"][2] for s in samples]),
        )
    for field in dataclass_fields(Batch):
        # (Normals may be known of some clouds only; who needs them was told before.)
        if all(isinstance(s.get(field.name), Tensor) for s in samples):
            setattr(batch, field.name, _stack([s[field.name] for s in samples]))
    if "mesh" in first:
        batch.mesh = Mesh.from_list([s["mesh"] for s in samples])
    return batch


def _stack(tensors: list[Tensor]) -> Tensor:
    if get_worker_info() is None:
        return torch.stack(tensors)
    # Straight into the memory that the main process will see; a stack of its own would be copied there.
    first = tensors[0]
    shared = torch.UntypedStorage._new_shared(len(tensors) * first.numel() * first.element_size())
    out = torch.empty(0, dtype=first.dtype).set_(shared, 0, (len(tensors), *first.shape))  # type: ignore[call-overload]
    return torch.stack(tensors, out=out)
