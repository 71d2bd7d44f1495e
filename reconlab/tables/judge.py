"""Whether the claims of a paper hold: in numbers that were measured, and in the paper's own columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from reconlab.tables.claims import OPERATORS, Claim, Comparison, Term, Wins
from reconlab.tables.measure import Measurement
from reconlab.tables.schema import Column, Table

HOLDS, FAILS, NOT_RUN = "holds", "does not hold", "not run"
APART = ("other protocol", "its protocol was not stored", "at the profile", "the mean over", "trained on")
"""How the remarks begin that say why a number is not to be compared with one that lacks them."""


@dataclass(frozen=True)
class Number:
    """A cell of a claim: its value, the spread over its seeds where there is one, and how it differs from others."""

    value: float
    sd: float | None = None
    n: int = 1
    apart: frozenset[str] = frozenset()

    def times(self, factor: float) -> Number:
        """The number in a product."""
        return Number(factor * self.value, None if self.sd is None else abs(factor) * self.sd, self.n, self.apart)


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        claim: The claim.
        verdict: ``holds``, ``does not hold`` or ``not run``.
        numbers: The numbers compared.
        remarks: What weakens the verdict.
        won: Of a count: how many were won.
        compared: Of a count: how many could be compared.
    """

    claim: Claim
    verdict: str
    numbers: str
    remarks: list[str] = field(default_factory=list)
    won: int | None = None
    compared: int | None = None


Lookup = Callable[[str, str], Number | None]


def judge_paper(table: Table) -> list[Verdict]:
    """The claims in the paper's own numbers. A claim of ours, or one without numbers there, is ``not run``."""

    def lookup(row: str, column: str) -> Number | None:
        value = table.row(row).paper.get(column)
        return Number(value) if isinstance(value, float) else None

    return [_judge(claim, table, lookup, paper=True) for claim in table.claims]


def judge(measured: Measurement) -> list[Verdict]:
    """The claims in measured numbers. Quoted rows have none: by another protocol they would decide nothing."""

    def lookup(row: str, column: str) -> Number | None:
        found = measured.get(row, column)
        if found is None:
            return None
        return Number(found.mean, found.sd, found.n, frozenset(r for r in found.remarks if r.startswith(APART)))

    return [_judge(claim, measured.table, lookup, paper=False) for claim in measured.table.claims]


def pooled_sd(left: Number, right: Number) -> float | None:
    """The pooled standard deviation of two numbers' seeds; None where neither has two seeds.

    Example:
        >>> round(pooled_sd(Number(0, 1.0, 3), Number(0, 2.0, 2)), 4)  # sqrt((2 · 1² + 1 · 2²) / 3)
        1.4142
        >>> pooled_sd(Number(0), Number(0)) is None
        True
    """
    freedom = sum(n.n - 1 for n in (left, right) if n.sd is not None)
    if not freedom:
        return None
    return math.sqrt(sum((n.n - 1) * n.sd**2 for n in (left, right) if n.sd is not None) / freedom)


def _judge(claim: Claim, table: Table, lookup: Lookup, paper: bool) -> Verdict:
    if claim.wins is not None:
        return _judge_count(claim, claim.wins, table, lookup, paper)
    results: list[bool | None] = []
    parts: list[str] = []
    remarks: list[str] = []
    missing: list[Term] = []
    for comparison in claim.holds:
        left, right = (_value(term, lookup) for term in (comparison.left, comparison.right))
        if left is None or right is None:
            missing += [t for t, n in ((comparison.left, left), (comparison.right, right)) if n is None]
            results.append(None)
            continue
        parts.append(_said(comparison, left, right, table))
        results.append(OPERATORS[comparison.op](left.value, right.value))
        if not paper:
            remarks += _spread(left, right, comparison)
            sides = ((comparison.left, left, right), (comparison.right, right, left))
            remarks += [f"{t}: {r}" for t, a, b in sides if t.row for r in sorted(a.apart - b.apart)]
    verdict = FAILS if False in results else NOT_RUN if None in results else HOLDS
    remarks = _absent(missing, table, paper) + remarks
    return Verdict(claim, verdict, "; ".join(parts), list(dict.fromkeys(remarks)))


