"""``reconlab fit``, ``validate`` and ``test``: LightningCLI with run directories and one-sentence errors."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import jsonargparse
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, WandbLogger

import reconlab.losses
import reconlab.metrics
import reconlab.networks  # noqa: F401 - short class names in configs resolve among imported classes
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.errors import ReconlabError
from reconlab.lab import Reconstruction
from reconlab.lab.callbacks import Gallery, MetricsTable, PlainProgress, SaveInterrupted, SavePredictions
from reconlab.lab.run_directory import command_line, new_run_directory, provenance, write_atomic, write_run_json
from reconlab.networks.checkpoint import load_checkpoint
from reconlab.threads import num_threads

RUN_DIRECTORY = "RECONLAB_RUN_DIRECTORY"  # inherited by the processes that DDP starts: one directory for all ranks


class Parser(LightningArgumentParser):
    """Says in one sentence what is wrong with a config or an option, without the list of all options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage.

        Raises:
            ReconlabError: Always.
        """
        raise ReconlabError(f"{' '.join(message.split()).rstrip('.')}.") from ex


class SaveConfig(SaveConfigCallback):
    """Writes the resolved config once, into the run directory that reconlab chose."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write ``config.yaml``; a logger that keeps hyper-parameters gets the config too."""
        text = self.parser.dump(self.config, skip_none=False)
        write_atomic(Path(trainer.default_root_dir) / "config.yaml", text)


class ReconlabCLI(LightningCLI):
    """LightningCLI whose runs each have a directory of their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.run_directory = Path()
        self.progress = PlainProgress() if not sys.stdout.isatty() else RichProgressBar(leave=True)
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Where runs go, and what records them."""
        parser.add_argument("--name", type=str, default="run", help="Runs are written to <out>/<name>/NNN.")
        parser.add_argument("--out", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--logger",
            type=Literal["csv", "wandb"],
            default="csv",
            help="csv: metrics.csv in the run directory; wandb: Weights & Biases as well (offline unless "
            "WANDB_MODE=online).",
        )
        # Sizes that several networks and losses share, so that one profile sets them all: ${scale.…} in a config.
        parser.add_argument("--scale.latent", type=int, default=256, help="Size of the network's latent code.")
        parser.add_argument("--scale.hidden", type=int, default=128, help="Width of the decoder.")
        parser.add_argument(
            "--scale.encoder_width", type=int, default=32, help="ResNet's first stage; 64 is ResNet-18."
        )
        parser.add_argument(
            "--scale.encoder_norm",
            type=Literal["batch", "group"],
            default="group",
            help="Normalisation of the image encoder: batch wants some 32 images a step.",
        )
        parser.add_argument("--scale.grid", type=int, default=10, help="Vertices along a side of an AtlasNet patch.")
        parser.add_argument("--scale.render_size", type=int, default=64, help="Side of differentiable renderings.")
        parser.add_argument("--scale.views", type=int, default=2, help="Rendered views per training step.")
        parser.add_argument("--scale.radius", type=int, default=0, help="DR-KFS search window, in patches.")
        parser.add_argument("--scale.points", type=int, default=2500, help="Points that point losses compare.")
        parser.add_argument("--scale.silhouette_size", type=int, default=64, help="Side of DRWR's silhouettes.")
        parser.add_argument("--save_meshes", type=bool, default=True, help="test: write every predicted mesh.")

    def _parse_ckpt_path(self) -> None:
        # Lightning would take the checkpoint's hyper-parameters over the config's. Here the config decides, and
        # a checkpoint that does not fit is refused (Reconstruction.on_load_checkpoint).
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path and path not in ("best", "last", "hpc"):
            load_checkpoint(Path(path))

    def before_instantiate_classes(self) -> None:
        """Choose the run directory, then everything that writes into it."""
        config = self.config[self.subcommand]
        chosen = os.environ.get(RUN_DIRECTORY)
        self.run_directory = Path(chosen) if chosen else new_run_directory(config.out, config.name)
        os.environ[RUN_DIRECTORY] = str(self.run_directory)
        torch.set_num_threads(num_threads())
        config.trainer.default_root_dir = str(self.run_directory)
        config.trainer.use_distributed_sampler = False  # the data's own samplers do not repeat samples
        if config.trainer.get("enable_model_summary") is None:
            config.trainer.enable_model_summary = False  # one line of ours says as much
        if config.trainer.get("enable_progress_bar") is None:
            config.trainer.enable_progress_bar = not isinstance(self.progress, PlainProgress)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Loggers and callbacks of this run directory."""
        config = self._get(self.config_init, "trainer")
        if config.logger in (None, True):
            kwargs["logger"] = self._loggers()
        directory = self.run_directory
        extra: list[pl.Callback] = [self.progress, MetricsTable(directory)]
        if self.subcommand == "fit":
            extra.append(Gallery(directory))
            if config.enable_checkpointing is not False:
                folder = directory / "checkpoints"
                extra.append(ModelCheckpoint(folder, filename="{step:06d}", save_last=True, save_top_k=1))
                extra.append(SaveInterrupted(folder))
        if self.subcommand == "test":
            extra.append(SavePredictions(directory, meshes=self._get(self.config, "save_meshes", True)))
        self.trainer_defaults["callbacks"] = extra
        return super().instantiate_trainer(**kwargs)

    def _loggers(self) -> list[Any]:
        loggers: list[Any] = [CSVLogger(str(self.run_directory), name="", version="")]
        if self._get(self.config, "logger") == "wandb":
            online = os.environ.get("WANDB_MODE") == "online"
            name = f"{self._get(self.config, 'name')}-{self.run_directory.name}"
            wandb = WandbLogger(project="reconlab", name=name, save_dir=str(self.run_directory), offline=not online)
            loggers.append(wandb)
        return loggers

    def after_instantiate_classes(self) -> None:
        """Tell the data what is needed; record where the run comes from; send the config to W&B."""
        for who, part in self.model.parts().items():
            self.datamodule.require(part.needs, who)
        if self.trainer.is_global_zero:
            protocols = {
                k: {n: p.as_dict() for n, p in m.protocols.items()} for k, m in self.model.metric_items().items()
            }
            seed = self._get(self.config, "seed_everything")
            content = {
                **provenance(seed),
                "command": command_line(),
                "stage": self.subcommand,
                "protocols": protocols,
            }
            write_run_json(self.run_directory, {**content, "status": "started"})
            print(f"run directory: {self.run_directory}")
            trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            print(f"{type(self.model.network).__name__}, {trainable / 1e6:.2f} M trainable parameters", flush=True)
            for logger in self.trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_hyperparams(self._get(self.config, "model").as_dict())


def main(command: str, argv: Sequence[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``.

    Raises:
        ReconlabError: A mistake in config, data or checkpoint.
        KeyboardInterrupt: After Ctrl-C, once the interrupted state has been saved.
    """
    arguments = with_run_config(list(argv))
    quieten()
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    os.environ.pop(RUN_DIRECTORY, None) if "LOCAL_RANK" not in os.environ else None
    holder: list[ReconlabCLI] = []

    class CLI(ReconlabCLI):
        def before_instantiate_classes(self) -> None:
            holder.append(self)
            super().before_instantiate_classes()

    try:
        CLI(
            Reconstruction,
            ReconstructionData,
            parser_class=Parser,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"parser_mode": "omegaconf+", "exit_on_error": True},
            args=[command, *arguments],
        )
    except SystemExit as stop:
        trainer = getattr(holder[0], "trainer", None) if holder else None
        if trainer is not None and trainer.interrupted:
            _finish(holder[0], "interrupted")
            raise KeyboardInterrupt from stop
        if stop.code in (0, None):
            return 0
        raise
    except BaseException as error:
        if holder:
            _finish(holder[0], f"failed: {error}")
        raise
    cli = holder[0]
    _finish(cli, "finished")
    if cli.trainer.is_global_zero:
        for callback in cli.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Gallery) and callback.last is not None:
                print(f"pictures:      {callback.last}")
        print(f"run directory: {cli.run_directory}")
    return 0


