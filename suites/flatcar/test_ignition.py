"""Ignition ran once, at the first boot, and made what its configuration asks for.

The configuration is read where Flatcar keeps it: QEMU's fw_cfg, or the file config.ign of the partition OEM. What is
judged is what stands in it; what it fetches from elsewhere is not known here. Source: the specification of Ignition's
configuration, versions 2 and 3, and "Flatcar Container Linux startup process" of Flatcar's documentation.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from pytest_bootc.guest import Guest

pytestmark = pytest.mark.needs("file:/usr/share/flatcar/release")

_FIRST_BOOT = "/boot/flatcar/first_boot"
_RESULT = "/etc/.ignition-result.json"
_CONFIGS = (
    "/sys/firmware/qemu_fw_cfg/by_name/opt/org.flatcar-linux/config/raw",
    "/oem/config.ign",
    "/usr/share/oem/config.ign",
)
_KEYS = (".ssh/authorized_keys", ".ssh/authorized_keys.d/ignition")

Config = Mapping[str, Any]


@pytest.fixture
def config(guest: Guest) -> Config:
    """What Ignition was told to make."""
    for path in _CONFIGS:
        result = guest.execute(["cat", path])
        if result.status == 0:
            told: Config = json.loads(result.stdout)
            return told
    pytest.skip("not judged: the machine has no configuration of Ignition's")


def test_the_mark_of_a_first_boot_is_gone(guest: Guest) -> None:
    """The EFI system partition is at /boot, and has no flatcar/first_boot: else each boot sets the machine up anew."""
    folder = _FIRST_BOOT.rpartition("/")[0]
    found = guest.execute(["ls", "-A", folder])
    assert found.status == 0, f"{folder} cannot be read, so it has no mark either: {found.stderr.strip()}"
    names = found.stdout.split()
    assert "first_boot" not in names, f"{_FIRST_BOOT} is still there: Ignition has not come to its end"


def test_ignition_says_that_it_ran(guest: Guest, config: Config) -> None:
    """Ignition's own record is there, and says that it had a user's configuration."""
    result = guest.execute(["cat", _RESULT])
    assert result.status == 0, f"Ignition has left no record, so it has not come to its end: {result.stderr.strip()}"
    told = json.loads(result.stdout)
    assert told["userConfigProvided"], f"Ignition ran on {told['provisioningDate']} without the configuration"


def test_the_users_are_there(guest: Guest, config: Config) -> None:
    """Each user of the configuration exists, and is in the groups that it names (getent(1), id(1))."""
    missing = []
    for user in _listed(config, "passwd", "users"):
        name = user["name"]
        result = guest.execute(["id", "--groups", "--name", name])
        if result.status != 0:
            missing.append(f"no user {name}: {result.stderr.strip()}")
            continue
        lacking = sorted(set(user.get("groups") or ()) - set(result.stdout.split()))
        missing += [f"{name} is not in the group {group}" for group in lacking]
    assert not missing, _told("users are not as Ignition was to make them", missing)


def test_their_keys_let_them_in(guest: Guest, config: Config) -> None:
    """Each SSH key of the configuration is among its user's, who own the file, so that sshd takes it."""
    missing = []
    for user in _listed(config, "passwd", "users"):
        found = _keys_of(guest, user["name"])
        keys = [key for key in user.get("sshAuthorizedKeys") or () if key.strip() not in found]
        missing += [f"{user['name']} has not the key {key.strip()}" for key in keys]
    assert not missing, _told("keys are not where sshd looks for them", missing)


def test_the_files_are_there(guest: Guest, config: Config) -> None:
    """The files, folders and links of the configuration are there, with the content and the mode that it gives."""
    wrong = []
    for file in _listed(config, "storage", "files"):
        content = _content(file.get("contents") or {})
        wrong += _differences(guest, file, "file", content)
    for folder in _listed(config, "storage", "directories"):
        wrong += _differences(guest, folder, "directory")
    for link in _listed(config, "storage", "links"):
        if not link.get("hard"):
            target = guest.execute(["readlink", link["path"]]).stdout.strip()
            wrong += [] if target == link["target"] else [f"{link['path']} is no link to {link['target']}: {target!r}"]
    assert not wrong, _told("what Ignition was to write is not there", wrong)


def test_the_units_are_enabled(guest: Guest, config: Config) -> None:
    """The units of the configuration can be loaded, and are enabled or masked where it says so (systemctl(1))."""
    wrong = []
    for wanted in _listed(config, "systemd", "units"):
        unit = guest.unit(wanted["name"])
        if wanted.get("mask"):
            wrong += [] if unit.load_state == "masked" else [f"{unit.name} is not masked: {unit.load_state}"]
        elif unit.load_state != "loaded":
            wrong.append(f"{unit.name} cannot be loaded: {unit.load_state}")
        elif wanted.get("enabled") and not unit.unit_file_state.startswith("enabled"):
            wrong.append(f"{unit.name} is {unit.unit_file_state}, and was to be enabled")
    assert not wrong, _told("units are not as Ignition was to make them", wrong)


def _listed(config: Config, section: str, name: str) -> Sequence[Mapping[str, Any]]:
    return (config.get(section) or {}).get(name) or ()


def _keys_of(guest: Guest, name: str) -> list[str]:
    """The lines of the files with a user's keys that are theirs."""
    result = guest.as_user(name).execute(f"for file in {' '.join(_KEYS)}; do [ ! -O $file ] || cat $file; done")
    assert result.status == 0, f"{name} cannot read the keys in their home: {result.stderr.strip()}"
    return [line.strip() for line in result.stdout.splitlines()]


def _content(contents: Mapping[str, Any]) -> bytes | None:
    """What a file is to hold, where it stands in the configuration itself (a data URL, RFC 2397)."""
    kind, _, data = (contents.get("source") or "").partition(",")
    if not kind.startswith("data:") or contents.get("compression"):
        return None
    plain = unquote_to_bytes(data)
    return base64.b64decode(plain) if kind.endswith(";base64") else plain


def _differences(guest: Guest, wanted: Mapping[str, Any], kind: str, content: bytes | None = None) -> list[str]:
    """How a file or folder differs from what the configuration says."""
    path = wanted["path"]
    found = guest.execute(["stat", "--dereference", "--format=%a %F", path])
    if found.status != 0:
        return [f"there is no {path}"]
    mode, _, told = found.stdout.strip().partition(" ")
    differences = []
    if kind not in told:
        differences.append(f"{path} is no {kind}: {told}")
    if wanted.get("mode") is not None and int(mode, 8) != wanted["mode"] & 0o7777:
        differences.append(f"{path} has the mode {mode}, and was to have {wanted['mode']:o}")
    if content is not None and guest.execute(["cat", path]).stdout_bytes != content:
        differences.append(f"{path} has another content")
    return differences


def _told(brief: str, lines: Iterable[str]) -> str:
    return "\n".join([f"{brief}:", *(f"  {line}" for line in lines)])
