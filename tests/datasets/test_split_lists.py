"""Torch7's ASCII tables and published split lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconlab.datasets.split_lists import find_split_lists, read_drc
from reconlab.datasets.torch7 import Opaque, as_list, read_torch7
from reconlab.errors import ReconlabError

COUNTS = {"02691156": (2831, 404, 810), "02958343": (5247, 750, 1500), "03001627": (4744, 677, 1356)}


def serialise(value: object, counter: list[int] | None = None) -> str:
    """Torch7 ASCII of nested dicts, lists, strings, numbers, booleans and None."""
    counter = counter if counter is not None else [0]
    if value is None:
        return "0\n"
    if isinstance(value, bool):
        return f"5\n{int(value)}\n"
    if isinstance(value, int | float):
        return f"1\n{value!r}\n"
    if isinstance(value, str):
        return f"2\n{len(value.encode())}\n{value}\n"
    pairs = list(enumerate(value, 1)) if isinstance(value, list) else list(value.items())  # type: ignore[attr-defined]
    counter[0] += 1
    head = f"3\n{counter[0]}\n{len(pairs)}\n"
    return head + "".join(serialise(k, counter) + serialise(v, counter) for k, v in pairs)


def _read(tmp_path: Path, text: str | bytes) -> object:
    path = tmp_path / "x.file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_torch7(path)


keys = st.integers(-100, 100) | st.text(max_size=8)
leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12)


@given(st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=4), max_leaves=12))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    assert _read(tmp_path_factory.mktemp("t"), serialise(value)) == value


def test_hand_written_table(tmp_path: Path) -> None:
    """Strings with line feeds, numbers of both kinds, a table that occurs twice, a function that is skipped."""
    text = (
        "3\n1\n5\n2\n1\na\n2\n3\nx\ny\n2\n1\nb\n1\n2.5\n2\n1\nc\n3\n2\n1\n1\n1\n2\n2\nid\n2\n1\nd\n3\n2\n"
        "2\n1\nf\n6\n3\n4\n\x1bLua\n3\n4\n0\n"
    )
    found = _read(tmp_path, text)
    assert found == {"a": "x\ny", "b": 2.5, "c": {1: "id"}, "d": {1: "id"}, "f": Opaque("function", 3)}
    assert found["c"] is found["d"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "ends too early"),
        (b"3\n1\n2\n2\n4\ntest\n", "ends too early"),
        (b"\x03\x00\x00\x00\x01", "where a number should be"),
        (b"2\n99\nshort\n", "length 99"),
        (b"2\n-1\n\n", "length -1"),
        (b"9\n", "type 9"),
        (b"4\n1\n3\nV 1\n18\ntorch.DoubleTensor\n1\n3\n", "class torch.DoubleTensor"),
        (b"".join(b"3\n%d\n1\n1\n1\n" % i for i in range(1, 500)), "nested"),
    ],
)
def test_damaged_streams_are_one_sentence(tmp_path: Path, text: bytes, reason: str) -> None:
    with pytest.raises(ReconlabError, match=rf"x\.file is not a Torch7 ASCII file.*{reason}"):
        _read(tmp_path, text)


def test_arrays() -> None:
    assert as_list({2: "b", 1: "a"}) == ["a", "b"]
    assert as_list({}) == []
    assert as_list({1: "a", 3: "c"}) is None
    assert as_list("ab") is None


def test_drc_table(tmp_path: Path) -> None:
    path = tmp_path / "03001627.file"
    path.write_text(serialise({"test": ["c"], "train": ["a", "b"], "val": [], "seed": 7, "more": {"x": None}}))
    assert read_drc(path) == {"train": ["a", "b"], "val": [], "test": ["c"]}
    lists = find_split_lists(path, "03001627")
    assert lists is not None
    assert lists.ids == {"train": ["a", "b"], "val": [], "test": ["c"]}
    assert find_split_lists(path, "02691156") is None
    for wrong, reason in (({"a": 1}, "no table with train"), ({"train": [1]}, "not a list of strings")):
        path.write_text(serialise(wrong))
        with pytest.raises(ReconlabError, match=reason):
            read_drc(path)


def test_text_lists_win_and_differences_are_told(tmp_path: Path) -> None:
    for split, names in (("train", "a\nb\n\n"), ("val", "c\n"), ("test", "03001627/d\n")):
        (tmp_path / f"dpc_03001627_{split}.txt").write_text(names)
    (tmp_path / "dpc_03001627.file").write_text(serialise({"train": ["a", "b"], "val": ["c", "e"], "test": ["d"]}))
    (tmp_path / "README.md").write_text("03001627")
    lists = find_split_lists(tmp_path, "03001627")
    assert lists is not None
    assert lists.ids == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assert any("differs from the val text list of 03001627 by 1 ids (first e)" in n for n in lists.notes)
    assert find_split_lists(tmp_path, "02958343") is None


def test_repeated_and_shared_ids(tmp_path: Path) -> None:
    (tmp_path / "chair").mkdir()
    for split, names in (("train", "a b a c d"), ("val", "b e"), ("test", "c f")):
        (tmp_path / "chair" / f"{split}.lst").write_text("\n".join(names.split()))
    lists = find_split_lists(tmp_path, "chair")
    assert lists is not None
    assert lists.ids == {"train": ["a", "d"], "val": ["b", "e"], "test": ["c", "f"]}
    assert len(lists.notes) == 2


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "a\\b"])
def test_ids_that_are_no_folder_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "chair_train.txt").write_text(f"{name}\n")
    with pytest.raises(ReconlabError, match="cannot be a folder's name"):
        find_split_lists(tmp_path, "chair")


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(ReconlabError, match="do not exist"):
        find_split_lists(tmp_path / "missing", "chair")
    (tmp_path / "chair_train.txt").write_text("\n")
    with pytest.raises(ReconlabError, match=r"is no \.file of DRC"):
        find_split_lists(tmp_path / "chair_train.txt", "chair")
    with pytest.raises(ReconlabError, match="name no id"):
        find_split_lists(tmp_path, "chair")
    (tmp_path / "other_chair_train.txt").write_text("a\n")
    with pytest.raises(ReconlabError, match=r"Both .* could be the train list of chair"):
        find_split_lists(tmp_path, "chair")


def test_published_lists(shared: Path) -> None:
    folder = shared / "data" / "splits"
    if not (folder / "dpc_02691156.file").is_file():
        pytest.skip("the shared folder has no published split lists")
    table = read_drc(folder / "dpc_02691156.file")
    assert tuple(len(table[s]) for s in ("train", "val", "test")) == COUNTS["02691156"]
    for split, ids in table.items():
        assert sorted(ids) == sorted((folder / f"dpc_02691156_{split}.txt").read_text().split())


def test_published_text_lists(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "splits"
    published = sorted(folder.glob("dpc_*"))
    if not published:
        pytest.skip("the shared folder has no published split lists")
    for path in published:  # without DISN's, which stand in the same folder under another prefix
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for category, counts in COUNTS.items():
        lists = find_split_lists(tmp_path, category)
        assert lists is not None
        assert tuple(len(x) for x in lists.ids.values()) == counts
        assert lists.notes == []
