"""The LFD kernel: cameras by group theory, features against NumPy and by hand, contours against sweeps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from reconlab.errors import ReconlabError
from reconlab.kernels.lfd import WEIGHTS, default_cameras, describe, distances, place, read_cameras, reference
from reconlab.kernels.lfd import contour as contours
from reconlab.kernels.lfd.cameras import alignments, dodecahedron, half_turns, rotations, upright_cameras
from reconlab.kernels.lfd.cpu import compactness, draw, light_field

EIGHT = np.ones((3, 3))


def blob(seed: int, size: int = 48) -> np.ndarray:
    """A random silhouette of one or several parts, with holes."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), rng.uniform(0.8, 4))
    mask = noise > np.quantile(noise, rng.uniform(0.5, 0.97))
    return np.pad(mask, contours.MARGIN).astype(np.uint8)


def mesh(seed: int, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A soup of random triangles, large and small."""
    rng = np.random.default_rng(seed)
    corners = rng.normal(size=(count, 1, 3)) + rng.normal(size=(count, 3, 3)) * rng.uniform(0.02, 1, (count, 1, 1))
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def fourier(mask: np.ndarray, cx: float, cy: float) -> np.ndarray:
    out = np.empty(10)
    contours.fourier(mask, cx, cy, out)
    return out


def traced(mask: np.ndarray) -> np.ndarray:
    visited, on = np.empty((4 * mask.size, 2), np.int16), np.empty_like(mask)
    return visited[: max(0, contours.trace(mask, visited, on))]


def test_rotations_are_the_icosahedral_group():
    group = rotations()
    assert np.allclose(group[0], np.eye(3))
    assert np.allclose(np.linalg.det(group), 1)
    traces = np.sort(np.trace(group, axis1=1, axis2=2))  # 15 half-turns, 20 thirds, 24 fifths and the identity
    golden = (1 + 5**0.5) / 2
    assert np.allclose(traces, np.sort([-1] * 15 + [0] * 20 + [golden] * 12 + [1 - golden] * 12 + [3]))
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 1, 9)
    for chunk in np.array_split(products, 20):
        assert (np.abs(chunk - group.reshape(1, 60, 9)).max(-1).min(-1) < 1e-9).all()


def test_alignments_are_its_action_on_the_ten_axes():
    perms = {tuple(p) for p in alignments()}
    assert len(perms) == 60
    assert all(sorted(p) == list(range(10)) for p in perms)
    assert {tuple(np.array(p)[list(q)]) for p in perms for q in perms} == perms
    # Of the 120 symmetries of the graph of neighbours (Petersen's), only the rotations' half.
    near = np.abs(dodecahedron() @ dodecahedron().T)
    for p in perms:
        assert np.allclose(near[np.ix_(p, p)], near)


def test_our_cameras_are_one_hundred_views_closed_under_the_rotations():
    frames = default_cameras().frames.reshape(-1, 2, 3)
    assert np.allclose(np.einsum("nij,nkj->nik", frames, frames), np.eye(2))
    seen, ups = np.cross(frames[:, 0], frames[:, 1]), frames[:, 1]
    assert np.allclose(seen.reshape(10, 10, 3, 3), (dodecahedron() @ half_turns().transpose(0, 2, 1))[:, :, None])
    axes = seen.reshape(100, 3, 3)[:, 0]
    assert np.abs(axes @ axes.T - np.diag([1.0] * 100)).max() < np.cos(np.radians(5))  # no view twice
    for turn in rotations():
        # Every image becomes one of the set, or is seen from behind with the same side up: its mirror image.
        same_up = ups @ turn.T @ ups.T > 1 - 1e-9
        same_axis = np.abs(seen @ turn.T @ seen.T) > 1 - 1e-9
        assert ((same_up & same_axis).sum(1) == 1).all()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_silhouettes_equal_a_test_of_every_pixel(seed):
    points, faces = mesh(seed)
    points, faces = place(points, faces, default_cameras())
    mask, screen = np.empty((256, 256), np.uint8), np.empty((len(points), 2))
    frame = default_cameras().frames[seed % 10, seed % 7, seed % 3]
    draw(points, faces, frame, screen, mask)
    assert (mask == reference.silhouette(points, faces, frame)).all()


def test_adjacent_faces_leave_no_cracks():
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 200))
    rim = np.stack([np.cos(angle), np.sin(angle), rng.normal(size=200)], 1) * 0.9
    points = np.concatenate([[[0.0123, 0.0456, 0]], rim])
    faces = np.stack([np.zeros(200, int), np.arange(1, 201), np.r_[2:201, 1]], 1)
    mask, screen = np.empty((256, 256), np.uint8), np.empty((201, 2))
    draw(points, faces, np.eye(3)[:2].copy(), screen, mask)
    assert ndimage.binary_fill_holes(mask).sum() == mask.sum()
    assert mask.sum() == pytest.approx(np.pi * (0.9 * 128) ** 2, rel=2e-3)


@pytest.mark.parametrize("ours", [True, False])
def test_features_equal_the_reference(ours):
    field = dodecahedron()
    cameras = default_cameras() if ours else upright_cameras(np.stack([field @ r.T for r in half_turns()]), "turned")
    points, faces = place(*mesh(3), cameras)
    raw = np.empty((10, 47))
    light_field(points, faces, cameras.frames[4], reference.art_table(), ours, raw)
    assert np.allclose(raw, reference.light_field_reference(points, faces, cameras.frames[4], ours), atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_compactness_equals_the_reference(seed):
    mask, out = blob(seed), np.empty(2)
    sx, sy = mask.shape[1] - 1, mask.shape[0] - 1
    compactness(mask, sx, sy, out)
    wanted = reference.circularity(mask > 0), reference.eccentricity(mask > 0, sx / 2, sy / 2)
    assert out == pytest.approx(wanted, rel=1e-12)


def test_a_rectangle_by_hand():
    mask, out = np.zeros((40, 60), np.uint8), np.empty(2)
    mask[15:25, 10:50] = 1  # 40 x 10: area 400, 96 border pixels; i20 / i02 = (40² - 1) / (10² - 1)
    compactness(mask, 59, 39, out)
    assert out == pytest.approx([4 * np.pi * 400 / 96**2, ((1599 - 99) / (1599 + 99)) ** 2])
    assert len(traced(mask)) == 96 + 1  # the first pixel counts twice
    assert fourier(mask, 29.5, 19.5)[[0, 2, 4]] == pytest.approx([0, 0, 0], abs=0.02)  # even: symmetric
    assert fourier(mask, 29.5, 19.5)[1] > 0.2


def test_regions_of_a_disc_and_of_three_lobes_are_the_integrals():
    y, x = np.mgrid[-110:111, -110:111]
    r, theta = np.hypot(x, y), np.arctan2(y, x)
    disc = reference.regions(r <= 100, 110, 110, 100)
    # Mean of cos(pi n r) over the disc: 2 ∫ cos(pi n r) r dr = -4 / pi² for n = 1 and 0 for n = 2.
    assert disc[:2] == pytest.approx([4 / np.pi**2, 0], abs=0.01)
    assert np.abs(disc[2:]).max() < 0.005
    lobes = reference.regions((r <= 100) & (np.cos(3 * theta) >= 0), 110, 110, 100)
    assert lobes[2 + 3 * 2] == pytest.approx(2 / np.pi, abs=0.01)  # p = 3, n = 0: mean of cos 3θ where positive
    assert np.delete(lobes.reshape(-1), [0, 1, 8, 9, 10, 26, 27, 28]).max() < 0.02  # else only multiples of 3


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31))
def test_contours_are_outer_borders(seed):
    mask = blob(seed)
    visited = traced(mask)
    parts, _ = ndimage.label(mask, EIGHT)
    if not len(visited):
        first = parts[tuple(np.argwhere(mask)[0])]
        assert (parts == first).sum() == 1  # an isolated pixel
        return
    x, y = visited.T
    part = parts[y[0], x[0]]
    assert (parts[y, x] == part).all()
    assert np.abs(np.diff(visited, axis=0)).max() == 1
    assert (visited[0] == visited[-1]).all()
    outside = ndimage.label(parts != part)[0]
    border = (parts == part) & ndimage.binary_dilation(outside == outside[0, 0])
    seen = np.zeros_like(border)
    seen[y, x] = True
    assert not (border & ~seen).any()


def sweep(mask: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Thinning by sweeps over the whole image, the neighbourhood's rule spelt out with labels."""
    mask = mask.astype(bool).copy()
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    changed = True
    while changed:
        changed = False
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            gone = []
            for y, x in np.argwhere(mask & ~keep.astype(bool) & ~np.roll(mask, (-dy, -dx), (0, 1))):
                ring = mask[y - 1 : y + 2, x - 1 : x + 2].copy()
                ring[1, 1] = False
                parts = ndimage.label(ring)[0]
                if ring.sum() != 1 and len(np.unique(parts[cross & ring])) <= 1:
                    gone.append((y, x))
            for y, x in gone:
                mask[y, x] = False
                changed = True
    return mask


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), reach=st.integers(1, 2))
def test_thinning_equals_sweeps_over_the_image(seed, reach):
    keep = blob(seed, 24)
    grown = np.empty_like(keep)
    contours.dilate(keep, grown, reach)
    structure = EIGHT if reach == 1 else np.pad(np.ones((3, 3)), 1) + np.pad(np.ones((1, 3)), ((2, 2), (1, 1)))
    if reach == 2:
        structure = np.ones((5, 5))
        structure[::4, ::4] = 0
    assert (grown == ndimage.binary_dilation(keep, structure)).all()
    thinned = grown.copy()
    contours.thin(thinned, keep, np.empty(2 * keep.size, np.int32), np.empty_like(keep))
    assert (thinned == sweep(grown, keep)).all()
    assert (thinned >= keep).all()


