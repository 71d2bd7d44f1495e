"""Engines, propellers, windows, weapons and undercarriage of airplanes."""

# ruff: noqa: RUF005 (vector sums of an array and a list, not concatenations)

from __future__ import annotations

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.airplane_plan import Plane, Wing
from reconlab.datasets.synth.parts import GLASS, METAL, RUBBER, Builder, Dice, shade
from reconlab.datasets.synth.primitives import Array


def _nacelle(radius: float, length: float) -> prim.Solid:
    """Turbofan along z, inlet at z = 0 facing -z."""
    u = np.array([[0.0, 0.34], [0.80, 0.30], [0.84, 0.02], [0.92, 0.0], [1.0, 0.16], [1.0, 0.45], [0.78, 0.82],
                  [0.5, 0.85],                  [0.36, 1.0], [0.0, 1.12]])  # fmt: skip
    return prim.revolve(u * [radius, length], 14).transformed(prim.rotation([1, 0, 0], 90))


def _propeller(b: Builder, dice: Dice, name: str, hub: Array, radius: float, blades: int, phase: float) -> None:
    engine = f"engine_{name}" if f"engine_{name}" in [p.name for p in b.parts] else None
    size = 0.13 * radius
    cone = prim.tube(
        hub + np.array([[0, 0, 0.5], [0, 0, -0.7], [0, 0, -1.6]]) * size, np.array([1.0, 0.85, 0.12]) * size, 10
    )
    b.add(f"spinner_{name}", cone, (60, 60, 64), "propeller", follows=engine)
    for k in range(blades):
        a = 2 * np.pi * k / blades + phase
        d = np.array([np.cos(a), np.sin(a), 0.0])
        side = np.cross([0, 0, 1.0], d)
        pitch = 0.75 * side + 0.45 * np.array([0, 0, 1.0])
        path = hub + np.outer([0.0, 0.4, 0.9, 1.0], d) * radius - [0, 0, 0.4 * size]
        wide = np.array([0.35, 0.75, 0.55, 0.3])[:, None] * 0.11 * radius * pitch
        thin = prim.unit(np.cross(pitch, d)) * 0.016 * radius
        b.add(f"blade_{name}_{k}", prim.ribbon(path, wide, thin), (48, 48, 52), "propeller", follows=engine)


def engines(b: Builder, dice: Dice, p: Plane, wing: Wing, tail: str) -> None:
    """Engines that suit the kind: under the wing, at the rear, propellers, or nozzles and intakes."""
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
            b.pair(f"engine_{i}", _nacelle(radius, length).moved(axis), metal, "engine", "wing")
            low = axis + [0, 0.7 * radius, 0.35 * length]
            path = np.array([low, edge + [0, 0.006, 0.30 * wing.chord(u)]])
            half = np.array([0, 0, 1.0]) * np.array([[0.30 * length], [0.25 * length]])
            b.pair(f"pylon_{i}", prim.ribbon(path, half, [0.004, 0, 0]), p.paint, "pylon", "wing")
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
            reach = np.array([-0.085, -0.07, -0.02, 0.5 * wing.chord(u), 0.95 * wing.chord(u)])
            path = edge + np.outer(reach, [0, 0, 1])
            solid = prim.tube(path, np.array([0.45, 0.8, 1.0, 0.9, 0.15]) * size, 12, up=[0, 1, 0])
            b.pair(f"engine_{i}", solid, p.paint, "engine", "wing")
            hub = edge + [0, 0, -0.087]
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


def details(b: Builder, dice: Dice, p: Plane, wing: Wing) -> None:
    """Windows, canopies, canards, missiles and undercarriage."""
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
            x, y = 0.8 * r, 0.45 * r
            low = np.array([[-x, y, z - 0.10], [x, y, z - 0.10], [x, y, z + 0.22], [-x, y, z + 0.22]])
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
        b.pair("missile", prim.tube(path, np.array([0.1, 1, 1]) * 0.009, 8), (225, 225, 225), "missile", "wing")
    if k in ("light", "glider") and (k == "light" or dice.chance(0.3)):
        _gear(b, dice, p, wing)


def _gear(b: Builder, dice: Dice, p: Plane, wing: Wing) -> None:
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
    b.pair("wheel", wheel, RUBBER, "wheel", "gear_leg")
    zc = -0.44 if nose else 0.43
    c = p.centre(zc)
    end = np.array([0, low if nose else c[1] - p.size(zc) - 0.03, zc + 0.01])
    b.add("gear_leg_middle", prim.cylinder(c, end, 0.006, n=8), p.paint, "gear_leg")
    small = 0.8 * size if nose else 0.5 * size
    wheel = prim.cylinder(end - [0.007, 0, 0], end + [0.007, 0, 0], small, n=12)
    b.add("wheel_middle", wheel, RUBBER, "wheel", follows="gear_leg_middle")
