"""Geometric regularisers of meshes: uniform Laplacian, flatness, edges, and Pixel2Mesh's terms per deformation.

All functions take ``positions (B, V, 3)`` and ``faces (F, 3)`` that the samples share, and return one value per
sample. Edges and neighbours are found once per faces tensor (:mod:`reconlab.shapes.connectivity`).

Behaviour under scaling by ``s``: :func:`flatten` and :func:`normal_alignment` do not change, all others grow by
``s²``. None changes under rotations or renumbered vertices, and none but :func:`move` under translations (that one if
both its meshes move alike).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.kernels.nearest import nearest
from reconlab.losses.base import Loss
from reconlab.shapes import Mesh, Shape, TemplateMesh
from reconlab.shapes.connectivity import connectivity

TINY = 1e-8
"""Added to squared lengths under a root: lengths below 1e-4 fade out, so that slivers have bounded gradients."""


def laplacian(positions: Tensor, faces: Tensor) -> Tensor:
    """``(B, V, 3)`` uniform Laplacian coordinates: each vertex minus the mean of its neighbours.

    0 for a vertex without neighbours.
    """
    positions = _check("laplacian", positions)
    net = connectivity(faces, positions.shape[1])
    columns = positions.transpose(0, 1).flatten(1)
    mean = net.neighbour_sum(columns) / net.degree.clamp_min(1)[:, None]
    apart = (columns - mean) * (net.degree > 0)[:, None]
    return apart.unflatten(1, (-1, 3)).transpose(0, 1)


def laplacian_smoothness(positions: Tensor, faces: Tensor, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """``(B,)`` squared lengths of the Laplacian coordinates, summed over vertices as SoftRas does, or their mean.

    Example:
        >>> triangle = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
        >>> laplacian_smoothness(triangle, torch.tensor([[0, 1, 2]]))  # (2 + 5 + 5) / 4
        tensor([3.])
    """
    square = laplacian(positions, faces).square().sum(-1)
    if reduction not in ("sum", "mean"):
        raise ReconlabError(f"laplacian_smoothness: reduction is {reduction!r}; expected 'sum' or 'mean'.")
    return square.sum(1) if reduction == "sum" else square.mean(1)


def flatten(positions: Tensor, faces: Tensor) -> Tensor:
    """``(B,)`` Σ (cos θ + 1)² over the edges between two faces, θ being their dihedral angle (SoftRas, NMR).

    0 where the surface is flat (θ = π), 1 for a right angle, 4 where it is folded back onto itself. θ is the angle
    between the two triangles' heights on the edge; a triangle without height counts as a right angle. Departure: the
    released code adds 1e-6 at four places; here 1e-8 to each squared height alone.
    """
    positions = _check("flatten", positions)
    wings = connectivity(faces, positions.shape[1]).wings
    a, b, c, d = _rows(positions, *wings.unbind(1))
    edge = b - a
    square = edge.square().sum(-1, keepdim=True)
    flat = []
    for corner in (c, d):
        side = corner - a
        height = side - edge * ((side * edge).sum(-1, keepdim=True) / (square + TINY**2))
        flat.append(height / (height.square().sum(-1, keepdim=True) + TINY).sqrt())
    return ((flat[0] * flat[1]).sum(-1) + 1).square().sum(0)


def edge_length(positions: Tensor, faces: Tensor) -> Tensor:
    """``(B,)`` mean squared edge length (Pixel2Mesh)."""
    along = _edges("edge_length", positions, faces)
    return along.square().sum((0, 2)) / max(len(along), 1)


def laplacian_change(before: Tensor, after: Tensor, faces: Tensor) -> Tensor:
    """``(B,)`` mean over vertices of the squared change of the Laplacian coordinates (Pixel2Mesh)."""
    _same("laplacian_change", before, after)
    return laplacian(after - before, faces).square().sum(-1).mean(1)  # the Laplacian is linear


def move(before: Tensor, after: Tensor) -> Tensor:
    """``(B,)`` mean over vertices of the squared displacement (Pixel2Mesh)."""
    _same("move", before, after)
    return (_check("move", after) - before).square().sum(-1).mean(1)


def normal_alignment(
    positions: Tensor, faces: Tensor, points: Tensor, normals: Tensor, index: Tensor | None = None
) -> Tensor:
    """``(B,)`` mean |cos| of the angles between edges and the true surface's normals (Pixel2Mesh); 0 is best.

    Each edge is compared at both its ends with the normal of the true point next to that end, as in the paper's
    formula; the released code takes one end, whichever the edge list names first.

    Args:
        positions: ``(B, V, 3)``.
        faces: ``(F, 3)``.
        points: ``(B, P, 3)`` on the true surface.
        normals: ``(B, P, 3)`` of the points, of any length (a normal of length 0 counts as 0).
        index: ``(B, V)`` the true point closest to each vertex, if known.
    """
    if normals.shape != points.shape:
        raise ReconlabError(
            f"normal_alignment: normals have shape {tuple(normals.shape)}, their points {tuple(points.shape)}."
        )
    along = _edges("normal_alignment", positions, faces)
    if index is None:
        _, index = nearest(positions.detach(), points)
    along = along / (along.square().sum(-1, keepdim=True) + TINY).sqrt()
    chosen = normals.to(along.dtype).gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
    chosen = torch.nn.functional.normalize(chosen, dim=-1)
    ends = connectivity(faces, positions.shape[1]).edges.unbind(1)
    total = torch.stack([(x * along).sum(-1).abs().sum(0) for x in _rows(chosen, *ends)]).sum(0)
    return total / max(2 * len(along), 1)


def deformation_terms(stages: Sequence[TemplateMesh], change_stages: Sequence[float]) -> dict[str, Tensor]:
    """Pixel2Mesh's regularisers, each ``(B,)`` and unweighted, summed over the stages of one forward pass.

    ``edge``; ``change``, weighted by stage; ``move``, not in the first stage. A stage that does not know its
    positions before adds to ``edge`` alone.

    Args:
        stages: Coarse to fine.
        change_stages: Factor of each stage's Laplacian change; the last one holds for all further stages.
    """
    first = stages[0].positions
    terms = {name: first.new_zeros(len(first)) for name in ("edge", "change", "move")}
    for k, stage in enumerate(stages):
        after, faces = stage.positions, stage.template_faces
        terms["edge"] = terms["edge"] + edge_length(after, faces)
        if stage.before is None:
            continue
        factor = change_stages[min(k, len(change_stages) - 1)]
        terms["change"] = terms["change"] + factor * laplacian_change(stage.before, after, faces)
        if k:
            terms["move"] = terms["move"] + move(stage.before, after)
    return terms


def summed_normal_alignment(stages: Sequence[TemplateMesh], points: Tensor, normals: Tensor) -> Tensor:
    """``(B,)`` :func:`normal_alignment` summed over stages."""
    parts = [normal_alignment(s.positions, s.template_faces, points, normals) for s in stages]
    return torch.stack(parts).sum(0)


class GeometricRegularizer(Loss):
    """The regularisers of the mesh networks, apart from their data terms, so that they can stay beside any loss.

    What it does depends on the shape:

    - a :class:`TemplateMesh` that was deformed in stages or knows its positions before (Pixel2Mesh): per stage
      ``edge``, ``change``, ``move`` (not in the first stage) and, if asked for, ``normal``;
    - any other :class:`Mesh` (Shape Generator, FreeSphere): ``laplacian`` and ``flatten``, sums over the mesh;
    - shapes without a connectivity of their own (points, grids, fields, AtlasNet's patches): 0, in their graph.

    So one overlay can carry it for every network.

    Args:
        laplacian: Weight of :func:`laplacian_smoothness` (SoftRas).
        flatten: Weight of :func:`flatten` (SoftRas).
        edge: Weight of :func:`edge_length` (Pixel2Mesh, as are the following).
        change: Weight of :func:`laplacian_change`.
        change_stages: Its further factor per stage.
        move: Weight of :func:`move`.
        normal: Weight of :func:`normal_alignment`, Pixel2Mesh's being 1.6e-4 (in its own unit, see
            docs/pixel2mesh.md). Above 0 the data must have normals.

    Raises:
        ReconlabError: A weight is negative.
    """

    def __init__(
        self,
        laplacian: float = 5e-3,
        flatten: float = 5e-4,
        edge: float = 0.1,
        change: float = 0.5,
        change_stages: Sequence[float] = (0.2, 1.0, 1.0),
        move: float = 0.033,
        normal: float = 0.0,
    ) -> None:
        super().__init__()
        self.weights = {"laplacian": laplacian, "flatten": flatten, "edge": edge, "change": change}
        self.weights |= {"move": move, "normal": normal}
        self.change_stages = check_weights("GeometricRegularizer", self.weights, change_stages)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The true points with normals, if they count."""
        return frozenset({"surface", "normals"}) if self.weights["normal"] else frozenset()

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, the mean over samples, and the terms that apply, unweighted."""
        if not isinstance(shape, Mesh):
            return {"loss": zero_of(shape)}
        terms: dict[str, Tensor] = {}
        if isinstance(shape, TemplateMesh) and (shape.before is not None or shape.stages):
            stages = [*shape.stages, shape]
            terms = deformation_terms(stages, self.change_stages)
            if self.weights["normal"]:
                points, normals = (batch.require(x, "GeometricRegularizer") for x in ("points", "normals"))
                terms["normal"] = summed_normal_alignment(stages, points, normals)
        else:
            template = isinstance(shape, TemplateMesh)
            # A packed batch is one graph: the sum over it is the sum over its samples.
            positions = shape.positions if isinstance(shape, TemplateMesh) else shape.vertices.unsqueeze(0)
            faces = shape.template_faces if isinstance(shape, TemplateMesh) else shape.faces
            samples = 1 if template else max(len(shape), 1)
            if self.weights["laplacian"]:
                terms["laplacian"] = laplacian_smoothness(positions, faces) / samples
            if self.weights["flatten"]:
                terms["flatten"] = flatten(positions, faces) / samples
        loss = zero_of(shape)
        for name, value in terms.items():
            loss = loss + self.weights[name] * value.mean()
        return {"loss": loss, **{name: value.detach().mean() for name, value in terms.items()}}

    def extra_repr(self) -> str:
        """The weights."""
        return ", ".join(f"{name}={value}" for name, value in self.weights.items())


def zero_of(shape: Shape) -> Tensor:
    """A zero in the graph of the shape's tensors, whatever they hold; of its own where they have none."""
    tensors = [t for t in vars(shape).values() if isinstance(t, Tensor) and t.requires_grad]
    if tensors:
        return torch.stack([t.flatten()[:0].sum() for t in tensors]).sum()
    return torch.zeros((), device=shape.device, requires_grad=torch.is_grad_enabled())


