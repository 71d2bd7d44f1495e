"""Metrics: each a pure per-sample function and a thin torchmetrics class with its written protocol."""

from reconlab.metrics.base import Metric
from reconlab.metrics.chamfer import VARIANTS, ChamferDistance, ChamferVariant, chamfer_distance
from reconlab.metrics.descriptors import DescriptorCache, DescriptorMetric
from reconlab.metrics.dpc import DPCChamfer, precision_and_coverage
from reconlab.metrics.fscore import THRESHOLDS, FScore, FScoreVariant, f_score
from reconlab.metrics.iou import VoxelIoU, voxel_iou
from reconlab.metrics.mvcnn import MVCNN, mvcnn_descriptor, mvcnn_distance
from reconlab.metrics.normal_consistency import NormalConsistency, normal_consistency
from reconlab.metrics.point_iou import PointIoU
from reconlab.metrics.points import PointMetric
from reconlab.metrics.protocol import SCALES, Protocol

__all__ = [
    "MVCNN",
    "SCALES",
    "THRESHOLDS",
    "VARIANTS",
    "ChamferDistance",
    "ChamferVariant",
    "DPCChamfer",
    "DescriptorCache",
    "DescriptorMetric",
    "FScore",
    "FScoreVariant",
    "Metric",
    "NormalConsistency",
    "PointIoU",
    "PointMetric",
    "Protocol",
    "VoxelIoU",
    "chamfer_distance",
    "f_score",
    "mvcnn_descriptor",
    "mvcnn_distance",
    "normal_consistency",
    "precision_and_coverage",
    "voxel_iou",
]
