"""Settings: gsettings and dconf.

They are read and written as the user.
"""

from __future__ import annotations

from typing import Any

from pytest_bootc.features.steps.asking import ask, expression, guest_of, missed, needs_success
from pytest_bootc.features.steps.library import then, when
from pytest_bootc.features.steps.users import user_of
from pytest_bootc.shell import CommandResult


@then('the setting {schema} {key} is "{value}"')
def setting_is(context: Any, schema: str, key: str, value: str) -> None:
    """Gsettings gives this value; text is written without the inner quotes, everything else as gsettings prints it."""
    result = _get(context, schema, key)
    if value not in _spellings(result.stdout):
        missed(f"{schema} {key} is {result.stdout.strip()}, not {value}", result)


@then('the setting {schema} {key} contains "{text}"', expected=True)
@then('the setting {schema} {key} does not contain "{text}"', expected=False)
def setting_contains(context: Any, schema: str, key: str, text: str, *, expected: bool) -> None:
    """A text is somewhere in the value that gsettings gives, or is not."""
    result = _get(context, schema, key)
    if (text in result.stdout) is not expected:
        missed(f"{schema} {key} is {result.stdout.strip()}", result)


@then("the setting {schema} {key} matches /{regex}/")
def setting_matches(context: Any, schema: str, key: str, regex: str) -> None:
    """A regular expression is found in the value that gsettings gives."""
    result = _get(context, schema, key)
    if not expression(regex).search(result.stdout.strip()):
        missed(f"{schema} {key} is {result.stdout.strip()}, which does not match /{regex}/", result)


@then("the setting {schema} {key} exists")
def setting_exists(context: Any, schema: str, key: str) -> None:
    """The schema is installed and has the key."""
    _get(context, schema, key)


@then("the setting {schema} {key} can be changed", expected=True)
@then("the setting {schema} {key} cannot be changed", expected=False)
def setting_can_be_changed(context: Any, schema: str, key: str, *, expected: bool) -> None:
    """The user may write the setting, or an administrator's lock keeps them from it (``gsettings writable``)."""
    result = _gsettings(context, "writable", schema, key)
    needs_success(result, f"there is no setting {schema} {key}")
    if result.stdout.strip() != ("true" if expected else "false"):
        missed(f"{schema} {key} {'cannot' if expected else 'can'} be changed", result)


@when('I set the setting {schema} {key} to "{value}"')
def set_setting(context: Any, schema: str, key: str, value: str) -> None:
    """Write a setting, in gsettings' own form; what it was is restored when the scenario ends."""
    user, before = user_of(context), _get(context, schema, key).stdout.strip()
    changed = _gsettings(context, "set", schema, key, value)
    needs_success(changed, f"{schema} {key} cannot be set to {value}")
    guest = guest_of(context, user)
    context.add_cleanup(lambda: guest.succeed(["gsettings", "set", schema, key, before]))


@then('the dconf key {path} is "{value}"')
def key_is(context: Any, path: str, value: str) -> None:
    """Dconf gives this value; text is written without the inner quotes. A key that nobody has set gives none."""
    result = needs_success(ask(context, ["dconf", "read", path], user=user_of(context)), f"{path} cannot be read")
    if not result.stdout.strip():
        missed(f"the dconf key {path} is not set", result)
    if value not in _spellings(result.stdout):
        missed(f"the dconf key {path} is {result.stdout.strip()}, not {value}", result)


@then("the dconf folder {path} is not empty")
def folder_is_not_empty(context: Any, path: str) -> None:
    """Dconf has values below a folder such as ``/org/gnome/``: the administrator's defaults, or the user's own."""
    result = needs_success(ask(context, ["dconf", "dump", path], user=user_of(context)), f"{path} cannot be read")
    if not result.stdout.strip():
        missed(f"the dconf folder {path} is empty", result)


def _get(context: Any, schema: str, key: str) -> CommandResult:
    return needs_success(_gsettings(context, "get", schema, key), f"there is no setting {schema} {key}")


def _gsettings(context: Any, *words: str) -> CommandResult:
    return ask(context, ["gsettings", *words], user=user_of(context))


def _spellings(printed: str) -> tuple[str, ...]:
    """The ways to write a value of GVariant's text format: as it is, without quotes, without the type in front."""
    value = printed.strip()
    plain = value.partition(" ")[2] if value.partition(" ")[0] in ("uint32", "int64", "uint64") else value
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return (value, plain, value[1:-1]) if quoted else (value, plain)
