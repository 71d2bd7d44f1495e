"""The errors that a user can cause; each is one sentence that names the file or key and the next step."""

from __future__ import annotations

import importlib
from types import ModuleType


class ReconlabError(Exception):
    """A mistake in the user's input. The command line prints its sentence and exits with 2."""


class ConversionError(ReconlabError):
    """A shape was asked for a form that it does not have (a mesh of a point cloud, say)."""


def optional_import(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional library, or say which extra installs it.

    Args:
        module: Dotted module name.
        extra: The extra of this package that carries it (``eval``, ``sweep``, ``viz``).
        purpose: What needs it, as the subject of the sentence.

    Raises:
        ReconlabError: The library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ReconlabError(
            f"{purpose} needs the library {module!r}: install it with pip install 'reconlab[{extra}]'."
        ) from error
