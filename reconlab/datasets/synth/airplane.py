"""Procedural airplanes: a lofted fuselage, aerofoil wings and tails, jet or propeller engines."""

# ruff: noqa: RUF005 (sums of an array and a list, not concatenations)

from __future__ import annotations

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.airplane_fittings import details, engines
from reconlab.datasets.synth.airplane_plan import Plane, Wing
from reconlab.datasets.synth.parts import Builder, Color, Dice, shade
from reconlab.datasets.synth.primitives import Array

KINDS = {
    "airliner": 0.40, "business_jet": 0.15, "turboprop": 0.13, "light": 0.13, "fighter": 0.14, "glider": 0.05,
}  # fmt: skip
BODY: tuple[Color, ...] = ((228, 230, 232), (215, 220, 226), (240, 238, 230), (190, 196, 204))
ACCENT: tuple[Color, ...] = (
    (40, 70, 150), (180, 40, 50), (30, 120, 110), (230, 150, 40), (60, 62, 70), (90, 40, 110), (50, 120, 60),
)  # fmt: skip
MILITARY: tuple[Color, ...] = ((120, 128, 120), (100, 106, 112), (140, 134, 110), (150, 156, 162))


def build(b: Builder, dice: Dice) -> None:
    """Add the parts of one airplane to the builder (fuselage length 1, nose at -z)."""
    kind = dice.kind(KINDS)
    b.params["kind"] = kind
    radius = {
        "airliner": (0.045, 0.062), "business_jet": (0.048, 0.06), "turboprop": (0.05, 0.065),
        "light": (0.062, 0.08), "fighter": (0.042, 0.055), "glider": (0.034, 0.042),
    }[kind]  # fmt: skip
    r = dice.number(*radius)
    military = kind == "fighter" or (kind == "turboprop" and dice.chance(0.35))
    paint = dice.color(MILITARY if military else BODY)
    p = Plane(
        kind=kind,
        radius=r,
        paint=paint,
        accent=shade(paint, dice.number(0.7, 0.95)) if military else dice.color(ACCENT),
        droop=0.25 * r * dice.number(0.3, 1.0),
        rise=r * dice.number(0.35, 0.75),
        nose={"fighter": 0.30, "light": 0.12, "glider": 0.16}.get(kind, dice.number(0.10, 0.16)),
        tail={"light": 0.58, "glider": 0.6, "fighter": 0.25}.get(kind, dice.number(0.28, 0.38)),
        tip={"fighter": 0.62, "light": 0.18, "glider": 0.2}.get(kind, 0.12),
    )
    if kind == "fighter":
        p.rise = 0.1 * r
    _fuselage(b, p)
    wing = _wings(b, dice, p)
    tail = _tails(b, dice, p)
    engines(b, dice, p, wing, tail)
    details(b, dice, p, wing)


def _fuselage(b: Builder, p: Plane) -> None:
    front = p.nose * (1 - np.cos(np.linspace(0, np.pi / 2, 7)))
    back = 1 - p.tail * np.linspace(1, 0, 8)
    z = np.unique(np.round(np.concatenate([front, np.linspace(p.nose, 1 - p.tail, 3), back]), 9)) - 0.5
    c = prim.circle(16, 0.5)
    height = 1.08 if p.kind in ("light", "turboprop") else 1.0
    rings = []
    for k, s in enumerate(z):
        size = p.size(s) if k else 0.0
        rings.append(p.centre(s) + size * np.stack([c[:, 0], height * c[:, 1], 0 * c[:, 0]], 1))
    b.add("fuselage", prim.loft(np.array(rings)), p.paint, "fuselage", [0, 0, 0])


