"""Tables of the papers as data: ``configs/tables/<name>.yaml``, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reconlab
from reconlab.errors import ReconlabError
from reconlab.tables.claims import Claim
from reconlab.tables.reading import close_to

FOLDER = Path("configs") / "tables"


@dataclass(frozen=True)
class Group:
    """Trainings apart, one network per category: its name is the category, ``label`` is for printing."""

    name: str
    label: str


@dataclass(frozen=True)
class Column:
    """A number of every row.

    Attributes:
        name: For claims and the paper's numbers.
        label: For printing.
        metric: Key of a test value without ``test/``; None for a mean of columns.
        group: The group whose cells are read; None for cells without one.
        factor: The measured value is multiplied by this.
        direction: ``lower`` or ``higher`` is better, ``none`` where the number is no measure of quality.
        digits: Decimals printed.
        protocol: What the stored protocol must say, by its fields.
        mean: Over what a cell's value is the mean: ``samples``, or ``categories``, each of them counting the same.
        mean_of: Columns whose mean this one is.
        times: Whether the row's ``times`` multiplies the value (seconds a step × steps).
        note: A footnote.
    """

    name: str
    label: str
    metric: str | None
    group: str | None = None
    factor: float = 1.0
    direction: str = "lower"
    digits: int = 2
    protocol: dict[str, Any] = field(default_factory=dict)
    mean: str = "samples"
    mean_of: tuple[str, ...] = ()
    times: bool = False
    note: str = ""

    @property
    def lower(self) -> bool:
        """Whether smaller numbers are better."""
        return self.direction == "lower"


@dataclass(frozen=True)
class Row:
    """A training, or a line quoted from the paper.

    Attributes:
        name: For claims and cells.
        label: For printing.
        config: The file that a cell of the sweep starts from, relative to the folder of ``configs``; None where
            nothing is trained.
        options: Options for this row at a profile, after the profile's own.
        paper: The paper's number per column; a text where it prints none ("out of memory").
        quoted: Why the row is not run; empty where it is.
        times: What columns with ``times`` are multiplied by; None: such a column stays empty.
        note: A footnote.
    """

    name: str
    label: str
    config: str | None = None
    options: dict[str, list[str]] = field(default_factory=dict)
    paper: dict[str, float | str] = field(default_factory=dict)
    quoted: str = ""
    times: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a paper; :func:`load_table` makes it.

    Attributes:
        name: The file's stem.
        file: The table file.
        title: For printing.
        paper: ``name``, ``table``, ``where``, ``data`` and ``protocol`` of the original.
        sweep: The sweep whose cells the rows are, relative to :attr:`root`; None where nothing is trained.
        measurements: Names of the stored measurements, ``results/tables/<name>.json``.
        profiles: Options of every cell by profile.
        groups: By name.
        columns: In the order of printing.
        rows: In the order of printing.
        claims: In the order of printing.
        values: Keys of cells' values that no metric has.
        notes: Footnotes.
    """

    name: str
    file: Path
    title: str
    paper: dict[str, str]
    sweep: str | None
    measurements: tuple[str, ...]
    profiles: dict[str, list[str]]
    groups: dict[str, Group]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    values: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """The folder that holds ``configs``: what the files of rows and sweeps are relative to."""
        return root_of(self.file)

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)


def root_of(file: Path) -> Path:
    """The folder of ``configs`` that a file lies in, or the working directory for one elsewhere."""
    parents = [p for p in file.absolute().parents if p.name == "configs"]
    return parents[0].parent if parents else Path.cwd()


def folders() -> list[Path]:
    """Where tables are looked for by name: here, then beside the checkout that the package runs from."""
    here, checkout = Path.cwd() / FOLDER, Path(reconlab.__file__).resolve().parents[1] / FOLDER
    return list(dict.fromkeys(folder for folder in (here, checkout) if folder.is_dir()))


def names() -> dict[str, Path]:
    """The tables that there are, by name."""
    found: dict[str, Path] = {}
    for folder in folders():
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def find(name: str | Path) -> Path:
    """The file of a table: by name in ``configs/tables``, else as a path.

    Raises:
        ReconlabError: There is none.
    """
    known = names()
    if str(name) in known:
        return known[str(name)]
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ReconlabError(f"There is no table file {name}; reconlab list tables names those by name.")
    raise ReconlabError(f"There is no table {str(name)!r}; {close_to(str(name), known)}")


def load_table(name_or_path: str | Path, check_files: bool = True) -> Table:
    """Read and check a table.

    Args:
        name_or_path: A name of ``reconlab list tables``, or a file.
        check_files: Whether the files that rows, profiles and ``sweep`` name must exist.

    Raises:
        ReconlabError: There is no such table, or a key, name or file in it is wrong; the sentence says which.
    """
    from reconlab.tables.load import read

    return read(find(name_or_path), check_files)
