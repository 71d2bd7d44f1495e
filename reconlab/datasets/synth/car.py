"""Procedural cars: a lower body with wheel arches, a tapered cabin, wheels and trim."""

from __future__ import annotations

import dataclasses

import numpy as np

from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.parts import GLASS, METAL, RUBBER, Builder, Color, Dice, shade
from reconlab.datasets.synth.primitives import Array

KINDS = {
    "sedan": 0.24, "hatchback": 0.18, "wagon": 0.10, "suv": 0.16, "van": 0.08, "sports": 0.15, "pickup": 0.09,
}  # fmt: skip
PAINT: tuple[Color, ...] = (
    (180, 40, 40), (40, 70, 140), (205, 205, 205), (50, 52, 56), (140, 145, 150), (225, 190, 60), (40, 100, 70),
    (90, 30, 50), (230, 120, 40), (120, 160, 190),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Range:
    """Ranges per body kind: metres, then fractions of the length from the nose."""

    length: tuple[float, float]
    height: tuple[float, float]
    width: tuple[float, float]
    clearance: tuple[float, float]
    wheel: tuple[float, float]  # radius
    belt: tuple[float, float]  # fraction of the height
    hood: tuple[float, float]  # foot of the windscreen
    roof: tuple[float, float]  # front of the roof
    roof_end: tuple[float, float]
    rear: tuple[float, float]  # foot of the rear window


BODY = {
    "sedan": _Range((4.4, 5.0), (1.40, 1.50), (1.76, 1.88), (0.17, 0.22), (0.31, 0.34), (0.60, 0.66),
                    (0.26, 0.31), (0.40, 0.44), (0.64, 0.70), (0.80, 0.86)),
    "hatchback": _Range((3.6, 4.3), (1.44, 1.56), (1.66, 1.80), (0.17, 0.22), (0.29, 0.33), (0.58, 0.64),
                        (0.22, 0.27), (0.35, 0.41), (0.82, 0.89), (0.94, 0.97)),
    "wagon": _Range((4.5, 5.0), (1.42, 1.54), (1.76, 1.86), (0.17, 0.22), (0.31, 0.34), (0.59, 0.64),
                    (0.25, 0.29), (0.37, 0.42), (0.87, 0.93), (0.955, 0.98)),
    "suv": _Range((4.2, 5.0), (1.64, 1.86), (1.80, 1.96), (0.24, 0.34), (0.36, 0.42), (0.60, 0.66),
                  (0.24, 0.28), (0.33, 0.38), (0.86, 0.93), (0.955, 0.98)),
    "van": _Range((4.5, 5.3), (1.80, 2.15), (1.80, 1.98), (0.19, 0.25), (0.32, 0.36), (0.50, 0.57),
                  (0.12, 0.18), (0.23, 0.29), (0.94, 0.965), (0.975, 0.985)),
    "sports": _Range((4.1, 4.6), (1.14, 1.28), (1.80, 1.95), (0.11, 0.16), (0.285, 0.315), (0.62, 0.68),
                     (0.31, 0.38), (0.46, 0.51), (0.60, 0.68), (0.86, 0.94)),
    "pickup": _Range((5.0, 5.7), (1.70, 1.88), (1.86, 2.00), (0.26, 0.36), (0.36, 0.40), (0.59, 0.64),
                     (0.25, 0.29), (0.33, 0.37), (0.50, 0.58), (0.545, 0.62)),
}  # fmt: skip


@dataclasses.dataclass
class _Car:
    kind: str
    length: float
    width: float
    height: float
    clearance: float
    wheel: float
    belt: float
    axles: tuple[float, float]  # z
    paint: Color
    cowl: float  # z of the windscreen's foot
    rear: float  # z of the rear window's foot
    roof: tuple[float, float]  # z
    arch: float  # radius of the wheel arches
    bed_floor: float = 0.0  # height of a pickup's load bed


def build(b: Builder, dice: Dice) -> None:
    """Add the parts of one car to the builder (metres, road at y = 0, nose at -z)."""
    kind = dice.kind(KINDS)
    r = BODY[kind]
    length, height = dice.number(*r.length), dice.number(*r.height)

    def z(fraction: float) -> float:
        return (fraction - 0.5) * length

    wheel = dice.number(*r.wheel)
    front, back = dice.number(0.165, 0.20), dice.number(0.785, 0.83)
    car = _Car(
        kind=kind,
        length=length,
        width=dice.number(*r.width),
        height=height,
        clearance=dice.number(*r.clearance),
        wheel=wheel,
        belt=height * dice.number(*r.belt),
        axles=(z(front), z(back)),
        paint=dice.color(PAINT),
        cowl=z(dice.number(*r.hood)),
        rear=z(dice.number(*r.rear)),
        roof=(z(dice.number(*r.roof)), z(dice.number(*r.roof_end))),
        arch=wheel * dice.number(1.09, 1.15),
    )
    car.bed_floor = wheel + car.arch + 0.04
    car.belt = max(car.belt, wheel + car.arch + (0.16 if kind == "pickup" else 0.10))
    if kind == "pickup" and dice.chance(0.4):  # a double cabin
        shift = 0.09 * length
        car.roof = (car.roof[0], car.roof[1] + shift)
        car.rear += shift
    b.params.update(kind=kind, wheels=4, length=round(length, 3), height=round(height, 3))
    bed = kind == "pickup"
    _body(b, dice, car)
    if kind == "sports" and dice.chance(0.2):
        b.params["roof"] = "open"
        _open_top(b, dice, car)
    else:
        b.params["roof"] = "closed"
        _cabin(b, dice, car)
    if bed:
        _bed(b, car)
    _wheels(b, dice, car)
    _trim(b, dice, car)


def _arc(centre: float, radius: float, wheel: float, floor: float, n: int = 8) -> Array:
    """Wheel-arch points (z, y) from front to rear, above y = floor."""
    low = np.arcsin(np.clip((floor - wheel) / radius, -0.99, 0.99))
    a = np.linspace(np.pi - low, low, n)
    return np.stack([centre + radius * np.cos(a), wheel + radius * np.sin(a)], 1)


def _hood(c: _Car, nose_top: float) -> list[list[float]]:
    """Hood line (z, y) from the nose to the windscreen's foot."""
    half = c.length / 2
    middle = [0.45 * (-half) + 0.55 * c.cowl, nose_top + 0.72 * (c.belt - nose_top)]
    return [[-half + 0.17, nose_top], middle, [c.cowl, c.belt]]


def _clear_arch(c: _Car, nose_top: float) -> float:
    """Raise the nose until the hood line, lowered at the sides, clears the front wheel arch."""
    z = np.linspace(-c.arch, c.arch, 15)
    needed = c.wheel + np.sqrt(c.arch**2 - z**2) + 0.045
    while nose_top < c.belt:
        line = np.array(_hood(c, nose_top))
        if np.all(np.interp(z + c.axles[0], line[:, 0], line[:, 1], left=nose_top) > needed):
            break
        nose_top += 0.01
    return nose_top


def _body(b: Builder, dice: Dice, c: _Car) -> None:
    """Lower body: its side profile lofted across the width, rounded towards both sides."""
    half, floor, arch = c.length / 2, c.clearance, c.arch
    nose_top = floor + (c.belt - floor) * dice.number(0.62, 0.82)
    if c.kind in ("suv", "pickup"):
        nose_top = floor + (c.belt - floor) * dice.number(0.82, 0.92)
    tail_top = c.belt - (c.belt - floor) * (dice.number(0.0, 0.10) if c.kind != "sports" else dice.number(0, 0.16))
    nose_top = _clear_arch(c, nose_top)
    bumper = floor + 0.45 * (nose_top - floor)
    deck = c.belt * (0.985 if c.kind in ("sedan", "sports") else 1.0)
    rear_top: list[list[float]] = [[c.rear, c.belt], [half - 0.10, deck - 0.5 * (c.belt - tail_top)]]
    if c.kind == "pickup":
        edge = c.rear + 0.03
        rear_top = [[edge - 0.01, c.belt], [edge, c.bed_floor], [half - 0.03, c.bed_floor]]
        tail_top = c.bed_floor - 0.02
    top = [
        [-half + 0.06, floor],
        [-half, floor + 0.08],
        [-half, bumper],
        [-half + 0.05, nose_top - 0.05],
        [-half + 0.17, nose_top],
        *_hood(c, nose_top)[1:],
        *rear_top,
        [half - 0.02, tail_top - 0.06],
        [half, floor + 0.5 * (tail_top - floor)],
        [half - 0.02, floor + 0.08],
        [half - 0.10, floor],
    ]
    arches = [_arc(a, arch, c.wheel, floor) for a in c.axles]
    profile = np.concatenate([np.array(top), arches[1][::-1], arches[0][::-1]])
    fixed = np.zeros(len(profile), bool)
    fixed[len(top) :] = True
    w = c.width / 2
    plan = dice.number(0.90, 0.955)  # how much the nose and tail are drawn in at the sides
    tumble = dice.number(0.955, 0.985)
    rings = []
    for x, k in [(-1, 1.0), (-0.97, 0.45), (-0.6, 0.08), (0.6, 0.08), (0.97, 0.45), (1, 1.0)]:
        q = profile.copy()
        q[~fixed, 0] *= 1 - k * (1 - plan) * np.abs(q[~fixed, 0] / half) ** 3
        high = np.clip((q[:, 1] - floor) / (c.belt - floor), 0, 1)
        q[~fixed, 1] -= ((1 - tumble) * k * c.belt * high**3)[~fixed]
        rings.append(np.stack([np.full(len(q), x * w), q[:, 1], q[:, 0]], 1))
    r = np.array(rings)
    core = np.broadcast_to(r.mean(1, keepdims=True), r.shape) * [1, 0, 0] + r * [0, 1, 1]
    b.add("body", prim.loft(r, core=core * [0, 1, 1]), c.paint, "body")
    inner = w - 0.27  # closes the wheel arches inwards
    b.add(
        "underbody",
        prim.box([-inner, floor - 0.01, -half + 0.2], [inner, 0.5 * (floor + c.belt), half - 0.2]),
        (45, 46, 50),
        "body",
    )


def _cabin(b: Builder, dice: Dice, c: _Car) -> None:
    """Greenhouse: a tapered block with a crowned roof, and its windows as panels set into its faces."""
    low_w = c.width / 2 * dice.number(0.90, 0.95)
    top_w = low_w * (dice.number(0.86, 0.93) if c.kind == "van" else dice.number(0.74, 0.86))
    y0, y1 = c.belt - 0.03, c.height - 0.045

    def ring(y: float, w: float, z0: float, z1: float) -> Array:
        return np.array([[-w, y, z0], [w, y, z0], [w, y, z1], [-w, y, z1]])

    rear = c.rear if c.kind != "pickup" else c.rear - 0.02
    bottom, top = ring(y0, low_w, c.cowl, rear), ring(y1, top_w, *c.roof)
    span = c.roof[1] - c.roof[0]
    crown = ring(c.height, top_w * 0.72, c.roof[0] + 0.16 * span, c.roof[1] - 0.13 * span)
    rings = np.array([bottom, top, crown])
    b.add("cabin", prim.loft(rings), c.paint, "cabin")

    def window(name: str, face: Array, u0: float, u1: float, v0: float, v1: float) -> None:
        """Panel on a quad face (corners: low a, low b, high b, high a), a little proud of it."""

        def at(u: float, v: float) -> Array:
            low, high = face[0] + u * (face[1] - face[0]), face[3] + u * (face[2] - face[3])
            return low + v * (high - low)

        quad = np.array([at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)])
        b.add(name, prim.plate(quad, 0.024), GLASS, "window")

    v0 = (0.03 + 0.02) / (y1 - y0)
    front = np.array([bottom[0], bottom[1], top[1], top[0]])
    back = np.array([bottom[3], bottom[2], top[2], top[3]])
    window("windscreen", front, 0.05, 0.95, v0, 0.93)
    if not (c.kind == "van" and dice.chance(0.4)):
        window("rear_window", back, 0.08, 0.92, v0 + 0.04, 0.9)
    panes = {"sports": 1, "pickup": 1, "sedan": 2, "hatchback": 2}.get(c.kind, 3)
    if c.kind == "pickup" and span > 0.25 * c.length:
        panes = 2
    if c.kind == "sports" and dice.chance(0.5):
        panes = 2
    cargo = c.kind == "van" and dice.chance(0.45)
    b.params.update(side_windows=1 if cargo else panes)
    # in the side face, u runs from the front to the rear; pillars at equal distances between slanted ends
    for side, (i, j) in {"right": (1, 2), "left": (0, 3)}.items():
        face = np.array([bottom[i], bottom[j], top[j], top[i]])
        edges = np.linspace(0.06, 0.93, panes + 1)
        for k in range(1 if cargo else panes):
            window(f"side_window_{side}_{k}", face, edges[k] + 0.012, edges[k + 1] - 0.012, v0, 0.9)


