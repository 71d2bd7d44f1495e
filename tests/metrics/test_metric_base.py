"""What every metric does: failures counted, categories, reset, merging, pickling, protocols, collections."""

import json
import math
import pickle
import warnings

import pytest
import torch
import torchmetrics

from reconlab.batch import NEEDS, Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.metrics import ChamferDistance, FScore, Metric, NormalConsistency, VoxelIoU
from reconlab.metrics.protocol import scale_factor
from reconlab.shapes import Mesh, PointCloud, Shape, VoxelGrid

CATEGORIES = ["chair", "lamp", "chair", "boat", "lamp"]


def all_metrics() -> list[Metric]:
    return [
        *(ChamferDistance(v, points=50) for v in ("dpc", "atlasnet", "occnet", "nox", "nox_dpc")),
        FScore("what3d", points=50),
        FScore("atlasnet", points=50),
        FScore("what3d", threshold=0.2, points=50),
        NormalConsistency(points=50),
        NormalConsistency(points=50, signed=True),
        VoxelIoU(resolution=8),
    ]


def ground_truth(count: int = 5, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(count, 80, 3, generator=generator), dim=-1)
    return Batch(
        ids=[f"s{i}" for i in range(count)],
        categories=CATEGORIES[:count],
        points=0.4 * normals,
        normals=normals,
        voxels=(torch.rand(count, 8, 8, 8, generator=generator) > 0.5).float(),
    )


def prediction(count: int = 5, seed: int = 1, broken: tuple[int, ...] = ()) -> PointCloud:
    generator = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(count, 60, 3, generator=generator), dim=-1)
    points = 0.35 * normals
    points[list(broken), 3, 1] = torch.nan
    return PointCloud(points, normals)


def plain(result: dict[str, torch.Tensor]) -> dict[str, float]:
    return {key: value.item() for key, value in result.items()}


ids = [m.name for m in all_metrics()]


@pytest.mark.parametrize("metric", all_metrics(), ids=ids)
def test_failures_get_the_worst_value_and_are_counted(metric: Metric):
    batch = ground_truth()
    metric.set_categories(["chair", "lamp"])
    good = metric.per_sample(prediction(), batch)
    values = metric.per_sample(prediction(broken=(1, 3)), batch)
    assert values[metric.failed_key].tolist() == [False, True, False, True, False]
    metric.update(prediction(broken=(1, 3)), batch)
    result = plain(metric.compute())
    for name, protocol in metric.protocols.items():
        expected = [protocol.worst_value if i in (1, 3) else good[name][i].item() for i in range(5)]
        assert values[name].tolist() == pytest.approx(expected)
        assert result[name] == pytest.approx(sum(expected) / 5)
        assert result[f"{name}/chair"] == pytest.approx((expected[0] + expected[2]) / 2)
        assert result[f"{name}/lamp"] == pytest.approx((expected[1] + expected[4]) / 2)
        worse = min if protocol.higher_is_better else max
        assert worse([*expected, protocol.worst_value]) == protocol.worst_value
    counts = {key.removeprefix(metric.name): v for key, v in result.items() if key.rsplit("/")[-1].startswith("n")}
    counts = {key: v for key, v in counts.items() if key.startswith("/")}
    assert counts == {
        "/n": 5, "/n_failed": 2, "/chair/n": 2, "/chair/n_failed": 0, "/lamp/n": 2, "/lamp/n_failed": 1,
    }  # fmt: skip


@pytest.mark.parametrize("metric", all_metrics(), ids=ids)
def test_all_predictions_failed(metric: Metric):
    batch = ground_truth(2)
    metric.update(PointCloud(torch.full((2, 9, 3), torch.nan), torch.zeros(2, 9, 3)), batch)
    metric.update(PointCloud(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3)), batch)
    result = plain(metric.compute())
    assert result[metric.name] == pytest.approx(metric.protocol.worst_value)
    assert result[f"{metric.name}/n"] == result[f"{metric.name}/n_failed"] == 4


