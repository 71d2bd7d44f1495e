"""Graph convolutions against dense matrices; subdivision inside the layer; derivatives; renumbering."""

import pytest
import torch

from reconlab.networks.graph import Graph, GraphBlock, GraphConv
from reconlab.shapes.connectivity import connectivity
from reconlab.shapes.ellipsoid import ellipsoid, insert_midpoints, subdivide


def graph_of(faces: torch.Tensor, count: int) -> Graph:
    return Graph(connectivity(faces, count), torch.zeros((), dtype=torch.float64))


def dense(faces: torch.Tensor, count: int) -> torch.Tensor:
    adjacency = torch.zeros(count, count, dtype=torch.float64)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        adjacency[faces[:, i], faces[:, j]] = 1
        adjacency[faces[:, j], faces[:, i]] = 1
    root = adjacency.sum(1).clamp_min(1).rsqrt()
    return root[:, None] * adjacency * root


@pytest.fixture
def layer() -> GraphConv:
    torch.manual_seed(0)
    layer = GraphConv(5, 4).double()
    torch.nn.init.normal_(layer.bias)
    return layer


def test_it_is_the_dense_formula(layer):
    _, faces = ellipsoid(vertices=20)
    x = torch.randn(20, 3, 5, dtype=torch.float64)
    matrix = dense(faces, 20)
    for b in range(3):
        expected = matrix @ (x[:, b] @ layer.weight) + x[:, b] @ layer.loop + layer.bias
        torch.testing.assert_close(layer(x, graph_of(faces, 20))[:, b], expected)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 5 * 4 + 4


def test_an_unused_vertex_sees_itself_alone(layer):
    faces = torch.tensor([[0, 1, 2]])
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    out = layer(x, graph_of(faces, 4))
    torch.testing.assert_close(out[3], x[3] @ layer.loop + layer.bias)


def test_subdividing_after_the_product_is_subdividing_before(layer):
    _, faces = ellipsoid(vertices=12)
    finer, ends = subdivide(faces, 12)
    x = torch.randn(12, 2, 5, dtype=torch.float64)
    graph = graph_of(finer, 12 + len(ends))
    torch.testing.assert_close(layer(x, graph, ends), layer(insert_midpoints(x, ends), graph))


def test_gradients_are_the_derivatives(layer):
    _, faces = ellipsoid(vertices=6)
    finer, ends = subdivide(faces, 6)
    graph = graph_of(finer, 6 + len(ends))
    x = torch.randn(6, 2, 5, dtype=torch.float64, requires_grad=True)
    parameters = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())

    def run(x, weight, loop, bias):
        named = {"weight": weight, "loop": loop, "bias": bias}
        return torch.func.functional_call(layer, named, (x, graph, ends))

    assert torch.autograd.gradcheck(run, (x, *parameters))


def test_renumbered_vertices_give_renumbered_values():
    torch.manual_seed(0)
    block = GraphBlock(5, 8, 3, depth=2).double()
    _, faces = ellipsoid(vertices=20)
    x = torch.randn(20, 2, 5, dtype=torch.float64)
    order = torch.randperm(20)
    new = torch.empty_like(order)
    new[order] = torch.arange(20)
    for here, there in zip(block(x, graph_of(faces, 20)), block(x[order], graph_of(new[faces], 20)), strict=True):
        torch.testing.assert_close(here[order], there)


def test_a_pair_is_averaged_with_its_input():
    torch.manual_seed(0)
    block = GraphBlock(5, 8, 3, depth=1).double()
    _, faces = ellipsoid(vertices=12)
    graph = graph_of(faces, 12)
    x = torch.randn(12, 1, 5, dtype=torch.float64)
    first, second = block.first[0], block.second[0]
    entered = block.enter(x, graph).relu()
    hidden = (entered + second(first(entered, graph).relu(), graph).relu()) / 2
    out, last = block(x, graph)
    torch.testing.assert_close(last, hidden)
    torch.testing.assert_close(out, block.leave(hidden, graph))
