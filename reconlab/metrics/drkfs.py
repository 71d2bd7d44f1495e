"""DR-KFS as a metric: the paper's visual similarity, without its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics.base import Metric
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import Mesh, Shape

if TYPE_CHECKING:
    from reconlab.losses.drkfs import DRKFS


def drkfs_distance(pred: Mesh, target: Mesh, loss: DRKFS) -> Tensor:
    """DR-KFS between meshes, the mean over views of both directions of Eq. 2 (Jin et al. 2020).

    Args:
        pred: ``B`` meshes in the object frame.
        target: ``B`` meshes.
        loss: Its settings, networks and cameras; all of its evaluation views are used.

    Returns:
        ``(B,)`` float32, 0 or more; 0 for equal meshes up to the half precision in which features of the truth are
        kept.

    Raises:
        ReconlabError: The numbers of meshes differ.
    """
    names = [str(i) for i in range(len(target))]
    batch = Batch(ids=names, categories=[""] * len(names), mesh=target)
    training = loss.training
    loss.eval()
    try:
        with torch.no_grad():
            forth, back = loss.per_view(pred, batch)
    finally:
        loss.train(training)
    return (forth + back).mean(1)


class DRKFSDistance(Metric):
    """Mean DR-KFS over samples, ``drkfs``.

    The paper prints it as a metric (its Table 3) without saying how; ours is its loss with every setting written out:
    see :class:`reconlab.losses.DRKFS` for the settings. The scale grows with the number of patches, hence with
    ``image_size``: values of different sizes must not be compared.

    Args:
        views: Of the 25 on the upper hemisphere, evenly spread.
        image_size: Pixels a side.
        radius: Half-width of the search window in patches; 1 is the paper's 3×3.
        images: ``shaded`` or ``silhouette``.
        target_normals: Of the truth's shading. ``smooth`` renders both sides alike, so that the truth itself is at 0.
        descriptor: ``exact`` (HardNet) or ``dense``.
        weights: The descriptor's: ``bundled``, ``kornia`` or a path.
        detector: The detector's: ``bundled`` or a path.
        chunk: Views rendered and described at once; bounds the memory.
        name: Key of the value.
    """

    higher_is_better = False
    needs = frozenset({"mesh"})
    heavy = True

    def __init__(
        self,
        views: int = 25,
        image_size: int = 128,
        radius: int = 1,
        images: Literal["shaded", "silhouette"] = "shaded",
        target_normals: Literal["smooth", "flat"] = "smooth",
        descriptor: Literal["exact", "dense"] = "exact",
        weights: str = "bundled",
        detector: str = "bundled",
        chunk: int = 5,
        name: str = "drkfs",
    ) -> None:
        if not 1 <= views <= 25:
            raise ReconlabError(f"DRKFSDistance: views is {views}; expected 1 to 25.")
        settings: dict[str, Any] = {
            "eval_views": views,
            "image_size": image_size,
            "radius": radius,
            "images": images,
            "target_normals": target_normals,
            "descriptor": descriptor,
            "weights": weights,
            "detector": detector,
            "views_per_chunk": chunk,
        }
        protocol = Protocol(
            name=name,
            formula=(
                f"mean over {views} views of Σ_i w_i min_k MSE(f_i, g_k), both directions; {images} {image_size} px, "
                f"window {2 * radius + 1}×{2 * radius + 1}, {target_normals} truth, {descriptor} descriptor "
                f"({weights}, detector {detector})"
            ),
            unit="sum over patches of weighted squared descriptor difference",
            squared=True,
            points=None,
            alignment="none",
            scale="object",
            threshold=None,
            factor=1.0,
            higher_is_better=False,
            worst_value=_worst(image_size),
            source="DR-KFS (Jin et al. 2020), Eq. 2 and Table 3",
        )
        super().__init__({name: protocol})
        # In a tuple: the frozen networks are no part of this module's state, which checkpoints would carry.
        self._loss = (_build(settings),)

    def _measure(self, shape: Shape, batch: Batch) -> tuple[list[int], dict[str, Tensor]]:
        truth: Mesh = batch.require("mesh", "DRKFSDistance")
        bad = torch.nonzero(~truth.valid().cpu()).flatten().tolist()
        if bad:
            who = f"{batch.categories[bad[0]]}/{batch.ids[bad[0]]}"
            raise ReconlabError(
                f"DRKFSDistance: the ground truth of {who} has no face of positive area, or is not finite."
            )
        pred = shape.mesh()
        rows: list[int] = torch.nonzero(pred.valid().cpu()).flatten().tolist()
        if not rows:
            return [], {}
        loss = self._loss[0].to(self.device)
        # One by one: the memory is that of one mesh, and the value does not depend on who shares the batch.
        values = [drkfs_distance(pred[i].to(self.device), truth[i].to(self.device), loss) for i in rows]
        return rows, {self.name: torch.cat(values).to(shape.device)}


def _worst(image_size: int) -> float:
    """The value of a failed prediction: every patch of full weight, its match orthogonal, in both directions.

    Unit descriptors of 128 numbers that are orthogonal differ by 2 in squared norm, 2/128 in mean square.
    """
    from reconlab.features.patches import patch_grid

    rows, columns = patch_grid(image_size, image_size)
    return 2 * rows * columns * 2 / 128


def _build(settings: dict[str, Any]) -> DRKFS:
    # Metrics and losses are siblings and do not import each other; this is the one exception, made when the metric
    # is built: the metric *is* the loss, and a copy of it would drift away.
    from reconlab.losses.drkfs import DRKFS

    loss = DRKFS(**settings)
    for parameter in loss.parameters():
        parameter.requires_grad_(False)
    return loss.eval()
