import os
import subprocess
import sys

import pytest
import torch

from reconlab import threads
from reconlab.batch import NEEDS, Batch, Views
from reconlab.cameras import orbit_views
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
    monkeypatch.setattr(threads, "_limit", None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10**6))
    assert threads.num_threads() == 1, "a rank gets its share, at least one"


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
