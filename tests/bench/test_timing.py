"""Measuring in turns: order, calls, medians and ratios, with a clock that the test winds itself."""

import pytest
import torch

from reconlab.bench.timing import CPU, WALL, CudaClock, HostClock, clock_for, interleave, ratios, spread


class Bench:
    """Functions that take a known time on their own clock, and the order in which they ran."""

    def __init__(self, **seconds):
        self.now, self.calls, self.timed = 0.0, [], []
        self.functions = {name: self._function(name, iter(own)) for name, own in seconds.items()}

    def _function(self, name, seconds):
        def function():
            self.calls.append(name)
            self.now += next(seconds)

        return function

    @property
    def clock(self):
        return HostClock("a fake", lambda: self.now)


def forever(seconds):
    while True:
        yield seconds


def test_one_call_of_each_per_round_in_turns():
    bench = Bench(a=forever(1.0), b=forever(3.0))
    times = interleave(bench.functions, 3, bench.clock)
    warm = ["a", "a", "b", "b"]
    assert bench.calls == warm + ["a", "b"] * 3
    assert times == {"a": [1.0] * 3, "b": [3.0] * 3}


def test_short_functions_are_called_several_times_after_an_untimed_one():
    bench = Bench(short=forever(0.02), long=forever(1.0))
    times = interleave(bench.functions, 2, bench.clock)
    a_round = ["short"] * (1 + 3) + ["long"]  # 0.05 s hold three calls
    assert bench.calls == ["short"] * 3 + ["long"] * 2 + a_round * 2
    assert times["short"] == pytest.approx([0.02, 0.02])


def test_the_untimed_call_is_not_timed():
    # warm-up 9 s, estimates 0.4 s (cold) and 0.025 s: two calls a measurement after one that is dear
    bench = Bench(a=iter([9.0, 0.4, 0.025, 5.0, 0.03, 0.03, 5.0, 0.05, 0.05]))
    assert interleave(bench.functions, 2, bench.clock) == {"a": pytest.approx([0.03, 0.05])}


def test_a_call_after_long_ones_is_warmed_even_if_one_is_enough():
    bench = Bench(a=iter([9.0, 0.08, 0.06, 2.0, 0.06, 2.0, 0.07]), b=forever(30.0))
    assert interleave(bench.functions, 2, bench.clock)["a"] == pytest.approx([0.06, 0.07])


def test_warm_functions_are_not_warmed_again():
    bench = Bench(a=forever(1.0))
    interleave(bench.functions, 2, bench.clock, warm=True)
    assert len(bench.calls) == 1 + 2


@pytest.mark.parametrize(("budget", "rounds"), [(1e9, 10), (17.0, 4), (0.1, 2)])
def test_rounds_fit_the_budget_but_two_are_taken(budget, rounds):
    bench = Bench(a=forever(1.0), b=forever(3.0))
    assert len(interleave(bench.functions, 10, bench.clock, budget)["a"]) == rounds
    bench = Bench(a=forever(1.0))
    assert len(interleave(bench.functions, 1, bench.clock, 0.1)["a"]) == 1, "no more than asked for"


def test_a_function_that_takes_no_time_ends():
    bench = Bench(a=forever(0.0))
    assert interleave(bench.functions, 2, bench.clock, budget=1.0) == {"a": [0.0, 0.0]}


def test_ratios_are_of_the_same_round():
    # The machine was three times as slow in the second round: the ratio does not notice
    found = ratios({"ours": [1.0, 3.0, 1.0], "theirs": [2.0, 6.0, 2.0]})
    assert found["theirs"].as_list() == [2.0, 2.0, 2.0]
    assert found["ours"].as_list() == [1.0, 1.0, 1.0]


def test_spread_by_hand():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]).as_list() == [3.0, 2.0, 4.0]
    assert spread([7.0]).as_list() == [7.0, 7.0, 7.0]


def test_which_clock():
    assert clock_for("cpu", 1) is CPU
    assert clock_for("cpu", 2) is WALL
    assert clock_for("cuda:0", 1).name == "time between CUDA events"


def test_cuda_events_enclose_the_calls(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def elapsed_time(self, other):
            log.append("elapsed")
            return 30.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronize"))
    assert CudaClock()(lambda: log.append("work"), 2) == pytest.approx(0.015)
    assert log == ["synchronize", "record", "work", "work", "record", "synchronize", "elapsed"]
