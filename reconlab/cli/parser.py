"""The argument parser of the commands: a mistake is one sentence, as everywhere."""

from __future__ import annotations

import argparse
from typing import NoReturn

from reconlab.errors import ReconlabError


class CommandParser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing its usage; its ``prog`` is ``reconlab COMMAND``.

    Example:
        >>> CommandParser("reconlab table").parse_args(["--nmae"])
        Traceback (most recent call last):
        ...
        reconlab.errors.ReconlabError: table: unrecognized arguments: --nmae (reconlab table --help says more).
    """

    def error(self, message: str) -> NoReturn:
        """Say what is wrong.

        Raises:
            ReconlabError: Always.
        """
        command = self.prog.removeprefix("reconlab ")
        raise ReconlabError(f"{command}: {message.rstrip('.')} (reconlab {command} --help says more).")
