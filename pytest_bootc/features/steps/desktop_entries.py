"""Desktop entries and default applications."""

from __future__ import annotations

from typing import Any

from pytest_bootc.features.steps.asking import ask, missed, needs_success
from pytest_bootc.features.steps.library import then
from pytest_bootc.features.steps.users import user_of

_FIND = """
for folder in /usr/share /usr/local/share /var/lib/flatpak/exports/share; do
  [ ! -e "$folder/applications/$1" ] || { echo "$folder/applications/$1"; exit 0; }
done
echo "there is no $1 among the applications" >&2; exit 1
"""


@then("the desktop entry {name} exists")
def exists(context: Any, name: str) -> None:
    """There is an entry of this file name (with or without ``.desktop``) for everybody."""
    _path(context, name)


@then("the desktop entry {name} is valid")
def is_valid(context: Any, name: str) -> None:
    """desktop-file-validate(1) finds no error in the entry."""
    path = _path(context, name)
    needs_success(ask(context, ["desktop-file-validate", path]), f"{path} is not valid")


@then("all desktop entries in {folder} are valid")
def are_valid(context: Any, folder: str) -> None:
    """There are entries in a folder, and desktop-file-validate(1) finds no error in any."""
    script = 'cd "$1" && ls -- *.desktop >/dev/null && exec desktop-file-validate -- *.desktop'
    needs_success(ask(context, ["sh", "-c", script, "sh", folder]), f"not all desktop entries in {folder} are valid")


@then("the default application for {kind} is {name}")
def default_is(context: Any, kind: str, name: str) -> None:
    """xdg-mime(1) tells the user this entry for a MIME type or an ``x-scheme-handler/...``."""
    result = ask(context, ["xdg-mime", "query", "default", kind], user=user_of(context))
    found = needs_success(result, "the default application cannot be asked for").stdout.strip()
    if found.removesuffix(".desktop") != name.removesuffix(".desktop"):
        missed(f"the default application for {kind} is {found or 'not set'}, not {name}", result)


def _path(context: Any, name: str) -> str:
    file = f"{name.removesuffix('.desktop')}.desktop"
    result = ask(context, ["sh", "-c", _FIND, "sh", file])
    return needs_success(result, f"there is no desktop entry {name}").stdout.strip()
