"""The one LightningModule: any network, any loss, any metrics."""

from __future__ import annotations

import hashlib
import os
import warnings
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.datasets.format import SPLITS
from reconlab.errors import ReconlabError
from reconlab.lab.step import CompileMode, FiniteWatch, compile_parts
from reconlab.losses import Loss
from reconlab.metrics import ChamferDistance, FScore, Metric, NormalConsistency, VoxelIoU
from reconlab.networks import Network
from reconlab.networks.checkpoint import network_state
from reconlab.shapes import Shape

# Hyper-parameters are kept with the network and the loss on purpose: load_from_checkpoint then needs nothing else.
warnings.filterwarnings(
    "ignore", message=".*is an instance of `nn.Module` and is already saved during checkpointing.*"
)


def default_metrics() -> dict[str, Metric]:
    """Chamfer distance, F-score, normal consistency and IoU, each under its default protocol."""
    return {"cd": ChamferDistance(), "fscore": FScore(), "nc": NormalConsistency(), "iou": VoxelIoU()}


class Reconstruction(pl.LightningModule):
    """Trains a network with a loss and judges it by metrics.

    Args:
        network: Images (or whatever the network reads) to shapes.
        loss: What training minimises.
        metrics: By name; the default is Chamfer distance, F-score, normal consistency and IoU.
        optimizer: ``adam``, ``adamw`` or ``sgd`` (momentum 0.9).
        lr: Learning rate.
        betas: Adam's.
        weight_decay: L2 (Adam, SGD) or decoupled (AdamW), on weights: biases and the like are left alone.
        milestones: Fractions of the run at which the learning rate is multiplied by ``decay`` (AtlasNet: 0.8,
            0.93, 0.97 of its 150 epochs).
        decay: Factor at each milestone.
        gradient_norm: Gradients are clipped to this norm; 0 does not clip.
        init_from: Checkpoint of a run of the same network, whose weights training starts from (a warm start: the
            optimiser and the step count begin anew, unlike ``--ckpt_path``).
        channels_last: Keep convolutions' weights with channels last, the order that tensor cores want: for GPUs.
        compile: Mode of ``torch.compile`` for the network's parts in training: ``default``, ``reduce-overhead``
            (CUDA graphs) or ``max-autotune``; None does not compile.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        metrics: dict[str, Metric] | None = None,
        optimizer: Literal["adam", "adamw", "sgd"] = "adam",
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        milestones: list[float] | None = None,
        decay: float = 0.1,
        gradient_norm: float = 0.0,
        init_from: str | None = None,
        channels_last: bool = False,
        compile: CompileMode | None = None,
    ) -> None:
        super().__init__()
        # A checkpoint holds the weights and must not need their source; how to compute is the next user's choice.
        self.save_hyperparameters(ignore=["init_from", "compile"])
        if lr <= 0:
            raise ReconlabError(f"model.lr is {lr}; expected a positive learning rate.")
        self.network = network
        self.loss = loss
        self.metrics = nn.ModuleDict(default_metrics() if metrics is None else metrics)
        self.optimizer_name = optimizer
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.milestones = sorted(milestones or [])
        self.decay = decay
        self.gradient_norm = gradient_norm
        self.compile_mode = compile
        self.watch = FiniteWatch()
        if channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if init_from is not None:
            state = network_state(init_from)
            self._refuse_other(state, f"init_from: {init_from}")
            self.network.load_state_dict(state)
        # Checked by hand in on_load_checkpoint: frozen parts of losses are not stored.
        self.strict_loading = False

    @property
    def needs(self) -> frozenset[str]:
        """All that network, loss and metrics read of a batch."""
        return (
            self.network.needs | self.loss.needs | frozenset().union(*(m.needs for m in self.metric_items().values()))
        )

    def parts(self) -> dict[str, Network | Loss | Metric]:
        """Network, loss and metrics under the names that error messages use."""
        parts: dict[str, Network | Loss | Metric] = {
            f"the network {type(self.network).__name__}": self.network,
            f"the loss {type(self.loss).__name__}": self.loss,
        }
        return parts | {f"the metric {name} ({type(m).__name__})": m for name, m in self.metric_items().items()}

    def metric_items(self) -> dict[str, Metric]:
        """The metrics by name."""
        return {k: m for k, m in self.metrics.items() if isinstance(m, Metric)}

    def declare(self, data: ReconstructionData) -> None:
        """Tell the data what each part reads: the loss in training, metrics in val and test, the network in all."""
        for who, part in self.parts().items():
            judged = ("test",) if isinstance(part, Metric) and part.heavy else ("val", "test")
            where = judged if isinstance(part, Metric) else ("train",) if isinstance(part, Loss) else SPLITS
            data.require(part.needs, who, where)

    def forward(self, images: Tensor) -> Shape:
        """``(B, 3, H, W)`` images in [0, 1] to shapes."""
        return self.network(images)

    def setup(self, stage: str) -> None:
        """Tell the data what is needed, if nobody has, and the metrics the data's categories."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ReconstructionData) and not self.needs <= data.needs:
            self.declare(data)
            data.setup(stage)
        for metric in self.metric_items().values():
            metric.set_categories(list(getattr(data, "categories", [])))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One loss value; its named parts are logged under ``train/``."""
        self.mark("data")
        self._seed_step()
        self.network.advance(self.global_step, self._total_steps())
        self.loss.advance(self.global_step, self._total_steps())
        shape = self.network.reconstruct(batch)
        self.mark("network")
        with torch.autocast(self.device.type, enabled=False):  # a loss' differences of near equals need their digits
            parts = self.loss(shape, batch)
        loss = parts["loss"]
        self.watch.see(self.global_step, parts)
        logged = {f"train/{k}": v.detach() for k, v in parts.items()}
        self.log_dict(logged, on_step=True, on_epoch=False, batch_size=len(batch))
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(batch))
        self.mark("loss")
        return loss

    def mark(self, part: str) -> None:
        """A part of the training step ends here; :class:`~reconlab.lab.step_times.StepTimes` listens, if it is on."""

    def on_after_backward(self) -> None:
        """The gradients are there."""
        self.mark("backward")

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        """All callbacks have seen the step."""
        self.mark("other")

    def _seed_step(self) -> None:
        # Random draws of network and loss depend on (seed, step, rank) alone: a resumed run draws as the
        # uninterrupted one would, and two ranks differ.
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        text = f"{seed} {self.global_step} {self.global_rank}".encode()
        torch.manual_seed(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1)

    def _total_steps(self) -> int:
        total = self.trainer.estimated_stepping_batches
        return int(total) if total != float("inf") else 0

    def validation_step(self, batch: Batch, index: int) -> None:
        """Update the metrics that are not heavy."""
        self._judge(batch, heavy=False)

    def test_step(self, batch: Batch, index: int) -> dict[str, Shape]:
        """Update the metrics; the shapes go to callbacks."""
        return {"shape": self._judge(batch, heavy=True)}

    def _judge(self, batch: Batch, heavy: bool) -> Shape:
        shape = self.network.reconstruct(batch)
        with torch.autocast(self.device.type, enabled=False):  # a protocol does not say bfloat16
            for metric in self.metric_items().values():
                if heavy or not metric.heavy:
                    metric.update(shape, batch)
        return shape

    def on_fit_start(self) -> None:
        """Compile the network's parts, if asked to."""
        if self.compile_mode is not None:
            compile_parts(self.network, self.compile_mode)

    def on_validation_start(self) -> None:
        """Look at the last step's loss, before what it made is judged."""
        self.watch.settle()

    def on_train_end(self) -> None:
        """Look at the last step's loss."""
        self.watch.settle()

    def on_validation_epoch_end(self) -> None:
        """Log the metrics under ``val/``."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics under ``test/``."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        # compute() reduces sums and counts over the ranks itself: the values are exact and alike everywhere.
        for metric in self.metric_items().values():
            if metric.heavy and stage == "val":
                continue
            for key, value in metric.compute().items():
                self.log(f"{stage}/{key}", value.float(), rank_zero_only=False)
            metric.reset()

    def configure_optimizers(self) -> Any:
        """The optimiser over trainable parameters, with its step-wise schedule."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        if not parameters:
            raise ReconlabError("model.network has no trainable parameter.")
        groups: Any = parameters
        if self.weight_decay:
            groups = [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ]
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "sgd":
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=0.9)
        else:
            kind = torch.optim.AdamW if self.optimizer_name == "adamw" else torch.optim.Adam
            # Fused: the same formula in one pass over memory; a gradient scaler cannot clip in front of it.
            clipped = self.gradient_norm or getattr(self._trainer, "gradient_clip_val", None)
            fused = not (clipped and "mixed" in str(getattr(self._trainer, "precision", "")))
            # AdamW's own default is not 0.
            optimizer = kind(groups, lr=self.lr, betas=self.betas, weight_decay=0.0, fused=fused)
        if not self.milestones:
            return optimizer
        total = max(self._total_steps(), 1)

        def factor(step: int) -> float:
            return self.decay ** sum(step >= m * total for m in self.milestones)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by ``gradient_norm`` unless the trainer was given its own value."""
        value = gradient_clip_val or (self.gradient_norm or None)
        self.clip_gradients(optimizer, value, gradient_clip_algorithm or "norm")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is learned and what stands alone.

        Frozen networks inside losses are left out (they are loaded with the loss); so are the paths
        (``*_from``) of weights that the checkpoint itself holds, and modules that were passed in Python rather than
        by a config, which could not be read back safely.

        Raises:
            ReconlabError: The loss has just been found not to be finite: what it made is not kept.
        """
        self.watch.settle()
        frozen = set()
        for name, module in self.loss.named_modules():
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                frozen.add(f"loss.{name}." if name else "loss.")
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k[: k.rfind(".") + 1] not in frozen}
        parameters = checkpoint.get("hyper_parameters")
        if parameters:
            for key, value in parameters.items():
                inside = value.values() if isinstance(value, dict) else [value]
                if any(isinstance(v, nn.Module) for v in inside):
                    parameters[key] = None
            network = parameters.get("network")
            if isinstance(network, dict) and isinstance(network.get("init_args"), dict):
                arguments = network["init_args"]
                taken = {key: None for key in arguments if key.endswith("_from")}
                parameters["network"] = {**network, "init_args": {**arguments, **taken}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network.

        Raises:
            ReconlabError: Names or sizes differ.
        """
        prefix = "network."
        given = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        theirs = checkpoint.get("hyper_parameters", {}).get("network", {})
        name = theirs.get("class_path", "another network") if isinstance(theirs, dict) else "another network"
        self._refuse_other(given, f"The checkpoint is of {name} and")

    def _refuse_other(self, given: dict[str, Tensor], who: str) -> None:
        own = self.network.state_dict()
        wrong = [k for k in sorted(own.keys() | given.keys()) if k not in own or k not in given]
        wrong += [k for k in own if k in given and own[k].shape != given[k].shape]
        if wrong:
            raise ReconlabError(
                f"{who} does not fit {type(self.network).__name__} as configured "
                f"({len(wrong)} of {len(own)} tensors differ, first {wrong[0]!r})."
            )
