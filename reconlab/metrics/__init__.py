"""Metrics: each a pure per-sample function and a thin torchmetrics class with its written protocol."""

from reconlab.metrics.base import Metric
from reconlab.metrics.chamfer import VARIANTS, ChamferDistance, ChamferVariant, chamfer_distance
from reconlab.metrics.descriptors import DescriptorCache, DescriptorMetric
from reconlab.metrics.dpc import DPCChamfer, precision_and_coverage
from reconlab.metrics.drkfs import DRKFSDistance, drkfs_distance
from reconlab.metrics.emd import EMD, earth_movers_distance
from reconlab.metrics.fscore import THRESHOLDS, FScore, FScoreCurve, FScoreVariant, f_score, f_score_curve
from reconlab.metrics.hausdorff import Hausdorff, HausdorffParts, hausdorff_distance
from reconlab.metrics.iou import VoxelIoU, voxel_iou
from reconlab.metrics.lfd import LFD, lfd_descriptor, lfd_distance
from reconlab.metrics.mvcnn import MVCNN, mvcnn_descriptor, mvcnn_distance
from reconlab.metrics.normal_consistency import NormalConsistency, normal_consistency
from reconlab.metrics.point_iou import PointIoU
from reconlab.metrics.points import PointMetric
from reconlab.metrics.protocol import SCALES, Protocol
from reconlab.metrics.shape_google import ShapeGoogle, Vocabulary, shape_google
from reconlab.metrics.volume_iou import VolumeIoU, volume_iou
from reconlab.metrics.voxel_mse import VoxelMSE, voxel_mse

__all__ = [
    "EMD",
    "LFD",
    "MVCNN",
    "SCALES",
    "THRESHOLDS",
    "VARIANTS",
    "ChamferDistance",
    "ChamferVariant",
    "DPCChamfer",
    "DRKFSDistance",
    "DescriptorCache",
    "DescriptorMetric",
    "FScore",
    "FScoreCurve",
    "FScoreVariant",
    "Hausdorff",
    "HausdorffParts",
    "Metric",
    "NormalConsistency",
    "PointIoU",
    "PointMetric",
    "Protocol",
    "ShapeGoogle",
    "Vocabulary",
    "VolumeIoU",
    "VoxelIoU",
    "VoxelMSE",
    "chamfer_distance",
    "drkfs_distance",
    "earth_movers_distance",
    "f_score",
    "f_score_curve",
    "hausdorff_distance",
    "lfd_descriptor",
    "lfd_distance",
    "mvcnn_descriptor",
    "mvcnn_distance",
    "normal_consistency",
    "precision_and_coverage",
    "shape_google",
    "volume_iou",
    "voxel_iou",
    "voxel_mse",
]
