import math
import os
import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from reconlab import threads
from reconlab.batch import NEEDS, Batch, Views
from reconlab.cameras import orbit_views
from reconlab.cli.__main__ import main
from reconlab.errors import ReconlabError, optional_import
from reconlab.shapes import Mesh


def test_every_need_names_fields_of_the_batch():
    fields = set(Batch.__dataclass_fields__)
    assert all(set(names) <= fields for names in NEEDS.values())


def test_moving_moves_everything():
    views = Views(orbit_views(3).expand(2, 3), torch.rand(2, 3, 4, 4))
    mesh = Mesh(torch.rand(2, 3, 3), torch.tensor([[0, 1, 2]]))
    batch = Batch(
        ["a", "b"], ["x", "x"], images=torch.rand(2, 3, 4, 4), cameras=orbit_views(2), views=views, mesh=mesh
    )
    moved = batch.to("meta")
    assert len(moved) == 2
    assert moved.images.device.type == moved.cameras.device.type == moved.mesh.device.type == "meta"
    assert moved.views.silhouettes.device.type == moved.views.cameras.device.type == "meta"
    assert batch.images.device.type == "cpu", "the original stays"
    assert moved.mesh.fingerprints() == mesh.fingerprints(), "taken before: there are no numbers any more"


def test_missing_fields_say_who_needed_them():
    with pytest.raises(ReconlabError, match="DRKFS needs 'mesh' of the batch, which is absent: declare 'mesh'"):
        Batch(["a"], ["x"]).require("mesh", "DRKFS")
    with pytest.raises(ReconlabError, match="declare 'normals'"):
        Batch(["a"], ["x"]).require("normals", "Chamfer")


def test_optional_libraries_name_their_extra():
    with pytest.raises(ReconlabError, match=r"exact IoU needs the library 'no_such_module'.*reconlab\[eval\]"):
        optional_import("no_such_module", "eval", "exact IoU")
    assert optional_import("json", "eval", "anything").dumps([1]) == "[1]"


def test_parallel_map_keeps_order_and_errors(monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "2")
    assert threads.parallel_map(lambda x: x * x, range(100)) == [x * x for x in range(100)]
    with pytest.raises(ZeroDivisionError):
        threads.parallel_map(lambda x: 1 // x, [1, 0, 2])
    assert threads.parallel_map(str, []) == []


def test_thread_counts(monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "3")
    assert threads.num_threads() == 3
    monkeypatch.delenv("RECONLAB_THREADS")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10**6))
    assert threads.num_threads() == 1, "a rank gets its share, at least one"


def test_a_limit_is_never_exceeded(monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "3")
    threads.limit_threads(2)
    assert threads.num_threads() == torch.get_num_threads() == 2, "a worker's limit holds for the user's wish too"
    threads.limit_threads(4)
    assert threads.num_threads() == 3
    monkeypatch.delenv("RECONLAB_THREADS")
    assert threads.num_threads() == 4


def test_limited_puts_everything_back(monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    with suppress(ZeroDivisionError), threads.limited(2):
        assert (threads.num_threads(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, 2, "2")
        raise ZeroDivisionError
    assert (threads.num_threads(), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")) == (3, before, None)


@pytest.mark.parametrize("given", ["two", "0", "-1", "1.5"])
def test_a_wrong_number_of_threads_is_a_sentence(monkeypatch, capsys, given):
    monkeypatch.setenv("RECONLAB_THREADS", given)
    with pytest.raises(ReconlabError, match=f"RECONLAB_THREADS is '{given}': it takes a whole number"):
        threads.num_threads()
    assert main(["table", "drwr_table4"]) == 2
    assert capsys.readouterr().err.startswith(f"reconlab: RECONLAB_THREADS is '{given}'")


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, math.inf),
        ("0::/", {}, math.inf),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/not/here", {"cpu.max": "50000 100000"}, 0.5),
        (
            "4:cpu,cpuacct:/a\n2:cpuset:/",
            {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
    ],
)
def test_a_containers_share_of_time_counts(tmp_path, monkeypatch, groups, files, quota):
    (tmp_path / "membership").write_text(groups + "\n")
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert threads._quota.__wrapped__(tmp_path / "cgroup", tmp_path / "membership") == quota
    monkeypatch.setattr(threads, "_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert threads.cores() == {1.5: 1, 0.5: 1, 2: 2, 3: 3, math.inf: 16}[quota]


def test_no_control_groups_no_limit(tmp_path):
    assert threads._quota.__wrapped__(tmp_path, tmp_path / "none") == math.inf


def test_the_environment_of_what_is_started(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with suppress(KeyError), threads.starting_with(2):
        assert {os.environ[name] for name in threads.VARIABLES} == {"2"}
        raise KeyError
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert set(threads.environment(0).values()) == {"1"}


FORK = """
import os, sys
from reconlab.threads import parallel_map
os.environ["RECONLAB_THREADS"] = "2"
assert parallel_map(abs, [-1, -2]) == [1, 2]
child = os.fork()
if child == 0:
    os._exit(0 if parallel_map(abs, [-3, -4]) == [3, 4] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_pool_survives_a_fork():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=60)
    assert done.returncode == 0
