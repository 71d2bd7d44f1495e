"""The hinge of the architecture: any network's output, asked for the form that a loss or a metric works on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reconlab.errors import ConversionError

if TYPE_CHECKING:
    from reconlab.shapes.mesh import Mesh
    from reconlab.shapes.voxels import VoxelGrid


class Shape(ABC):
    """A batch of shapes in the object frame, inside [-0.5, 0.5]³ when they are well placed.

    Conversions are differentiable where their docstring says so; one that does not exist raises
    :class:`~reconlab.errors.ConversionError` by name.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples in the batch."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the tensors live."""

    @abstractmethod
    def valid(self) -> Tensor:
        """``(B,)`` bool: finite and not empty. Metrics count the others as failed predictions."""

    @abstractmethod
    def __getitem__(self, index: slice | int) -> Shape:
        """The samples of ``index`` as a batch (an int gives a batch of one)."""

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """``(B, n, 3)`` points of the shape."""
        raise self._missing("points")

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` points on the surface and their unit normals, each ``(B, n, 3)``."""
        raise self._missing("surface points with normals")

    def mesh(self) -> Mesh:
        """The surface as triangle meshes."""
        raise self._missing("a mesh")

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """Filled occupancy over [-0.5, 0.5]³."""
        raise self._missing("voxels")

    def anchors(self) -> list[Tensor]:
        """The tensors that all forms of the shape are computed from, where gradients of losses can be compared."""
        raise self._missing("tensors of its own (anchors)")

    def _missing(self, form: str) -> ConversionError:
        return ConversionError(f"{type(self).__name__} has no conversion to {form}.")

    @staticmethod
    def as_slice(index: slice | int, length: int) -> slice:
        """An int index as a slice of one (negative ones count from the end)."""
        if isinstance(index, slice):
            return index
        if not -length <= index < length:
            raise IndexError(f"sample {index} of a batch of {length}")
        index %= length
        return slice(index, index + 1)
