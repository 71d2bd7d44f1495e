"""What chairs stand on: legs with stretchers, swivel stars, pedestals, sleds and cantilevers."""

from __future__ import annotations

import dataclasses

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.parts import METAL, PLASTIC, RUBBER, Builder, Color, Dice, shade
from reconlab.datasets.synth.primitives import Array


@dataclasses.dataclass
class Frame:
    """Dimensions in metres that base, seat, back and arms share."""

    kind: str
    width: float
    depth: float
    height: float  # of the seat's top
    thick: float  # of the seat
    round_seat: bool
    frame: Color  # colour of legs and bars
    cover: Color  # colour of seat and back
    incline: float = 0.0  # degrees
    back_width: float = 0.0
    back_height: float = 0.0
    curve: float = 0.0  # how far the back's sides come forward
    rear: float = 0.0  # z of the back's foot

    def back_point(self, s: float, v: float) -> Array:
        """Point of the back's mid-surface: s in [-1, 1] across, v in metres up from the seat."""
        a = np.radians(self.incline)
        z = self.rear + v * np.sin(a) - self.curve * s * s
        return np.array([s * self.back_width / 2, self.height - 0.01 + v * np.cos(a), z])

    def back_normal(self) -> Array:
        """Unit vector across the back's middle."""
        a = np.radians(self.incline)
        return np.array([0.0, -np.sin(a), np.cos(a)])

    def back_up(self) -> Array:
        """Unit vector up along the back."""
        a = np.radians(self.incline)
        return np.array([0.0, np.cos(a), np.sin(a)])


def leg_solid(dice: Dice, style: str, size: float, top: Array, foot: Array) -> prim.Solid:
    """One leg from `top` to `foot`: round, round_tapered, square, turned or tapered."""
    if style == "round":
        return prim.cylinder(top, foot, size / 2, n=10)
    if style == "round_tapered":
        return prim.cylinder(top, foot, 0.6 * size, 0.3 * size, n=10)
    if style == "square":
        return prim.beam(top, foot, size, size, up=(0, 0, 1))
    if style == "turned":  # a profile with rings, as turned on a lathe
        u = np.array([0, 0.25, 0.28, 0.34, 0.37, 0.75, 0.80, 1.0])
        r = np.array([0.5, 0.5, 0.72, 0.72, 0.42, 0.6, 0.38, 0.42]) * size
        return prim.tube(top + u[:, None] * (foot - top), r, 10)
    return prim.beam(top, foot, size * 1.2, size * 1.2, 0.5, up=(0, 0, 1))


