"""How a failed scenario is told: its text with the step marked, and what to write for a step without a definition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from behave.model_type import Status

_MARKS = {
    Status.passed: " ",
    Status.pending_warn: " ",
    Status.skipped: "-",
    Status.untested: "-",
    Status.undefined: "?",
}
_FAILED = ">"


class ScenarioError(AssertionError):
    """A scenario that failed, or cannot judge anything. It needs no traceback: no code of anybody has failed."""


class MissedError(ScenarioError):
    """Something is not as a step of the library expects it."""


class UndefinedStepError(ScenarioError):
    """A step has no definition."""


class EmptyScenarioError(ScenarioError):
    """A scenario has no steps, or an outline has no examples."""


def text_of(scenario: Any, path: str) -> Iterator[str]:
    """The lines of a scenario: ``>`` marks what failed, ``?`` what is undefined, ``-`` what was not run."""
    yield f"{path}:{scenario.line}"
    for entity in (scenario.feature, _rule_of(scenario), scenario):
        if entity is not None:
            yield f"  {entity.keyword}: {entity.name}".rstrip()
    for step in scenario.all_steps:
        mark = _MARKS.get(step.status, _FAILED)
        yield f"{mark}   {step.keyword} {step.name}"
        for line in (*_table_of(step.table), *_doc_string_of(step.text)):
            yield f"{mark}     {line}"


def _rule_of(scenario: Any) -> Any:
    parent = scenario.parent
    while parent is not None and parent.type != "rule":
        parent = parent.parent
    return parent


def _table_of(table: Any) -> Iterator[str]:
    if table is None:
        return
    rows = [list(table.headings), *(list(row.cells) for row in table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"


def _doc_string_of(text: Any) -> Iterator[str]:
    if text is not None:
        yield from ('"""', *str(text).splitlines(), '"""')


def with_snippets(failure: BaseException, missing: Sequence[Any]) -> BaseException:
    """The failure, with what to write for the steps that have no definition."""
    if not missing:
        return failure
    snippets = "\n\n".join(snippet(step) for step in dict.fromkeys(missing))
    told = f"Define in a file of steps/ what is undefined:\n\n{snippets}"
    if isinstance(failure, UndefinedStepError):
        return UndefinedStepError(f"{failure}\n\n{told}")
    failure.add_note(f"\n{told}")
    return failure


def snippet(step: Any) -> str:
    """The beginning of a definition for a step."""
    name = str(step.name)
    pattern = name.replace("{", "{{").replace("}", "}}")
    return (
        f"from behave import {step.step_type}\n\n"
        f"@{step.step_type}({pattern!r})\n"
        f"def step_impl(context):\n"
        f"    raise NotImplementedError({f'{step.step_type.title()} {name}'!r})"
    )
