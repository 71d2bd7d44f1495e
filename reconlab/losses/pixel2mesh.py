"""Pixel2Mesh's loss (Wang et al., ECCV 2018): Chamfer distance and four regularisers at every stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.devices import send
from reconlab.errors import ConversionError, ReconlabError
from reconlab.kernels.nearest import nearest
from reconlab.losses.base import Loss
from reconlab.losses.mesh_regularizers import check_weights, deformation_terms, normal_alignment
from reconlab.shapes import Shape, TemplateMesh

UNIT = 0.57
"""Bounding-box diagonal of Pixel2Mesh's shapes in the unit that its weights were chosen for; ours is 1."""


def pixel2mesh_terms(
    stages: Sequence[TemplateMesh],
    points: Tensor,
    normals: Tensor | None = None,
    opposite: float = 0.55,
    change_stages: Sequence[float] = (0.2, 1.0, 1.0),
) -> dict[str, Tensor]:
    """The terms, each ``(B,)``, summed over stages and unweighted.

    - ``chamfer``: mean squared distance of the true points to the nearest vertex, plus ``opposite`` times that of the
      vertices to the nearest true point;
    - ``edge``, ``change``, ``move``: :func:`reconlab.losses.mesh_regularizers.deformation_terms`;
    - ``normal``, if there are normals: :func:`reconlab.losses.mesh_regularizers.normal_alignment`.

    Args:
        stages: Coarse to fine, object frame.
        points: ``(B, P, 3)`` on the true surface.
        normals: ``(B, P, 3)`` of the points.
        opposite: Factor of the distances from the vertices.
        change_stages: Factor of each stage's Laplacian change.
    """
    terms = {"chamfer": points.new_zeros(len(points)), **deformation_terms(stages, change_stages)}
    if normals is not None:
        terms["normal"] = points.new_zeros(len(points))
    for stage in stages:
        from_vertices, index = nearest(stage.positions, points)
        from_points, _ = nearest(points, stage.positions)
        terms["chamfer"] = terms["chamfer"] + from_points.mean(1) + opposite * from_vertices.mean(1)
        if normals is not None:
            value = normal_alignment(stage.positions, stage.template_faces, points, normals, index)
            terms["normal"] = terms["normal"] + value
    return terms


class Pixel2MeshLoss(Loss):
    """Pixel2Mesh's loss on any :class:`TemplateMesh`; stages count alike.

    The weights are the authors' (3000, 300, 1500, 100, 0.5) divided by 3000. They were chosen for shapes of diagonal
    0.57. All terms but ``normal`` are squared lengths: in our unit they all grow by 1 / 0.57² = 3.08, and so does
    here, by ``unit``, the weight of ``normal``, which has no length. The loss is then 3.08 times the published one,
    which Adam does not see.

    Args:
        chamfer: Weight of the Chamfer distance.
        opposite: Its factor for the distances from vertices to the truth (0.55).
        edge: Weight of the mean squared edge length.
        change: Weight of the change of Laplacian coordinates.
        change_stages: Its factor per stage.
        move: Weight of the mean squared displacement, from the second stage on.
        normal: Weight of the edges' alignment with the true normals; above 0 the data must have normals.
        unit: Diagonal of the shapes that ``normal`` was chosen for.
        points: True points per step, drawn from those of the batch; None takes all.

    Raises:
        ReconlabError: A setting is out of range.
    """

    def __init__(
        self,
        chamfer: float = 1.0,
        opposite: float = 0.55,
        edge: float = 0.1,
        change: float = 0.5,
        change_stages: Sequence[float] = (0.2, 1.0, 1.0),
        move: float = 0.033,
        normal: float = 1.6e-4,
        unit: float = UNIT,
        points: int | None = 2500,
    ) -> None:
        super().__init__()
        weights = {"chamfer": chamfer, "edge": edge, "change": change, "move": move, "normal": normal}
        self.change_stages = check_weights("Pixel2MeshLoss", {**weights, "opposite": opposite}, change_stages)
        if not 0 < unit < float("inf"):
            raise ReconlabError(f"Pixel2MeshLoss: unit is {unit}; expected a positive length.")
        if points is not None and points < 1:
            raise ReconlabError(f"Pixel2MeshLoss: points is {points}; expected at least 1, or none for all.")
        self.weights = {**weights, "normal": normal / unit**2}
        self.opposite, self.points = opposite, points

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The true points, and their normals if these count."""
        return frozenset({"surface", "normals"} if self.weights["normal"] else {"surface"})

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, the mean over samples, and the terms, unweighted sums over stages."""
        if not isinstance(shape, TemplateMesh):
            raise ConversionError(
                f"Pixel2MeshLoss works on meshes of one connectivity (Pixel2Mesh, ShapeGenerator), "
                f"not on a {type(shape).__name__}: choose another loss."
            )
        stages = [*shape.stages, shape]
        points = batch.require("points", "Pixel2MeshLoss").to(shape.positions.dtype)
        normals = batch.require("normals", "Pixel2MeshLoss") if self.weights["normal"] else None
        if self.points is not None and points.shape[1] > self.points:
            chosen = send(torch.randperm(points.shape[1])[: self.points], points.device)
            points, normals = points[:, chosen], None if normals is None else normals[:, chosen]
        terms = pixel2mesh_terms(stages, points, normals, self.opposite, self.change_stages)
        loss = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum(0).mean()
        return {"loss": loss, **{name: value.detach().mean() for name, value in terms.items()}}

    def extra_repr(self) -> str:
        """The weights, ``normal`` in our unit."""
        return ", ".join(f"{name}={value:.4g}" for name, value in self.weights.items())
