from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pytest_bootc import health
from pytest_bootc.errors import Blame, GuestError
from pytest_bootc.health import ALL_IS_WELL, CHECK, Ledger, Reading, parse
from pytest_bootc.model import Finding, Trouble
from pytest_bootc.units import Job

PANIC = Finding(Trouble.PANIC, "Kernel panic - not syncing: sysrq triggered crash")
OOM = Finding(Trouble.OOM, "Out of memory: Killed process 812 (gnome-shell)")

# systemctl --plain --no-legend --full, of systemd 252 and 257.
FAILED = """\
broken.service                    loaded failed failed A service that fails
dev-disk-by\\x2dlabel-data.device loaded failed failed dev-disk-by\\x2dlabel-data.device
var-lib-x.mount                   not-found failed failed /var/lib/x
"""
JOBS = """\
 87 stuck.service                      start running
 90 systemd-update-utmp-runlevel.service start waiting
102 multi-user.target                  start waiting
"""


def entry(cursor: int, message: object, **fields: object) -> str:
    """A line of journalctl --output=json."""
    told = {
        "__CURSOR": f"s=d2f1c5;i={cursor:x};b=5c1b;m=1c9f8;t=63f1;x=9b",
        "__REALTIME_TIMESTAMP": "1764000000250000",
        "__MONOTONIC_TIMESTAMP": "31250000",
        "__SEQNUM": str(cursor),
        "_BOOT_ID": "5c1b0e0a4a7b4c0f9a0d9c5b2f6f7e11",
        "MESSAGE": message,
    }
    return json.dumps(told | fields)


def core(cursor: int, program: str = "/usr/bin/crasher", name: str = "SIGSEGV", **fields: object) -> str:
    message = f"Process 812 ({program}) of user 0 dumped core.\n\nStack trace of thread 812:\n#0  0x0000 main\n"
    dump = {"COREDUMP_PID": "812", "COREDUMP_EXE": program, "COREDUMP_SIGNAL_NAME": name, "COREDUMP_UID": "0"}
    return entry(cursor, message, **(dump | fields))


DENIAL = 'avc:  denied  { read } for  pid=812 comm="httpd" name="shadow" dev="vda3" ino=4711 permissive=0'
APPARMOR = 'apparmor="DENIED" operation="open" profile="/usr/bin/man" name="/etc/shadow" pid=812'


def answer(failed: str = "", jobs: str = "", *journal: str) -> str:
    lines = "".join(f"{line}\n" for line in journal)
    return f"\036failed\n{failed}\036jobs\n{jobs}\036journal\n{lines}\036end\n"


def reading(failed: Sequence[str] = (), jobs: Sequence[Job] = (), *journal: str) -> Reading:
    return Reading(tuple(failed), tuple(jobs), parse(answer("", "", *journal)).journal)


def entered(ledger: Ledger, told: Reading, now: float = 0.0, slowness: float = 1.0) -> list[str]:
    return [str(finding) for finding in ledger.enter(told, (), now, slowness)]


def test_a_guest_in_which_nothing_is_wrong() -> None:
    assert parse(ALL_IS_WELL) == Reading((), (), ())
    assert parse(answer()) == Reading((), (), ())
    assert Ledger().enter(parse(ALL_IS_WELL), (), 0.0, 1.0) == []


def test_what_systemctl_and_journalctl_print() -> None:
    told = parse(answer(FAILED, JOBS, core(1), entry(2, f"AVC {DENIAL}")))
    assert told.failed == ("broken.service", "dev-disk-by\\x2dlabel-data.device", "var-lib-x.mount")
    assert told.jobs == (
        Job(87, "stuck.service", "start", "running"),
        Job(90, "systemd-update-utmp-runlevel.service", "start", "waiting"),
        Job(102, "multi-user.target", "start", "waiting"),
    )
    assert [line.fields.get("COREDUMP_EXE") for line in told.journal] == ["/usr/bin/crasher", None]


def test_noise_before_the_answer_and_lines_between() -> None:
    told = parse(
        "a profile says hello\r\n" + answer("\n  broken.service loaded failed failed x\n\n", "No jobs running.\n")
    )
    assert (told.failed, told.jobs) == (("broken.service",), ())


@pytest.mark.parametrize("cut", [*range(0, len(answer(FAILED, JOBS)) - 6, 7), -5, -4, -3, -2])
def test_an_answer_that_was_cut_off(cut: int) -> None:
    with pytest.raises(GuestError) as caught:
        parse(answer(FAILED, JOBS)[:cut])
    assert caught.value.brief == "the guest did not say how it is"
    assert caught.value.blame is Blame.IMAGE


