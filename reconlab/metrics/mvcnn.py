"""MVCNN distance: do the shapes look alike to a network that has learned to tell categories from 12 views?"""

from __future__ import annotations

import hashlib

import numpy as np

from reconlab.errors import ReconlabError
from reconlab.features.mvcnn import VIEWS, MultiViewCNN
from reconlab.features.weights import load_mvcnn
from reconlab.metrics.descriptors import Descriptor, DescriptorMetric
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import Mesh

VERSION = 1  # of the pictures and of the descriptor: a cached one of another version is not used


def mvcnn_descriptor(mesh: Mesh, net: MultiViewCNN) -> np.ndarray:
    """The unit-norm descriptor of one mesh from the ring of 12 views.

    Args:
        mesh: One mesh, object frame; taken as it is, neither centred nor scaled.
        net: In eval mode.

    Returns:
        ``(D,)`` float64 of unit norm.

    Raises:
        ReconlabError: Not one mesh, values that are not finite, or nothing of it is seen.
    """
    if len(mesh) != 1:
        raise ReconlabError(f"mvcnn_descriptor takes one mesh, got a batch of {len(mesh)}.")
    if not len(mesh.faces) or not bool(mesh.vertices.isfinite().all()):
        raise ReconlabError("the mesh has no face, or coordinates that are not finite.")
    found = net.describe_mesh(mesh).double().cpu().numpy()
    # Float32 leaves the norm a rounding away from 1; in float64 the distance is at most 2 then
    return found / np.linalg.norm(found)


def mvcnn_distance(pred: np.ndarray, target: np.ndarray) -> float:
    """Euclidean distance of two unit-norm descriptors.

    Args:
        pred: ``(D,)`` of :func:`mvcnn_descriptor`.
        target: ``(D,)``, of the same network.

    Returns:
        In [0, 2]: ``sqrt(2 - 2 cos)``; 0 for equal descriptors.

    Raises:
        ReconlabError: Sizes differ.

    Example:
        >>> round(mvcnn_distance(np.array([1.0, 0.0]), np.array([0.6, 0.8])), 4)
        0.8944
    """
    if pred.shape != target.shape or pred.ndim != 1:
        raise ReconlabError(
            f"mvcnn_distance: descriptors have shapes {pred.shape} and {target.shape}; expected (D,)."
        )
    return min(float(np.linalg.norm(pred.astype(np.float64) - target.astype(np.float64))), 2.0)


class MVCNN(DescriptorMetric):
    """Mean distance between descriptors of a multi-view CNN, ``mvcnn``.

    A failed prediction gets 2, the largest distance that two unit vectors can have.

    Args:
        weights: ``bundled``, a ``.safetensors`` file, or a checkpoint of a run of ``configs/mvcnn.yaml``.
        cache: Folder for the ground truth's descriptors; null keeps them in memory.

    Example:
        >>> import torch
        >>> from reconlab.batch import Batch
        >>> tetrahedron = torch.tensor([[0, 0.4, 0], [-0.4, -0.3, -0.3], [0.4, -0.3, -0.3], [0, -0.3, 0.4]])
        >>> mesh = Mesh(tetrahedron, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
        >>> metric = MVCNN()
        >>> metric.update(mesh, Batch(ids=["a"], categories=["x"], mesh=mesh))
        >>> metric.compute()["mvcnn"].item()
        0.0
    """

    higher_is_better = False

    def __init__(self, weights: str = "bundled", cache: str | None = None) -> None:
        net = load_mvcnn(weights)
        digest = hashlib.sha256()
        for key, value in sorted(net.state_dict().items()):
            if not key.startswith("classifier."):
                digest.update(f"{key}{tuple(value.shape)}".encode() + value.double().numpy().tobytes())
        self.weights_digest = digest.hexdigest()[:12]
        protocol = Protocol(
            name="mvcnn",
            formula="||D(P) - D(T)||_2, D = unit-norm penultimate layer after the maximum over views",
            unit="distance of unit vectors, in [0, 2]",
            squared=False,
            points=None,
            alignment=(
                f"none; {VIEWS} views every 30° at elevation 30°, {net.size}² pixels, weights {weights} "
                f"({self.weights_digest})"
            ),
            scale="object",
            threshold=None,
            factor=1.0,
            higher_is_better=False,
            worst_value=2.0,
            source="MVCNN (Su et al. 2015) as DR-KFS reports it; the distance and the network are our reading",
        )
        super().__init__({protocol.name: protocol}, cache)
        # Not a submodule: a run's checkpoint would hold its weights, and `.to(device)` would move it off the CPU,
        # where descriptors are computed.
        self._net = [net.requires_grad_(False)]

    def settings(self) -> str:
        """Version of the code, size of the pictures and digest of the weights."""
        return f"mvcnn {VERSION} {self._net[0].size} {self.weights_digest}"

    def describe(self, mesh: Mesh) -> Descriptor:
        """``{"descriptor": (D,)}``."""
        return {"descriptor": mvcnn_descriptor(mesh, self._net[0])}

    def compare(self, pred: Descriptor, truth: Descriptor) -> dict[str, float]:
        """The distance."""
        return {self.name: mvcnn_distance(pred["descriptor"], truth["descriptor"])}
