"""Graph convolutions on the vertices of one triangulation (Pixel2Mesh, Wang et al., ECCV 2018).

Values are ``(V, B, C)``, vertex first: the sum over neighbours is then one sparse product whose rows are contiguous,
for the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.shapes.connectivity import Connectivity
from reconlab.shapes.ellipsoid import insert_midpoints


class Graph:
    """A level's connectivity with the weights of the normalised adjacency D^-1/2 A D^-1/2.

    Args:
        net: Edges and neighbours.
        like: Gives type and device of the weights.
    """

    def __init__(self, net: Connectivity, like: Tensor) -> None:
        self.net = net
        self.weights = net.symmetric_weights(like)

    def spread(self, values: Tensor) -> Tensor:
        """The normalised adjacency times ``(V, B, C)``."""
        weights = self.weights.to(values.dtype)
        return self.net.neighbour_sum(values.flatten(1), weights).view_as(values)


class GraphConv(nn.Module):
    """``Â (X W) + X W' + b``: a mixture of the neighbours, and of the vertex itself. ``2 C C' + C'`` parameters.

    Glorot's uniform initialisation of either matrix, no bias at first.

    Args:
        inputs: ``C``.
        outputs: ``C'``.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.loop = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)
        nn.init.xavier_uniform_(self.loop)

    def forward(self, x: Tensor, graph: Graph, ends: Tensor | None = None) -> Tensor:
        """``(V, B, C)`` to ``(V, B, C')``.

        Args:
            x: Values at the graph's vertices; with ``ends`` at those before a subdivision.
            graph: The connectivity.
            ends: The subdivision's (:func:`reconlab.shapes.ellipsoid.subdivide`): the result is that of
                ``insert_midpoints(x, ends)``, but the matrix products are done first, on a quarter of the vertices.
        """
        near, own = x @ self.weight, F.linear(x, self.loop.t(), self.bias)
        if ends is not None:
            near, own = insert_midpoints(near, ends), insert_midpoints(own, ends)
        return graph.spread(near) + own


class GraphBlock(nn.Module):
    """A convolution in, ``depth`` pairs each averaged with its input, a convolution out: 14 of them at depth 6.

    Args:
        inputs: Channels in.
        hidden: Channels within.
        outputs: Channels out, neither rectified nor normalised.
        depth: Pairs.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int = 6) -> None:
        super().__init__()
        self.enter = GraphConv(inputs, hidden)
        self.first = nn.ModuleList(GraphConv(hidden, hidden) for _ in range(depth))
        self.second = nn.ModuleList(GraphConv(hidden, hidden) for _ in range(depth))
        self.leave = GraphConv(hidden, outputs)

    def forward(self, x: Tensor, graph: Graph, ends: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(V, B, inputs)`` to ``(V, B, outputs)`` and the last hidden values; ``ends`` as in :class:`GraphConv`."""
        x = F.relu(self.enter(x, graph, ends))
        for first, second in zip(self.first, self.second, strict=True):
            x = 0.5 * (x + F.relu(second(F.relu(first(x, graph)), graph)))
        return self.leave(x, graph), x