def _wings(b: Builder, dice: Dice, p: Plane) -> Wing:
    """Main wings; returns the right one's plan."""
    k = p.kind
    spans = {
        "airliner": (0.40, 0.52), "business_jet": (0.38, 0.48), "turboprop": (0.44, 0.58), "light": (0.55, 0.75),
        "fighter": (0.26, 0.36), "glider": (0.95, 1.25),
    }  # fmt: skip
    half = dice.number(*spans[k])
    sweep = {
        "airliner": (24, 38), "business_jet": (18, 34), "turboprop": (0, 6), "light": (-2, 5), "fighter": (32, 58),
        "glider": (-1, 3),
    }[k]  # fmt: skip
    angle = dice.number(*sweep)
    positions = {
        "airliner": {"low": 0.9, "high": 0.1}, "business_jet": {"low": 1.0}, "turboprop": {"high": 0.65, "low": 0.35},
        "light": {"high": 0.5, "low": 0.5}, "fighter": {"mid": 0.7, "low": 0.3}, "glider": {"mid": 0.6, "high": 0.4},
    }[k]  # fmt: skip
    position = dice.pick(positions)
    chord = {
        "airliner": (0.15, 0.21), "business_jet": (0.15, 0.20), "turboprop": (0.11, 0.15), "light": (0.16, 0.21),
        "fighter": (0.30, 0.46), "glider": (0.09, 0.12),
    }[k]  # fmt: skip
    root_chord = dice.number(*chord)
    taper = dice.number(0.22, 0.36) if sweep[1] > 20 else dice.number(0.45, 1.0)
    delta = k == "fighter" and dice.chance(0.4)
    if k == "fighter":
        taper = dice.number(0.05, 0.3)
    if delta:
        root_chord, taper = dice.number(0.48, 0.58), dice.number(0.04, 0.12)
        angle = float(np.degrees(np.arctan2(root_chord * (1 - taper) * dice.number(0.9, 1.0), half)))
    dihedral = {"low": dice.number(3, 7), "mid": dice.number(-2, 3), "high": dice.number(-3, 2)}[position]
    y = {"low": -0.62, "mid": 0.0, "high": 0.80}[position] * p.radius
    place = {"light": -0.25, "glider": -0.19, "turboprop": -0.12, "fighter": 0.28 - root_chord * 0.72}.get(k, -0.13)
    z = place + dice.number(-0.03, 0.03)
    if delta:
        z = 0.44 - root_chord
    root = np.array([0.25 * p.radius, y, z])
    run = half - root[0]
    tip = root + [run, run * np.tan(np.radians(dihedral)), run * np.tan(np.radians(angle))]
    thick = {"fighter": 0.05, "light": 0.14, "glider": 0.13}.get(k, 0.12)
    wing = Wing(root, tip, root_chord, taper * root_chord, thick)
    kink = k in ("airliner", "business_jet") and dice.chance(0.7)
    stations = [0.0, 0.36, 1.0] if kink else [0.0, 0.5, 1.0]
    leading = [wing.leading(u) for u in stations]
    chords = [wing.chord(u) for u in stations]
    if kink:  # the trailing edge runs straight out from the root, then bends back
        chords[0] *= 1.25
        chords[1] = 0.93 * chords[1]
    normals: list[Array] = [np.array([0.0, 1.0, 0.0])] * 3
    winglet = k in ("airliner", "business_jet", "glider") and dice.chance(0.45)
    if winglet:
        h = dice.number(0.045, 0.08)
        end, small = leading[-1], chords[-1]
        leading += [end + [0.012, 0.012, 0.2 * small], end + [0.02 + 0.1 * h, h, 0.55 * small + 0.3 * h]]
        chords += [0.8 * small, 0.4 * small]
        out = np.array([-1.0, 0.5, 0.0])
        normals = [*normals, out, np.array([-1.0, 0.12, 0.0])]
    solid = prim.aerofoil(np.array(leading), chords, thick, np.array(normals))
    b.add("wing_right", solid, p.paint, "wing", root + [0, 0, root_chord / 2])
    left = solid.mirrored()
    b.add("wing_left", left, p.paint, "wing", (root + [0, 0, root_chord / 2]) * [-1, 1, 1])
    b.params.update(
        wing=position, sweep=round(angle, 1), dihedral=round(dihedral, 1), span=round(2 * half, 3),
        winglets=winglet, delta=delta,
    )  # fmt: skip
    if k == "light" and position == "high" and dice.chance(0.7):
        b.params["struts"] = True
        end = wing.leading(0.5) + [0, 0, 0.35 * wing.chord(0.5)]
        start = np.array([0.8 * p.radius, -0.75 * p.radius, end[2] - 0.01])
        b.pair("strut", prim.cylinder(start, end, 0.006, n=8), p.paint)
    if k == "light" and position == "low" and dice.chance(0.25):  # a biplane's upper wing
        b.params["kind"] = "biplane"
        rise = 0.17
        upper = prim.aerofoil(
            np.array([[-half, 0, 0], [0, 0, 0], [half, 0, 0]]) + [0, root[1] + rise, root[2] - 0.03],
            [wing.tip_chord, root_chord, wing.tip_chord], thick, [0, 1, 0],
        )  # fmt: skip
        b.add("wing_upper", upper, p.accent, "wing", [0, root[1] + rise, root[2]])
        for i, u in enumerate((0.18, 0.72)):
            low = wing.leading(u) + [0, 0, 0.4 * wing.chord(u)]
            high = np.array([low[0], root[1] + rise, low[2] - 0.02])
            b.pair(f"strut_{i}", prim.cylinder(low, high, 0.005, n=6), p.accent, "strut")
    return wing


