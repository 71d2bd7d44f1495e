"""Shades, bases and tripods that lamps of all kinds share."""

# ruff: noqa: RUF005 (sums of an array and a list, not concatenations)

from __future__ import annotations

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.parts import Builder, Color, Dice, shade
from reconlab.datasets.synth.primitives import Array

BULB: Color = (255, 246, 214)


def _shade_profile(dice: Dice, style: str, radius: float, height: float) -> Array:
    """Outer profile (radius, y) from the lower rim, y = 0, to the upper one."""
    top = {"cone": dice.number(0.28, 0.5), "drum": dice.number(0.85, 1.0), "empire": dice.number(0.55, 0.75)}
    if style in top:
        return np.array([[radius, 0.0], [top[style] * radius, height]])
    a = np.linspace(0, 1, 7)
    if style == "dome":
        angle = a * np.radians(dice.number(68, 80))
        return np.stack([radius * np.cos(angle), height * np.sin(angle) / np.sin(angle[-1])], 1)
    return np.stack([radius * (0.32 + 0.68 * (1 - a) ** dice.number(1.8, 3.0)), height * a], 1)  # bell


def lamp_shade(b: Builder, dice: Dice, prefix: str, at: Array, radius: float, style: str, color: Color,
           matrix: Array | None = None, hangs: bool = True, follows: str | None = None) -> float:  # fmt: skip
    """Add a shade whose attachment is `at`, with a bulb and what carries it; returns the shade's height.

    Args:
        b: where parts go.
        dice: random draws.
        prefix: start of the parts' names.
        at: (3,) attachment: the top of the shade if it hangs, else its lower middle on the post.
        radius: of the largest rim.
        style: cone, drum, empire, dome, bell, sphere or square.
        color: of the shade.
        matrix: (3, 3) rotation about `at`, for tilted heads.
        hangs: whether the shade hangs from `at`.
        follows: name of the part that carries it.
    """
    name = f"{prefix}shade"
    turn = np.eye(3) if matrix is None else matrix
    thick = max(0.045 * radius, 0.004)

    def put(part: str, solid: prim.Solid, c: Color, kind: str) -> None:
        b.add(part, solid.transformed(turn).moved(at), c, kind, follows=follows)

    if style == "sphere":
        y = -0.97 * radius if hangs else 0.97 * radius
        put(name, prim.ellipsoid([0, y, 0], [radius, radius, radius], 18, 9), color, "shade")
        return 2 * radius
    ratio = {"cone": (0.75, 1.2), "drum": (0.8, 1.5), "empire": (0.9, 1.5), "dome": (0.6, 0.95), "bell": (0.7, 1.1),
             "square": (0.8, 1.5)}[style]  # fmt: skip
    height = radius * dice.number(*ratio)
    n = 20
    if style == "square":
        n, top = 4, dice.number(0.5, 1.0)
        profile = np.array([[radius, 0.0], [top * radius, height]])
    else:
        profile = _shade_profile(dice, style, radius, height)
    low = -height if hangs else -0.35 * height  # a standing shade reaches below the post's end
    solid = prim.shell(profile + [0, low], thick, n)
    if style == "square":
        solid = solid.transformed(prim.rotation([0, 1, 0], 45))
    put(name, solid, color, "shade")
    rim = float(profile[-1, 0])
    end = low + height
    if hangs:  # a cap that closes the top and takes the cord
        cap = [[0, end - 0.12 * radius], [rim, end - 0.05 * radius], [rim * 0.98, end],
               [0.16 * radius, end + 0.1 * radius], [0, end + 0.1 * radius]]  # fmt: skip
        if style == "square":
            put(
                f"{prefix}cap",
                prim.box([-0.72 * rim, end - 0.06, -0.72 * rim], [0.72 * rim, end - 0.01, 0.72 * rim]),
                shade(color, 0.7),
                "cap",
            )
        else:
            put(f"{prefix}cap", prim.revolve(cap, n), shade(color, 0.7), "cap")
        centre = end - 0.34 * radius
        socket = [[0, centre], [0, end - 0.04 * radius]]
    else:
        centre = 0.16 * height
        socket = [[0, -0.05 * radius], [0, end - 0.05 * height]]
        for k, a in enumerate((0.0, 2 * np.pi / 3, 4 * np.pi / 3)):  # the spider that carries the shade
            y = end - 0.08 * height
            d = np.array([np.cos(a), 0, np.sin(a)])
            reach = float(np.interp(y, profile[:, 1] + low, profile[:, 0])) - 0.45 * thick
            if style == "square":  # from the middle of the wall, not from its corner
                reach *= np.sqrt(0.5) / np.abs(d).max()
            put(
                f"{prefix}spider_{k}",
                prim.cylinder([0, y, 0], reach * d + [0, y, 0], max(0.012 * radius, 0.002), n=6),
                (90, 90, 92),
                "spider",
            )
    post = prim.cylinder([0, socket[0][1], 0], [0, socket[1][1], 0], 0.06 * radius, n=8)
    put(f"{prefix}socket", post, (90, 90, 92), "socket")
    bulb = min(0.16 * radius, 0.04)
    put(f"{prefix}bulb", prim.ellipsoid([0, centre, 0], [bulb, 1.3 * bulb, bulb], 10, 5), BULB, "bulb")
    return height


def round_base(b: Builder, dice: Dice, radius: float, color: Color) -> float:
    """Flat base plate; returns its height."""
    h = dice.number(0.08, 0.2) * radius
    style = dice.pick({"disc": 0.5, "dome": 0.3, "square": 0.2})
    b.params["base"] = style
    if style == "square":
        b.add(
            "base", prim.slab(prim.rectangle(1.7 * radius, 1.7 * radius, 0.1 * radius), 0, h, 0.3 * h), color, "base"
        )
    elif style == "disc":
        b.add("base", prim.slab(prim.circle(24) * radius, 0, h, 0.35 * h, 2), color, "base")
    else:
        a = np.linspace(0, 1, 5)
        arc = np.stack([radius * (0.12 + 0.88 * np.cos(a * np.pi / 2)), 0.012 + h * 2 * np.sin(a * np.pi / 2)], 1)
        h *= 2
        b.add(
            "base", prim.revolve(np.concatenate([[[0, 0], [radius, 0]], arc, [[0, arc[-1, 1]]]]), 22), color, "base"
        )
    return h


def tripod(b: Builder, dice: Dice, height: float, reach: float, color: Color, thick: float) -> None:
    """Three or four splayed legs that meet in a hub at `height`."""
    count = 3 if dice.chance(0.85) else 4
    for i in range(count):
        a = 2 * np.pi * i / count - np.pi / 2
        d = np.array([np.cos(a), 0.0, np.sin(a)])
        top = np.array([0, height, 0]) + 0.12 * reach * d
        b.add(f"leg_{i}", prim.cylinder(top, reach * d, thick, 0.6 * thick, n=10), color, "leg", top)
    hub = prim.cylinder([0, height - 1.5 * thick, 0], [0, height + 1.5 * thick, 0], 0.12 * reach + 1.4 * thick, n=14)
    b.add("hub", hub, color, "hub")
    b.params.update(base="tripod", legs=count)


def pick_style(dice: Dice, weights: dict[str, float] | None = None) -> str:
    """Style of a shade, by default with the frequencies of standing lamps."""
    return dice.pick(
        weights
        or {"cone": 0.12, "drum": 0.28, "empire": 0.28, "dome": 0.08, "bell": 0.1, "sphere": 0.07, "square": 0.07}
    )
