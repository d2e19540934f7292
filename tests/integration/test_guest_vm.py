"""Units, jobs and the journal of a guest that systemd has booted, through the image's own sshd."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import SSHCommandError
from pytest_bootc.guest import Guest
from pytest_bootc.machine.base import PULSE
from pytest_bootc.ssh import SSHSession
from pytest_bootc.units import UnitError

pytestmark = [pytest.mark.integration, pytest.mark.qemu]

# Emulated, on a host that does other things as well.
_SECONDS = 120.0


@pytest.fixture(scope="module")
def session(server_vm) -> Iterator[SSHSession]:
    limit = Deadline.after(_SECONDS)
    with SSHSession.connect(server_vm.ssh_endpoint(limit), limit, keepalive=60) as session:
        yield session


@pytest.fixture
def guest(session) -> Guest:
    return Guest(session).within(Deadline.after(_SECONDS))


@pytest.fixture
def make_unit(session) -> Iterator[Callable[[str, str], str]]:
    """Put a unit below /run; it is stopped and removed after the test."""
    made = []

    def make(name: str, text: str) -> str:
        path = f"/run/systemd/system/{name}"
        session.succeed(["mkdir", "-p", "/run/systemd/system"], timeout=_SECONDS)
        session.write_file(path, text.encode(), timeout=_SECONDS)
        session.succeed("systemctl daemon-reload", timeout=_SECONDS)
        made.append((name, path))
        return name

    yield make
    for name, path in made:
        session.execute(f"systemctl stop {name}; rm {path}; systemctl reset-failed {name}", timeout=_SECONDS)
    session.succeed("systemctl daemon-reload", timeout=_SECONDS)


def test_a_guest_has_the_same_pulse_while_systemd_and_journald_do_nothing(server_vm, session, make_unit):
    def pulse() -> str:
        status, told = server_vm.control(PULSE, Deadline.after(_SECONDS))
        assert status == 0
        return told

    def rests() -> bool:
        before = pulse()
        session.succeed("cat /etc/os-release", timeout=_SECONDS)
        return pulse() == before

    # Something may just be going on.
    wait_until(rests, Deadline.after(_SECONDS), what="a guest that does nothing")
    make_unit("broken.service", "[Service]\nExecStart=/bin/false\n")
    before = pulse()
    session.execute("systemctl start broken.service; sleep 0.1", timeout=_SECONDS)
    assert pulse() != before
    wait_until(rests, Deadline.after(_SECONDS), what="a guest that does nothing")
    before = pulse()
    session.execute("echo something >/dev/kmsg; sleep 0.1", timeout=_SECONDS)
    assert pulse().splitlines()[1] != before.splitlines()[1]


def test_units_of_every_kind_are_told_in_one_go(guest):
    ssh, first_boot, nothing, root = guest.units(
        "sshd.service", "systemd-firstboot.service", "nothing.service", "-.mount"
    )

    assert (ssh.name, ssh.active, ssh.type, ssh.judged) == ("ssh.service", True, "notify", True)
    assert (first_boot.condition_result, first_boot.judged) == (False, False)
    assert (nothing.load_state, nothing.judged) == ("not-found", False)
    assert (root.active, root.condition_result, root.judged) == (True, None, True)


def test_a_unit_that_is_up_is_not_waited_for(guest):
    assert guest.wait_for_unit("ssh.service").active
    assert guest.unit("default.target", user="root").name == "default.target"


def test_a_slow_unit_is_waited_for_and_has_a_job_till_then(guest, session, make_unit):
    name = make_unit("slow.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 5\n")
    session.succeed(f"systemctl start --no-block {name}", timeout=_SECONDS)

    assert [(job.unit, job.type) for job in guest.stuck_jobs()] == [(name, "start")]
    assert guest.wait_for_unit(name).sub_state == "exited"
    assert guest.stuck_jobs() == []


def test_a_failed_unit_is_listed_and_not_waited_for(guest, session, make_unit):
    name = make_unit("bad.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no good; exit 3'\n")
    session.fail(f"systemctl start {name}", timeout=_SECONDS)

    (failed,) = guest.failed_units()
    assert (failed.name, failed.result, failed.exec_main_status) == (name, "exit-code", 3)
    assert guest.system_state() == "degraded"
    with pytest.raises(UnitError, match=r"bad\.service will not become active: it has failed") as caught:
        guest.wait_for_unit(name)
    assert "no good" in caught.value.details


def test_a_unit_that_a_condition_skipped_is_not_waited_for_nor_judged(guest, session, make_unit):
    # Something must refer to it, or systemd forgets it.
    name = make_unit("skipped.service", "[Unit]\nConditionPathExists=/no\n[Service]\nExecStart=/bin/sleep 99\n")
    make_unit("keeps.service", f"[Unit]\nWants={name}\n[Service]\nExecStart=/bin/sleep 999\n")
    session.succeed("systemctl start keeps.service", timeout=_SECONDS)

    assert not guest.unit(name).judged
    with pytest.raises(UnitError, match="it was skipped by a condition") as caught:
        guest.wait_for_unit(name)
    assert "ConditionPathExists=/no" in caught.value.details


def test_a_unit_that_nobody_starts_is_not_waited_for(guest):
    with pytest.raises(UnitError, match="there is no such unit"):
        guest.wait_for_unit("nothing.service")


def test_the_journal_after_a_cursor(guest, session):
    cursor = guest.journal_cursor()
    session.succeed("logger -p user.err -t one 'an error'", timeout=_SECONDS)
    session.succeed(r"printf 'not \377 text\n' | logger -t two", timeout=_SECONDS)
    session.succeed("head -c 9000 /dev/zero | tr '\\0' x | logger --size 9999 -t three", timeout=_SECONDS)

    entries = [entry for entry in guest.journal(since_cursor=cursor) if entry.identifier in ("one", "two", "three")]
    assert [entry.message for entry in entries] == ["an error", "not \ufffd text", "x" * 9000]
    errors = guest.journal(since_cursor=cursor, priority="err")
    assert [entry.message for entry in errors] == ["an error"]
    assert len(guest.journal(since_cursor=entries[0].cursor, limit=1)) == 1


def test_the_journal_of_a_unit_and_of_the_newest_entries(guest):
    assert any("listening" in entry.message for entry in guest.journal(unit="ssh.service"))
    newest = guest.journal(limit=3)
    assert len(newest) == 3
    assert newest == sorted(newest, key=lambda entry: entry.time)


def test_the_live_root_is_no_deployment(guest):
    assert guest.deployment() is None


def test_an_overdue_command_is_ended_in_the_guest(session):
    with pytest.raises(SSHCommandError, match="did not end within 2 s") as caught:
        session.execute("echo began; sleep 4711; true", timeout=2)

    assert "Its processes in the guest were ended" in caught.value.details
    session.fail(["pgrep", "-f", "sleep 4711"], timeout=_SECONDS)
