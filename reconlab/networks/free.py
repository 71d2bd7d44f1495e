"""Shapes optimised one by one, without a network: what a loss alone makes of a sample."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.shapes import Mesh, PointCloud, Shape

NAME_BYTES = 512
"""Room for ``category/id`` in UTF-8: two file names of the usual limit."""


class FreeShapes(Network):
    """One row of free numbers per shape, found by the shape's category and id; the image is not read.

    All rows exist from the start, so that the optimiser knows them; a shape takes the next free row when training
    first meets it, the shapes of a step in the order of their names. The checkpoint holds the names with the rows.
    A row is a parameter of its own: a step moves the rows of its batch and no other (one dense table would let
    Adam's momentum carry on the others), so what becomes of a shape does not depend on its company. With several
    processes the rows are kept alike by exchanging the names of each step until all rows are taken, and there
    the momentum does carry on the rows that a step does not touch.

    Nothing is learned about shapes that training does not name, so validating on other shapes says nothing: judge on
    a dataset whose lists name the same shapes in train and in val or test, or switch validation off
    (``trainer.limit_val_batches: 0``). While fitting, a shape that no step has met yet is a failed prediction (not
    finite), which metrics count as such; outside of fitting it is an error.

    Args:
        samples: Rows, at least the number of training shapes.

    Raises:
        ReconlabError: Fewer than one row; in training, more shapes than rows; in test, an unknown shape.
    """

    needs: frozenset[str] = frozenset()
    names: Tensor

    def __init__(self, samples: int, rows: Sequence[Tensor]) -> None:
        super().__init__()
        self.samples = samples
        self.values = nn.ParameterList(nn.Parameter(row) for row in rows)
        self.register_buffer("names", torch.zeros(samples, NAME_BYTES, dtype=torch.uint8))
        self.rows: dict[str, int] = {}
        self._fitting = False
        self.register_load_state_dict_post_hook(_read_names)

    @abstractmethod
    def shape(self, rows: Tensor) -> Shape:
        """``(B, N, 3)`` numbers of the rows to shapes."""

    def reconstruct(self, batch: Batch) -> Shape:
        """The shapes of the batch's names."""
        names = [f"{c}/{i}" for c, i in zip(batch.categories, batch.ids, strict=True)]
        if self.training:
            self._fitting = True
            self._assign(names)
            if _processes() > 1:  # every process must give every parameter a gradient
                return self.shape(torch.stack(list(self.values))[[self.rows[n] for n in names]])
        elif unknown := [n for n in names if n not in self.rows]:
            self._complain(unknown)
        absent = torch.full_like(self.values[0], torch.nan, requires_grad=False)
        return self.shape(torch.stack([self.values[self.rows[n]] if n in self.rows else absent for n in names]))

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> Shape:
        """Not available.

        Raises:
            ReconlabError: Always: shapes are found by name.
        """
        raise ReconlabError(
            f"{type(self).__name__} holds shapes by name and reads no image; take a network that does, AtlasNet say."
        )

    def _assign(self, names: list[str]) -> None:
        if _processes() > 1 and len(self.rows) < self.samples:
            gathered: list[Any] = [None] * _processes()
            dist.all_gather_object(gathered, names)
            new = {n for part in gathered for n in part}
        else:
            new = set(names)
        for name in sorted(new - self.rows.keys()):
            if len(self.rows) == self.samples:
                raise ReconlabError(
                    f"{type(self).__name__} has {self.samples} rows and training brings more shapes ({name} is the "
                    "next): set model.network.init_args.samples to the number of training shapes, or train on fewer."
                )
            text = name.encode()
            if len(text) > NAME_BYTES:
                raise ReconlabError(
                    f"{type(self).__name__}: the name {name[:40]}… has {len(text)} bytes; {NAME_BYTES} can be stored."
                )
            row = self.rows[name] = len(self.rows)
            self.names[row, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(self.names)

    def _complain(self, unknown: list[str]) -> None:
        if self.rows and not self._fitting:
            known = ", ".join(list(self.rows)[:3]) + (", …" if len(self.rows) > 3 else "")
            raise ReconlabError(
                f"{type(self).__name__} was not fitted to {unknown[0]}, only to {len(self.rows)} shapes ({known}): "
                "judge it on a dataset whose lists name those in train and in val and test."
            )
        warnings.warn(
            f"{type(self).__name__} has not met {unknown[0]} in training: it counts as a failed prediction.",
            stacklevel=2,
        )


class FreePoints(FreeShapes):
    """Free points per shape: DRWR's own experiment (Figs. 3 and 5), through the same trainer as any network.

    Args:
        points: Points per shape.
        samples: Rows, at least the number of training shapes.
        init: ``wide``: uniform in [-0.6, 0.6]³, as from a decoder whose output has not settled; ``blob``: normal,
            standard deviation 0.05.
        seed: Of the initial positions; every row has its own.

    Raises:
        ReconlabError: A number below one, or an unknown ``init``; see also :class:`FreeShapes`.
    """

    def __init__(
        self, points: int = 2000, samples: int = 64, init: Literal["wide", "blob"] = "wide", seed: int = 0
    ) -> None:
        _check(type(self).__name__, points=points, samples=samples)
        super().__init__(samples, initial_points(points, samples, init, seed))

    def shape(self, rows: Tensor) -> PointCloud:
        """The points themselves."""
        return PointCloud(rows)


class FreeSphere(FreeShapes):
    """A sphere per shape whose vertices are free: mesh losses alone, without a network.

    Only the losses hold the surface together: pixel losses move vertices one by one, and a step that is large beside
    an edge folds it. Choose the learning rate well below the edge length (0.15 radius at level 3, half at each next).

    Args:
        level: Subdivisions of the icosahedron: ``10 · 4^level + 2`` vertices, ``20 · 4^level`` faces.
        samples: Rows, at least the number of training shapes.
        radius: Of the initial sphere; shapes have a bounding box of diagonal 1.

    Raises:
        ReconlabError: A number out of range; see also :class:`FreeShapes`.
    """

    faces: Tensor
    sphere: Tensor

    def __init__(self, level: int = 3, samples: int = 64, radius: float = 0.3) -> None:
        from trimesh.creation import icosphere

        _check(type(self).__name__, samples=samples)
        if not 0 <= level <= 6:
            raise ReconlabError(f"FreeSphere: level is {level}; expected 0 to 6 (6 has 40962 vertices).")
        if not 0 < radius <= 1:
            raise ReconlabError(f"FreeSphere: radius is {radius}; expected a number above 0, at most 1.")
        ball = icosphere(subdivisions=level, radius=radius)
        vertices = torch.tensor(ball.vertices, dtype=torch.float32)
        super().__init__(samples, [torch.zeros_like(vertices) for _ in range(samples)])
        self.register_buffer("sphere", vertices, persistent=False)
        self.register_buffer("faces", torch.tensor(ball.faces).long(), persistent=False)

    def shape(self, rows: Tensor) -> Mesh:
        """The sphere moved by the rows."""
        return Mesh(self.sphere + rows, self.faces)


def initial_points(points: int, samples: int, init: str, seed: int) -> list[Tensor]:
    """Positions ``(points, 3)`` for each sample; sample ``k`` is the same whatever the number of samples.

    Raises:
        ReconlabError: ``init`` is neither ``wide`` nor ``blob``.
    """
    if init not in ("wide", "blob"):
        raise ReconlabError(f"FreePoints: init is {init!r}; expected 'wide' or 'blob'.")
    g = torch.Generator().manual_seed(seed)
    if init == "wide":
        return [1.2 * torch.rand(points, 3, generator=g) - 0.6 for _ in range(samples)]
    return [0.05 * torch.randn(points, 3, generator=g) for _ in range(samples)]


def _check(who: str, **sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ReconlabError(f"{who}: {name} is {value}; expected at least 1.")


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _read_names(module: nn.Module, _: Any) -> None:
    """After loading a state: the names from their bytes."""
    if isinstance(module, FreeShapes):
        texts = [bytes(row.tolist()).rstrip(b"\0").decode() for row in module.names.cpu()]
        module.rows = {text: i for i, text in enumerate(texts) if text}
