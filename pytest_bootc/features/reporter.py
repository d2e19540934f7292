"""Where a scenario's steps are told: to the item's report, and to Allure. To behave it is a formatter."""

from __future__ import annotations

import csv
import io
from typing import Any, NamedTuple

from behave.model_type import Status

from pytest_bootc.reports import allure


class StepRecord(NamedTuple):
    """A step that was run or left out. Plain values, so that it crosses from a worker of xdist."""

    keyword: str
    name: str
    status: str
    seconds: float
    line: int


class StepReporter:
    """Tells of the steps of one scenario."""

    def __init__(self, *, in_allure: bool) -> None:
        self.records: list[StepRecord] = []
        self._in_allure = in_allure
        self._step: Any = None
        self._identity: str | None = None

    def begin(self, step: Any) -> None:
        """A step is about to run."""
        self._step = step

    def match(self, match: Any) -> None:
        """Behave has looked for the step's definition."""
        if self._in_allure:
            step = self._step
            values = {
                argument.name or f"argument {number}": str(argument.original)
                for number, argument in enumerate(match.arguments or (), 1)
            }
            self._identity = allure.start_step(f"{step.keyword} {step.name}", values)
            if step.table is not None:
                allure.attach_text("table", _csv(step.table), csv=True)
            if step.text is not None:
                allure.attach_text("text", str(step.text))

    def result(self, step: Any) -> None:
        """Behave is done with the step; :meth:`end` is told so by whoever knows more."""

    def end(self, step: Any, error: BaseException | None) -> None:
        """The step is over."""
        self.records.append(_record(step))
        if self._identity is not None:
            allure.stop_step(self._identity, error)
            self._identity = None

    def leave_out(self, step: Any) -> None:
        """The step is not run, because an earlier one has failed or ended the scenario."""
        self.records.append(_record(step))
        if self._in_allure:
            allure.leave_out_step(f"{step.keyword} {step.name}")

    def embedding(self, mime_type: str, data: Any, caption: str | None = None) -> None:
        """A hook or a step attaches something."""
        if self._in_allure:
            allure.attach_data(caption or mime_type, data, mime_type)


def _record(step: Any) -> StepRecord:
    status = Status.passed if step.status is Status.pending_warn else step.status
    return StepRecord(str(step.keyword), str(step.name), status.name, float(step.duration), int(step.line))


def _csv(table: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.headings, *(row.cells for row in table.rows)])
    return text.getvalue()