def _absent(missing: list[Term], table: Table, paper: bool) -> list[str]:
    """The remarks about numbers that are not there."""
    quoted = {row.name for row in table.rows if row.quoted and not paper}
    names = dict.fromkeys(str(term.row) for term in missing if term.row in quoted)
    cells = dict.fromkeys(f"{term.row}.{term.column}" for term in missing if term.row not in quoted)
    said = [f"no number of {', '.join(cells)}"] if cells else []
    return said + ([f"quoted, not re-run: {', '.join(names)}"] if names else [])


def _value(term: Term, lookup: Lookup) -> Number | None:
    if term.row is None or term.column is None:
        return Number(term.factor)
    found = lookup(term.row, term.column)
    return None if found is None else found.times(term.factor)


def _said(comparison: Comparison, left: Number, right: Number, table: Table) -> str:
    """The comparison with its numbers: ``full.CD 5.11 < l1.CD 19.23``."""
    words = []
    for term, number in ((comparison.left, left), (comparison.right, right)):
        digits = 0 if term.column is None else table.column(term.column).digits
        words.append(str(term) if term.row is None else f"{term} {number.value:.{digits}f}")
    true = OPERATORS[comparison.op](left.value, right.value)
    return f"{words[0]} {comparison.op if true else 'not ' + comparison.op} {words[1]}"


def _spread(left: Number, right: Number, comparison: Comparison) -> list[str]:
    """The remark about a difference that the seeds alone could make."""
    pair = f"{comparison.left} and {comparison.right}" if comparison.left.row and comparison.right.row else ""
    if not pair:
        return []
    sd = pooled_sd(left, right)
    if sd is None:
        return ["one seed: the spread is not known"]
    return [f"{pair} differ within the seeds' spread"] if abs(left.value - right.value) < sd else []


def _judge_count(claim: Claim, wins: Wins, table: Table, lookup: Lookup, paper: bool) -> Verdict:
    won = compared = close = unlike = 0
    per_column: list[str] = []
    for name in wins.columns:
        column = table.column(name)
        here = there = 0
        for first, second in wins.pairs:
            left, right = lookup(first, name), lookup(second, name)
            if left is None or right is None:
                continue
            there += 1
            unlike += left.apart != right.apart
            here += _better(right.value, left.value, column)
            sd = pooled_sd(left, right)
            close += sd is not None and abs(left.value - right.value) < sd
        won, compared = won + here, compared + there
        if there:
            per_column.append(f"{name} {here}/{there}")
    remarks = []
    if not compared:
        return Verdict(claim, NOT_RUN, "", [], 0, 0)
    if compared < wins.total:
        remarks.append(f"{compared} of {wins.total} comparisons could be made")
    if close:
        remarks.append(f"{close} of them within the seeds' spread")
    if unlike:
        remarks.append(f"{unlike} of them between different protocols or profiles")
    numbers = f"{won} of {compared} ({100 * won / compared:.0f} %): {', '.join(per_column)}"
    reached = {"all": won == compared, "majority": 2 * won > compared, "some": won > 0}[wins.needs]
    if paper:
        stated = (claim.paper in (None, won)) and (claim.of in (None, compared))
        if not stated:
            remarks.append(f"the paper counts {claim.paper} of {claim.of}")
        reached = reached and stated
    elif claim.paper is not None:
        remarks.append(f"the paper counts {claim.paper} of {claim.of or wins.total}")
    # With "all" the rest may yet be lost, with "some" it may yet be won
    open_ = compared < wins.total and ((wins.needs == "all" and reached) or (wins.needs == "some" and not won))
    return Verdict(claim, NOT_RUN if open_ else HOLDS if reached else FAILS, numbers, remarks, won, compared)


def _better(value: float, than: float, column: Column) -> bool:
    return value < than if column.lower else value > than
