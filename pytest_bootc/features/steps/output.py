"""What the last command printed."""

from __future__ import annotations

import json
from typing import Any

from pytest_bootc.features.steps.asking import (
    expression,
    judged_result_of,
    missed,
    result_of,
    rows_of,
    said,
    text_of,
    value_at,
)
from pytest_bootc.features.steps.library import then
from pytest_bootc.shell import CommandResult, short

_STREAMS = {"output": "standard output", "error output": "standard error"}


@then('the output contains "{text}"', stream="output")
@then('the error output contains "{text}"', stream="error output")
def contains(context: Any, text: str, stream: str) -> None:
    """The last command printed this text, on standard output (*the output*) or standard error (*the error output*)."""
    result = result_of(context)
    if text not in _printed(result, stream):
        missed(f"the {stream} of `{short(result.command)}` does not contain {text!r}", result)


@then("the output contains", stream="output")
@then("the error output contains", stream="error output")
def contains_text(context: Any, stream: str) -> None:
    """The last command printed the lines below the step, one right after the other."""
    contains(context, text_of(context), stream)


@then("the output contains each of", stream="output")
def contains_each(context: Any, stream: str) -> None:
    """The last command printed every text of the table's first column, wherever."""
    result = result_of(context)
    absent = [row for row in rows_of(context) if row not in _printed(result, stream)]
    if absent:
        missed(f"the {stream} of `{short(result.command)}` does not contain {', '.join(map(repr, absent))}", result)


@then('the output does not contain "{text}"', stream="output")
@then('the error output does not contain "{text}"', stream="error output")
def does_not_contain(context: Any, text: str, stream: str) -> None:
    """The last command did not print this text. It has to have succeeded, or its exit status to have been told."""
    result = judged_result_of(context)
    if text in _printed(result, stream):
        missed(f"the {stream} of `{short(result.command)}` contains {text!r}", result)


@then("the output matches /{regex}/", stream="output")
@then("the error output matches /{regex}/", stream="error output")
def matches(context: Any, regex: str, stream: str) -> None:
    """A regular expression of Python is found in what the last command printed; ``^`` and ``$`` are ends of lines."""
    result = result_of(context)
    if not expression(regex).search(_printed(result, stream)):
        missed(f"the {stream} of `{short(result.command)}` does not match /{regex}/", result)


@then("the output does not match /{regex}/", stream="output")
@then("the error output does not match /{regex}/", stream="error output")
def does_not_match(context: Any, regex: str, stream: str) -> None:
    """A regular expression is not found. The command has to have succeeded, or its exit status to have been told."""
    result = judged_result_of(context)
    found = expression(regex).search(_printed(result, stream))
    if found:
        missed(f"the {stream} of `{short(result.command)}` matches /{regex}/: {found[0]!r}", result)


@then('the output is "{text}"')
def equals(context: Any, text: str) -> None:
    """The last command printed this and nothing else; spaces and line ends around it do not count."""
    result = result_of(context)
    if result.stdout.strip() != text.strip():
        missed(f"`{short(result.command)}` printed {result.stdout.strip()!r}, not {text!r}", result)


@then("the output is")
def equals_text(context: Any) -> None:
    """The last command printed the lines below the step and nothing else; empty lines around them do not count."""
    equals(context, text_of(context))


@then("the output is empty", stream="output")
@then("the error output is empty", stream="error output")
def is_empty(context: Any, stream: str) -> None:
    """The last command printed nothing. It has to have succeeded, or its exit status to have been told."""
    result = judged_result_of(context)
    if _printed(result, stream).strip():
        missed(f"the {stream} of `{short(result.command)}` is not empty", result)


@then("the output is not empty", stream="output")
@then("the error output is not empty", stream="error output")
def is_not_empty(context: Any, stream: str) -> None:
    """The last command printed something else than spaces."""
    result = result_of(context)
    if not _printed(result, stream).strip():
        missed(f"`{short(result.command)}` printed nothing on {_STREAMS[stream]}", result)


@then("the output has {count:int} line", least=True, most=True)
@then("the output has {count:int} lines", least=True, most=True)
@then("the output has at least {count:int} lines", least=True, most=False)
@then("the output has at most {count:int} lines", least=False, most=True)
def has_lines(context: Any, count: int, *, least: bool, most: bool) -> None:
    """The last command printed so many lines, not counting empty ones."""
    result = result_of(context) if least and count else judged_result_of(context)
    lines = sum(bool(line.strip()) for line in result.stdout.splitlines())
    if (least and lines < count) or (most and lines > count):
        told = "" if least and most else ("at least " if least else "at most ")
        missed(f"`{short(result.command)}` printed {lines} lines, not {told}{count}", result)


@then("the output is a number of at least {bound:number}", least=True)
@then("the output is a number of at most {bound:number}", least=False)
def is_a_number(context: Any, bound: float, *, least: bool) -> None:
    """The last command printed one number, perhaps with a ``%`` behind it, that is not lower or higher than this."""
    result = result_of(context)
    try:
        number = float(result.stdout.strip().removesuffix("%"))
    except ValueError:
        missed(f"`{short(result.command)}` printed {result.stdout.strip()!r}, which is no number", result)
    if number < bound if least else number > bound:
        missed(f"`{short(result.command)}` printed {number:g}, not at {'least' if least else 'most'} {bound:g}", result)


@then("the output is JSON")
def is_json(context: Any) -> None:
    """The last command printed a document of JSON."""
    _document(result_of(context))


@then('the JSON value at {path} is "{value}"')
def json_value(context: Any, path: str, value: str) -> None:
    """The JSON that was printed has this at a path such as ``status.booted.image`` or ``list[0].name``.

    Numbers, ``true``, ``false`` and ``null`` are written between the quotes, too.
    """
    result = result_of(context)
    found = value_at(_document(result), path, result)
    if said(found) != value:
        missed(f"{path} is {said(found)!r}, not {value!r}", result)


@then("the JSON value at {path} matches /{regex}/")
def json_value_matches(context: Any, path: str, regex: str) -> None:
    """The JSON that was printed has a value at the path in which a regular expression is found."""
    result = result_of(context)
    found = value_at(_document(result), path, result)
    if not expression(regex).search(said(found)):
        missed(f"{path} is {said(found)!r}, which does not match /{regex}/", result)


@then("there is a JSON value at {path}")
def json_value_exists(context: Any, path: str) -> None:
    """The JSON that was printed has something at the path that is neither null nor empty."""
    result = result_of(context)
    found = value_at(_document(result), path, result)
    if found is None or found in ("", [], {}):
        missed(f"{path} is {said(found)!r}", result)


def _printed(result: CommandResult, stream: str) -> str:
    return result.stdout if stream == "output" else result.stderr


def _document(result: CommandResult) -> Any:
    try:
        return json.loads(result.stdout)
    except ValueError as error:
        missed(f"`{short(result.command)}` printed something that is not JSON: {error}", result)
