"""The image boots: systemd comes to rest, and every unit that was started is well."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import SSHCommandError, WaitTimeoutError
from pytest_bootc.evidence import EvidenceRecord
from pytest_bootc.guarding import Exempting
from pytest_bootc.guest import Guest
from pytest_bootc.machine.base import PowerState
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import Finding, Trouble
from pytest_bootc.units import Job, Unit, status_command

_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STILL_BOOTING = ("initializing", "starting")
_SHOWN_UNITS = 10
# On a host with KVM; an emulated guest is given as many times more as it is slower, but no age: it is up already.
_SETTLE_SECONDS = 90.0
_LONGEST_SETTLE_SECONDS = 300.0
_JOB_SECONDS = 10.0
_CHART_SECONDS = 2.0
_MOST_CHART_SECONDS = 10.0


def test_the_guest_is_up(vm: VM, guest: Guest) -> None:
    """The image boots, its sshd lets root in, and the machine stays on.

    Everything else stands on this: where the image does not boot, this test says why, and no other one is run.
    The boot id is the kernel's (random(4)).
    """
    boot_id = guest.boot_id()
    assert _BOOT_ID.fullmatch(boot_id), f"the kernel's boot id is {boot_id!r}, which is no UUID"
    state = vm.power_state()
    assert state is PowerState.RUNNING, f"root can log in, but the machine is {state.value}"


def test_the_boot_comes_to_an_end(vm: VM, guest: Guest, evidence: EvidenceRecord) -> None:
    """The boot comes to an end: nothing that the default target wants is still being started.

    What systemctl(1) calls ``initializing`` and ``starting`` under *is-system-running* must end. A service that
    never gets ready keeps every user of ``--wait`` waiting, and updates that are to be undone when a boot fails are
    never counted as good (systemd's "Automatic Boot Assessment").

    Where a report is written, it shows the chart of systemd-analyze(1).
    """
    limit = min(_SETTLE_SECONDS * vm.facts.time_factor, _LONGEST_SETTLE_SECONDS)
    try:
        state = guest.execute(["systemctl", "is-system-running", "--wait"], timeout=limit).stdout.strip()
    except SSHCommandError:
        # Timed out: the guest is asked once more, for what keeps it.
        state = guest.system_state()
    if state in _STILL_BOOTING:
        waiting = _told_jobs(guest.stuck_jobs())
        raise AssertionError(f"systemd has not finished the boot in {limit:.0f} s; it waits for\n{waiting}")
    if evidence.reported and (chart := _chart(guest, min(_CHART_SECONDS * vm.facts.time_factor, _MOST_CHART_SECONDS))):
        evidence.attach("boot.svg", chart, always=True)


def test_no_job_is_stuck(vm: VM, guest: Guest) -> None:
    """Once the boot is done, systemd's job queue gets empty.

    A job that stays is a unit which is for ever being started or stopped (``systemctl list-jobs``). Jobs that come
    and go, as timers make them, do not count.
    """
    stuck: set[Job] = set(guest.stuck_jobs())

    def done() -> bool:
        stuck.intersection_update(guest.stuck_jobs())
        return not stuck

    limit = Deadline.after(_JOB_SECONDS * vm.facts.time_factor)
    try:
        wait_until(done, limit, what="the job queue")
    except WaitTimeoutError:
        # The others wait for those that run.
        names = sorted(job.unit for job in stuck if job.state == "running")
        status = _told_units(guest, guest.units(*names))
        message = f"jobs of systemd are stuck for {limit.seconds:.0f} s:\n{_told_jobs(list(stuck))}\n\n{status}"
        raise AssertionError(message) from None


def test_no_unit_has_failed(guest: Guest, exemptions: Exempting, request: pytest.FixtureRequest) -> None:
    """No unit has failed (``systemctl --failed``), so that systemd calls the system *running*, not *degraded*.

    Units that were skipped by a condition are no proof of anything: the report lists them as not judged.
    """
    request.node.user_properties += [("not judged", name) for name in guest.skipped_units()]
    units = {unit.name: unit for unit in guest.failed_units()}
    counting = exemptions.without([Finding(Trouble.FAILED_UNIT, name) for name in units])
    failed = [units[finding.text] for finding in counting]
    names = [unit.name for unit in failed]
    assert not names, f"failed units: {', '.join(names)}\n\n{_told_units(guest, failed)}"
    state = guest.system_state()
    assert state == "running" or units, f"no unit has failed, but systemctl is-system-running says {state!r}"


def test_the_default_target_is_reached(guest: Guest) -> None:
    """The target that the image boots into by default is active (``systemctl get-default``, systemd.special(7))."""
    result = guest.execute(["systemctl", "get-default"])
    target = result.stdout.strip()
    assert result.status == 0, f"the image has no default target: {result.stderr.strip()}"
    unit = guest.unit(target)
    reason = unit.reason if unit.job is None else "it has still to be started"
    assert unit.active, f"{target} is the default target and is {unit.active_state}: {reason}"


def _chart(guest: Guest, seconds: float) -> str:
    """What systemd-analyze(1) plots; empty where the image has it not, or where it takes too long."""
    # Without the system bus it asks systemd itself, which takes a third less time, and starts no other service.
    command = "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere systemd-analyze --no-pager plot"
    try:
        result = guest.execute(command, timeout=seconds)
    except SSHCommandError:
        return ""
    return result.stdout if result.status == 0 else ""


def _told_jobs(jobs: Sequence[Job]) -> str:
    lines = [f"  {job.unit}: {job.type}, {job.state}" for job in sorted(jobs, key=lambda job: job.unit)]
    return "\n".join(lines) or "  no job that it would name"


def _told_units(guest: Guest, units: Sequence[Unit]) -> str:
    """What systemctl status tells people of the units, with the last lines of the journal of each."""
    parts = [guest.execute(status_command(unit.name)).stdout.strip() or str(unit) for unit in units[:_SHOWN_UNITS]]
    if len(units) > _SHOWN_UNITS:
        parts.append(f"... and {len(units) - _SHOWN_UNITS} more")
    return "\n\n".join(parts)