def _open_top(b: Builder, dice: Dice, c: _Car) -> None:
    """Roadster: windscreen frame, seats and roll bars instead of a cabin."""
    w = c.width / 2 * 0.86
    top = c.belt + 0.85 * (c.height - c.belt)
    z1 = c.cowl + 0.65 * (c.roof[0] - c.cowl)
    quad = np.array(
        [[-w, c.belt - 0.03, c.cowl], [w, c.belt - 0.03, c.cowl], [0.88 * w, top, z1], [-0.88 * w, top, z1]]
    )
    b.add("windscreen", prim.plate(quad, 0.035), GLASS, "window")
    interior = dice.color(((60, 45, 40), (40, 40, 44), (150, 110, 70)))
    z_seat = 0.5 * (c.roof[0] + c.roof[1])
    b.add(
        "cockpit",
        prim.box([-0.8 * w, c.belt - 0.1, z1 - 0.05], [0.8 * w, c.belt + 0.012, z_seat + 0.3]),
        interior,
        "seat",
    )
    seat = prim.rounded_box([0.36 * w, c.belt + 0.08, z_seat], [0.5, 0.3, 0.16], 0.05)
    b.pair("seat", seat, shade(interior, 1.25))
    bar = prim.rounded_box([0.36 * w, c.belt + 0.08, z_seat + 0.2], [0.42, 0.32, 0.06], 0.025)
    b.pair("roll_bar", bar, (60, 60, 64))