def check_weights(who: str, weights: dict[str, float], change_stages: Sequence[float]) -> tuple[float, ...]:
    """See that no weight is negative.

    Raises:
        ReconlabError: One is, or there is no factor for any stage.
    """
    factors = tuple(float(x) for x in change_stages)
    if not factors:
        raise ReconlabError(f"{who}: change_stages is empty; expected a factor per stage, as [0.2, 1, 1].")
    for name, value in [*weights.items(), *(("change_stages", x) for x in factors)]:
        if not 0 <= value < float("inf"):
            raise ReconlabError(f"{who}: {name} is {value}; expected 0 or more.")
    return factors


def _check(who: str, positions: Tensor) -> Tensor:
    if positions.dim() != 3 or positions.shape[-1] != 3:
        raise ReconlabError(f"{who} takes positions (B, V, 3), not {tuple(positions.shape)}.")
    return positions.to(torch.promote_types(positions.dtype, torch.float32))


def _same(who: str, before: Tensor, after: Tensor) -> None:
    if before.shape != after.shape:
        raise ReconlabError(
            f"{who} compares positions (B, V, 3) of one shape, not {tuple(before.shape)} and {tuple(after.shape)}."
        )


def _edges(who: str, positions: Tensor, faces: Tensor) -> Tensor:
    """``(E, B, 3)`` edge vectors."""
    positions = _check(who, positions)
    start, end = _rows(positions, *connectivity(faces, positions.shape[1]).edges.unbind(1))
    return end - start


def _rows(values: Tensor, *indices: Tensor) -> list[Tensor]:
    """``values[:, i]`` of ``(B, V, 3)`` as ``(N, B, 3)`` for each ``(N,)`` index: a third of the time backwards."""
    columns = values.transpose(0, 1).contiguous()
    return [columns.index_select(0, i) for i in indices]
