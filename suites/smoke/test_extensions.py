"""The extensions of GNOME Shell that an image brings, and those that its settings enable for everybody.

What is judged are files and settings; whether the Shell has loaded them, only a session can tell.
Source: "Extensions" of GNOME Shell's documentation (metadata.json), GNOME Shell's settings (org.gnome.shell).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping

import pytest

from pytest_bootc.guest import Guest

_FOLDERS = ("/usr/local/share/gnome-shell/extensions", "/usr/share/gnome-shell/extensions")
_READ = """
for folder in "$@"; do
    for file in "$folder"/*/metadata.json; do
        [ ! -e "$file" ] || { printf '\\036%s\\n' "$file"; cat "$file"; }
    done
done
"""
_VERSION = re.compile(r"GNOME Shell (\d+)")
_ENABLED = "gsettings get org.gnome.shell enabled-extensions"

_EVERYWHERE = (
    "appindicatorsupport@rgcjonas.gmail.com",
    "bazaar-integration@kolunmi.github.io",
    "blur-my-shell@aunetx",
    "caffeine@patapon.info",
    "custom-command-list@storageb.github.com",
    "dash-to-dock@micxgx.gmail.com",
    "gradia-integration@alexandervanhee.github.io",
    "gsconnect@andyholmes.github.io",
)
_BLUEFIN = ("search-light@icedman.github.com",)
_DAKOTA = (
    "BudsLink-Companion@maniacx.github.com",
    "fuzzy-application-search@mkhl.codeberg.page",
    "tilingshell@ferrarodomenico.com",
)
_NOT_ENABLED_EVERYWHERE = (
    "quicksettings-audio-devices-hider@marcinjahn.com",
    "quicksettings-audio-devices-renamer@marcinjahn.com",
    "syncthing-toggle@rehhouari.github.com",
    "tailscale-gnome-qs@tailscale-qs.github.io",
)
_NOT_ENABLED_DAKOTA = (
    "copyous@boerdereinar.dev",
    "power-status-color@projectbluefin.io",
    "quick-settings-audio-panel@rayzeq.github.io",
)
_ON_EITHER = pytest.mark.image("bluefin", "dakota")
_ON_BLUEFIN = pytest.mark.image("bluefin")
_ON_DAKOTA = pytest.mark.image("dakota")


def _of(uuids: tuple[str, ...], mark: pytest.MarkDecorator) -> list[object]:
    return [pytest.param(uuid, marks=mark) for uuid in uuids]


_PROMISED = [*_of(_EVERYWHERE, _ON_EITHER), *_of(_BLUEFIN, _ON_BLUEFIN), *_of(_DAKOTA, _ON_DAKOTA)]
_INSTALLED = [*_of(_NOT_ENABLED_EVERYWHERE, _ON_EITHER), *_of(_NOT_ENABLED_DAKOTA, _ON_DAKOTA)]


@pytest.mark.needs("program:gnome-shell", "setting:org.gnome.shell")
def test_what_is_enabled_can_be_loaded(guest: Guest) -> None:
    """Every extension that the image's settings enable is there, and is for this version of the Shell.

    The Shell refuses one whose metadata does not name its version, and says so to nobody but the journal.
    """
    version = _shell_version(guest)
    found = _extensions(guest)
    wrong = {uuid: trouble for uuid in _enabled(guest) if (trouble := _trouble(found.get(uuid), version))}
    told = "\n".join(f"  {uuid}: {trouble}" for uuid, trouble in wrong.items())
    assert not wrong, f"extensions are enabled that GNOME Shell {version} will not load:\n{told}"


@pytest.mark.parametrize("uuid", _PROMISED)
def test_extensions_are_enabled(guest: Guest, uuid: str) -> None:
    """What makes the desktop of Bluefin is installed, and the settings for everybody enable it."""
    _assert_installed(guest, uuid)
    enabled = _enabled(guest)
    assert uuid in enabled, f"{uuid} is installed and not enabled; enabled are {', '.join(enabled) or 'none'}"


@pytest.mark.parametrize("uuid", _INSTALLED)
def test_extensions_are_installed(guest: Guest, uuid: str) -> None:
    """Further extensions are there for people to enable."""
    _assert_installed(guest, uuid)


def _assert_installed(guest: Guest, uuid: str) -> None:
    found = _extensions(guest)
    assert uuid in found, f"{uuid} is not installed; installed are {', '.join(sorted(found)) or 'none'}"


def _trouble(metadata: Mapping[str, object] | None, version: int) -> str:
    """Why the Shell will not load an extension, as far as its metadata says."""
    if metadata is None:
        return "it is not installed"
    versions = metadata.get("shell-version")
    named = versions if isinstance(versions, list) else []
    majors = [str(each).partition(".")[0] for each in named]
    return "" if str(version) in majors else f"it is for {', '.join(majors) or 'no version'}"


def _shell_version(guest: Guest) -> int:
    text = guest.succeed(["gnome-shell", "--version"])
    found = _VERSION.match(text)
    assert found, f"gnome-shell --version printed no version: {text!r}"
    return int(found[1])


def _enabled(guest: Guest) -> list[str]:
    """What the settings of somebody who has changed nothing enable."""
    result = guest.execute(_ENABLED)
    assert result.status == 0, f"the enabled extensions cannot be told: {result.stderr.strip()}"
    return [str(uuid) for uuid in ast.literal_eval(result.stdout.strip().removeprefix("@as "))]


def _extensions(guest: Guest) -> dict[str, Mapping[str, object]]:
    """The metadata of each extension that is installed for everybody, by the names of their folders.

    The name has to be the UUID that the metadata has.
    """
    listed = guest.succeed(["sh", "-c", _READ, "sh", *_FOLDERS])
    found: dict[str, Mapping[str, object]] = {}
    for part in listed.split("\x1e")[1:]:
        path, _, text = part.partition("\n")
        folder = path.split("/")[-2]
        try:
            metadata = json.loads(text)
        except json.JSONDecodeError as error:
            raise AssertionError(f"{path} is not JSON: {error}") from None
        assert metadata.get("uuid") == folder, f"{path} is of {metadata.get('uuid')!r}, so the Shell does not load it"
        found[folder] = metadata
    return found
