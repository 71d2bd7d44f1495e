"""``reconlab fit``, ``validate`` and ``test``: LightningCLI with run directories and one-sentence errors."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import jsonargparse
import pytorch_lightning as pl
import yaml
from jsonargparse.typing import PositiveInt
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, WandbLogger

import reconlab.losses
import reconlab.metrics
import reconlab.networks  # noqa: F401 - short class names in configs resolve among imported classes
from reconlab.cli.launch import LAUNCH_VARIABLES, RUN_DIRECTORY, as_sentence, choose_run_directory
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.errors import ReconlabError
from reconlab.lab import Reconstruction
from reconlab.lab.bases import check_yaml, expand_configs
from reconlab.lab.callbacks import (
    Gallery,
    MetricsTable,
    PlainProgress,
    ProgressBar,
    SaveInterrupted,
    SavePredictions,
)
from reconlab.lab.checkpoints import SaveProgress, TrainClock
from reconlab.lab.run_directory import command_line, provenance, write_atomic, write_run_json
from reconlab.lab.step_times import StepTimes
from reconlab.networks.checkpoint import load_checkpoint
from reconlab.threads import use_threads


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
        self.trained_values: dict[str, float] = {}
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
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="fit: judge on the test set at the end, in the same run directory.",
        )
        parser.add_argument(
            "--save_every",
            type=PositiveInt | None,
            default=None,
            help="fit: steps between two states of last.ckpt (null: a twentieth of the run).",
        )
        parser.add_argument(
            "--step_times",
            type=bool,
            default=False,
            help="fit: say what a step's time goes to (data, network, loss, backward, optimiser), in run.json too.",
        )
        # Read before parsing (reconlab.lab.bases) and known here for the parser's sake alone
        parser.add_argument("--base", type=str | list[str] | None, default=None, help=argparse.SUPPRESS)

    def _parse_ckpt_path(self) -> None:
        # Lightning would take the checkpoint's hyper-parameters over the config's. Here the config decides, and
        # a checkpoint that does not fit is refused (Reconstruction.on_load_checkpoint).
        config = self.config[self.config.subcommand]
        path = config.get("ckpt_path")
        if path and path not in ("best", "last", "hpc"):
            load_checkpoint(Path(path))
            chosen = config.model.get("network")  # another module than Reconstruction need not have one
            network = chosen.get("init_args") if chosen else None
            for key in list(vars(network)) if network else ():
                if key.endswith("_from"):
                    setattr(network, key, None)  # the checkpoint holds those weights; their source may be gone

    def before_instantiate_classes(self) -> None:
        """Choose the run directory; share the cores among the processes of this machine."""
        config = self.config[self.subcommand]
        config.pop("base", None)  # its files are part of this config now
        if config.data.get("seed") is None:
            config.data["seed"] = config.seed_everything  # one seed is enough for most; a sweep has one axis of them
        self.run_directory = choose_run_directory(config.out, config.name)
        os.environ[RUN_DIRECTORY] = str(self.run_directory)
        devices = config.trainer.get("devices")
        if str(devices).isdigit() and int(devices) > 1:
            os.environ.setdefault("LOCAL_WORLD_SIZE", str(devices))
        use_threads()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Loggers, callbacks and progress of this run directory; none of it belongs into the saved config."""
        config = self._get(self.config_init, "trainer")
        kwargs["default_root_dir"] = str(self.run_directory)
        kwargs["use_distributed_sampler"] = False  # the data's own samplers do not repeat samples
        kwargs["enable_model_summary"] = bool(config.enable_model_summary)  # one line of ours says as much
        if config.logger in (None, True):
            kwargs["logger"] = self._loggers()
        extra: list[pl.Callback] = []
        if self.subcommand == "fit" and self._get(self.config, "step_times"):
            extra.append(StepTimes(self.run_directory))  # the first: what the others do is not the optimiser's
        extra.append(MetricsTable(self.run_directory))
        bar = sys.stdout.isatty() and config.enable_progress_bar is not False
        kwargs["enable_progress_bar"] = bar
        if config.enable_progress_bar is not False:
            extra.append(ProgressBar() if bar else PlainProgress())
        directory = self.run_directory
        if self.subcommand == "fit":
            extra.append(Gallery(directory))
            if config.enable_checkpointing is not False:
                folder = directory / "checkpoints"
                extra.append(
                    ModelCheckpoint(
                        folder, filename="{step:06d}", save_last=True, save_top_k=1, enable_version_counter=False
                    )
                )
                extra.append(SaveProgress(folder, self._get(self.config, "save_every")))
                extra.append(SaveInterrupted(folder))
            extra.append(TrainClock(directory))
        if self.subcommand == "test" or self._tests_after_fit():
            extra.append(SavePredictions(directory, meshes=self._get(self.config, "save_meshes", True)))
        self.trainer_defaults["callbacks"] = extra
        return super().instantiate_trainer(**kwargs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        settings = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand in ("validate", "test"):
            settings["verbose"] = False  # MetricsTable prints the values, with their protocols' factors
        return settings

    def _tests_after_fit(self) -> bool:
        return bool(self.subcommand == "fit" and self._get(self.config, "test_after_fit", False))

    def after_fit(self) -> None:
        """Judge a finished training on the test set, if asked; Lightning calls this after ``fit``."""
        if not self._tests_after_fit() or self.trainer.interrupted:
            return
        self.trained_values = shown_metrics(self.trainer)  # the test's begin anew
        if self.trainer.is_global_zero:
            write_run_json(self.run_directory, {"metrics": self.trained_values})
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)

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
        self.model.declare(self.datamodule)
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
    arguments = options_last(expand_configs(with_run_config(list(argv))))
    files = check_yaml(arguments)
    other = names_a_module(arguments, files)
    if other:
        import reconlab.lab.mvcnn  # noqa: F401 - its short name resolves among imported classes, too
    quieten()
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    before = {k: os.environ.get(k) for k in LAUNCH_VARIABLES}
    began = time.monotonic()
    holder: list[ReconlabCLI] = []

    class CLI(ReconlabCLI):
        def before_instantiate_classes(self) -> None:
            holder.append(self)
            super().before_instantiate_classes()

    try:
        CLI(
            pl.LightningModule if other else Reconstruction,
            ReconstructionData,
            subclass_mode_model=other,
            parser_class=Parser,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"parser_mode": "omegaconf+", "exit_on_error": True},
            args=[command, *arguments],
        )
        _finish(holder, "finished", began)
    except SystemExit as stop:
        trainer = getattr(holder[0], "trainer", None) if holder else None
        if trainer is not None and trainer.interrupted:
            _finish(holder, "interrupted", began)
            raise KeyboardInterrupt from stop
        if stop.code not in (0, None):
            raise
    except BaseException as error:
        _finish(holder, f"failed: {error}", began)
        sentence = as_sentence(error, files) if isinstance(error, Exception) else None
        if sentence is not None:
            raise sentence from error
        raise
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish()  # else a second run in this process would go on in the first's
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
    return 0


