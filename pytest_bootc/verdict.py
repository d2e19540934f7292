"""What a run concludes: the state of each test, the count per image, and the exit status. Knows nothing of pytest.

Four states can be had by a test that ran: *pass*; *fail*: the image did not do what was expected; *flaky*: it did
so only when tried again, which is as red; *infra*: the laboratory failed, and nothing is known about the image.
Beside them *usage* (the run was asked for something impossible) and *skip* (not judged).
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from pytest_bootc.errors import Blame, BootcTestError
from pytest_bootc.model import MachineFacts


class State(Enum):
    """What is known after a test, or after one of its phases. Later ones outweigh earlier ones."""

    SKIP = "skip"
    PASS = "pass"
    INFRA = "infra"
    USAGE = "usage"
    FLAKY = "flaky"
    FAIL = "fail"

    @property
    def weight(self) -> int:
        """Where the state stands among the others; the heaviest phase is the test's state."""
        return list(State).index(self)

    @property
    def red(self) -> bool:
        """Whether it keeps the image from being good."""
        return self not in (State.SKIP, State.PASS)


class ExitStatus(IntEnum):
    """How a run that judges images ends. Only 10 is worth trying again as it is."""

    GOOD = 0
    BAD_IMAGE = 1
    INTERRUPTED = 2
    INTERNAL_ERROR = 3
    USAGE = 4
    NOTHING_RAN = 5
    LAB_TROUBLE = 10


_BY_BLAME = {Blame.IMAGE: State.FAIL, Blame.LAB: State.INFRA, Blame.USAGE: State.USAGE}

# The host ran out of something. The guest cannot cause them: what happens in it arrives as one of our own errors,
# and what it does on a socket as a ConnectionError or a timeout.
_HOST_TROUBLE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS)
)


def state_of(phase: str, error: BaseException) -> State:
    """The state of a phase (``setup``, ``call``, ``teardown``) that ended with this error.

    A missed expectation is the image's failure in whichever phase it is found, and so is what our own errors blame
    on it. Any other exception outside the call comes from preparing the test: the laboratory. In the call it is
    what the test stumbled over in the guest's answer (a missing key, a refused connection), or a bug in the test:
    both are red and neither goes away by trying again, so it is a failure too - unless the host ran out of
    something.
    """
    if isinstance(error, BootcTestError):
        return _BY_BLAME[error.blame]
    if isinstance(error, AssertionError) or not isinstance(error, Exception):
        return State.FAIL  # pytest.fail() raises a BaseException of its own
    if phase == "call" and not isinstance(error, MemoryError):
        return State.INFRA if isinstance(error, OSError) and error.errno in _HOST_TROUBLE else State.FAIL
    return State.INFRA


def heaviest(states: Iterable[State]) -> State:
    """The state that outweighs the others; of none at all: skip."""
    return max(states, key=lambda state: state.weight, default=State.SKIP)


@dataclass(frozen=True)
class Shown:
    """How reports show a phase that ended in a state: pytest's terminal, the JUnit element, Allure's status.

    ``junit`` is empty where there is no element: the test passed.
    """

    letter: str
    word: str
    junit: str
    allure: str


def shown(state: State, phase: str) -> Shown:
    """How a phase (``setup``, ``call``, ``teardown``) that ended in this state is shown.

    The JUnit element is pytest's: what is no failure of the call itself is an *error* there. Allure's statuses
    tell the image's failures (*failed*) from everything else (*broken*).
    """
    junit = "failure" if phase == "call" else "error"
    if state is State.PASS:
        return Shown(".", "PASSED", "", "passed") if phase == "call" else Shown("", "", "", "passed")
    if state is State.SKIP:
        return Shown("s", "SKIPPED", "skipped", "skipped")
    if state is State.INFRA:
        return Shown("I", "INFRA", junit, "broken")
    if state is State.FLAKY:
        return Shown("f", "FLAKY", junit, "failed")
    letter, word = ("F", "FAILED") if phase == "call" else ("E", "ERROR")
    return Shown(letter, word, junit, "failed" if state is State.FAIL else "broken")


@dataclass(frozen=True)
class Outcome:
    """How one test ended. ``subject`` is what it judged, empty if nothing; ``line`` why it did not pass.

    ``retried`` is the laboratory's trouble for which it was run once more, ``evidence`` the folder that has its
    evidence; ``exempted`` tells what was found and did not count, ``not_judged`` units that were skipped by their
    conditions. ``suite`` is the shipped suite that the test belongs to.
    """

    nodeid: str
    subject: str
    state: State
    line: str = ""
    suite: str = ""
    unmet_needs: tuple[str, ...] = ()
    retried: str = ""
    evidence: str = ""
    exempted: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubjectVerdict:
    """Everything that a report says about one subject. ``facts`` is ``None`` where no machine has booted.

    ``suites`` are those that the run was asked for.
    """

    name: str
    text: str
    digest: str
    facts: MachineFacts | None
    outcomes: tuple[Outcome, ...]
    suites: tuple[str, ...] = ()

    @property
    def conclusion(self) -> str:
        """The verdict in words."""
        worst = heaviest(outcome.state for outcome in self.outcomes)
        if worst is State.PASS and self.unjudged:
            return f"not judged by what was asked for: the suite {', '.join(self.unjudged)}"
        return _CONCLUSIONS[worst]

    @property
    def unjudged(self) -> tuple[str, ...]:
        """The suites that were asked for, and of whose tests every one was skipped."""
        return _unjudged(self.outcomes, self.suites)

    def skipped_for(self, suite: str) -> Mapping[str, int]:
        """Why tests of a suite were skipped, and how many for each reason."""
        skipped = [each for each in self.outcomes if each.suite == suite and each.state is State.SKIP]
        return Counter(each.line or "no reason was given" for each in skipped)


