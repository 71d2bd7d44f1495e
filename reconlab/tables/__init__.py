"""The papers' tables: as data, measured cells beside the papers' numbers, the papers' claims checked.

Nothing here imports torch.
"""

from reconlab.tables.claims import Claim, Comparison, Term, Wins, parse
from reconlab.tables.schema import Column, Group, Row, Table, find, load_table, names

__all__ = [
    "Claim",
    "Column",
    "Comparison",
    "Group",
    "Row",
    "Table",
    "Term",
    "Wins",
    "find",
    "load_table",
    "names",
    "parse",
]