def _finish(cli: ReconlabCLI, status: str) -> None:
    trainer = getattr(cli, "trainer", None)
    if trainer is not None and trainer.is_global_zero and cli.run_directory.is_dir():
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(("val/", "test/"))}
        write_run_json(cli.run_directory, {"status": status, "steps": trainer.global_step, "metrics": values})


def with_run_config(argv: list[str]) -> list[str]:
    """Without ``--config``, a checkpoint inside a run directory brings that run's ``config.yaml``."""
    if any(a in ("-c", "--config", "-h", "--help") or a.startswith("--config=") for a in argv):
        return argv
    for i, argument in enumerate(argv):
        match = re.fullmatch(r"--ckpt_path(?:=(.+))?", argument)
        if match:
            path = match.group(1) or (argv[i + 1] if i + 1 < len(argv) else "")
            config = Path(path).parent.parent / "config.yaml"
            if config.is_file():
                return ["--config", str(config), *argv]
            raise ReconlabError(f"No --config was given and {config} does not exist beside the checkpoint {path}.")
    return argv


def quieten() -> None:
    """Silence notes of Lightning that tell a user of reconlab nothing."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*LightningCLI's args parameter.*",
        ".*is an instance of `nn.Module` and is already saved.*",
        ".*LeafSpec.*",
        ".*exists and is not empty.*",
        ".*number of training batches.*",
        ".*Experiment logs directory.*",
        ".*GPU available but not used.*",
        ".*The dirpath has changed from.*",
        ".*in eval mode at the start of training.*",  # frozen feature networks inside losses
    ):
        warnings.filterwarnings("ignore", message=text)
