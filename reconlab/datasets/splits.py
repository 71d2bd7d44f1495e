"""Training, validation and test lists that do not leak: near-identical variants stay together.

Folders of CAD models hold the same aircraft in ten liveries, or ``armchair1`` and ``armchair2``. Shapes are put
into one family when their names say so, when a table given by the user says so, or when their geometry does.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from reconlab.errors import ReconlabError

ALIKE = 0.82
"""Shapes whose 32³ voxels overlap by this much (intersection over union) are variants of one another. Among real
airliners, different types reach 0.80 and liveries of one model 0.9 to 1."""

SHARE = 1 / 3
"""The largest part of a validation or test list that one family may fill."""

# Aircraft are named by maker's numbers, ICAO or IATA codes; one line per airframe family.
AIRCRAFT: dict[str, str] = {
    "a300": r"a300|ab6|a310|fedex310",
    "a320": r"a31[89]|a32[01]|320austrian",
    "a330": r"a33[0239]|^33[0-9](?![0-9])|a34[02356]|a350",
    "a380": r"a380|388",
    "a220": r"a220|^22[03](?![0-9])|bcs[13]",
    "b707": r"b?707|kc-?135",
    "b717": r"717|md-?[89][0-9]|md_[89][0-9]|dc-?9",
    "b727": r"727|uspsb727",
    "b737": r"b?73[0-9](?![0-9])|b?73[cjp]\b",
    "b747": r"b?747|74[ny]|e4b",
    "b757": r"757",
    "b767": r"b?767|76y|b?777|77w|b?787",
    "dc10": r"dc-?10|md-?11",
    "atr": r"atr|at[47]\b",
    "dash8": r"dh[34]\b|dhc8|dash-?8",
    "twin-otter": r"dht\b|dhc-?6|twin-?otter",
    "dash7": r"dh7|dhc7",
    "crj": r"cr[279]\b|crj|challenger|chal60|ccx|bomb|gloexp",
    "ejet": r"e(70|75|90|95)\b|erj-?1[79]|embraer_1[79]",
    "erj145": r"erj-?1[34]|legacy",
    "bae146": r"bae-?146|rj-?70|rj-?85|bni|avro",
    "fokker": r"fokker-?(70|100|28)",
    "fokker50": r"fokker-?50",
    "cessna-high": r"c(essna)?_?1(50|52|72|75|77|80|82|85)|c208|208car|caravan|c206",
    "cessna-twin": r"c(essna)?-?_?(310|337|402|421)",
    "citation": r"citation",
    "learjet": r"lear|lj[0-9]{2}",
    "piper-low": r"pa-?(28|18[01]|31|32)|cherokee|warrior|archer",
    "robin": r"dr[24]00|dr221|hr200|lionceau",
    "rallye": r"ms88|ms89|rallye",
    "f15": r"f-?15",
    "f16": r"f-?16",
    "mirage2000": r"m(irage)?2000",
    "typhoon": r"typhoon|eurofighter|rafale",
    "ask21": r"ask-?21",
    "king-air": r"beech-?200|b1900|king-?air",
}


def family(category: str, name: str) -> str:
    """The family that a name suggests.

    Aircraft are recognised by type; other names lose their trailing numbers, versions and colours of one source
    (``source__chair12`` and ``source__chair`` are one family).

    Examples:
        >>> family("airplane", "x__Boeing_737-800-alaska"), family("airplane", "y__738-737-800")
        ('b737', 'b737')
        >>> family("chair", "shop__armchair2"), family("chair", "shop__armchair")
        ('shop__armchair', 'shop__armchair')
    """
    low = name.lower()
    if category.lower() in ("airplane", "aeroplane", "plane", "aircraft", "02691156"):
        bare = low.split("__", 1)[-1]
        for key, pattern in AIRCRAFT.items():
            if re.search(rf"(?<![0-9])(?:{pattern})", bare):
                return key
    stripped = re.sub(
        r"(?:[-_ ]?(?:v?\d+|low[-_]?poly|white|black|silver|red|blue|green|yellow|gray|grey))+$", "", low
    )
    return stripped or low


def read_groups(path: Path) -> dict[str, str]:
    """A table ``category/name,family`` (CSV, a header is allowed): shapes of one family stay together.

    Raises:
        ReconlabError: The file is missing or has a row of another form.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReconlabError(f"The groups file {path} cannot be read ({error}).") from error
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise ReconlabError(
                f"{path}, row {number}: expected two columns, category/name and family, not {len(row)}."
            )
    return {a.strip(): b.strip() for a, b in rows if "/" in a}


