"""A step's cost: the loss is looked at in time and without waiting, parts are compiled and timed, bf16 trains."""

import itertools
import json
import math

import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.lab import Reconstruction
from reconlab.lab.callbacks import ProgressBar
from reconlab.lab.checkpoints import SaveProgress
from reconlab.lab.step import FiniteWatch, compile_parts
from reconlab.lab.step_times import PARTS, StepTimes
from reconlab.losses import Chamfer, Loss
from reconlab.metrics import ChamferDistance
from tests.lab.test_reconstruction import small, trainer


def values(loss: float, part: float = 1.0) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss, requires_grad=True), "part": torch.tensor(part)}


def test_a_loss_is_looked_at_at_once_on_the_cpu() -> None:
    watch = FiniteWatch()
    watch.see(3, values(1.0, math.nan))  # parts may be anything
    with pytest.raises(ReconlabError, match=r"not finite at step 4 \(loss nan, part 2\)"):
        watch.see(4, values(math.nan, 2.0))
    watch.settle()  # it has been said


def test_a_loss_is_looked_at_one_step_later_on_a_gpu() -> None:
    watch = FiniteWatch(later=True)
    watch.see(3, values(1.0))
    watch.see(4, values(math.inf))
    with pytest.raises(ReconlabError, match="not finite at step 4"):
        watch.see(5, values(1.0))
    watch.see(6, values(math.nan))
    with pytest.raises(ReconlabError, match="not finite at step 6"):
        watch.settle()


class Breaks(Loss):
    """Finite until step 3."""

    needs = frozenset({"surface"})

    def advance(self, step, total):
        self.step = step

    def forward(self, shape, batch):
        loss = shape.points(50).square().mean()
        return {"loss": loss * (math.nan if self.step >= 3 else 1.0)}


def test_nothing_is_saved_of_a_loss_that_is_not_finite(tmp_path, module) -> None:
    model = Reconstruction(small(), Breaks(), {})
    model.watch = FiniteWatch(later=True)
    run = trainer(tmp_path, limit_val_batches=0, max_steps=6, callbacks=[SaveProgress(tmp_path, every=1)])
    with pytest.raises(ReconlabError, match="not finite at step 3"):
        run.fit(model, module)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 3, "the state before the step that broke"
    assert all(v.isfinite().all() for v in state["state_dict"].values())
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_last_loss_is_looked_at_too(tmp_path, module) -> None:
    model = Reconstruction(small(), Breaks(), {})
    model.watch = FiniteWatch(later=True)
    with pytest.raises(ReconlabError, match="not finite at step 3"):
        trainer(tmp_path, limit_val_batches=0, max_steps=4).fit(model, module)


def test_parts_are_compiled_in_place_with_the_same_values(module) -> None:
    torch.manual_seed(0)
    network = small().eval()
    images = torch.rand(2, 3, 64, 64)
    expected, names = network(images).mesh().vertices, list(network.state_dict())
    seen: list[str] = []

    def backend(graph, inputs):
        seen.append("graph")
        return graph.forward

    assert compile_parts(network, None, backend) == 2
    torch.testing.assert_close(network(images).mesh().vertices, expected)
    assert seen, "the encoder was compiled"
    assert list(network.state_dict()) == names


def test_fit_compiles_when_asked(tmp_path, module, monkeypatch) -> None:
    from reconlab.lab import reconstruction

    asked: list[object] = []
    monkeypatch.setattr(reconstruction, "compile_parts", lambda network, mode: asked.append((network, mode)))
    model = Reconstruction(small(), Chamfer(points=50), {}, compile="reduce-overhead")
    trainer(tmp_path, limit_val_batches=0, max_steps=1).fit(model, module)
    assert asked == [(model.network, "reduce-overhead")]
    assert "compile" not in model.hparams


def test_channels_last_changes_the_order_alone(module) -> None:
    torch.manual_seed(0)
    plain = Reconstruction(small(), Chamfer(points=50), {}).network.eval()
    torch.manual_seed(0)
    ordered = Reconstruction(small(), Chamfer(points=50), {}, channels_last=True).network.eval()
    images = torch.rand(2, 3, 64, 64)
    weights = [p for p in ordered.parameters() if p.ndim == 4 and p.shape[-1] > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    torch.testing.assert_close(ordered(images).mesh().vertices, plain(images).mesh().vertices, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_a_loss_and_metrics_compute_in_full_precision(tmp_path, module, precision) -> None:
    seen: dict[str, bool] = {}

    class Watches(Chamfer):
        def forward(self, shape, batch):
            seen["loss"] = torch.is_autocast_enabled("cpu")
            points = shape.points(50)
            seen["half"] = points.dtype != torch.float32 or bool((points == points.bfloat16()).all())
            return super().forward(shape, batch)

    class WatchingMetric(ChamferDistance):
        def per_sample(self, shape, batch):
            seen["metric"] = torch.is_autocast_enabled("cpu")
            return super().per_sample(shape, batch)

    network = small()
    network.encoder.register_forward_hook(lambda *_: seen.update(network=torch.is_autocast_enabled("cpu")))
    network.decoder.register_forward_hook(lambda *_: seen.update(decoder=torch.is_autocast_enabled("cpu")))
    model = Reconstruction(network, Watches(points=50), {"cd": WatchingMetric(points=50)})
    trainer(tmp_path, limit_val_batches=1, max_steps=1, precision=precision).fit(model, module)
    mixed = precision == "bf16-mixed"
    assert seen == {"network": mixed, "decoder": mixed, "loss": False, "half": False, "metric": False}


def test_step_times_add_up(tmp_path, module) -> None:
    times = StepTimes(tmp_path, warm_up=2)
    run = trainer(tmp_path, limit_val_batches=0, max_steps=6, callbacks=[times])
    run.fit(Reconstruction(small(), Chamfer(points=50), {}), module)
    assert len(times.steps) == 4
    found = json.loads((tmp_path / "run.json").read_text())["step_times"]
    assert list(found["seconds"]) == list(PARTS)
    assert sum(found["share"].values()) == pytest.approx(1, abs=1e-3)
    whole = [step[-1][1] - step[0][1] for step in times.steps]
    assert min(whole) <= sum(times.seconds().values()) * 1.5, "parts follow one another without gaps"
    assert all(later[0] == ("start", earlier[-1][1]) for earlier, later in itertools.pairwise(times.steps))


def test_the_bar_looks_at_values_now_and_then(monkeypatch) -> None:
    from reconlab.lab import callbacks

    now, asked = [0.0], []
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(callbacks.RichProgressBar, "get_metrics", lambda *a: asked.append(now[0]) or {"loss": now[0]})
    bar = ProgressBar(seconds=0.5)
    shown = []
    for t in (0.0, 0.1, 0.4, 0.5, 0.9, 1.1):
        now[0] = t
        shown.append(bar.get_metrics(None, None)["loss"])
    assert asked == [0.0, 0.5, 1.1]
    assert shown == [0.0, 0.0, 0.0, 0.5, 0.5, 1.1]


def test_step_times_of_a_long_run_are_the_newest(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("reconlab.lab.step_times.time.perf_counter", itertools.count().__next__)
    times = StepTimes(tmp_path, warm_up=0)
    for _ in range(1500):
        for part in PARTS:
            times.mark(part)
    assert len(times.steps) == 1000
    assert times.steps[-1][-1] == ("other", 1500 * len(PARTS) - 1)
    assert times.seconds() == dict.fromkeys(PARTS, 1)
