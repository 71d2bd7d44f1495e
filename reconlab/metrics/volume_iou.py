"""Volumetric intersection over union of two meshes: by points, or exactly for manifolds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from reconlab.errors import ReconlabError, optional_import
from reconlab.metrics.descriptors import Descriptor, DescriptorMetric
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import Mesh

Method = Literal["points", "exact"]

POINTS = 100_000


def volume_iou(pred: Mesh, target: Mesh, method: Method = "points", points: int = POINTS, seed: int = 0) -> float:
    """Intersection over union of the volumes that two meshes enclose.

    Args:
        pred: A batch of one.
        target: A batch of one, in the same unit.
        method: ``points``: the share of points, uniform in the box around both, that are inside both among those
            inside either. Inside is the rule of the built datasets: faces are turned outward, then a generalised
            winding number above one half, so meshes may be holed, inconsistently turned or doubled.
            ``exact``: volumes of the Boolean intersection and union (manifold3d); closed manifolds only.
        points: Of the points method. Its standard error is about ``sqrt(IoU (1 - IoU) / n)``, n being the points
            in the union.
        seed: Of those points.

    Returns:
        In [0, 1]; NaN where neither mesh encloses a volume (a point of it, for the points method).

    Raises:
        ReconlabError: A mesh has no surface, the method is unknown, or ``exact`` got a mesh that is not a closed,
            consistently turned manifold.

    Example:
        >>> import torch, trimesh
        >>> box = trimesh.creation.box((1, 1, 1))
        >>> vertices, faces = torch.tensor(box.vertices), torch.tensor(box.faces)
        >>> moved = vertices + torch.tensor([0.5, 0, 0])
        >>> round(volume_iou(Mesh(vertices, faces), Mesh(moved, faces)), 2)  # 0.5 of 1.5
        0.33
    """
    _check(method, points)
    return _compare(_describe(pred, method), _describe(target, method), method, points, seed)


def _check(method: str, points: int) -> None:
    if method not in ("points", "exact"):
        raise ReconlabError(f"volume_iou: the methods are points and exact, not {method!r}.")
    if points < 1:
        raise ReconlabError(f"volume_iou: points is {points}; expected at least 1.")


def _describe(mesh: Mesh, method: str) -> Descriptor:
    """The solid that a mesh stands for, as arrays."""
    if not bool(mesh.valid()[0]):
        raise ReconlabError("volume_iou: the mesh has no face of positive area, or a coordinate that is not finite.")
    vertices, faces = mesh.item(0)
    corners, triangles = vertices.detach().cpu().double().numpy(), faces.cpu().numpy()
    if method == "points":
        # The only import of a higher floor: the rule for what is inside must be the datasets' own.
        from reconlab.datasets.orient import orient

        solid = orient(corners, triangles)
        return {"vertices": solid.vertices, "faces": solid.faces[solid.bounding]}
    unique, inverse = np.unique(corners, axis=0, return_inverse=True)
    triangles = inverse.reshape(-1)[triangles]
    whole = (np.diff(np.sort(triangles, 1), axis=1) > 0).all(1)  # a face that names a vertex twice is nothing
    used, compact = np.unique(triangles[whole], return_inverse=True)
    arrays = {"vertices": unique[used], "faces": compact.reshape(-1, 3)}
    _manifold(arrays)  # refused here, where it is known whose mesh it is
    return arrays


def _manifold(arrays: Descriptor) -> Any:
    """The solid in manifold3d, its parts united."""
    m3d = optional_import("manifold3d", "eval", "The exact volumetric IoU")
    solid = m3d.Manifold(
        m3d.Mesh64(
            np.ascontiguousarray(arrays["vertices"], np.float64), np.ascontiguousarray(arrays["faces"], np.uint64)
        )
    )
    if solid.status() != m3d.Error.NoError or solid.is_empty():
        raise ReconlabError(
            "volume_iou: the exact method takes closed manifold meshes, every edge shared by two faces that turn "
            "alike; this one is not: use the method 'points'."
        )
    parts = solid.decompose()
    # Parts may overlap, and volumes would then count twice. A part turned inside out is a cavity of another.
    if len(parts) > 1 and all(part.volume() > 0 for part in parts):
        solid = m3d.Manifold.batch_boolean(parts, m3d.OpType.Add)
    if solid.volume() <= 0:
        raise ReconlabError("volume_iou: the exact method takes meshes that are turned outward; this one is not.")
    return solid


def _compare(pred: Descriptor, truth: Descriptor, method: str, points: int, seed: int) -> float:
    if method == "exact":
        a, b = _manifold(pred), _manifold(truth)
        common = max((a ^ b).volume(), 0.0)
        return float(min(common / (a.volume() + b.volume() - common), 1.0))
    if len(pred["faces"]) == 0 and len(truth["faces"]) == 0:
        return float("nan")
    corners = np.concatenate([side["vertices"][side["faces"]].reshape(-1, 3) for side in (pred, truth)])
    where = np.random.default_rng(seed).random((points, 3)) * np.ptp(corners, 0) + corners.min(0)
    ours, theirs = _inside(pred, where, seed), _inside(truth, where, seed)
    union = int((ours | theirs).sum())
    return float((ours & theirs).sum() / union) if union else float("nan")


def _inside(side: Descriptor, where: np.ndarray, seed: int) -> np.ndarray:
    from reconlab.datasets.inside import inside
    from reconlab.datasets.orient import Oriented

    vertices, faces = side["vertices"], side["faces"]
    flags = np.ones(len(faces), bool)
    numbers = np.arange(len(faces))
    return inside(where, Oriented(vertices, faces, numbers, ~flags, numbers, flags), seed)


class VolumeIoU(DescriptorMetric):
    """Mean volumetric IoU of meshes over samples, ``volume_iou`` (``volume_iou_exact``).

    Where neither mesh encloses a volume the value is not defined, and the prediction is counted as failed; a
    prediction that is a sheet scores 0. With ``exact`` a prediction that is not a closed manifold has failed, and a
    true mesh that is not is an error.

    Args:
        method: See :func:`volume_iou`.
        points: Points in the box around both meshes.
        seed: Of those points.
        name: Key of the value.
        cache: Folder for the true meshes as solids; null keeps them in memory.
    """

    higher_is_better = True

    def __init__(
        self,
        method: Method = "points",
        points: int = POINTS,
        seed: int = 0,
        name: str | None = None,
        cache: str | None = None,
    ) -> None:
        _check(method, points)
        exact = method == "exact"
        protocol = Protocol(
            name=name or ("volume_iou_exact" if exact else "volume_iou"),
            formula="vol(P ∩ T) / vol(P ∪ T)"
            + (", Boolean operations on closed manifolds" if exact else ", points uniform in the box around both"),
            unit="share",
            squared=None,
            points=None if exact else points,
            alignment="none",
            scale="object",
            threshold=None if exact else 0.5,
            factor=100.0,
            higher_is_better=True,
            worst_value=0.0,
            source="Occupancy Networks (2019): 100 000 points; there in the unit cube with padding",
        )
        super().__init__({protocol.name: protocol}, cache)
        self.method: Method = method
        self.points = points
        self.seed = seed

    def settings(self) -> str:
        """The code's version and the method."""
        return f"1|{self.method}"

    def describe(self, mesh: Mesh) -> Descriptor:
        """The solid that the mesh stands for: ``vertices`` and outward ``faces``."""
        return _describe(mesh, self.method)

    def compare(self, pred: Descriptor, truth: Descriptor) -> dict[str, float]:
        """The IoU."""
        return {self.name: _compare(pred, truth, self.method, self.points, self.seed)}
