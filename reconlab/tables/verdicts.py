"""The claims of a page as lines of text."""

from __future__ import annotations

from reconlab.tables.claims import Claim
from reconlab.tables.judge import Verdict
from reconlab.tables.page import Page

CLAIM_COLUMNS = ("claim", "here", "numbers", "in the paper's own numbers")


def claim_columns(page: Page) -> tuple[str, ...]:
    """The headers of the claims."""
    return ("claim", "in the paper's own numbers", "numbers") if page.paper_only else CLAIM_COLUMNS


def claim_lines(page: Page) -> list[tuple[str, ...]]:
    """The claims as cells of text."""
    lines: list[tuple[str, ...]] = []
    for here, there in zip(page.verdicts, page.paper_verdicts, strict=True):
        numbers = ". ".join(part for part in (here.numbers, "; ".join(here.remarks)) if part)
        if page.paper_only:
            lines.append((_claim_text(here.claim), _in_paper(here), numbers))
        else:
            lines.append((_claim_text(here.claim), here.verdict, numbers, _in_paper(there)))
    return lines


def _claim_text(claim: Claim) -> str:
    return claim.text + (" (ours)" if claim.ours else "") + (f" [{claim.note}]" if claim.note else "")


def _in_paper(verdict: Verdict) -> str:
    """The verdict in the paper's own numbers: what it does not print cannot be judged."""
    return "not printed" if verdict.verdict == "not run" else verdict.verdict
