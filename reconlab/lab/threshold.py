"""The occupancy threshold of networks that return grids, chosen on the validation split (DRC's rule)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from reconlab.batch import Batch
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.errors import ReconlabError
from reconlab.metrics import Metric, VoxelIoU
from reconlab.networks import Network
from reconlab.shapes import VoxelGrid

THRESHOLDS: tuple[float, ...] = tuple(i / 100 for i in range(1, 100))
"""0.01 to 0.99, as DRC searches."""


def choose_threshold(
    network: Network,
    datamodule: ReconstructionData,
    metric: Metric,
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[float, dict[float, float]]:
    """The threshold with the best mean of a metric over the validation split.

    The network runs once over the split; its grids are then judged at each threshold. Meshes are drawn at it
    (a Chamfer metric costs a marching-cubes run per shape and threshold: give it a short list), and for
    :class:`~reconlab.metrics.VoxelIoU` the metric's own threshold is replaced. The network is not changed: set its
    ``threshold``, or ``VoxelIoU(threshold=…)``, to the result before judging the test split.

    Args:
        network: Returns a :class:`~reconlab.shapes.VoxelGrid`; judged in evaluation mode, on its own device.
        datamodule: Its validation split is used; needs that it does not load yet are asked for.
        metric: What is maximised, or minimised where lower is better. Failed predictions count as it counts them.
        thresholds: Tried in turn; of equally good ones the first is taken.

    Returns:
        The best threshold and ``{threshold: mean value}``.

    Raises:
        ReconlabError: There is no threshold, the network returns no grid, or the split is empty.
    """
    if not thresholds:
        raise ReconlabError("choose_threshold() was given no threshold; give it at least one.")
    judged = _grids(network, datamodule, metric)
    values: dict[float, float] = {}
    for threshold in thresholds:
        judge = copy.deepcopy(metric)
        judge.reset()
        if isinstance(judge, VoxelIoU):
            judge.threshold = threshold
        for grid, batch in judged:
            judge.update(VoxelGrid(grid, threshold), batch)
        values[threshold] = judge.compute()[judge.name].item()
    sign = 1.0 if metric.higher_is_better else -1.0
    return max(values, key=lambda t: sign * values[t]), values


def _grids(network: Network, datamodule: ReconstructionData, metric: Metric) -> list[tuple[torch.Tensor, Batch]]:
    """Values and ground truth of every validation batch."""
    for part in (network, metric):
        if not part.needs <= datamodule.needs_of("val"):
            datamodule.require(part.needs, f"choosing a threshold with {type(part).__name__}", ("val",))
    datamodule.setup("validate")
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    metric.to(device)
    training, found = network.training, []
    network.eval()
    try:
        with torch.no_grad():
            for batch in datamodule.val_dataloader():
                batch = batch.to(device)
                shape = network.reconstruct(batch)
                if not isinstance(shape, VoxelGrid):
                    raise ReconlabError(
                        f"choose_threshold() judges grids, but {type(network).__name__} returns a "
                        f"{type(shape).__name__}."
                    )
                found.append((shape.values, replace(batch, images=None)))
    finally:
        network.train(training)
    return found
