"""The chart of what each metric minds: costs by hand, ranks, the sets of shapes."""

import sys

import numpy as np
import pytest
import torch
import trimesh

from reconlab.errors import ReconlabError
from reconlab.report import metric_meaning
from reconlab.report.drkfs_edits import EDITS
from reconlab.report.metric_meaning import Subject, charge, noisy, procedural_subjects, real_subjects, turned
from reconlab.shapes import Mesh


def box(*size: float) -> Mesh:
    made = trimesh.creation.box(size)
    return Mesh(torch.tensor(made.vertices).float(), torch.tensor(made.faces))


def test_costs_are_distances_from_the_perfect_score_and_ranks_their_order():
    truth = box(0.5, 0.5, 0.5)
    moved = [Mesh(truth.vertices + torch.tensor([dx, 0.0, 0.0]), truth.faces) for dx in (0.1875, 0.0625, 0.125)]
    subject = Subject("box/0", truth, dict(zip("abc", moved, strict=True)))
    table = charge([subject], ["iou", "cd"])
    # 32³ cells of 1/32: the box fills 16 of them along x, and the moves are 6, 2 and 4 cells
    costs = {case: v["cost"] for case, v in table["iou"]["cases"].items()}
    for case, cells in zip("abc", (6, 2, 4), strict=True):
        assert costs[case] == pytest.approx(1 - (16 - cells) / (16 + cells), abs=0.07)
    for metric in ("iou", "cd"):
        assert [v["rank"] for v in table[metric]["cases"].values()] == [3, 1, 2]
    assert charge([Subject("box/0", truth, {"same": truth})], ["cd"])["cd"]["cases"]["same"]["cost"] == 0


def test_noise_has_its_deviation_and_keeps_the_surface_closed():
    truth = box(0.5, 0.4, 0.3)
    found = noisy(truth, seed=3, deviation=0.01)
    mesh = trimesh.Trimesh(found.vertices.numpy(), found.faces.numpy(), process=False)
    assert mesh.is_watertight
    clean = noisy(truth, seed=3, deviation=0.0)
    assert (found.vertices - clean.vertices).std().item() == pytest.approx(0.01, rel=0.1)
    assert torch.equal(found.vertices, noisy(truth, seed=3, deviation=0.01).vertices)


def test_turning_keeps_heights_and_distances():
    truth = box(0.5, 0.4, 0.3)
    other = turned(truth, 90.0)
    assert torch.allclose(other.vertices[:, 1], truth.vertices[:, 1])
    assert torch.allclose(other.vertices.abs().amax(0), torch.tensor([0.15, 0.2, 0.25]), atol=1e-6)


def test_procedural_subjects_differ_from_their_truth_in_every_case():
    subject = procedural_subjects(1)[0]
    table = charge([subject], ["cd", "iou"])
    assert set(table["cd"]["cases"]) == {*EDITS, "noise", "wrong category"}
    assert all(v["cost"] > 0 for v in table["cd"]["cases"].values())
    assert max(table["cd"]["cases"].items(), key=lambda x: x[1]["cost"])[0] == "wrong category"
    assert "wrong category" in metric_meaning.text(table, "chairs")
    assert len(metric_meaning.figure({"chairs": table}).axes) == 1


def test_real_subjects_come_from_the_test_lists(tmp_path):
    for category, size in (("a", 0.2), ("b", 0.4)):
        for i in range(4):
            folder = tmp_path / category / f"s{i}"
            folder.mkdir(parents=True)
            mesh = box(size + 0.01 * i, 0.3, 0.3)
            np.savez(folder / "mesh.npz", vertices=mesh.vertices.numpy(), faces=mesh.faces.numpy())
        (tmp_path / category / "test.lst").write_text("s0\ns1\ns2\ns3\n")
    subjects = real_subjects(tmp_path, 2)
    assert [s.name for s in subjects] == ["a/s1", "a/s3", "b/s1", "b/s3"]
    other = subjects[0].cases["another of the category"].vertices
    assert other[:, 0].max().item() == pytest.approx((0.2 + 0.03) / 2), "two places on"
    assert subjects[0].cases["wrong category"].vertices[:, 0].max().item() == pytest.approx((0.4 + 0.01) / 2)
    (tmp_path / "b" / "test.lst").write_text("s0\n")
    with pytest.raises(ReconlabError, match="two categories or more"):
        real_subjects(tmp_path, 2)


def test_metrics_whose_libraries_are_missing_are_left_out(monkeypatch):
    monkeypatch.setattr(metric_meaning, "CLASSES", {"cd": "ChamferDistance", "shape_google": "ShapeGoogle"})
    monkeypatch.setattr(
        metric_meaning, "procedural_subjects", lambda count: [Subject("box/0", box(0.5, 0.4, 0.3), {})]
    )
    monkeypatch.setattr(metric_meaning, "charge", lambda subjects, names: list(names))
    monkeypatch.setitem(sys.modules, "robust_laplacian", None)
    assert metric_meaning.tables(1, None) == {"1 procedural chairs": ["cd"]}
