"""Procedural lamps: floor, table, arm, pendant and chandelier kinds, wall lamps, with many shades and bases."""

# ruff: noqa: RUF005 (sums of an array and a list, not concatenations)

from __future__ import annotations

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.lamp_shade import BULB, lamp_shade, pick_style, round_base, tripod
from reconlab.datasets.synth.parts import BRASS, METAL, PLASTIC, WOOD, Builder, Color, Dice, shade

KINDS = {"table": 0.34, "floor": 0.23, "arm": 0.16, "pendant": 0.15, "chandelier": 0.07, "wall": 0.05}
SHADES: tuple[Color, ...] = (
    (238, 226, 196), (245, 240, 228), (210, 190, 150), (170, 60, 50), (70, 90, 110), (60, 62, 66), (120, 140, 100),
    (225, 170, 80),
)  # fmt: skip
CERAMIC: tuple[Color, ...] = (
    (60, 100, 140), (220, 215, 205), (100, 130, 110), (170, 110, 80), (50, 52, 60), (150, 90, 100), (200, 180, 90),
)  # fmt: skip


def build(b: Builder, dice: Dice) -> None:
    """Add the parts of one lamp to the builder (metres; pendants hang from y = 0, the others stand on it)."""
    kind = dice.kind(KINDS)
    b.params["kind"] = kind
    {
        "table": _table,
        "floor": _floor,
        "arm": _arm,
        "pendant": _pendant,
        "chandelier": _chandelier,
        "wall": _wall,
    }[kind](b, dice)


def _table(b: Builder, dice: Dice) -> None:
    height = dice.number(0.26, 0.44)  # of the body
    radius = dice.number(0.12, 0.19)
    body = dice.pick({"vase": 0.4, "column": 0.25, "block": 0.12, "tripod": 0.1, "stack": 0.13})
    b.params["body"] = body
    color = dice.color(CERAMIC)
    metal = dice.color(METAL + BRASS)
    top = height
    if body == "vase":
        b.params["base"] = "vase"
        u = np.linspace(0, 1, 13)
        belly, at, foot = dice.number(0.07, 0.13), dice.number(0.3, 0.68), dice.number(0.04, 0.075)
        neck = dice.number(0.012, 0.025)
        r = foot + (belly - foot) * np.sin(np.clip(u / at, 0, 1) * np.pi / 2)
        fall = np.clip((u - at) / (1 - at), 0, 1)
        r = np.where(u > at, neck + (belly - neck) * np.cos(fall * np.pi / 2) ** dice.number(0.9, 1.8), r)
        profile = np.concatenate([[[0, 0]], np.stack([r, u * height], 1), [[0, height]]])
        b.add("body", prim.revolve(profile, 20), color, "body")
    elif body == "stack":
        y = round_base(b, dice, 0.09, metal)
        count = dice.integer(2, 5)
        size = (height - y) / (2 * count) * 1.06
        square = dice.chance(0.3)
        for k in range(count):
            c = np.array([0, y + size * (2 * k + 0.94) / 1.03, 0])
            w = size * dice.number(0.8, 1.35)
            solid = prim.ellipsoid(c, [w, size, w], 14, 6)
            if square:
                solid = prim.rounded_box(c, [1.7 * w, 2 * size, 1.7 * w], 0.3 * size)
            b.add(f"ball_{k}", solid, color, "body")
        top = y + 2 * size * count / 1.06
    elif body == "tripod":
        tripod(b, dice, height, dice.number(0.11, 0.16), dice.color(WOOD), dice.number(0.008, 0.014))
    elif body == "block":
        b.params["base"] = "block"
        w, d = dice.number(0.08, 0.16), dice.number(0.06, 0.12)
        outline = prim.rectangle(w, d, dice.number(0, 0.02))
        b.add("body", prim.slab(outline, 0, height, 0.006), color, "body")
    else:
        base = dice.number(0.075, 0.11)
        y = round_base(b, dice, base, metal)
        r0 = dice.number(0.008, 0.022)
        u = np.linspace(0, 1, 9)
        knobs = np.where(np.isin(np.arange(9), [2, 4, 6]) & dice.chance(0.4), 1.7, 1.0)
        r = r0 * knobs
        profile = np.concatenate(
            [[[0, y - 0.01]], np.stack([r, y - 0.01 + u * (height - y)], 1), [[0, height - 0.01]]]
        )
        b.add("pole", prim.revolve(profile, 12), metal, "pole")
        top = height - 0.01
    neck = dice.number(0.03, 0.06)
    b.add("neck", prim.cylinder([0, top - 0.015, 0], [0, top + neck, 0], 0.009, n=10), metal, "pole")
    style = pick_style(dice)
    b.params["shade"] = style
    lamp_shade(
        b,
        dice,
        "",
        np.array([0, top + neck, 0]),
        radius * (0.75 if style == "sphere" else 1),
        style,
        dice.color(SHADES),
        hangs=False,
    )


