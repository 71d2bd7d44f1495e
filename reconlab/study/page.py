"""A study's pages: one offline file, and a HIT for Amazon Mechanical Turk."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from reconlab.datasets import format as files
from reconlab.errors import ReconlabError
from reconlab.study.build import Question

LIMIT = 65_535  # characters of an HTMLQuestion
SUBMIT = "https://www.mturk.com/mturk/externalSubmit"
SCHEMA = "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2011-11-11/HTMLQuestion.xsd"
CONSENT = (
    "Taking part is voluntary. You may stop at any time by closing this page; answers that you have not handed in "
    "are then not used.",
    "This page keeps your answers, their order, and how long each took, together with your name or worker number. It "
    "records nothing else, and hands nothing over before you do.",
)


def study_hash(title: str, questions: Sequence[Question]) -> str:
    """What ties answers to a study: 16 hexadecimal digits of the page's questions and pictures."""
    content = [title.encode()]
    for question in questions:
        content += [name.encode() + data for name, data in question.pictures.items()]
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


def page(
    title: str,
    questions: Sequence[Question],
    consent: Sequence[str] = CONSENT,
    mode: Literal["page", "hit"] = "page",
    base: str | None = None,
) -> str:
    """The page as HTML.

    Nothing in it says which run an option is of, or which questions are checks.

    Args:
        title: Heading.
        questions: In the order of the key.
        consent: Paragraphs that a participant agrees to.
        mode: ``hit`` hands the answers to Mechanical Turk.
        base: Where pictures lie (``…/<name>.jpg``); None puts them into the page.
    """
    import jinja2

    views = len(questions[0].entry["turns"])
    content: dict[str, Any] = {
        "study": study_hash(title, questions),
        "mode": mode,
        "views": views,
        "submit": SUBMIT,
        "questions": [[q.entry["id"], *q.entry["options"]] for q in questions],
    }
    if base is None:
        pictures = {name: data for q in questions for name, data in q.pictures.items()}
        content["pictures"] = {
            n: "data:image/jpeg;base64," + base64.b64encode(d).decode() for n, d in pictures.items()
        }
    else:
        content["base"] = base.rstrip("/") + "/"
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _asset("study.html")
    )
    return template.render(
        title=title,
        consent=consent,
        hit=mode == "hit",
        offline=base is None,
        count=len(questions),
        style=_asset("study.css"),
        script=_asset("study.js"),
        data=data,
    )


def hit_question(html: str) -> str:
    """The page as an ``HTMLQuestion`` document.

    Raises:
        ReconlabError: It is longer than Mechanical Turk takes.
    """
    if len(html) > LIMIT:
        raise ReconlabError(
            f"hit.xml would have {len(html)} characters, Mechanical Turk takes {LIMIT}: "
            "ask fewer questions (--questions) or shorten --image-base."
        )
    inside = html.replace("]]>", "]]]]><![CDATA[>")
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<HTMLQuestion xmlns="{SCHEMA}">\n'
        f"<HTMLContent><![CDATA[{inside}]]></HTMLContent>\n<FrameHeight>0</FrameHeight>\n</HTMLQuestion>\n"
    )


def write_pages(
    out: Path,
    title: str,
    questions: Sequence[Question],
    consent: Sequence[str] = CONSENT,
    image_base: str | None = None,
) -> list[Path]:
    """Write ``study.html``, ``hit.html`` with ``hit_images/``, and with ``image_base`` ``hit.xml``.

    Raises:
        ReconlabError: The folder cannot be written, or the HIT is too long.
    """
    texts = {"study.html": page(title, questions, consent)}
    texts["hit.html"] = page(title, questions, consent, "hit", "hit_images")
    if image_base is not None:
        texts["hit.xml"] = hit_question(page(title, questions, consent, "hit", image_base))
    try:
        (out / "hit_images").mkdir(parents=True, exist_ok=True)
        for old in (out / "hit_images").glob("*.jpg"):
            old.unlink()
        for question in questions:
            for name, data in question.pictures.items():
                files.write_atomic(out / "hit_images" / f"{name}.jpg", data)
        for name, text in texts.items():
            files.write_atomic(out / name, text.encode())
    except OSError as error:
        raise ReconlabError(f"Cannot write the study into {out}: {error.strerror or error}.") from error
    return [out / name for name in texts]


def _asset(name: str) -> str:
    return (resources.files("reconlab.study") / "templates" / name).read_text(encoding="utf-8")
