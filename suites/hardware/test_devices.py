"""Devices can be used: udev understands all its rules, and what shows pictures has a driver."""

from __future__ import annotations

import pytest

from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM

_VERIFY_SECONDS = 60.0
# A display controller's class begins with 03 (pci.ids); its card may hang on a device below it, as that of virtio does.
_DISPLAYS = "grep -q ^0x03 /sys/bus/pci/devices/*/class"
_CARDS = r"""
for device in $(grep -l ^0x03 /sys/bus/pci/devices/*/class); do
    cd "${device%/class}/"
    echo "${device%/class}" "$(cat vendor):$(cat device)" $(find . -regex '.*/drm/card[0-9]+' -printf '%f ')
done
"""
_NODES = "find /dev/dri -type c -name 'card*' -printf '%f '"


@pytest.mark.needs("program:udevadm", "command:udevadm verify --help")
def test_udev_understands_its_rules(vm: VM, guest: Guest) -> None:
    """Every rules file that udev reads is right, and the users and groups in it are known (udevadm(8), *verify*).

    udev leaves out what it does not understand, and goes on: the device is there, and nobody may use it.
    """
    command = ["udevadm", "verify", "--no-style", "--no-summary"]
    result = guest.execute(command, timeout=_VERIFY_SECONDS * vm.facts.time_factor)
    said = (result.stderr + result.stdout).strip()
    assert result.status == 0, f"udev does not understand all its rules:\n{said}"


@pytest.mark.needs(f"command:{_DISPLAYS}")
def test_displays_can_be_used(guest: Guest) -> None:
    """Every display controller on the PCI bus has a driver of the kernel's that made it a card in /dev/dri.

    Without one there is no Wayland; what is seen on the screen then is what the firmware has left there.
    """
    nodes = guest.execute(_NODES).stdout.split()
    displays = [line.split() for line in guest.succeed(_CARDS).splitlines()]
    assert displays, "the display controllers cannot be listed"
    for path, ids, *cards in displays:
        assert cards, f"the display controller {ids} ({path}) has no card: no driver is for it, or that has failed"
        missing = [card for card in cards if card not in nodes]
        assert not missing, f"the display controller {ids} has {missing[0]}, and there is no /dev/dri/{missing[0]}"
