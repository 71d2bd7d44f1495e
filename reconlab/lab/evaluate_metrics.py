"""Which metrics an evaluation computes: their names, the papers' protocols, and arguments from the command line."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError

CLASSES = {
    "cd": "ChamferDistance",
    "emd": "EMD",
    "fscore": "FScore",
    "nc": "NormalConsistency",
    "iou": "VoxelIoU",
    "lfd": "LFD",
    "shape_google": "ShapeGoogle",
    "mvcnn": "MVCNN",
    "drkfs": "DRKFSDistance",
    "hausdorff": "Hausdorff",
    "voxel_mse": "VoxelMSE",
    "volume_iou": "VolumeIoU",
    "point_iou": "PointIoU",
}
"""Class in :mod:`reconlab.metrics` by name; ``--metrics all`` takes them all."""


@dataclass(frozen=True)
class Preset:
    """A named protocol.

    Attributes:
        about: Whose it is.
        metrics: What is computed if no metrics are named.
        arguments: Of metrics, where they differ from the defaults.
    """

    about: str
    metrics: tuple[str, ...]
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


PROTOCOLS = {
    "reconlab": Preset("this project's defaults, as in its training runs", ("cd", "fscore", "nc", "iou")),
    "atlasnet": Preset(
        "AtlasNet (2018), DR-KFS (2020) Table 3: 2500 points, unit ball, squared, F at d² < 0.001",
        ("cd", "fscore"),
        {"cd": {"variant": "atlasnet", "points": 2500}, "fscore": {"variant": "atlasnet", "points": 2500}},
    ),
    "drkfs": Preset(
        "DR-KFS (2020) Table 3: AtlasNet's CD and F-score, normal consistency, 32³ IoU, and the visual measures",
        ("cd", "fscore", "nc", "iou", "lfd", "shape_google", "mvcnn"),
        {
            "cd": {"variant": "atlasnet", "points": 2500},
            "fscore": {"variant": "atlasnet", "points": 2500},
            "nc": {"points": 100_000},
        },
    ),
    "occnet": Preset(
        "Occupancy Networks (2019): Chamfer-L1 and normals of 100 000 points, longest edge 1, volumetric IoU",
        ("cd", "nc", "volume_iou"),
        {"cd": {"variant": "occnet", "points": 100_000}, "nc": {"points": 100_000}},
    ),
    "what3d": Preset(
        "Tatarchenko et al. (2019): F-score at 1 % of the cube's side, 10 000 points",
        ("fscore",),
        {"fscore": {"variant": "what3d", "points": 10_000}},
    ),
    "dpc": Preset(
        "DPC (2018): the sum of both mean distances, all points of a cloud", ("cd",), {"cd": {"points": None}}
    ),
    "drwr": Preset(
        "DRWR (2020): DPC's Chamfer distance, and the IoU of point clouds at 32³",
        ("cd", "point_iou"),
        {"cd": {"points": None}},
    ),
    "nox": Preset(
        "X-NOCS (2019): squared, both clouds centred, at most 8000 points",
        ("cd",),
        {"cd": {"variant": "nox", "points": 8000}},
    ),
}


@dataclass(frozen=True)
class Plan:
    """Everything that decides the values of an evaluation; survives pickling.

    Attributes:
        metrics: ``{name: (class, arguments)}``, the class as in :func:`metric_class`.
        normalize: A key of :data:`reconlab.lab.evaluate_files.NORMALIZE`.
        surface: A key of :data:`reconlab.lab.evaluate_files.SURFACES`.
        points: Points drawn of each true surface.
        cache: Folder for the ground truth's descriptors.
        export: Folder for the predictions as they were compared, or None.
    """

    metrics: Mapping[str, tuple[str, Mapping[str, Any]]]
    normalize: str = "gt-box"
    surface: str = "all"
    points: int = 10_000
    cache: str | None = None
    export: Path | None = None


def metric_class(path: str) -> Any:
    """A metric class by its name in :mod:`reconlab.metrics`, or by its dotted path.

    Raises:
        ReconlabError: There is none.
    """
    from reconlab.metrics import Metric

    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module or "reconlab.metrics"), name, None)
    except ImportError as error:
        raise ReconlabError(f"--metrics: {module} cannot be imported ({error}).") from error
    if not (isinstance(found, type) and issubclass(found, Metric)):
        raise ReconlabError(
            f"--metrics: there is no metric class {name!r} in {module or 'this version of reconlab'}."
        )
    return found


def named_metrics(text: str | None, preset: Preset) -> dict[str, str]:
    """``{name: class}`` of ``--metrics``: ``all``, or names and ``name=Class`` with commas.

    Raises:
        ReconlabError: A name is unknown or given twice.
    """
    if text is None:
        return {name: CLASSES[name] for name in preset.metrics}
    if text.strip() == "all":
        return dict(CLASSES)
    chosen: dict[str, str] = {}
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        name, equals, path = part.partition("=")
        if name in chosen:
            raise ReconlabError(f"--metrics names {name!r} twice.")
        if not equals and name not in CLASSES:
            close = difflib.get_close_matches(name, CLASSES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from all, {', '.join(CLASSES)}."
            raise ReconlabError(f"--metrics: there is no metric {name!r}; {hint}")
        if equals and not name.replace("_", "").isalnum():
            raise ReconlabError(f"--metrics: {name!r} is no name; take letters, digits and _ (name=Class).")
        chosen[name] = path.strip() if equals else CLASSES[name]
    if not chosen:
        raise ReconlabError(f"--metrics is empty; choose from all, {', '.join(CLASSES)}.")
    return chosen


def parse_settings(items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``metric.argument=value`` items, values as YAML.

    Raises:
        ReconlabError: An item is not of that form.

    Example:
        >>> parse_settings(["cd.points=500", "cd.variant=occnet", "fscore.threshold=0.02"])
        {'cd': {'points': 500, 'variant': 'occnet'}, 'fscore': {'threshold': 0.02}}
    """
    import yaml

    found: dict[str, dict[str, Any]] = {}
    for item in items:
        key, equals, value = item.partition("=")
        metric, dot, argument = key.strip().partition(".")
        if not (metric and dot and argument and equals):
            raise ReconlabError(f"--set {item}: expected metric.argument=value, lfd.cameras=FILE say.")
        try:
            found.setdefault(metric, {})[argument] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ReconlabError(f"--set {item}: the value is not valid YAML.") from error
    return found


