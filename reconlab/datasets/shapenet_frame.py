"""ShapeNet's frames, and whether shape, cameras and pictures are in one of them.

| | up | front | bounding box |
|---|---|---|---|
| ShapeNetCore v1 (``model.obj``); renders, voxels and archives made of it | +y | +x | centred, diagonal 1 |
| ShapeNetCore v2 (``models/model_normalized.obj``) | +y | -z | diagonal 1; the mean of the vertices is at 0 |
| this program's procedural shapes | +y | -z | centred, diagonal 1 |

So v1 is v2 turned by a quarter about y: ``(x, y, z)_v1 = (-z, y, x)_v2`` (the two READMEs; the converters of SRN's
users say the same).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import max_pool2d

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError

V2_TO_V1 = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
FRONTS = {"+x": np.eye(3), "-z": V2_TO_V1.T}
"""From ShapeNet v1's axes to those of a dataset, by where the front then is."""

SEEN = 0.94
"""The least share of a shape that projects into the silhouettes, and of these that it covers; means over views.
Shapes in the right frame have 1.00 and 1.00. Procedural chairs and airplanes turned by a quarter or a half, mirrored,
or moved by a tenth have less than 0.89 (surface points) or 0.94 (voxels) in one of the two."""


@dataclass(frozen=True)
class Frame:
    """From a source's coordinates to the dataset's: ``turn @ (x - loc) / scale``.

    Attributes:
        turn: ``(3, 3)`` rotation.
        loc: ``(3,)`` centre of the shape's box in the source.
        scale: Its diagonal there.
    """

    turn: np.ndarray = field(default_factory=lambda: np.eye(3))
    loc: np.ndarray = field(default_factory=lambda: np.zeros(3))
    scale: float = 1.0

    def points(self, points: np.ndarray) -> np.ndarray:
        """``(N, 3)`` points of the source, in the dataset's frame (float64)."""
        return np.asarray((np.asarray(points, np.float64) - self.loc) / self.scale @ self.turn.T)

    def cameras(self, cameras: Cameras) -> Cameras:
        """The cameras that see the moved shape as the given ones see the source's; ``(V,)``."""
        R, t = cameras.R.double(), cameras.t.double()
        turned = R @ torch.from_numpy(self.turn.T)
        moved = (R @ torch.from_numpy(np.asarray(self.loc, np.float64)) + t) / self.scale
        return Cameras(turned.float(), moved.float(), cameras.focal, cameras.centre)


def check_agreement(points: np.ndarray, cameras: Cameras, alphas: np.ndarray, what: str, radius: float = 0.0) -> None:
    """See that a shape projects into its silhouettes, and fills them.

    A shape that is turned, mirrored, of another size or at another place is told apart, unless it looks the same.

    Args:
        points: ``(N, 3)`` dense on its surface, or centres of its cells.
        cameras: ``(V,)``.
        alphas: ``(V, H, W)`` uint8.
        what: The shape's file, for the error.
        radius: How far the shape may lie from its points: half a cell's diagonal.

    Raises:
        ReconlabError: They are not in one frame.
    """
    height, width = alphas.shape[1:]
    xy, depth = cameras.project(torch.from_numpy(np.asarray(points, np.float32)))
    shares, covers = [], []
    for k, alpha in enumerate(torch.from_numpy(alphas > 0).float()):
        blur = float(cameras.focal[k].max() / depth[k].median().clamp_min(1e-3)) * radius * max(height, width) / 2
        margin = 1 + round(blur)
        column, row = ((xy[k] + 1) / 2 * torch.tensor([width, height])).floor().long().T
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height) & (depth[k] > 0)
        hit = torch.zeros(height, width)
        hit[row[inside], column[inside]] = 1
        near, cover = (max_pool2d(x[None], 2 * margin + 1, 1, margin)[0] for x in (alpha, hit))
        # (Published shapes stay within their pictures: what projects outside of one is no part of its silhouette.)
        shares.append(float(near[row[inside], column[inside]].sum()) / len(points))
        covers.append(float((cover * alpha).sum() / alpha.sum()))
    share, covered = float(np.mean(shares)), float(np.mean(covers))
    if min(share, covered) < SEEN:
        raise ReconlabError(
            f"{what}: {share:.0%} of the shape projects into the silhouettes and covers {covered:.0%} of them: "
            "shape, cameras and pictures are not in one frame."
        )
