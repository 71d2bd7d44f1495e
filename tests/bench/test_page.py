"""The page of a hand-made JSON: every number in its cell, GPUs when there are some, and what is damaged."""

import copy
import json

import pytest
from PIL import Image

from reconlab.bench.page import NO_GPU, page, write_page
from reconlab.bench.page_text import duration, number
from reconlab.bench.results import GpuTable, read_bench, read_gpu
from reconlab.errors import ReconlabError


def contestant(name, seconds, ratio, difference=None):
    return {
        "name": name,
        "seconds": [seconds] * 3,
        "ratio": ratio,
        "difference": difference,
        "tolerance": 1e-3,
    }


def case(title, size, *contestants, problems=(), commit="a" * 40):
    record = {"operator": "o", "title": title, "note": f"About {title}.", "case": size, "rounds": 5, "commit": commit}
    return {**record, "contestants": list(contestants), "problems": dict(problems)}


FIT = {
    "exponent": 1.634,
    "factor": 1e-9,
    "error": 0.087,
    "r2": 0.9941,
    "residual": 1.141,
    "local": 1.92,
    "offset": 0.0005,
    "offset_until": 1000.0,
}
GROWN = {
    "name": "g",
    "key": "g",
    "title": "All pairs",
    "variable": "points J",
    "expected": 2.0,
    "why": "every pair once",
    "sizes": [1000, 2000, 4000, 16000],
    "seconds": [[0.001] * 3, [0.0025] * 3, [0.008] * 3, [0.12] * 3],
    "fit": FIT,
    "commit": "a" * 40,
}


@pytest.fixture
def bench():
    return copy.deepcopy(
        {
            "schema": "reconlab.bench/1",
            "command": "reconlab bench --out D",
            "reconlab": "0.1",
            "commit": "a" * 40 + "+changes",
            "python": "3.11.7",
            "versions": {"torch": "2.13.0", "SciPy": "1.17"},
            "machine": {
                "processor": "Abacus",
                "cores": 2,
                "accelerator": None,
                "platform": "Linux",
                "threads": 1,
                "load": 0.12,
                "load_after": 1.98,
            },
            "seed": 3,
            "time": "2026-11-28T00:00:00Z",
            "clock": "CPU time of the process",
            "device": "cpu",
            "rounds": 5,
            "peers": ["pot"],
            "wall_seconds": 303.0,
            "cases": [
                case(
                    "Nearest",
                    "32 x 2500",
                    contestant("reconlab", 0.0147, [1, 1, 1]),
                    contestant("SciPy", 0.07, [4.881, 4.7, 5.14], 4e-8),
                ),
                case(
                    "Nearest",
                    "1 x 9",
                    contestant("reconlab", 32e-6, [1, 1, 1]),
                    contestant("Open3D", 0.2, [57.4, 57.3, 57.4], 3e-4),
                    problems={"SciPy": "its answer is off by 1e-1, more than 0.001"},
                ),
                case(
                    "Splat", "32", contestant("reconlab", 2.5, [1, 1, 1]), contestant("torch", 9, [0.0623] * 3, 0.0)
                ),
            ],
            "growth": [GROWN],
            "workers": {
                "key": "workers",
                "shapes": [48, 96],
                "cores": 2,
                "commit": "a" * 40,
                "rows": [
                    {"workers": 1, "seconds": 8.0, "speedup": 1.0, "more_seconds": 4.0, "more_speedup": 1.0},
                    {"workers": 2, "seconds": 6.4, "speedup": 1.25, "more_seconds": 2.2, "more_speedup": 1.82},
                ],
            },
        }
    )


