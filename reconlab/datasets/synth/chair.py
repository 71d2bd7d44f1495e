"""Procedural chairs: bases, seats, backs and arms, combined with the frequencies of furniture collections."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.chair_base import Frame, cantilever, leg_solid, legs, pedestal, sled, swivel
from reconlab.datasets.synth.parts import FABRIC, METAL, PLASTIC, WOOD, Builder, Color, Dice, shade
from reconlab.datasets.synth.primitives import Array

KINDS = {
    "four_leg": 0.50, "swivel": 0.14, "club": 0.09, "pedestal": 0.07, "sled": 0.06, "cantilever": 0.06,
    "three_leg": 0.03, "stool": 0.05,
}  # fmt: skip


def build(b: Builder, dice: Dice) -> None:
    """Add the parts of one chair to the builder (metres, floor at y = 0)."""
    kind = dice.kind(KINDS)
    wooden = dice.chance(0.6)
    frame = dice.color(WOOD if wooden else METAL)
    covers = {"wood": 0.35, "fabric": 0.4, "plastic": 0.25}
    cover = dice.color({"wood": WOOD, "fabric": FABRIC, "plastic": PLASTIC}[dice.pick(covers)])
    width = dice.number(0.40, 0.54)
    f = Frame(
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
    base: dict[str, Callable[[Builder, Dice, Frame], None]] = {
        "swivel": swivel,
        "pedestal": pedestal,
        "sled": sled,
        "cantilever": cantilever,
    }
    base.get(kind, legs)(b, dice, f)
    if kind == "stool":
        b.params.update(back="none", arms="none")
        return
    _back(b, dice, f)
    _arms(b, dice, f)


def _seat(b: Builder, dice: Dice, f: Frame) -> None:
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
        corner = dice.number(0.0, 0.10)
        b.params["seat_corner"] = round(corner, 3)
        outline = prim.rectangle(f.width, f.depth, corner, 3)
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


def _back(b: Builder, dice: Dice, f: Frame) -> None:
    styles = {"horizontal_slats": 0.22, "vertical_slats": 0.2, "panel": 0.36, "frame": 0.14, "cross": 0.08}
    if f.kind in ("swivel", "pedestal", "sled", "cantilever"):
        styles = {"panel": 0.75, "horizontal_slats": 0.15, "frame": 0.1}
    style = dice.pick(styles)
    f.incline = dice.number(0, 20)
    f.back_height = dice.number(0.36, 0.58)
    f.back_width = f.width * (0.72 if f.round_seat else dice.number(0.82, 0.98))
    f.back_width *= float(b.params.get("seat_taper", 1.0))
    f.curve = dice.number(0.02, 0.09) if dice.chance(0.45) else 0.0
    corner = float(b.params.get("seat_corner", 0.0))  # the back's feet must stand on the seat's rounded corners
    f.back_width -= 0.4 * corner
    f.rear = f.depth / 2 - 0.025 - 0.25 * corner
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
        steps = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 11))  # closer together at the corners
        arch = dice.number(0.05, 0.3) if dice.chance(0.4) else 0.0
        path, up = [], []
        for t in steps:
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
            for k, s in enumerate(np.linspace(-1, 1, count + 2)[1:-1].tolist()):
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


def _arms(b: Builder, dice: Dice, f: Frame) -> None:
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


def _club(b: Builder, dice: Dice, f: Frame) -> None:
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
        b.add(f"leg_{i}", leg_solid(dice, style, 0.05, top, foot), f.frame, "leg", top)
