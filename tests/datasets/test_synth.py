"""Procedural shapes: every part closed and outward, reproducible, varied, connected, editable."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.datasets import synth
from reconlab.datasets.synth import primitives as prim
from reconlab.datasets.synth.parts import Part, SynthShape
from reconlab.datasets.synth.triangulate import ear_clip
from reconlab.errors import ReconlabError

CATEGORIES = synth.CATEGORIES


@functools.cache
def shape(category: str, seed: int) -> SynthShape:
    return synth.generate(category, seed)


def is_closed(faces: np.ndarray) -> bool:
    """Every directed edge occurs once and its reverse occurs once."""
    e = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    n = int(faces.max()) + 1
    forward, backward = e[:, 0] * n + e[:, 1], e[:, 1] * n + e[:, 0]
    return len(np.unique(forward)) == len(e) and bool(np.all(np.sort(forward) == np.sort(backward)))


def volume(solid: prim.Solid | Part) -> float:
    return prim.signed_volume(solid.vertices, solid.faces)


def kinds(category: str, count: int) -> Counter[str]:
    return Counter(shape(category, s).params["kind"] for s in range(count))


def legs(seed_kind: str = "four_leg", **wanted: str) -> SynthShape:
    """First chair of a kind with the given parameters."""
    for seed in range(400):
        s = synth.generate("chair", seed)
        if s.params["kind"] == seed_kind and all(s.params.get(k) == v for k, v in wanted.items()):
            return s
    raise AssertionError("no such chair among 400")


# --- parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_part_is_a_closed_outward_solid(category: str) -> None:
    for seed in range(50):
        s = shape(category, seed)
        assert len(set(s.names)) == len(s.names)
        for p in s:
            where = f"{category} {seed} {p.name}"
            assert is_closed(p.faces), where
            assert np.isfinite(p.vertices).all(), where
            assert volume(p) > 1e-9, where
            assert len(np.unique(p.faces)) == len(p.vertices), where
            t = p.vertices[p.faces]
            area = 0.5 * np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1)
            assert area.min() > 1e-11, where
            assert p.core.shape == p.vertices.shape
            assert all(0 <= c <= 255 for c in p.color)


@pytest.mark.parametrize("category", CATEGORIES)
def test_normalised_frame_and_face_budget(category: str) -> None:
    for seed in range(50):
        s = shape(category, seed)
        v, f, c = s.mesh()
        low, high = v.min(0), v.max(0)
        np.testing.assert_allclose(low + high, 0, atol=1e-6)
        assert np.linalg.norm(high - low) == pytest.approx(1, abs=1e-6)
        assert 200 <= len(f) <= 6000
        assert v.dtype == np.float32
        assert f.dtype == np.int64
        assert c.dtype == np.uint8
        assert c.shape == f.shape
        assert len(s.part_index()) == len(f)
        assert f.max() == len(v) - 1
        again = s.normalized()
        np.testing.assert_allclose(again.parts[0].vertices, s.parts[0].vertices, atol=1e-12)


@pytest.mark.parametrize("category", CATEGORIES)
def test_union_is_one_watertight_connected_piece(category: str) -> None:
    manifold3d = pytest.importorskip("manifold3d")
    rng = np.random.default_rng(1)
    for seed in range(8):
        s = shape(category, seed)
        v, f = s.union()
        assert is_closed(f)
        body = manifold3d.Manifold(manifold3d.Mesh64(v.astype(np.float64), f.astype(np.uint64)))
        assert sum(piece.volume() > 1e-9 for piece in body.decompose()) == 1, f"{category} {seed} floats apart"
        low, high = s.bounds
        inside = s.occupancy(rng.uniform(low, high, (20000, 3))).mean()
        expected = prim.signed_volume(v.astype(float), f) / np.prod(high - low)
        assert inside == pytest.approx(expected, abs=5 * np.sqrt(expected / 20000))


def test_orientation_of_the_frame() -> None:
    """Fronts look towards -z and tops towards +y."""
    for seed in range(30):
        car = shape("car", seed)
        assert car["headlight_left"].vertices[:, 2].max() < car["taillight_left"].vertices[:, 2].min()
        assert car["wheel_front_left"].bounds[0, 1] == pytest.approx(car.bounds[0, 1], abs=1e-9)
        assert car["wheel_front_right"].core[:, 0].mean() > 0 > car["wheel_front_left"].core[:, 0].mean()
        plane = shape("airplane", seed)
        tail = "fin_0" if "fin_0" in plane.names else "tailplane_right"
        assert plane[tail].vertices[:, 2].mean() > plane["cockpit"].vertices[:, 2].mean()
        chair = shape("chair", seed)
        back = [p for p in chair if p.kind == "back"]
        if back:
            assert np.mean([p.vertices[:, 2].mean() for p in back]) > chair["seat"].vertices[:, 2].mean()
            assert max(p.bounds[1, 1] for p in back) > chair["seat"].bounds[1, 1]


# --- reproducible and varied -----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_shape_and_another_another() -> None:
    for category in CATEGORIES:
        a, b = shape(category, 7), synth.generate(category, 7)
        assert a.params == b.params
        assert all(np.array_equal(p.vertices, q.vertices) for p, q in zip(a, b, strict=True))
        prints = {hashlib.sha256(shape(category, s).mesh()[0].tobytes()).hexdigest() for s in range(100)}
        assert len(prints) == 100


def test_draws_do_not_drift_between_versions() -> None:
    """Built datasets name shapes by seed, so what a seed means must not change unnoticed."""
    known = {
        "airplane": ("airliner", 12, 1478, 0.09581524),
        "car": ("hatchback", 30, 2556, 0.17040264),
        "chair": ("four_leg", 12, 568, 0.16714796),
        "lamp": ("floor", 11, 544, 0.14725733),
    }
    for category, (kind, parts, faces, spread) in known.items():
        s = shape(category, 3)
        v, f, _ = s.mesh()
        assert (s.params["kind"], len(s.parts), len(f)) == (kind, parts, faces)
        assert np.abs(v.astype(float)).mean() == pytest.approx(spread, rel=1e-5)


@pytest.mark.parametrize("category", CATEGORIES)
def test_kinds_occur_in_their_proportion(category: str) -> None:
    from importlib import import_module

    weights = import_module(f"reconlab.datasets.synth.{category}").KINDS
    total = sum(weights.values())
    found = kinds(category, 100)
    found["light"] += found.pop("biplane", 0)  # a biplane is a rare sort of light airplane
    for kind, weight in weights.items():
        assert found[kind] == pytest.approx(100 * weight / total, abs=3), kind


def test_structure_varies() -> None:
    chairs = [shape("chair", s).params for s in range(100)]
    assert {p["legs"] for p in chairs} >= {1, 2, 3, 4, 5}
    assert {p["stretcher"] for p in chairs} >= {"none", "H", "box"}
    backs = {"none", "horizontal_slats", "vertical_slats", "panel", "frame", "cross"}
    assert {p["back"] for p in chairs} >= backs
    assert {p["arms"] for p in chairs} == {"none", "posts", "solid"}
    planes = [shape("airplane", s).params for s in range(100)]
    assert {p["engines"] for p in planes} == {0, 1, 2, 4}
    assert {p["wing"] for p in planes} == {"low", "mid", "high"}
    assert {p["tail"] for p in planes} >= {"conventional", "T", "V", "twin"}
    lamps = [shape("lamp", s).params for s in range(100)]
    assert len({p["shade"] for p in lamps}) >= 8
    json.dumps([chairs, planes, lamps])  # plain values only: they are written beside a dataset


def test_bad_requests_say_what_to_do() -> None:
    with pytest.raises(ReconlabError, match="airplane, car, chair, lamp"):
        synth.generate("sofa", 0)
    with pytest.raises(ReconlabError, match="seed is -1"):
        synth.generate("chair", -1)
    with pytest.raises(ReconlabError, match=r"no part 'leg_9'.*leg_0"):
        synth.thicken(legs(), "leg_9", 2.0)
    with pytest.raises(ReconlabError, match="factor is 0"):
        synth.lengthen(legs(), "leg_0", 0.0)
    with pytest.raises(ReconlabError, match="no back"):
        synth.bend_back(shape("lamp", 0), 10)
    with pytest.raises(ReconlabError, match="leave nothing"):
        synth.remove_part(legs(), "*")


# --- edits -----------------------------------------------------------------------------------------------


def untouched(before: SynthShape, after: SynthShape, names: set[str]) -> bool:
    rest = [p.name for p in before if p.name not in names]
    return all(np.array_equal(before[n].vertices, after[n].vertices) for n in rest)


def test_thicken_scales_the_cross_section_only() -> None:
    chair = legs(leg_style="round")
    thick = synth.thicken(chair, "leg_*", 1.5)
    for i in range(4):
        a, b = chair[f"leg_{i}"], thick[f"leg_{i}"]
        assert volume(b) == pytest.approx(2.25 * volume(a), rel=1e-9)
        np.testing.assert_allclose(b.core, a.core)
    assert untouched(chair, thick, {f"leg_{i}" for i in range(4)})
    assert thick.bounds[0, 1] == pytest.approx(chair.bounds[0, 1], abs=0.01)


def test_thicken_a_plate_changes_its_thickness_only() -> None:
    chair = legs(back="panel")
    panel, thick = chair["back_panel"], synth.thicken(chair, "back_panel", 2.0)["back_panel"]
    assert volume(thick) == pytest.approx(2 * volume(panel), rel=0.05)
    assert np.ptp(thick.vertices[:, 0]) == pytest.approx(np.ptp(panel.vertices[:, 0]), rel=0.02)


def test_lengthen_keeps_the_top_and_moves_the_foot() -> None:
    chair = legs(leg_style="square")
    longer = synth.lengthen(chair, ["leg_1", "leg_2"], 1.4)
    for name in ("leg_1", "leg_2"):
        a, b = chair[name], longer[name]
        assert b.bounds[1, 1] == pytest.approx(a.bounds[1, 1], abs=1e-9)
        reach = np.linalg.norm(np.ptp(a.core, axis=0))
        assert np.linalg.norm(np.ptp(b.core, axis=0)) == pytest.approx(1.4 * reach)
        assert b.bounds[0, 1] < a.bounds[0, 1] - 0.3 * reach
        assert is_closed(b.faces)
        assert volume(b) == pytest.approx(1.4 * volume(a), rel=1e-6)
    assert untouched(chair, longer, {"leg_1", "leg_2"})
    assert len(synth.lengthen(chair, "leg_0", 0.5).parts) == len(chair.parts)


def test_what_hangs_on_a_part_goes_with_it() -> None:
    chair = legs("swivel")
    longer = synth.lengthen(chair, "leg_0", 1.5)
    moved = longer["castor_0"].vertices.mean(0) - chair["castor_0"].vertices.mean(0)
    end = longer["leg_0"].core - chair["leg_0"].core
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(end, axis=1).max(), rel=0.1)
    gone = synth.remove_part(chair, "leg_0")
    assert set(chair.names) - set(gone.names) == {"leg_0", "castor_0", "pin_0"}
    car = synth.remove_part(shape("car", 0), "wheel_front_left")
    assert not [n for n in car.names if n.startswith("rim_front") and n.endswith("left")]


def test_remove_and_move_a_bar() -> None:
    chair = legs(stretcher="H")
    bars = [p for p in chair if p.kind == "bar"]
    assert len(bars) == 3
    less = synth.remove_part(chair, "bar_2")
    assert len(less.parts) == len(chair.parts) - 1
    assert untouched(less, chair, set())
    moved = synth.move_part(chair, "bar_2", (0.0, 0.05, -0.02))
    shift = moved["bar_2"].vertices - chair["bar_2"].vertices
    np.testing.assert_allclose(shift, np.broadcast_to([0, 0.05, -0.02], shift.shape), atol=1e-12)
    assert untouched(chair, moved, {"bar_2"})


def test_bend_back_tilts_the_top_and_keeps_lengths() -> None:
    chair = legs(back="vertical_slats", arms="none")
    bent = synth.bend_back(chair, 30)
    a, b = chair["back_post_0"], bent["back_post_0"]
    top = np.argmax(a.core[:, 1])
    assert b.core[top, 2] > a.core[top, 2] + 0.02
    assert b.core[top, 1] < a.core[top, 1]
    foot = np.argmin(a.core[:, 1])
    np.testing.assert_allclose(b.core[foot], a.core[foot], atol=1e-9)
    assert volume(b) == pytest.approx(volume(a), rel=0.1)
    assert untouched(chair, bent, {p.name for p in chair if p.kind == "back"})
    same = synth.bend_back(chair, 0)
    np.testing.assert_allclose(same["back_post_0"].vertices, a.vertices, atol=1e-12)


# --- occupancy -------------------------------------------------------------------------------------------


def one(solid: prim.Solid, *more: prim.Solid) -> SynthShape:
    parts = [
        Part(f"p_{i}", s.vertices, s.faces, (0, 0, 0), "p", s.core, s.core[0]) for i, s in enumerate((solid, *more))
    ]
    return SynthShape("chair", 0, {}, tuple(parts))


def test_occupancy_of_boxes_is_exact() -> None:
    s = one(prim.box([-0.3, -0.2, -0.1], [0.1, 0.2, 0.3]), prim.box([0, 0, 0], [0.4, 0.4, 0.4]))
    p = np.random.default_rng(0).uniform(-0.5, 0.5, (50000, 3))
    first = np.all((p > [-0.3, -0.2, -0.1]) & (p < [0.1, 0.2, 0.3]), axis=1)
    second = np.all((p > 0) & (p < 0.4), axis=1)
    assert np.array_equal(s.occupancy(p), first | second)


def test_occupancy_of_a_regular_grid_has_no_stray_rays() -> None:
    """Axis-aligned boxes and grid-aligned points: rays that would run along edges and through corners."""
    s = one(prim.box([-0.25, -0.25, -0.25], [0.25, 0.25, 0.25]))
    g = (np.arange(32) + 0.5) / 32 - 0.5
    p = np.stack(np.meshgrid(g, g, g, indexing="ij"), -1).reshape(-1, 3)
    assert np.array_equal(s.occupancy(p), np.abs(p).max(1) < 0.25)


def test_occupancy_of_a_hollow_shell_and_a_non_convex_profile() -> None:
    ring = prim.revolve([[0.2, -0.1], [0.3, -0.1], [0.3, 0.1], [0.2, 0.1]], 64, closed=True)
    p = np.random.default_rng(0).uniform(-0.5, 0.5, (20000, 3))
    r = np.hypot(p[:, 0], p[:, 2])
    sure = (np.abs(r - 0.2) > 0.005) & (np.abs(r - 0.3) > 0.005)
    expected = (r > 0.2) & (r < 0.3) & (np.abs(p[:, 1]) < 0.1)
    assert np.array_equal(one(ring).occupancy(p)[sure], expected[sure])
    bracket = prim.slab([[-0.4, -0.4], [0.4, -0.4], [0.4, -0.2], [-0.2, -0.2], [-0.2, 0.4], [-0.4, 0.4]], -0.1, 0.1)
    expected = (np.abs(p) < [0.4, 0.1, 0.4]).all(1) & ((p[:, 0] < -0.2) | (p[:, 2] < -0.2))
    assert np.array_equal(one(bracket).occupancy(p), expected)


# --- primitives ------------------------------------------------------------------------------------------

size = st.floats(0.05, 3.0)
coordinate = st.floats(-2.0, 2.0)


@settings(max_examples=40, deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate), st.tuples(size, size, size), st.floats(0.01, 0.45))
def test_box_volumes(low: tuple[float, ...], extent: tuple[float, ...], bevel: float) -> None:
    lo, e = np.array(low), np.array(extent)
    assert volume(prim.box(lo, lo + e)) == pytest.approx(np.prod(e), rel=1e-9)
    round_box = prim.rounded_box(lo, e, bevel * e.min(), 2)
    assert is_closed(round_box.faces)
    assert 0.2 * np.prod(e) < volume(round_box) < np.prod(e)
    np.testing.assert_allclose(np.ptp(round_box.vertices, axis=0), e, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(coordinate, coordinate, coordinate),
    st.tuples(coordinate, coordinate, coordinate),
    size,
    st.floats(0.0, 2.0),
    st.integers(3, 24),
)
def test_frustum_volumes_along_any_axis(
    a: tuple[float, ...], d: tuple[float, ...], ra: float, rb: float, n: int
) -> None:
    start, way = np.array(a), np.array(d) + np.array([0, 0, 5.0])
    rb = 0.0 if rb < 1e-3 else rb
    solid = prim.cylinder(start, start + way, ra, rb, n)
    polygon = 0.5 * n * np.sin(2 * np.pi / n)
    expected = polygon * np.linalg.norm(way) * (ra * ra + ra * rb + rb * rb) / 3
    assert is_closed(solid.faces)
    assert volume(solid) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(size, size), min_size=2, max_size=6), st.integers(3, 30))
def test_revolution_volumes(steps: list[tuple[float, float]], n: int) -> None:
    y = np.cumsum([s[1] for s in steps])
    r = np.array([s[0] for s in steps])
    solid = prim.revolve(np.stack([r, y], 1), n)
    polygon = 0.5 * n * np.sin(2 * np.pi / n)
    expected = polygon * np.sum(np.diff(y) * (r[1:] ** 2 + r[1:] * r[:-1] + r[:-1] ** 2) / 3)
    assert is_closed(solid.faces)
    assert volume(solid) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.2, 1.0), min_size=4, max_size=24), st.booleans())
def test_ear_clipping_fills_star_shaped_polygons(radii: list[float], clockwise: bool) -> None:
    a = 2 * np.pi * np.arange(len(radii)) / len(radii)
    p = np.stack([np.cos(a), np.sin(a)], 1) * np.array(radii)[:, None]
    area = 0.5 * np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))
    if clockwise:
        p = p[::-1]
    t = p[ear_clip(p)]
    u, v = t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]
    pieces = 0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    assert pieces.min() > -1e-9
    assert pieces.sum() == pytest.approx(area, rel=1e-9)


def test_tube_joints_are_mitred_and_its_volume_is_section_times_length() -> None:
    path = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1.5]], float)
    solid = prim.tube(path, 0.1, 12)
    assert is_closed(solid.faces)
    assert volume(solid) == pytest.approx(3.5 * 0.01 * 0.5 * 12 * np.sin(np.pi / 6), rel=1e-9)


def test_mirror_and_rotation_keep_solids_outward() -> None:
    wing = prim.aerofoil([[0, 0, 0], [1, 0.1, 0.3]], [0.4, 0.2], 0.12, [0, 1, 0])
    assert volume(wing.mirrored()) == pytest.approx(volume(wing))
    turned = wing.transformed(prim.rotation([1, 2, 3], 70), [0.5, 0, 0])
    assert volume(turned) == pytest.approx(volume(wing))
    np.testing.assert_allclose(prim.rotation([0, 1, 0], 90) @ [0, 0, 1], [1, 0, 0], atol=1e-12)
