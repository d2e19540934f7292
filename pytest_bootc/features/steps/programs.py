"""Programs and packages."""

from __future__ import annotations

import re
import shlex
from typing import Any

from pytest_bootc.features.steps.asking import ask, guest_of, missed, rows_of
from pytest_bootc.features.steps.library import then
from pytest_bootc.features.steps.users import user_of
from pytest_bootc.shell import CommandResult

_VERSION = re.compile(r"\d+(?:\.\d+)+|\d+")


@then("the program {name} is installed")
def is_installed(context: Any, name: str) -> None:
    """The shell finds a program of that name."""
    result = _look(context, name)
    if result.status != 0:
        missed(f"there is no program {name}", result)


@then("the program {name} is not installed")
def is_not_installed(context: Any, name: str) -> None:
    """The shell finds no program of that name."""
    result = _look(context, name)
    if result.status == 0:
        missed(f"there is a program {name}: {result.stdout.strip()}", result)


@then("these programs are installed")
def are_installed(context: Any) -> None:
    """The shell finds every program of the table's first column."""
    names = rows_of(context)
    looks = "\n".join(f"command -v {shlex.quote(name)} >/dev/null || echo {shlex.quote(name)}" for name in names)
    result = ask(context, looks)
    absent = result.stdout.split()
    if absent:
        missed(f"there are no programs {', '.join(absent)}", result)


@then("the program {name} tells its version", of_user=False)
@then("the program {name} tells its version to the user", of_user=True)
def tells_version(context: Any, name: str, *, of_user: bool) -> None:
    """``NAME --version`` exits with 0 and prints a number."""
    _version(context, name, user_of(context) if of_user else None)


@then("the program {name} has at least the version {version}")
def has_version(context: Any, name: str, version: str) -> None:
    """``NAME --version`` exits with 0, and the first number of it with points is not lower than this one."""
    found, result = _version(context, name, None)
    if _numbers(found) < _numbers(version):
        missed(f"{name} has the version {found}, not at least {version}", result)


@then("the package {name} is installed", expected=True)
@then("the package {name} is not installed", expected=False)
def package_is_installed(context: Any, name: str, *, expected: bool) -> None:
    """rpm, dpkg or Flatpak has a package of that name, or none of those that the guest has does."""
    package = guest_of(context).installed(name)
    if expected and package is None:
        missed(f"no package {name} is installed")
    if not expected and package is not None:
        missed(f"{package.manager} has the package {name} {package.version}")


def _look(context: Any, name: str) -> CommandResult:
    return ask(context, ["sh", "-c", 'command -v -- "$1"', "sh", name])


def _version(context: Any, name: str, user: str | None) -> tuple[str, CommandResult]:
    result = ask(context, [name, "--version"], user=user)
    if result.status != 0:
        missed(f"`{name} --version` {result.outcome}", result)
    found = _VERSION.search(result.stdout) or _VERSION.search(result.stderr)
    if found is None:
        missed(f"`{name} --version` prints no version", result)
    return found[0], result


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