def _bed(b: Builder, c: _Car) -> None:
    """Walls and tailgate of a pickup's load bed."""
    floor = c.bed_floor
    z0, z1, w = c.rear, c.length / 2 - 0.03, c.width / 2
    wall = prim.box([w - 0.12, floor - 0.05, z0], [w - 0.02, c.belt - 0.05, z1])
    b.pair("bed_wall", wall, c.paint)
    gate = prim.box([-w + 0.1, floor - 0.05, z1 - 0.07], [w - 0.1, c.belt - 0.06, z1 - 0.005])
    b.add("tailgate", gate, shade(c.paint, 0.92), "bed_wall")


def _wheels(b: Builder, dice: Dice, c: _Car) -> None:
    r, t = c.wheel, dice.number(0.18, 0.24)
    rim = dice.number(0.58, 0.72)
    color = dice.color(METAL)
    spokes = dice.integer(4, 7) if dice.chance(0.6) else 0
    b.params["spokes"] = spokes
    profile = np.array([[0, -0.36], [rim, -0.36], [rim + 0.02, -0.5], [0.93, -0.5], [1, -0.34], [1, 0.34],
                        [0.93, 0.5],                        [rim + 0.02, 0.5], [rim, 0.36], [0, 0.36]])  # fmt: skip
    tyre = prim.revolve(profile * [r, t], 20)
    turn = prim.rotation([0, 0, 1], -90)  # the axle, y, becomes +x
    x = c.width / 2 - t / 2 - 0.005
    for axle, z in zip(("front", "rear"), c.axles, strict=True):
        solid = tyre.transformed(turn).moved([x, r, z])
        b.add(f"axle_{axle}", prim.cylinder([-x, r, z], [x, r, z], 0.05, n=8), (60, 60, 64), "axle")
        b.pair(f"wheel_{axle}", solid, RUBBER, "wheel")
        face = x + 0.36 * t
        if spokes:
            ring = prim.cylinder([face - 0.02, r, z], [face + 0.008, r, z], rim * r * 0.97, n=16)
            b.pair(f"rim_{axle}", ring, shade(color, 0.45), "hub", f"wheel_{axle}")
            for k in range(spokes):
                a = 2 * np.pi * k / spokes
                end = np.array([face + 0.012, r + 0.96 * rim * r * np.cos(a), z + 0.96 * rim * r * np.sin(a)])
                spoke = prim.beam([face + 0.012, r, z], end, 0.085, 0.03, 0.7, up=(1, 0, 0))
                b.pair(f"spoke_{axle}_{k}", spoke, color, "hub", f"wheel_{axle}")
        else:
            disc = prim.cylinder([face - 0.02, r, z], [face + 0.02, r, z], rim * r * 0.97, rim * r * 0.8, n=14)
            b.pair(f"rim_{axle}", disc, color, "hub", f"wheel_{axle}")


