"""Shape layers (Matryoshka Networks, Richter and Roth, CVPR 2018): voxels as nested sets of six depth maps.

A layer holds, for each of the three axes, the first (near) and the last (far) occupied cell of every line of cells
along it, counted from 1; an empty line has near = S + 2 and far = 0. It decodes to the cells that lie between near
and far on all three axes: the smallest set of this kind around the shape, its *hull*. Nested layers alternately add
and remove: layer 1 encodes the shape, layer 2 what layer 1 has too much, layer 3 what is then missing, and so on.
With V the shape and V_n the first n layers decoded, ``V_2 ⊆ V_4 ⊆ … ⊆ V ⊆ … ⊆ V_3 ⊆ V_1``.

Maps are ``(…, 6, S, S)``, ordered near x, far x, near y, far y, near z, far z, over (y, z), (x, z) and (x, y).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.errors import ReconlabError

CORE, REACH = 0.5, 0.1


def encode_layer(grid: Tensor) -> Tensor:
    """One layer of bool grids: ``(B, S, S, S)`` to ``(B, 6, S, S)`` int16."""
    side = grid.shape[-1]
    maps = []
    for axis in (1, 2, 3):
        index = _index(side, axis, torch.int16, grid.device)
        maps += [torch.where(grid, index, side + 2).amin(axis), torch.where(grid, index, 0).amax(axis)]
    return torch.stack(maps, 1).to(torch.int16)


def decode_layer(layer: Tensor) -> Tensor:
    """The cells of one layer: ``(B, 6, S, S)`` to ``(B, S, S, S)`` bool.

    Cell i is occupied where ``near - 0.5 <= i <= far + 0.5`` on all axes: maps are rounded. (The released code cuts
    decimals off, which grows a shape by half a cell at near faces and shrinks it as much at far ones.)
    """
    inside = torch.ones(1, dtype=torch.bool, device=layer.device)
    for axis, near, far, index in _slabs(layer.float()):
        inside = inside & (near.unsqueeze(axis) <= index + 0.5) & (index - 0.5 <= far.unsqueeze(axis))
    return inside


def encode(grid: Tensor, layers: int = 1) -> Tensor:
    """Nested layers of grids.

    Args:
        grid: ``(B, S, S, S)``, occupied where True or at least 0.5.
        layers: ``L``. Odd ones decode to a set around the shape, even ones to one inside it.

    Returns:
        ``(B, L, 6, S, S)`` int16.

    Raises:
        ReconlabError: The grid is not a cube, or fewer than one layer is wanted.

    Example:
        >>> grid = torch.zeros(1, 4, 4, 4)
        >>> grid[0, 1:3, 1:3, 1:3] = 1
        >>> bool((decode(encode(grid)) == (grid > 0)).all())
        True
    """
    if grid.ndim != 4 or len(set(grid.shape[1:])) != 1 or grid.shape[1] == 0:
        raise ReconlabError(f"shape layers: the grid has shape {tuple(grid.shape)}; expected (B, S, S, S).")
    if layers < 1:
        raise ReconlabError(f"shape layers: layers is {layers}; expected at least 1.")
    wanted = grid if grid.dtype == torch.bool else grid >= 0.5
    decoded = torch.zeros_like(wanted)
    out = []
    for i in range(layers):
        layer = encode_layer(decoded & ~wanted if i % 2 else wanted & ~decoded)
        decoded = _nest(decoded, decode_layer(layer), i)
        out.append(layer)
    return torch.stack(out, 1)


def decode(layers: Tensor) -> Tensor:
    """Nested layers ``(B, L, 6, S, S)``, fused and carved in turn, to ``(B, S, S, S)`` bool."""
    side = layers.shape[-1]
    decoded = torch.zeros(layers.shape[0], side, side, side, dtype=torch.bool, device=layers.device)
    for i in range(layers.shape[1]):
        decoded = _nest(decoded, decode_layer(layers[:, i]), i)
    return decoded


def _nest(decoded: Tensor, layer: Tensor, i: int) -> Tensor:
    return decoded & ~layer if i % 2 else decoded | layer


def to_depths(layers: Tensor) -> Tensor:
    """Layers in the form that is learned: ``(…, 6, S, S)``, float, background 0, the shape at positive depth.

    Near maps are reflected, ``S + 2 - near``, and both x maps transposed, so that structures lie alike in all six.
    """
    depths = layers.float() if not layers.is_floating_point() else layers
    reflected = layers.shape[-1] + 2 - depths[..., ::2, :, :]
    depths = torch.stack([reflected, depths[..., 1::2, :, :]], -3).flatten(-4, -3)
    return torch.cat([depths[..., :2, :, :].transpose(-1, -2), depths[..., 2:, :, :]], -3)


def from_depths(depths: Tensor) -> Tensor:
    """The inverse of :func:`to_depths` (which is its own inverse). Differentiable."""
    return to_depths(depths)


def soft_log_odds(layers: Tensor, temperature: float) -> Tensor:
    """Log-odds of being occupied, differentiable in the maps: ``(B, L, 6, S, S)`` to ``(B, S, S, S)``.

    One layer is the product over the axes of ``σ((i + 0.5 - near) / T) σ((far + 0.5 - i) / T)``; layers nest as
    ``o (1 - o')`` where they remove and ``1 - (1 - o)(1 - o')`` where they add (the released code adds up, the same
    where they do not overlap). All of it is computed on log-odds, which neither saturate nor overflow.

    On integer maps its sign is that of :func:`decode`, if T is at most 0.23 for one layer, 0.15 for up to twelve.

    Args:
        layers: As :func:`encode` gives, but real numbers.
        temperature: ``T``, in cells.
    """
    total: Tensor | None = None
    for i in range(layers.shape[1]):
        layer: Tensor | None = None
        for axis, near, far, index in _slabs(layers[:, i] / temperature, 1 / temperature):
            half = 0.5 / temperature
            slab = _both(index + half - near.unsqueeze(axis), far.unsqueeze(axis) + half - index)
            layer = slab if layer is None else _both(layer, slab)
        assert layer is not None  # noqa: S101 - for the type checker
        total = layer if total is None else _both(total, -layer) if i % 2 else -_both(-total, -layer)
    if total is None:
        raise ReconlabError(f"shape layers: there is no layer in {tuple(layers.shape)}; expected (B, L, 6, S, S).")
    return total


def surface_logits(layers: Tensor, temperature: float) -> Tensor:
    """:func:`soft_log_odds` times T, compressed so that a surface can be interpolated on it: ``(B, S, S, S)``.

    In units of cells: within half a cell of a face the distance to it, beyond it grows like a logarithm,
    ``0.5 + 0.1 log(1 + 10 (|u| - 0.5))``. Without this the cells beside a shape, which lie in empty lines of two
    axes, would have log-odds of some hundreds against 3 inside, the surface would pass through the centres of the
    shape's last cells (half a cell too small) and the maps that form a face would have a thirtieth of their slope.
    """
    u = soft_log_odds(layers, temperature) * temperature
    beyond = (u.abs() - CORE).clamp_min(0)
    return torch.where(beyond > 0, u.sign() * (CORE + REACH * torch.log1p(beyond / REACH)), u)


def _both(a: Tensor, b: Tensor) -> Tensor:
    """Log-odds of the product of two probabilities: ``1 / (p q) - 1 = e^-a + e^-b + e^-(a + b)``."""
    return -torch.logaddexp(torch.logaddexp(-a, -b), -(a + b))


def _index(side: int, axis: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    shape = [1, 1, 1, 1]
    shape[axis] = side
    return torch.arange(1, side + 1, dtype=dtype, device=device).reshape(shape)


def _slabs(layer: Tensor, unit: float = 1.0) -> list[tuple[int, Tensor, Tensor, Tensor]]:
    """Axis, near, far and the cells' numbers times ``unit`` along it, of a floating-point layer."""
    side = layer.shape[-1]
    return [
        (axis, layer[:, 2 * axis - 2], layer[:, 2 * axis - 1], unit * _index(side, axis, layer.dtype, layer.device))
        for axis in (1, 2, 3)
    ]
