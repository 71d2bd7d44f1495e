"""The names and signatures that users and independent checks call: changing one is a breaking change."""

import importlib
import inspect

import pytest
import torch
import torchmetrics

FUNCTIONS = {
    "reconlab.metrics.chamfer_distance": "pred, target, variant='dpc'",
    "reconlab.metrics.f_score": "pred, target, threshold",
    "reconlab.metrics.earth_movers_distance": "pred, target, method='exact'",
    "reconlab.metrics.hausdorff_distance": "pred, target",
    "reconlab.metrics.lfd_distance": "pred, target, cameras=None",
    "reconlab.metrics.shape_google": "pred, target",
    "reconlab.metrics.volume_iou": "pred, target, method='points'",
    "reconlab.metrics.normal_consistency": "pred, pred_normals, target, target_normals",
    "reconlab.metrics.voxel_iou": "pred, target, threshold=0.5",
    "reconlab.renderers.soft_rasterize": "mesh, cameras",
    "reconlab.renderers.render_point_silhouettes": "points, cameras",
    "reconlab.renderers.resample_voxels": "values, cameras, resolution",
    "reconlab.shapes.PointCloud": "points, normals=None",
    "reconlab.shapes.Mesh": "vertices, faces, vertex_splits=None, face_splits=None",
    "reconlab.shapes.VoxelGrid": "values",
    "reconlab.losses.WeightedSum": "terms, weights",
}
CLASSES = {
    "reconlab.metrics": [
        *("EMD", "LFD", "MVCNN", "ChamferDistance", "DRKFSDistance", "FScore", "FScoreCurve", "Hausdorff"),
        *("NormalConsistency", "ShapeGoogle", "VolumeIoU", "VoxelIoU", "VoxelMSE"),
    ],
    "reconlab.losses": [
        *(
            "CAP",
            "Chamfer",
            "CodeRegression",
            "CrossSilhouetteIoU",
            "DPC",
            "DRC",
            "DRKFS",
            "DRWR",
            "EMD",
            "EPCG",
            "GeometricRegularizer",
            "Matryoshka",
            "OctreeCrossEntropy",
            "OccupancyMSE",
            "PTN",
            "Balanced",
            "Pixel2MeshLoss",
            "PixelMSE",
            "SilhouetteIoU",
            "VoxelMSE",
            "VoxelCrossEntropy",
            "VoxelSilhouette",
            "WeightedSum",
        )
    ],
    "reconlab.shapes": ["PointCloud", "Mesh", "VoxelGrid"],
}


def find(path: str):
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("path", FUNCTIONS)
def test_signature_begins_as_promised(path: str):
    promised = [part.strip().partition("=")[::2] for part in FUNCTIONS[path].split(",")]
    parameters = list(inspect.signature(find(path)).parameters.values())
    assert [p.name for p in parameters[: len(promised)]] == [name for name, _ in promised]
    for parameter, (_, default) in zip(parameters, promised, strict=False):
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert repr(parameter.default) == default if default else parameter.default is inspect.Parameter.empty
    # Whatever comes after has a default: the promised call stays valid.
    for parameter in parameters[len(promised) :]:
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        assert variadic or parameter.default is not parameter.empty, parameter.name


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in CLASSES.items() for n in names])
def test_classes_are_public_and_of_their_base(module: str, name: str):
    from reconlab.losses import Loss
    from reconlab.metrics import Metric
    from reconlab.shapes import Shape

    found = find(f"{module}.{name}")
    base = {"reconlab.metrics": Metric, "reconlab.losses": Loss, "reconlab.shapes": Shape}[module]
    assert issubclass(found, base)
    assert name in importlib.import_module(module).__all__
    if base is Metric:
        assert issubclass(found, torchmetrics.Metric)
        assert found().protocol.as_dict()["name"]  # every setting has a default


def test_metric_functions_are_batched_and_unreduced():
    from reconlab.metrics import chamfer_distance, f_score, normal_consistency, voxel_iou

    pred, target = torch.rand(3, 20, 3), torch.rand(3, 30, 3)
    assert chamfer_distance(pred, target).shape == (3,)
    assert chamfer_distance(pred, target, variant="atlasnet").shape == (3,)
    f, precision, recall = f_score(pred, target, 0.1)
    assert f.shape == precision.shape == recall.shape == (3,)
    assert normal_consistency(pred, pred, target, target).shape == (3,)
    assert voxel_iou(torch.rand(3, 4, 4, 4), torch.ones(3, 4, 4, 4), threshold=0.4).shape == (3,)


def test_soft_rasterize_gives_silhouette_and_shaded():
    from reconlab.cameras import orbit_views
    from reconlab.renderers import soft_rasterize
    from reconlab.shapes import Mesh

    vertices = torch.tensor([[0.0, 0.4, 0], [-0.3, -0.2, -0.3], [0.3, -0.2, -0.3], [0.0, -0.2, 0.4]])
    mesh = Mesh(vertices.expand(2, 4, 3), torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
    views = soft_rasterize(mesh, orbit_views(3), 32)
    for image in (views.silhouette, views.shaded):
        assert image.shape == (2, 3, 32, 32)
        assert 0 <= image.min() < 0.1 < image.max() <= 1
