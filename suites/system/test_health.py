"""The running system is in order: its journal, its disk, its clock, its names, and the services that people rely on."""

from __future__ import annotations

import re
import socket
import time

import pytest

from pytest_bootc.guest import Guest
from pytest_bootc.image import Transport
from pytest_bootc.model import ResolvedImage

_CRITICAL = 2
_SHOWN_LINES = 20
_LEAST_FREE_PERCENT = 15
_CLOCK_SECONDS = 60.0
_UNLOADED = ("not-found", "bad-setting", "error")
# What `systemctl enable` has made; templates without an instance cannot be asked for.
_ENABLED = "cd /etc/systemd/system && find . -path './*.wants/*' -o -path './*.requires/*'"
_HOST = re.compile(r"(?P<name>[^/:\[]+)[:/]")
_NO_PUBLIC_NAME = re.compile(r"localhost|[\d.]+")
_PUBLIC_NAME = "ghcr.io"


def test_the_journal_has_nothing_critical(guest: Guest) -> None:
    """Nothing was logged since the boot with the priorities *emerg*, *alert* and *crit* (syslog(3), 0 to 2)."""
    lines = [str(entry) for entry in guest.journal(priority=_CRITICAL)]
    told = "\n".join(f"  {line}" for line in lines[-_SHOWN_LINES:])
    assert not lines, f"{len(lines)} critical messages in the journal of this boot, the last of them:\n{told}"


def test_var_has_room(guest: Guest) -> None:
    """At least 15 % of /var are free, so that the next update, containers and the journal have room (df(1))."""
    result = guest.execute(["df", "-P", "-k", "/var"])
    assert result.status == 0, f"df cannot tell how full /var is: {result.stderr.strip()}"
    _, blocks, _, available, *_ = result.stdout.splitlines()[-1].split()
    free = 100 * int(available) // int(blocks)
    assert free >= _LEAST_FREE_PERCENT, f"{free} % of /var are free ({int(available) // 1024} MiB), less than 15 %"


def test_the_clock_is_right(guest: Guest) -> None:
    """The clock is within a minute of the host's, or the guest says that it is synchronised (timedatectl(1)).

    An image that takes the hardware's clock for local time is off by hours (adjtime_config(5)); then certificates
    are not valid yet, and updates fail.
    """
    before = time.time()
    told = float(guest.succeed(["date", "+%s"]))
    ahead, behind = told - time.time(), before - (told + 1)
    if max(ahead, behind) <= _CLOCK_SECONDS:
        return
    synchronised = guest.execute(["timedatectl", "show", "--property=NTPSynchronized", "--value"]).stdout.strip()
    off = f"{ahead:.0f} s ahead of" if ahead > 0 else f"{behind:.0f} s behind"
    assert synchronised == "yes", f"the clock is {off} the host's, and is not synchronised with any other"


def test_what_is_enabled_exists(guest: Guest) -> None:
    """Every unit that was enabled for the image can be loaded: its file is there, and systemd understands it.

    Enabling makes links in /etc/systemd/system (systemctl(1)); where the package that brought the unit is removed
    from the image later, the link stays, and nothing is started without anybody being told.
    """
    links = [line.removeprefix("./") for line in guest.succeed(_ENABLED).splitlines()]
    wanted = {name: target.rpartition(".")[0] for target, _, name in (link.rpartition("/") for link in sorted(links))}
    names = [name for name in wanted if "@." not in name]
    states = dict(zip(names, (unit.load_state for unit in guest.units(*names)), strict=True))
    broken = [name for name, state in states.items() if state in _UNLOADED]
    told = "\n".join(f"  {name}: {states[name]}, wanted by {wanted[name]}" for name in broken)
    assert not broken, f"units are enabled that cannot be started:\n{told}"


@pytest.mark.needs("network")
def test_names_are_resolved(guest: Guest, image: ResolvedImage | None) -> None:
    """The registry that the image comes from has an address, by whatever nsswitch.conf(5) asks (getent(1)).

    Where the image comes from no registry with a public name, it is ghcr.io that must have one. Where this host, which
    the guest asks, finds no address either, nothing is known about the image.
    """
    name = _registry_of(image) or _PUBLIC_NAME
    result = guest.execute(["getent", "hosts", name])
    if result.status != 0 and not _is_known_here(name):
        pytest.skip(f"{name} has no address on this host either")
    assert result.status == 0, f"{name} has no address: getent {result.outcome} (2: not found)"
    assert re.match(r"[0-9a-fA-F.:]+\s", result.stdout), f"getent found {name}, but printed {result.stdout!r}"


@pytest.mark.needs("unit:display-manager.service")
def test_the_login_screen_is_up(guest: Guest) -> None:
    """An image with a display manager boots to it: that unit and graphical.target are active (systemd.special(7))."""
    _assert_active(guest, "display-manager.service")
    _assert_active(guest, "graphical.target")


@pytest.mark.needs("unit:uupd.timer")
def test_updates_are_made_by_themselves(guest: Guest) -> None:
    """An image with Universal Blue's updater has it on: uupd.timer is enabled and active, and the program starts."""
    _assert_active(guest, "uupd.timer")
    state = guest.unit("uupd.timer").unit_file_state
    assert state.startswith("enabled"), f"uupd.timer is {state}, so no update is made after the next boot"
    result = guest.execute(["uupd", "--help"])
    assert result.status == 0, f"uupd --help {result.outcome}: {result.stderr.strip()}"


@pytest.mark.needs("unit:tailscaled.service")
def test_tailscale_can_be_used(guest: Guest) -> None:
    """An image with Tailscale runs its daemon, and the command that people use is there."""
    _assert_active(guest, "tailscaled.service")
    result = guest.execute(["tailscale", "--version"])
    assert result.status == 0, f"tailscale --version {result.outcome}: {result.stderr.strip()}"
    assert re.match(r"\d+\.\d+", result.stdout), f"tailscale --version printed no version: {result.stdout!r}"


def _assert_active(guest: Guest, name: str) -> None:
    unit = guest.unit(name)
    assert unit.active, f"{name} is {unit.active_state}: {unit.reason}"


def _is_known_here(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except socket.gaierror:
        return False


def _registry_of(image: ResolvedImage | None) -> str | None:
    """The name of the registry's host, if it has one that a name server may know."""
    if image is None or image.reference.transport is not Transport.REGISTRY:
        return None
    host = _HOST.match(image.reference.name)
    return None if host is None or _NO_PUBLIC_NAME.fullmatch(host["name"]) else host["name"]