def _tails(b: Builder, dice: Dice, p: Plane) -> str:
    """Fin and tailplane; returns the arrangement."""
    choices = {
        "airliner": {"conventional": 0.9, "T": 0.1}, "business_jet": {"T": 0.75, "cruciform": 0.15, "V": 0.1},
        "turboprop": {"conventional": 0.6, "T": 0.4}, "light": {"conventional": 0.8, "T": 0.1, "V": 0.1},
        "fighter": {"conventional": 0.5, "twin": 0.5}, "glider": {"T": 0.8, "V": 0.2},
    }[p.kind]  # fmt: skip
    if b.params["delta"]:
        choices = {"fin": 0.6, "twin_fin": 0.4}
    tail = dice.pick(choices)
    b.params["tail"] = tail
    height = dice.number(0.12, 0.17)
    chord = dice.number(0.13, 0.17)
    if p.kind == "glider":
        height, chord = 0.11, 0.08
    sweep = dice.number(0.5, 0.95) if p.kind in ("airliner", "business_jet", "fighter") else dice.number(0.1, 0.5)
    taper = dice.number(0.35, 0.65)
    z = 0.49 - chord - (0.03 if p.kind == "fighter" else 0.0)
    foot = p.centre(z + 0.5 * chord) + [0, 0.3 * p.size(z + 0.5 * chord), 0]
    base = np.array([0, foot[1], z])
    span = height * dice.number(0.95, 1.35)
    plane_chord = chord * dice.number(0.65, 0.85)

    def fin(name: str, x: float, cant: float, color: Color) -> None:
        a = np.radians(cant)
        up = np.array([np.sin(a), np.cos(a), 0.0])
        root = base + [x, 0, 0]
        tip = root + (height + 0.02) * up + [0, 0, sweep * height]
        s = prim.aerofoil(np.array([root, tip]), [chord, taper * chord], 0.09, [up[1], -up[0], 0])
        b.add(name, s, color, "fin", root + [0, 0, chord / 2])

    def tailplane(root: Array, cant: float, length: float = span) -> None:
        a = np.radians(cant)
        tip = root + [length * np.cos(a), length * np.sin(a), 0.8 * sweep * length]
        s = prim.aerofoil(np.array([root, tip]), [plane_chord, 0.55 * plane_chord], 0.09, [-np.sin(a), np.cos(a), 0])
        b.pair("tailplane", s, p.paint)

    side = np.array([0.15 * p.size(z + 0.03), 0.0, 0.0])
    middle = p.centre(z + 0.06)
    if tail == "V":
        tailplane(np.array([0.0, foot[1] - 0.01, z]) + side, dice.number(32, 42), 1.25 * span)
        return tail
    if tail in ("twin", "twin_fin"):
        x = 0.75 * p.size(z)
        for i, s in enumerate((1, -1)):
            fin(f"fin_{i}", s * x, s * dice.number(0, 4) + s * 12, p.paint)
    else:
        fin("fin_0", 0.0, 0.0, p.accent)
    if tail in ("T", "cruciform"):
        u = 0.97 if tail == "T" else 0.45
        rise = u * (height + 0.02)
        root = base + [0.0, rise, u * sweep * height + 0.08 * chord]
        tailplane(root, 0.0)
    elif tail in ("conventional", "twin"):
        tailplane(np.array([0.0, middle[1], z + 0.03]) + side, dice.number(0, 8))
    return tail
