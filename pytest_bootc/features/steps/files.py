"""Files and folders."""

from __future__ import annotations

import json
import shlex
import tomllib
import uuid
from collections.abc import Callable
from typing import Any

import yaml

from pytest_bootc.features.steps.asking import (
    ask,
    expression,
    guest_of,
    missed,
    needs_success,
    rows_of,
    said,
    text_of,
    value_at,
)
from pytest_bootc.features.steps.library import given, then
from pytest_bootc.shell import CommandResult

_KINDS = {"file": "-f", "folder": "-d", "path": "-e", "socket": "-S"}
_READERS: dict[str, Callable[[str], Any]] = {"JSON": json.loads, "TOML": tomllib.loads, "YAML": yaml.safe_load}
_LOOK = 'ls -ld -- "$1"; test "$2" "$1"'
_RESTORE = 'if [ -e "$2" ]; then cp -a -- "$2" "$1" && rm -f -- "$2"; else rm -f -- "$1"; fi'
_WRITE = 'mkdir -p -- "$(dirname -- "$1")" && { [ ! -e "$1" ] || cp -a -- "$1" "$2"; } && cat > "$1"'


@given("the file {path} with the text")
def write(context: Any, path: str) -> None:
    """Write the text below the step to a file; what it was before is restored when the scenario ends.

    Folders that are missing are made, and stay.
    """
    guest, kept = guest_of(context), f"/tmp/{uuid.uuid4().hex}.kept"
    content = f"{text_of(context)}\n".encode()
    needs_success(ask(context, ["sh", "-c", _WRITE, "sh", path, kept], stdin=content), f"{path} cannot be written")
    context.add_cleanup(lambda: guest.succeed(["sh", "-c", _RESTORE, "sh", path, kept]))


@then("the file {path} exists", kind="file")
@then("the folder {path} exists", kind="folder")
@then("the socket {path} exists", kind="socket")
@then("the path {path} exists", kind="path")
def exists(context: Any, path: str, kind: str) -> None:
    """There is a file, a folder, a socket, or (*path*) anything; links are followed."""
    result = _look(context, path, kind)
    if result.status != 0:
        missed(f"there is no {kind} {path}", result)


@then("the path {path} does not exist")
def does_not_exist(context: Any, path: str) -> None:
    """There is nothing of that name, not even a link that leads nowhere."""
    result = ask(context, ["sh", "-c", 'ls -ld -- "$1"; [ -e "$1" ] || [ -h "$1" ]', "sh", path])
    if result.status == 0:
        missed(f"there is {path}", result)


@then("these paths exist")
def these_exist(context: Any) -> None:
    """There is something at every path of the table's first column; links are followed."""
    looks = "\n".join(f"[ -e {path} ] || echo {path}" for path in map(shlex.quote, rows_of(context)))
    result = needs_success(ask(context, f"{looks}\n:"), "the paths cannot be looked for")
    absent = result.stdout.splitlines()
    if absent:
        missed(f"there is no {', '.join(absent)}", result)


@then("the file {path} has the mode {mode}")
def has_mode(context: Any, path: str, mode: str) -> None:
    """The permission bits are these, in octal as in ``4755``; links are followed."""
    result = _stat(context, path, "%a")
    if int(result.stdout, 8) != int(mode, 8):
        missed(f"{path} has the mode {result.stdout.strip()}, not {mode}", result)


@then("the file {path} belongs to {owner}")
def belongs_to(context: Any, path: str, owner: str) -> None:
    """The file or folder has this owner: a name, or *name:group*; links are followed."""
    result = _stat(context, path, "%U:%G")
    found = result.stdout.strip()
    if (found if ":" in owner else found.partition(":")[0]) != owner:
        missed(f"{path} belongs to {found}, not to {owner}", result)


@then("the file {path} is executable")
def is_executable(context: Any, path: str) -> None:
    """There is a file that has an execute bit."""
    exists(context, path, "file")
    result = _stat(context, path, "%a")
    if not int(result.stdout, 8) & 0o111:
        missed(f"{path} is not executable: its mode is {result.stdout.strip()}", result)


@then("the path {path} is a link to {target}")
def is_a_link(context: Any, path: str, target: str) -> None:
    """The path is a symbolic link that has this text, or leads to that path."""
    result = ask(context, ["sh", "-c", 'readlink -- "$1" && readlink -f -- "$1"', "sh", path])
    if result.status != 0:
        missed(f"{path} is no link", _look(context, path, "path"))
    if target not in result.stdout.splitlines():
        missed(f"{path} is a link to {result.stdout.splitlines()[0]}, not to {target}", result)


