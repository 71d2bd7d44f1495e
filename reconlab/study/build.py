"""Drawing a study's questions, and writing the pages with their key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reconlab.errors import ReconlabError
from reconlab.study.choose import Plan, choose, settings, share_of
from reconlab.study.runs import Run, Sample, read_run


@dataclass
class Question:
    """One question: its place in the key, and its pictures by opaque name.

    Attributes:
        entry: Its lines in ``study.json``.
        pictures: JPEG bytes by file name without suffix.
    """

    entry: dict[str, Any]
    pictures: dict[str, bytes]


@dataclass
class Study:
    """What was made, before it is written.

    Attributes:
        questions: In the page's order (every participant sees another one).
        pairs: Of runs, for the key.
        notes: What was left out, one sentence each.
    """

    questions: list[Question]
    pairs: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def make_study(
    pairs: Sequence[tuple[Path, Path]],
    plan: Plan,
    root: Path | None = None,
    scores: Sequence[tuple[Path, Path]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Choose and draw all questions.

    Args:
        pairs: Run directories, ``(A, B)`` each.
        plan: What to build.
        root: The dataset; the one that the first run names if None.
        scores: For each pair the folders whose tables have ``plan.by``; the runs themselves if empty.
        progress: Called with the number of drawn questions and their total.

    Raises:
        ReconlabError: A run has no reconstructions, too few samples, or no values to choose by.
    """
    rng = np.random.default_rng(plan.seed)
    for a, b in pairs:
        if a.resolve() == b.resolve():
            raise ReconlabError(f"{a} is both A and B of a pair: name two runs.")
    if len({(a.resolve(), b.resolve()) for a, b in pairs}) < len(pairs):
        raise ReconlabError("A pair of runs is named twice, which would ask about a sample twice: name it once.")
    runs = [(read_run(a), read_run(b)) for a, b in pairs]
    chosen = choose(runs, plan, scores, rng)
    return _Artist(runs, plan, _root(runs, root), rng, progress).study(chosen)


