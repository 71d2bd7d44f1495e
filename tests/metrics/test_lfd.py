"""LFD: invariances to the last bit, the original program's distances on real meshes, failures, odd meshes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.kernels.lfd import default_cameras, describe, distances
from reconlab.kernels.lfd.cameras import dodecahedron, half_turns, rotations
from reconlab.metrics import LFD, lfd_descriptor, lfd_distance
from reconlab.shapes import Mesh

OURS = default_cameras()


def box(low, high) -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=[low, high])


def chair(back: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A lopsided chair of boxes, one of whose legs is short."""
    parts = [box([-0.2, 0, -0.2], [0.2, 0.05, 0.22]), box([-0.2, 0, -0.2], [0.17, back, -0.16])]
    parts += [
        box([x, -0.3 + 0.1 * (x * z > 0.03), z], [x + 0.04, 0, z + 0.03]) for x in (-0.2, 0.16) for z in (-0.2, 0.19)
    ]
    joined = trimesh.util.concatenate(parts)
    return np.array(joined.vertices), np.array(joined.faces)


def as_mesh(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    return Mesh(torch.from_numpy(np.asarray(vertices)), torch.from_numpy(np.asarray(faces, dtype=np.int64)))


def between(a: np.ndarray, b: np.ndarray) -> int:
    return int(distances(a, b[None])[0])


@settings(deadline=None, max_examples=6)
@given(
    scale=st.floats(1e-4, 1e6),
    shift=st.tuples(*[st.floats(-10, 10)] * 3),
    seed=st.integers(0, 2**31),
)
def test_scale_shift_and_the_order_of_faces_change_nothing(scale, shift, seed):
    vertices, faces = chair()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(vertices))
    moved = np.empty_like(vertices)
    moved[order] = (vertices + shift) * scale
    shuffled = np.roll(order[rng.permutation(faces)], seed % 3, axis=1)
    moved = np.concatenate([moved, [[np.nan, 1e9, 0]]])  # no face uses it
    assert (describe(moved, shuffled, OURS) == describe(vertices, faces, OURS)).all()


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_sixty_rotations_change_no_distance(symmetric):
    """Each takes our ten light fields to one another, so that it changes no distance at all, to any other shape."""
    slab = box([-1, 0, -0.5], [1, 0.3, 0.5])
    (vertices, faces), other = (slab.vertices, slab.faces) if symmetric else chair(), describe(*chair(0.7), OURS)
    plain = describe(vertices, faces, OURS)
    wanted = between(plain, other)
    assert wanted > 500
    for turn in rotations()[1::6]:
        turned = describe(vertices @ turn.T, faces, OURS)
        assert between(plain, turned) == 0
        assert between(turned, other) == between(other, turned) == wanted
        assert sorted(v.tobytes() for v in turned.reshape(100, -1)) == sorted(
            v.tobytes() for v in plain.reshape(100, -1)
        )


def test_each_light_fields_own_rotations_cost_nothing():
    """The 60 rotations of one light field's dodecahedron permute its views; the other nine then see other ones."""
    vertices, faces = chair()
    plain = describe(vertices, faces, OURS)
    for half_turn, turn in zip(half_turns()[::3], rotations()[5::15], strict=True):
        assert between(plain, describe(vertices @ (half_turn @ turn @ half_turn.T).T, faces, OURS)) == 0
    assert between(plain, describe(vertices @ half_turns()[0].T @ dodecahedron_free_turn().T, faces, OURS)) > 200


def dodecahedron_free_turn() -> np.ndarray:
    """A turn by 20 degrees, which no alignment undoes."""
    axis = np.cross(dodecahedron()[0], [0.3, 0.5, 0.8])
    return trimesh.transformations.rotation_matrix(np.radians(20), axis)[:3, :3]


def test_float32_costs_nothing_at_its_own_precision():
    """The distance is the least over light fields; rounding seldom moves a pixel, never in all ten of them."""
    vertices, faces = chair()
    moved = (vertices * 3 + [0.3, -0.2, 0.1]).astype(np.float32)
    assert between(describe(vertices, faces, OURS), describe(moved, faces, OURS)) == 0


def test_inner_faces_and_orientation_do_not_matter():
    vertices, faces = chair()
    flipped = faces.copy()
    flipped[::2] = flipped[::2, ::-1]
    assert (describe(vertices, flipped, OURS) == describe(vertices, faces, OURS)).all()