def test_an_empty_mesh_among_good_ones_has_failed():
    vertices = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0.4, 0], [0, 0, 0.4]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    empty = (torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    flat = (torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    batch = ground_truth(3)
    shape = Mesh.from_list([empty, (vertices, faces), flat])
    for metric in all_metrics():
        values = metric.per_sample(shape, batch)
        assert values[metric.failed_key].tolist() == [True, False, True], metric.name
        assert values[metric.name][0].item() == pytest.approx(metric.protocol.worst_value)
    empty_grid = VoxelGrid(torch.stack([torch.zeros(8, 8, 8), torch.ones(8, 8, 8), torch.full((8, 8, 8), torch.nan)]))
    for metric in all_metrics():
        assert metric.per_sample(empty_grid, batch)[metric.failed_key].tolist() == [True, False, True], metric.name


def test_a_shape_without_the_form_is_an_error_not_a_failure():
    class Nothing(Shape):
        device = torch.device("cpu")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: slice | int) -> Shape:
            return self

        def valid(self) -> torch.Tensor:
            return torch.ones(2, dtype=torch.bool)

    for metric in all_metrics():
        with pytest.raises(ConversionError, match="Nothing has no conversion"):
            metric.update(Nothing(), ground_truth(2))


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
@pytest.mark.parametrize("metric", all_metrics(), ids=ids)
def test_batches_order_merging_and_reset_give_the_same(metric: Metric):
    batch, shape = ground_truth(), prediction(broken=(2,))
    whole = pickle.loads(pickle.dumps(metric))
    halves = [pickle.loads(pickle.dumps(metric)) for _ in range(2)]
    for m in (whole, *halves):
        m.set_categories(["lamp", "chair"])
    whole.update(shape, batch)
    expected = plain(whole.compute())
    for i in (4, 0, 3, 2, 1):
        one = Batch(
            ids=[batch.ids[i]],
            categories=[batch.categories[i]],
            points=batch.points[i : i + 1],
            normals=batch.normals[i : i + 1],
            voxels=batch.voxels[i : i + 1],
        )
        halves[i % 2].update(shape[i], one)
    halves[0] = pickle.loads(pickle.dumps(halves[0]))  # states travel
    halves[0].merge_state(halves[1])
    assert plain(halves[0].compute()) == pytest.approx(expected, rel=1e-6)
    whole.reset()
    assert plain(whole.compute())[f"{whole.name}/n"] == 0
    whole.update(shape, batch)
    assert plain(whole.compute()) == expected
    assert plain(whole(shape, batch))[metric.name] == pytest.approx(expected[metric.name])  # forward: this batch's
    assert plain(whole.compute())[f"{metric.name}/n"] == 10


def test_no_samples_give_nan_not_an_exception():
    for metric in all_metrics():
        metric.set_categories(["chair"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics says that update was never called
            result = plain(metric.compute())
        assert math.isnan(result[metric.name])
        assert math.isnan(result[f"{metric.name}/chair"])
        assert result[f"{metric.name}/n"] == 0


def test_categories():
    metric = ChamferDistance(points=None)
    metric.set_categories(["lamp", "chair", "lamp"])
    assert metric.categories == ("lamp", "chair")
    metric.update(prediction(), ground_truth())  # holds a boat: overall only
    result = plain(metric.compute())
    assert result["chamfer_dpc/n"] == 5
    assert result["chamfer_dpc/lamp/n"] + result["chamfer_dpc/chair/n"] == 4
    assert not any("boat" in key for key in result)
    with pytest.raises(ReconlabError, match="may not be called 'n_failed'"):
        metric.set_categories(["n_failed"])
    other = ChamferDistance(points=None)
    with pytest.raises(ReconlabError, match="protocols and categories must be equal"):
        other.merge_state(metric)


def test_a_collection_keeps_metrics_apart_that_start_equal():
    """MetricCollection computes metrics with equal first states only once: names in the states prevent it."""
    metrics = [FScore("what3d"), FScore("atlasnet"), NormalConsistency(), VoxelIoU(resolution=8)]
    collection = torchmetrics.MetricCollection({m.name: m for m in metrics})
    batch = ground_truth(2)
    nothing = PointCloud(torch.full((2, 9, 3), torch.nan), torch.zeros(2, 9, 3))
    collection.update(nothing, batch)
    collection.update(prediction(2), batch)
    collection.update(PointCloud(batch.points, batch.normals), batch)
    result = plain(collection.compute())
    assert len({result[m.name] for m in metrics}) >= 3
    assert result["normal_consistency"] == pytest.approx(metrics[2].compute()["normal_consistency"].item())
    assert result["voxel_iou/n"] == result["fscore_what3d/n"] == 6


@pytest.mark.parametrize("metric", all_metrics(), ids=ids)
def test_protocol_is_complete(metric: Metric):
    assert isinstance(metric, torchmetrics.Metric)
    assert metric.needs <= set(NEEDS)
    assert metric.protocol.higher_is_better == metric.higher_is_better
    for name, protocol in metric.protocols.items():
        written = json.loads(json.dumps(protocol.as_dict()))
        assert written["name"] == name
        assert written["factor"] > 0
        assert written["formula"]
        assert written["source"]
        assert set(written) == {
            "name", "formula", "unit", "squared", "points", "alignment", "scale", "threshold", "factor",
            "higher_is_better", "worst_value", "source",
        }  # fmt: skip
    with pytest.raises(AttributeError):
        metric.protocol.factor = 2.0  # type: ignore[misc]


def test_ground_truth_that_cannot_be_used_is_named():
    batch = ground_truth(2)
    with pytest.raises(ReconlabError, match="3 predictions for a batch of 2"):
        ChamferDistance().update(prediction(3), batch)
    with pytest.raises(ReconlabError, match="NormalConsistency needs 'normals'"):
        NormalConsistency().update(prediction(2), Batch(ids=["a", "b"], categories=["x", "x"], points=batch.points))
    batch.points[1, 0, 0] = torch.nan
    with pytest.raises(ReconlabError, match="ground truth of lamp/s1 holds values that are not finite"):
        ChamferDistance().update(prediction(2), batch)
    with pytest.raises(ReconlabError, match="points is 0"):
        ChamferDistance(points=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("metric", all_metrics(), ids=ids)
def test_cuda_gives_what_the_cpu_gives(metric: Metric):
    batch, shape = ground_truth(), prediction(broken=(2,))
    metric.set_categories(["chair"])
    metric.update(shape, batch)
    expected = plain(metric.compute())
    metric.reset()
    for states_on in ("cuda", "cpu"):
        there = pickle.loads(pickle.dumps(metric)).to(states_on)
        there.update(shape.to("cuda"), batch.to("cuda"))
        assert plain(there.compute()) == pytest.approx(expected, rel=1e-5)
    # A mesh draws the same points on both devices, since its generator is the CPU's.
    vertices = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0.4, 0], [0, 0, 0.4]]).expand(5, 4, 3)
    mesh = Mesh(vertices, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    values = metric.per_sample(mesh, batch)[metric.name].tolist()
    on_cuda = metric.per_sample(mesh.to("cuda"), batch.to("cuda"))[metric.name]
    assert on_cuda.tolist() == pytest.approx(values, rel=1e-3)


def test_scales():
    box = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 0.5, 0]])
    assert scale_factor(box, "object") == 1
    assert scale_factor(box, "unit_edge") == 0.5
    centred = box.double() - box.double().mean(0)
    assert scale_factor(box.double(), "unit_ball").item() == pytest.approx(1 / centred.norm(dim=-1).max().item())
    with pytest.raises(ReconlabError, match="single point"):
        scale_factor(torch.zeros(4, 3), "unit_ball")
