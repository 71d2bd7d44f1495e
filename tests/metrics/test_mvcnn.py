"""The MVCNN distance: a metric of descriptors, its order on shapes, its failures, and real meshes."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.datasets.synth import generate
from reconlab.errors import ReconlabError
from reconlab.features.mvcnn import MultiViewCNN, retrieval
from reconlab.features.weights import BUNDLED, load_mvcnn, save_state
from reconlab.metrics import MVCNN, mvcnn_descriptor, mvcnn_distance
from reconlab.shapes import Mesh

# Of the test list of the real meshes, other families than those that were trained on
REAL = {
    "airplane": ["fgai__DH3-DH3.ply", "fgscenery__rafaleM_lowpoly.ply", "fgscenery__ask21-blue.ply"],
    "car": [
        "fgscenery__VWPassat_S1.glb",
        "fgscenery__dodgeramblue.glb",
        "fgscenery__humvee-pickup-odrab-low-poly.glb",
    ],
    "chair": ["pascal__lounge-chair.obj", "sh3d-blendswapcc0__relaxChair.obj", "sh3d-scopia__ext_chair.obj"],
    "lamp": ["quaternius__Light_Chandelier.off", "sh3d-blendswapcc0__desklamp.off", "sh3d-default__pendantLamp.off"],
}


def procedural(category: str, seed: int) -> Mesh:
    vertices, faces, _ = generate(category, seed).mesh()
    return Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))


@pytest.fixture(scope="module")
def metric() -> MVCNN:
    return MVCNN()


def batch_of(*meshes: Mesh, categories=None) -> Batch:
    names = [f"shape{i}" for i in range(len(meshes))]
    packed = Mesh.from_list([m.item(0) for m in meshes])
    return Batch(ids=names, categories=categories or ["x"] * len(meshes), mesh=packed)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_distance_is_that_of_the_cosine(seed, size):
    rng = np.random.default_rng(seed)
    a, b = (v / np.linalg.norm(v) for v in rng.normal(size=(2, size)))
    value = mvcnn_distance(a, b)
    assert value**2 == pytest.approx(2 - 2 * float(a @ b), abs=1e-9)
    assert 0 <= value <= 2
    assert value == mvcnn_distance(b, a)
    assert mvcnn_distance(a, a) == 0
    assert mvcnn_distance(a, -a) == pytest.approx(2)


def test_equal_shapes_are_at_0_and_the_order_of_a_pair_does_not_matter(metric):
    chair, lamp = procedural("chair", 0), procedural("lamp", 0)
    values = [metric.per_sample(a, batch_of(b))["mvcnn"].item() for a, b in ((chair, lamp), (lamp, chair))]
    assert values[0] == values[1] > 0.5
    again = Mesh(chair.vertices.clone(), chair.faces.flip(1))  # every face turned round: seen from both sides
    assert metric.per_sample(again, batch_of(chair))["mvcnn"].item() < 0.01  # ties in depth may go the other way
    assert metric.per_sample(chair, batch_of(chair))["mvcnn"].item() == 0
    order = torch.randperm(len(chair.faces), generator=torch.Generator().manual_seed(0))
    shuffled = Mesh(chair.vertices, chair.faces[order])
    assert metric.per_sample(shuffled, batch_of(chair))["mvcnn"].item() < 0.01
    found = mvcnn_descriptor(chair, load_mvcnn())
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-12)


def test_noise_costs_less_than_another_shape_and_that_less_than_another_category(metric):
    generator = torch.Generator().manual_seed(0)
    for category, other in (("chair", "car"), ("airplane", "lamp")):
        shape = procedural(category, 11)
        vertices, inverse = torch.unique(shape.vertices, dim=0, return_inverse=True)
        moved = (vertices + 0.002 * torch.randn(vertices.shape, generator=generator))[inverse]
        candidates = [Mesh(moved, shape.faces), procedural(category, 12), procedural(other, 11)]
        near, same, far = (metric.per_sample(c, batch_of(shape))["mvcnn"].item() for c in candidates)
        assert near < same < far, (category, near, same, far)


def test_failures_are_counted_with_the_worst_value(metric):
    chair, lamp = procedural("chair", 0), procedural("lamp", 0)
    broken = lamp.vertices.clone()
    broken[3] = torch.nan
    predictions = [lamp, Mesh(broken, lamp.faces), Mesh(lamp.vertices + 30, lamp.faces), chair]
    metric.reset()
    packed = Mesh.from_list([p.item(0) for p in predictions])
    metric.set_categories(["a", "b"])
    metric.update(packed, batch_of(chair, chair, chair, chair, categories=["a", "a", "b", "b"]))
    value, found = metric.last["mvcnn"], metric.compute()
    assert metric.last["mvcnn/failed"].tolist() == [False, True, True, False]
    assert value[1:].tolist() == [2, 2, 0]
    assert found["mvcnn"].item() == pytest.approx(value.mean().item())
    assert found["mvcnn/b"].item() == 1
    assert (found["mvcnn/n"].item(), found["mvcnn/n_failed"].item(), found["mvcnn/a/n_failed"].item()) == (4, 2, 1)
    with pytest.raises(ReconlabError, match=r"the ground truth of x/shape0: none of the 12 cameras sees the mesh"):
        metric.update(chair, batch_of(Mesh(chair.vertices + 30, chair.faces)))
    metric.reset()


def test_true_descriptors_are_kept_by_weights(metric, monkeypatch, tmp_path):
    chair, lamp = procedural("chair", 0), procedural("lamp", 0)
    save_state(tmp_path / "other.safetensors", MultiViewCNN(2, (4, 4, 4, 4), 8, size=16), {})
    kept = MVCNN(cache=str(tmp_path / "cache"))
    value = kept.per_sample(lamp, batch_of(chair))["mvcnn"].item()
    calls = []
    plain = MVCNN.describe
    monkeypatch.setattr(MVCNN, "describe", lambda self, mesh: calls.append(1) or plain(self, mesh))
    again = MVCNN(cache=str(tmp_path / "cache"))
    assert again.per_sample(lamp, batch_of(chair))["mvcnn"].item() == value
    assert len(calls) == 1, "the prediction alone"
    other = MVCNN(str(tmp_path / "other.safetensors"), cache=str(tmp_path / "cache"))
    assert other.settings() != again.settings()
    other.per_sample(lamp, batch_of(chair))
    assert len(calls) == 3
    assert other.weights_digest in other.protocol.alignment


def test_protocol_pickling_and_checkpoints(metric):
    assert (metric.name, metric.heavy, metric.needs) == ("mvcnn", True, {"mesh"})
    assert (metric.protocol.worst_value, metric.protocol.higher_is_better, metric.protocol.squared) == (
        2,
        False,
        False,
    )
    assert metric.state_dict() == {}
    assert list(metric.parameters()) == []
    chair, lamp = procedural("chair", 1), procedural("lamp", 1)
    value = metric.per_sample(chair, batch_of(lamp))["mvcnn"].item()
    for copied in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        assert copied.per_sample(chair, batch_of(lamp))["mvcnn"].item() == value


def test_bad_arguments_are_told_in_one_sentence(metric):
    with pytest.raises(ReconlabError, match=r"descriptors have shapes \(3,\) and \(4,\)"):
        mvcnn_distance(np.ones(3), np.ones(4))
    mesh = procedural("lamp", 0)
    with pytest.raises(ReconlabError, match="takes one mesh, got a batch of 2"):
        mvcnn_descriptor(Mesh.from_list([mesh.item(0)] * 2), load_mvcnn())
    with pytest.raises(ReconlabError, match="not finite"):
        mvcnn_descriptor(Mesh(mesh.vertices * math.nan, mesh.faces), load_mvcnn())
    with pytest.raises(ReconlabError, match="were not found"):
        MVCNN("missing.safetensors")


def test_real_meshes_are_near_those_of_their_category(shared, metric):
    """Three diverse shapes each: the nearest is of the category less often than among many (docs/metrics)."""
    descriptors, labels = [], []
    for category, names in REAL.items():
        for name in names:
            path = shared / "data" / "real" / category / name
            if not path.exists():
                pytest.skip(f"{name} is not in the shared folder")
            loaded = trimesh.load(path, process=False, force="mesh")
            mesh = Mesh(torch.tensor(loaded.vertices, dtype=torch.float32), torch.tensor(loaded.faces))
            descriptors.append(metric.describe(mesh)["descriptor"])
            labels.append(category)
    stacked = torch.tensor(np.stack(descriptors))
    mean = retrieval(torch.cdist(stacked, stacked), labels)[1]
    assert mean > 0.7, "0.81 when the weights were made; 0.35 by chance"
    classes = json.loads((BUNDLED / "mvcnn.json").read_text())["classes"]
    best = load_mvcnn().classify(stacked.float()).argmax(1).tolist()
    right = [classes[k].split("/")[0] == label for k, label in zip(best, labels, strict=True)]
    assert sum(right) >= 10, "11 of 12 when the weights were made"
