from __future__ import annotations

import errno
import inspect
from dataclasses import FrozenInstanceError, replace

import pytest

from pytest_bootc import errors
from pytest_bootc.model import MachineFacts, Scope
from pytest_bootc.verdict import (
    ExitStatus,
    Outcome,
    Shown,
    State,
    SubjectVerdict,
    Tally,
    heaviest,
    shown,
    state_of,
    table,
)

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


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS],
)
def test_a_host_that_ran_out_of_something_is_no_verdict(number: int, phase: str) -> None:
    assert state_of(phase, OSError(number, "")) is State.INFRA
    assert state_of(phase, MemoryError()) is State.INFRA


def test_a_number_like_that_of_a_full_disk_does_not_make_one() -> None:
    class OddError(Exception):
        errno = errno.ENOSPC

    assert state_of("call", OddError()) is State.FAIL


@pytest.mark.parametrize("phase", PHASES)
def test_an_exception_that_is_none_is_no_laboratorys(phase: str) -> None:
    assert state_of(phase, KeyboardInterrupt()) is State.FAIL


def test_states_in_the_order_of_their_weight() -> None:
    order = [State.SKIP, State.PASS, State.INFRA, State.USAGE, State.FLAKY, State.FAIL]
    assert sorted(State, key=lambda state: state.weight) == order
    assert [state.weight for state in order] == list(range(6))
    assert [state.red for state in order] == [False, False, True, True, True, True]
    # Reports of other processes carry them as words.
    assert [State(word) for word in ("skip", "pass", "infra", "usage", "flaky", "fail")] == order


def test_exit_statuses_are_what_is_documented() -> None:
    told = {status.name: status.value for status in ExitStatus}
    assert told == {
        "GOOD": 0,
        "BAD_IMAGE": 1,
        "INTERRUPTED": 2,
        "INTERNAL_ERROR": 3,
        "USAGE": 4,
        "NOTHING_RAN": 5,
        "LAB_TROUBLE": 10,
    }


def test_the_heaviest_phase_decides() -> None:
    assert heaviest([]) is State.SKIP
    assert heaviest(iter([State.PASS])) is State.PASS
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


def test_every_suite_that_was_asked_for_must_have_judged() -> None:
    tally = Tally()
    tally.add(Outcome("boot/a", "image", State.PASS, suite="boot"))
    tally.add(Outcome("smoke/b", "image", State.SKIP, "needs brew", suite="smoke"))
    assert tally.exit_status(0, ["image"], ["other"]) == 0
    assert tally.exit_status(0, ["image"], ["smoke"]) == 5
    skipped = SubjectVerdict("image", "", "", None, tuple(tally.of("image")), ("smoke", "other"))
    assert skipped.unjudged == ("smoke",)
    assert skipped.conclusion == "not judged by what was asked for: the suite smoke"
    assert skipped.skipped_for("smoke") == {"needs brew": 1}
    tally.add(Outcome("smoke/c", "image", State.PASS, suite="smoke"))
    assert tally.exit_status(0, ["image"], ["smoke"]) == 0
    tally.add(Outcome("smoke/d", "image", State.FAIL, suite="smoke"))
    assert tally.exit_status(1, ["image"], ["smoke", "other"]) == 1


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


def test_the_first_of_two_equally_heavy_reports_is_told() -> None:
    tally = Tally()
    for line in ("the cause", "what came of it"):
        tally.add(replace(outcome("a", State.FAIL), line=line, evidence=line))
    assert tally.of("image") == [Outcome("a", "image", State.FAIL, "the cause", evidence="the cause")]


def tried_again(first: State, *reports: State) -> Outcome:
    """What is made of a test whose first try ended in a state, and whose second try reports these."""
    tally = Tally()
    tally.expect(["a"])
    tally.add(outcome("a", first))
    tally.try_again("a", first, "the first line")
    tally.begin("a")
    assert tally.missing() == ["a"]
    for state in reports:
        tally.add(outcome("a", state))
    (concluded,) = tally.of("image")
    assert tally.counts("image") == {concluded.state: 1}
    assert tally.exit_status(0, ["image"]) == (1 if concluded.state in (State.FAIL, State.FLAKY) else tally_of(reports))
    return concluded


def tally_of(states: tuple[State, ...]) -> int:
    """The exit status of a run whose only test reports these."""
    tally = Tally()
    for state in states:
        tally.add(outcome("a", state))
    return tally.exit_status(0, ["image"])


@pytest.mark.parametrize("first", [State.FAIL, State.USAGE, State.FLAKY])
@pytest.mark.parametrize(
    ("second", "state", "line"),
    [
        ((State.SKIP, State.PASS, State.SKIP), State.FLAKY, "it passed only when it was tried again"),
        ((State.SKIP, State.FAIL, State.SKIP), State.FAIL, ""),
        ((State.SKIP, State.FLAKY, State.SKIP), State.FLAKY, ""),
        # Whether the second try was good is not known.
        ((State.SKIP, State.SKIP), State.FAIL, "the first line"),
        ((State.SKIP, State.INFRA, State.SKIP), State.FAIL, "the first line"),
        ((State.USAGE, State.SKIP), State.FAIL, "the first line"),
        ((State.SKIP, State.PASS, State.INFRA), State.FAIL, "the first line"),
    ],
)
def test_a_test_that_failed_and_was_tried_again(
    first: State, second: tuple[State, ...], state: State, line: str
) -> None:
    assert tried_again(first, *second) == Outcome("a", "image", state, line)


@pytest.mark.parametrize("second", [State.PASS, State.SKIP, State.INFRA, State.USAGE, State.FAIL])
def test_nothing_is_held_against_a_test_that_the_laboratory_failed(second: State) -> None:
    assert tried_again(State.INFRA, State.SKIP, second) == Outcome("a", "image", second, retried="the first line")


