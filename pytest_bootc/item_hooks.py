"""The hooks of a single test in a run that judges something: which hook leads where, nothing more."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_bootc import gates, judging, retrying, tracebacks
from pytest_bootc.run import Run


class ItemHooks:
    """What happens to each test."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """While tests run, have them ended when their machine dies."""
        with self.run.guard.alarm.installed():
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a test, and once more where the laboratory failed it."""
        return retrying.run_protocol(item, nextitem, self.run)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        """Name the digest before anything can skip the test, and begin its evidence."""
        judging.begin(item, self.run)
        with judging.guarded(item, self.run):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Watch the machine meanwhile, and look at its health afterwards."""
        with judging.judged(item, self.run), judging.guarded(item, self.run):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Watch the machine meanwhile."""
        with judging.guarded(item, self.run):
            return (yield)

    @pytest.hookimpl(specname="pytest_runtest_setup")
    def pytest_runtest_setup_of_the_machine(self, item: pytest.Item) -> None:
        """End a test that was not skipped, and whose machine did not boot for an earlier one."""
        judging.stop_without_machine(item, self.run)

    def pytest_enter_pdb(self) -> None:
        """Have nothing end the test while a debugger stands in it."""
        self.run.guard.stand()

    def pytest_leave_pdb(self) -> None:
        """Go on."""
        self.run.guard.go_on()

    @pytest.fixture(autouse=True)
    def _bootc_test(self, request: pytest.FixtureRequest) -> None:
        """Have the right machine behind the handle before other fixtures of the test use it, and look at its needs."""
        judging.settle(request)
        gates.check(request, self.run)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give the report its state, and take evidence before any finaliser runs."""
        tracebacks.shorten(item, call)
        report = yield
        judging.observe(item, call, report, self.run)
        return report
