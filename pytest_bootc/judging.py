"""Following the tests of a run: what each begins with, what is kept when it fails, and what is concluded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_bootc import collection, compat, guarding, renewal
from pytest_bootc.circumstances import circumstances_of
from pytest_bootc.errors import BootcTestError, HealthError, SSHConnectError
from pytest_bootc.evidence import EvidenceRecord
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import Evidence
from pytest_bootc.options import BOOT_SUITE
from pytest_bootc.reports import allure, junit, terminal
from pytest_bootc.run import Run, Subject, current, is_worker, send_to_controller
from pytest_bootc.ssh import SSHSession
from pytest_bootc.verdict import Outcome, State, heaviest, shown, state_of

#: Where a test that uses a machine holds its evidence.
EVIDENCE = pytest.StashKey[EvidenceRecord]()
#: The test that comes after this one.
NEXT_ITEM = pytest.StashKey[pytest.Item | None]()
#: How the first try of a test failed that is run once more.
FAILED_BEFORE = pytest.StashKey[str]()
_STATES = pytest.StashKey[list[State]]()
_WATCHED = pytest.StashKey[guarding.Watched]()

_MACHINE_FIXTURE = "vm"
_LOOKED_AHEAD = 30
# The fixture of our own that every test has.
_SETTLES = "_bootc_test"
#: What a report's outcome is called whose test is run once more; pytest-rerunfailures calls it so, too.
RERUN = "rerun"


def subject_of(item: pytest.Item, run: Run) -> Subject | None:
    """What a test judges: its image, or the only subject of the run; nothing if it uses no machine and no image."""
    value = compat.parameter(item, "image")
    if isinstance(value, Subject):
        return value
    uses = {_MACHINE_FIXTURE, "image"}.intersection(getattr(item, "fixturenames", ()))
    return run.subjects[0] if uses and not run.over_images else None


def parametrise(metafunc: pytest.Metafunc, run: Run) -> None:
    """Make a test one test per image if anything that it uses stands on ``image``."""
    if run.over_images and "image" in metafunc.fixturenames:
        ids = [subject.name for subject in run.subjects]
        metafunc.parametrize("image", run.subjects, indirect=True, scope="session", ids=ids)


def prepare(items: list[pytest.Item], config: pytest.Config, run: Run) -> None:
    """Say in each test, before it can be skipped, what it judges."""
    labelled = _allure_folder(config) is not None
    if labelled:
        allure.decide_statuses(config)
    for item in items:
        compat.set_up_first(item, _SETTLES)
        subject = subject_of(item, run)
        if subject is not None:
            suite = collection.suite_of(item)
            item.user_properties += [(junit.SUBJECT, subject.name), *([(junit.SUITE, suite)] if suite else ())]
            if labelled:
                allure.add_labels(item, subject.name, suite)


def begin(item: pytest.Item, run: Run) -> None:
    """Tell Allure the digest, and begin the test's evidence."""
    subject = subject_of(item, run)
    if subject is None:
        return
    if subject.digest is not None:
        allure.note_digest(str(subject.digest))
    if _MACHINE_FIXTURE in getattr(item, "fixturenames", ()):
        again = EVIDENCE in item.stash
        reported = _allure_folder(item.config) is not None or run.config.evidence is Evidence.ON
        record = EvidenceRecord(run.config.evidence_folder, item.nodeid, reported=reported)
        item.stash[EVIDENCE] = record
        record.begin(run.pool.find(subject.name), again=again)


def evidence_of(item: pytest.Item) -> EvidenceRecord:
    """The evidence of a test that uses a machine."""
    return item.stash[EVIDENCE]


def exempting(item: pytest.Item) -> guarding.Exempting:
    """What does not count in a test that uses a machine."""
    return guarding.Exempting(current(item.config).guard, item.stash[_WATCHED])


def stop_without_machine(item: pytest.Item, run: Run) -> None:
    """End a test whose machine cannot be had, as an earlier one has found out, in one line.

    :raises BootcTestError: of the kind that the earlier test ended with.
    """
    subject = subject_of(item, run)
    if subject is not None and EVIDENCE in item.stash and (failure := run.given_up(subject)) is not None:
        raise failure


