"""What an evaluation leaves behind: JSON, CSV, a table, and a run directory like that of ``reconlab test``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconlab.lab.evaluate_judge import Row
from reconlab.lab.evaluate_metrics import columns
from reconlab.lab.run_directory import write_atomic, write_run_json

if TYPE_CHECKING:
    from rich.table import Table

    from reconlab.metrics import Protocol


def means(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, float | None]:
    """The mean of every key over the rows that have it; None where none has."""
    result: dict[str, float | None] = {}
    for key in keys:
        values = [v for row in rows if (v := row.values.get(key)) is not None]
        result[key] = sum(values) / len(values) if values else None
    return result


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """``n`` samples, ``n_failed`` that failed under some metric, ``n_excluded`` of these without a usable truth."""
    failed, excluded = (sum(bool(getattr(row, what)) for row in rows) for what in ("failed", "excluded"))
    return {"n": len(rows), "n_failed": failed, "n_excluded": excluded}


def by_category(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by category, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.category, []).append(row)
    return found


def document(rows: Sequence[Row], metrics: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``--json``."""
    keys = [key for name, metric in metrics.items() for key in columns(name, metric).values()]
    samples = []
    for row in rows:
        sample: dict[str, Any] = {"id": row.id, "category": row.category, **{k: row.values.get(k) for k in keys}}
        if row.failed:
            sample["failed"] = row.failed
        if row.skipped:
            sample["not_applicable"] = row.skipped
        if row.excluded:
            sample["excluded"] = True
        if row.messages:
            sample["messages"] = row.messages
        samples.append(sample)
    categories = {c: {"mean": means(part, keys), **counts(part)} for c, part in by_category(rows).items()}
    per_metric = {
        name: {
            "n": sum(row.values.get(name) is not None for row in rows),
            "n_failed": sum(name in row.failed for row in rows),
        }
        for name in metrics
    }
    return {
        "protocol": dict(protocol),
        "samples": samples,
        "mean": means(rows, keys),
        **counts(rows),
        "categories": categories,
        "per_metric": per_metric,
    }


def own_names(metrics: Mapping[str, Any]) -> dict[str, str]:
    """``{key in outputs: the value's own name}`` as ``reconlab test`` has it; ``<metric>/<name>`` for a second one.

    Example:
        >>> from reconlab.metrics import ChamferDistance
        >>> own_names({"cd": ChamferDistance(), "coarse": ChamferDistance(points=9)})
        {'cd': 'chamfer_dpc', 'coarse': 'coarse/chamfer_dpc'}
    """
    found: dict[str, str] = {}
    for name, metric in metrics.items():
        for value, key in columns(name, metric).items():
            found[key] = f"{name}/{value}" if value in found.values() else value
    return found


def csv_text(rows: Sequence[Row], metrics: Mapping[str, Any], own: bool = False) -> str:
    """Values per sample: one line each, empty where there is none.

    Args:
        rows: The samples.
        metrics: By name.
        own: Call the columns as the metrics do (``chamfer_dpc``, ``chamfer_dpc/failed``), as ``reconlab test``
            does in its run directories; else by the keys of the JSON output, with a column ``failed``.
    """
    names = own_names(metrics)
    table = []
    for row in rows:
        line: dict[str, Any] = {"category": row.category, "id": row.id}
        line |= {shown if own else key: row.values.get(key) for key, shown in names.items()}
        if own:
            line |= {f"{names[name]}/failed": name in row.failed for name in metrics}
        else:
            line["failed"] = " ".join(row.failed)
        table.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]) if table else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def summary_table(rows: Sequence[Row], metrics: Mapping[str, Any], title: str) -> Table:
    """Means of the headline values by category, with each protocol's factor, ``n`` and ``n_failed``."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("category")
    for name, metric in metrics.items():
        factor = "" if metric.protocol.factor == 1 else f" ×{metric.protocol.factor:g}"
        table.add_column(f"{name}{factor} {'↑' if metric.protocol.higher_is_better else '↓'}", justify="right")
    for name in ("n", "failed"):
        table.add_column(name, justify="right")
    groups = by_category(rows)
    parts = {**groups, "all": list(rows)} if list(groups) != [""] else {"all": list(rows)}
    for category, part in parts.items():
        mean, count = means(part, list(metrics)), counts(part)
        cells = ["–" if (v := mean[name]) is None else printed(v, m.protocol) for name, m in metrics.items()]
        table.add_row(category or "(none)", *cells, str(count["n"]), str(count["n_failed"]))
    return table


def printed(value: float, protocol: Protocol) -> str:
    """The value times its factor; large ones without decimals, small ones with three figures.

    Example:
        >>> from reconlab.metrics import ChamferDistance
        >>> protocol = ChamferDistance("dpc").protocol  # printed times 100
        >>> printed(0.0431, protocol), printed(43.84, protocol), printed(0.000123456, protocol)
        ('4.31', '4384', '0.0123')
    """
    shown = abs(value * protocol.factor)
    if 0 < shown < 0.1:
        return f"{value * protocol.factor:.3g}"
    return protocol.printed(value, 0 if shown >= 1000 else 2)


def write_run(
    folder: Path, rows: Sequence[Row], metrics: Mapping[str, Any], settings: Mapping[str, Any], run: Mapping[str, Any]
) -> None:
    """Complete a run directory: ``config.yaml``, ``metrics.csv``, ``predictions/per_sample_rank0.csv``, ``run.json``.

    Names are those of ``reconlab test``: ``test/<value>``, ``test/<value>/<category>``, ``test/<metric>/n``.

    Args:
        folder: The run directory.
        rows: The samples.
        metrics: By name.
        settings: What the command was given.
        run: Further content of ``run.json``.
    """
    import yaml

    names = own_names(metrics)
    values: dict[str, float] = {}
    for suffix, part in {"": list(rows), **{f"/{c}": p for c, p in by_category(rows).items() if c}}.items():
        mean = means(part, list(names))
        values |= {f"test/{own}{suffix}": m for key, own in names.items() if (m := mean[key]) is not None}
        for name in metrics:
            values[f"test/{names[name]}{suffix}/n"] = sum(row.values.get(name) is not None for row in part)
            values[f"test/{names[name]}{suffix}/n_failed"] = sum(name in row.failed for row in part)
    line = io.StringIO()
    writer = csv.DictWriter(line, ["epoch", "step", *values], lineterminator="\n")
    writer.writeheader()
    writer.writerow({"epoch": 0, "step": 0, **values})
    write_atomic(folder / "config.yaml", yaml.safe_dump({"evaluate": dict(settings)}, sort_keys=False))
    write_atomic(folder / "metrics.csv", line.getvalue())
    write_atomic(folder / "predictions" / "per_sample_rank0.csv", csv_text(rows, metrics, own=True))
    write_run_json(folder, {**run, "metrics": values})