@then("the file {path} is empty", empty=True)
@then("the file {path} is not empty", empty=False)
def is_empty(context: Any, path: str, *, empty: bool) -> None:
    """There is a file without, or with something else than, spaces and empty lines."""
    result = _content(context, path)
    if (not result.stdout.strip()) is not empty:
        missed(f"{path} is {'not ' if empty else ''}empty", result)


@then('the file {path} contains "{text}"', expected=True)
@then('the file {path} does not contain "{text}"', expected=False)
def contains(context: Any, path: str, text: str, *, expected: bool) -> None:
    """There is a file that has this text in it, or has not."""
    result = _content(context, path)
    if (text in result.stdout) is not expected:
        missed(f"{path} {'does not contain' if expected else 'contains'} {text!r}", result)


@then("the file {path} matches /{regex}/", expected=True)
@then("the file {path} does not match /{regex}/", expected=False)
def matches(context: Any, path: str, regex: str, *, expected: bool) -> None:
    """There is a file in which a regular expression is found, or is not; ``^`` and ``$`` are ends of lines."""
    result = _content(context, path)
    if bool(expression(regex).search(result.stdout)) is not expected:
        missed(f"{path} {'does not match' if expected else 'matches'} /{regex}/", result)


@then("the file {path} is valid JSON", form="JSON")
@then("the file {path} is valid YAML", form="YAML")
@then("the file {path} is valid TOML", form="TOML")
def is_valid(context: Any, path: str, form: str) -> None:
    """There is a file that can be read as a document of this form."""
    _document(context, path, form)


@then('the JSON value at {place} in the file {path} is "{value}"', form="JSON")
@then('the YAML value at {place} in the file {path} is "{value}"', form="YAML")
@then('the TOML value at {place} in the file {path} is "{value}"', form="TOML")
def value_is(context: Any, place: str, path: str, value: str, form: str) -> None:
    """The document in the file has this at a place such as ``default[0].type``; numbers go between the quotes, too."""
    document, result = _document(context, path, form)
    found = value_at(document, place, result)
    if said(found) != value:
        missed(f"{place} in {path} is {said(found)!r}, not {value!r}", result)


@then("the folder {path} has at least {count:int} entries")
def has_entries(context: Any, path: str, count: int) -> None:
    """There is a folder with so many files or folders in it, hidden ones included."""
    exists(context, path, "folder")
    result = needs_success(ask(context, ["ls", "-A", "--", path]), f"{path} cannot be listed")
    found = len(result.stdout.splitlines())
    if found < count:
        missed(f"{path} has {found} entries, not at least {count}", result)


@then("{pattern} names at least {count:int} files")
def names_files(context: Any, pattern: str, count: int) -> None:
    """The shell finds so many files for a pattern such as ``/usr/share/applications/*.desktop``."""
    script = f'for path in {pattern}; do [ ! -e "$path" ] || echo "$path"; done'
    result = needs_success(ask(context, ["sh", "-c", script]), f"{pattern} cannot be looked for")
    found = len(result.stdout.splitlines())
    if found < count:
        missed(f"{pattern} names {found} files, not at least {count}", result)


@then("the file {path} has the SELinux type {label}")
def has_label(context: Any, path: str, label: str) -> None:
    """The third part of the file's SELinux context is this."""
    result = _stat(context, path, "%C")
    found = result.stdout.strip().split(":")
    if len(found) < 3 or found[2] != label:
        missed(f"{path} has the SELinux context {result.stdout.strip()}, not the type {label}", result)


@then("the file {path} has the capability {capability}")
def has_capability(context: Any, path: str, capability: str) -> None:
    """A program has this capability (``cap_setuid``) when it is executed: it is permitted, and in effect."""
    found = guest_of(context).capabilities(path)
    if capability not in found.permitted or not found.effective:
        missed(f"{path} does not have {capability} in effect: it has {found}")


def _look(context: Any, path: str, kind: str) -> CommandResult:
    return ask(context, ["sh", "-c", _LOOK, "sh", path, _KINDS[kind]])


def _stat(context: Any, path: str, form: str) -> CommandResult:
    return needs_success(ask(context, ["stat", "-L", "-c", form, "--", path]), f"{path} cannot be looked at")


def _content(context: Any, path: str) -> CommandResult:
    return needs_success(ask(context, ["cat", "--", path]), f"{path} cannot be read")


def _document(context: Any, path: str, form: str) -> tuple[Any, CommandResult]:
    result = _content(context, path)
    try:
        return _READERS[form](result.stdout), result
    except (ValueError, yaml.YAMLError) as error:
        missed(f"{path} is not {form}: {error}", result)