def settle(request: pytest.FixtureRequest) -> None:
    """Have the machine behind the handle that this test's fixtures describe, and a login that works.

    The handle is made once per run, but a suite's conftest may override ``machine_spec`` or ``golden_disk``; and the
    test before may have left the machine dead, or switched off.
    """
    if _MACHINE_FIXTURE not in request.fixturenames:
        return
    vm: VM = request.getfixturevalue(_MACHINE_FIXTURE)
    shape = request.getfixturevalue("machine_spec"), request.getfixturevalue("golden_disk")
    renewal.renew(request.node, vm)
    if not vm.has(*shape):
        run = current(request.config)
        with run.progress.stage(f"starting a fresh machine for {vm.subject}"):
            vm.use(*shape)
        run.facts[vm.subject] = vm.facts
    renewal.look_ahead(request.node, _following(request.node, vm.subject), vm)
    if "ssh" in request.fixturenames or (_asks_late(request.node) and compat.is_set_up(request.node, "ssh")):
        session = request.getfixturevalue("ssh")
        if isinstance(session, SSHSession) and not session.connected:
            try:
                session.reconnect(vm.reconnect_deadline(), vm.ssh_endpoint())
            except SSHConnectError:
                vm.condemn()
                raise


def _asks_late(item: pytest.Item) -> bool:
    """Whether a test asks for fixtures while it runs that it does not name, as the scenarios of features do."""
    return bool(getattr(item, "asks_late", False))


def _following(item: pytest.Item, subject: str) -> list[pytest.Item]:
    """The tests of the same subject that come next; a worker knows only of one."""
    run = current(item.config)
    if is_worker(item.config):
        following = item.stash.get(NEXT_ITEM, None)
        known = [] if following is None else [following]
    else:
        items = item.session.items
        place = items.index(item) + 1 if item in items else len(items)
        known = items[place : place + _LOOKED_AHEAD]
    return [test for test in known if (of := subject_of(test, run)) is not None and of.name == subject]


@contextmanager
def guarded(item: pytest.Item, run: Run) -> Iterator[None]:
    """A phase of a test during which its machine is watched. Raises as :func:`guarding.guarded` does."""
    subject = subject_of(item, run)
    if subject is None:
        yield
        return
    if _WATCHED not in item.stash:
        item.stash[_WATCHED] = guarding.watched_by(item, subject.text)
    watched = item.stash[_WATCHED]
    # The handle may be made in this very phase.
    with guarding.guarded(run.guard, lambda: run.pool.find(subject.name), subject.name, watched):
        yield


@contextmanager
def judged(item: pytest.Item, run: Run) -> Iterator[None]:
    """The call of a test, and the health of its guest afterwards.

    :raises HealthError: something has gone wrong in the guest.
    """
    subject = subject_of(item, run)
    watched = item.stash.get(_WATCHED, None)
    if subject is None or watched is None or _MACHINE_FIXTURE not in getattr(item, "fixturenames", ()):
        yield
        return
    try:
        yield
        if not _is_left_to_the_next(item, subject, run):
            vm, following = run.pool.find(subject.name), item.stash.get(NEXT_ITEM, None)
            last = following is None or collection.suite_of(following) != collection.suite_of(item)
            guarding.check_health(run.guard, vm, watched, last=last)
    except (Exception, pytest.fail.Exception) as error:
        if not isinstance(error, HealthError):
            guarding.add_findings(error, run.guard, run.pool.find(subject.name), watched)
        raise
    finally:
        guarding.note_exempted(item, watched)


def _is_left_to_the_next(item: pytest.Item, subject: Subject, run: Run) -> bool:
    """Whether another test will look at the health of the guest.

    The suite that all others stand on tells by tests of its own what is wrong with a guest that has just booted. What
    they have not told, because they were not selected, say, is found after the last of them.
    """
    following = item.stash.get(NEXT_ITEM, None)
    same_subject = following is not None and subject_of(following, run) == subject
    return same_subject and all(collection.suite_of(test) == BOOT_SUITE for test in (item, following) if test)


