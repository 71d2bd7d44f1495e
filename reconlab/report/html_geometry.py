"""Shapes for the HTML report: simplified to a cap, quantised to 16 bits, as text that the page's viewer decodes."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

STEPS = 65535
"""Of the bounding box along each axis: 1/65535 of it is the largest rounding."""


def encode(vertices: np.ndarray, faces: np.ndarray | None, cap: int) -> dict[str, Any]:
    """A mesh or a cloud as JSON.

    Args:
        vertices: ``(V, 3)``, finite.
        faces: ``(F, 3)`` integers, or None for a cloud.
        cap: Most faces (or points) kept; above it the shape is simplified for display.

    Returns:
        ``{"kind": "mesh"|"points", "low": [3], "size": [3], "v": base64 of (V, 3) uint16, "f": base64 of (F, 3)
        uint16 or uint32, "wide": whether the latter, "count": faces (or points) of the original, "shown": here}``;
        a vertex is ``low + v / 65535 * size``.
    """
    vertices = np.asarray(vertices, np.float64)
    count = len(vertices) if faces is None else len(faces)
    if faces is None and count > cap:
        keep = np.sort(np.random.default_rng(0).permutation(count)[:cap])
        vertices = vertices[keep]
    elif faces is not None and count > cap:
        vertices, faces = simplify(vertices, faces, cap)
    low = vertices.min(0)
    size = np.maximum(vertices.max(0) - low, 1e-12)
    steps = np.rint((vertices - low) / size * STEPS).astype("<u2")
    out: dict[str, Any] = {
        "kind": "points" if faces is None else "mesh",
        "low": [float(f"{x:.7g}") for x in low],
        "size": [float(f"{x:.7g}") for x in size],
        "v": _text(steps),
        "count": count,
        "shown": len(vertices) if faces is None else len(faces),
    }
    if faces is not None:
        wide = len(vertices) > STEPS + 1
        out |= {"f": _text(np.asarray(faces).astype("<u4" if wide else "<u2")), "wide": wide}
    return out


def decode(shape: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """What the page's viewer makes of :func:`encode`'s result: ``(V, 3)`` float64 and ``(F, 3)`` int64 or None."""
    steps = np.frombuffer(base64.b64decode(shape["v"]), "<u2").reshape(-1, 3)
    vertices = np.array(shape["low"]) + steps / STEPS * np.array(shape["size"])
    if shape["kind"] == "points":
        return vertices, None
    kind = "<u4" if shape["wide"] else "<u2"
    return vertices, np.frombuffer(base64.b64decode(shape["f"]), kind).reshape(-1, 3).astype(np.int64)


def simplify(vertices: np.ndarray, faces: np.ndarray, cap: int) -> tuple[np.ndarray, np.ndarray]:
    """Fewer faces by merging the vertices of each cell of a grid into their mean; for display only.

    The finest of up to 2048 cells along the longest side that leaves at most ``cap`` faces is found by bisection.
    """
    low, high = 1, 2048
    best = _clustered(vertices, faces, 1)
    while low <= high:
        middle = (low + high) // 2
        tried = _clustered(vertices, faces, middle)
        if len(tried[1]) <= cap:
            best, low = tried, middle + 1
        else:
            high = middle - 1
    return best


def _clustered(vertices: np.ndarray, faces: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    corner = vertices.min(0)
    side = max(float((vertices.max(0) - corner).max()), 1e-12) / cells
    place = np.minimum((vertices - corner) // side, cells).astype(np.int64)
    key = (place[:, 0] * (cells + 1) + place[:, 1]) * (cells + 1) + place[:, 2]
    _, index = np.unique(key, return_inverse=True)
    count = np.bincount(index)
    merged = np.stack([np.bincount(index, vertices[:, k]) / count for k in range(3)], 1)
    moved = index[faces]
    whole = (moved[:, 0] != moved[:, 1]) & (moved[:, 1] != moved[:, 2]) & (moved[:, 0] != moved[:, 2])
    moved = moved[whole]
    _, first = np.unique(np.sort(moved, 1), axis=0, return_index=True)
    moved = moved[np.sort(first)]
    if len(moved) == 0:
        return merged, moved
    used, renumbered = np.unique(moved, return_inverse=True)
    return merged[used], renumbered.reshape(-1, 3)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