@pytest.mark.parametrize("gap", [1, 4, 30])
def test_parts_are_joined_before_their_contour_is_taken(gap):
    """Near parts by dilation, far ones within their common box; the whole counts, not the first part alone."""
    mask = np.zeros((60, 100), np.uint8)
    mask[20:40, 10:30] = 1
    mask[20:40, 30 + gap : 50 + gap] = 1
    centre = (10 + 49 + gap) / 2, 29.5
    alone = mask.copy()
    alone[:, 30:] = 0
    assert np.abs(fourier(mask, *centre) - fourier(alone, *centre)).max() > 0.1
    assert fourier(mask, *centre) == pytest.approx(fourier(mask[:, ::-1].copy(), 99 - centre[0], centre[1]), abs=0.03)


def test_tiny_silhouettes_have_no_contour():
    mask = np.zeros((12, 12), np.uint8)
    assert (fourier(mask, 5, 5) == 0).all()
    mask[5, 5] = 1
    assert (fourier(mask, 5, 5) == 0).all()
    mask[5, 6] = 1
    assert (fourier(mask, 5.5, 5) == 0).all()


def test_distances_equal_the_reference_and_find_the_alignment():
    rng = np.random.default_rng(0)
    many = rng.integers(0, 256, (5, 10, 10, 47), dtype=np.uint8)
    assert (distances(many[0], many) == distances(many[0], many, backend="reference")).all()
    assert distances(many[0], many)[0] == 0
    assert all(distances(a, b[None]) == distances(b, a[None]) for a, b in itertools.combinations(many, 2))
    for p in alignments()[::7]:
        assert distances(many[0], many[:1][:, rng.permutation(10)][:, :, p])[0] == 0
    swapped = many[:1][:, :, [1, 0, 2, 3, 4, 5, 6, 7, 8, 9]]  # no rotation swaps two axes
    assert distances(many[0], swapped)[0] > 0
    assert distances(many[0], np.empty((0, 10, 10, 47), np.uint8)).shape == (0,)