def observe(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, run: Run) -> None:
    """Write the state into a phase's report, and take evidence of a failure while the machine is as it was."""
    states = item.stash.setdefault(_STATES, [])
    if report.when == "setup":
        states.clear()
    states.append(_phase_state(item, call, report))
    properties = [entry for entry in item.user_properties if entry[0] != junit.STATE]
    report.user_properties = [*properties, (junit.STATE, heaviest(states).value)]
    subject = subject_of(item, run)
    if subject is not None:
        renewal.remember(item, report, subject.name)
    facts = None if subject is None else run.facts.get(subject.name)
    allure.set_state(heaviest(states), None if facts is None else facts.scope)
    error = None if call.excinfo is None else call.excinfo.value
    if report.failed and isinstance(error, BootcTestError) and not isinstance(report.longrepr, str):
        _say_shortly(report, error)
    _take_evidence(item, report, run)


def state_in(report: pytest.TestReport) -> State:
    """The state that a report carries. One without was made up by xdist for a test whose worker died: the lab."""
    return _written_state(report) or (State.INFRA if report.failed else State.SKIP)


def note(report: pytest.TestReport, run: Run) -> None:
    """Count a report, where all reports of the run arrive."""
    if str(report.outcome) == RERUN:
        run.tally.try_again(report.nodeid, _written_state(report) or State.FAIL, first_line(report))
        return
    if report.when == "setup":
        run.tally.begin(report.nodeid)
    properties = dict(report.user_properties)
    subject = str(properties.get(junit.SUBJECT, ""))
    if junit.STATE not in properties:
        subject = _guessed_subject(report, run)
        if report.failed:
            suite = report.nodeid.partition("/")[0]
            allure.add_lost(
                report.nodeid, subject, suite if suite in collection.suite_names() else None, first_line(report)
            )
    outcome = Outcome(
        nodeid=report.nodeid,
        subject=subject,
        state=state_in(report),
        line=_why_skipped(report) if report.skipped else first_line(report) if report.failed else "",
        suite=str(properties.get(junit.SUITE, "")),
        unmet_needs=_values(report, junit.UNMET_NEED),
        evidence="".join(_values(report, junit.EVIDENCE)[-1:]),
        exempted=_values(report, junit.EXEMPTED),
        not_judged=_values(report, junit.NOT_JUDGED),
    )
    run.tally.add(outcome)


def status_words(report: pytest.TestReport) -> tuple[str, str, str | tuple[str, dict[str, bool]]] | None:
    """How the terminal shows a phase; ``None`` where pytest's own way will do."""
    # A collection's report is shown through here, too.
    if not isinstance(report, pytest.TestReport):
        return None
    if str(report.outcome) == RERUN:
        return RERUN, "R", ("RERUN", {"yellow": True})
    state = state_in(report)
    if not report.failed or state not in (State.INFRA, State.FLAKY):
        return None
    told = shown(state, report.when)
    return ("error" if report.when in ("setup", "teardown") else "failed"), told.letter, (told.word, {"red": True})


def finish(session: pytest.Session, run: Run) -> None:
    """Set the exit status and complete the reports that are written once per run; a worker hands over what it knows."""
    config = session.config
    run.pool.close()
    if is_worker(config):
        send_to_controller(run, config)
        return
    verdicts = run.verdicts()
    junit.add_run_properties(verdicts, lambda name, value: compat.add_suite_property(config, name, value))
    folder = _allure_folder(config)
    if folder is not None and not config.option.collectonly:
        allure.write_run_files(folder, terminal.environment(verdicts))
        for line in (*terminal.cut_off(run.tally.missing()), *terminal.unjudged(verdicts)):
            allure.add_run_error(line)
    if not config.option.collectonly:
        names = [subject.name for subject in run.subjects]
        session.exitstatus = run.tally.exit_status(int(session.exitstatus), names, run.suites_asked_for)


def header(run: Run) -> list[str]:
    """The lines that say before the tests what is judged."""
    return list(terminal.header(run.verdicts(), run.config.backend))