class _Artist:
    """Draws the questions; names everything by numbers that say nothing."""

    def __init__(
        self,
        runs: list[tuple[Run, Run]],
        plan: Plan,
        root: Path,
        rng: np.random.Generator,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.runs, self.plan, self.root, self.rng, self.progress = runs, plan, root, rng, progress
        self.notes: list[str] = []
        self.used: set[str] = set()
        self.done = 0

    def study(self, chosen: list[list[Sample]]) -> Study:
        questions: list[Question] = []
        for k, samples in enumerate(chosen):
            wanted = share_of(self.plan.questions, len(self.runs), k)
            found = self._draw(samples, wanted, partial(self._question, k))
            if len(found) < wanted:
                raise ReconlabError(
                    f"Only {len(found)} of the {wanted} questions could be drawn ({self.notes[-1]}): "
                    "ask fewer (--questions), or test both runs on more."
                )
            questions += found
        pool = [(k, s) for k, samples in enumerate(chosen) for s in reversed(samples)]  # those not asked about first
        checks = self._draw(pool, self.plan.checks, lambda ks: self._check(*ks))
        more = checks
        while more and len(checks) < self.plan.checks:  # fewer samples than checks
            more = self._draw(pool, self.plan.checks - len(checks), lambda ks: self._check(*ks))
            checks = checks + more
        if len(checks) < self.plan.checks:
            raise ReconlabError(f"No attention check could be drawn ({self.notes[-1]}): --checks 0 goes without.")
        order = self.rng.permutation(len(questions) + len(checks))
        both = [*questions, *checks]
        pairs = [
            {"a": str(a.folder), "b": str(b.folder), "name": f"{a.folder} | {b.folder}", "drawn_from": len(samples)}
            for (a, b), samples in zip(self.runs, chosen, strict=True)
        ]
        return Study([both[i] for i in order], pairs, self.notes)

    def _draw(self, samples: Sequence[Any], wanted: int, make: Callable[[Any], Question]) -> list[Question]:
        found: list[Question] = []
        for sample in samples:
            if len(found) == wanted:
                break
            try:
                found.append(make(sample))
            except ReconlabError as error:
                name = (sample if isinstance(sample, Sample) else sample[1]).key
                self.notes.append(f"{name} was left out: {str(error).rstrip('.')}.")
                continue
            self.done += 1
            if self.progress:
                self.progress(self.done, self.plan.questions + self.plan.checks)
        return found

    def _question(self, pair: int, sample: Sample) -> Question:
        from reconlab.study.pictures import read_shape

        shapes = {who: read_shape(run.files[sample]) for who, run in zip("ab", self.runs[pair], strict=True)}
        return self._ask("question", pair, sample, shapes)

    def _check(self, pair: int, sample: Sample) -> Question:
        from reconlab.study.pictures import crumpled, read_shape, true_shape

        good = true_shape(self._folder(sample)) or read_shape(self.runs[pair][1].files[sample])
        others = [s for s in self.runs[pair][0].files if s.category != sample.category]
        kind = "another category" if others and self.rng.random() < 0.5 else "noise"
        if kind == "noise":
            ruined = crumpled(good, self.rng)
        else:
            other = others[int(self.rng.integers(len(others)))]
            ruined = true_shape(self._folder(other)) or read_shape(self.runs[pair][0].files[other])
        question = self._ask("check", pair, sample, {"good": good, "ruined": ruined})
        question.entry["check"] = kind
        return question

    def _ask(self, kind: str, pair: int, sample: Sample, shapes: dict[str, Any]) -> Question:
        from reconlab.study.pictures import TURN, cameras_of, input_picture, shape_pictures

        folder = self._folder(sample)
        angle = float(self.rng.uniform(*TURN)) * (1 if self.rng.random() < 0.5 else -1)
        turns = [0.0, angle, -angle][: self.plan.views]
        cameras = cameras_of(folder, sample.view, turns)
        name = self._name()
        pictures = {name: input_picture(folder, sample.view, self.plan.size)}
        options: dict[str, str] = {}
        for who in list(shapes) if self.rng.random() < 0.5 else list(shapes)[::-1]:
            options[option := self._name()] = who
            try:
                drawn = shape_pictures(shapes[who], cameras, self.plan.size)
            except ReconlabError as error:
                raise ReconlabError(f"{who.upper() if len(who) == 1 else who}: {error}") from error
            pictures |= {f"{option}_{v}": picture for v, picture in enumerate(drawn)}
        entry = {
            "id": name,
            "kind": kind,
            "pair": pair,
            "category": sample.category,
            "sample": sample.id,
            "view": sample.view,
            "turns": [round(t, 2) for t in turns],
            "options": options,
        }
        return Question(entry, pictures)

    def _folder(self, sample: Sample) -> Path:
        folder = self.root / sample.category / sample.id
        if not folder.is_dir():
            raise ReconlabError(f"{folder} does not exist; --root names the dataset that both runs were tested on")
        return folder

    def _name(self) -> str:
        while (name := self.rng.bytes(4).hex()) in self.used:
            pass
        self.used.add(name)
        return name


def _root(runs: list[tuple[Run, Run]], given: Path | None) -> Path:
    root = given or runs[0][0].root
    for run in (run for pair in runs for run in pair):
        if given is None and root is not None and run.root is not None and run.root.resolve() != root.resolve():
            raise ReconlabError(
                f"{runs[0][0].folder} names the dataset {root}, {run.folder} {run.root}: compare runs that were "
                "tested on the same one, or say --root DATA if it was moved."
            )
    if root is None:
        raise ReconlabError(f"{runs[0][0].folder}/config.yaml names no dataset: say --root DATA.")
    if not root.is_dir():
        raise ReconlabError(f"The dataset {root} does not exist here: say --root DATA.")
    return root


def pairs_of(folders: Sequence[str]) -> list[tuple[Path, Path]]:
    """``A1 B1 A2 B2`` as pairs."""
    return [(Path(a), Path(b)) for a, b in zip(folders[::2], folders[1::2], strict=True)]


def write_study(
    out: Path, study: Study, plan: Plan, consent: Sequence[str], image_base: str | None = None
) -> list[Path]:
    """Write the pages, then the key ``study.json``.

    Raises:
        ReconlabError: The folder cannot be written, or the HIT is too long.
    """
    import json

    from reconlab.lab.run_directory import command_line, provenance, write_atomic
    from reconlab.study.page import study_hash, write_pages

    written = write_pages(out, plan.title, study.questions, consent, image_base)
    key = {
        "format": 1,
        "study": study_hash(plan.title, study.questions),
        "settings": settings(plan),
        "pairs": study.pairs,
        "questions": [q.entry for q in study.questions],
        "notes": study.notes,
        "command": command_line(),
        **provenance(plan.seed),
    }
    write_atomic(out / "study.json", json.dumps(key, indent=1, ensure_ascii=False) + "\n")
    return [*written, out / "study.json"]
