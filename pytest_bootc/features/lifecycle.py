"""What follows each scenario, and the end of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_bootc.features.durations import STEPS
from pytest_bootc.features.layers import stack_of
from pytest_bootc.features.nodes import ScenarioItem
from pytest_bootc.features.runner import OUTCOMES


@contextmanager
def left(item: pytest.Item, following: pytest.Item | None) -> Iterator[None]:
    """While it lasts, the hooks after a scenario have run, and the test is torn down, whatever they have raised.

    :raises BaseException: what the first hook that failed has raised.
    """
    __tracebackhide__ = True
    failure: BaseException | None = None
    if isinstance(item, ScenarioItem):
        try:
            item.leave(following)
        except OUTCOMES as error:
            failure = error
    try:
        yield
    except OUTCOMES as error:
        if failure is None:
            raise
        failure.add_note(f"And then: {type(error).__name__}: {error}")
    if failure is not None:
        raise failure


def with_steps(item: pytest.Item, report: pytest.TestReport) -> pytest.TestReport:
    """The report of a scenario's phase, with its steps; those of several phases are told once."""
    if isinstance(item, ScenarioItem) and report.when == "call":
        setattr(report, STEPS, [tuple(record) for record in item.records])
    return report


def leave_all(session: pytest.Session) -> None:
    """Leave what is still entered, because the run was interrupted."""
    try:
        stack_of(session.config).leave(None)
    except OUTCOMES as error:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"features: when the run was interrupted, {type(error).__name__}: {error}")