def test_only_the_end_of_a_strange_answer_is_shown() -> None:
    with pytest.raises(GuestError) as caught:
        parse("x" * 5000 + "the end")
    assert len(caught.value.details) == 1000
    assert caught.value.details.endswith("the end")


@pytest.mark.parametrize(
    "said",
    [
        "sh: 1: systemctl: not found\n",
        "Failed to list units: Connection timed out\n",
        "Failed to connect to bus: No such file or directory\n",
        "System has not been booted with systemd as init system (PID 1). Can't operate.\n",
        "Failed to connect to bus: Host is down\n" + FAILED,
        FAILED + "Failed to list units: Transport endpoint is not connected\n",
    ],
)
def test_complaints_in_the_place_of_units(said: str) -> None:
    with pytest.raises(GuestError) as caught:
        parse(answer(said))
    assert caught.value.brief == "systemd does not say which units have failed"
    assert caught.value.details == said.strip("\n")


@pytest.mark.parametrize(
    "said", ["Failed to open journal: Permission denied", "sh: 1: journalctl: not found", '{"__CURSOR": "s=1"}', "[1]"]
)
def test_complaints_in_the_place_of_the_journal(said: str) -> None:
    with pytest.raises(GuestError, match="journalctl printed something that cannot be read"):
        parse(answer("", "", core(1), said))


@pytest.mark.parametrize(
    "said",
    [
        "Journal file /var/log/journal/5c1b/system.journal is truncated, ignoring file.",
        "Journal file /var/log/journal/5c1b/system@0.journal corrupted, ignoring file.",
        "Journal file /run/log/journal/5c1b/user-1000.journal uses an unsupported feature, ignoring file.",
    ],
)
def test_one_file_of_the_journal_that_cannot_be_read_hides_nothing(said: str) -> None:
    told = parse(answer("", "", said, core(1), said))
    assert [line.fields["COREDUMP_PID"] for line in told.journal] == ["812"]


def test_a_journal_that_was_cut_off_in_the_middle_of_an_entry() -> None:
    entries = [core(number, "/usr/bin/" + "x" * 5000) for number in range(300)]
    printed = "".join(f"{line}\n" for line in entries)
    kept = printed.encode()[-health._MOST_BYTES :].decode()
    told = parse(answer("", "", kept.removesuffix("\n")))
    assert 80 < len(told.journal) < 100
    assert told.journal[-1].cursor == json.loads(entries[-1])["__CURSOR"]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        # From the audit socket, and as the kernel prints it where nobody listens to that.
        (f"AVC {DENIAL}", DENIAL),
        (f"audit: type=1400 audit(1764000000.123:456): {DENIAL}", DENIAL),
        (f"type=1400 audit(1764000000.123:456): {DENIAL}", DENIAL),
        (f"AVC {APPARMOR}", APPARMOR),
        (f"audit: type=1400 audit(1764000000.123:456): {APPARMOR}", APPARMOR),
        (list(f"AVC {DENIAL}\xff".encode("latin-1")), f"{DENIAL}�"),
    ],
)
def test_denials(message: object, told: str) -> None:
    found = Ledger().enter(reading((), (), entry(1, message)), (), 0.0, 1.0)
    assert found == [Finding(Trouble.AVC, told)]


@pytest.mark.parametrize(
    "message",
    [
        "audit: type=1400 audit(1764000000.123:456): avc:  granted  { read } for  pid=812",
        'audit: type=1400 audit(1764000000.123:456): apparmor="STATUS" operation="profile_load"',
        'audit: type=1400 audit(1764000000.123:456): apparmor="ALLOWED" operation="open"',
        "audit: type=1403 audit(1764000000.123:456): auid=4294967295 ses=4294967295 lsm=selinux res=1",
        "random: crng init done",
        "",
        None,
    ],
)
def test_what_is_no_denial(message: object) -> None:
    assert entered(Ledger(), reading((), (), entry(1, message))) == []


def test_a_denial_that_comes_twice_is_told_once() -> None:
    ledger = Ledger()
    kernel = entry(1, f"audit: type=1400 audit(1764000000.123:456): {DENIAL}")
    assert entered(ledger, reading((), (), kernel, entry(2, f"AVC {DENIAL}"))) == [f"avc: {DENIAL}"]
    assert entered(ledger, reading((), (), kernel, entry(3, f"AVC {DENIAL}"))) == []
    other = DENIAL.replace("shadow", "passwd")
    assert entered(ledger, reading((), (), entry(4, f"AVC {other}"))) == [f"avc: {other}"]


