"""Plays ``reconlab fit`` and ``test`` for the sweep's tests: run directories in milliseconds, and what goes wrong.

``$STUB_TRACE`` holds ``plan.json`` {cell: [what each start does]}; each start adds a line to ``starts``. Where it
says ``hang``, the stub tells so through the FIFO ``<cell>.here`` and goes on when it can read from ``<cell>.go``.
"""

import json
import os
import signal
import sys
import zipfile
from pathlib import Path


def main() -> int:
    """One start."""
    stage = sys.argv[1]
    given = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[2:])
    trace, cell = Path(os.environ["STUB_TRACE"]), given["name"]
    starts = trace / "starts"
    before = [line for line in starts.read_text().splitlines() if line.split()[1] == cell] if starts.exists() else []
    with starts.open("a") as stream:
        stream.write(f"{stage} {cell} {given.get('ckpt_path', '-')}\n")
    plan = json.loads((trace / "plan.json").read_text()).get(cell, []) if (trace / "plan.json").exists() else []
    act = plan[len(before)] if len(before) < len(plan) else "ok"
    parent = Path(given["out"]) / cell
    number = max([int(p.name) for p in parent.iterdir() if p.name.isdigit()], default=-1) + 1
    run = parent / f"{number:03d}"
    (run / "checkpoints").mkdir(parents=True)
    report = {"status": "started", "stage": stage, "commit": "c0ffee", "time": "then", "machine": {"cores": 2}}

    def save(name: str) -> None:
        with zipfile.ZipFile(run / "checkpoints" / name, "w") as archive:
            archive.writestr("state", cell)

    def write(**more: object) -> None:
        report.update(more)
        (run / "run.json").write_text(json.dumps(report))

    def interrupted(*_: object) -> None:
        save("interrupted.ckpt")
        write(status="interrupted")
        sys.exit(130)

    signal.signal(signal.SIGINT, interrupted)
    write()
    print("step 1/2  loss 1", flush=True)
    if act == "fail":
        print("something\nreconlab: the data are bad.", file=sys.stderr)
        return 2
    if act == "full":
        print("OSError: [Errno 28] No space left on device", file=sys.stderr)
        return 1
    if stage == "fit":
        save("last.ckpt")
        (run / "config.yaml").write_text("a: 1\n")
    if act.startswith("hang"):
        with (trace / f"{cell}.here").open("w") as stream:
            stream.write(str(os.getpid()))
        with (trace / f"{cell}.go").open() as stream:
            stream.read()
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if stage == "fit":
        write(trained=True, steps=2, train_steps=2, train_seconds=0.5, metrics={"val/cd": 9.0})
    if act == "die-trained":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "untested":
        write(status="finished")
        return 0
    values = {"test/cd": 1.5, "test/cd/car": 1.5, "test/cd/n": 7.0, "test/cd/n_failed": 1.0, "test/cd/car/n": 7.0}
    values |= {"test/cd/lamp": float("nan"), "test/cd/lamp/n": 0.0}
    write(status="finished", wall_seconds=2.0, metrics=values, protocols={"cd": {"cd": {"factor": 100}}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
