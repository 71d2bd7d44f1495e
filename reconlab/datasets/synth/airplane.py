"""Procedural airplanes: a lofted fuselage, aerofoil wings and tails, jet or propeller engines."""

from __future__ import annotations

import dataclasses

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.parts import GLASS, METAL, RUBBER, Builder, Color, Dice, shade
from reconlab.datasets.synth.primitives import Array

KINDS = {
    "airliner": 0.40, "business_jet": 0.15, "turboprop": 0.13, "light": 0.13, "fighter": 0.14, "glider": 0.05,
}  # fmt: skip
BODY: tuple[Color, ...] = ((228, 230, 232), (215, 220, 226), (240, 238, 230), (190, 196, 204))
ACCENT: tuple[Color, ...] = (
    (40, 70, 150), (180, 40, 50), (30, 120, 110), (230, 150, 40), (60, 62, 70), (90, 40, 110), (50, 120, 60),
)  # fmt: skip
MILITARY: tuple[Color, ...] = ((120, 128, 120), (100, 106, 112), (140, 134, 110), (150, 156, 162))


@dataclasses.dataclass
class _Plane:
    """Lengths in units of the fuselage's length; nose at z = -0.5, tail at +0.5."""

    kind: str
    radius: float
    paint: Color
    accent: Color
    droop: float  # how far the nose tip lies below the axis
    rise: float  # how far the tail tip lies above the axis
    nose: float  # length of the nose's rounding
    tail: float  # length of the tail's taper
    tip: float = 0.12  # radius of the tail tip, in radii

    def centre(self, z: float) -> Array:
        """Centre of the fuselage section at z."""
        n = np.clip((self.nose - (z + 0.5)) / self.nose, 0, 1)
        t = np.clip((z - (0.5 - self.tail)) / self.tail, 0, 1)
        return np.array([0.0, -self.droop * n**2 + self.rise * t**1.3, z])

    def size(self, z: float) -> float:
        """Radius of the fuselage section at z."""
        n = np.clip((self.nose - (z + 0.5)) / self.nose, 0, 1)
        t = np.clip((z - (0.5 - self.tail)) / self.tail, 0, 1)
        front = np.sqrt(max(1 - n**2, 0.0)) if self.kind != "fighter" else (1 - n) ** 0.7
        return float(self.radius * front * (1 - (1 - self.tip) * t**1.6))


