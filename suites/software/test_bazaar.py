"""Bazaar's files of settings: they can be read, name what is there, and say what the shop shows and hides.

Bazaar sees the system's /etc as /run/host/etc. Where a file is wrong, it shows its own page, and hides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from pytest_bootc.guest import Guest

_FOLDER = "/etc/bazaar"
_ID = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*){2,}")
_ON_THE_HOST = re.compile(r"/run/host(/[^\s'\"]+)")
_LIST = f"cd {_FOLDER} && find . -name '*.yaml' -o -name '*.yml'"


@pytest.mark.needs(f"file:{_FOLDER}/bazaar.yaml")
def test_the_settings_can_be_read(guest: Guest) -> None:
    """Each file of settings in /etc/bazaar is YAML, and has something in it."""
    names = sorted(guest.succeed(_LIST).split())
    wrong = {name: trouble for name in names if (trouble := _trouble_with(guest.succeed(["cat", _path(name)])))}
    told = "\n".join(f"  {_path(name)}: {trouble}" for name, trouble in wrong.items())
    assert not wrong, f"Bazaar's settings cannot be read:\n{told}"


@pytest.mark.needs(f"file:{_FOLDER}/bazaar.yaml")
def test_the_settings_name_what_is_there(guest: Guest) -> None:
    """Lists, pictures and programs that the settings name as files of the system are there."""
    names = guest.succeed(_LIST).split()
    named = {path for name in names for path in _ON_THE_HOST.findall(guest.succeed(["cat", _path(name)]))}
    missing = [path for path in sorted(named) if guest.execute(["test", "-e", path]).status != 0]
    assert not missing, f"Bazaar's settings name files that are not there: {', '.join(missing)}"


@pytest.mark.needs(f"file:{_FOLDER}/blocklist.yaml")
def test_the_blocklist_hides_applications(guest: Guest) -> None:
    """The list of what the shop does not show names applications, by ids that Flatpak could have."""
    _assert_ids(_below("block", _document(guest, "blocklist.yaml")), "blocklist.yaml hides")


@pytest.mark.needs(f"file:{_FOLDER}/curated.yaml")
def test_the_first_page_shows_applications(guest: Guest) -> None:
    """The first page names applications, by ids that Flatpak could have."""
    _assert_ids(_below("appids", _document(guest, "curated.yaml")), "curated.yaml shows")


def _assert_ids(found: Iterator[Any], what: str) -> None:
    names = list(found)
    assert names, f"{what} no application"
    wrong = [str(name) for name in names if not isinstance(name, str) or not _ID.fullmatch(name)]
    assert not wrong, f"{what} what is no id of an application: {', '.join(wrong)}"


def _path(name: str) -> str:
    return f"{_FOLDER}/{name.removeprefix('./')}"


def _document(guest: Guest, name: str) -> Any:
    text = guest.succeed(["cat", _path(name)])
    trouble = _trouble_with(text)
    assert not trouble, f"{_path(name)}: {trouble}"
    return yaml.safe_load(text)


def _trouble_with(text: str) -> str:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return f"it is no YAML: {error}".replace("\n", " ")
    return "" if document else "it is empty"


def _below(key: str, document: Any, *, inside: bool = False) -> Iterator[Any]:
    """The values without members of their own that are somewhere below a key."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            yield from _below(key, value, inside=inside or name == key)
    elif isinstance(document, list):
        for value in document:
            yield from _below(key, value, inside=inside)
    elif inside:
        yield document
