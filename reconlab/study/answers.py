"""Reading what participants handed in: the page's JSON and CSV, and batches of Mechanical Turk."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError

KEY = "study.json"
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading content of another form ends in; the last two by endless numbers and by endless brackets."""


@dataclass(frozen=True)
class Answer:
    """One choice.

    Attributes:
        question: Its opaque name.
        choice: The chosen option's opaque name.
        side: ``left`` or ``right``.
        milliseconds: How long the question was in view.
    """

    question: str
    choice: str
    side: str
    milliseconds: int


@dataclass(frozen=True)
class Sheet:
    """One participant's answers, as handed in once.

    Attributes:
        source: The file (and line) that it came from.
        study: The study's hash.
        participant: Their name.
        finished: When, "" if they did not finish.
        answers: Of all answered questions.
    """

    source: str
    study: str
    participant: str
    finished: str
    answers: tuple[Answer, ...]


@dataclass
class Handed:
    """All that was handed in.

    Attributes:
        sheets: Readable ones.
        problems: One sentence for each file or line that is not.
    """

    sheets: list[Sheet] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_key(path: Path) -> dict[str, Any]:
    """The key that ``reconlab study build`` wrote.

    Raises:
        ReconlabError: It is missing or damaged.
    """
    path = path / KEY if path.is_dir() else path
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        complete = {"study", "pairs", "questions"} <= key.keys()
        complete = complete and all({"a", "b", "name"} <= p.keys() for p in key["pairs"])
        complete = complete and all(
            {"id", "kind", "pair", "category", "sample", "view", "options"} <= q.keys()
            and len(q["options"].items()) == 2
            for q in key["questions"]
        )
    except (OSError, *DAMAGE) as error:
        raise ReconlabError(
            f"The key {path} cannot be read ({error}): name the {KEY} that `reconlab study build` wrote."
        ) from error
    if not complete:
        raise ReconlabError(f"{path} is not a study's key: name the {KEY} that `reconlab study build` wrote.")
    loaded: dict[str, Any] = key
    return loaded


def read_answers(paths: Sequence[Path]) -> Handed:
    """Read files, and all ``.json`` and ``.csv`` files of folders. A damaged one is a problem, not the end.

    Raises:
        ReconlabError: A path does not exist, or a folder holds no such file.
    """
    handed = Handed()
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in (".json", ".csv") and p.name != KEY]
            if not inside:
                raise ReconlabError(f"The folder {path} has no answers (.json or .csv files).")
        elif path.is_file():
            inside = [path]
        else:
            raise ReconlabError(f"The answers {path} do not exist.")
        for file in inside:
            _read(file, handed)
    return handed


def _read(path: Path, handed: Handed) -> None:
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = list(_json(path, text) if text.lstrip().startswith(("{", "[")) else _csv(path, text))
    except ReconlabError as error:
        handed.problems.append(str(error))
    except (OSError, *DAMAGE, csv.Error) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        handed.problems.append(f"{path} cannot be read ({said}): ask for the file again.")
    else:
        handed.sheets += [s for s in found if isinstance(s, Sheet)]
        handed.problems += [s for s in found if isinstance(s, str)]


def _json(path: Path, text: str) -> Iterator[Sheet]:
    content = json.loads(text)
    for part in content if isinstance(content, list) else [content]:
        yield _sheet(str(path), part)


def _csv(path: Path, text: str) -> Iterator[Sheet | str]:
    reader = csv.DictReader(io.StringIO(text))
    columns = reader.fieldnames or []
    if "Answer.results" in columns:
        yield from _batch(path, reader)
        return
    lacking = [c for c in ("study", "participant", "question", "choice", "side") if c not in columns]
    if lacking:
        raise ReconlabError(
            f"{path} is no table of answers: it has neither the column Answer.results (a batch of Mechanical Turk) "
            f"nor {lacking[0]!r}."
        )
    people: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in reader:
        people.setdefault((row["study"], row["participant"]), []).append(row)
    for rows in people.values():
        yield _sheet(str(path), {**rows[0], "answers": rows})


def _batch(path: Path, rows: csv.DictReader[str]) -> Iterator[Sheet | str]:
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        if (row.get("AssignmentStatus") or "").strip().lower() == "rejected":
            yield f"{where}: the assignment was rejected on Mechanical Turk; its answers are left out."
            continue
        try:
            content = json.loads(row["Answer.results"] or "")
            worker = (row.get("WorkerId") or "").strip()
            yield _sheet(where, {**content, "participant": worker or content["participant"]})
        except ReconlabError as error:  # of this line only
            yield str(error)
        except DAMAGE:
            yield f"{where}: Answer.results holds no answers of this page."


def _sheet(source: str, content: Mapping[str, Any]) -> Sheet:
    answers = tuple(
        Answer(str(row["question"]), str(row["choice"]), str(row["side"]), int(float(row.get("milliseconds") or 0)))
        for row in content["answers"]
        if row["choice"]
    )
    if any(a.side not in ("left", "right") for a in answers):
        raise ReconlabError(f"{source} has a side that is neither left nor right: ask for the file again.")
    participant = str(content["participant"] or "").strip()
    if not participant:
        raise ReconlabError(f"{source} does not say whose answers it has: ask for the file again.")
    return Sheet(
        source,
        str(content["study"]),
        participant,
        str(content.get("finished") or ""),
        answers,
    )
