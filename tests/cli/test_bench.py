"""``reconlab bench``: a quick run end to end, its page, and what it refuses."""

import json
import os

import pytest

from reconlab.cli.__main__ import main


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "out"
    assert main(["bench", "--out", str(out), "--quick", "--only", "nearest", "--rounds", "2"]) == 0
    return out


def test_quick_nearest_end_to_end(measured):
    content = json.loads((measured / "bench.json").read_text())
    assert {"schema", "command", "commit", "versions", "machine", "seed", "clock", "wall_seconds"} <= set(content)
    (case,) = content["cases"]
    assert case["contestants"][0]["name"] == "reconlab"
    assert {"torch reference", "SciPy cKDTree"} <= {c["name"] for c in case["contestants"]}
    assert case["problems"] == {}
    for contestant in case["contestants"]:
        middle, low, high = contestant["ratio"]
        assert 0 < low <= middle <= high
        assert contestant["seconds"][0] > 0
        assert contestant["difference"] is None or contestant["difference"] <= contestant["tolerance"]
    (growth,) = content["growth"]
    assert growth["sizes"] == [1024, 4096, 16384, 65536]
    assert len(growth["seconds"]) == 4
    assert 0.2 < growth["fit"]["exponent"] < 2
    text = (measured / "benchmarks.md").read_text()
    assert "### Nearest neighbours, one direction" in text
    assert "No GPU was at hand" in text
    assert (measured / "images" / "growth.png").is_file()


def test_a_second_call_measures_nothing(measured, capsys):
    before = (measured / "cases" / "nearest-1024.json").stat().st_mtime_ns
    assert main(["bench", "--out", str(measured), "--quick", "--only", "nearest", "--rounds", "2"]) == 0
    assert "2 of 2 measurements are there already" in capsys.readouterr().err
    assert (measured / "cases" / "nearest-1024.json").stat().st_mtime_ns == before


def test_a_page_of_the_json_alone(measured, tmp_path, capsys):
    gpu = tmp_path / "gpu.json"
    rows = [{"operator": "nearest", "case": "2500", "ours_ms": 1.0, "reference_ms": 7.0}]
    gpu.write_text(json.dumps({"machine": "NVIDIA X", "results": rows}))
    page = tmp_path / "docs" / "page.md"
    assert main(["bench", "--from", str(measured / "bench.json"), "--page", str(page), "--gpu", str(gpu)]) == 0
    assert capsys.readouterr().out == f"page: {page}\n"
    text = page.read_text()
    assert "| nearest | 2500 | 1 (1.0 ms) | 7.0 | – | – | – |" in text
    both = (measured / "benchmarks.md").read_text()
    assert text.split("## On a GPU")[0] == both.split("## On a GPU")[0]
    assert (page.parent / "images" / "growth.png").is_file()


def test_list_names_everything(capsys):
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    for name in ("nearest", "rasterizer", "z-buffer", "repulsion", "lfd", "evaluate", "build", "workers", "growth"):
        assert f"\n{name} " in f"\n{out}", name


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "takes --out DIR to measure"),
        (["--out=OUT", "--from=x.json"], "takes --out DIR to measure"),
        (["--from=x.json"], "name it with --page FILE"),
        (["--from=x.json", "--page=p.md"], "x.json does not exist"),
        (["--out=OUT", "--only=nearset"], "did you mean 'nearest'"),
        (["--out=OUT", "--only=,"], "--only is empty"),
        (["--out=OUT", "--quick", "--only=workers"], "Nothing of workers is measured with --quick"),
        (["--out=OUT", "--peer=kaolin"], "There is no peer 'kaolin'"),
        (["--out=OUT", "--peer=pytorch3d"], "'pytorch3d' is not installed"),
        (["--out=OUT", "--rounds=0"], "--rounds is 0"),
        (["--out=OUT", "--threads=0"], "--threads is 0"),
        (["--out=OUT", "--seed=-1"], "--seed is -1"),
        (["--out=OUT", "--device=tpu"], "'tpu' cannot be used here"),
        (["--out=OUT", "--device=meta"], "bench measures on cpu or cuda"),
        (["--out=FILE"], "is a file; name a folder"),
        (["--out=FILE/below", "--quick", "--only=nearest"], "cannot be written"),
        (["--out=OUT", "--page=."], "is a folder; name a file"),
        (["--out=OUT", "--gpu=FILE"], "is damaged: it is not JSON"),
        (["--out=OUT", "--nearest"], "unrecognized arguments: --nearest"),
    ],
)
def test_mistakes(options, named, tmp_path, capsys, one_sentence, monkeypatch):
    import reconlab.bench.peers as peers

    monkeypatch.setattr(peers, "installed", lambda name: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("no JSON")
    assert main(["bench", *options]) == 2
    assert named in one_sentence(capsys)
    assert not (tmp_path / "OUT").exists(), "nothing is made before the mistake is found"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path, capsys, one_sentence):
    tmp_path.chmod(0o500)
    assert main(["bench", "--out", str(tmp_path / "out"), "--quick", "--only", "nearest"]) == 2
    assert "cannot be written" in one_sentence(capsys)


def test_ctrl_c_says_where_the_rest_is(tmp_path, capsys, monkeypatch):
    from reconlab.bench import run as running

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "measure_case", interrupt)
    assert main(["bench", "--out", str(tmp_path), "--quick", "--only", "nearest"]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    assert json.loads((tmp_path / "bench.json").read_text())["cases"] == []


def test_a_contestant_that_answers_otherwise_gives_status_1(tmp_path, capsys, monkeypatch):
    from reconlab.bench import cases_points

    monkeypatch.setattr(cases_points, "tree_distances", lambda source, target: 2 * source[..., 0])
    assert main(["bench", "--out", str(tmp_path), "--quick", "--only", "nearest", "--rounds", "1"]) == 1
    assert "SciPy cKDTree: its answer is off by" in capsys.readouterr().err
    assert "Not timed: 4 × 1024 to 1024, on surfaces: SciPy cKDTree" in (tmp_path / "benchmarks.md").read_text()