def legs(b: Builder, dice: Dice, f: Frame) -> None:
    """Three or four straight legs, with stretcher bars between four."""
    style = dice.pick({"round": 0.2, "square": 0.3, "tapered": 0.25, "round_tapered": 0.15, "turned": 0.1})
    count = 3 if f.kind == "three_leg" or (f.kind == "stool" and dice.chance(0.35)) else 4
    size = dice.number(0.026, 0.055)
    splay = dice.number(0.03, 0.12) if dice.chance(0.4) else 0.0
    y = f.height - 0.6 * f.thick
    if count == 3:
        angle = np.radians([-90.0, 30.0, 150.0])  # one leg in front
        tops = 0.36 * np.stack([np.cos(angle) * f.width, np.sin(angle) * f.depth], 1)
    else:
        inset = 0.36 if f.round_seat else 0.5
        margin = 0.0 if f.round_seat else size * dice.number(0.6, 1.1) + 0.3 * float(b.params.get("seat_corner", 0.0))
        x, z = inset * f.width - margin, inset * f.depth - margin
        taper = float(b.params.get("seat_taper", 1.0))
        tops = np.array([[-x, -z], [x, -z], [x * taper, z], [-x * taper, z]])
    out = tops / np.linalg.norm(tops, axis=1, keepdims=True)
    legs = []
    for i in range(count):
        top = np.array([tops[i, 0], y, tops[i, 1]])
        foot = np.array([tops[i, 0] + splay * out[i, 0], 0.0, tops[i, 1] + splay * out[i, 1]])
        legs.append((top, foot))
        b.add(f"leg_{i}", leg_solid(dice, style, size, top, foot), f.frame, "leg", top)
    b.params.update(legs=count, leg_style=style, splay=round(splay, 3))
    weights = {"none": 0.5, "H": 0.2, "box": 0.2, "sides": 0.1}
    if f.kind == "stool":
        weights = {"none": 0.25, "box": 0.75}
    stretcher = dice.pick(weights) if count == 4 or f.kind == "stool" else "none"
    if count == 3 and stretcher != "none":
        stretcher = "box"
    b.params["stretcher"] = stretcher
    if stretcher == "none":
        return
    thin = size * dice.number(0.45, 0.75)
    q = dice.number(0.35, 0.7)  # how far down the leg
    flat = dice.chance(0.4)

    def at(i: int, q: float) -> Array:
        return legs[i][0] + q * (legs[i][1] - legs[i][0])

    def bar(k: int, p: Array, r: Array) -> None:
        s = prim.beam(p, r, thin, thin * 1.3) if flat else prim.cylinder(p, r, thin / 2, n=8)
        b.add(f"bar_{k}", s, f.frame, "bar", p)

    if stretcher == "box":
        step = dice.number(-0.1, 0.1)
        for i in range(count):
            level = q + (step if i % 2 else 0.0)
            bar(i, at(i, level), at((i + 1) % count, level))
    else:
        bar(0, at(0, q), at(3, q))
        bar(1, at(1, q), at(2, q))
        if stretcher == "H":
            bar(2, (at(0, q) + at(3, q)) / 2, (at(1, q) + at(2, q)) / 2)


def swivel(b: Builder, dice: Dice, f: Frame) -> None:
    """Column on a star of beams with castors."""
    count = int(dice.pick({"5": 0.7, "4": 0.25, "6": 0.05}))
    color = dice.color(METAL)
    reach = dice.number(0.27, 0.34)
    hub = dice.number(0.07, 0.11)
    b.params.update(legs=count, leg_style="star", stretcher="none")
    low = f.height - f.thick
    b.add("column", prim.cylinder([0, low + 0.01, 0], [0, hub - 0.02, 0], 0.026, n=12), color, "column")
    b.add("hub", prim.cylinder([0, hub + 0.05, 0], [0, hub - 0.03, 0], 0.035, 0.045, n=12), color, "column")
    plate = 0.36 * f.width
    b.add("mount", prim.rounded_box([0, low - 0.012, 0], [plate, 0.035, plate], 0.008), shade(color, 0.6), "column")
    castor = dice.number(0.022, 0.032)
    for i in range(count):
        a = 2 * np.pi * (i + 0.5) / count - np.pi / 2
        d = np.array([np.cos(a), 0.0, np.sin(a)])
        start, end = np.array([0, hub, 0]), d * reach + [0, 2 * castor + 0.012, 0]
        b.add(f"leg_{i}", prim.beam(start, end, 0.05, 0.034, 0.65), color, "leg", start)
        side = np.cross(d, [0, 1, 0]) * castor * 0.8
        centre = end * [1, 0, 1] + [0, castor, 0]
        b.add(
            f"castor_{i}",
            prim.cylinder(centre - side, centre + side, castor, n=10),
            RUBBER,
            "castor",
            follows=f"leg_{i}",
        )
        b.add(f"pin_{i}", prim.cylinder(end, centre, 0.009, n=6), color, "castor", follows=f"leg_{i}")