def test_the_largest_distance_is_the_sum_of_the_weights():
    black, white = np.zeros((10, 10, 47), np.uint8), np.full((1, 10, 10, 47), 255, np.uint8)
    assert distances(black, white)[0] == 10 * 255 * WEIGHTS.sum() == 147_900


def test_fields_need_not_be_listed_in_one_order(tmp_path):
    """A CSV may list each light field's vertices in any order, either one of each pair of opposite ones."""
    rng = np.random.default_rng(0)
    fields = np.stack([dodecahedron() @ r.T for r in half_turns()]) * 1.07
    path = tmp_path / "cameras.csv"

    def written(shuffled):
        lines = ["light_field,view,x,y,z"]
        for i, field in enumerate(fields):
            order, sign = (rng.permutation(10), rng.choice([-1, 1], 10)) if shuffled else (np.arange(10), np.ones(10))
            for view, v in enumerate(field[order] * sign[:, None]):
                lines.append(",".join(map(str, (i, view, *np.round(v, 6)))))
        path.write_text("\n".join(lines) + "\n")
        return describe(*mesh(1, 4), read_cameras(path))

    plain, shuffled = written(False), written(True)
    other = describe(*mesh(2, 4), read_cameras(path))
    # The same views, some seen from behind: contours begin elsewhere, which moves a distance by little.
    assert distances(plain, other[None])[0] == pytest.approx(distances(shuffled, other[None])[0], rel=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "expected a CSV with light_field"),
        ("light_field,view,x,y,z\n0,0,1,0,0\n", "no finite camera for light field 0, view 1"),
        ("light_field,view,x,y,z\n10,0,1,0,0\n", "both go from 0 to 9"),
        ("light_field,view,x,y,z\n0,0,one,0,0\n", "expected a CSV"),
        ("light_field,view,x,y,z\n" + "".join(f"{i},{j},1,{j},0\n" for i in range(10) for j in range(10)), "not ten"),
        (None, "Cannot read the cameras"),
    ],
)
def test_bad_cameras_are_named(tmp_path, text, message):
    path = tmp_path / "cameras.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ReconlabError, match=message):
        read_cameras(path)


def test_cameras_that_look_along_up_are_named():
    vertices = dodecahedron()
    turn = np.linalg.qr(np.stack([vertices[0], [1, 0, 0], [0, 0, 1]], 1))[0]
    along = vertices @ turn @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    with pytest.raises(ReconlabError, match="looks along the y axis"):
        upright_cameras(np.stack([along] * 10), "set")


def test_descriptors_of_other_shapes_are_named():
    good = np.zeros((10, 10, 47), np.uint8)
    with pytest.raises(ReconlabError, match=r"descriptors are \(10, 10, 47\) uint8"):
        distances(good, good)
    with pytest.raises(ReconlabError, match="float64"):
        distances(good, good[None].astype(float))