def _trim(b: Builder, dice: Dice, c: _Car) -> None:
    half, w = c.length / 2, c.width / 2
    height = c.belt - c.clearance
    dark = (40, 41, 44) if dice.chance(0.5) else shade(c.paint, 0.8)
    bumper = [2 * w * 0.86, 0.26 * height, 0.18]
    y = c.clearance + 0.28 * height
    b.add("bumper_front", prim.rounded_box([0, y, -half + 0.05], bumper, 0.05), dark, "bumper")
    b.add("bumper_rear", prim.rounded_box([0, y, half - 0.05], bumper, 0.05), dark, "bumper")
    y_light = c.clearance + 0.62 * height
    if c.kind == "sports":
        y_light = c.clearance + 0.52 * height
    size = [dice.number(0.26, 0.4), dice.number(0.09, 0.16), 0.16]
    b.pair("headlight", prim.rounded_box([0.66 * w, y_light, -half + 0.09], size, 0.03), (240, 240, 225), "light")
    size = [dice.number(0.16, 0.36), dice.number(0.10, 0.2), 0.14]
    y_tail = c.clearance + (0.4 if c.kind == "pickup" else 0.66) * height
    b.pair("taillight", prim.rounded_box([0.68 * w, y_tail, half - 0.075], size, 0.03), (190, 30, 30), "light")
    grille = [2 * w * dice.number(0.3, 0.44), 0.17 * height, 0.10]
    b.add("grille", prim.rounded_box([0, y_light - 0.02, -half + 0.045], grille, 0.015), (35, 36, 38), "grille")
    side = w * 0.96
    mirror = prim.rounded_box([side + 0.06, c.belt + 0.03, c.cowl + 0.32], [0.28, 0.13, 0.09], 0.03)
    b.pair("mirror", mirror, c.paint if dice.chance(0.6) else dark)
    low = [w - 0.09, c.clearance - 0.02, c.axles[0] + 1.35 * c.wheel]
    sill = prim.box(low, [w - 0.004, c.clearance + 0.1, c.axles[1] - 1.35 * c.wheel])
    b.pair("sill", sill, dark)
    closed = b.params["roof"] == "closed"
    extras = []
    if closed and c.kind in ("wagon", "suv", "van") and dice.chance(0.5):
        extras.append("roof_rack")
        a, e = c.roof[0] + 0.25, c.roof[1] - 0.25
        x = 0.5 * w
        up, down = c.height + 0.035, c.height - 0.05
        rail = prim.tube([[x, down, a], [x, up, a + 0.08], [x, up, e - 0.08], [x, down, e]], 0.025, 6)
        b.pair("roof_rail", rail, (60, 60, 64))
    if (c.kind == "sports" and dice.chance(0.5)) or (c.kind in ("sedan", "hatchback") and dice.chance(0.12)):
        extras.append("spoiler")
        deck, z = c.belt - 0.06, half - 0.22
        if c.kind == "hatchback":
            deck, z = c.height - 0.07, c.roof[1] - 0.08
        up = dice.number(0.08, 0.24) if c.kind != "hatchback" else 0.09
        wing = prim.beam([-0.8 * w, deck + up, z + 0.05], [0.8 * w, deck + up, z + 0.05], 0.24, 0.035)
        b.add("spoiler", wing, c.paint, "spoiler")
        b.pair(
            "spoiler_post", prim.box([0.5 * w, deck - 0.1, z], [0.5 * w + 0.05, deck + up, z + 0.1]), dark, "spoiler"
        )
    if c.kind == "suv" and dice.chance(0.3):
        extras.append("spare_wheel")
        spare = prim.cylinder([0, c.belt - 0.08, half - 0.1], [0, c.belt - 0.08, half + 0.16], 0.85 * c.wheel, n=18)
        b.add("spare_wheel", spare, RUBBER, "spare_wheel")
    b.params["extras"] = extras
