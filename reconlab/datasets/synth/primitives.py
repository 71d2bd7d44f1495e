"""Closed, outward-oriented solids: lofts, revolutions, tubes, ribbons, aerofoils.

Everything is one construction, `loft`: rings of equally many points joined by quads (two triangles each) and
closed by caps. A solid carries, besides vertices and faces, the `core` point of every vertex (the centre of
its cross-section, or its place on the mid-surface of a plate), which is what lets an edit thicken or lengthen a
part without knowing how it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reconlab.datasets.synth.triangulate import Array, Index, cap, cross


class Solid(NamedTuple):
    """A closed triangle mesh with a core point per vertex.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        core: (V, 3) float64, skeleton or mid-surface point of every vertex.
    """

    vertices: Array
    faces: Index
    core: Array

    def moved(self, offset: ArrayLike) -> Solid:
        """Shift by `offset` (3,)."""
        o = np.asarray(offset, float)
        return Solid(self.vertices + o, self.faces, self.core + o)

    def transformed(self, matrix: ArrayLike, about: ArrayLike = (0.0, 0.0, 0.0)) -> Solid:
        """Apply a 3x3 `matrix` about the point `about`; a reflection keeps the faces outward."""
        m, c = np.asarray(matrix, float), np.asarray(about, float)
        faces = self.faces if np.linalg.det(m) > 0 else self.faces[:, ::-1]
        return Solid((self.vertices - c) @ m.T + c, np.ascontiguousarray(faces), (self.core - c) @ m.T + c)

    def mirrored(self) -> Solid:
        """Mirror image at the plane x = 0."""
        return self.transformed(np.diag([-1.0, 1.0, 1.0]))


def signed_volume(vertices: Array, faces: Index) -> float:
    """Enclosed volume; positive when the faces look outward (divergence theorem)."""
    t = (vertices - vertices.mean(0))[faces]
    return float(np.einsum("ij,ij->", t[:, 0], cross(t[:, 1], t[:, 2])) / 6.0)


def rotation(axis: ArrayLike, degrees: float) -> Array:
    """Rotation matrix (3, 3) about `axis`, right-handed (Rodrigues)."""
    k = unit(axis)
    a = np.radians(degrees)
    K = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    return np.eye(3) + np.sin(a) * K + (1 - np.cos(a)) * (K @ K)


def unit(vector: ArrayLike) -> Array:
    """Scale the last axis to length 1."""
    v = np.asarray(vector, float)
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def loft(rings: ArrayLike, closed: bool = False, core: ArrayLike | None = None) -> Solid:
    """Join rings of points into a closed solid.

    Args:
        rings: (R, K, 3). The first or the last ring may be one point repeated (an apex).
        closed: join the last ring to the first (a torus) instead of capping both ends.
        core: (R, K, 3) core points; default: each ring's centroid.

    Returns:
        The solid, outward whatever the sense in which the rings turn.
    """
    r = np.asarray(rings, float)
    count, k = r.shape[:2]
    c = np.broadcast_to(r.mean(1, keepdims=True), r.shape) if core is None else np.asarray(core, float)
    apex = [np.ptp(r[i], axis=0).max() < 1e-12 and not closed for i in range(count)]
    points: list[Array] = []
    cores: list[Array] = []
    start: list[int] = []
    total = 0
    for i in range(count):
        start.append(total)
        points.append(r[i, :1] if apex[i] else r[i])
        cores.append(c[i, :1] if apex[i] else c[i])
        total += len(points[-1])
    j = np.arange(k)
    faces: list[Index] = []
    for i in range(count if closed else count - 1):
        h = (i + 1) % count
        a = start[i] + (j * 0 if apex[i] else j)
        b = start[i] + (j * 0 if apex[i] else (j + 1) % k)
        d = start[h] + (j * 0 if apex[h] else j)
        e = start[h] + (j * 0 if apex[h] else (j + 1) % k)
        if not apex[i]:
            faces.append(np.stack([a, b, e], 1))
        if not apex[h]:
            faces.append(np.stack([a, e, d], 1))
    if not closed:
        if not apex[0]:  # the side walls run along +j on ring 0, hence the cap runs against it
            faces.append(start[0] + cap(r[0])[:, ::-1])
        if not apex[-1]:
            faces.append(start[-1] + cap(r[-1]))
    v = np.concatenate(points)
    f = np.concatenate(faces).astype(np.int64)
    if signed_volume(v, f) < 0:
        f = np.ascontiguousarray(f[:, ::-1])
    return Solid(v, f, np.concatenate(cores))


def circle(n: int, phase: float = 0.0) -> Array:
    """(n, 2) points of the unit circle; `phase` in steps (0.5 turns a square's flat side outward)."""
    a = 2 * np.pi * (np.arange(n) + phase) / n
    return np.stack([np.cos(a), np.sin(a)], 1)


def revolve(profile: ArrayLike, n: int = 16, closed: bool = False) -> Solid:
    """Turn a profile about the y axis.

    Args:
        profile: (K, 2) of (radius >= 0, y). Open: runs from end to end, radius 0 only at the ends.
            Closed: a loop with radius > 0 throughout (a shell or a torus).
        n: corners of the circle.
        closed: whether the profile is a loop.

    Returns:
        The solid; its core is the axis (open) or the profile loop's centre line (closed).
    """
    p = np.asarray(profile, float)
    c = circle(n)
    rings = np.stack([p[:, :1] * c[:, 0], np.broadcast_to(p[:, 1:], (len(p), n)), p[:, :1] * c[:, 1]], axis=-1)
    if not closed:
        return loft(rings)
    mid = p.mean(0)
    core = np.stack([mid[0] * c[:, 0], np.full(n, mid[1]), mid[0] * c[:, 1]], axis=-1)
    return loft(rings, closed=True, core=np.broadcast_to(core, rings.shape))


def shell(profile: ArrayLike, thickness: float, n: int = 20) -> Solid:
    """Thin open shell of revolution: `profile` (K, 2) of outer (radius, y), thickened towards the axis."""
    p = np.asarray(profile, float)
    inner = np.stack([np.maximum(p[:, 0] - thickness, 0.25 * p[:, 0]), p[:, 1]], 1)[::-1]
    s = revolve(np.concatenate([p, inner]), n, closed=True)
    mid = 0.5 * (p + inner[::-1])
    both = np.concatenate([mid, mid[::-1]])
    c = circle(n)
    core = np.stack([both[:, :1] * c[:, 0], np.broadcast_to(both[:, 1:], (len(both), n)), both[:, :1] * c[:, 1]], -1)
    return s._replace(core=core.reshape(-1, 3))


def tube(
    path: ArrayLike,
    radius: float | Sequence[float] | Array,
    n: int = 8,
    section: ArrayLike | None = None,
    up: ArrayLike | None = None,
) -> Solid:
    """Sweep a section along a polyline, with mitred joints.

    Args:
        path: (K, 3) corners, K >= 2, consecutive ones distinct and not doubling back.
        radius: scale of the section, one number or one per corner (0 at an end makes a cone).
        n: corners of a round section.
        section: (n, 2) unit section in (side, up) coordinates instead of a circle.
        up: (3,) direction that the section's second axis follows at the start; any by default.

    Returns:
        The solid, with the path as its core.
    """
    p = np.asarray(path, float)
    r = np.broadcast_to(np.asarray(radius, float), (len(p),))
    s = circle(n, 0.5) if section is None else np.asarray(section, float)
    d = unit(np.diff(p, axis=0))
    hint = np.asarray(up, float) if up is not None else np.eye(3)[np.argmin(np.abs(d[0]))]
    v = unit(hint - d[0] * (hint @ d[0]))
    rings = []
    for i in range(len(p)):
        before, after = d[max(i - 1, 0)], d[min(i, len(d) - 1)]
        plane = unit(before + after)
        w = cross(v, before)
        offset = r[i] * (s[:, :1] * w + s[:, 1:] * v)
        offset = offset - np.outer(offset @ plane, before) / (before @ plane)  # slide into the mitre plane
        rings.append(p[i] + offset)
        v = _transport(v, before, after)
    return loft(np.array(rings), core=np.broadcast_to(p[:, None], (len(p), len(s), 3)))


def _transport(v: Array, a: Array, b: Array) -> Array:
    """Rotate v by the smallest rotation that takes direction a to b."""
    axis = cross(a, b)
    s = float(np.linalg.norm(axis))
    if s < 1e-12:
        return v
    return rotation(axis, float(np.degrees(np.arctan2(s, float(a @ b))))) @ v


def cylinder(a: ArrayLike, b: ArrayLike, ra: float, rb: float | None = None, n: int = 12) -> Solid:
    """Cylinder, frustum or cone from `a` (radius ra) to `b` (radius rb, default ra; 0 for a cone)."""
    return tube(np.array([a, b], float), np.array([ra, ra if rb is None else rb]), n)


def beam(
    a: ArrayLike, b: ArrayLike, width: float, height: float, taper: float = 1.0, up: ArrayLike = (0.0, 1.0, 0.0)
) -> Solid:
    """Rectangular bar from `a` to `b`: full `width` and `height` (along `up`); `taper` scales the end at b."""
    d = unit(np.asarray(b, float) - np.asarray(a, float))
    if abs(float(d @ unit(up))) > 0.95:
        up = (0.0, 0.0, 1.0) if abs(d[2]) < 0.9 else (1.0, 0.0, 0.0)
    section = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    return tube(np.array([a, b], float), np.array([1.0, taper]), section=section, up=up)


def hexahedron(bottom: ArrayLike, top: ArrayLike) -> Solid:
    """Solid between two quads (4, 3) with corresponding corners; the core is the middle of both."""
    rings = np.stack([np.asarray(bottom, float), np.asarray(top, float)])
    return loft(rings, core=np.broadcast_to(rings.mean(0), rings.shape))


def plate(quad: ArrayLike, thickness: float) -> Solid:
    """Flat plate with mid-surface `quad` (4, 3), `thickness` across it."""
    q = np.asarray(quad, float)
    n = unit(cross(q[2] - q[0], q[3] - q[1])) * thickness / 2
    return hexahedron(q - n, q + n)


def box(low: ArrayLike, high: ArrayLike) -> Solid:
    """Axis-aligned box.

    >>> s = box([0, 0, 0], [1, 2, 3])
    >>> round(signed_volume(s.vertices, s.faces), 9)
    6.0
    """
    lo, hi = np.asarray(low, float), np.asarray(high, float)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    xz = lo[[0, 2]] + corners * (hi - lo)[[0, 2]]
    return slab(xz, lo[1], hi[1])


def rectangle(width: float, depth: float, corner: float = 0.0, steps: int = 3) -> Array:
    """Centred rectangle outline (K, 2), with corners rounded by radius `corner` in `steps` points each."""
    w, d = width / 2, depth / 2
    if corner <= 0:
        return np.array([[-w, -d], [w, -d], [w, d], [-w, d]])
    c = min(corner, 0.98 * w, 0.98 * d)
    a = np.linspace(0, np.pi / 2, max(steps, 2))
    arc = c * np.stack([np.cos(a), np.sin(a)], 1)
    out = []
    for k, (sx, sz) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        turn = np.array([[0, -1], [1, 0]])
        out.append(arc @ np.linalg.matrix_power(turn, k).T + [sx * (w - c), sz * (d - c)])
    return np.concatenate(out)


def slab(outline: ArrayLike, low: float, high: float, bevel: float = 0.0, steps: int = 1) -> Solid:
    """Horizontal slab: `outline` (K, 2) in (x, z) from y = low to high, its edges rounded by `bevel`.

    The outline may be non-convex when `bevel` is 0. The core is the mid-plane.
    """
    o = np.asarray(outline, float)
    centre = (o.min(0) + o.max(0)) / 2
    half = (o.max(0) - o.min(0)) / 2
    bevel = min(bevel, 0.49 * (high - low), 0.8 * float(half.min()))
    if bevel <= 0:
        levels, insets = np.array([low, high]), np.zeros(2)
    else:
        a = np.linspace(0, np.pi / 2, steps + 1)
        inset, rise = bevel * (1 - np.sin(a)), bevel * (1 - np.cos(a))
        levels = np.concatenate([low + rise, (high - rise)[::-1]])
        insets = np.concatenate([inset, inset[::-1]])
    rings = []
    for y, i in zip(levels, insets, strict=True):
        q = centre + (o - centre) * (1 - i / half)
        rings.append(np.stack([q[:, 0], np.full(len(q), y), q[:, 1]], 1))
    r = np.array(rings)
    core = r.copy()
    core[..., 1] = (low + high) / 2
    return loft(r, core=core)


def rounded_box(centre: ArrayLike, size: ArrayLike, bevel: float, steps: int = 1) -> Solid:
    """Box of full `size` (3,) whose edges and corners are bevelled by `bevel` (rounder with more steps)."""
    c, s = np.asarray(centre, float), np.asarray(size, float)
    outline = rectangle(s[0], s[2], bevel, steps + 1) + c[[0, 2]]
    return slab(outline, c[1] - s[1] / 2, c[1] + s[1] / 2, bevel, steps)


def ellipsoid(centre: ArrayLike, radii: ArrayLike, n: int = 14, m: int = 8) -> Solid:
    """Ellipsoid with `n` meridians and `m` parallels between the poles (plus the poles)."""
    a = np.linspace(-np.pi / 2, np.pi / 2, m + 2)
    p = np.stack([np.cos(a), np.sin(a)], 1)
    p[[0, -1], 0] = 0.0
    return revolve(p, n).transformed(np.diag(np.asarray(radii, float))).moved(centre)


def ribbon(path: ArrayLike, up: ArrayLike, out: ArrayLike, plate_like: bool = False) -> Solid:
    """Rectangular section that may change along a path.

    Args:
        path: (K, 3) section centres.
        up: (K, 3) or (3,) half-height vectors.
        out: (K, 3) or (3,) half-thickness vectors.
        plate_like: the core is the mid-surface (thickening changes the thickness only), not the path.
    """
    p = np.asarray(path, float)
    u, o = np.broadcast_to(up, p.shape), np.broadcast_to(out, p.shape)
    rings = np.stack([p - u - o, p + u - o, p + u + o, p - u + o], axis=1)
    mid = np.stack([p - u, p + u, p + u, p - u], axis=1)
    return loft(rings, core=mid if plate_like else np.broadcast_to(p[:, None], rings.shape))


def aerofoil(leading: ArrayLike, chord: ArrayLike, thickness: ArrayLike, normal: ArrayLike, n: int = 5) -> Solid:
    """Wing lofted through symmetrical four-digit NACA sections with chords along +z.

    Args:
        leading: (S, 3) leading-edge points from root to tip.
        chord: (S,) lengths.
        thickness: (S,) or scalar, fraction of the chord.
        normal: (S, 3) or (3,) thickness direction.
        n: points on each side between the two edges.
    """
    le = np.asarray(leading, float)
    c = np.broadcast_to(np.asarray(chord, float), (len(le),))
    t = np.broadcast_to(np.asarray(thickness, float), (len(le),))
    nv = unit(np.broadcast_to(normal, le.shape))
    x = 0.5 * (1 - np.cos(np.pi * np.linspace(0, 1, n + 2)))
    y = 5 * (0.2969 * np.sqrt(x) - 0.1260 * x - 0.3516 * x**2 + 0.2843 * x**3 - 0.1015 * x**4)
    u = np.concatenate([x, x[:0:-1]])
    h = np.concatenate([y, -y[:0:-1]])  # the open trailing edge (y > 0 at x = 1) becomes a blunt one
    z = np.array([0.0, 0.0, 1.0])
    core = le[:, None] + (c[:, None] * u)[..., None] * z
    return loft(core + (c[:, None] * t[:, None] * h)[..., None] * nv[:, None], core=core)
