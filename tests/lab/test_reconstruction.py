import pytest
import pytorch_lightning as pl
import torch

from reconlab.batch import Batch
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.errors import ReconlabError
from reconlab.lab import Reconstruction
from reconlab.lab.callbacks import SavePredictions, metrics_table, sample_batch
from reconlab.lab.predict import load_network
from reconlab.losses import Chamfer, Loss
from reconlab.metrics import ChamferDistance
from reconlab.networks import AtlasNet
from reconlab.networks.checkpoint import load_checkpoint, network_state


def small() -> AtlasNet:
    torch.manual_seed(0)
    return AtlasNet(patches=2, latent=8, hidden=8, grid=3, encoder_width=8)


def trainer(tmp_path, **settings) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "use_distributed_sampler": False}
    return pl.Trainer(default_root_dir=tmp_path, **{**quiet, "max_steps": 4, **settings})


def connect(model: Reconstruction, module: ReconstructionData) -> None:
    for who, part in model.parts().items():
        module.require(part.needs, who)


def test_learning_rate_follows_the_milestones(tmp_path, module):
    model = Reconstruction(small(), Chamfer(points=50), {}, lr=1e-2, milestones=[0.5, 0.75], decay=0.1)
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    connect(model, module)
    trainer(tmp_path, callbacks=[Watch()], limit_val_batches=0).fit(model, module)
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4])


def test_the_network_is_told_where_training_stands(tmp_path, module):
    told = []

    class Told(AtlasNet):
        def advance(self, step, total):
            told.append((step, total, self.training))

    model = Reconstruction(Told(patches=2, latent=8, hidden=8, grid=3, encoder_width=8), Chamfer(points=50), {})
    connect(model, module)
    trainer(tmp_path, max_steps=2, limit_val_batches=1, num_sanity_val_steps=1).fit(model, module)
    assert told == [(0, 2, True), (1, 2, True)]


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimisers_take_trainable_parameters_only(name, kind):
    network = small()
    network.decoder.requires_grad_(False)
    optimizer = Reconstruction(network, Chamfer(), {}, optimizer=name).configure_optimizers()
    assert type(optimizer) is kind
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert given == {id(p) for p in network.encoder.parameters()}


def test_weight_decay_spares_biases():
    network = small()
    groups = Reconstruction(network, Chamfer(), {}, weight_decay=0.1).configure_optimizers().param_groups
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))


def test_mixed_precision_with_clipping(tmp_path, module):
    # Lightning refuses to clip in front of a fused optimiser under mixed precision.
    model = Reconstruction(small(), Chamfer(points=50), {}, gradient_norm=1.0)
    before = [p.detach().clone() for p in model.network.parameters()]
    connect(model, module)
    trainer(tmp_path, max_steps=1, precision="bf16-mixed", limit_val_batches=0).fit(model, module)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.network.parameters(), strict=True))


def test_settings_that_cannot_train():
    with pytest.raises(ReconlabError, match=r"model\.lr is 0"):
        Reconstruction(small(), Chamfer(), {}, lr=0)
    network = small()
    network.requires_grad_(False)
    with pytest.raises(ReconlabError, match="no trainable parameter"):
        Reconstruction(network, Chamfer(), {}).configure_optimizers()


class Exploding(Loss):
    needs = frozenset({"surface"})

    def forward(self, shape, batch):
        value = shape.points(10).sum()
        return {"loss": value * float("nan"), "part": value.detach()}


def test_a_loss_that_is_not_finite_stops_with_its_parts(tmp_path, module):
    model = Reconstruction(small(), Exploding(), {})
    connect(model, module)
    with pytest.raises(ReconlabError, match=r"not finite at step 0 \(loss nan, part"):
        trainer(tmp_path, limit_val_batches=0).fit(model, module)


