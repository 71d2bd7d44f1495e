"""``reconlab list``: networks, losses and metrics by reading the source, without importing it; the papers' tables."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import reconlab
from reconlab.cli.parser import CommandParser

ROOMS = {"networks": "Network", "losses": "Loss", "metrics": "Metric"}


def subclasses(room: str) -> dict[str, str]:
    """Concrete classes of a room and the first sentence of their docstrings, by name."""
    folder = Path(reconlab.__file__).parent / room
    classes: dict[str, ast.ClassDef] = {}
    for file in sorted(folder.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    family = {ROOMS[room]}
    while True:
        more = {n for n, c in classes.items() if {b.id for b in c.bases if isinstance(b, ast.Name)} & family}
        if more <= family:
            break
        family |= more
    return {
        name: (ast.get_docstring(classes[name]) or "").split("\n\n")[0].replace("\n", " ")
        for name in sorted(family - {ROOMS[room]})
        if not _abstract(classes[name]) and not name.startswith("_")
    }


def _abstract(node: ast.ClassDef) -> bool:
    methods = [m for m in node.body if isinstance(m, ast.FunctionDef)]
    return any(isinstance(d, ast.Name) and d.id == "abstractmethod" for m in methods for d in m.decorator_list)


def tables() -> dict[str, str]:
    """Titles of the papers' tables by name; for a file with a mistake, what is wrong with it."""
    from reconlab.errors import ReconlabError
    from reconlab.tables.schema import load_table, names

    found = {}
    for name in names():
        try:
            found[name] = load_table(name, check_files=False).title
        except ReconlabError as error:
            found[name] = f"(not usable: {error})"
    return found


def main(argv: Sequence[str]) -> int:
    """Print the names of a room, or of the papers' tables."""
    parser = CommandParser(
        "reconlab list", description="Name what a config may use as class_path, and what reconlab table prints."
    )
    parser.add_argument("what", choices=sorted([*ROOMS, "tables"]))
    what = parser.parse_args(argv).what
    for name, sentence in (tables() if what == "tables" else subclasses(what)).items():
        print(f"{name:<22}{sentence}")
    return 0