def test_coredumps_are_told_once_each() -> None:
    ledger = Ledger()
    first, second = core(1), core(2, "/usr/bin/other", "SIGABRT")
    assert entered(ledger, reading((), (), first)) == ["coredump: /usr/bin/crasher was ended by SIGSEGV"]
    assert entered(ledger, reading((), (), first, second)) == ["coredump: /usr/bin/other was ended by SIGABRT"]
    assert entered(ledger, reading((), (), first, second)) == []
    # The same program, once more.
    assert entered(ledger, reading((), (), second, core(3))) == ["coredump: /usr/bin/crasher was ended by SIGSEGV"]


def test_a_coredump_whose_fields_are_bytes_or_missing() -> None:
    line = core(1, COREDUMP_EXE=list(b"/usr/bin/\xff\x01"), COREDUMP_SIGNAL_NAME=None)
    assert entered(Ledger(), reading((), (), line)) == ["coredump: /usr/bin/�\x01 was ended by unknown signal"]
    bare = entry(2, None, COREDUMP_PID="812", COREDUMP_COMM="crasher")
    assert entered(Ledger(), reading((), (), bare)) == ["coredump: crasher was ended by unknown signal"]


def test_failed_units_are_told_when_they_fail() -> None:
    ledger = Ledger()
    assert entered(ledger, reading(["a.service", "b.service"])) == ["failed-unit: a.service", "failed-unit: b.service"]
    assert entered(ledger, reading(["a.service", "b.service"])) == []
    assert entered(ledger, reading(["b.service", "c.service"])) == ["failed-unit: c.service"]
    # Mended, and failed again.
    assert entered(ledger, reading(["a.service", "b.service", "c.service"])) == ["failed-unit: a.service"]
    assert entered(ledger, reading()) == []
    assert entered(ledger, reading(["b.service"])) == ["failed-unit: b.service"]


def running(*ids: int, state: str = "running") -> Reading:
    return reading((), [Job(number, f"u{number}.service", "start", state) for number in ids])


def test_a_job_is_stuck_when_it_runs_for_a_minute() -> None:
    ledger = Ledger()
    assert entered(ledger, running(1), 1000.0) == []
    assert entered(ledger, running(1, 2), 1060.0) == []
    assert entered(ledger, running(1, 2), 1060.1) == ["stuck-job: u1.service/start"]
    assert entered(ledger, running(1, 2), 1061.0) == []
    assert entered(ledger, running(1, 2), 1121.0) == ["stuck-job: u2.service/start"]
    assert entered(ledger, running(1, 2), 9999.0) == []


def test_a_slow_machine_has_more_time() -> None:
    ledger = Ledger()
    assert entered(ledger, running(1), 0.0, 10.0) == []
    assert entered(ledger, running(1), 600.0, 10.0) == []
    assert entered(ledger, running(1), 600.5, 10.0) == ["stuck-job: u1.service/start"]


def test_a_job_that_waits_for_another_is_not_stuck() -> None:
    ledger = Ledger()
    for now in (0.0, 100.0, 200.0):
        assert entered(ledger, running(1, state="waiting"), now) == []
    # Its time begins when it runs.
    assert entered(ledger, running(1), 250.0) == []
    assert entered(ledger, running(1), 300.0) == []
    assert entered(ledger, running(1), 311.0) == ["stuck-job: u1.service/start"]


def test_a_job_that_has_ended_is_forgotten() -> None:
    ledger = Ledger()
    entered(ledger, running(1), 0.0)
    entered(ledger, running(), 30.0)
    assert entered(ledger, running(1), 61.0) == []
    assert entered(ledger, running(1), 122.0) == ["stuck-job: u1.service/start"]


def test_the_consoles_findings_are_told_once() -> None:
    ledger = Ledger()
    well = parse(ALL_IS_WELL)
    assert ledger.enter(well, [OOM], 0.0, 1.0) == [OOM]
    assert ledger.enter(well, [OOM], 0.0, 1.0) == []
    assert ledger.enter_console([OOM, PANIC]) == [PANIC]
    assert ledger.enter_console([OOM, PANIC]) == []
    assert ledger.enter(well, [OOM, PANIC, OOM], 0.0, 1.0) == [OOM]