def test_only_the_test_that_was_tried_again_is_told_so() -> None:
    tally = Tally()
    tally.try_again("a", State.INFRA, "QEMU was killed")
    tally.try_again("b", State.FAIL, "1 == 2")
    for nodeid in "abc":
        tally.begin(nodeid)
        tally.add(outcome(nodeid, State.PASS))
    assert {each.nodeid: (each.state, each.retried) for each in tally.of("image")} == {
        "a": (State.PASS, "QEMU was killed"),
        "b": (State.FLAKY, ""),
        "c": (State.PASS, ""),
    }


def test_a_run_that_was_cut_off_is_not_good() -> None:
    tally = Tally()
    tally.expect(["a", "b"])
    tally.expect(["b", "c"])
    tally.add(outcome("b", State.PASS))
    assert tally.missing() == ["a", "c"]
    assert tally.exit_status(0, ["image"]) == 2
    assert tally.exit_status(5, ["image"]) == 2
    assert tally.exit_status(1, ["image"]) == 1
    tally.add(outcome("a", State.PASS))
    tally.begin("b")
    assert tally.missing() == ["b", "c"]
    tally.add(outcome("b", State.INFRA))
    assert tally.exit_status(0, ["image"]) == 10
    tally.begin("b")
    tally.add(outcome("b", State.PASS))
    tally.add(outcome("c", State.SKIP))
    assert tally.missing() == []
    assert tally.exit_status(0, ["image"]) == 0


def test_beginning_a_test_twice_does_nothing() -> None:
    tally = Tally()
    tally.begin("a")
    tally.begin("a")
    assert tally.of("image") == []


def test_outcomes_are_told_by_subject_in_their_order() -> None:
    tally = Tally()
    for nodeid, subject in (("a", "one"), ("b", "two"), ("c", "one"), ("d", "")):
        tally.add(outcome(nodeid, State.PASS, subject))
    # A name that comes from another process is another object.
    assert [each.nodeid for each in tally.of("".join(["o", "ne"]))] == ["a", "c"]
    assert [each.nodeid for each in tally.of("")] == ["d"]
    assert tally.counts("two") == {State.PASS: 1}
    assert tally.counts("three") == {}


@pytest.mark.parametrize(
    ("state", "phase", "expected"),
    [
        (State.PASS, "setup", Shown("", "", "", "passed")),
        (State.PASS, "call", Shown(".", "PASSED", "", "passed")),
        (State.PASS, "teardown", Shown("", "", "", "passed")),
        *((State.SKIP, phase, Shown("s", "SKIPPED", "skipped", "skipped")) for phase in PHASES),
        (State.INFRA, "setup", Shown("I", "INFRA", "error", "broken")),
        (State.INFRA, "call", Shown("I", "INFRA", "failure", "broken")),
        (State.INFRA, "teardown", Shown("I", "INFRA", "error", "broken")),
        (State.USAGE, "setup", Shown("E", "ERROR", "error", "broken")),
        (State.USAGE, "call", Shown("F", "FAILED", "failure", "broken")),
        (State.USAGE, "teardown", Shown("E", "ERROR", "error", "broken")),
        (State.FLAKY, "setup", Shown("f", "FLAKY", "error", "failed")),
        (State.FLAKY, "call", Shown("f", "FLAKY", "failure", "failed")),
        (State.FLAKY, "teardown", Shown("f", "FLAKY", "error", "failed")),
        (State.FAIL, "setup", Shown("E", "ERROR", "error", "failed")),
        (State.FAIL, "call", Shown("F", "FAILED", "failure", "failed")),
        (State.FAIL, "teardown", Shown("E", "ERROR", "error", "failed")),
    ],
)
def test_how_a_phase_is_shown(state: State, phase: str, expected: Shown) -> None:
    assert shown(state, phase) == expected


def test_the_table_of_states() -> None:
    told = [(cell.state.value, cell.phase, cell.status) for cell in table()]
    assert told == [
        ("fail", "setup", 1),
        ("fail", "call", 1),
        ("fail", "teardown", 1),
        ("flaky", "call", 1),
        ("usage", "setup", 4),
        ("usage", "call", 4),
        ("usage", "teardown", 4),
        ("infra", "setup", 10),
        ("infra", "call", 10),
        ("infra", "teardown", 10),
        ("pass", "call", 0),
        ("skip", "setup", 5),
        ("skip", "call", 5),
    ]
    assert all(isinstance(cell.status, ExitStatus) for cell in table())
    assert [cell.shown for cell in table()] == [shown(cell.state, cell.phase) for cell in table()]


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ((), "not judged"),
        ((State.SKIP,), "not judged"),
        ((State.SKIP, State.PASS), "good"),
        ((State.PASS, State.INFRA), "not known: the laboratory failed"),
        ((State.INFRA, State.USAGE), "not known: the run was asked for something impossible"),
        ((State.USAGE, State.FLAKY), "bad: it did what was expected only when tried again"),
        ((State.FLAKY, State.FAIL), "bad"),
    ],
)
def test_the_verdict_in_words(states: tuple[State, ...], words: str) -> None:
    facts = MachineFacts("fake", "tcg", "none", "", Scope.RUNNING_SYSTEM)
    outcomes = tuple(outcome(str(number), state) for number, state in enumerate(states))
    verdict = SubjectVerdict("a", "h.example/a:v1", "sha256:0", facts, outcomes)
    assert verdict.conclusion == words


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (Outcome("a", "image", State.PASS), "state"),
        (SubjectVerdict("a", "", "", None, ()), "outcomes"),
        (shown(State.PASS, "call"), "word"),
        (table()[0], "status"),
    ],
)
def test_what_is_told_does_not_change_any_more(value: object, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, None)
