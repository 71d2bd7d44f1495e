"""Text that can stand inside of an HTML page: JSON, scripts, and the page's own template files."""

from __future__ import annotations

import importlib.resources
import json
import math
from typing import Any


def as_json(content: Any) -> str:
    r"""JSON that can stand in a script element: no ``<``, ``>`` or ``&`` in it, and null for what is not finite.

    Example:
        >>> as_json({"a": "</script>", "b": float("nan")})
        '{"a":"\\u003c/script\\u003e","b":null}'
    """
    text = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(k): _finite(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(v) for v in content]
    return content


def inline(script: str) -> str:
    """A script that can stand in a script element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def template(name: str) -> str:
    """The text of a file in ``reconlab/report/templates``."""
    return importlib.resources.files("reconlab.report").joinpath("templates", name).read_text(encoding="utf-8")
