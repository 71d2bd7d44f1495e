"""One sample of an evaluation: two files in, values out; what is wrong with either is said and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reconlab.errors import ConversionError, ReconlabError
from reconlab.lab.evaluate_files import NotApplicableError, StoredTruth, Truth, frame, read_raw, to_shape
from reconlab.lab.evaluate_metrics import Plan, columns, make_metrics
from reconlab.lab.evaluate_pairs import Pair
from reconlab.lab.export import export_shape
from reconlab.shapes import Mesh, Shape


@dataclass
class Row:
    """What came of a sample.

    Attributes:
        category: Its category.
        id: Its id.
        values: ``{key: value}``; None where there is none.
        failed: Metrics that the prediction, or the true shape, has failed.
        skipped: Metrics that do not apply to this kind of file, or cannot run here, and why.
        unfit: Those of ``skipped`` that the prediction's form is the reason of, see :func:`charge_unfit`.
        excluded: Whether the true shape cannot be used at all.
        messages: One sentence for everything that is wrong.
        stamp: Of the files, see :meth:`Pair.stamp`.
    """

    category: str
    id: str
    values: dict[str, float | None] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unfit: list[str] = field(default_factory=list)
    excluded: bool = False
    messages: list[str] = field(default_factory=list)
    stamp: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """``category/id``."""
        return f"{self.category}/{self.id}" if self.category else self.id

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class Judge:
    """Computes the values of samples, one after another.

    Args:
        plan: What is computed, and how.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.metrics = make_metrics(plan)
        self._runs: dict[str, str] = {}

    def __call__(self, pair: Pair) -> Row:
        """Judge one sample.

        Raises:
            ReconlabError: The prediction's copy cannot be written (nothing else ends an evaluation).
        """
        row = Row(pair.category, pair.id, stamp=pair.stamp())
        try:
            if pair.truth_problem:
                raise ReconlabError(pair.truth_problem)
            truth, loc, scale = self._truth(pair)
        except Exception as error:
            row.excluded = True
            row.failed = list(self.metrics)
            row.values = {key: None for name in self.metrics for key in columns(name, self.metrics[name]).values()}
            row.messages.append(f"{pair.key}: the ground truth cannot be used: {_sentence(error)}")
            return row
        shape: Shape | None = None
        try:
            if pair.pred_problem:
                raise ReconlabError(pair.pred_problem)
            if pair.pred is None:
                raise ReconlabError("there is no prediction.")
            shape = to_shape(read_raw(pair.pred), loc, scale)
            if not bool(shape.valid()[0]):
                raise ReconlabError(f"{pair.pred} is empty or not finite in the frame of comparison.")
        except Exception as error:
            shape = None
            row.messages.append(f"{pair.key}: the prediction has failed: {_sentence(error)}")
        if shape is not None and self.plan.export is not None:  # a full disk is no failure of the prediction
            kind = "obj" if isinstance(shape, Mesh) else "ply"
            export_shape(shape, 0, self.plan.export / pair.category / pair.id, (kind,))
        charged = [name for name in self.metrics if self._measure(name, shape, truth, row)]
        if charged:
            row.messages.append(
                f"{pair.key}: the prediction has failed under {', '.join(charged)}: it cannot be measured and is "
                "charged the worst value."
            )
        return row

    def _truth(self, pair: Pair) -> tuple[Truth, Any, float]:
        import numpy as np

        if pair.truth.is_dir():
            return StoredTruth(pair.category, pair.id, pair.truth, self.plan.points), np.zeros(3), 1.0
        raw = read_raw(pair.truth)
        loc, scale = frame(raw, self.plan.normalize)
        shape = to_shape(raw, loc, scale)
        if not bool(shape.valid()[0]):
            raise ReconlabError(f"{pair.truth} is empty or not finite.")
        return Truth(pair.category, pair.id, shape, self.plan.points, self.plan.surface), loc, scale

    def _measure(self, name: str, shape: Shape | None, truth: Truth, row: Row) -> bool:
        """Fill in one metric's values; whether the metric itself found the prediction to have failed."""
        metric = self.metrics[name]
        keys = columns(name, metric)
        row.values |= dict.fromkeys(keys.values())
        try:
            batch = truth.batch(metric.needs, getattr(metric, "resolution", 32))
            if shape is None:
                row.values |= {key: metric.protocols[value].worst_value for value, key in keys.items()}
                row.failed.append(name)
                return False
            found = metric.per_sample(shape, batch)
        except (NotApplicableError, ConversionError) as error:
            row.skipped[name] = _sentence(error)
            if isinstance(error, ConversionError):  # a truth that does not fit raises the other one
                row.unfit.append(name)
        except Exception as error:
            # A failed prediction is charged by the metric itself; what is raised is the truth's, or nobody's, fault.
            if (why := self.cannot_run(name)) != "":
                row.skipped[name] = why
                return False
            row.failed.append(name)
            if isinstance(error, ReconlabError) or self._truth_fails(name, truth):
                row.messages.append(f"{row.key}: {name}: the ground truth cannot be used: {_sentence(error)}")
            else:
                row.values |= {key: metric.protocols[value].worst_value for value, key in keys.items()}
                row.messages.append(f"{row.key}: {name}: {_sentence(error)}")
        else:
            row.values |= {key: float(found[value][0]) for value, key in keys.items()}
            if bool(found[metric.failed_key][0]):
                row.failed.append(name)
                return True
        return False

    def _truth_fails(self, name: str, truth: Truth) -> bool:
        """Whether the truth as its own prediction breaks the metric too: then the prediction is not to blame."""
        metric = self.metrics[name]
        try:
            batch = truth.batch(metric.needs, getattr(metric, "resolution", 32))
            metric.per_sample(truth.shape, batch)
        except Exception:
            return True
        return False

    def cannot_run(self, name: str) -> str:
        """Why a metric fails even on a cube against itself (a missing library, say), or ""."""
        if name not in self._runs:
            import trimesh

            from reconlab.lab.evaluate_files import Raw

            box = trimesh.creation.box()
            raw = Raw(box.vertices, box.faces)
            cube = Truth("", "probe", to_shape(raw, *frame(raw, "gt-box")), 500)
            metric = self.metrics[name]
            self._runs[name] = ""
            try:
                metric.per_sample(cube.shape, cube.batch(metric.needs, getattr(metric, "resolution", 32)))
            except Exception as error:
                self._runs[name] = _sentence(error)
        return self._runs[name]