def build(b: Builder, dice: Dice) -> None:
    """Add the parts of one airplane to the builder (fuselage length 1, nose at -z)."""
    kind = dice.pick(KINDS)
    b.params["kind"] = kind
    radius = {
        "airliner": (0.045, 0.062), "business_jet": (0.048, 0.06), "turboprop": (0.05, 0.065),
        "light": (0.062, 0.08), "fighter": (0.042, 0.055), "glider": (0.034, 0.042),
    }[kind]  # fmt: skip
    r = dice.number(*radius)
    military = kind == "fighter" or (kind == "turboprop" and dice.chance(0.35))
    paint = dice.color(MILITARY if military else BODY)
    p = _Plane(
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
    _engines(b, dice, p, wing, tail)
    _details(b, dice, p, wing)


def _fuselage(b: Builder, p: _Plane) -> None:
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


@dataclasses.dataclass
class _Wing:
    root: Array  # leading edge at the root
    tip: Array
    root_chord: float
    tip_chord: float
    thickness: float

    def leading(self, u: float) -> Array:
        """Leading edge at the span fraction u."""
        return self.root + u * (self.tip - self.root)

    def chord(self, u: float) -> float:
        """Chord at the span fraction u (without the root's kink)."""
        return self.root_chord + u * (self.tip_chord - self.root_chord)


def _wings(b: Builder, dice: Dice, p: _Plane) -> _Wing:
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
    wing = _Wing(root, tip, root_chord, taper * root_chord, thick)
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


def _tails(b: Builder, dice: Dice, p: _Plane) -> str:
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


def _nacelle(radius: float, length: float) -> prim.Solid:
    """Turbofan along z, inlet at z = 0 facing -z."""
    u = np.array([[0.0, 0.34], [0.80, 0.30], [0.84, 0.02], [0.92, 0.0], [1.0, 0.16], [1.0, 0.45], [0.78, 0.82], [0.5, 0.85],
                  [0.36, 1.0], [0.0, 1.12]])  # fmt: skip
    return prim.revolve(u * [radius, length], 14).transformed(prim.rotation([1, 0, 0], 90))


def _propeller(b: Builder, dice: Dice, name: str, hub: Array, radius: float, blades: int, phase: float) -> None:
    size = 0.13 * radius
    cone = prim.tube(
        hub + np.array([[0, 0, 0.5], [0, 0, -0.7], [0, 0, -1.6]]) * size, np.array([1.0, 0.85, 0.12]) * size, 10
    )
    b.add(f"spinner_{name}", cone, (60, 60, 64), "propeller")
    for k in range(blades):
        a = 2 * np.pi * k / blades + phase
        d = np.array([np.cos(a), np.sin(a), 0.0])
        side = np.cross([0, 0, 1.0], d)
        pitch = 0.75 * side + 0.45 * np.array([0, 0, 1.0])
        path = hub + np.outer([0.0, 0.4, 0.9, 1.0], d) * radius - [0, 0, 0.4 * size]
        wide = np.array([0.35, 0.75, 0.55, 0.3])[:, None] * 0.11 * radius * pitch
        thin = prim.unit(np.cross(pitch, d)) * 0.016 * radius
        b.add(f"blade_{name}_{k}", prim.ribbon(path, wide, thin), (48, 48, 52), "propeller")


def _engines(b: Builder, dice: Dice, p: _Plane, wing: _Wing, tail: str) -> None:
    metal = dice.color(METAL)
    kind = p.kind
    if kind == "glider":
        b.params.update(engines=0, engine_kind="none")
    elif kind == "airliner" and tail != "T":
        count = 4 if dice.chance(0.25) else 2
        b.params.update(engines=count, engine_kind="underwing_jet")
        radius = dice.number(0.024, 0.032) if count == 2 else dice.number(0.019, 0.023)
        for i, u in enumerate([0.34] if count == 2 else [0.32, 0.62]):
            length = radius * dice.number(3.6, 4.6)
            edge = wing.leading(u) + [0, -wing.thickness * 0.3 * wing.chord(u), 0]
            axis = edge + [0, -1.25 * radius, -0.62 * length]
            b.pair(f"engine_{i}", _nacelle(radius, length).moved(axis), metal, "engine")
            low = axis + [0, 0.7 * radius, 0.35 * length]
            path = np.array([low, edge + [0, 0.006, 0.30 * wing.chord(u)]])
            half = np.array([0, 0, 1.0]) * np.array([[0.30 * length], [0.25 * length]])
            b.pair(f"pylon_{i}", prim.ribbon(path, half, [0.004, 0, 0]), p.paint, "pylon")
    elif kind in ("business_jet", "airliner"):
        b.params.update(engines=2, engine_kind="rear_jet")
        radius = dice.number(0.021, 0.028)
        length = radius * dice.number(4.2, 5.2)
        z = 0.20 + dice.number(-0.02, 0.03)
        centre = p.centre(z + 0.5 * length)
        body = p.size(z + 0.5 * length)
        axis = centre + [body + radius * 1.15, 0.45 * p.radius, -0.5 * length]
        b.pair("engine_0", _nacelle(radius, length).moved(axis), metal, "engine")
        path = np.array([centre + [0, 0.3 * p.radius, 0], axis + [0, 0, 0.5 * length]])
        b.pair("pylon_0", prim.ribbon(path, [0, 0, 0.24 * length], [0, 0.005, 0]), p.paint, "pylon")
    elif kind == "turboprop":
        count = 4 if dice.chance(0.35) else 2
        blades = dice.integer(3, 6)
        b.params.update(engines=count, engine_kind="wing_propeller", blades=blades)
        prop = dice.number(0.07, 0.085)
        for i, u in enumerate([0.33] if count == 2 else [0.30, 0.60]):
            size = dice.number(0.017, 0.022)
            edge = wing.leading(u) + [0, -0.2 * size, 0]
            z = np.array([-0.085, -0.07, -0.02, 0.5 * wing.chord(u), 0.95 * wing.chord(u)])
            path = edge + np.outer(z, [0, 0, 1])
            solid = prim.tube(path, np.array([0.45, 0.8, 1.0, 0.9, 0.15]) * size, 12, up=[0, 1, 0])
            b.pair(f"engine_{i}", solid, p.paint, "engine")
            hub = edge + [0, 0, -0.09]
            _propeller(b, dice, f"{i}_right", hub, prop, blades, 0.3)
            _propeller(b, dice, f"{i}_left", hub * [-1, 1, 1], prop, blades, 0.3)
    elif kind == "light":
        blades = dice.integer(2, 4)
        twin = b.params["kind"] == "light" and b.params["wing"] == "low" and dice.chance(0.25)
        b.params.update(
            engines=2 if twin else 1, engine_kind="wing_propeller" if twin else "nose_propeller", blades=blades
        )
        if twin:
            edge = wing.leading(0.3)
            path = edge + np.outer([-0.10, -0.085, -0.02, 0.6 * wing.chord(0.3)], [0, 0, 1])
            b.pair(
                "engine_0",
                prim.tube(path, np.array([0.6, 0.9, 1.0, 0.3]) * 0.03, 12, up=[0, 1, 0]),
                p.paint,
                "engine",
            )
            hub = edge + [0, 0, -0.105]
            _propeller(b, dice, "0_right", hub, 0.11, blades, 0.5)
            _propeller(b, dice, "0_left", hub * [-1, 1, 1], 0.11, blades, 0.5)
        else:
            hub = p.centre(-0.5) + [0, 0, -0.004]
            _propeller(b, dice, "0", hub, dice.number(0.13, 0.16), blades, 0.5)
    else:
        count = 2 if tail in ("twin", "twin_fin") else 1
        b.params.update(engines=count, engine_kind="fuselage_jet")
        size = (0.52 if count == 2 else 0.72) * p.radius
        for i in range(count):
            x = (0.5 if i == 0 else -0.5) * p.radius * (count - 1)
            start = p.centre(0.44) + [x, 0, 0]
            nozzle = prim.tube(start + np.outer([0, 0.05, 0.085], [0, 0, 1]), np.array([1, 1, 0.78]) * size, 12)
            b.add(f"engine_{i}", nozzle, (70, 70, 74), "engine")
        z0 = dice.number(-0.16, -0.08)
        intake = [0.62 * p.radius, 1.1 * p.radius, 0.34]
        box = prim.rounded_box([1.05 * p.radius, -0.1 * p.radius, z0 + 0.17], intake, 0.22 * p.radius)
        rear = np.where(box.vertices[:, 2:] > z0 + 0.17, [[0.72, 0.75, 1.0]], [[1.0, 1.0, 1.0]])
        b.pair("intake", box._replace(vertices=box.vertices * rear, core=box.core * rear), shade(p.paint, 0.9))


def _details(b: Builder, dice: Dice, p: _Plane, wing: _Wing) -> None:
    r = p.radius
    k = p.kind
    if k in ("airliner", "business_jet", "turboprop"):
        windscreen = p.centre(-0.5 + 0.42 * p.nose)
        s = p.size(windscreen[2])
        b.add(
            "cockpit",
            prim.ellipsoid(windscreen + [0, 0.52 * s, 0], [0.78 * s, 0.42 * s, 0.3 * p.nose], 12, 5),
            GLASS,
            "window",
        )
        y, length = 0.28 * r, 1 - p.nose - p.tail
        half = np.sqrt(r**2 - y**2) + 0.0012
        z0 = -0.5 + p.nose + 0.02
        band = prim.box([-half, y - 0.07 * r, z0], [half, y + 0.09 * r, z0 + length])
        b.add("windows", band, GLASS, "window")
    elif k in ("fighter", "glider"):
        at = {"fighter": -0.5 + 0.72 * p.nose, "glider": -0.33}[k]
        c = p.centre(at)
        size = [0.55 * r, dice.number(0.5, 0.7) * r, dice.number(0.085, 0.11)]
        b.add("cockpit", prim.ellipsoid(c + [0, 0.72 * p.size(at), 0.02], size, 14, 7), GLASS, "window")
    else:
        if b.params["kind"] == "biplane":
            screen = p.centre(-0.12) + [0, 0.8 * r, 0]
            b.add("cockpit", prim.ellipsoid(screen, [0.5 * r, 0.5 * r, 0.05], 12, 6), GLASS, "window")
        else:
            z = wing.root[2] + 0.03
            top = 0.95 if b.params["wing"] == "high" else 1.35
            low = np.array([[-0.8 * r, 0.45 * r, z - 0.10], [0.8 * r, 0.45 * r, z - 0.10], [0.8 * r, 0.45 * r, z + 0.22], [-0.8 * r, 0.45 * r, z + 0.22]])  # fmt: skip
            high = low * [0.72, 0, 1] + [0, top * r + 0.012, 0]
            high[:2, 2] += 0.07
            high[2:, 2] -= 0.06
            b.add("cockpit", prim.hexahedron(low, high), GLASS, "window")
    if k == "fighter" and dice.chance(0.22 if not b.params["delta"] else 0.6):
        b.params["canards"] = True
        z = wing.root[2] - 0.05
        root = np.array([0.4 * r, 0.35 * r, z])
        tip = root + [0.12, 0.008, 0.07]
        b.pair("canard", prim.aerofoil(np.array([root, tip]), [0.09, 0.03], 0.07, [0, 1, 0]), p.paint)
    if k == "fighter" and dice.chance(0.5):
        b.params["missiles"] = True
        u = 0.93
        c = wing.leading(u) + [0, -0.008, 0.3 * wing.chord(u)]
        path = c + np.outer([-0.09, -0.06, 0.07], [0, 0, 1])
        b.pair("missile", prim.tube(path, np.array([0.1, 1, 1]) * 0.009, 8), (225, 225, 225))
    if k in ("light", "glider") and (k == "light" or dice.chance(0.3)):
        _gear(b, dice, p, wing)


def _gear(b: Builder, dice: Dice, p: _Plane, wing: _Wing) -> None:
    """Fixed undercarriage: two main wheels and a nose or tail wheel."""
    nose = dice.chance(0.6)
    b.params["gear"] = "nose" if nose else "tail"
    size = 0.026 if p.kind == "light" else 0.018
    low = -p.radius - dice.number(0.06, 0.085)
    z = wing.root[2] + (0.6 if nose else 0.12) * wing.root_chord
    foot = np.array([0.11, low, z])
    start = np.array([0.2 * p.radius, -0.6 * p.radius, z])
    b.pair("gear_leg", prim.cylinder(start, foot, 0.008, 0.006, n=8), p.paint)
    wheel = prim.cylinder(foot - [0.009, 0, 0], foot + [0.009, 0, 0], size, n=14)
    b.pair("wheel", wheel, RUBBER)
    zc = -0.44 if nose else 0.43
    c = p.centre(zc)
    end = np.array([0, low if nose else c[1] - p.size(zc) - 0.03, zc + 0.01])
    b.add("gear_leg_middle", prim.cylinder(c, end, 0.006, n=8), p.paint, "gear_leg")
    small = 0.8 * size if nose else 0.5 * size
    wheel = prim.cylinder(end - [0.007, 0, 0], end + [0.007, 0, 0], small, n=12)
    b.add("wheel_middle", wheel, RUBBER, "wheel")
