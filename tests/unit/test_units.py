from __future__ import annotations

import subprocess

import pytest

from pytest_bootc.errors import GuestError
from pytest_bootc.units import Job, as_user, parse_jobs, parse_units

RUNNING = """\
Type=notify
Result=success
ExecMainStatus=0
Id=ssh.service
Names=sshd.service ssh.service
Description=OpenBSD Secure Shell server
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
InactiveExitTimestampMonotonic=9120233
ConditionResult=yes
AssertResult=yes
ConditionTimestampMonotonic=9118020
AssertTimestampMonotonic=9118021
"""
FAILED = """\
Type=oneshot
Result=exit-code
ExecMainStatus=1
Id=greenboot-healthcheck.service
Names=greenboot-healthcheck.service
Description=greenboot Health Checks Runner = all of them
LoadState=loaded
ActiveState=failed
SubState=failed
UnitFileState=enabled
InactiveExitTimestampMonotonic=20100100
ConditionResult=yes
AssertResult=yes
ConditionTimestampMonotonic=20100090
AssertTimestampMonotonic=20100091
"""
SKIPPED = """\
Type=oneshot
Result=success
ExecMainStatus=0
Id=systemd-firstboot.service
Names=systemd-firstboot.service
Description=First Boot Wizard
LoadState=loaded
ActiveState=inactive
SubState=dead
UnitFileState=static
InactiveExitTimestampMonotonic=0
ConditionResult=no
AssertResult=no
ConditionTimestampMonotonic=4311270
AssertTimestampMonotonic=0
"""
ENDED = """\
Type=oneshot
Result=success
ExecMainStatus=0
Id=systemd-tmpfiles-clean.service
Names=systemd-tmpfiles-clean.service
Description=Cleanup of Temporary Directories
LoadState=loaded
ActiveState=inactive
SubState=dead
UnitFileState=static
InactiveExitTimestampMonotonic=900100
ConditionResult=yes
AssertResult=yes
ConditionTimestampMonotonic=900090
AssertTimestampMonotonic=900091
"""
MISSING = """\
Id=nothing.service
Names=nothing.service
Description=nothing.service
LoadState=not-found
ActiveState=inactive
SubState=dead
InactiveExitTimestampMonotonic=0
ConditionResult=no
AssertResult=no
ConditionTimestampMonotonic=0
AssertTimestampMonotonic=0
"""
MOUNT = """\
Result=success
Id=-.mount
Names=-.mount
Description=Root Mount
LoadState=loaded
ActiveState=active
SubState=mounted
UnitFileState=generated
InactiveExitTimestampMonotonic=2300000
ConditionResult=no
AssertResult=no
ConditionTimestampMonotonic=0
AssertTimestampMonotonic=0
"""
QUEUED = """\
Type=simple
Result=success
ExecMainStatus=0
Id=getty@tty1.service
Names=getty@tty1.service
Description=Getty on tty1
LoadState=loaded
ActiveState=inactive
SubState=dead
UnitFileState=enabled
InactiveExitTimestampMonotonic=0
Job=131
ConditionResult=no
AssertResult=no
ConditionTimestampMonotonic=0
AssertTimestampMonotonic=0
"""


def one(text: str):
    (unit,) = parse_units(text)
    return unit


def test_many_units_come_in_their_order():
    units = parse_units("\n".join((RUNNING, FAILED, MISSING)))

    assert [unit.name for unit in units] == ["ssh.service", "greenboot-healthcheck.service", "nothing.service"]


def test_a_unit_has_what_systemd_says():
    unit = one(RUNNING)

    assert (unit.load_state, unit.active_state, unit.sub_state, unit.result) == (
        "loaded",
        "active",
        "running",
        "success",
    )
    assert (unit.unit_file_state, unit.type, unit.exec_main_status, unit.job) == ("enabled", "notify", 0, None)
    assert unit.names == ("sshd.service", "ssh.service")
    assert (unit.condition_result, unit.assert_result) == (True, True)


def test_a_value_may_have_an_equals_sign():
    assert one(FAILED).description == "greenboot Health Checks Runner = all of them"


def test_a_failed_unit_is_judged():
    unit = one(FAILED)

    assert unit.failed
    assert unit.judged
    assert str(unit) == "greenboot-healthcheck.service (failed/failed, result exit-code)"


def test_a_unit_that_a_condition_skipped_is_not_judged():
    unit = one(SKIPPED)

    assert (unit.condition_result, unit.assert_result) == (False, None)
    assert not unit.judged
    assert not unit.failed


def test_a_unit_that_has_done_its_work_is_judged():
    assert one(ENDED).judged


def test_a_check_that_was_never_made_has_no_result():
    assert (one(MISSING).condition_result, one(MISSING).judged) == (None, False)
    assert (one(MOUNT).condition_result, one(MOUNT).judged) == (None, True)
    assert (one(MOUNT).type, one(MOUNT).exec_main_status) == ("", None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FAILED, "it has failed (result exit-code)"),
        (SKIPPED, "it was skipped by a condition"),
        (ENDED, "it ran and has ended (result success)"),
        (MISSING, "there is no such unit"),
        (QUEUED, "it was not started, or was skipped, and systemd has no job left"),
        (
            SKIPPED.replace("ConditionResult=no", "ConditionResult=yes").replace(
                "AssertTimestampMonotonic=0", "AssertTimestampMonotonic=4311271"
            ),
            "one of its assertions does not hold",
        ),
    ],
)
def test_why_a_unit_is_not_active(text, reason):
    assert one(text).reason == reason


def test_a_queued_unit_has_a_job():
    assert one(QUEUED).job == 131


def test_something_else_is_an_error():
    with pytest.raises(GuestError, match="cannot be read") as caught:
        parse_units("Id=a.service\nLoadState=loaded\n")

    assert "ActiveState" in caught.value.details


def test_jobs():
    listed = (
        "131 getty@tty1.service                            start waiting\n"
        "  7 dev-disk-by\\x2dlabel-boot.device              start running\n"
    )

    assert parse_jobs(listed) == [
        Job(131, "getty@tty1.service", "start", "waiting"),
        Job(7, r"dev-disk-by\x2dlabel-boot.device", "start", "running"),
    ]
    assert parse_jobs("No jobs running.\n") == []


def test_a_users_own_manager_is_asked_in_his_name():
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    uid = subprocess.check_output(["id", "-u"], text=True).strip()
    shell, option, script, *_, program, asked_for, verb = as_user(user, ("systemctl", "show"))

    assert (program, asked_for, verb) == ("systemctl", "--user", "show")
    environment = subprocess.check_output([shell, option, script, "sh", user, "printenv"], text=True).splitlines()
    assert f"XDG_RUNTIME_DIR=/run/user/{uid}" in environment
    assert f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus" in environment


def test_the_systems_own_manager_is_asked_directly():
    assert as_user(None, ("systemctl", "show")) == ("systemctl", "show")