def _floor(b: Builder, dice: Dice) -> None:
    height = dice.number(1.15, 1.6)
    metal = dice.color(METAL + BRASS + WOOD)
    r = dice.number(0.009, 0.018)
    stand = dice.pick({"pole": 0.5, "arc": 0.2, "tripod": 0.3})
    b.params["body"] = stand
    color = dice.color(SHADES)
    radius = dice.number(0.15, 0.26)
    if stand == "tripod":
        top = 0.78 * height if dice.chance(0.5) else 0.95 * height
        tripod(b, dice, top, dice.number(0.28, 0.4), metal, dice.number(0.011, 0.02))
        b.add("pole", prim.cylinder([0, top - 0.02, 0], [0, height, 0], r, n=10), metal, "pole")
    else:
        y = round_base(b, dice, dice.number(0.13, 0.19), metal)
        if stand == "arc":
            reach = dice.number(0.4, 0.75)
            a = np.linspace(np.pi, np.radians(dice.number(5, 30)), 14)
            rise = dice.number(0.3, 0.5)
            arc = np.stack([reach / 2 * (1 + np.cos(a)), height - rise + rise * np.sin(a), 0 * a], 1)
            path = np.concatenate([[[0, y - 0.01, 0]], arc])
            b.add("pole", prim.tube(path, r, 8), metal, "pole")
            style = pick_style(dice, {"cone": 0.2, "drum": 0.15, "dome": 0.45, "sphere": 0.2})
            b.params["shade"] = style
            end = arc[-1]
            b.add("cord", prim.cylinder(end + [0, 0.01, 0], end - [0, 0.06, 0], 0.6 * r, n=8), metal, "cord")
            lamp_shade(b, dice, "", end - [0, 0.05, 0], radius * 0.8, style, color)
            return
        b.add("pole", prim.cylinder([0, y - 0.01, 0], [0, height, 0], r, n=10), metal, "pole")
        if dice.chance(0.25):  # a tray half way up
            b.params["tray"] = True
            t = dice.number(0.35, 0.55) * height
            b.add("tray", prim.slab(prim.circle(20) * dice.number(0.13, 0.2), t, t + 0.02, 0.006), metal, "tray")
    if dice.chance(0.15):  # an uplighter bowl instead of a shade
        b.params["shade"] = "bowl"
        u = np.linspace(0, 1, 6)
        profile = np.stack([radius * (0.1 + 0.9 * u**0.6), height - 0.02 + 0.45 * radius * u], 1)
        closed = np.concatenate(
            [[[0, height - 0.02]], profile, [[0.8 * radius, profile[-1, 1] - 0.01], [0, height + 0.1 * radius]]]
        )
        b.add("shade", prim.revolve(closed, 20), color, "shade")
        return
    style = pick_style(dice)
    b.params["shade"] = style
    lamp_shade(
        b, dice, "", np.array([0, height, 0]), radius * (0.7 if style == "sphere" else 1), style, color, hangs=False
    )