def summarise(reporter: pytest.TerminalReporter, run: Run) -> None:
    """Write the section about each subject."""
    if is_worker(reporter.config) or reporter.config.option.collectonly:
        return
    reporter.section("bootc")
    for verdict in run.verdicts():
        for line in terminal.summary(verdict):
            reporter.write_line(line)
    for line in terminal.cut_off(run.tally.missing()):
        reporter.write_line(line)
    place = terminal.evidence_line(run.config.evidence_folder)
    if place is not None:
        reporter.write_line(place)


def _allure_folder(config: pytest.Config) -> Path | None:
    """Where Allure's results go, if they are wanted: its plugin may be there and idle, or not be loaded at all."""
    folder = config.getoption("allure_report_dir", None)
    return Path(folder) if folder else None


def _phase_state(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> State:
    state = State.PASS if report.passed and report.when == "call" else State.SKIP
    if report.failed:
        state = State.FAIL if call.excinfo is None else state_of(call.when, call.excinfo.value)
    before = item.stash.get(FAILED_BEFORE, None)
    if before is None or report.when == "teardown":
        return state
    if state is State.PASS:
        report.outcome = "failed"
        report.longrepr = f"It passed only when it was tried again. At first: {before}"
        return State.FLAKY
    if report.skipped or state in (State.INFRA, State.USAGE):
        # Whether it is good was not found out, so what was found out first stands.
        why = "skipped" if call.excinfo is None else str(call.excinfo.value).partition("\n")[0]
        report.outcome = "failed"
        report.longrepr = f"{before} (the second try was not judged: {why})"
        return State.FAIL
    return state


def _say_shortly(report: pytest.TestReport, error: BootcTestError) -> None:
    """Let an error that explains itself do so: without a traceback where no line of the test led to it."""
    if report.when != "call" or isinstance(error, HealthError):
        report.longrepr = pytest.ExceptionInfo.from_exception(error).getrepr(style="value", chain=False)
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = str(error)


def _take_evidence(item: pytest.Item, report: pytest.TestReport, run: Run) -> None:
    record = item.stash.get(EVIDENCE, None)
    subject = subject_of(item, run)
    if subject is None:
        return
    wanted = report.failed or (report.when == "call" and run.config.evidence is Evidence.ON)
    circumstances = circumstances_of(item, subject, run) if wanted else None
    if report.failed and circumstances is not None:
        report.sections.append(("Reproduce", circumstances.reproduce))
    if record is None or run.config.evidence is Evidence.OFF:
        return
    try:
        if circumstances is not None:
            record.collect(run.pool.find(subject.name), circumstances)
        kept = record.keep(failed=wanted) if wanted or report.when == "call" else []
        allure.attach(kept)
    except OSError as error:
        report.sections.append(("Evidence", f"the evidence could not be kept: {error}"))
    else:
        if kept:
            report.user_properties.append((junit.EVIDENCE, str(record.folder)))


def _written_state(report: pytest.TestReport) -> State | None:
    written = dict(report.user_properties).get(junit.STATE)
    return None if written is None else State(written)


def _values(report: pytest.TestReport, name: str) -> tuple[str, ...]:
    return tuple(str(value) for known, value in report.user_properties if known == name)


def _why_skipped(report: pytest.TestReport) -> str:
    # File, line and "Skipped: REASON"; an expected failure has its traceback instead.
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "it was expected to fail"
    return reason.partition("\n")[0].removeprefix("Skipped: ")


def _guessed_subject(report: pytest.TestReport, run: Run) -> str:
    """What a test judged whose worker died and took that knowledge along: its id has the subject's name in it."""
    _, _, parameters = report.nodeid.partition("[")
    names = [subject.name for subject in run.subjects if not run.over_images or subject.name in parameters]
    return max(names, key=len, default="")


def first_line(report: pytest.TestReport) -> str:
    """The first line of what a failed phase says."""
    crash = getattr(report.longrepr, "reprcrash", None)
    # What xdist made up is a string, which the text of the report would put below the worker's Python.
    told = report.longrepr if isinstance(report.longrepr, str) else report.longreprtext
    text = told if crash is None else crash.message
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
