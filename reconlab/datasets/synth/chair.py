"""Procedural chairs: bases, seats, backs and arms, combined with the frequencies of furniture collections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.parts import FABRIC, METAL, PLASTIC, RUBBER, WOOD, Builder, Color, Dice, shade
from reconlab.datasets.synth.primitives import Array

KINDS = {
    "four_leg": 0.50, "swivel": 0.14, "club": 0.09, "pedestal": 0.07, "sled": 0.06, "cantilever": 0.06,
    "three_leg": 0.03, "stool": 0.05,
}  # fmt: skip


@dataclasses.dataclass
class _Frame:
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


def build(b: Builder, dice: Dice) -> None:
    """Add the parts of one chair to the builder (metres, floor at y = 0)."""
    kind = dice.pick(KINDS)
    wooden = dice.chance(0.6)
    frame = dice.color(WOOD if wooden else METAL)
    covers = {"wood": 0.35, "fabric": 0.4, "plastic": 0.25}
    cover = dice.color({"wood": WOOD, "fabric": FABRIC, "plastic": PLASTIC}[dice.pick(covers)])
    width = dice.number(0.40, 0.54)
    f = _Frame(
        kind=kind,
        width=width,
        depth=width * dice.number(0.88, 1.08),
        height=dice.number(0.42, 0.50),
        thick=dice.number(0.02, 0.07),
        round_seat=False,
        frame=frame,
        cover=cover,
    )
    b.params["kind"] = kind
    if kind == "club":
        _club(b, dice, f)
        return
    if kind == "stool":
        f.height = dice.number(0.42, 0.78)
        f.width = f.depth = dice.number(0.30, 0.42)
    _seat(b, dice, f)
    base: dict[str, Callable[[Builder, Dice, _Frame], None]] = {
        "swivel": _swivel,
        "pedestal": _pedestal,
        "sled": _sled,
        "cantilever": _cantilever,
    }
    base.get(kind, _legs)(b, dice, f)
    if kind == "stool":
        b.params.update(back="none", arms="none")
        return
    _back(b, dice, f)
    _arms(b, dice, f)


def _seat(b: Builder, dice: Dice, f: _Frame) -> None:
    weights = {"square": 0.55, "round": 0.15, "cushion": 0.3}
    if f.kind in ("three_leg", "stool"):
        weights = {"square": 0.3, "round": 0.6, "cushion": 0.1}
    if f.kind in ("sled", "cantilever"):
        weights = {"square": 0.7, "cushion": 0.3}
    style = dice.pick(weights)
    b.params["seat"] = style
    f.round_seat = style == "round"
    low, top = f.height - f.thick, f.height
    if f.round_seat:
        f.depth = f.width
        outline = prim.circle(20) * f.width / 2
    else:
        outline = prim.rectangle(f.width, f.depth, dice.number(0.0, 0.10), 3)
        rear_taper = dice.number(0.8, 1.0) if dice.chance(0.5) and f.kind == "four_leg" else 1.0
        outline = outline * np.stack(
            [np.interp(outline[:, 1], [-f.depth / 2, f.depth / 2], [1, rear_taper]), np.ones(len(outline))], 1
        )
        b.params["seat_taper"] = round(rear_taper, 3)
    if style == "cushion":
        board = min(f.thick, 0.03)
        b.add("seat", prim.slab(outline, top - board, top, 0.004), f.frame, "seat", [0, top, 0])
        puff = dice.number(0.03, 0.08)
        b.add("cushion", prim.slab(outline * 0.96, top - 0.005, top + puff, 0.45 * puff, 2), f.cover, "seat")
        f.thick = board
    else:
        bevel = dice.number(0.1, 0.5) * f.thick
        b.add("seat", prim.slab(outline, low, top, bevel, 2), f.cover, "seat", [0, top, 0])


def _leg(dice: Dice, style: str, size: float, top: Array, foot: Array) -> prim.Solid:
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


def _legs(b: Builder, dice: Dice, f: _Frame) -> None:
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
        margin = 0.0 if f.round_seat else size * dice.number(0.6, 1.1)
        x, z = inset * f.width - margin, inset * f.depth - margin
        taper = float(b.params.get("seat_taper", 1.0))
        tops = np.array([[-x, -z], [x, -z], [x * taper, z], [-x * taper, z]])
    out = tops / np.linalg.norm(tops, axis=1, keepdims=True)
    legs = []
    for i in range(count):
        top = np.array([tops[i, 0], y, tops[i, 1]])
        foot = np.array([tops[i, 0] + splay * out[i, 0], 0.0, tops[i, 1] + splay * out[i, 1]])
        legs.append((top, foot))
        b.add(f"leg_{i}", _leg(dice, style, size, top, foot), f.frame, "leg", top)
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


def _swivel(b: Builder, dice: Dice, f: _Frame) -> None:
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
        b.add(f"castor_{i}", prim.cylinder(centre - side, centre + side, castor, n=10), RUBBER, "castor")
        b.add(f"pin_{i}", prim.cylinder(end, centre, 0.009, n=6), color, "castor")


def _pedestal(b: Builder, dice: Dice, f: _Frame) -> None:
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


def _sled(b: Builder, dice: Dice, f: _Frame) -> None:
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
        b.add(f"leg_{i}", prim.tube(p, r, 8), f.frame, "leg", [side * x, y, 0])
    for k, z in enumerate([z0 + 0.09, z1 - 0.09]):
        b.add(f"bar_{k}", prim.cylinder([-x, y, z], [x, y, z], r, n=8), f.frame, "bar")


def _cantilever(b: Builder, dice: Dice, f: _Frame) -> None:
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
        b.add(f"leg_{i}", prim.tube(p, r, 8), f.frame, "leg", [side * x, y, z1])
    b.add("bar_0", prim.cylinder([-x - r, r, z1], [x + r, r, z1], r, n=8), f.frame, "bar")
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


def _back(b: Builder, dice: Dice, f: _Frame) -> None:
    styles = {"horizontal_slats": 0.22, "vertical_slats": 0.2, "panel": 0.36, "frame": 0.14, "cross": 0.08}
    if f.kind in ("swivel", "pedestal", "sled", "cantilever"):
        styles = {"panel": 0.75, "horizontal_slats": 0.15, "frame": 0.1}
    style = dice.pick(styles)
    f.incline = dice.number(0, 20)
    f.back_height = dice.number(0.36, 0.58)
    f.back_width = f.width * (0.72 if f.round_seat else dice.number(0.82, 0.98))
    f.back_width *= float(b.params.get("seat_taper", 1.0))
    f.curve = dice.number(0.02, 0.09) if dice.chance(0.45) else 0.0
    f.rear = f.depth / 2 - 0.025
    if f.round_seat:
        f.rear = np.sqrt((f.width / 2) ** 2 - (0.5 * f.back_width) ** 2) * 0.9 + f.curve
    b.params.update(back=style, incline=round(f.incline, 2), back_curved=f.curve > 0)
    size = dice.number(0.022, 0.042)
    start = -f.thick + 0.012
    h = f.back_height
    color = f.frame
    across = np.linspace(-1, 1, 7) if f.curve else np.array([-1.0, 1.0])
    out = f.back_normal()

    def slat(name: str, v: float, height: float, thickness: float, color: Color, s: Array = across) -> None:
        path = np.array([f.back_point(t, v) for t in s])
        b.add(name, prim.ribbon(path, f.back_up() * height / 2, out * thickness / 2), color, "back", path[0])

    posts = style != "panel" or dice.chance(0.35)
    rounded = dice.chance(0.5)
    if posts:
        for i, s in enumerate((-1.0, 1.0)):
            p, q = f.back_point(s, start), f.back_point(s, h + (0.02 if dice.chance(0.5) else 0.0))
            solid = prim.cylinder(p, q, size / 2, n=10) if rounded else prim.beam(p, q, size, size, 0.85, (0, 0, 1))
            b.add(f"back_post_{i}", solid, color, "back", p)
    rail = dice.number(0.04, 0.09)
    thin = 0.55 * size
    if style == "horizontal_slats":
        count = dice.integer(2, 5)
        b.params["slats"] = count
        room = h / (count + 0.5)
        height = room * dice.number(0.25, 0.65)
        for k in range(count):
            slat(f"back_slat_{k}", h - height / 2 - room * (count - 1 - k), height, thin, color)
    elif style == "panel":
        gap = dice.number(0.05, 0.16) if posts else 0.0
        low = gap if posts else start
        mid, half = (h + low) / 2, (h - low) / 2
        s = np.linspace(-1, 1, 9)
        arch = dice.number(0.05, 0.3) if dice.chance(0.4) else 0.0
        path, up = [], []
        for t in s:
            top = half * (1 - arch * t**4)
            path.append(f.back_point(t, mid - (half - top)))
            up.append(f.back_up() * top)
        thickness = dice.number(0.018, 0.05) if f.kind != "swivel" else dice.number(0.03, 0.07)
        solid = prim.ribbon(np.array(path), np.array(up), out * thickness / 2, plate_like=True)
        b.add("back_panel", solid, f.cover, "back", f.back_point(0, low))
    else:
        slat("back_rail_top", h - rail / 2, rail, thin * 1.1, color)
        low = dice.number(0.06, 0.14)
        slat("back_rail_bottom", low, rail * 0.6, thin * 1.1, color)
        top = h - rail / 2
        if style == "vertical_slats":
            count = dice.integer(3, 7)
            b.params["slats"] = count
            wide = f.back_width / (count + 1) * dice.number(0.2, 0.55)
            for k, s in enumerate(np.linspace(-1, 1, count + 2)[1:-1]):
                p, q = f.back_point(s, low), f.back_point(s, top)
                solid = prim.cylinder(p, q, thin * 0.4, n=8) if rounded else prim.beam(p, q, wide, thin * 0.7, up=out)
                b.add(f"back_slat_{k}", solid, color, "back", p)
        elif style == "cross":
            for k, s in enumerate((-0.92, 0.92)):
                p, q = f.back_point(s, low), f.back_point(-s, top)
                b.add(f"back_slat_{k}", prim.beam(p, q, thin, thin, up=out), color, "back", p)
        elif dice.chance(0.7):  # a padded or woven field in the frame
            p, q = f.back_point(0, low), f.back_point(0, top)
            wide = dice.number(0.3, 0.9) * f.back_width
            solid = prim.beam(p, q, wide, thin * 0.8, dice.number(0.8, 1.1), up=out)
            if f.curve == 0 or wide < 0.5 * f.back_width:
                b.add("back_splat", solid, f.cover, "back", p)


def _arms(b: Builder, dice: Dice, f: _Frame) -> None:
    chance = {"swivel": 0.5, "four_leg": 0.33, "cantilever": 0.35, "sled": 0.25}.get(f.kind, 0.15)
    arms = "posts" if dice.chance(chance) and not f.round_seat else "none"
    b.params["arms"] = arms
    if arms == "none":
        return
    rise = dice.number(0.17, 0.25)
    taper = float(b.params.get("seat_taper", 1.0))
    rear = f.back_point(1.0, rise)
    front_z = -dice.number(0.15, 0.42) * f.depth
    x_front = f.width / 2 * np.interp(front_z, [-f.depth / 2, f.depth / 2], [1, taper]) - 0.012
    wide, thick = dice.number(0.03, 0.06), dice.number(0.018, 0.035)
    y = f.height + rise
    start, end = np.array([x_front, y, front_z - 0.03]), np.array([rear[0], y, rear[2] + 0.01])
    padded = f.cover if dice.chance(0.4) else f.frame
    b.pair("arm", prim.beam(start, end, wide, thick), padded)
    lean = dice.number(-0.04, 0.06)
    foot = np.array([x_front, f.height - 0.6 * f.thick, front_z + lean])
    post = np.array([x_front, y, front_z])
    size = dice.number(0.018, 0.032)
    square = dice.chance(0.5)
    b.pair(
        "arm_post",
        prim.beam(foot, post, size, size, up=(0, 0, 1)) if square else prim.cylinder(foot, post, size / 2, n=8),
        f.frame,
    )


def _club(b: Builder, dice: Dice, f: _Frame) -> None:
    """Upholstered armchair: block base, cushion, solid arms and back, short legs."""
    w, d = dice.number(0.70, 0.95), dice.number(0.72, 0.9)
    leg = dice.number(0.04, 0.18)
    seat = dice.number(0.38, 0.44)
    arm = dice.number(0.10, 0.18)
    arm_top = seat + dice.number(0.10, 0.26)
    back = dice.number(0.12, 0.2)
    back_top = max(dice.number(0.72, 1.05), arm_top + 0.05)
    bevel = dice.number(0.015, 0.05)
    color = dice.color(FABRIC)
    with_arms = dice.chance(0.85)
    b.params.update(
        legs=4,
        leg_style="short",
        stretcher="none",
        seat="cushion",
        back="panel",
        arms="solid" if with_arms else "none",
    )
    cushion = dice.number(0.10, 0.16)
    inner = w - 2 * arm if with_arms else w
    base = prim.rounded_box([0, (leg + seat - cushion) / 2, 0], [w, seat - cushion - leg, d], 0.012)
    b.add("seat", base, color, "seat", [0, seat, 0])
    b.add(
        "cushion",
        prim.rounded_box([0, seat - cushion / 2 - 0.004, -back / 2], [inner, cushion, d - back + 0.02], 0.035, 2),
        shade(color, 1.12),
        "seat",
    )
    incline = prim.rotation([1, 0, 0], dice.number(0, 14))
    low = seat - cushion - 0.03
    rear = d / 2 - back / 2
    solid = prim.rounded_box([0, (low + back_top) / 2, rear], [w - 0.02, back_top - low, back], bevel, 2)
    mid = solid.vertices * [1, 1, 0] + [0, 0, rear]
    solid = solid._replace(core=mid).transformed(incline, [0, low, rear])
    b.add("back_panel", solid, color, "back", [0, low, rear])
    if with_arms:
        low = leg + 0.01
        size = [arm, arm_top - low, d * dice.number(0.9, 1.0)]
        solid = prim.rounded_box([w / 2 - arm / 2 + 0.01, (low + arm_top) / 2, 0], size, bevel, 2)
        b.pair("arm", solid._replace(core=solid.vertices * [0, 1, 1] + [w / 2 - arm / 2 + 0.01, 0, 0]), color)
    style = dice.pick({"square": 0.4, "round_tapered": 0.6})
    x, z = w / 2 - 0.06, d / 2 - 0.07
    for i, (sx, sz) in enumerate([(-1, -1), (1, -1), (1, 1), (-1, 1)]):
        top, foot = np.array([sx * x, leg + 0.02, sz * z]), np.array([sx * x, 0, sz * z])
        b.add(f"leg_{i}", _leg(dice, style, 0.05, top, foot), f.frame, "leg", top)