@pytest.mark.parametrize("ours", [True, False])
def test_the_originals_distances_on_real_meshes(shared, ours):
    """Pairs with d > 500: within 3 % (median) and 10 % (worst) with its cameras; 10 % and rank order with ours."""
    reference = shared / "reference" / "lfd_original.csv"
    if not reference.exists():
        pytest.skip(f"no {reference}")
    metric = LFD() if ours else LFD(cameras=str(reference.with_name("lfd_cameras.csv")))
    matrix = trimesh.transformations.rotation_matrix
    transforms = {
        "": np.eye(4),
        "rotY90": matrix(np.pi / 2, [0, 1, 0]),
        "rotY37": matrix(np.radians(37), [0, 1, 0]),
        "rotX72": matrix(np.radians(72), [1, 0, 0]),
        "scale2shift": trimesh.transformations.translation_matrix([0.3, -0.2, 0.1]) @ np.diag([2, 2, 2, 1]),
        "mirrorX": np.diag([-1, 1, 1, 1]),
    }
    known: dict[tuple[str, str], np.ndarray] = {}

    def described(name, transform):
        if (name, transform) not in known:
            loaded = trimesh.load(shared / "data" / "real" / name, force="mesh", process=False)
            vertices = trimesh.transform_points(loaded.vertices, transforms[transform])
            known[name, transform] = metric.describe(as_mesh(vertices, loaded.faces))["features"]
        return known[name, transform]

    with reference.open() as stream:
        rows = list(csv.DictReader(stream))
    found = np.array([between(described(r["a"], ""), described(r["b"], r["transform_of_b"])) for r in rows])
    wanted = np.array([int(r["lfd"]) for r in rows])
    same = np.array([r["a"] == r["b"] and r["transform_of_b"] in ("", "scale2shift") for r in rows])
    assert (found[same] == 0).all()
    far = wanted > 500
    error = np.abs(found - wanted)[far] / wanted[far]
    if ours:
        assert np.median(error) < 0.05
        assert spearmanr(found[far], wanted[far])[0] >= 0.97
    else:  # far below the promise: the conventions are the original's; what is left is rounding on pixels' borders
        assert np.median(error) < 0.002
        assert error.max() < 0.01
        assert np.abs(found - wanted).max() < 50


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3)), "has no faces"),
        (np.eye(3), np.zeros((0, 3)), "has no faces"),
        (np.eye(3) * np.nan, [[0, 1, 2]], "not finite"),
        (np.full((3, 3), np.inf), [[0, 1, 2]], "not finite"),
        (np.ones((3, 3)), [[0, 1, 2]], "no face with an area"),
        (np.arange(9).reshape(3, 3) * 0.1, [[0, 1, 2]], "no face with an area"),
        (np.eye(3), [[0, 0, 1]], "no face with an area"),
    ],
)
def test_meshes_without_a_surface_are_named(vertices, faces, message):
    with pytest.raises(ReconlabError, match=message):
        lfd_descriptor(as_mesh(np.asarray(vertices, float), np.asarray(faces)))


def test_odd_meshes_are_described():
    """A single triangle (nothing is seen of it from its side), far from the origin; thousands of specks."""
    triangle = np.eye(3) * 1e6 + 1e6
    assert (describe(triangle, np.array([[0, 1, 2]]), OURS) == describe(np.eye(3), np.array([[0, 1, 2]]), OURS)).all()
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(3000, 1, 3)) + 0.01 * rng.normal(size=(3000, 3, 3))
    specks = describe(corners.reshape(-1, 3), np.arange(9000).reshape(-1, 3), OURS)
    ball = trimesh.creation.icosphere(3)
    assert between(specks, describe(ball.vertices, ball.faces, OURS)) > 3000
    assert (specks[..., 35:45].max(-1) > 0).all()  # joined: a contour everywhere


def test_function_on_batches_and_its_errors():
    one, two = as_mesh(*chair()), as_mesh(*chair(0.7))
    batch, other = Mesh.cat([one, two]), Mesh.cat([one, one])
    found = lfd_distance(batch, other)
    assert found.dtype == torch.int64
    assert found[0] == 0
    assert found[1] == lfd_distance(one, two)[0] > 0
    with pytest.raises(ReconlabError, match="2 predictions for 1 true"):
        lfd_distance(batch, one)
    with pytest.raises(ReconlabError, match="not a batch of 2"):
        lfd_descriptor(batch)


def test_class_counts_failures_and_keeps_the_truth(tmp_path):
    truth, empty = as_mesh(*chair()), as_mesh(np.ones((3, 3)), [[0, 1, 2]])
    batch = Batch(ids=["a", "b"], categories=["chair"] * 2, mesh=Mesh.cat([truth, truth]))
    metric = LFD(cache=str(tmp_path))
    metric.update(Mesh.cat([as_mesh(*chair(0.7)), empty]), batch)
    expected = float(lfd_distance(as_mesh(*chair(0.7)), truth)[0])
    assert metric.compute()["lfd"].item() == (expected + metric.protocol.worst_value) / 2
    assert metric.compute()["lfd/n_failed"].item() == 1
    assert len(list(tmp_path.glob("*.npz"))) == 1
    assert not metric.protocol.higher_is_better
    assert json.dumps(metric.protocol.as_dict())


def test_other_cameras_are_another_descriptor(tmp_path):
    path = tmp_path / "cameras.csv"
    lines = ["light_field,view,x,y,z"]
    for i, half_turn in enumerate(half_turns()):
        lines += [",".join(map(str, (i, j, *v))) for j, v in enumerate(dodecahedron() @ half_turn.T)]
    path.write_text("\n".join(lines))
    theirs = LFD(cameras=str(path))
    assert theirs.settings() != LFD().settings()
    assert str(path) in theirs.protocol.source
    # The same views upright, placed by the box: pixels and sizes differ, the distance hardly.
    upright = lfd_distance(as_mesh(*chair()), as_mesh(*chair(0.7)), str(path))[0]
    assert upright.item() == pytest.approx(lfd_distance(as_mesh(*chair()), as_mesh(*chair(0.7)))[0].item(), rel=0.25)