@dataclass(frozen=True)
class Cell:
    """A line of the table of states: how a test is shown of which one phase ended so, and how a run of it ends."""

    state: State
    phase: str
    shown: Shown
    status: ExitStatus


def table() -> list[Cell]:
    """Every state in every phase that can end in it, by the code that decides."""
    phases = {State.PASS: ("call",), State.SKIP: ("setup", "call"), State.FLAKY: ("call",)}
    cells = []
    for state in reversed(State):
        for phase in phases.get(state, ("setup", "call", "teardown")):
            tally = Tally()
            tally.add(Outcome("test", "image", state))
            status = tally.exit_status(ExitStatus.BAD_IMAGE if state.red else ExitStatus.GOOD, ["image"])
            cells.append(Cell(state, phase, shown(state, phase), ExitStatus(status)))
    return cells


class Tally:
    """The outcomes of a run, by test; the reports of a test may come in any number."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}
        self._expected: dict[str, None] = {}
        self._failed_before: dict[str, str] = {}
        self._retried: dict[str, str] = {}

    def expect(self, nodeids: Iterable[str]) -> None:
        """These tests are to be run. Those without an outcome at the end were cut off."""
        self._expected.update(dict.fromkeys(nodeids))

    def missing(self) -> list[str]:
        """The tests that were to be run, and have no outcome."""
        return [nodeid for nodeid in self._expected if nodeid not in self._outcomes]

    def add(self, outcome: Outcome) -> None:
        """Note an outcome. Of several for one test the heaviest stands."""
        known = self._outcomes.get(outcome.nodeid)
        if known is None or outcome.state.weight > known.state.weight:
            self._outcomes[outcome.nodeid] = outcome

    def begin(self, nodeid: str) -> None:
        """A test begins; what an earlier try of it ended with is forgotten."""
        self._outcomes.pop(nodeid, None)

    def try_again(self, nodeid: str, state: State, line: str) -> None:
        """A test ended in this state and is run once more.

        After the laboratory's trouble nothing is held against it; after anything else, passing is flaky.
        """
        if state is State.INFRA:
            self._retried[nodeid] = line
        else:
            self._failed_before[nodeid] = line

    def of(self, subject: str) -> list[Outcome]:
        """The outcomes of the tests that judged this subject."""
        return [outcome for outcome in self._concluded() if outcome.subject == subject]

    def counts(self, subject: str) -> Mapping[State, int]:
        """How many tests of the subject ended in each state."""
        return Counter(outcome.state for outcome in self.of(subject))

    def exit_status(self, status: int, subjects: Iterable[str], suites: Sequence[str] = ()) -> int:
        """The run's exit status, from pytest's own; ``suites`` are those that it was asked for.

        pytest's word stands when it was interrupted, broke, was misused, or failed for a reason that no test gave.
        Else the heaviest state decides. A run that was cut off is not good, whatever it calls itself; nor is one in
        which a subject was not judged by any test, or by none of a suite that was asked for.
        """
        if status not in (ExitStatus.GOOD, ExitStatus.BAD_IMAGE, ExitStatus.NOTHING_RAN):
            return status
        worst = heaviest(outcome.state for outcome in self._concluded())
        if worst.red:
            return _EXIT[worst]
        if status == ExitStatus.BAD_IMAGE:
            return status
        if self.missing():
            return ExitStatus.INTERRUPTED
        judged = all(
            self.counts(subject).get(State.PASS) and not _unjudged(self.of(subject), suites) for subject in subjects
        )
        return ExitStatus.GOOD if judged else ExitStatus.NOTHING_RAN

    def _concluded(self) -> list[Outcome]:
        return [self._taken_together(outcome) for outcome in self._outcomes.values()]

    def _taken_together(self, outcome: Outcome) -> Outcome:
        outcome = replace(outcome, retried=self._retried.get(outcome.nodeid, ""))
        if outcome.nodeid not in self._failed_before or outcome.state in (State.FLAKY, State.FAIL):
            return outcome
        if outcome.state is State.PASS:
            return replace(outcome, state=State.FLAKY, line="it passed only when it was tried again")
        # The second try was not judged, so the first one stands.
        return replace(outcome, state=State.FAIL, line=self._failed_before[outcome.nodeid])


def _unjudged(outcomes: Sequence[Outcome], suites: Sequence[str]) -> tuple[str, ...]:
    """The suites that have tests here, and none of which judged anything."""
    states = {suite: {each.state for each in outcomes if each.suite == suite} for suite in suites}
    return tuple(suite for suite, found in states.items() if found == {State.SKIP})


_CONCLUSIONS = {
    State.SKIP: "not judged",
    State.PASS: "good",
    State.INFRA: "not known: the laboratory failed",
    State.USAGE: "not known: the run was asked for something impossible",
    State.FLAKY: "bad: it did what was expected only when tried again",
    State.FAIL: "bad",
}
_EXIT = {
    State.FAIL: ExitStatus.BAD_IMAGE,
    State.FLAKY: ExitStatus.BAD_IMAGE,
    State.USAGE: ExitStatus.USAGE,
    State.INFRA: ExitStatus.LAB_TROUBLE,
}