def _arm(b: Builder, dice: Dice) -> None:
    """Articulated desk lamp: base, two or three straight links in a vertical plane, a tilted head."""
    metal = dice.color(METAL + PLASTIC)
    y = round_base(b, dice, dice.number(0.08, 0.12), metal)
    links = 3 if dice.chance(0.2) else 2
    double = dice.chance(0.35)
    r = dice.number(0.006, 0.01)
    angle = dice.number(95, 125)  # of the first link, from the direction of the head (-z) upwards
    p = np.array([0.0, y - 0.005, 0.0])
    q = p + [0, dice.number(0.02, 0.05), 0]
    b.add("stem", prim.cylinder(p, q, 1.6 * r, n=10), metal, "arm")
    joint = dice.number(1.6, 2.2) * r
    for k in range(links):
        length = dice.number(0.17, 0.30) * (0.75 if links == 3 else 1.0)
        d = np.array([0.0, np.sin(np.radians(angle)), -np.cos(np.radians(angle))])
        end = q + length * d
        if double:
            for i, x in enumerate((-1.5 * r, 1.5 * r)):
                off = np.array([x, 0, 0])
                b.add(f"arm_{k}_{i}", prim.cylinder(q + off, end + off, 0.6 * r, n=8), metal, "arm", q)
        else:
            b.add(f"arm_{k}", prim.cylinder(q, end, r, n=10), metal, "arm", q)
        axle = np.array([(2.6 if double else 1.4) * r, 0, 0])
        b.add(f"joint_{k}", prim.cylinder(q - axle, q + axle, joint, n=12), shade(metal, 0.7), "joint")
        q = end
        angle -= dice.number(55, 95) if links == 2 else dice.number(30, 60)
    b.add(f"joint_{links}", prim.cylinder(q - axle, q + axle, joint, n=12), shade(metal, 0.7), "joint")
    b.params.update(links=links, double=double, body="arm")
    style = dice.pick({"cone": 0.4, "dome": 0.3, "bell": 0.2, "tube": 0.1})
    b.params["shade"] = style
    color = metal if dice.chance(0.6) else dice.color(PLASTIC)
    tilt = prim.rotation([1, 0, 0], dice.number(5, 45))  # the head looks down and forwards (-z)
    radius = dice.number(0.055, 0.085)
    neck = q + tilt @ np.array([0, -0.035, 0])
    b.add("neck", prim.cylinder(q, neck, 0.9 * r, n=8), metal, "arm", q)
    if style == "tube":
        bar = prim.rounded_box(neck, [dice.number(0.18, 0.34), 0.03, 0.06], 0.01)
        b.add("shade", bar.transformed(tilt, neck), color, "shade")
    else:
        lamp_shade(b, dice, "", neck, radius, style, color, tilt)


def _pendant(b: Builder, dice: Dice) -> None:
    metal = dice.color(METAL + BRASS)
    count = int(dice.pick({"1": 0.7, "3": 0.2, "2": 0.1}))
    b.params.update(body="pendant", lights=count)
    drop = dice.number(0.25, 0.7)
    thin = dice.number(0.005, 0.009)
    style = pick_style(dice, {"cone": 0.2, "drum": 0.2, "dome": 0.25, "bell": 0.15, "sphere": 0.12, "empire": 0.08})
    b.params["shade"] = style
    color = dice.color(SHADES + PLASTIC)
    radius = dice.number(0.13, 0.24) if count == 1 else dice.number(0.08, 0.11)
    if count == 1:
        b.add("rose", prim.slab(prim.circle(18) * 0.055, -0.025, 0, 0.008), metal, "rose")
        xs = np.zeros(1)
    else:
        span = (count - 1) * radius * dice.number(2.3, 2.9)
        b.add("rose", prim.rounded_box([0, -0.015, 0], [span + 0.1, 0.03, 0.06], 0.008), metal, "rose")
        xs = np.linspace(-span / 2, span / 2, count)
    start = dice.rng.bit_generator.state
    for i, x in enumerate(xs):
        dice.rng.bit_generator.state = start  # the same shade each time
        end = np.array([x, -drop * (1 + (0.3 * (i % 2) if count == 3 else 0.0)), 0])
        b.add(
            f"cord_{i}", prim.cylinder([x, -0.01, 0], end - [0, 0.02, 0], thin, n=8), (50, 50, 52), "cord", [x, 0, 0]
        )
        lamp_shade(b, dice, f"light_{i}_" if count > 1 else "", end, radius, style, color, follows=f"cord_{i}")


