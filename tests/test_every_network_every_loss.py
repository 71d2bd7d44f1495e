"""Any network trains with any loss: two steps of each pair at tiny sizes reach every weight, or say why not."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from reconlab.batch import Batch
from reconlab.cli.__main__ import main
from reconlab.errors import ConversionError
from reconlab.losses import DRKFS, DRWR, Balanced, Chamfer, Loss, PixelMSE
from reconlab.networks import Network

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
EXPERIMENTS = [*sorted(p.stem for p in CONFIGS.glob("*_original.yaml")), "atlasnet_chamfer"]
LARGE = ["dpc_drwr_32", "drc"]  # their sizes are fixed
VIEWS: dict[str, Any] = {"image_size": 32, "views_per_step": 2, "half_fov": 11.5}
LOSSES = {
    "chamfer": lambda: Chamfer(points=250),
    "drwr": lambda: DRWR(points=250, resolution=32),
    "pixelmse": lambda: PixelMSE(images="shaded", **VIEWS),
    "drkfs": lambda: DRKFS(radius=0, **VIEWS),
}
TINY = {  # sizes below those of the configs, which are for training
    "imnet_original": {"resolution": 24, "coarse": 8, "code": 32, "encoder_width": 8, "decoder_width": 4},
    # An untrained Matryoshka network of the published start is empty: no image shows any slope.
    "matryoshka_original": {"inner": 16, "final": 8, "start": 0.5},
    "ogn_original": {"channels": 8, "latent": 32, "encoder_width": 8},
    "pixel2mesh_original": {"hidden": 16, "last_hidden": 8, "encoder_width": 4},
    "pointoutnet_original": {"width": 4, "hidden": 32},
    # Nor does one of 3D-R2N2 that starts at the data's share of occupied cells.
    "r2n2_original": {"encoder_width": 4, "occupied": 0.5},
    "shape_generator_original": {"width": 8, "hidden": 32},
}
NO_MESH = {"pointoutnet_original", "dpc_drwr_32"}
"""Networks of points alone: losses that render a surface do not apply, and say so."""
UNREACHED = {
    # With one view the hidden state that these multiply is 0.
    "r2n2_original": ("gates.weight", "candidate.weight"),
}
SIGNS = {"drc"}
"""Two samples normalised by their batch become plus and minus 1: gradients that hang on each last digit."""


@dataclass
class Trial:
    """An experiment's parts, as its config makes them at tiny sizes."""

    network: Network
    state: dict[str, torch.Tensor]
    original: Loss
    batch: Batch

    def steps(self, loss: Loss, count: int, lr: float) -> tuple[list[float], dict[str, list[torch.Tensor]]]:
        """Train; returns the losses and each trainable parameter's gradients."""
        trainable = {k: p for k, p in self.network.named_parameters() if p.requires_grad}
        optimizer = torch.optim.Adam(trainable.values(), lr)
        gradients: dict[str, list[torch.Tensor]] = {k: [] for k in trainable}
        self.network.train()
        loss.train()
        values = []
        for step in range(count):
            torch.manual_seed(step)
            loss.advance(step, count)
            optimizer.zero_grad()
            value = loss(self.network.reconstruct(self.batch), self.batch)["loss"]
            value.backward()
            values.append(value.item())
            for name, parameter in trainable.items():
                if parameter.grad is not None:
                    gradients[name].append(parameter.grad.clone())
            optimizer.step()
        return values, gradients


@pytest.fixture(scope="module")
def losses() -> dict[str, Loss]:
    return {name: make() for name, make in LOSSES.items()}


@pytest.fixture(scope="module")
def trial(request, data, losses, tmp_path_factory) -> Trial:
    """Everything of ``reconlab fit`` but the fit, and one batch with all that any of the losses reads."""
    from reconlab.cli import train

    name = request.param
    sizes = [f"--model.network.init_args.{key}={value}" for key, value in TINY.get(name, {}).items()]
    files = [f"--config={CONFIGS / file}" for file in (f"{name}.yaml", "profiles/smoke.yaml")]
    options = [*files, *sizes, f"--data.root={data}", "--data.build=never", f"--out={tmp_path_factory.mktemp('out')}"]
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.ReconlabCLI, "_run_subcommand", lambda cli, _: made.append(cli))
        assert main(["fit", *options]) == 0
    model, source = made[0].model, made[0].datamodule
    for who, loss in losses.items():
        source.require(loss.needs, who, ("train",))
    source.setup("fit")
    batch = next(iter(source.train_dataloader()))
    return Trial(model.network, copy.deepcopy(model.network.state_dict()), model.loss, batch)


@pytest.mark.parametrize("loss_name", ["original", *LOSSES, "balanced"])
@pytest.mark.parametrize(
    "trial", [*EXPERIMENTS, *(pytest.param(x, marks=pytest.mark.slow) for x in LARGE)], indirect=True, ids=str
)
def test_two_steps(trial: Trial, loss_name: str, losses, request) -> None:
    name = request.node.callspec.params["trial"]
    trial.network.load_state_dict(trial.state)
    if loss_name == "balanced":
        loss = Balanced({"original": trial.original, "visual": losses["drkfs"]}, every=1)
    else:
        loss = trial.original if loss_name == "original" else losses[loss_name]
    if name in NO_MESH and "mesh" in loss.needs:
        with pytest.raises(ConversionError, match="has no conversion to a mesh"):
            trial.steps(loss, 1, 1e-4)
        return
    values, gradients = trial.steps(loss, 2, 1e-4)
    assert all(torch.isfinite(torch.tensor(value)) for value in values), values
    assert all(g.isfinite().all() for found in gradients.values() for g in found)
    idle = {k for k, found in gradients.items() if not any(bool((g != 0).any()) for g in found)}
    assert idle == set(UNREACHED.get(name, ())), "parameters that the loss does not reach"
    if isinstance(loss, Balanced):
        assert bool((loss.norms > 0).all()), "both terms meet at the shape's own tensors"


def test_exceptions_are_of_experiments_that_exist() -> None:
    assert {*TINY, *NO_MESH, *UNREACHED, *SIGNS} <= {*EXPERIMENTS, *LARGE}


@pytest.mark.parametrize(
    "trial", [*EXPERIMENTS, *(pytest.param(x, marks=pytest.mark.slow) for x in LARGE)], indirect=True, ids=str
)
def test_mixed_precision_keeps_coordinates_and_losses(trial: Trial, request) -> None:
    """As Lightning's bf16-mixed runs it: the network under autocast, the loss outside of it."""

    def step(mixed: bool) -> tuple[float, list[torch.Tensor], torch.Tensor]:
        trial.network.load_state_dict(trial.state)
        trial.network.train().zero_grad()
        trial.network.advance(0, 2)
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            shape = trial.network.reconstruct(trial.batch)
        torch.manual_seed(1)
        loss = trial.original.train()(shape, trial.batch)["loss"]
        loss.backward()
        gradient = [p.grad.flatten() for p in trial.network.parameters() if p.grad is not None]
        held = [v for v in vars(shape).values() if isinstance(v, torch.Tensor) and v.is_floating_point()]
        return loss.item(), held, torch.cat(gradient)

    plain, _, gradient = step(mixed=False)
    loss, held, rough = step(mixed=True)
    assert all(x.dtype == torch.float32 for x in held)
    assert loss == pytest.approx(plain, rel=0.02)
    if request.node.callspec.params["trial"] not in SIGNS:
        assert float(torch.cosine_similarity(gradient.double(), rough.double(), 0)) > 0.9
    assert loss != plain, "autocast was on"
