"""The guest's journal: asking for a bounded part of it, and reading journalctl's JSON.

Source: "Journal JSON Format" of systemd's documentation, journalctl(1), systemd.journal-fields(7).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_bootc.errors import GuestError

#: No answer of journalctl is longer than this, in bytes: the newest entries are kept.
MOST_BYTES = 16 << 20

#: The match for what systemd-coredump(8) logs: SD_MESSAGE_COREDUMP, sd-messages.h.
COREDUMP_MATCH = "MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1"
#: The matches for what systemd logs of units that were started (SD_MESSAGE_UNIT_STARTED, sd-messages.h): those whose
#: conditions did not hold are among them. Before journald is up it logs by way of the kernel, without message ids.
STARTED_MATCHES = (
    "MESSAGE_ID=39f53479d3a045ac8e11786248231fbf",
    "+",
    "_TRANSPORT=kernel",
    "SYSLOG_IDENTIFIER=systemd",
)
#: The fields that :func:`coredump_of` reads.
COREDUMP_FIELDS = (
    "COREDUMP_PID",
    "COREDUMP_UID",
    "COREDUMP_EXE",
    "COREDUMP_COMM",
    "COREDUMP_SIGNAL_NAME",
    "COREDUMP_UNIT",
)

_SKIPPED = re.compile(
    r"(?P<name>.+?)(?: - .*)? (?:was )?skipped(?:,| because of| because) (?:an |no )?(?:unmet|trigger) condition"
)
_SHOWN_ERROR = 300
_FIELDS = (
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "UNIT",
    "USER_UNIT",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_USER_UNIT",
    "_PID",
    "_COMM",
    "_UID",
    "_TRANSPORT",
    "_AUDIT_TYPE_NAME",
    *COREDUMP_FIELDS,
)
# $1 is the most entries, $2 the most bytes; the others go to journalctl. --lines together with a cursor means
# different things in different versions, so the newest entries are taken by tail.
_SCRIPT = (
    'entries=$1; bytes=$2; shift 2; { journalctl "$@" || echo "journalctl gave exit status $?" >&2; }'
    ' | tail -n "$entries" | tail -c "$bytes"'
)


@dataclass(frozen=True)
class JournalEntry:
    """One line of the journal.

    ``time`` is in seconds since 1970 by the guest's clock, ``cursor`` names the entry; ``priority`` is from 0
    (emergency) to 7 (debug). ``fields`` has the other fields that were asked for.
    """

    message: str
    time: float
    cursor: str
    priority: int | None = None
    unit: str | None = None
    identifier: str | None = None
    pid: int | None = None
    fields: Mapping[str, str] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        process = f"[{self.pid}]" if self.pid is not None else ""
        return f"{self.identifier or 'unknown'}{process}: {self.message}"


@dataclass(frozen=True)
class Coredump:
    """A process that died and left a core, as systemd-coredump(8) logged it."""

    time: float
    executable: str
    signal: str
    pid: int | None
    unit: str | None
    message: str = field(repr=False, default="")

    def __str__(self) -> str:
        return f"{self.executable} was ended by {self.signal}"


@dataclass(frozen=True)
class JournalQuery:
    """Which entries: of this boot or all, after a cursor, of a unit, of a priority and the worse ones."""

    since_cursor: str | None = None
    unit: str | None = None
    priority: int | str | None = None
    boot: bool = True
    limit: int = 1000
    matches: tuple[str, ...] = ()

    def command(self) -> Sequence[str]:
        """The command that prints the newest ``limit`` of these entries as JSON, one a line, oldest first."""
        options = ["--output=json", "--no-pager", "--quiet", "--all", f"--output-fields={','.join(_FIELDS)}"]
        options += ["--boot"] if self.boot else []
        options += [f"--unit={self.unit}"] if self.unit is not None else []
        options += [f"--priority={self.priority}"] if self.priority is not None else []
        # Without a cursor the whole journal is searched from its end, with one from there.
        options += [f"--after-cursor={self.since_cursor}"] if self.since_cursor else [f"--lines={self.limit}"]
        return ("sh", "-c", _SCRIPT, "sh", str(self.limit), str(MOST_BYTES), *options, *self.matches)


def coredump_query(since_cursor: str | None) -> JournalQuery:
    """The query for what :func:`parse_coredumps` reads."""
    return JournalQuery(since_cursor, limit=100, matches=(COREDUMP_MATCH,))


def skipped_unit(entry: JournalEntry) -> str | None:
    """The unit that the entry tells of if a condition has skipped it, else ``None``.

    systemd says "NAME - DESCRIPTION skipped, unmet condition check ..." or, before version 255 or where names are not
    wanted, "DESCRIPTION was skipped because of an unmet condition check (...)"; then the description stands for what
    was logged before journald was up.
    """
    told = _SKIPPED.match(entry.message)
    return None if told is None else entry.fields.get("UNIT") or told["name"]


def parse_journal(printed: bytes) -> list[JournalEntry]:
    """The entries that a :class:`JournalQuery`'s command printed.

    A field may be text, a list of bytes (where it is not UTF-8), a list of such values (where it was given more
    than once), or null.

    :raises GuestError: the text is something else.
    """
    lines = printed.split(b"\n")
    if len(printed) >= MOST_BYTES:
        del lines[0]  # cut off in the middle
    return [_entry(line) for line in lines if line.strip()]


def parse_coredumps(printed: bytes) -> list[Coredump]:
    """The coredumps among the entries that the command of :func:`coredump_query` printed."""
    dumps = map(coredump_of, parse_journal(printed))
    return [dump for dump in dumps if dump is not None]


def coredump_of(entry: JournalEntry) -> Coredump | None:
    """The coredump that an entry is about, if it is about one."""
    told = entry.fields
    if "COREDUMP_PID" not in told:
        return None
    return Coredump(
        time=entry.time,
        executable=told.get("COREDUMP_EXE") or told.get("COREDUMP_COMM") or "unknown",
        signal=told.get("COREDUMP_SIGNAL_NAME") or "unknown signal",
        pid=_number(told.get("COREDUMP_PID")),
        unit=told.get("COREDUMP_UNIT"),
        message=entry.message,
    )


def _entry(line: bytes) -> JournalEntry:
    try:
        raw = json.loads(line)
        values = {name: _text(value) for name, value in raw.items()}
        return JournalEntry(
            message=values.pop("MESSAGE", ""),
            time=int(values.pop("__REALTIME_TIMESTAMP")) / 1e6,
            cursor=values.pop("__CURSOR"),
            priority=_number(values.pop("PRIORITY", None)),
            unit=values.get("UNIT") or values.get("USER_UNIT") or values.get("_SYSTEMD_UNIT"),
            identifier=values.pop("SYSLOG_IDENTIFIER", None) or values.get("_COMM"),
            pid=_number(values.pop("_PID", None)),
            fields=values,
        )
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise GuestError(
            "journalctl printed something that cannot be read",
            details=f"{error!r} in\n{line[:_SHOWN_ERROR].decode(errors='replace')}",
        ) from error


def _text(value: object) -> str:
    if isinstance(value, list):
        if value and all(isinstance(item, int) for item in value):
            return bytes(value).decode(errors="replace")
        return "\n".join(_text(item) for item in value)
    return "" if value is None else str(value)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
