from __future__ import annotations

import errno
import inspect

import pytest

from pytest_bootc import errors
from pytest_bootc.verdict import ExitStatus, Outcome, State, Tally, heaviest, state_of

PHASES = ("setup", "call", "teardown")


def outcome(nodeid: str, state: State, subject: str = "image") -> Outcome:
    return Outcome(nodeid, subject, state)


@pytest.mark.parametrize("phase", PHASES)
def test_each_of_our_errors_is_judged_by_its_blame(phase: str) -> None:
    expected = {errors.Blame.IMAGE: State.FAIL, errors.Blame.LAB: State.INFRA, errors.Blame.USAGE: State.USAGE}
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.BootcTestError)]
    assert len(kinds) > 10
    for kind in kinds:
        assert state_of(phase, kind("x")) is expected[kind.blame]


@pytest.mark.parametrize("phase", PHASES)
def test_a_missed_expectation_is_the_images_in_every_phase(phase: str) -> None:
    assert state_of(phase, AssertionError()) is State.FAIL
    assert state_of(phase, pytest.fail.Exception("no")) is State.FAIL


@pytest.mark.parametrize("error", [KeyError("x"), TypeError(), ConnectionRefusedError(errno.ECONNREFUSED, "")])
def test_any_other_exception(error: Exception) -> None:
    assert {phase: state_of(phase, error) for phase in PHASES} == {
        "setup": State.INFRA,
        "call": State.FAIL,
        "teardown": State.INFRA,
    }


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_a_host_that_ran_out_of_something_is_no_verdict(number: int) -> None:
    assert state_of("call", OSError(number, "")) is State.INFRA
    assert state_of("call", MemoryError()) is State.INFRA


def test_the_heaviest_phase_decides() -> None:
    assert heaviest([]) is State.SKIP
    assert heaviest([State.SKIP, State.PASS, State.INFRA]) is State.INFRA
    assert heaviest([State.FAIL, State.INFRA, State.USAGE, State.FLAKY]) is State.FAIL


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([State.PASS], 0),
        ([State.PASS, State.SKIP], 0),
        ([State.PASS, State.INFRA], 10),
        ([State.USAGE, State.INFRA], 4),
        ([State.FLAKY, State.USAGE], 1),
        ([State.FAIL, State.INFRA, State.PASS], 1),
        ([State.SKIP], 5),
        ([], 5),
    ],
)
def test_exit_status(states: list[State], status: int) -> None:
    tally = Tally()
    for number, state in enumerate(states):
        tally.add(outcome(str(number), state))
    for from_pytest in (ExitStatus.GOOD, ExitStatus.NOTHING_RAN):
        assert tally.exit_status(from_pytest, ["image"]) == status
    for from_pytest in (ExitStatus.INTERRUPTED, ExitStatus.INTERNAL_ERROR, ExitStatus.USAGE):
        assert tally.exit_status(from_pytest, ["image"]) == from_pytest


def test_a_failure_that_no_test_gave_stands() -> None:
    tally = Tally()
    tally.add(outcome("a", State.PASS))
    assert tally.exit_status(ExitStatus.BAD_IMAGE, ["image"]) == 1


def test_every_subject_must_have_been_judged() -> None:
    tally = Tally()
    tally.add(outcome("a", State.PASS, "one"))
    tally.add(outcome("b", State.SKIP, "two"))
    assert tally.exit_status(0, ["one"]) == 0
    assert tally.exit_status(0, ["one", "two"]) == 5


def test_a_test_without_a_subject_counts_when_it_is_red() -> None:
    tally = Tally()
    tally.add(outcome("a", State.PASS, "one"))
    tally.add(outcome("b", State.FAIL, ""))
    assert tally.exit_status(1, ["one"]) == 1


def test_several_reports_of_a_test_are_one_outcome() -> None:
    tally = Tally()
    for state in (State.SKIP, State.FAIL, State.PASS):
        tally.add(outcome("a", state))
    assert [entry.state for entry in tally.of("image")] == [State.FAIL]
    assert tally.counts("image") == {State.FAIL: 1}


def test_what_passed_when_tried_again_is_flaky_and_what_failed_again_is_not() -> None:
    tally = Tally()
    for nodeid, second in (("a", State.PASS), ("b", State.FAIL)):
        tally.add(outcome(nodeid, State.FAIL))
        tally.try_again(nodeid)
        tally.begin(nodeid)
        tally.add(outcome(nodeid, second))
    assert {entry.nodeid: entry.state for entry in tally.of("image")} == {"a": State.FLAKY, "b": State.FAIL}
