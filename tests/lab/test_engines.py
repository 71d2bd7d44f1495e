"""Engines: threads, submitit's local executor, a real Ray cluster of two worker processes."""

import os
import threading
from pathlib import Path

import pytest

from reconlab.cli.__main__ import main
from reconlab.errors import ReconlabError
from reconlab.lab.engines import LocalEngine, engine_options, make_engine, stop_event, unordered

SIZES = ["--views", "1", "--image_size", "32", "--points", "100", "--queries", "100"]


def square(x: int) -> int:
    return x * x


def process(_: int) -> int:
    return os.getpid()


def refuse(x: int) -> None:
    raise ReconlabError(f"{x} is odd.")


def until_stopped(_: int) -> str:
    stop = stop_event()
    assert stop is not None
    return "stopped" if stop.wait(60) else "left alone"


@pytest.fixture(scope="module")
def ray_cluster():
    """A cluster of this machine with two workers, as ``ray start`` makes one; its address."""
    pytest.importorskip("ray", reason="ray is not installed (extra sweep)")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


def make(name: str, folder: Path):
    if name == "submitit":
        pytest.importorskip("submitit", reason="submitit is not installed (extra sweep)")
    return make_engine(name, folder, None, {"cluster": "local"} if name == "submitit" else None)


@pytest.mark.parametrize("name", ["local", pytest.param("submitit", marks=pytest.mark.slow)])
def test_work_is_done_and_errors_come_back(name, tmp_path):
    engine = make(name, tmp_path)
    assert dict(unordered(engine, square, [1, 2, 3], 2)) == {1: 1, 2: 4, 3: 9}
    work = engine.submit(refuse, 3)
    with pytest.raises(ReconlabError, match=r"3 is odd\."):
        work.result()
    assert work.done()
    engine.close()


@pytest.mark.slow
def test_a_ray_cluster_by_its_address(ray_cluster):
    engine = make_engine("ray", "", ray_cluster)
    try:
        assert dict(unordered(engine, square, [1, 2, 3, 4], 2)) == {1: 1, 2: 4, 3: 9, 4: 16}
        pids = {p for _, p in unordered(engine, process, range(8), 2)}
        assert os.getpid() not in pids
        with pytest.raises(ReconlabError, match=r"^3 is odd\.$"):
            engine.submit(refuse, 3).result()
    finally:
        engine.close()


def test_work_of_a_thread_can_be_told_to_stop():
    work = LocalEngine().submit(until_stopped, 0)
    work.cancel()
    assert work.result() == "stopped"
    assert stop_event() is None


def test_no_more_than_so_many_at_once():
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Barrier(2, timeout=60)

    def watched(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait()  # two are at work together: the barrier would break otherwise
        with lock:
            running -= 1

    assert len(list(unordered(LocalEngine(), watched, range(6), 2))) == 6
    assert most == 2


def test_an_error_ends_the_rest():
    seen = []

    def work(x: int) -> None:
        seen.append(x)
        if x == 1:
            raise ReconlabError("no.")

    with pytest.raises(ReconlabError, match="no"):
        list(unordered(LocalEngine(), work, [0, 1, 2, 3], 1))
    assert seen == [0, 1]


def test_options_and_mistakes(tmp_path, monkeypatch):
    assert engine_options("ray", ["--ray.num_gpus=0.5"]) == {"num_gpus": 0.5}
    for words, said in (
        (("ray", ["--slurm.x=1"]), "goes with --engine submitit"),
        (("local", ["--lr=1"]), "after a lone --"),
        (("submitit", ["--slurm.partition"]), "unrecognized"),
    ):
        with pytest.raises(ReconlabError, match=said):
            engine_options(*words)
    with pytest.raises(ReconlabError, match="no engine 'k8s'"):
        make_engine("k8s", tmp_path)
    pytest.importorskip("submitit", reason="submitit is not installed (extra sweep)")
    with pytest.raises(ReconlabError, match="submitit cannot be set up so"):
        make_engine("submitit", tmp_path, None, {"cluster": "local", "timeout_min": "long", "colour": "red"})
    import reconlab.errors

    monkeypatch.setattr(reconlab.errors.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError()))
    for name in ("ray", "submitit"):
        with pytest.raises(ReconlabError, match=rf"{name} needs the library '{name}'.*reconlab\[sweep\]"):
            make_engine(name, tmp_path)


def content(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p.name != ".lock"
    }


def build(out: Path, *more: str) -> int:
    return main(["data", "build", "--source", "synth", "--out", str(out), "--count", "2", *SIZES, *more])


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The same dataset, built one shape after another."""
    out = tmp_path_factory.mktemp("serial") / "d"
    assert build(out) == 0
    return content(out)


@pytest.mark.slow
def test_a_build_by_submitit_has_the_same_bytes(serial, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed (extra sweep)")
    assert build(tmp_path / "d", "--engine", "submitit", "--slurm.cluster=local", "--workers", "1") == 0
    assert content(tmp_path / "d") == serial


@pytest.mark.slow
def test_a_build_by_ray_has_the_same_bytes(serial, tmp_path, ray_cluster):
    assert build(tmp_path / "d", "--engine", "ray", "--address", ray_cluster, "--workers", "2") == 0
    assert content(tmp_path / "d") == serial


def test_a_full_disk_elsewhere_ends_the_build(tmp_path, monkeypatch, capsys):
    import errno

    from reconlab.datasets import store, work

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "place_shape", full)
    engine = LocalEngine()
    with work.run_by(lambda function, items: unordered(engine, function, items, 1)):
        assert build(tmp_path / "d", "--categories", "lamp") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_a_sweep_on_other_engines(name, tmp_path, monkeypatch, request):
    import json

    import yaml

    pytest.importorskip(name, reason=f"{name} is not installed (extra sweep)")
    stub = Path(__file__).with_name("sweep_stub.py")
    trace = tmp_path / "trace"
    trace.mkdir()
    monkeypatch.setenv("STUB_TRACE", str(trace))
    command = ["/usr/bin/env", f"STUB_TRACE={trace}", "${interpreter}", str(stub), "fit", "${args}"]
    content = {"name": "s", "method": "grid", "command": command, "parameters": {"x": {"values": [1, 2, 3]}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    (trace / "plan.json").write_text(json.dumps({"x2": ["fail"]}))
    words = ["sweep", str(tmp_path / "s.yaml"), f"--out={tmp_path}", "--engine", name]
    if name == "ray":
        words += ["--address", request.getfixturevalue("ray_cluster")]
    else:
        words += ["--slurm.cluster=local"]
    assert main(words) == 1
    records = [json.loads((tmp_path / "s" / "cells" / f"x{i}" / "cell.json").read_text()) for i in (1, 2, 3)]
    assert [r["state"] for r in records] == ["done", "failed", "done"]
    assert records[1]["reason"] == "the data are bad."
    assert main([*words, "--retry-failed"]) == 0
    assert len((trace / "starts").read_text().splitlines()) == 4