def charge_unfit(rows: Sequence[Row], metrics: Mapping[str, Any]) -> list[str]:
    """Count points among meshes as failures: else a method could leave its bad samples out of a mean.

    A metric that does not apply to *any* prediction is left out. One that was measured on some, and not on others
    because they are points where it wants a surface, has failed on these: they get its worst values.

    Args:
        rows: All samples; changed in place.
        metrics: By name.

    Returns:
        A sentence for each sample that was charged.
    """
    said = []
    measured = {n for n in metrics if any(r.values.get(n) is not None and n not in r.failed for r in rows)}
    for row in rows:
        charged = [name for name in row.unfit if name in measured and name in row.skipped]
        for name in charged:
            metric = metrics[name]
            row.values |= {key: metric.protocols[v].worst_value for v, key in columns(name, metric).items()}
            row.failed.append(name)
            del row.skipped[name]
        if charged:
            said.append(
                f"{row.key}: the prediction has failed under {', '.join(charged)}: it has no surface, as others "
                "have, and is charged the worst value."
            )
            row.messages.append(said[-1])
    return said


def _sentence(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory for it."
    text = " ".join(str(error).split())
    text = text if isinstance(error, ReconlabError) else f"unexpected {type(error).__name__}: {text}"
    return text if text.endswith(".") else f"{text}."