def test_validation_logs_every_category_and_the_table_prints_it(tmp_path, module):
    model = Reconstruction(small(), Chamfer(points=50), {"cd": ChamferDistance(points=100)})
    connect(model, module)
    run = trainer(tmp_path)
    values = run.validate(model, module, verbose=False)[0]
    assert {"val/chamfer_dpc", "val/chamfer_dpc/chair", "val/chamfer_dpc/lamp"} <= values.keys()
    assert values["val/chamfer_dpc/n"] == len(module.dataset("val"))
    weights = [values[f"val/chamfer_dpc/{c}/n"] for c in ("chair", "lamp")]
    means = [values[f"val/chamfer_dpc/{c}"] for c in ("chair", "lamp")]
    whole = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
    assert values["val/chamfer_dpc"] == pytest.approx(whole, rel=1e-5)
    history = {k: [2 * v, v] for k, v in values.items()}
    table = metrics_table(history, model, "val")
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells[1] == f"{200 * values['val/chamfer_dpc']:.2f}", "first, with the protocol's factor"
    assert cells[2] == cells[3] == f"{100 * values['val/chamfer_dpc']:.2f}", "lower is better: best is the last"


def test_predictions_agree_with_the_means(tmp_path, module, monkeypatch):
    judged = []
    original = ChamferDistance.per_sample
    monkeypatch.setattr(ChamferDistance, "per_sample", lambda *a: judged.extend(a[2].ids) or original(*a))
    model = Reconstruction(small(), Chamfer(points=50), {"cd": ChamferDistance(points=100)})
    connect(model, module)
    save = SavePredictions(tmp_path)
    values = trainer(tmp_path, callbacks=[save]).test(model, module, verbose=False)[0]
    rows = [r["chamfer_dpc"] for r in save.rows]
    assert sorted(judged) == sorted(r["id"] for r in save.rows), "each sample is measured once"
    assert sum(rows) / len(rows) == pytest.approx(values["test/chamfer_dpc"], rel=1e-5)
    assert len(list(tmp_path.glob("predictions/*/*.obj"))) == len(rows)


def test_showcase_takes_categories_in_turn(tmp_path, module):
    module.require({"images"}, "the test")
    module.setup("fit")
    holder = trainer(tmp_path)
    holder.datamodule = module
    batch = sample_batch(holder, 2)
    assert isinstance(batch, Batch)
    assert sorted(batch.categories) == ["chair", "lamp"]
    assert batch.mesh is not None
    assert len(batch.mesh) == 2
    again = sample_batch(holder, 2)
    assert again.ids == batch.ids


def test_python_users_need_no_ceremony(tmp_path, module):
    # No require(), modules passed as objects: it trains, and the checkpoint can be read back safely.
    model = Reconstruction(small(), Chamfer(points=50), {"cd": ChamferDistance(points=100)})
    run = trainer(tmp_path)
    run.fit(model, module)
    run.save_checkpoint(tmp_path / "x.ckpt")
    again = small()
    again.load_state_dict(network_state(tmp_path / "x.ckpt"))
    for key, value in model.network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value)
    with pytest.raises(ReconlabError, match="does not say which network"):
        load_network(tmp_path / "x.ckpt")


class Buffered(Loss):
    """A loss with a running value of its own and a frozen network inside."""

    needs = frozenset({"surface"})

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running", torch.tensor(3.0))
        self.frozen = torch.nn.Linear(2, 2).requires_grad_(False)

    def forward(self, shape, batch):
        return {"loss": shape.points(10).square().mean()}


def test_checkpoints_hold_what_is_learned(tmp_path, module):
    model = Reconstruction(small(), Buffered(), {})
    run = trainer(tmp_path, limit_val_batches=0)
    run.fit(model, module)
    run.save_checkpoint(tmp_path / "x.ckpt")
    state = load_checkpoint(tmp_path / "x.ckpt")["state_dict"]
    assert "loss.running" in state
    assert not any(key.startswith("loss.frozen") for key in state)
