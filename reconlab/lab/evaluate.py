"""Running an evaluation: over processes, resumable, every finished sample on disk at once."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError
from reconlab.lab.evaluate_judge import Judge, Row
from reconlab.lab.evaluate_metrics import Plan, columns, make_metrics
from reconlab.lab.evaluate_pairs import Pair
from reconlab.threads import limit_threads, starting_with


class Store:
    """Finished samples, one JSON line each, beside the output; the first line is the protocol.

    Args:
        path: The file; None keeps nothing.
        protocol: What decides the values. A file of another one is refused.
        force: Start anew instead.

    Raises:
        ReconlabError: The file holds another evaluation, or cannot be written.
    """

    def __init__(self, path: Path | None, protocol: Mapping[str, Any], force: bool = False) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        if path is None:
            return
        head = json.loads(json.dumps({"protocol": protocol}))  # as it will be read again
        if path.exists() and not force:
            self._read(path, head)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.part")
            lines = [head, *(row.as_dict() for row in self.rows.values())]
            aside.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            aside.replace(path)  # without a line that an interruption tore
        except OSError as error:
            raise ReconlabError(f"Cannot write {path}: {error.strerror or error}.") from error

    def _read(self, path: Path, head: Mapping[str, Any]) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        try:
            old = json.loads(lines[0])["protocol"]
        except (IndexError, ValueError, KeyError, TypeError) as error:
            raise ReconlabError(
                f"{path} is no list of evaluated samples: name another output, or --force."
            ) from error
        if old != head["protocol"]:
            new = head["protocol"]
            changed = next(k for k in [*new, *old] if old.get(k) != new.get(k))
            raise ReconlabError(
                f"{path} holds samples of another protocol ({changed!r} differs): name another output, or start anew "
                "with --force."
            )
        for line in lines[1:]:
            try:
                row = Row(**json.loads(line))
            except (ValueError, TypeError):
                continue  # torn by an interruption: judged again
            self.rows[row.key] = row

    def known(self, pair: Pair) -> Row | None:
        """The sample's finished row, if its files have not changed since."""
        row = self.rows.get(pair.key)
        return row if row is not None and row.stamp == pair.stamp() else None

    def add(self, row: Row) -> None:
        """Keep a finished sample."""
        self.rows[row.key] = row
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row.as_dict()) + "\n")


def evaluate(
    pairs: Sequence[Pair],
    plan: Plan,
    store: Store,
    workers: int = 1,
    named: Sequence[str] = (),
    say: Callable[[str], None] = lambda sentence: None,
    tick: Callable[[int, int, int], None] = lambda done, total, reused: None,
) -> list[Row]:
    """Judge all pairs that the store does not know.

    Args:
        pairs: The samples.
        plan: What is computed.
        store: Of finished samples.
        workers: Processes of one thread each; 1 works in this one.
        named: Metrics that must apply: the first sample whose truth one of them does not apply to ends the run, and
            so does the third prediction, unless another had a value.
        say: Told every sample's messages.
        tick: Told how many samples are done, of how many, and how many of them the store knew.

    Returns:
        The rows in the order of the pairs.

    Raises:
        ReconlabError: A named metric does not apply or cannot run here.
        KeyboardInterrupt: After Ctrl-C; finished samples are in the store.
    """
    rows: dict[str, Row] = {}
    todo = []
    for pair in pairs:
        if (known := store.known(pair)) is not None:
            rows[pair.key] = known
            for message in known.messages:
                say(message)
        else:
            todo.append(pair)
    reused = len(rows)
    tick(reused, len(pairs), reused)
    unfit = dict.fromkeys(named, 0)
    applied = {name for row in rows.values() for name in named if row.values.get(name) is not None}
    for row in _judged(todo, plan, workers):
        for name in named:
            unfit[name] += name in row.unfit
            surely = name not in row.unfit or unfit[name] >= min(3, len(pairs))
            if name in row.skipped and name not in applied and surely:
                raise ReconlabError(f"{name} does not apply to {row.key}: {row.skipped[name]}")
            if row.values.get(name) is not None:
                applied.add(name)
        store.add(row)
        rows[row.key] = row
        for message in row.messages:
            say(message)
        tick(len(rows), len(pairs), reused)
    return [rows[pair.key] for pair in pairs]


def _judged(pairs: Sequence[Pair], plan: Plan, workers: int) -> Iterator[Row]:
    if workers == 1 or len(pairs) < 2:
        judge = Judge(plan) if pairs else None
        for pair in pairs:
            assert judge is not None  # noqa: S101
            yield judge(pair)
        return
    rest = deque(pairs)
    while rest:
        for pair in (yield from _pooled(rest, plan, workers)):
            # A process died, out of memory perhaps: each sample that it may have been is judged alone.
            if (yield from _pooled(deque([pair]), plan, 1)):
                yield _died(pair, plan)


def _pooled(rest: deque[Pair], plan: Plan, workers: int) -> Generator[Row, None, list[Pair]]:
    """Rows of ``rest``, which is emptied; returns those at hand when a process died."""
    import multiprocessing

    # spawn: a forked child would inherit torch's and numba's thread pools, which may hang there.
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(rest))
    with starting_with(1), ProcessPoolExecutor(count, context, _start, (plan,)) as pool:
        running: dict[Future[Row], Pair] = {}
        try:
            while rest or running:
                while rest and len(running) < 2 * count:
                    future = pool.submit(_work, rest[0])
                    running[future] = rest.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    row = future.result()
                    del running[future]
                    yield row
        except BrokenProcessPool:
            return list(running.values())
        except BaseException:  # Ctrl-C and a closed generator too: do not start what waits
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return []


_plan: Plan | None = None
_judge: Judge | None = None


def _start(plan: Plan) -> None:
    import signal

    global _plan, _judge
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a worker finishes its sample
    limit_threads(1)
    _plan, _judge = plan, None


def _work(pair: Pair) -> Row:
    global _judge
    if _judge is None:  # not in _start: an error there would look like a process that died
        assert _plan is not None  # noqa: S101
        _judge = Judge(_plan)
    return _judge(pair)


def _died(pair: Pair, plan: Plan) -> Row:
    """The row of a sample that ends the process that judges it: charged to the prediction."""
    row = Row(pair.category, pair.id, failed=list(plan.metrics), stamp=pair.stamp())
    for name, metric in make_metrics(plan).items():
        row.values |= {key: metric.protocols[value].worst_value for value, key in columns(name, metric).items()}
    row.messages.append(
        f"{pair.key}: the prediction has failed: the process that judged it died (out of memory, perhaps)."
    )
    return row
