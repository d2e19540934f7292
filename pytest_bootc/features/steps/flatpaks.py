"""Flatpak: applications, remotes, permissions.

It is the installation for everybody that is asked, not that of a user.
"""

from __future__ import annotations

from typing import Any

from pytest_bootc.features.steps.asking import ask, missed, needs_success, rows_of
from pytest_bootc.features.steps.library import then
from pytest_bootc.shell import CommandResult


@then("the Flatpak {name} is installed", expected=True)
@then("the Flatpak {name} is not installed", expected=False)
def is_installed(context: Any, name: str, *, expected: bool) -> None:
    """An application or runtime of this id is installed for everybody, or is not."""
    result = _list(context, "application,ref")
    if (name in _first_column(result)) is not expected:
        missed(f"the Flatpak {name} is {'not ' if expected else ''}installed", result)


@then("these Flatpaks are installed")
def are_installed(context: Any) -> None:
    """The applications of the table's first column are installed for everybody."""
    result = _list(context, "application,ref")
    absent = sorted(set(rows_of(context)) - set(_first_column(result)))
    if absent:
        missed(f"not installed: {', '.join(absent)}", result)


@then("the Flatpak {name} comes from the remote {remote}")
def comes_from(context: Any, name: str, remote: str) -> None:
    """The application is installed, and its origin is this remote."""
    result = _list(context, "application,origin")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    origins = [row[1] for row in rows if row[0] == name and len(row) > 1]
    if not origins:
        missed(f"the Flatpak {name} is not installed", result)
    if remote not in origins:
        missed(f"the Flatpak {name} comes from {', '.join(origins)}, not from {remote}", result)


@then("the Flatpak remote {name} exists", expected=True)
@then("the Flatpak remote {name} does not exist", expected=False)
def remote_exists(context: Any, name: str, *, expected: bool) -> None:
    """The system's installation has a remote of this name, or has none."""
    command = ["flatpak", "remotes", "--system", "--show-disabled", "--columns=name,url"]
    result = needs_success(ask(context, command), "Flatpak's remotes cannot be listed")
    if (name in _first_column(result)) is not expected:
        missed(f"there is {'no' if expected else 'a'} Flatpak remote {name}", result)


@then("the Flatpak {name} has the permission {kind} {permission}", expected=True)
@then("the Flatpak {name} does not have the permission {kind} {permission}", expected=False)
def has_permission(context: Any, name: str, kind: str, permission: str, *, expected: bool) -> None:
    """The application's metadata, overrides included, grants it: kinds are *filesystems*, *sockets*, *devices* ..."""
    command = ["flatpak", "info", "--system", "--show-permissions", name]
    result = needs_success(ask(context, command), f"the permissions of {name} cannot be told")
    lines = [line.partition("=") for line in result.stdout.splitlines()]
    granted = [word for key, _, value in lines if key == kind for word in value.split(";") if word]
    if (permission in granted) is not expected:
        missed(f"{name} {'does not have' if expected else 'has'} the permission {kind} {permission}", result)


def _list(context: Any, columns: str) -> CommandResult:
    command = ["flatpak", "list", "--system", f"--columns={columns}"]
    return needs_success(ask(context, command), "Flatpak's applications cannot be listed")


def _first_column(result: CommandResult) -> list[str]:
    return [line.split("\t")[0].strip() for line in result.stdout.splitlines()]
