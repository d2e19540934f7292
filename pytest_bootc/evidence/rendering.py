"""What a guest printed, as files for people: a journal in its order, tables of processes and mounts, a core."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_bootc.errors import GuestError
from pytest_bootc.evidence.redaction import redact, redact_arguments
from pytest_bootc.evidence.request import MOST_CORE, OWN_MARK, Answer
from pytest_bootc.system import parse_mounts

_STAMP = re.compile(r"\[ *([0-9]+\.[0-9]+)\]")
_LINES_BEFORE = 50
_HEADER = re.compile(r"==> /proc/(\d+)/(stat|wchan|cmdline) <==\n")
_STATUS = re.compile(r"^/proc/(\d+)/status:(Uid|VmRSS):\s+(\d+).*\n", re.MULTILINE)
_TICKS = 100  # of times in proc_pid_stat(5), per second: what the kernel tells programs on every architecture of ours
_LONGEST_COMMAND = 1000
_NO_CORE = "no process has dumped core since the machine booted\n"


def files(answers: Mapping[str, Answer], elapsed: float) -> dict[str, str | bytes]:
    """The files that the guest's answers make; the test began ``elapsed`` seconds before it was asked."""
    found: dict[str, str | bytes] = {}
    core = parse_core(answers["core"].text) if "core" in answers else None
    if core is not None and core.content is not None:
        found[core.name] = core.content
    remark = str(core or _without_core(answers.get("core", Answer(""))))
    renderers: Mapping[str, Callable[[str], str]] = {
        "journal": lambda text: journal_file(text, elapsed),
        "mounts": mounts_file,
        "processes": processes_file,
        "units": str,
        "coredumps": lambda text: (text or _NO_CORE) + (f"\n{remark}\n" if remark else ""),
    }
    for name in answers.keys() & renderers.keys():
        found[f"{name}.txt"] = file(name, answers, renderers[name])
    return found


def file(name: str, answers: Mapping[str, Answer], render: Callable[[str], str] = str) -> str:
    """The file of one answer, without secrets; what cannot be read is kept as it came."""
    answer = answers.get(name, Answer(""))
    try:
        text = render(answer.text)
    except (ValueError, IndexError) as error:
        text = f"[it cannot be read: {error!r}]\n{answer.text}"
    return redact(f"[{name}: {answer.trouble}]\n{text}" if answer.trouble else text)


def journal_since(journal: str, uptime: float) -> str:
    """The entries of a journal in the format short-monotonic from an uptime (in seconds) on.

    Where there are none, the last ones before: a guest that was suspended counts its uptime otherwise.
    """
    lines = journal.splitlines(keepends=True)
    for number, line in enumerate(lines):
        stamp = _STAMP.match(line)
        if stamp and float(stamp[1]) >= uptime:
            return "".join(lines[number:])
    return "".join(("[nothing since the test began; what was last before it:]\n", *lines[-_LINES_BEFORE:]))


def reversed_journal(text: str) -> str:
    """The entries of a journal in the format short-monotonic the other way round; each may have several lines."""
    entries: list[list[str]] = []
    for line in text.splitlines(keepends=True):
        if _STAMP.match(line) or not entries:
            entries.append([])
        entries[-1].append(line if line.endswith("\n") else f"{line}\n")
    return "".join(line for entry in reversed(entries) for line in entry)


def journal_file(text: str, elapsed: float) -> str:
    """The journal of a test that began so many seconds ago, from the guest's uptime and its entries, newest first."""
    uptime, _, journal = text.partition("\n")
    # An uptime that cannot be read costs nothing but length.
    since = float(uptime) - elapsed if re.fullmatch(r"[0-9]+(\.[0-9]+)?", uptime) else 0.0
    return journal_since(reversed_journal(journal), since)


def mounts_file(text: str) -> str:
    """The mounts as a table, and behind it what df(1) says of the room on them."""
    mounts, _, room = text.partition("\n\n")
    try:
        parsed = parse_mounts(mounts)
    except (GuestError, ValueError):
        return text
    rows = [(mount.target, mount.source, mount.type, _options(mount.options, mount.super_options)) for mount in parsed]
    return f"{table(('TARGET', 'SOURCE', 'TYPE', 'OPTIONS'), rows)}\n{room}"


