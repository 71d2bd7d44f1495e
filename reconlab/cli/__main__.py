"""``reconlab``: dispatch to a command, loading only what that command uses."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from reconlab import __version__
from reconlab.errors import ReconlabError

COMMANDS = {
    "fit": "train a network:            reconlab fit --config configs/atlasnet_drkfs.yaml",
    "validate": "judge on the validation set: reconlab validate --ckpt_path runs/…/last.ckpt",
    "test": "judge on the test set, keep the predictions",
    "predict": "reconstruct image files:    reconlab predict --ckpt_path P --images a.png b.png --out DIR",
    "evaluate": "judge any meshes:           reconlab evaluate PRED GT --metrics all --workers 2",
    "data": "build or check a dataset:   reconlab data build --source synth --out data/synth",
    "figure": "make a paper's figure:      reconlab figure drwr-fig3 --out fig3.png",
    "sweep": "run a table's cells:        reconlab sweep configs/sweeps/drwr_table4.yaml --profile desk",
    "table": "measured beside the paper:  reconlab table drwr_table4",
    "report": "one HTML file of runs:      reconlab report runs/atlasnet_drkfs/000",
    "study": "a perceptual study:         reconlab study build RUN_A RUN_B --out DIR",
    "bench": "what things cost here:      reconlab bench --out DIR --quick",
    "list": "name what there is:         reconlab list networks",
}
TRAINER_COMMANDS = ("fit", "validate", "test")


def usage() -> str:
    """The text of ``reconlab --help``."""
    lines = ["usage: reconlab COMMAND [options]      (reconlab COMMAND --help says more)", ""]
    lines += [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    lines += ["", "  --version    print the version", "  --debug      show the whole traceback of an error"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for a user's mistake, 130 after Ctrl-C.

    ``evaluate`` returns 1 if samples failed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("RECONLAB_DEBUG"))
    arguments = [a for a in arguments if a != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        print(f"reconlab {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(COMMANDS)}."
        return _complain(f"there is no command {command!r}; {hint}")
    try:
        return _run(command, rest)
    except ReconlabError as error:
        if debug:
            raise
        return _complain(from_worker(str(error)))
    except KeyboardInterrupt:
        if debug:
            raise
        if _speaks():
            print("\nreconlab: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away
        return 141 if command in TRAINER_COMMANDS else 0


def _run(command: str, rest: list[str]) -> int:
    if os.environ.get("RECONLAB_THREADS"):
        from reconlab.threads import num_threads

        num_threads()  # a mistake in it is the user's, not that of the first sample that is computed
    if command in TRAINER_COMMANDS:
        from reconlab.lab.bases import check_yaml

        check_yaml(rest)  # before Lightning's import, which takes seconds
        from reconlab.cli.train import main as train

        return train(command, rest)
    module = {"list": "listing"}.get(command, command)
    return int(importlib.import_module(f"reconlab.cli.{module}").main(rest))


def from_worker(text: str) -> str:
    """The sentence alone where a data-loader process sent it wrapped in its traceback."""
    if "in DataLoader worker" not in text.split("\n", 1)[0]:
        return text
    return text.rsplit("ReconlabError: ", 1)[-1].strip().split("\n")[0]


def _speaks() -> bool:
    """Whether this process may print errors: of several ranks only the first."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _complain(sentence: str) -> int:
    if _speaks():
        print(f"reconlab: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
