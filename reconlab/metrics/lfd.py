"""Light Field Descriptor: do the shapes look alike from all around? Distances of silhouettes, as integers."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.lfd import CameraSet, default_cameras, describe, distances, read_cameras
from reconlab.metrics.descriptors import Descriptor, DescriptorMetric
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import Mesh

VERSION = 1  # of the descriptor, part of the caches' key: raise it with any change of a feature
WORST = 30_000.0


def camera_set(cameras: str | CameraSet | None) -> CameraSet:
    """The set of views: ours for None, a CSV's (``light_field, view, x, y, z``) for a path.

    Raises:
        ReconlabError: The file cannot be read or does not hold ten rotated dodecahedra.
    """
    if isinstance(cameras, CameraSet):
        return cameras
    return default_cameras() if cameras is None else read_cameras(cameras)


def lfd_descriptor(mesh: Mesh, cameras: str | CameraSet | None = None) -> np.ndarray:
    """The Light Field Descriptor of one mesh (Chen, Tian, Shen & Ouhyoung 2003, program v1.8).

    Args:
        mesh: A batch of one, in any unit; soups, parts and open sheets are allowed. Runs on the CPU.
        cameras: None for our set, else the path of a CSV; only descriptors of one set can be compared.

    Returns:
        ``(10, 10, 47)`` uint8: light fields, views, features.

    Raises:
        ReconlabError: The batch has not one mesh, or the mesh has no face with an area or is not finite.

    Example:
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> tetrahedron = Mesh(corners, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
        >>> lfd_descriptor(tetrahedron).shape
        (10, 10, 47)
    """
    if len(mesh) != 1:
        raise ReconlabError(f"lfd_descriptor takes one mesh, not a batch of {len(mesh)}; use mesh[i].")
    vertices, faces = mesh.item(0)
    return describe(vertices.detach().cpu().numpy(), faces.cpu().numpy(), camera_set(cameras))


def lfd_distance(pred: Mesh, target: Mesh, cameras: str | CameraSet | None = None) -> Tensor:
    """Light Field Descriptor distances between meshes, the original's symmetric definition.

    0 for shapes with the same silhouettes, about 1000 to 25 000 between different ones. It does not change when
    either mesh is scaled or moved or, with our cameras, turned by one of ``kernels.lfd.cameras.rotations()``; see
    docs/metrics/lfd.md. To compare one descriptor with many, use :func:`reconlab.kernels.lfd.distances`.

    Args:
        pred: ``B`` meshes.
        target: ``B`` meshes.
        cameras: See :func:`lfd_descriptor`.

    Returns:
        ``(B,)`` int64.

    Raises:
        ReconlabError: The numbers of meshes differ, or as :func:`lfd_descriptor`.

    Example:
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
        >>> faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
        >>> lfd_distance(Mesh(corners, faces), Mesh(3 * corners + 1, faces))
        tensor([0])
    """
    if len(pred) != len(target):
        raise ReconlabError(f"lfd_distance: {len(pred)} predictions for {len(target)} true meshes.")
    chosen = camera_set(cameras)
    found = [
        int(distances(lfd_descriptor(pred[i], chosen), lfd_descriptor(target[i], chosen)[None])[0])
        for i in range(len(pred))
    ]
    return torch.tensor(found, dtype=torch.int64)


class LFD(DescriptorMetric):
    """Mean Light Field Descriptor distance over samples, ``lfd``.

    Args:
        cameras: Null for our ten light fields, else the path of a CSV with others; numbers made with different sets
            differ by some percent.
        name: Key of the value.
        cache: See :class:`DescriptorMetric`.

    Raises:
        ReconlabError: The CSV cannot be read.
    """

    higher_is_better = False

    def __init__(self, cameras: str | None = None, name: str = "lfd", cache: str | None = None) -> None:
        protocol = Protocol(
            name=name,
            formula="min over 10 x 10 light fields and 60 rotations of Σ_10 views (Σ|ΔART| + 2Σ|ΔFourier| + "
            "2|Δcircularity| + |Δeccentricity|), 8-bit features",
            unit="sum of 8-bit differences",
            squared=None,
            points=None,
            alignment="each shape centred and scaled by itself, best of the cameras' rotations",
            scale="object",
            threshold=None,
            factor=1.0,
            higher_is_better=False,
            worst_value=WORST,
            source="Chen et al. 2003, program v1.8; "
            + ("reconlab's light fields" if cameras is None else f"light fields of {cameras}"),
        )
        super().__init__({name: protocol}, cache)
        self.camera_set = camera_set(cameras)

    def settings(self) -> str:
        """The version of the features and a digest of the cameras."""
        digest = hashlib.blake2b(self.camera_set.frames.tobytes(), digest_size=8).hexdigest()
        return f"{VERSION}|{digest}|{self.camera_set.equivariant}"

    def describe(self, mesh: Mesh) -> Descriptor:
        """``features`` (10, 10, 47) uint8."""
        return {"features": lfd_descriptor(mesh, self.camera_set)}

    def compare(self, pred: Descriptor, truth: Descriptor) -> dict[str, float]:
        """The distance."""
        return {self.name: float(distances(pred["features"], truth["features"][None])[0])}
