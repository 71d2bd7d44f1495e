"""Meshes of one connectivity: a template whose vertices a network moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.shapes.mesh import Mesh


class TemplateMesh(Mesh):
    """``B`` meshes that share their faces, so that geometric regularisers apply (Laplacian, flatten, edges, moves).

    Args:
        positions: ``(B, V, 3)`` vertices.
        template_faces: ``(F, 3)`` shared by all, into ``V``.
        before: ``(B, V, 3)`` or ``(V, 3)`` positions before the (last) deformation, on the same connectivity: what
            "move" and the Laplacian of Pixel2Mesh compare with. None for a network that deforms once.
        stages: Earlier, coarser results of the same forward pass, first to last, without this one.
    """

    def __init__(
        self,
        positions: Tensor,
        template_faces: Tensor,
        before: Tensor | None = None,
        stages: Sequence[TemplateMesh] = (),
    ) -> None:
        if positions.ndim != 3:
            raise ReconlabError(f"TemplateMesh: positions have shape {tuple(positions.shape)}; expected (B, V, 3).")
        if before is not None and before.shape != positions.shape:
            if before.shape != positions.shape[1:]:
                raise ReconlabError(
                    f"TemplateMesh: before has shape {tuple(before.shape)}; expected {tuple(positions.shape)}."
                )
            before = before.expand_as(positions)
        super().__init__(positions, template_faces)
        self.positions = positions
        self.template_faces = template_faces.long()
        self.before = before
        self.stages = list(stages)

    def anchors(self) -> list[Tensor]:
        """The positions, without those of earlier stages."""
        return [self.positions]

    def __getitem__(self, index: slice | int) -> TemplateMesh:
        s = self.as_slice(index, len(self))
        before = None if self.before is None else self.before[s]
        return TemplateMesh(self.positions[s], self.template_faces, before, [stage[s] for stage in self.stages])

    def to(self, device: torch.device | str) -> TemplateMesh:
        """Move to a device."""
        before = None if self.before is None else self.before.to(device)
        stages = [stage.to(device) for stage in self.stages]
        return TemplateMesh(self.positions.to(device), self.template_faces.to(device), before, stages)
