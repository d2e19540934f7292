"""What the image says that Flatpak is to install is installed: flatpak-preinstall(1)."""

from __future__ import annotations

import re

import pytest

from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM

_SERVICE = "flatpak-preinstall.service"
_SECONDS = 1800.0
_FILES = "cat /usr/share/flatpak/preinstall.d/*.preinstall"
_GROUP = re.compile(r"^\[Flatpak Preinstall (?P<name>\S+)\](?P<keys>[^\[]*)", re.MULTILINE)
_LEFT_OUT = re.compile(r"^Install\s*=\s*false\s*$", re.MULTILINE)


@pytest.mark.needs("network", f"unit:{_SERVICE}", "command:ls /usr/share/flatpak/preinstall.d/*.preinstall")
def test_what_is_to_be_preinstalled_is_installed(vm: VM, guest: Guest) -> None:
    """The service that fetches the image's applications ends well, and all of them are there then."""
    guest.wait_for_unit(_SERVICE, timeout=_SECONDS * vm.facts.time_factor)
    groups = list(_GROUP.finditer(guest.succeed(_FILES)))
    wanted = {group["name"] for group in groups if not _LEFT_OUT.search(group["keys"])}
    assert wanted, "the files in /usr/share/flatpak/preinstall.d name no application"
    installed = guest.succeed(["flatpak", "list", "--system", "--columns=application"]).split()
    missing = sorted(wanted - set(installed))
    assert not missing, f"{_SERVICE} has ended, and these are not installed: {', '.join(missing)}"