def choose_metrics(
    text: str | None, protocol: str, settings: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, tuple[str, dict[str, Any]]], list[str]]:
    """What is computed: ``{name: (class, arguments)}``, and notes on what ``all`` had to leave out.

    Args:
        text: Of ``--metrics``, or None.
        protocol: A key of :data:`PROTOCOLS`.
        settings: From :func:`parse_settings`.

    Raises:
        ReconlabError: A metric, an argument or the protocol does not exist.
    """
    if protocol not in PROTOCOLS:
        close = difflib.get_close_matches(protocol, PROTOCOLS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(PROTOCOLS)}."
        raise ReconlabError(f"--protocol: there is no {protocol!r}; {hint}")
    preset = PROTOCOLS[protocol]
    names = named_metrics(text, preset)
    for metric in settings:
        if metric not in names:
            raise ReconlabError(f"--set {metric}: that metric is not computed (--metrics {','.join(names)}).")
    chosen, notes = {}, []
    for name, path in names.items():
        arguments = {**preset.arguments.get(name, {}), **settings.get(name, {})}
        try:
            make_metric(name, path, arguments, None)
        except ReconlabError as error:
            if text is None or text.strip() != "all" or name in settings:
                raise
            notes.append(f"{name} is left out: {error}")
            continue
        chosen[name] = (path, arguments)
    return chosen, notes


def make_metric(name: str, path: str, arguments: Mapping[str, Any], cache: str | None) -> Any:
    """One metric; ``cache`` goes to those that keep descriptors.

    Raises:
        ReconlabError: The class does not exist, or does not take the arguments.
    """
    kind = metric_class(path)
    takes = [p for p in inspect.signature(kind.__init__).parameters if p != "self"]
    for argument in arguments:
        if argument not in takes:
            raise ReconlabError(
                f"--set {name}.{argument}: {kind.__name__} has no such argument; it has {', '.join(takes) or 'none'}."
            )
    given = dict(arguments)
    if cache is not None and "cache" in takes:
        given.setdefault("cache", cache)
    try:
        return kind(**given)
    except (TypeError, ValueError, AttributeError) as error:
        said = ", ".join(f"{k}={v!r}" for k, v in given.items())
        raise ReconlabError(f"{name}: {kind.__name__}({said}) cannot be made: {error}.") from error


def make_metrics(plan: Plan) -> dict[str, Any]:
    """The metrics of a plan by name."""
    return {name: make_metric(name, path, given, plan.cache) for name, (path, given) in plan.metrics.items()}


def columns(name: str, metric: Any) -> dict[str, str]:
    """``{value's own name: key in outputs}``: the headline is the metric's name, others ``<metric>/<value>``.

    Example:
        >>> from reconlab.metrics import FScore
        >>> columns("fscore", FScore())["precision_what3d"]
        'fscore/precision_what3d'
    """
    return {value: name if value == metric.name else f"{name}/{value}" for value in metric.protocols}


def protocol_record(plan: Plan, preset: str, metrics: Mapping[str, Any], stored: bool) -> dict[str, Any]:
    """What is written beside the numbers: the frame, the rules, and the protocol of every value by its key.

    Args:
        plan: Of the evaluation.
        preset: Its name in :data:`PROTOCOLS`.
        metrics: From :func:`make_metrics`.
        stored: Whether the truth is a built dataset.
    """
    from reconlab import __version__
    from reconlab.lab.evaluate_files import NORMALIZE, SURFACES

    in_frame = "as stored in the built dataset: the true bounding box has its centre at 0 and diagonal 1"
    record: dict[str, Any] = {
        "name": preset,
        "reconlab": __version__,
        "normalize": plan.normalize,
        "frame": in_frame if stored else NORMALIZE[plan.normalize],
        "surface": "as stored in the built dataset" if stored else SURFACES[plan.surface],
        "true_points": plan.points,
        "failed": "a prediction that is missing, unreadable, empty or not finite has every value's worst_value, is "
        "counted in n_failed and enters the means",
        "excluded": "a sample whose true shape cannot be used has no values (null), is counted in n, n_failed and "
        "n_excluded, and enters no mean",
    }
    for name, metric in metrics.items():
        path, arguments = plan.metrics[name]
        for value, key in columns(name, metric).items():
            record[key] = {**metric.protocols[value].as_dict(), "class": path, "arguments": dict(arguments)}
    return record
