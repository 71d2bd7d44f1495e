"""Losses: each a pure, per-sample function and a thin class that holds settings and reduces."""

from reconlab.losses.balanced import Balanced
from reconlab.losses.base import Loss
from reconlab.losses.cap import CAP
from reconlab.losses.chamfer import Chamfer
from reconlab.losses.cross_silhouette_iou import CrossSilhouetteIoU
from reconlab.losses.dpc import DPC
from reconlab.losses.drc import DRC
from reconlab.losses.drkfs import DRKFS
from reconlab.losses.drwr import DRWR
from reconlab.losses.emd import EMD
from reconlab.losses.epcg import EPCG
from reconlab.losses.matryoshka import Matryoshka
from reconlab.losses.mesh_regularizers import GeometricRegularizer
from reconlab.losses.occupancy_mse import CodeRegression, OccupancyMSE
from reconlab.losses.octree_cross_entropy import OctreeCrossEntropy
from reconlab.losses.pixel2mesh import Pixel2MeshLoss
from reconlab.losses.pixel_mse import PixelMSE
from reconlab.losses.ptn import PTN
from reconlab.losses.silhouette_iou import SilhouetteIoU
from reconlab.losses.voxel_cross_entropy import VoxelCrossEntropy
from reconlab.losses.voxel_mse import VoxelMSE
from reconlab.losses.voxel_silhouette import VoxelSilhouette
from reconlab.losses.weighted_sum import WeightedSum

__all__ = [
    "CAP",
    "DPC",
    "DRC",
    "DRKFS",
    "DRWR",
    "EMD",
    "EPCG",
    "PTN",
    "Balanced",
    "Chamfer",
    "CodeRegression",
    "CrossSilhouetteIoU",
    "GeometricRegularizer",
    "Loss",
    "Matryoshka",
    "OccupancyMSE",
    "OctreeCrossEntropy",
    "Pixel2MeshLoss",
    "PixelMSE",
    "SilhouetteIoU",
    "VoxelCrossEntropy",
    "VoxelMSE",
    "VoxelSilhouette",
    "WeightedSum",
]