def _finish(holder: list[ReconlabCLI], status: str, began: float) -> None:
    """Close ``run.json`` and say where things are; a run that never began leaves no directory."""
    if not holder:
        return
    cli = holder[0]
    trainer = getattr(cli, "trainer", None)
    if trainer is None:
        if cli.run_directory.is_dir() and not any(cli.run_directory.iterdir()):
            cli.run_directory.rmdir()
        return
    if not trainer.is_global_zero or not cli.run_directory.is_dir():
        return
    values = cli.trained_values | shown_metrics(trainer)
    content = {"status": status, "steps": trainer.global_step, "wall_seconds": round(time.monotonic() - began, 1)}
    write_run_json(cli.run_directory, {**content, "metrics": values})
    if status == "finished":
        for callback in trainer.callbacks:
            if isinstance(callback, Gallery) and callback.last is not None:
                print(f"pictures:      {callback.last}")
        print(f"run directory: {cli.run_directory}")


def shown_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """The values of validation and test that the trainer holds now."""
    return {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(("val/", "test/"))}


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


def names_a_module(argv: Sequence[str], files: Sequence[str]) -> bool:
    """Whether the command line trains a LightningModule of its own choice: one that is not ``Reconstruction``.

    It then says ``class_path`` and ``init_args`` directly below ``model``; all other configs are Reconstruction's
    arguments.

    Example:
        >>> names_a_module(["--model.class_path=MultiViewClassification"], [])
        True
    """
    if any(a == "--model" or a.startswith(("--model=", "--model.class_path")) for a in argv):
        return True
    models = [yaml.safe_load(Path(file).read_text(encoding="utf-8")).get("model") for file in files]
    return any(isinstance(model, dict) and "class_path" in model for model in models)


def options_last(argv: list[str]) -> list[str]:
    """``--ckpt_path`` after every ``--config``: a saved config says ``ckpt_path: null``, and the last one counts.

    Example:
        >>> options_last(["--ckpt_path", "a.ckpt", "--config", "b.yaml"])
        ['--config', 'b.yaml', '--ckpt_path', 'a.ckpt']
    """
    kept, moved = [], []
    rest = iter(argv)
    for argument in rest:
        if argument == "--ckpt_path":
            moved += [argument, *([value] if (value := next(rest, None)) is not None else [])]
        elif argument.startswith("--ckpt_path="):
            moved.append(argument)
        else:
            kept.append(argument)
    return kept + moved


def quieten() -> None:
    """Silence notes of Lightning that tell a user of reconlab nothing."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*LightningCLI's args parameter.*",
        ".*is an instance of `nn.Module` and is already saved.*",
        ".*your dataloader is not resumable.*",  # the sampler goes on where the epoch was
        ".*sync_dist=True.*",  # metrics reduce over the ranks themselves
        ".*LeafSpec.*",
        ".*exists and is not empty.*",
        ".*number of training batches.*",
        ".*Experiment logs directory.*",
        ".*GPU available but not used.*",
        ".*The dirpath has changed from.*",
        ".*in eval mode at the start of training.*",  # frozen feature networks inside losses
    ):
        warnings.filterwarnings("ignore", message=text)
