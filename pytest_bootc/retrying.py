"""Running a test once more: always where the laboratory failed it, and where it failed if that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_bootc import compat
from pytest_bootc.judging import FAILED_BEFORE, NEXT_ITEM, RERUN, first_line, state_in, subject_of
from pytest_bootc.reports import allure
from pytest_bootc.run import Run
from pytest_bootc.verdict import State


def run_protocol(item: pytest.Item, nextitem: pytest.Item | None, run: Run) -> bool | None:
    """Run a test that judges something, twice if need be; ``None`` leaves all others to pytest.

    Once only, and on a fresh machine. What the first try reported is shown as such, and counts for nothing where the
    laboratory had failed.
    """
    item.stash[NEXT_ITEM] = nextitem
    subject = subject_of(item, run)
    if subject is None or compat.is_run_by_others(item):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    hopeless = run.given_up(subject) is not None
    reports = compat.run_phases(item, nextitem)
    worst = _worst(reports)
    if worst is not None and not hopeless and _deserves_another_try(state_in(worst), run):
        worst.outcome = RERUN  # type: ignore[assignment]
        if worst.when == "teardown":
            # The JUnit report would close the test with it.
            worst.when = "call"
        item.ihook.pytest_runtest_logreport(report=worst)
        if state_in(worst) is not State.INFRA:
            item.stash[FAILED_BEFORE] = first_line(worst)
        allure.begin_another_try(item.config)
        run.start_afresh(subject)
        compat.forget_failed_fixtures(item)
        reports = compat.run_phases(item, nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _worst(reports: Sequence[pytest.TestReport]) -> pytest.TestReport | None:
    """The first failed phase of the worst state."""
    failed = [report for report in reports if report.failed]
    return max(failed, key=lambda report: state_in(report).weight, default=None)


def _deserves_another_try(state: State, run: Run) -> bool:
    return state is State.INFRA or (state is State.FAIL and run.config.rerun_failed)
