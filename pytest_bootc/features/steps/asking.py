"""What all groups of the library stand on: the guest, the last result, and how a missed expectation is told."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from pytest_bootc.features.failures import MissedError
from pytest_bootc.guest import Guest
from pytest_bootc.shell import Command, CommandResult, short

_SECONDS = 60.0
# Those of a shell that could not run the command at all.
_NOT_RUN = (126, 127)
_STEP_INTO = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\.?\[\"([^\"]+)\"\]")


def missed(what: str, proof: CommandResult | str = "") -> NoReturn:
    """Fail the step: what is wrong, and what shows it.

    :raises MissedError: always.
    """
    shown = f"{proof.transcript()}\nIt {proof.outcome}." if isinstance(proof, CommandResult) else proof
    raise MissedError(f"{what}\n{shown}" if shown else what)


def patience(context: Any, seconds: float = _SECONDS) -> float:
    """How long to wait here for what takes so many seconds at most where guests run at full speed."""
    machine = getattr(context, "vm", None)
    return seconds if machine is None else seconds * float(machine.facts.time_factor)


def guest_of(context: Any, user: str | None = None) -> Guest:
    """The guest, asked by root or by a user of it."""
    guest: Guest = context.guest
    return guest if user is None else guest.as_user(user)


def ask(
    context: Any, command: Command, *, user: str | None = None, seconds: float = _SECONDS, stdin: bytes = b""
) -> CommandResult:
    """Run a command whose result the scenario does not see."""
    return guest_of(context, user).execute(command, timeout=patience(context, seconds), stdin=stdin)


def run(
    context: Any, command: Command, *, user: str | None = None, seconds: float = _SECONDS, stdin: bytes = b""
) -> CommandResult:
    """Run a command, and keep its result as ``context.result``; nobody has looked at its exit status yet."""
    result = ask(context, command, user=user, seconds=seconds, stdin=stdin)
    context.result, context.result_is_judged = result, False
    return result


def result_of(context: Any) -> CommandResult:
    """The result of the scenario's last command.

    :raises MissedError: none has been run.
    """
    result = context.result if "result" in context else None
    if not isinstance(result, CommandResult):
        missed("no command has been run yet: begin with a step such as: When I run `true`")
    return result


def judged_result_of(context: Any) -> CommandResult:
    """The same for expectations that a command which failed, or never ran, would meet by printing nothing.

    :raises MissedError: it did not exit with 0, and no step has said what its exit status is to be.
    """
    result = result_of(context)
    if result.status != 0 and not context.result_is_judged:
        missed(f"`{short(result.command)}` {result.outcome}: what it did not print proves nothing", result)
    return result


def was_run(result: CommandResult) -> bool:
    """Whether the command ran to its end: the shell found it, and no signal has ended it."""
    return result.signal is None and result.status not in _NOT_RUN


def needs_success(result: CommandResult, what: str) -> CommandResult:
    """The result of a question.

    :raises MissedError: the command did not exit with 0.
    """
    if result.status != 0:
        missed(f"{what}: `{short(result.command)}` {result.outcome}", result)
    return result


def value_at(document: Any, path: str, proof: CommandResult | str) -> Any:
    """What a document (of JSON, say) has at a path such as ``status.booted.image`` or ``items[0].name``.

    :raises MissedError: there is nothing at that path.
    """
    value, done = document, ""
    for found in _STEP_INTO.finditer(path):
        name, number, quoted = found.groups()
        key = int(number) if number is not None else name or quoted
        there = (
            0 <= key < len(value)
            if isinstance(key, int) and isinstance(value, list)
            else isinstance(value, Mapping) and key in value
        )
        if not there:
            has = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            missed(f"there is no {path}: {done or 'the whole'} has no {key!r} ({has or 'it is empty'})", proof)
        value, done = value[key], done + found[0]
    return value


def said(value: Any) -> str:
    """A value as a feature writes it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def expression(text: str) -> re.Pattern[str]:
    """A regular expression that a step names; ``^`` and ``$`` are the ends of a line.

    :raises MissedError: it is none.
    """
    try:
        return re.compile(text, re.MULTILINE)
    except re.error as error:
        missed(f"/{text}/ is no regular expression: {error}")


def text_of(context: Any) -> str:
    """The step's text between three quotes.

    :raises MissedError: it has none.
    """
    if context.text is None:
        missed('the step needs a text below it, between lines of """')
    return str(context.text)


def rows_of(context: Any) -> list[str]:
    """The first column of the step's table, its heading left out.

    :raises MissedError: it has none, or an empty one.
    """
    rows = [] if context.table is None else [str(row.cells[0]) for row in context.table.rows]
    if not rows:
        missed("the step needs a table below it: a heading, and a row for each")
    return rows
