"""Units of systemd.

*The user unit* is one of the user's own service manager, which runs where they have a session.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pytest_bootc.features.steps.asking import ask, guest_of, missed, needs_success, patience, run
from pytest_bootc.features.steps.commands import succeeds
from pytest_bootc.features.steps.library import then, when
from pytest_bootc.features.steps.users import user_of
from pytest_bootc.shell import CommandResult
from pytest_bootc.units import Unit, status_command

_ENABLED = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")


@then("the unit {unit} is active", of_user=False)
@then("the user unit {unit} is active", of_user=True)
def is_active(context: Any, unit: str, *, of_user: bool) -> None:
    """The unit is up now."""
    found = _unit(context, unit, of_user=of_user)
    if not found.active:
        _missed(context, f"{_name(unit, of_user=of_user)} is {_state(found)}: {found.reason}", unit, of_user=of_user)


@then("the unit {unit} is active within {seconds:int} seconds", of_user=False)
@then("the user unit {unit} is active within {seconds:int} seconds", of_user=True)
def becomes_active(context: Any, unit: str, seconds: int, *, of_user: bool) -> None:
    """The unit comes up in so many seconds (more where guests are emulated); one that has failed is not waited for."""
    user = user_of(context) if of_user else None
    guest_of(context).wait_for_unit(unit, timeout=patience(context, seconds), user=user)


@then("the unit {unit} is not active", of_user=False)
@then("the user unit {unit} is not active", of_user=True)
def is_not_active(context: Any, unit: str, *, of_user: bool) -> None:
    """The unit exists, and is down or has failed."""
    found = _unit(context, unit, of_user=of_user)
    if found.load_state == "not-found" or found.active_state not in ("inactive", "failed"):
        told = found.load_state if found.load_state == "not-found" else _state(found)
        _missed(context, f"{_name(unit, of_user=of_user)} is {told}", unit, of_user=of_user)


@then("the unit {unit} exists", states=("loaded", "masked"), of_user=False)
@then("the user unit {unit} exists", states=("loaded", "masked"), of_user=True)
@then("the unit {unit} does not exist", states=("not-found",), of_user=False)
@then("the user unit {unit} does not exist", states=("not-found",), of_user=True)
@then("the unit {unit} is masked", states=("masked",), of_user=False)
@then("the user unit {unit} is masked", states=("masked",), of_user=True)
def has_load_state(context: Any, unit: str, states: Sequence[str], *, of_user: bool) -> None:
    """The unit is known and can be read; there is none of this name; or it is masked, and cannot be started."""
    found = _unit(context, unit, of_user=of_user)
    if found.load_state not in states:
        _missed(context, f"{_name(unit, of_user=of_user)} is {found.load_state}", unit, of_user=of_user)


@then("the unit {unit} is enabled", of_user=False)
@then("the user unit {unit} is enabled", of_user=True)
def is_enabled(context: Any, unit: str, *, of_user: bool) -> None:
    """The unit is started with what it is wanted by (``systemctl is-enabled``); static and alias units count, too."""
    result = _systemctl(context, "is-enabled", unit, of_user=of_user)
    if result.stdout.strip() not in _ENABLED:
        told = result.stdout.strip() or result.stderr.strip()
        missed(f"{_name(unit, of_user=of_user)} is not enabled: {told}", result)


@then("the unit {unit} is not enabled", of_user=False)
@then("the user unit {unit} is not enabled", of_user=True)
def is_not_enabled(context: Any, unit: str, *, of_user: bool) -> None:
    """The unit exists, and is disabled or masked."""
    result = _systemctl(context, "is-enabled", unit, of_user=of_user)
    if result.stdout.strip() not in ("disabled", "masked", "masked-runtime"):
        told = result.stdout.strip() or result.stderr.strip()
        missed(f"{_name(unit, of_user=of_user)} is {told}", result)


@then("the unit {unit} has failed", of_user=False)
@then("the user unit {unit} has failed", of_user=True)
def has_failed(context: Any, unit: str, *, of_user: bool) -> None:
    """The unit ended with an error."""
    found = _unit(context, unit, of_user=of_user)
    if not found.failed:
        _missed(context, f"{_name(unit, of_user=of_user)} is {_state(found)}", unit, of_user=of_user)


@then("the unit {unit} has not failed", of_user=False)
@then("the user unit {unit} has not failed", of_user=True)
def has_not_failed(context: Any, unit: str, *, of_user: bool) -> None:
    """The unit exists, and has not ended with an error; it may never have been started."""
    found = _unit(context, unit, of_user=of_user)
    if found.load_state != "loaded" or found.failed:
        told = found.load_state if found.load_state != "loaded" else f"{_state(found)}: {found.reason}"
        _missed(context, f"{_name(unit, of_user=of_user)} is {told}", unit, of_user=of_user)


@then("the unit {unit} ran with the result {result}", of_user=False)
@then("the user unit {unit} ran with the result {result}", of_user=True)
def ran_with_result(context: Any, unit: str, result: str, *, of_user: bool) -> None:
    """The unit was started since the boot, no condition has skipped it, and its result is this word (*success*).

    systemd says *success* of units that never ran, too; these are not meant.
    """
    found = _unit(context, unit, of_user=of_user)
    name = _name(unit, of_user=of_user)
    if not found.judged:
        _missed(context, f"{name} has not run: {found.reason}", unit, of_user=of_user)
    if found.result != result:
        _missed(context, f"{name} ran with the result {found.result}, not {result}", unit, of_user=of_user)


@then('the unit {unit} has the property {name} "{value}"', of_user=False)
@then('the user unit {unit} has the property {name} "{value}"', of_user=True)
def has_property(context: Any, unit: str, name: str, value: str, *, of_user: bool) -> None:
    """``systemctl show`` gives this value for a property of a unit that exists."""
    found, result = _property(context, unit, name, of_user=of_user)
    if found != value:
        missed(f"{name} of {_name(unit, of_user=of_user)} is {found!r}, not {value!r}", result)


@then("the unit {unit} has the property {name} matching /{regex}/", of_user=False)
@then("the user unit {unit} has the property {name} matching /{regex}/", of_user=True)
def has_property_matching(context: Any, unit: str, name: str, regex: str, *, of_user: bool) -> None:
    """A regular expression is found in a property of a unit that exists, as ``systemctl show`` gives it."""
    found, result = _property(context, unit, name, of_user=of_user)
    if not re.search(regex, found):
        missed(f"{name} of {_name(unit, of_user=of_user)} is {found!r}, which does not match /{regex}/", result)


@then("the unit {unit} is ordered after {other}", expected=True, of_user=False)
@then("the unit {unit} is not ordered after {other}", expected=False, of_user=False)
def is_ordered_after(context: Any, unit: str, other: str, *, expected: bool, of_user: bool) -> None:
    """At boot the unit waits until another one has started, or it does not (*After=*)."""
    found, result = _property(context, unit, "After", of_user=of_user)
    if (other in found.split()) is not expected:
        missed(f"{unit} is {'not ' if expected else ''}ordered after {other}", result)


@then("the timer {unit} will elapse", of_user=False)
@then("the user timer {unit} will elapse", of_user=True)
def timer_will_elapse(context: Any, unit: str, *, of_user: bool) -> None:
    """The timer is active, and systemd knows when it goes off next."""
    is_active(context, unit, of_user=of_user)
    names = ("NextElapseUSecRealtime", "NextElapseUSecMonotonic")
    told = [_property(context, unit, name, of_user=of_user) for name in names]
    if all(found in ("", "0", "infinity") for found, _ in told):
        missed(f"{_name(unit, of_user=of_user)} will not go off any more", "\n".join(r.transcript() for _, r in told))


@then("no unit has failed", of_user=False)
@then("no user unit has failed", of_user=True)
def none_has_failed(context: Any, *, of_user: bool) -> None:
    """No unit of the system, or of the user, is in the state *failed*."""
    command = ["systemctl", *(["--user"] if of_user else []), "--no-pager", "--plain", "--no-legend", "--failed"]
    result = ask(context, command, user=user_of(context) if of_user else None)
    needs_success(result, "the failed units cannot be listed")
    names = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    if names:
        missed(f"failed: {', '.join(names)}", result)


@when("I start the unit {unit}", verb="start", of_user=False)
@when("I stop the unit {unit}", verb="stop", of_user=False)
@when("I restart the unit {unit}", verb="restart", of_user=False)
@when("I start the user unit {unit}", verb="start", of_user=True)
@when("I stop the user unit {unit}", verb="stop", of_user=True)
@when("I restart the user unit {unit}", verb="restart", of_user=True)
def change(context: Any, unit: str, verb: str, *, of_user: bool) -> None:
    """Have systemd start, stop or restart the unit, and wait until it has done so; the step fails if it cannot."""
    words = ["systemctl", *(["--user"] if of_user else []), verb, "--", unit]
    run(context, words, user=user_of(context) if of_user else None, seconds=120)
    succeeds(context)


def _unit(context: Any, name: str, *, of_user: bool) -> Unit:
    return guest_of(context).unit(name, user=user_of(context) if of_user else None)


def _name(unit: str, *, of_user: bool) -> str:
    return f"the user unit {unit}" if of_user else unit


def _state(unit: Unit) -> str:
    return f"{unit.active_state} ({unit.sub_state})"


def _systemctl(context: Any, *words: str, of_user: bool) -> CommandResult:
    user = user_of(context) if of_user else None
    return ask(context, ["systemctl", *(["--user"] if of_user else []), *words], user=user)


def _property(context: Any, unit: str, name: str, *, of_user: bool) -> tuple[str, CommandResult]:
    """A property's value, and the answer that has it."""
    result = _systemctl(context, "show", f"--property=LoadState,{name}", "--", unit, of_user=of_user)
    needs_success(result, f"{_name(unit, of_user=of_user)} cannot be asked for")
    told = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    if told.get("LoadState") != "loaded":
        missed(f"{_name(unit, of_user=of_user)} is {told.get('LoadState')}", result)
    if name not in told:
        missed(f"{_name(unit, of_user=of_user)} has no property {name}", result)
    return told[name], result


def _missed(context: Any, what: str, unit: str, *, of_user: bool) -> None:
    words = status_command(unit)
    missed(what, _systemctl(context, *words[1:], of_user=of_user))