def cells(text, start):
    """The cells of the row that starts so."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    assert len(rows) == 1, rows
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


def test_numbers_land_in_their_cells(bench):
    text = page(bench)
    assert "| | reconlab | SciPy | Open3D | answers differ by |" in text.replace("|  |", "| |")
    assert cells(text, "32 x 2500") == ["32 x 2500", "1 (15 ms)", "4.9 (4.7–5.1)", "–", "4e-08"]
    assert cells(text, "1 x 9") == ["1 x 9", "1 (32 µs)", "–", "57", "3e-04"]
    assert cells(text, "32") == ["32", "1 (2.5 s)", "0.062", "0"]
    assert "Not timed: 1 x 9: SciPy: its answer is off by 1e-1, more than 0.001." in text
    assert text.index("### Nearest") < text.index("About Nearest.") < text.index("### Splat")
    assert "here: POT; not here: PyTorch3D, Open3D, embreex" in text
    assert "`reconlab bench --out D` in 5 min" in text


def test_parts_of_another_command_are_named(bench):
    bench["cases"][0]["command"] = "reconlab bench --out D --only splat"
    assert "`reconlab bench --out D`, and parts by `reconlab bench --out D --only splat` in 5 min" in page(bench)


def test_whose_answer_is_apart(bench):
    contestants = bench["cases"][0]["contestants"]
    contestants[1]["difference"] = 0.25
    assert cells(page(bench), "32 x 2500")[-1] == "2e-01", "there is one other"
    contestants.append({**contestants[1], "name": "Open3D", "difference": 0.5})
    assert cells(page(bench), "32 x 2500")[-1] == "5e-01 (Open3D)"


def test_the_machine(bench):
    text = page(bench)
    assert cells(text, "processor")[1] == "Abacus, 2 cores"
    assert cells(text, "GPU")[1] == "none"
    assert cells(text, "measured on")[1] == "cpu, 1 thread"
    assert cells(text, "clock")[1] == "CPU time of the process; at most 5 rounds"
    assert cells(text, "load of the machine")[1] == "0.1 to 2.0 processes"
    assert cells(text, "commit")[1] == "aaaaaaaaaaaa+changes; parts at aaaaaaaaaaaa"
    assert cells(text, "versions")[1] == "Python 3.11.7, torch 2.13.0, SciPy 1.17"
    assert cells(text, "seed, time")[1] == "3, 2026-11-28T00:00:00Z"


def test_growth_and_workers(bench):
    text = page(bench)
    assert cells(text, "All pairs") == [
        "All pairs",
        "points J",
        "1000–16000",
        "1.0 ms – 120 ms",
        "1.63 ± 0.09",
        "1.92",
        "2: every pair once",
        "0.994, ×1.14",
        "up to 1000 (500 µs)",
    ]
    assert "](images/growth.png)" in text
    assert "](images/growth.png)" not in page(bench, picture=False)
    assert cells(text, "1") == ["1", "8.0 s", "1.00, 100%", "4.0 s", "1.00, 100%"]
    assert cells(text, "2") == ["2", "6.4 s", "1.25, 62%", "2.2 s", "1.82, 91%"]
    bench["growth"][0]["fit"]["offset_until"] = None
    assert cells(page(bench), "All pairs")[-1] == "nowhere"


def test_what_could_not_be_measured_is_said(bench):
    bench["growth"].append({**GROWN, "title": "Views", "problem": "OSError: no space"})
    del bench["growth"][1]["fit"]
    bench["workers"] = None
    text = page(bench)
    assert "Not measured: Views: OSError: no space." in text
    assert "over processes" not in text
    bench["growth"], bench["cases"] = [], []
    text = page(bench, picture=False)
    assert "## How cost grows" not in text
    assert "## Ratios" not in text


def test_a_missing_gpu_is_said(bench):
    assert page(bench).endswith(f"## On a GPU\n\n{NO_GPU}\n")
    bench["device"], bench["machine"]["accelerator"] = "cuda", "NVIDIA X"
    text = page(bench)
    assert NO_GPU not in text
    assert "All figures above are of NVIDIA X." in text


def test_gpu_check_is_merged(bench, tmp_path):
    rows = [
        {"operator": "nearest", "case": "2500", "ours_ms": 0.2, "reference_ms": 9.0, "ratio_reference": 45.1},
        {
            "operator": "splat",
            "case": "64",
            "ours_ms": 2.0,
            "reference_ms": 9.0,
            "compiled_ms": 3.0,
            "roofline_ms": 0.5,
        },
        {"operator": "detector", "case": "256", "ours_ms": None, "compiled_ms": 3.0},
        {"operator": "pairwise", "case": "9", "ours_ms": 1.0, "error": 0.2, "right": False, "tolerance": 0.001},
        {"operator": "zbuffer", "case": "3", "right": False, "problem": "RuntimeError: no\nmemory"},
    ]
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"machine": {"gpu": "NVIDIA X"}, "commit": "b" * 40, "results": rows}))
    gpu = read_gpu(path)
    assert isinstance(gpu, GpuTable)
    text = page(bench, [gpu])
    assert NO_GPU not in text
    assert "### NVIDIA X: each operator" in text
    assert "at commit bbbbbbbbbbbb:" in text
    assert cells(text, "nearest") == ["nearest", "2500", "1 (200 µs)", "45", "–", "–", "–"]
    assert cells(text, "splat") == ["splat", "64", "1 (2.0 ms)", "4.5", "1.5", "0.25", "–"]
    assert cells(text, "detector") == ["detector", "256", *"–––––"]
    assert cells(text, "pairwise") == ["pairwise", "9", "1 (1.0 ms)", *"–––", "2e-01"]
    assert cells(text, "zbuffer") == ["zbuffer", "3", *"–––––"]
    assert "Wrong: pairwise, 9: more than 0.001 off." in text
    assert "Not timed: zbuffer, 3: RuntimeError: no memory." in text


@pytest.mark.parametrize(("machine", "name"), [("A100", "A100"), ({"accelerator": "H"}, "H"), (None, "not recorded")])
def test_the_gpus_name_however_it_was_put_down(machine, name, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"machine": machine, "results": []}))
    assert read_gpu(path).machine == name
    path.write_text(json.dumps({"machine": {"gpu": None, "accelerator": None}, "results": []}))
    with pytest.raises(ReconlabError, match="measured without a GPU"):
        read_gpu(path)


def test_a_bench_on_a_gpu_is_merged(bench, tmp_path):
    there = copy.deepcopy(bench)
    there |= {"device": "cuda", "clock": "time between CUDA events", "commit": "c" * 40}
    there["machine"]["accelerator"] = "NVIDIA X"
    there["cases"] = [case("Splat", "256", contestant("reconlab", 0.004, [1, 1, 1]))]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(there))
    text = page(bench, [read_gpu(path)])
    assert "### NVIDIA X: reconlab bench\n\nCommit cccccccccccc; time between CUDA events." in text
    assert cells(text, "256") == ["256", "1 (4.0 ms)", "–"]
    path.write_text(json.dumps(bench))
    with pytest.raises(ReconlabError, match=r"bench\.json was measured on a CPU"):
        read_gpu(path)


def test_the_picture_is_drawn_beside(bench, tmp_path):
    write_page(bench, [], tmp_path / "deep" / "page.md")
    assert (tmp_path / "deep" / "page.md").read_text() == page(bench)
    with Image.open(tmp_path / "deep" / "images" / "growth.png") as picture:
        assert picture.format == "PNG"
        assert picture.width < 1200
    bench["growth"] = []
    write_page(bench, [], tmp_path / "other" / "page.md")
    assert not (tmp_path / "other" / "images").exists()


@pytest.mark.parametrize("missing", ["machine", "cases", "growth", "workers", "versions", "wall_seconds", "peers"])
def test_a_page_of_half_a_file(missing, bench):
    del bench[missing]
    with pytest.raises(ReconlabError, match="JSON is damaged"):
        page(bench)
    bench[missing] = 3
    with pytest.raises(ReconlabError, match="JSON is damaged"):
        page(bench) if missing != "wall_seconds" else page({**bench, missing: "long"})


def test_files_that_are_no_results(tmp_path):
    path = tmp_path / "x.json"
    for reader in (read_bench, read_gpu):
        with pytest.raises(ReconlabError, match="does not exist"):
            reader(path)
    for content, named in (("{", "is not JSON"), ("[]", "no JSON object"), ("{}", "")):
        path.write_text(content)
        with pytest.raises(ReconlabError, match=named or "is not a result of reconlab bench"):
            read_bench(path)
        with pytest.raises(ReconlabError, match=named or "holds no measurements on a GPU"):
            read_gpu(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReconlabError, match="damaged"):
        read_bench(path)
    with pytest.raises(ReconlabError, match="cannot be read"):
        read_bench(tmp_path)


def test_numbers_as_written():
    assert [number(x) for x in (9.96, 0.0996, 99.6, 1e-9, 0.0, float("nan"))] == [
        "10",
        "0.10",
        "100",
        "0.0000000010",
        "0",
        "–",
    ]
    assert [duration(x) for x in (0.9996e-3, 1.0, 61.0)] == ["1000 µs", "1.0 s", "61 s"]
