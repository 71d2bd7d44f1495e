"""Keypoint detector and patch descriptor of DR-KFS, and their weights."""

from reconlab.features.dense import DenseDescriptor
from reconlab.features.detector import PiecewiseLinearDetector
from reconlab.features.extractor import PatchExtractor
from reconlab.features.hardnet import HardNet
from reconlab.features.patches import PatchFeatures
from reconlab.features.weights import load_dense, load_detector, load_hardnet

__all__ = [
    "DenseDescriptor",
    "HardNet",
    "PatchExtractor",
    "PatchFeatures",
    "PiecewiseLinearDetector",
    "load_dense",
    "load_detector",
    "load_hardnet",
]
