"""Bluetooth works: its daemon runs and uses a controller, which the kernel's virtual one stands in for.

Source: bluetoothd(8), org.bluez.Adapter(5), the kernel's driver hci_vhci. Most virtual machines have no controller.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_bootc.errors import WaitTimeoutError
from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM

pytestmark = pytest.mark.needs("unit:bluetooth.service", "command:modprobe --dry-run hci_vhci")

_SECONDS = 10.0
_EMULATOR = "pytest-bootc-btvirt.service"
_ADAPTER = ("org.bluez", "/org/bluez/hci0", "org.bluez.Adapter1")


@pytest.fixture
def bluetooth(guest: Guest) -> Iterator[None]:
    """The kernel can do Bluetooth, without which the daemon is not started; it is left as it was found."""
    ran = guest.unit("bluetooth.service").active
    guest.succeed(["modprobe", "hci_vhci"])
    yield
    if not ran:
        guest.succeed(["systemctl", "stop", "bluetooth.service"])


@pytest.fixture
def controller(bluetooth: None, guest: Guest) -> Iterator[None]:
    """There is a controller, which a program in the guest makes."""
    command = ["systemd-run", "--quiet", "--collect", f"--unit={_EMULATOR}", "btvirt", "-l"]
    guest.succeed(command)
    yield
    guest.succeed(["systemctl", "stop", _EMULATOR])


@pytest.mark.usefixtures("bluetooth")
def test_the_daemon_runs(guest: Guest) -> None:
    """bluetooth.service starts where the kernel can do Bluetooth, and is there for applications as org.bluez."""
    started = guest.execute(["systemctl", "start", "bluetooth.service"])
    unit = guest.unit("bluetooth.service")
    assert started.status == 0, f"bluetooth.service cannot be started: {started.stderr.strip()}"
    assert unit.active, f"bluetooth.service is {unit.active_state}: {unit.reason}"
    owner = guest.execute(["busctl", "--system", "status", "org.bluez"])
    assert owner.status == 0, f"bluetooth.service is active, but nobody is org.bluez: {owner.stderr.strip()}"


@pytest.mark.needs("program:btvirt")
@pytest.mark.usefixtures("controller")
def test_a_controller_is_used(vm: VM, guest: Guest) -> None:
    """A controller that appears is known to the daemon within seconds, and can be switched on."""
    guest.succeed(["systemctl", "start", "bluetooth.service"])
    limit = _SECONDS * vm.facts.time_factor
    try:
        guest.wait_until_succeeds(["busctl", "get-property", *_ADAPTER, "Address"], timeout=limit)
    except WaitTimeoutError as error:
        raise AssertionError(f"bluetoothd does not know the controller after {limit:.0f} s: {error}") from None
    switched = guest.execute(["busctl", "set-property", *_ADAPTER, "Powered", "b", "true"], timeout=limit)
    assert switched.status == 0, f"the controller cannot be switched on: {switched.stderr.strip()}"
    powered = guest.succeed(["busctl", "get-property", *_ADAPTER, "Powered"]).strip()
    assert powered == "b true", f"the controller was switched on, and Powered is {powered}"
