"""DR-KFS' Table 5, Figs. 2 and 6: the edits are what they say, and the bundled weights order them as printed."""

import json

import pytest
import torch
from PIL import Image

from reconlab.cli.__main__ import main
from reconlab.datasets.synth import generate
from reconlab.errors import ReconlabError
from reconlab.features import PatchExtractor
from reconlab.losses import DRKFS
from reconlab.report import drkfs_bars, drkfs_edits


@pytest.fixture(scope="module")
def extractor():
    return PatchExtractor.load()


def test_a_drawn_bar_moves_by_five_pixels():
    for seed in range(4):
        chair = drkfs_bars.drawn_chair(seed)
        up, down, gone = chair.edited
        bar = (chair.reference - gone).abs() > 1e-6
        rows = bar.any(1).nonzero().flatten()
        height = len(rows) - 2  # half of the picture is blurred by one pixel to each side
        assert 3 <= height <= 6
        moved = (up - gone).abs() > 1e-6
        assert torch.equal(moved.any(1).nonzero().flatten(), rows - drkfs_bars.SHIFT)
        assert torch.equal(((down - gone).abs() > 1e-6).any(1).nonzero().flatten(), rows + drkfs_bars.SHIFT)


def test_rendered_bars_are_thin_and_nothing_else_changes():
    chair = next(c for s in range(20) if (c := drkfs_bars.rendered_chair(s)) is not None)
    changed = (chair.edited - chair.reference).abs() > 0.02
    rows = [c.any(1).nonzero().flatten() for c in changed]
    assert min(int(r.min()) for r in rows) > 100, "bars are below the seat"
    up, down, gone = changed
    assert (gone & ~up & ~down).sum() <= 0.1 * gone.sum(), "what is deleted is what is moved"


def test_table_5_on_drawn_chairs(extractor):
    """The paper's order: DR-KFS puts the deletion above both shifts, the pixels' MSE below both."""
    for seed in range(2):
        rows = drkfs_bars.scores(drkfs_bars.drawn_chair(seed), extractor)
        assert set(rows) == set(drkfs_bars.PAPER)
        assert rows["DR-KFS"][2] > max(rows["DR-KFS"][:2])
        assert rows["MSE(I)"][2] < min(rows["MSE(I)"][:2])


def test_an_unedited_chair_costs_nothing(extractor):
    chair = drkfs_bars.drawn_chair(0)
    same = drkfs_bars.Chair(chair.reference, chair.reference.expand(3, -1, -1))
    assert max(abs(v) for row in drkfs_bars.scores(same, extractor).values() for v in row) < 1e-5


def test_table_5_counts_what_it_says(extractor, monkeypatch):
    values = iter([[1.0, 2.0, 3.0], [2.0, 4.0, 1.0]] * 2)
    monkeypatch.setattr(drkfs_bars, "chairs", lambda family, count: [None] * count)
    monkeypatch.setattr(drkfs_bars, "scores", lambda *_: {"MSE(I)": next(values)})
    table = drkfs_bars.table5(2, extractor=extractor)
    for family in ("drawn", "rendered"):
        row = table[family]["MSE(I)"]
        assert row["mean"] == [1.5, 3.0, 2.0]
        assert (row["deletion_highest"], row["deletion_lowest"], row["n"]) == (0.5, 0.5, 2)
        assert row["ratio"] == pytest.approx((3 / 1.5 + 1 / 3) / 2)
    assert "50%" in drkfs_bars.text(table)


def test_edits_change_legs_or_back_alone():
    shape = drkfs_edits.editable_chairs(1)[0]
    for name, edit in drkfs_edits.EDITS.items():
        edited = edit(shape)
        same = [n for n in edited.names if (edited[n].vertices == shape[n].vertices).all()]
        assert "seat" in same, name
        changed = set(shape.names) - set(same)
        assert changed, name
        if name != "back bent":
            assert not any(shape[n].kind == "back" for n in changed), name


def test_costs_of_no_edit_are_zero_and_of_a_removal_are_not(monkeypatch):
    shape = next(s for k in range(9) if "seat" in (s := generate("chair", k)).names and "leg_0" in s.names)
    monkeypatch.setattr(
        drkfs_edits, "EDITS", {"none": lambda s: s, "one leg removed": drkfs_edits.EDITS["one leg removed"]}
    )
    visual = DRKFS(image_size=64, radius=0, eval_views=4).eval()
    rows = drkfs_edits.costs(shape, visual, points=2000, resolution=32)
    for name, (none, removed) in rows.items():
        # Two draws of points differ, and DR-KFS keeps the truth's features in half precision
        assert none == pytest.approx(0, abs={"CD": 0.06, "DR-KFS": 1e-4}.get(name, 1e-12)), name
        assert removed > 1.2 * none, name


def test_the_commands_print_their_tables_and_write_them(tmp_path, capsys, monkeypatch):
    rows = {name: [0.5, 1.5, 1.0] for name in drkfs_bars.PAPER}
    monkeypatch.setattr(drkfs_bars, "scores", lambda *_: rows)
    monkeypatch.setattr(drkfs_bars, "chairs", lambda family, count: [None] * count)
    out, numbers = tmp_path / "fig6.png", tmp_path / "fig6.json"
    assert main(["figure", "drkfs-fig6", f"--out={out}", f"--json={numbers}", "--count=3"]) == 0
    shown = capsys.readouterr().out
    assert "drawn, 3 chairs" in shown
    assert "rendered, 3 chairs" in shown
    content = json.loads(numbers.read_text())
    assert content["table"]["drawn"]["DR-KFS"]["mean"] == [0.5, 1.5, 1.0]
    assert content["command"] == "reconlab figure drkfs-fig6 --count 3"
    assert Image.open(out).width > 600


def test_bad_counts_are_refused(tmp_path, capsys):
    with pytest.raises(ReconlabError, match="--count is 0"):
        drkfs_bars.table5(0)
    assert main(["figure", "drkfs-fig2", f"--out={tmp_path / 'a.png'}", "--count=0"]) == 2
    assert "--count is 0" in capsys.readouterr().err
    assert main(["figure", "drwr-fig3", f"--out={tmp_path / 'a.png'}", f"--json={tmp_path / 'a.json'}"]) == 2
    assert "drwr-fig3 has no numbers" in capsys.readouterr().err
    for wrong in (tmp_path, tmp_path / "missing" / "a.json"):  # said before the work, not after it
        assert main(["figure", "drkfs-fig6", f"--out={tmp_path / 'a.png'}", f"--json={wrong}"]) == 2
        assert "name a file in a folder that exists" in capsys.readouterr().err
