"""What a study's answers say: the share of votes, how sure it is, and whether people looked and agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reconlab.errors import ReconlabError
from reconlab.study.answers import Sheet
from reconlab.study.statistics import LEVEL, Share, bootstrap, fleiss_kappa, share

PAPER = {
    "PS-1": {"share": 0.71, "votes": 4000, "participants": 80, "questions": 50, "samples": "all"},
    "PS-2": {"share": 0.86075, "votes": 4000, "participants": 80, "questions": 50, "samples": "the best 20 %"},
}
"""DR-KFS (ECCV 2020), section 4.2: votes for the network trained under DR-KFS; AtlasNet and Matryoshka Network."""


@dataclass
class Counted:
    """Whose votes count.

    Attributes:
        sheets: One of each participant.
        foreign: Sentences on sheets of another study, or with questions that it does not have.
        unfinished: Participants who did not answer every question.
        repeated: Further sheets of a participant, left out.
        inattentive: Participants with too many failed checks, and how many.
        checks: Failed checks by participant.
    """

    sheets: list[Sheet] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    inattentive: dict[str, int] = field(default_factory=dict)
    checks: dict[str, int] = field(default_factory=dict)


def count(key: dict[str, Any], sheets: Sequence[Sheet], allow: int = 0, keep_inattentive: bool = False) -> Counted:
    """Sort the sheets: the first finished one of each participant counts, if at most ``allow`` checks were failed."""
    options = {q["id"]: q["options"] for q in key["questions"]}
    checks = {q["id"] for q in key["questions"] if q["kind"] == "check"}
    out = Counted()
    seen: dict[str, Sheet] = {}
    for sheet in sorted(sheets, key=lambda s: (s.finished or "~", s.source)):
        if sheet.study != key["study"]:
            out.foreign.append(f"{sheet.source} is of another study ({sheet.study}, not {key['study']}).")
            continue
        if wrong := [a for a in sheet.answers if a.choice not in options.get(a.question, {})]:
            out.foreign.append(f"{sheet.source} names the option {wrong[0].choice!r}, which the study does not have.")
            continue
        if {a.question for a in sheet.answers} != options.keys() or not sheet.finished:
            out.unfinished.append(sheet.participant)
            continue
        if len(sheet.answers) > len(options):
            out.foreign.append(f"{sheet.source} answers a question twice.")
            continue
        if (first := seen.setdefault(sheet.participant, sheet)) is not sheet:
            if set(first.answers) != set(sheet.answers):  # the same sheet as JSON and CSV is no second one
                out.repeated.append(f"{sheet.participant}: {sheet.source} is left out, {first.source} counts.")
            continue
        failed = sum(a.question in checks and options[a.question][a.choice] != "good" for a in sheet.answers)
        out.checks[sheet.participant] = failed
        if failed > allow:
            out.inattentive[sheet.participant] = failed
        if failed <= allow or keep_inattentive:
            out.sheets.append(sheet)
    done = {s.participant for s in seen.values()}
    out.unfinished = sorted(set(out.unfinished) - done)  # who came back and finished has
    return out


def score(key: dict[str, Any], counted: Counted) -> dict[str, Any]:
    """All numbers of a study.

    Args:
        key: Content of ``study.json``.
        counted: Whose votes count.

    Returns:
        What ``--json`` writes; docs/study.md says what each part is.

    Raises:
        ReconlabError: No participant's votes count.
    """
    if not counted.sheets:
        raise ReconlabError(
            "No participant's votes count: "
            f"{len(counted.foreign)} sheets are not of this study, {len(counted.unfinished)} people did not finish, "
            f"{len(counted.inattentive)} failed the attention checks (--keep-inattentive counts them)."
        )
    real = [q for q in key["questions"] if q["kind"] == "question"]
    place = {q["id"]: i for i, q in enumerate(real)}
    votes = np.full((len(counted.sheets), len(real)), np.nan)
    sides: Counter[str] = Counter()
    for p, sheet in enumerate(counted.sheets):
        for answer in sheet.answers:
            if (i := place.get(answer.question)) is not None:
                votes[p, i] = real[i]["options"][answer.choice] == "b"
                sides[answer.side] += 1
    table = np.stack([(votes == 0).sum(0), (votes == 1).sum(0)], 1)
    times = [a.milliseconds / 1000 for s in counted.sheets for a in s.answers if a.question in place]
    both, people = bootstrap(votes, True), bootstrap(votes, False)
    return {
        "study": key["study"],
        "pairs": key["pairs"],
        "participants": len(counted.sheets),
        "questions": len(real),
        "b_over_a": _share(table)._asdict()
        | {"participants_interval": people, "participants_and_questions_interval": both},
        "per_pair": {
            pair["name"]: _part(table, [q["pair"] == k for q in real]) for k, pair in enumerate(key["pairs"])
        },
        "per_category": {
            c: _part(table, [q["category"] == c for q in real]) for c in sorted({q["category"] for q in real})
        },
        "left": share(sides["left"], sides.total())._asdict(),
        "agreement": {
            "fleiss_kappa": fleiss_kappa(table),
            "mean_majority": float((table.max(1) / table.sum(1)).mean()),
        },
        "items": [
            {
                "id": q["id"],
                "pair": q["pair"],
                "category": q["category"],
                "sample": q["sample"],
                "view": q["view"],
                "votes_b": int(b),
                "votes": int(a + b),
                "majority": float(max(a, b) / (a + b)),
            }
            for q, (a, b) in zip(real, table, strict=True)
        ],
        "checks": {
            "asked": len(key["questions"]) - len(real),
            "failed": counted.checks,
            "inattentive": counted.inattentive,
        },
        "left_out": {
            "foreign": counted.foreign,
            "unfinished": counted.unfinished,
            "repeated": counted.repeated,
        },
        "seconds_per_question": {
            "median": float(np.median(times)),
            "total_mean": float(sum(times) / len(counted.sheets)),
        },
        "level": LEVEL,
        "paper": PAPER,
    }


def _share(table: np.ndarray) -> Share:
    return share(int(table[:, 1].sum()), int(table.sum()))


def _part(table: np.ndarray, chosen: list[bool]) -> dict[str, Any]:
    return _share(table[np.array(chosen, bool)])._asdict()


def text(result: dict[str, Any]) -> str:
    """The numbers in lines."""
    whole, lines = result["b_over_a"], []
    people, questions = result["participants"], result["questions"]
    lines.append(f"study {result['study']}: {people} participant{'s' * (people != 1)}, {questions} questions")
    for pair in result["pairs"]:
        lines.append(f"  A {pair['a']}\n  B {pair['b']}")
    lines += ["", f"B over A                 {_said(whole)}   (95 %, Clopper–Pearson, votes taken as independent)"]
    for name, what in (
        ("participants_interval", "participants drawn anew"),
        ("participants_and_questions_interval", "participants and questions drawn anew"),
    ):
        if whole[name] is None:
            lines.append(f"{'':24} interval with {what}: needs two or more of each")
        else:
            lines.append(f"{'':24} {whole[name][0]:.1%} to {whole[name][1]:.1%}   (95 %, bootstrap, {what})")
    for title, part in (("per pair", "per_pair"), ("per category", "per_category")):
        if len(result[part]) > 1:
            lines += [title, *(f"  {name:<22} {_said(value)}" for name, value in result[part].items())]
    kappa = result["agreement"]["fleiss_kappa"]
    lines += [
        "",
        f"left side chosen         {_said(result['left'])}   (50 % without a bias)",
        f"agreement per question   {result['agreement']['mean_majority']:.1%} of votes with the majority (mean); "
        f"Fleiss' kappa {'–' if kappa is None else format(kappa, '.3f')}",
        f"time per question        {result['seconds_per_question']['median']:.1f} s (median)",
    ]
    checks, out = result["checks"], result["left_out"]
    failed = ", ".join(f"{name} ({n} of {checks['asked']})" for name, n in checks["inattentive"].items())
    lines.append(f"failed attention checks  {failed or 'nobody'}")
    if out["unfinished"]:
        lines.append(f"did not finish           {', '.join(out['unfinished'])}")
    lines.append("")
    for name, paper in result["paper"].items():
        lines.append(
            f"paper, {name}: {100 * paper['share']:g} % of {paper['votes']} votes for DR-KFS "
            f"({paper['participants']} participants, {paper['questions']} questions of {paper['samples']} samples)"
        )
    return "\n".join(lines)


def _said(part: dict[str, Any]) -> str:
    if part["share"] is None:
        return "no votes"
    return f"{part['share']:6.1%} ({part['votes']} of {part['of']}), {part['low']:.1%} to {part['high']:.1%}"
