"""The names of the test values that a column may show, without importing the metrics (which need torch)."""

from __future__ import annotations

METRIC_VALUES: tuple[str, ...] = (
    *("chamfer_dpc", "chamfer_atlasnet", "chamfer_occnet", "chamfer_nox", "chamfer_nox_dpc"),
    *("dpc_cd", "dpc_precision", "dpc_coverage", "dpc_cd_best_view"),
    "drkfs",
    *("emd", "emd_auction"),
    *("fscore_what3d", "precision_what3d", "recall_what3d"),
    *("fscore_atlasnet", "precision_atlasnet", "recall_atlasnet"),
    *("fscore", "precision", "recall"),  # with @threshold: fscore@0.02
    *("hausdorff", "hausdorff_pred", "hausdorff_truth"),
    "lfd",
    "mvcnn",
    *("normal_consistency", "normal_consistency_signed"),
    *("point_iou", "point_iou_unfilled", "point_iou_truth"),
    *("shape_google", "shape_google_spatial"),
    *("volume_iou", "volume_iou_exact"),
    *("voxel_iou", "voxel_mse"),
)
"""The values of every metric class under its default names (a test compares them with the classes)."""

COST_VALUES: tuple[str, ...] = ("seconds_per_step",)
"""What a cell records beside the metrics."""


def base_name(key: str) -> str:
    """The metric's value of a key: without its category and without its threshold.

    Example:
        >>> base_name("fscore_what3d@0.02/chair")
        'fscore_what3d'
    """
    return key.split("/", 1)[0].split("@", 1)[0]


def is_known(key: str, own: tuple[str, ...] = ()) -> bool:
    """Whether a column may name this value; ``own`` are the table's values that no metric has."""
    return key in own or base_name(key) in METRIC_VALUES or key in COST_VALUES