def _chandelier(b: Builder, dice: Dice) -> None:
    metal = dice.color(METAL + BRASS)
    arms = dice.integer(4, 8)
    reach = dice.number(0.26, 0.42)
    drop = dice.number(0.25, 0.45)
    b.params.update(body="chandelier", lights=arms)
    b.add("rose", prim.slab(prim.circle(18) * 0.06, -0.03, 0, 0.01), metal, "rose")
    b.add("cord", prim.cylinder([0, -0.01, 0], [0, -drop - 0.02, 0], 0.008, n=8), metal, "cord")
    u = np.linspace(0, 1, 9)
    r = 0.012 + 0.038 * np.sin(np.pi * u) ** 2 * (1 + 0.4 * np.sin(4 * np.pi * u))
    low = -drop - dice.number(0.16, 0.26)
    profile = np.concatenate([[[0, low]], np.stack([r, low + u * (-drop - low)], 1), [[0, -drop]]])
    b.add("body", prim.revolve(profile, 14), metal, "body")
    sag = dice.number(0.04, 0.12)
    rise = dice.number(0.0, 0.08)
    shaded = dice.chance(0.5)
    b.params["shade"] = "empire" if shaded else "candle"
    color = dice.color(SHADES)
    size = dice.number(0.055, 0.075)
    start = dice.rng.bit_generator.state
    y0 = low + 0.4 * (-drop - low)
    for i in range(arms):
        dice.rng.bit_generator.state = start
        t = np.linspace(0, 1, 9)
        y = y0 - sag * np.sin(np.pi * t) + rise * t**2
        flat = np.stack([0.012 + (reach - 0.012) * t, y, 0 * t], 1)
        turn = prim.rotation([0, 1, 0], 360 * i / arms)
        path = flat @ turn.T
        b.add(f"arm_{i}", prim.tube(path, 0.008, 6, up=[0, 1, 0]), metal, "arm", path[0])
        end = path[-1]
        cup = prim.revolve([[0, -0.012], [0.012, -0.01], [0.028, 0.012], [0, 0.012]], 10).moved(end)
        hung = f"arm_{i}"
        b.add(f"cup_{i}", cup, metal, "cup", follows=hung)
        b.add(
            f"candle_{i}",
            prim.cylinder(end, end + [0, 0.085, 0], 0.011, n=8),
            (240, 236, 222),
            "candle",
            follows=hung,
        )
        flame = prim.ellipsoid(end + [0, 0.10, 0], [0.013, 0.026, 0.013], 8, 4)
        b.add(f"bulb_{i}", flame, BULB, "bulb", follows=hung)
        if shaded:
            solid = prim.shell(np.array([[size, 0.06], [0.55 * size, 0.06 + 1.3 * size]]), 0.005, 12).moved(end)
            b.add(f"shade_{i}", solid, color, "shade", follows=hung)
            top = end + [0, 0.06 + 0.7 * size, 0]
            side = turn @ np.array([0.75 * size, 0, 0])
            b.add(f"spider_{i}", prim.cylinder(top - side, top + side, 0.003, n=6), metal, "spider", follows=hung)


def _wall(b: Builder, dice: Dice) -> None:
    """Wall lamp: a plate at the rear (+z), a bent arm, a shade that stands or hangs."""
    metal = dice.color(METAL + BRASS)
    tall = dice.number(0.12, 0.22)
    if dice.chance(0.5):
        b.add("base", prim.rounded_box([0, 0, 0], [0.09, tall, 0.024], 0.008), metal, "base")
    else:
        disc = prim.slab(prim.circle(20) * tall / 2, -0.012, 0.012, 0.006)
        b.add("base", disc.transformed(prim.rotation([1, 0, 0], 90)), metal, "base")
    reach = dice.number(0.12, 0.25)
    standing = dice.chance(0.6)
    a = np.linspace(0, np.pi / 2, 6)
    bend = 0.06 * (1 if standing else -1)
    arc = np.stack([0 * a, bend * (1 - np.cos(a)), -reach - 0.06 * np.sin(a)], 1)
    path = np.concatenate([[[0, 0, 0.0]], arc, [[0, 1.6 * bend, -reach - 0.06]]])
    b.add("arm", prim.tube(path, 0.009, 8), metal, "arm", [0, 0, 0])
    style = pick_style(dice)
    b.params.update(body="wall", shade=style, base="plate")
    radius = dice.number(0.07, 0.11)
    lamp_shade(b, dice, "", path[-1], radius, style, dice.color(SHADES), hangs=not standing)
