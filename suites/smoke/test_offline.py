"""Without a network the system comes up and works all the same: nobody waits for it, nothing fails for want of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM

_WAITERS = frozenset(
    ("NetworkManager-wait-online.service", "network-online.target", "systemd-networkd-wait-online.service")
)
_PROPERTIES = "--property=Id,After,InactiveExitTimestampMonotonic"
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_SECONDS = 30.0
# Some of what the kernel tells of a route it does not take back: how long that is still good, its next hop's number.
_CUT = r"""
for version in 4 6; do
    ip -$version route show default | sed -E 's/ (expires [0-9]+sec|error -?[0-9]+|nhid [0-9]+|linkdown)//g' |
        while read -r route; do
            echo "ip -$version route replace $route"
            ip -$version route delete $route || echo "cannot cut: $route" >&2
        done
done
"""


@pytest.fixture
def offline(guest: Guest) -> Iterator[None]:
    """Nothing beyond the machine's own network can be reached, until the test ends: there is no default route."""
    cut = guest.execute(_CUT)
    try:
        assert not cut.stderr, f"the default routes cannot be removed: {cut.stderr.strip()}"
        yield
    finally:
        if cut.stdout:
            guest.succeed(cut.stdout)


@pytest.mark.parametrize(
    "unit",
    [
        "systemd-user-sessions.service",
        pytest.param("display-manager.service", marks=pytest.mark.needs("unit:display-manager.service")),
    ],
)
def test_no_login_waits_for_the_network(guest: Guest, unit: str) -> None:
    """Logins are let in, and the login screen is shown, without anybody's waiting for the network to be up.

    Where they do, a laptop on a train shows nothing for minutes (systemd-networkd-wait-online.service(8)). What counts
    is what waited in this boot, however many units are in between; others only could.
    """
    told = guest.succeed(["systemctl", "--no-pager", "show", _PROPERTIES, "*"])
    units = [dict(line.split("=", 1) for line in part.splitlines()) for part in told.strip().split("\n\n")]
    started = {each["Id"]: each["After"].split() for each in units if each["InactiveExitTimestampMonotonic"] != "0"}
    name = guest.succeed(["systemctl", "show", "--property=Id", "--value", unit]).strip()
    assert name in started, f"{unit} was not started in this boot"
    chain = _chain(name, started)
    assert not chain, f"{' waits for '.join(chain)}"


@pytest.mark.usefixtures("offline")
def test_the_default_target_stays(guest: Guest) -> None:
    """Without a network the default target stays up, and so does the login screen, where there is one."""
    target = guest.succeed(["systemctl", "get-default"]).strip()
    for unit in guest.units(target, "display-manager.service"):
        there = unit.load_state != "not-found"
        assert unit.active or not there, f"without a network {unit.name} is {unit.active_state}: {unit.reason}"


@pytest.mark.usefixtures("offline")
@pytest.mark.needs("program:getent", "program:busctl")
def test_the_machine_knows_itself(guest: Guest) -> None:
    """Without a network the system bus answers, and the names of the machine itself have addresses.

    Those are localhost and the host name, which nss-myhostname(8) or systemd-resolved(8) answer for.
    """
    bus = guest.execute(["busctl", "--system", "call", *_BUS, "GetId"])
    assert bus.status == 0, f"without a network the system bus does not answer: {bus.stderr.strip()}"
    for name in ("localhost", guest.succeed(["uname", "-n"]).strip()):
        found = guest.execute(["getent", "hosts", name])
        assert found.status == 0, f"without a network {name} has no address: getent {found.outcome} (2: not found)"


@pytest.mark.usefixtures("offline")
def test_the_journal_can_be_read(guest: Guest) -> None:
    """Without a network the journal goes on: a message that is logged now can be read (logger(1), journalctl(1))."""
    cursor = guest.journal_cursor()
    guest.succeed(["logger", "--tag", "pytest-bootc", "without a network"])
    guest.succeed(["journalctl", "--sync"])
    messages = [entry.message for entry in guest.journal(since_cursor=cursor)]
    assert "without a network" in messages, f"a message that was logged is not in the journal; there is {messages}"


@pytest.mark.usefixtures("offline")
@pytest.mark.needs("program:bootc", "deployment")
def test_bootc_tells_its_status(vm: VM, guest: Guest) -> None:
    """Without a network ``bootc status`` still tells what is booted, at once (bootc-status(8))."""
    result = guest.execute(["bootc", "status", "--json"], timeout=_SECONDS * vm.facts.time_factor)
    assert result.status == 0, f"without a network bootc status {result.outcome}: {result.stderr.strip()}"
    status = json.loads(result.stdout).get("status", {})
    assert status.get("booted"), "without a network bootc does not know what is booted"


def _chain(unit: str, after: Mapping[str, list[str]]) -> list[str]:
    """The units from one on, each of which waited for the next, to one that waits for the network, if there is one."""
    known: dict[str, list[str]] = {unit: [unit]}
    waiting = [unit]
    while waiting:
        current = waiting.pop(0)
        for before in after[current]:
            if before in known or before not in after:
                continue
            known[before] = [*known[current], before]
            if before in _WAITERS:
                return known[before]
            waiting.append(before)
    return []