def pedestal(b: Builder, dice: Dice, f: Frame) -> None:
    """One leg: a trumpet foot, or a column on a plate."""
    color = dice.color(METAL + PLASTIC)
    r = f.width * dice.number(0.42, 0.56)
    low = f.height - f.thick + 0.012
    b.params.update(legs=1, leg_style="pedestal", stretcher="none")
    if dice.chance(0.5):  # a trumpet foot, one piece
        u = np.linspace(0, 1, 9)
        y = low * u
        radius = 0.03 + (r - 0.03) * np.exp(-5.5 * u) + 0.05 * u**6
        profile = np.concatenate([[[0, 0]], np.stack([radius, y + 0.008 * (u > 0)], 1), [[0, low + 0.008]]])
        b.add("leg_0", prim.revolve(profile, 20), color, "leg")
    else:
        b.add("leg_0", prim.cylinder([0, low, 0], [0, 0.01, 0], dice.number(0.022, 0.04), n=12), color, "leg")
        square = dice.chance(0.35)
        outline = prim.rectangle(1.7 * r, 1.7 * r, 0.04, 3) if square else prim.circle(24) * r
        b.add("foot", prim.slab(outline, 0, dice.number(0.015, 0.03), 0.008), color, "foot")


def sled(b: Builder, dice: Dice, f: Frame) -> None:
    """Two closed side loops that run along the floor."""
    r = dice.number(0.009, 0.014)
    y = f.height - f.thick - 0.5 * r
    x = f.width / 2 - 2 * r
    z0, z1 = -0.46 * f.depth, 0.46 * f.depth
    lean = dice.number(0.0, 0.08)
    b.params.update(legs=2, leg_style="sled", stretcher="sled")
    c = 0.05
    for i, side in enumerate((-1, 1)):
        path = _rounded([[z0 + 0.12, y], [z0, y], [z0 - lean, r], [z1 + lean, r], [z1, y], [z1 - 0.12, y]], c)
        p = np.stack([np.full(len(path), side * x), path[:, 1], path[:, 0]], 1)
        b.add(f"leg_{i}", prim.tube(p, r, 8), f.frame, "leg", [side * x, y, 0], (0, -1, 0))
    for k, z in enumerate([z0 + 0.09, z1 - 0.09]):
        b.add(f"bar_{k}", prim.cylinder([-x, y, z], [x, y, z], r, n=8), f.frame, "bar")


def cantilever(b: Builder, dice: Dice, f: Frame) -> None:
    """Two C-shaped side tubes, open at the rear, joined on the floor."""
    r = dice.number(0.011, 0.016)
    y = f.height - f.thick - 0.5 * r
    x = f.width / 2 - 1.5 * r
    z0, z1 = -0.5 * f.depth, 0.48 * f.depth
    b.params.update(legs=2, leg_style="cantilever", stretcher="floor")
    c = dice.number(0.05, 0.09)
    for i, side in enumerate((-1, 1)):
        path = _rounded([[z1 - 0.04, y], [z0, y], [z0 + 0.01, r], [z1, r]], c)
        p = np.stack([np.full(len(path), side * x), path[:, 1], path[:, 0]], 1)
        b.add(f"leg_{i}", prim.tube(p, r, 8), f.frame, "leg", [side * x, y, z1], (0, -1, 0))
    b.add("bar_0", prim.cylinder([-x - r, r, z1], [x + r, r, z1], r, n=8), f.frame, "bar", follows="leg_0")
    b.add("bar_1", prim.cylinder([-x, y, 0], [x, y, 0], r, n=8), f.frame, "bar")


def _rounded(corners: list[list[float]], radius: float, steps: int = 4) -> Array:
    """Polyline (K, 2) with its inner corners replaced by quadratic arcs."""
    p = np.asarray(corners, float)
    out = [p[0]]
    for i in range(1, len(p) - 1):
        a, c = p[i - 1] - p[i], p[i + 1] - p[i]
        la, lc = float(np.linalg.norm(a)), float(np.linalg.norm(c))
        start, end = p[i] + a * min(radius / la, 0.45), p[i] + c * min(radius / lc, 0.45)
        for u in np.linspace(0, 1, steps):
            out.append((1 - u) ** 2 * start + 2 * u * (1 - u) * p[i] + u * u * end)
    out.append(p[-1])
    return np.array(out)