@dataclass
class _Process:
    stat: str = ""
    wchan: str = ""
    cmdline: str = ""
    numbers: dict[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> Sequence[str]:
        """Those of proc_pid_stat(5) from the third on; the second, in parentheses, may hold anything."""
        return self.stat.rpartition(")")[2].split()

    @property
    def parent(self) -> int:
        return int(self.fields[1]) if len(self.fields) > 1 else 0


def processes_file(text: str) -> str:
    """The processes as a table, without those that were there to be asked.

    The times are when a process was started, in seconds since the guest booted, and how much of a processor it had.
    """
    processes: dict[int, _Process] = {}
    for pid, name, number in _STATUS.findall(text):
        processes.setdefault(int(pid), _Process()).numbers[name] = number
    head, *parts = _HEADER.split(_STATUS.sub("", text))
    for pid, kind, content in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        setattr(processes.setdefault(int(pid), _Process()), kind, content.removesuffix("\n"))
    asked = {pid for pid, process in processes.items() if OWN_MARK in process.cmdline}
    for pid in sorted(processes):
        # Parents mostly have the smaller number; where numbers began anew some of ours are shown.
        if processes[pid].parent in asked:
            asked.add(pid)
    columns = ("PID", "PPID", "UID", "S", "STARTED", "CPU", "RSS/KiB", "WAITS IN", "COMMAND")
    rows = [_row(pid, process) for pid, process in sorted(processes.items()) if process.stat and pid not in asked]
    return f"{_load(head)}\n\n{table(columns, rows)}"


def _load(head: str) -> str:
    """What stands before the processes: the load, and the first lines of meminfo."""
    lines = [line for line in head.splitlines() if line and not line.startswith("==>")]
    return "\n".join(lines[:4])


def _row(pid: int, process: _Process) -> Sequence[str]:
    fields = process.fields
    if len(fields) < 20:
        return (str(pid), process.stat)
    name = process.stat.rpartition(")")[0].partition("(")[2]
    arguments = process.cmdline.rstrip("\n").removesuffix("\0").split("\0")
    waits = process.wchan.partition("\n")[0].strip()
    return (
        str(pid),
        fields[1],
        process.numbers.get("Uid", "?"),
        fields[0],
        f"{int(fields[19]) / _TICKS:.2f}",
        f"{(int(fields[11]) + int(fields[12])) / _TICKS:.2f}",
        process.numbers.get("VmRSS", "0"),
        waits if waits not in ("", "0") else "-",
        (" ".join(redact_arguments(arguments)) or f"[{name}]").replace("\n", "\\n")[:_LONGEST_COMMAND],
    )


@dataclass(frozen=True)
class Core:
    """A core as systemd-coredump(8) stored it, compressed or not; ``content`` is ``None`` where it was not taken."""

    name: str
    size: int
    content: bytes | None

    def __str__(self) -> str:
        if self.content is not None:
            return f"[the newest core is beside this file: {self.name}]"
        if self.size > MOST_CORE:
            return f"[{self.name} was not taken: it has {self.size} bytes, and {MOST_CORE} are the limit]"
        return f"[{self.name} of {self.size} bytes was not taken: the time for it was up]"


def _without_core(answer: Answer) -> str:
    return f"[whether there is a core was not told: {answer.trouble}]" if answer.trouble else ""


def parse_core(text: str) -> Core | None:
    """The core that the guest sent: its size, its name, and its content in base64. ``None`` where it has none."""
    head, _, encoded = text.partition("\n")
    size, _, name = head.partition(" ")
    if not size.isdigit():
        return None
    safe = re.sub(r"[^A-Za-z0-9_.+-]", "_", name).lstrip(".")
    try:
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except binascii.Error:
        content = b""
    return Core(safe or "core", int(size), content if len(content) == int(size) else None)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as what is in them; the last is as it comes."""
    lines = [tuple(columns), *rows]
    widths = [max(len(line[at]) for line in lines if at < len(line)) for at in range(len(columns) - 1)]
    shown = ("  ".join(word.ljust(widths[at]) if at < len(widths) else word for at, word in enumerate(line))
             for line in lines)  # fmt: skip
    return "".join(f"{line.rstrip()}\n" for line in shown)


def _options(*groups: Sequence[str]) -> str:
    return ",".join(dict.fromkeys(option for group in groups for option in group))


def words_file(words: Mapping[str, str]) -> str:
    """Names and values, one to a line; what is empty is left out."""
    return "".join(f"{name}: {value}\n" for name, value in words.items() if value)