def test_a_guest_that_has_done_nothing_need_not_be_asked() -> None:
    ledger = Ledger()
    assert not ledger.may_rest(0.0)
    entered(ledger, reading(), 0.0)
    ledger.rest("1 2", 100.0)
    assert ledger.may_rest(109.9)
    assert ledger.is_resting("1 2")
    assert not ledger.is_resting("1 3")
    assert not ledger.is_resting(None)
    assert not ledger.may_rest(110.0)


def test_a_guest_is_asked_while_it_has_jobs_or_no_pulse() -> None:
    ledger = Ledger()
    entered(ledger, running(1), 0.0)
    ledger.rest("1 2", 0.0)
    assert not ledger.may_rest(0.0)
    entered(ledger, running(), 1.0)
    ledger.rest(None, 1.0)
    assert not ledger.may_rest(1.0)
    assert not ledger.is_resting(None)
    ledger.rest("1 2", 1.0)
    assert ledger.may_rest(1.0)


def test_all_kinds_in_one_go() -> None:
    ledger = Ledger()
    jobs = [Job(1, "u1.service", "start", "running")]
    entered(ledger, reading((), jobs))
    told = ledger.enter(reading(["a.service"], jobs, core(1), entry(2, f"AVC {DENIAL}")), [OOM], 61.0, 1.0)
    assert [finding.kind for finding in told] == [
        Trouble.OOM,
        Trouble.FAILED_UNIT,
        Trouble.COREDUMP,
        Trouble.AVC,
        Trouble.STUCK_JOB,
    ]


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., str]:
    """Run the request by a shell, as a guest does, with programs that print what systemd's would."""

    def run(failed: str = "", jobs: str = "", cores: str = "", kernel: str = "") -> str:
        for name, content in {"failed": failed, "jobs": jobs, "cores": cores, "kernel": kernel}.items():
            (tmp_path / name).write_text(content)
        _program(tmp_path / "systemctl", 'case "$*" in *list-units) cat failed;; *list-jobs) cat jobs;; esac')
        _program(tmp_path / "journalctl", 'case "$*" in *"_TRANSPORT=kernel"*) cat kernel;; *) cat cores;; esac')
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["/bin/sh", "-c", CHECK], cwd=tmp_path, env=environment, stdout=-1, stderr=-2, text=True, check=True
        )
        return done.stdout

    return run


def _program(path: Path, body: str) -> None:
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{path}.arguments\n{body}\n')
    path.chmod(0o755)


def test_what_is_asked(ask: Callable[..., str], tmp_path: Path) -> None:
    assert ask() == ALL_IS_WELL
    asked = (tmp_path / "systemctl.arguments").read_text() + (tmp_path / "journalctl.arguments").read_text()
    assert "--state=failed list-units" in asked
    assert "list-jobs" in asked
    assert "MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1\n" in asked
    assert "_AUDIT_TYPE=1400 + _TRANSPORT=kernel PRIORITY=5\n" in asked
    assert asked.count("--boot") == 2
    assert health.NAME in CHECK


def test_a_kernel_that_talks_much_hides_nothing(ask: Callable[..., str]) -> None:
    started = "audit: type=1130 audit(1764000000.123:456): pid=1 uid=0 msg='unit=a comm=\"systemd\" res=success'"
    lines = [entry(number, started) for number in range(5000)]
    lines.insert(10, entry(9999, f"audit: type=1400 audit(1764000000.123:456): {APPARMOR}"))
    lines.insert(20, entry(9998, f"audit: type=1400 audit(1764000000.123:457): {DENIAL}"))
    told = parse(ask(FAILED, JOBS, f"{core(1)}\n", "\n".join(lines) + "\n"))
    assert entered(Ledger(), told) == [
        "failed-unit: broken.service",
        "failed-unit: dev-disk-by\\x2dlabel-data.device",
        "failed-unit: var-lib-x.mount",
        "coredump: /usr/bin/crasher was ended by SIGSEGV",
        f"avc: {APPARMOR}",
        f"avc: {DENIAL}",
    ]


def test_the_answer_is_bounded(ask: Callable[..., str]) -> None:
    cores = "".join(f"{core(number, '/usr/bin/' + 'x' * 30_000)}\n" for number in range(200))
    output = ask(cores=cores)
    assert len(output) < health._MOST_BYTES + 1000
    assert len(parse(output).journal) > 10


def test_a_guest_without_systemd() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", CHECK], env={"PATH": "/nowhere"}, stdout=-1, stderr=-2, text=True, check=True
    )
    with pytest.raises(GuestError, match="systemd does not say which units have failed"):
        parse(done.stdout)