def group(
    category: str,
    names: Sequence[str],
    voxels: np.ndarray | None = None,
    table: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Family numbers ``(N,)`` of the shapes of a category.

    Args:
        category: Its name.
        names: Of the shapes.
        voxels: ``(N, D, D, D)`` bool, to join shapes of nearly the same geometry; None to go by names alone.
        table: From :func:`read_groups`; overrules the names.
    """
    keys = [(table or {}).get(f"{category}/{n}") or family(category, n) for n in names]
    _, number = np.unique(keys, return_inverse=True)
    count = len(names)
    links = [(number == k).nonzero()[0] for k in range(number.max() + 1)] if count else []
    rows = [a for link in links for a in link[:-1]]
    cols = [b for link in links for b in link[1:]]
    if voxels is not None and count:
        flat = voxels.reshape(count, -1).astype(np.float32)
        both = flat @ flat.T
        size = np.diagonal(both)
        alike = both >= ALIKE * np.maximum(size[:, None] + size[None, :] - both, 1)
        a, b = np.nonzero(np.triu(alike, 1))
        rows, cols = [*rows, *a], [*cols, *b]
    graph = coo_matrix((np.ones(len(rows)), (rows, cols)), (count, count))
    return connected_components(graph, directed=False)[1]


def split(
    category: str, names: Sequence[str], groups: np.ndarray, fractions: tuple[float, float, float], seed: int
) -> dict[str, list[str]]:
    """Deal whole families out to ``train``, ``val`` and ``test``, in seeded order.

    A family goes to the test list if it still fits there, else to the validation list, else to training. It fits
    if it is at most :data:`SHARE` of that list, so that no judgement hangs on one family; larger ones are trained
    on. With three or more families no list with a positive fraction stays empty.

    Returns:
        Sorted names of each split.
    """
    order = np.random.default_rng([seed, zlib.crc32(category.encode())]).permutation(
        groups.max() + 1 if len(groups) else 0
    )
    room = {s: round(fractions[i] * len(names)) for s, i in (("test", 2), ("val", 1))}
    for s, i in (("test", 2), ("val", 1)):
        if fractions[i] > 0 and len(order) >= 3:
            room[s] = max(1, room[s])
    largest = {s: max(1, int(SHARE * room[s])) for s in room}
    out: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for g in order:
        members = [names[i] for i in np.flatnonzero(groups == g).tolist()]
        target = next((s for s in ("test", "val") if len(members) <= min(room[s], largest[s])), "train")
        if target != "train":
            room[target] -= len(members)
        out[target] += members
    _no_empty(out, fractions, [[names[i] for i in np.flatnonzero(groups == g).tolist()] for g in order])
    return {s: sorted(members) for s, members in out.items()}


def _no_empty(out: dict[str, list[str]], fractions: tuple[float, float, float], families: list[list[str]]) -> None:
    """Give an empty list the smallest family of a list that keeps another one."""
    if len(families) < 3:
        return
    for s, i in (("train", 0), ("val", 1), ("test", 2)):
        if out[s] or fractions[i] <= 0:
            continue
        for members in sorted(families, key=len):
            home = next(h for h in out if members[0] in out[h])
            if len(out[home]) > len(members):
                out[home] = [n for n in out[home] if n not in members]
                out[s] = list(members)
                break


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Train, validation and test fractions, verified and scaled to sum 1.

    Raises:
        ReconlabError: Not three numbers of at least 0 with a positive sum.
    """
    values = [float(f) for f in fractions]
    if len(values) != 3 or min(values) < 0 or not 0 < sum(values) < float("inf"):
        raise ReconlabError(f"split is {list(fractions)}: give three fractions (train, val, test) of at least 0.")
    return values[0] / sum(values), values[1] / sum(values), values[2] / sum(values)
