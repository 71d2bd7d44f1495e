"""The check of all kernels on a GPU, run here on small inputs; the rest of it by hand."""

import argparse
import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import Check, examine, main, roofline_ms
from reconlab.bench import gpu


def test_small_inputs_in_the_interpreter(triton_device, tmp_path, capsys) -> None:
    out = tmp_path / "new" / "gpu.json"
    options = ["--device", str(triton_device), "--tiny", "--rounds", "1", "--out", str(out)]
    assert main([*options, "--only", "nearest", "pairwise", "patch_matching"]) == 0
    rows = json.loads(out.read_text())["results"]
    assert [r["operator"] for r in rows] == ["nearest", "pairwise", "patch_matching"]
    for row in rows:
        assert row["right"]
        assert row["error"] <= row["tolerance"]
        assert row["same_bits_deterministic"]
        assert row["ratio_reference"] == pytest.approx(row["reference_ms"] / row["ours_ms"])
    assert "3 of 3 right" in capsys.readouterr().out


def test_every_kernel_is_checked() -> None:
    from reconlab.kernels.compile import OPERATORS

    assert {n for n, _ in gpu_check.FULL} == {n for n, _ in gpu_check.TINY} == set(OPERATORS)


def checked(run) -> dict:
    options = argparse.Namespace(device="cpu", rounds=1, compile=False)
    return examine(Check("x", "y", run, (0.0, 0.0), 1e-3), options, None)


def test_wrong_and_failing_kernels_are_found() -> None:
    true = torch.ones(3)
    wrong = checked(lambda backend, kind: (true.to(kind) * (1.01 if backend == "cuda" else 1),))
    assert not wrong["right"]
    assert wrong["error"] == pytest.approx(0.01)
    assert "!" in gpu_check.line(wrong)

    def fails(backend: str, kind: torch.dtype):
        raise RuntimeError("no such kernel image")

    failed = checked(fails)
    assert not failed["right"]
    assert "no such kernel image" in gpu_check.line(failed)
    counted = itertools.count()
    unsteady = checked(lambda backend, kind: (true.to(kind) + 1e-6 * next(counted),))
    assert unsteady["right"]
    assert not unsteady["same_bits"]


def test_the_roofline_is_the_slower_of_the_two() -> None:
    peak = {"float32": 1e12, "float64": 1e11, "bytes": 1e11}

    def least(operations: float, moved: float, double: bool = False) -> float | None:
        return roofline_ms(Check("x", "y", lambda *_: (), (operations, moved), 1e-3, double), peak)

    assert least(1e9, 1e6) == pytest.approx(1.0)
    assert least(1e9, 1e6, double=True) == pytest.approx(10.0)
    assert least(1e6, 1e9) == pytest.approx(10.0)
    assert roofline_ms(Check("x", "y", lambda *_: (), (1.0, 1.0), 1e-3), None) is None


def test_peaks_of_a_known_gpu(monkeypatch) -> None:
    """An H200: 132 multiprocessors of 128 lanes at 1.98 GHz, 67 TFLOPS; 6144 bits at 2 · 3.2 GHz, 4.9 TB/s."""
    pytest.importorskip("triton")
    from triton.runtime import driver

    said = {"sm_clock_rate": 1_980_000, "mem_clock_rate": 3_201_000, "mem_bus_width": 6144}
    utils = SimpleNamespace(get_device_properties=lambda device: said)
    monkeypatch.setattr(driver, "_active", SimpleNamespace(utils=utils))
    monkeypatch.setattr(gpu, "lacking", lambda: None)
    card = SimpleNamespace(major=9, minor=0, multi_processor_count=132)
    for name, value in (("is_available", True), ("current_device", 0), ("get_device_properties", card)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    peak = gpu.peaks()
    assert peak is not None
    assert peak["float32"] == pytest.approx(66.9e12, rel=1e-3)
    assert peak["float64"] == pytest.approx(33.5e12, rel=1e-2)
    assert peak["bytes"] == pytest.approx(4.917e12, rel=1e-3)
    said["sm_clock_rate"] = 0  # a driver that does not tell
    assert gpu.peaks() is None


def test_the_device_needs_no_number(monkeypatch) -> None:
    used: list[torch.device] = []
    set_device = torch.cuda.set_device
    with pytest.raises(ValueError, match="specified index"):
        set_device(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    gpu.use("cuda")
    gpu.use("cuda:1")
    assert used == [torch.device("cuda:1")]


def test_a_gpu_that_answers_no_more_ends_the_run(monkeypatch, capsys, tmp_path) -> None:
    """The operators after it would fail, too, and not for their own sake."""

    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(
        gpu_check, "TINY", (("nearest", lambda device: Check("nearest", "a", lost, (0, 0), 1e-3)),) * 2
    )
    assert main(["--device", "cpu", "--tiny"]) == 1  # of which the processor knows nothing: both are tried
    assert "0 of 2 right" in capsys.readouterr().out
    monkeypatch.setattr(gpu_check, "answers", lambda: False)
    out = tmp_path / "gpu.json"
    assert main(["--device", "cpu", "--tiny", "--out", str(out)]) == 1
    assert "answers no more" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["results"]) == 1


def test_without_a_gpu_it_says_how(capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "TRITON_INTERPRET=1" in capsys.readouterr().err
