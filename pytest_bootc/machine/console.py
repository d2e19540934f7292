"""The serial console of a machine: a file that its kernel and its init write to, read while it grows."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.model import Finding, Trouble

_STAMP = r"\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? "  # the second part with CONFIG_PRINTK_CALLER
# What nobody ends with a newline: the kernel's next message stands right behind it. A getty's prompt, a shell's, and
# what systemd says of a job that takes long.
_BEFORE = re.compile(rf"\A(?:\S+ login: |\[?[\w@:~/.-]+(?: [\w~/.-]+)?\]?[#$] |\[[ *]{{6}}\] .*?)(?={_STAMP})")
# Lines after which nothing good comes, while a guest boots. They are printed by kernel, initramfs and systemd
# themselves and begin where such a line begins, so that a message which quotes them does not count.
_FATAL = re.compile(
    rf"(?:{_STAMP}(?:\S+\[\d+\]: )?)?"
    r"(?:Kernel panic - not syncing|pytest-bootc-init: cannot"
    r"|You are in (?:emergency|rescue) mode|(?:\S+ )?Freezing execution)"
)
# What tells of trouble at any time. Kernel messages begin a line, or stand right behind the time and the task. What a
# process has logged has the process's name in between, so that a message which quotes these words does not count.
_KERNEL = rf"(?:{_STAMP})?"
_RULES = {
    kind: re.compile(pattern)
    for kind, pattern in {
        Trouble.PANIC: rf"{_KERNEL}Kernel panic - not syncing",
        # kernel/watchdog.c and kernel/workqueue.c, in their wordings since Linux 3.
        Trouble.LOCKUP: rf"{_KERNEL}(?:(?:NMI )?watchdog: )?(?:BUG: (?:soft|workqueue) lockup"
        r"|(?:CPU\d+: )?Watchdog detected hard LOCKUP)",
        Trouble.OOPS: rf"{_KERNEL}(?:BUG: |kernel BUG at|Oops:|general protection fault"
        r"|invalid opcode:|double fault:|int3: |Internal error: |Unable to handle kernel)",
        Trouble.OOM: rf"{_KERNEL}(?:Memory cgroup out|Out) of memory(?: \(oom_kill_allocating_task\))?: Killed",
        Trouble.INITRAMFS: rf"{_KERNEL}(?:Initramfs unpacking failed|VFS: (?:Unable to mount root fs|Cannot open root)"
        r"|dracut(?:-[\w-]+)?(?:\[\d+\])?:? (?:FATAL|Warning: (?:.*timeout|Boot has failed|Could not boot))"
        r"|pytest-bootc-init: cannot|ALERT! +\S+ does not exist|ERROR: Failed to mount"
        r"|\[FAILED\] Failed to mount (?:sysroot\.mount|/sysroot\.))",
        Trouble.EMERGENCY_SHELL: r"(?:You are in (?:emergency|rescue) mode|Entering emergency mode"
        r"|You are now being dropped into an emergency shell"
        r"|Give root password for maintenance|Press Enter for maintenance|\(initramfs\)|:: running emergency hook)",
        Trouble.FROZEN_INIT: rf"(?:{_KERNEL}systemd\[1\]: Freezing execution|\[!!!!!!\] )",
        Trouble.ORDERING_CYCLE: rf"(?:\[ *SKIP *\] Ordering cycle found"
        rf"|{_KERNEL}systemd\[1\]: \S+: (?:Found ordering cycle|Job \S+ deleted to break ordering cycle))",
    }.items()
}
_BREAKPOINT = re.compile(rf"^{_STAMP}(?:Oops: )?int3: 0000", re.MULTILINE)
# Sequences as ECMA-48 has them: those with parameters, strings (systemd >= 257 marks units with them), short ones.
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~]|)"
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]+"
)


def find_trouble(text: str) -> list[Finding]:
    """The lines of a console that tell of trouble, without terminal control sequences, in their order."""
    return [Finding(kind, line) for line in _lines(text) if (kind := _kind_of(line)) is not None]


def _lines(text: str) -> list[str]:
    # Not splitlines(), which takes more than the newline for a line's end: a process may have logged such characters.
    return [_BEFORE.sub("", line.strip(), count=1) for line in _CONTROL.sub("", text).split("\n")]


def _kind_of(line: str) -> Trouble | None:
    return next((kind for kind, rule in _RULES.items() if rule.match(line)), None)


# Prompts of emergency shells, which stand at the end of a console without a line's end.
_PROMPT = re.compile(r"\(initramfs\)|(?:Press Enter|Give root password) for maintenance")
_PIECE = 1 << 20
# What is longer without an end is no line.
_LONGEST_LINE = 1 << 16


class ConsoleReader:
    """Reads a console's file while it grows, whole lines at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = self._offset = 0

    def new_findings(self) -> list[Finding]:
        """What the lines tell of trouble that were completed since the last call.

        :raises OSError: the file cannot be read.
        """
        findings: list[Finding] = []
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                # A machine that is started once more may begin another file.
                self._inode, self._offset = status.st_ino, 0
            while True:
                file.seek(self._offset)
                printed = file.read(_PIECE)
                ready = _ready_part(printed)
                findings += find_trouble(ready.decode(errors="replace"))
                self._offset += len(ready)
                if len(printed) < _PIECE:
                    return findings


def _ready_part(printed: bytes) -> bytes:
    whole, newline, rest = printed.rpartition(b"\n")
    # A prompt is a line that nobody ends; what comes behind it is not read as its beginning again.
    is_prompt = _PROMPT.match(_CONTROL.sub("", rest[:100].decode(errors="replace")))
    return printed if is_prompt or len(rest) > _LONGEST_LINE else whole + newline


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
        return next((line for line in _lines(self.text(start)) if _FATAL.match(line)), None)

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
