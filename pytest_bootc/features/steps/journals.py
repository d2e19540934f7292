"""The journal of this boot.

``{parts}`` says which part of it: nothing for all of it, or *of the unit NAME*, *of the user unit NAME*,
*with priority WORD or worse*, *since the scenario began*, in this order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from pytest_bootc.features.steps.asking import ask, expression, guest_of, missed, needs_success
from pytest_bootc.features.steps.library import then
from pytest_bootc.journal import JournalEntry

_MOST = 20000
_SHOWN = 20
_UNIT = re.compile(r"of the (user )?unit (\S+)")
_PRIORITY = re.compile(r"with priority (\w+) or worse")


@then('the journal{parts:parts} contains "{text}"')
def contains(context: Any, parts: str, text: str) -> None:
    """A message of that part of the journal has this text in it."""
    entries = _entries(context, parts)
    if not any(text in entry.message for entry in entries):
        missed(f"no message of the journal{parts} contains {text!r}", _shown(entries))


@then('the journal{parts:parts} does not contain "{text}"')
def does_not_contain(context: Any, parts: str, text: str) -> None:
    """No message of that part of the journal, which can be read, has this text in it."""
    found = [entry for entry in _readable(context, parts) if text in entry.message]
    if found:
        missed(f"{len(found)} messages of the journal{parts} contain {text!r}", _shown(found))


@then("the journal{parts:parts} matches /{regex}/")
def matches(context: Any, parts: str, regex: str) -> None:
    """A regular expression is found in a message of that part of the journal."""
    entries = _entries(context, parts)
    if not any(expression(regex).search(entry.message) for entry in entries):
        missed(f"no message of the journal{parts} matches /{regex}/", _shown(entries))


@then("the journal{parts:parts} does not match /{regex}/")
def does_not_match(context: Any, parts: str, regex: str) -> None:
    """A regular expression is found in no message of that part of the journal, which can be read."""
    pattern = expression(regex)
    found = [entry for entry in _readable(context, parts) if pattern.search(entry.message)]
    if found:
        missed(f"{len(found)} messages of the journal{parts} match /{regex}/", _shown(found))


@then("the journal{parts:parts} is empty")
def is_empty(context: Any, parts: str) -> None:
    """There is no message in that part of the journal, which as a whole has some."""
    found = _readable(context, parts)
    if found:
        missed(f"the journal{parts} has {len(found)} messages", _shown(found))


@then("no process has dumped core")
def no_coredump(context: Any) -> None:
    """No process has died with a core since the boot, as far as systemd-coredump noticed."""
    found = guest_of(context).coredumps()
    if found:
        missed(f"{len(found)} processes have dumped core", "\n".join(map(str, found)))


@then("{program} has not dumped core")
def has_not_dumped_core(context: Any, program: str) -> None:
    """No process of this program, a name or a path, has died with a core since the boot."""
    dumps = guest_of(context).coredumps()
    found = [dump for dump in dumps if program in (dump.executable, dump.executable.rpartition("/")[2])]
    if found:
        missed(f"{program} has dumped core", "\n".join(map(str, found)))


def _readable(context: Any, parts: str) -> list[JournalEntry]:
    """The entries of a part, where an empty journal would prove nothing."""
    entries = _entries(context, parts)
    if not entries and not guest_of(context).journal(limit=1):
        missed("the journal of this boot is empty: what is not in it proves nothing")
    return entries


def _entries(context: Any, parts: str) -> list[JournalEntry]:
    unit, priority = _UNIT.search(parts), _PRIORITY.search(parts)
    entries = guest_of(context).journal(
        unit=unit[2] if unit is not None and not unit[1] else None,
        priority=priority[1] if priority is not None else None,
        limit=_MOST,
    )
    if unit is not None and unit[1]:
        names = ("USER_UNIT", "_SYSTEMD_USER_UNIT")
        entries = [entry for entry in entries if unit[2] in (entry.fields.get(name) for name in names)]
    if parts.endswith("since the scenario began"):
        began = _guest_time(context) - (time.monotonic() - context.scenario_began)
        entries = [entry for entry in entries if entry.time >= began]
    return entries


def _guest_time(context: Any) -> float:
    return float(needs_success(ask(context, ["date", "+%s.%N"]), "the guest does not tell its time").stdout)


def _shown(entries: Sequence[JournalEntry]) -> str:
    lines = [str(entry) for entry in entries[-_SHOWN:]]
    left_out = len(entries) - len(lines)
    return "\n".join(([f"[{left_out} earlier ones]"] if left_out else []) + lines) if entries else "It has no messages."
