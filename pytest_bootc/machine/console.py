"""The serial console of a machine: a file that its kernel and its init write to, read while it grows."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.model import Finding, Trouble

# Lines after which nothing good comes, while a guest boots. They are printed by kernel, initramfs and systemd
# themselves and begin where such a line begins, so that a message which quotes them does not count.
_STAMP = r"\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? "  # the second part with CONFIG_PRINTK_CALLER
_FATAL = re.compile(
    rf"^(?:{_STAMP}(?:\S+\[\d+\]: )?)?"
    r"(?:Kernel panic - not syncing|pytest-bootc-init: cannot"
    r"|You are in (?:emergency|rescue) mode|(?:\S+ )?Freezing execution)"
)
# What tells of trouble at any time. Kernel messages begin a line, or stand right behind the time and the task. What a
# process has logged has the process's name in between, so that a message which quotes these words does not count.
# A getty's prompt is a line without an end, so that the kernel's next message stands behind it.
_KERNEL = rf"(?:(?:\S+ login: )?{_STAMP})?"
_RULES = {
    kind: re.compile(pattern)
    for kind, pattern in {
        Trouble.PANIC: rf"{_KERNEL}Kernel panic - not syncing",
        Trouble.LOCKUP: rf"{_KERNEL}(?:watchdog: BUG: (?:soft|hard) lockup|watchdog: Watchdog detected hard LOCKUP)",
        Trouble.OOPS: rf"{_KERNEL}(?:BUG: (?!soft lockup)|kernel BUG at|Oops:|general protection fault"
        r"|invalid opcode:|double fault:|int3: |Internal error: |Unable to handle kernel)",
        Trouble.OOM: rf"{_KERNEL}(?:Memory cgroup out of memory|Out of memory): Killed",
        Trouble.INITRAMFS: rf"{_KERNEL}(?:Initramfs unpacking failed|VFS: Unable to mount root fs"
        r"|dracut(?:-\w+)?(?:\[\d+\])?: (?:FATAL|Warning: .*timeout)|pytest-bootc-init: cannot"
        r"|ALERT! +\S+ does not exist|ERROR: Failed to mount)",
        Trouble.EMERGENCY_SHELL: r"(?:You are in (?:emergency|rescue) mode|Entering emergency mode"
        r"|Give root password for maintenance|Press Enter for maintenance|\(initramfs\)|:: running emergency hook)",
        Trouble.FROZEN_INIT: rf"(?:{_KERNEL}systemd\[1\]: Freezing execution|\[!!!!!!\] )",
        Trouble.ORDERING_CYCLE: rf"(?:\[ *SKIP *\] Ordering cycle found"
        rf"|{_KERNEL}systemd\[1\]: \S+: (?:Found ordering cycle|Job \S+ deleted to break ordering cycle))",
    }.items()
}
_BREAKPOINT = re.compile(rf"^{_STAMP}(?:Oops: )?int3: 0000", re.MULTILINE)
# Sequences as ECMA-48 has them: those with parameters, strings (systemd >= 257 marks units with them), short ones.
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]"
)


def find_trouble(text: str) -> list[Finding]:
    """The lines of a console that tell of trouble, without terminal control sequences, in their order."""
    lines = (line.strip() for line in _CONTROL.sub("", text).splitlines())
    return [Finding(kind, line) for line in lines if (kind := _kind_of(line)) is not None]


def _kind_of(line: str) -> Trouble | None:
    return next((kind for kind, rule in _RULES.items() if rule.match(line)), None)


# Prompts of emergency shells, which stand at the end of a console without a line's end.
_PROMPTS = (b"(initramfs)", b"Press Enter for", b"Give root password")


class ConsoleReader:
    """Reads a console's file while it grows, whole lines at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_findings(self) -> list[Finding]:
        """What the lines tell of trouble that were completed since the last call.

        :raises OSError: the file cannot be read.
        """
        with self._path.open("rb") as file:
            file.seek(self._offset)
            printed = file.read()
        whole, newline, rest = printed.rpartition(b"\n")
        # A prompt is a line that nobody ends; it is read again when more has come, and told twice by nobody.
        ready = whole + newline if not rest.startswith(_PROMPTS) else printed
        self._offset += len(ready)
        return find_trouble(ready.decode(errors="replace"))


class ConsoleLog:
    """What a machine has printed so far."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self, start: int = 0) -> str:
        """Everything from a byte offset on, without terminal control sequences."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return _CONTROL.sub("", file.read().decode(errors="replace"))
        except FileNotFoundError:
            return ""

    def tail(self, lines: int = 15) -> str:
        """The last lines that are not empty."""
        return "\n".join([line for line in self.text().splitlines() if line.strip()][-lines:])

    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def fatal_line(self, start: int = 0) -> str | None:
        """The first line by which the guest says that it gives up, or ``None``."""
        return next((line.strip() for line in self.text(start).splitlines() if _FATAL.match(line)), None)

    def has_breakpoint_oops(self, start: int = 0) -> bool:
        """Whether the kernel died of a breakpoint in its own code."""
        return _BREAKPOINT.search(self.text(start)) is not None

    def wait_for(self, pattern: str, deadline: Deadline) -> str:
        """The first line in which the regular expression is found.

        :raises WaitTimeoutError: none came; the details have the last lines.
        """
        wanted = re.compile(pattern)
        return wait_until(
            lambda: next((line for line in self.text().splitlines() if wanted.search(line)), None),
            deadline,
            what=f"{pattern!r} on the console",
            last=self.tail,
        )
