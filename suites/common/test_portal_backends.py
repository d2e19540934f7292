"""The programs behind the portal are there: those that a desktop prefers, and what starts each of them."""

from __future__ import annotations

import configparser
import re
from pathlib import PurePath

import pytest

from pytest_bootc.guest import Guest

_HOME = "/usr/share/xdg-desktop-portal"
_SERVICES = "cat /usr/share/dbus-1/services/*.service"
# Not the name of a backend (portals.conf(5)).
_ANY_OR_NONE = {"*", "none"}


@pytest.mark.needs(f"command:ls {_HOME}/portals/*.portal")
def test_backends_can_be_started(guest: Guest) -> None:
    """For each backend in /usr/share/xdg-desktop-portal/portals the session bus knows a program to start.

    A backend whose service is missing is chosen all the same, and each request to it fails after a while.
    """
    startable = set(re.findall(r"^Name *= *(\S+)", guest.succeed(_SERVICES), re.MULTILINE))
    names = {
        path: _read(guest, path).get("portal", "DBusName", fallback="")
        for path in guest.succeed(f"ls {_HOME}/portals/*.portal").split()
    }
    broken = [f"  {path}: {name or 'no name at all'}" for path, name in names.items() if name not in startable]
    assert not broken, "nothing starts these backends of the portal:\n" + "\n".join(broken)


@pytest.mark.needs(f"command:ls {_HOME}/*-portals.conf /usr/share/wayland-sessions/*.desktop")
def test_preferred_backends_are_there(guest: Guest) -> None:
    """A desktop that can be logged in to has a backend for each interface that it names any for (portals.conf(5)).

    Others than those of the list are not tried then: where none is installed, the interface is missing.
    """
    there = {PurePath(path).stem for path in guest.succeed(f"ls {_HOME}/portals/*.portal").split()}
    lines = guest.succeed("grep -h ^DesktopNames= /usr/share/wayland-sessions/*.desktop").splitlines()
    desktops = {name.lower() for line in lines for name in line.partition("=")[2].split(";") if name}
    missing = [
        f"  {path}: {key}={preferred[key]}"
        for path in guest.succeed(f"ls {_HOME}/*-portals.conf").split()
        if PurePath(path).name.removesuffix("-portals.conf") in desktops
        for preferred in [_read(guest, path)["preferred"]]
        for key in preferred
        if not (_ANY_OR_NONE | there).intersection(preferred[key].strip().split(";"))
    ]
    assert not missing, "a desktop prefers backends of the portal of which none is there:\n" + "\n".join(missing)


def _read(guest: Guest, path: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(guest.succeed(["cat", path]), path)
    return parser
