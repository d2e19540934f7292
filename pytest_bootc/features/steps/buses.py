"""D-Bus.

*The session bus* is that of the user's session.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from pytest_bootc.features.steps.asking import ask, missed, needs_success, run, said
from pytest_bootc.features.steps.library import then, when
from pytest_bootc.features.steps.users import user_of
from pytest_bootc.shell import CommandResult


@then("the name {name} is owned on the system bus", bus="system", expected=True)
@then("the name {name} is owned on the session bus", bus="session", expected=True)
@then("the name {name} is not owned on the system bus", bus="system", expected=False)
@then("the name {name} is not owned on the session bus", bus="session", expected=False)
def is_owned(context: Any, name: str, bus: str, *, expected: bool) -> None:
    """Somebody has this well-known name now, or nobody has."""
    result = _ask_the_bus(context, bus, "NameHasOwner", "s", name)
    if _answer(result) is not expected:
        missed(f"{'nobody' if expected else 'somebody'} owns {name} on the {bus} bus", result)


@then("the name {name} can be activated on the system bus", bus="system")
@then("the name {name} can be activated on the session bus", bus="session")
def can_be_activated(context: Any, name: str, bus: str) -> None:
    """The bus knows whom to start for this name."""
    result = _ask_the_bus(context, bus, "ListActivatableNames")
    if name not in _answer(result):
        missed(f"the {bus} bus knows nobody to start for {name}", result)


@then("the object {path} of {name} has the interface {interface} on the system bus", bus="system")
@then("the object {path} of {name} has the interface {interface} on the session bus", bus="session")
def has_interface(context: Any, path: str, name: str, interface: str, bus: str) -> None:
    """The object tells by introspection that it has this interface. Whoever is to answer for the name is started."""
    command = ["call", name, path, "org.freedesktop.DBus.Introspectable", "Introspect"]
    result = needs_success(_busctl(context, bus, *command), f"{path} of {name} does not tell its interfaces")
    if f'<interface name="{interface}"' not in _answer(result).replace("'", '"'):
        missed(f"{path} of {name} does not have the interface {interface}", result)


@then('the property {member} of {interface} at {path} of {name} on the system bus is "{value}"', bus="system")
@then('the property {member} of {interface} at {path} of {name} on the session bus is "{value}"', bus="session")
def has_property(context: Any, **words: str) -> None:
    """The object's property is this; numbers, ``true`` and ``false`` go between the quotes, too."""
    name, path, member = words["name"], words["path"], words["member"]
    result = _busctl(context, words["bus"], "get-property", name, path, words["interface"], member)
    needs_success(result, f"{path} of {name} does not tell its property {member}")
    found = said(json.loads(result.stdout)["data"])
    if found != words["value"]:
        missed(f"{member} of {path} is {found!r}, not {words['value']!r}", result)


@when("I call {method} of {interface} at {path} of {name} on the system bus", bus="system", arguments="")
@when("I call {method} of {interface} at {path} of {name} on the session bus", bus="session", arguments="")
@when("I call {method} of {interface} at {path} of {name} on the system bus with `{arguments}`", bus="system")
@when("I call {method} of {interface} at {path} of {name} on the session bus with `{arguments}`", bus="session")
def call(context: Any, **words: str) -> None:
    """Call a method, with arguments as busctl(1) takes them: the signature, then the values (``su "text" 5``).

    What it returns is the output, as JSON with *type* and *data*; it is for the next step to say that *it succeeds*.
    """
    bus, arguments = words["bus"], shlex.split(words["arguments"])
    command = ["call", words["name"], words["path"], words["interface"], words["method"], *arguments]
    run(context, _words(bus, *command), user=_asker(context, bus))


def _words(bus: str, *words: str) -> list[str]:
    return ["busctl", "--user" if bus == "session" else "--system", "--json=short", "--", *words]


def _asker(context: Any, bus: str) -> str | None:
    return user_of(context) if bus == "session" else None


def _busctl(context: Any, bus: str, *words: str) -> CommandResult:
    return ask(context, _words(bus, *words), user=_asker(context, bus))


def _ask_the_bus(context: Any, bus: str, *words: str) -> CommandResult:
    driver = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"]
    return needs_success(_busctl(context, bus, "call", *driver, *words), f"the {bus} bus cannot be asked")


def _answer(result: CommandResult) -> Any:
    """The first value that a method has returned."""
    return json.loads(result.stdout)["data"][0]
