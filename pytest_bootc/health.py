"""The base checks: what must not go wrong in any guest, whatever a test is about.

They are made after each test, by one request to the guest: no unit has failed, no job of systemd's is stuck, no
process has dumped core, nothing was denied (where the guest audits), and the console tells of no trouble. Each thing
is told once, in the test during which it came.

All but the console is known to systemd or to journald. Where neither has run since they were last asked, which the
kernel tells in a fraction of the time, they are not asked again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_bootc.errors import GuestError
from pytest_bootc.journal import COREDUMP_FIELDS, COREDUMP_MATCH, JournalEntry, coredump_of, parse_journal
from pytest_bootc.model import Finding, Trouble
from pytest_bootc.system import sections
from pytest_bootc.units import LIST, Job, parse_jobs

_MARK = "\\036"
_STUCK_SECONDS = 60.0
# What happens between an answer and the pulse that is taken after it is found when this time has passed, at the latest.
_QUIET_SECONDS = 10.0
# Where no auditd takes them, denials come from the kernel's audit socket or, without that, as kernel messages.
_DENIALS = "_AUDIT_TYPE=1400 + _TRANSPORT=kernel PRIORITY=5"
_FIELDS = ",".join(("MESSAGE", *COREDUMP_FIELDS))

#: What the request is known by, to those who log requests.
NAME = "base-check"
_MOST_BYTES = 1_000_000
_JOURNAL = f"journalctl --quiet --no-pager --boot --output=json --output-fields={_FIELDS}"
#: What asks the guest: POSIX sh, for :func:`parse`. Denials and cores are few, and the journal finds both by index;
#: a kernel that talks much must not hide the cores. While systemd is asked, another processor reads the journal.
CHECK = f"""\
: {NAME}
export LC_ALL=C SYSTEMD_COLORS=0
{{ {_JOURNAL} --lines=200 {COREDUMP_MATCH}; {_JOURNAL} --lines=1000 {_DENIALS} |
  grep -e 'avc: *denied' -e 'apparmor=.*DENIED'; }} 2>&1 | tail -c {_MOST_BYTES} | {{
printf '{_MARK}failed\\n'; {LIST} --state=failed list-units
printf '{_MARK}jobs\\n'; {LIST} list-jobs
printf '{_MARK}journal\\n'; cat; }}
printf '{_MARK}end\\n'
"""
#: The answer of a guest in which nothing is wrong.
ALL_IS_WELL = "\036failed\n\036jobs\n\036journal\n\036end\n"
_DENIED = re.compile(r"avc: +denied|apparmor=\"DENIED\"")
# A file that journald is just replacing (systemd issue 40053), or that a crash has cut: the others are read.
_JOURNAL_NOISE = re.compile(r"Journal file .*ignoring file")
_AUDIT_STAMP = re.compile(r"^(?:audit: )?(?:type=1400 )?audit\([0-9.:]+\): ?|^AVC ")


@dataclass(frozen=True)
class Reading:
    """What a guest said to :data:`CHECK`."""

    failed: tuple[str, ...]
    jobs: tuple[Job, ...]
    journal: tuple[JournalEntry, ...]


def parse(output: str) -> Reading:
    """What the guest said.

    :raises GuestError: it is something else, or it was cut off.
    """
    told = sections(output)
    if not told.keys() >= {"failed", "jobs", "journal", "end"}:
        raise GuestError("the guest did not say how it is", details=output[-1000:])
    failed = tuple(line.split()[0] for line in told["failed"].splitlines() if line.strip())
    if not all("." in name for name in failed):
        raise GuestError("systemd does not say which units have failed", details=told["failed"])
    lines = told["journal"].split("\n")
    if len(told["journal"].encode()) >= _MOST_BYTES - 1:
        del lines[0]  # cut off in the middle
    journal = parse_journal("\n".join(line for line in lines if not _JOURNAL_NOISE.match(line)).encode())
    return Reading(failed, tuple(parse_jobs(told["jobs"])), tuple(journal))


class Ledger:
    """What was found on one machine so far, so that nothing is told twice."""

    def __init__(self) -> None:
        self._console = 0
        self._failed: set[str] = set()
        self._entries: set[str] = set()
        self._denials: set[Finding] = set()
        self._jobs: dict[int, float] = {}
        self._pulse: str | None = None
        self._asked = 0.0

    def may_rest(self, now: float) -> bool:
        """Whether the guest need not be asked at the time ``now``, if its pulse is still the same."""
        return self._pulse is not None and now - self._asked < _QUIET_SECONDS

    def is_resting(self, pulse: str | None) -> bool:
        """Whether the guest has done nothing since it was asked; ``None`` is a pulse that cannot be told."""
        return pulse is not None and pulse == self._pulse

    def rest(self, pulse: str | None, now: float) -> None:
        """The guest has just been asked, and has this pulse now. While it has jobs it is always asked."""
        self._pulse = None if self._jobs else pulse
        self._asked = now

    def enter(self, reading: Reading, console: Sequence[Finding], now: float, slowness: float) -> list[Finding]:
        """What is new, at the time ``now`` in seconds; ``slowness`` is the machine's time factor."""
        return [*self.enter_console(console), *self._new_failures(reading), *self._new_entries(reading.journal),
                *self._stuck(reading.jobs, now, _STUCK_SECONDS * slowness)]  # fmt: skip

    def enter_console(self, console: Sequence[Finding]) -> list[Finding]:
        """The part that needs no answer of the guest."""
        fresh = list(console[self._console :])
        self._console = len(console)
        return fresh

    def _new_failures(self, reading: Reading) -> list[Finding]:
        fresh = [name for name in reading.failed if name not in self._failed]
        # One that was mended may fail again.
        self._failed = set(reading.failed)
        return [Finding(Trouble.FAILED_UNIT, name) for name in fresh]

    def _new_entries(self, journal: Iterable[JournalEntry]) -> list[Finding]:
        fresh = [entry for entry in journal if entry.cursor not in self._entries]
        self._entries.update(entry.cursor for entry in fresh)
        found = [finding for entry in fresh if (finding := _told_by(entry)) is not None]
        # One denial comes as a message of the audit socket and of the kernel, and some programs never give up.
        told = [finding for finding in dict.fromkeys(found) if finding not in self._denials]
        self._denials.update(finding for finding in told if finding.kind is Trouble.AVC)
        return told

    def _stuck(self, jobs: Sequence[Job], now: float, patience: float) -> list[Finding]:
        running = {job.id: job for job in jobs if job.state == "running"}
        since = {number: self._jobs.get(number, now) for number in running}
        # Told once: the next time is an age away.
        stuck = [number for number, first in since.items() if now - first > patience]
        self._jobs = {**since, **dict.fromkeys(stuck, float("inf"))}
        return [Finding(Trouble.STUCK_JOB, f"{running[number].unit}/{running[number].type}") for number in stuck]


def _told_by(entry: JournalEntry) -> Finding | None:
    dump = coredump_of(entry)
    if dump is not None:
        return Finding(Trouble.COREDUMP, str(dump))
    if _DENIED.search(entry.message):
        return Finding(Trouble.AVC, _AUDIT_STAMP.sub("", entry.message))
    return None
