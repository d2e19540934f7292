"""Commands, and how they end.

What a command leaves behind is kept for the steps after it as ``context.result``.
"""

from __future__ import annotations

from typing import Any

from pytest_bootc.features.steps.asking import (
    guest_of,
    missed,
    patience,
    result_of,
    run,
    text_of,
    was_run,
)
from pytest_bootc.features.steps.library import then, when
from pytest_bootc.features.steps.users import user_of
from pytest_bootc.shell import CommandResult, short


@when("I run `{command}`")
def run_as_root(context: Any, command: str) -> None:
    """Run a line of shell as root. It has a minute, and more where guests are emulated."""
    run(context, command)


@when("I run `{command}` as the user")
def run_as_the_user(context: Any, command: str) -> None:
    """Run a line of shell as the machine's user, with the bus of their session and in their home folder."""
    run(context, command, user=user_of(context))


@when("I run `{command}` as {name}")
def run_as(context: Any, command: str, name: str) -> None:
    """Run a line of shell as a user of this name, as for *the user*."""
    run(context, command, user=name)


@when("I run `{command}` within {seconds:int} seconds")
def run_within(context: Any, command: str, seconds: int) -> None:
    """Run a line of shell as root that has to end in so many seconds (more where guests are emulated)."""
    run(context, command, seconds=seconds)


@when("I run `{command}` as the user within {seconds:int} seconds")
def run_as_the_user_within(context: Any, command: str, seconds: int) -> None:
    """Run a line of shell as the machine's user that has to end in so many seconds (more where guests are emulated)."""
    run(context, command, user=user_of(context), seconds=seconds)


@when('I run `{command}` with the input "{text}"')
def run_with_input(context: Any, command: str, text: str) -> None:
    """Run a line of shell as root with a line of text as its standard input."""
    run(context, command, stdin=f"{text}\n".encode())


@when("I run `{command}` with the input")
def run_with_text(context: Any, command: str) -> None:
    """Run a line of shell as root with the text below the step as its standard input."""
    run(context, command, stdin=f"{text_of(context)}\n".encode())


@when("I run the script")
def run_script(context: Any) -> None:
    """Run the text below the step as a shell script, as root."""
    run(context, ["sh", "-c", text_of(context)])


@when("I run the script as the user")
def run_script_as_the_user(context: Any) -> None:
    """Run the text below the step as a shell script, as the machine's user with the bus of their session."""
    run(context, ["sh", "-c", text_of(context)], user=user_of(context))


@when("I wait until `{command}` succeeds")
def wait_until(context: Any, command: str) -> None:
    """Run a line of shell as root again and again, for a minute at most, until it exits with 0."""
    wait_until_within(context, command, 60)


@when("I wait until `{command}` succeeds within {seconds:int} seconds")
def wait_until_within(context: Any, command: str, seconds: int) -> None:
    """Run a line of shell as root again and again, so long at most, until it exits with 0."""
    guest_of(context).wait_until_succeeds(command, timeout=patience(context, seconds))


@when("I wait until `{command}` succeeds as the user within {seconds:int} seconds")
def wait_until_as_the_user(context: Any, command: str, seconds: int) -> None:
    """Run a line of shell as the machine's user again and again, so long at most, until it exits with 0."""
    guest_of(context, user_of(context)).wait_until_succeeds(command, timeout=patience(context, seconds))


@then("it succeeds")
def succeeds(context: Any) -> None:
    """The last command exited with 0."""
    _expect_success(_judge(context))


@then("it fails")
def fails(context: Any) -> None:
    """The last command ran, and exited with another status than 0. One that was not found has not failed so."""
    _expect_failure(_judge(context))


@then("the exit status is {status:int}")
def exit_status(context: Any, status: int) -> None:
    """The last command exited with this status."""
    result = _judge(context)
    if result.status != status:
        missed(f"`{short(result.command)}` {result.outcome}, not {status}", result)


@then("the exit status is {one:int} or {other:int}")
def one_exit_status_of_two(context: Any, one: int, other: int) -> None:
    """The last command exited with one of these statuses."""
    result = _judge(context)
    if result.status not in (one, other):
        missed(f"`{short(result.command)}` {result.outcome}, neither {one} nor {other}", result)


@then("`{command}` succeeds")
def command_succeeds(context: Any, command: str) -> None:
    """Run a line of shell as root, which has to exit with 0."""
    run(context, command)
    succeeds(context)


@then("`{command}` fails")
def command_fails(context: Any, command: str) -> None:
    """Run a line of shell as root, which has to run and to exit with another status than 0."""
    run(context, command)
    fails(context)


@then("`{command}` succeeds as the user")
def command_succeeds_as_the_user(context: Any, command: str) -> None:
    """Run a line of shell as the machine's user, with the bus of their session; it has to exit with 0."""
    run(context, command, user=user_of(context))
    succeeds(context)


@then("`{command}` fails as the user")
def command_fails_as_the_user(context: Any, command: str) -> None:
    """Run a line of shell as the machine's user; it has to run and to exit with another status than 0."""
    run(context, command, user=user_of(context))
    fails(context)


def _judge(context: Any) -> CommandResult:
    result = result_of(context)
    context.result_is_judged = True
    return result


def _expect_success(result: CommandResult) -> None:
    if result.status != 0:
        missed(f"`{short(result.command)}` {result.outcome}", result)


def _expect_failure(result: CommandResult) -> None:
    if result.status == 0:
        missed(f"`{short(result.command)}` succeeded, and should not have", result)
    if not was_run(result):
        missed(
            f"`{short(result.command)}` {result.outcome}: it could not be run, so it has not refused anything", result
        )
