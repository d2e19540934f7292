"""The serial console of a machine: a file that its kernel and its init write to, read while it grows."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until

# Lines after which nothing good comes. They are printed by kernel, initramfs and systemd themselves and begin
# where such a line begins, so that a message which quotes them does not count.
_STAMP = r"\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? "  # the second part with CONFIG_PRINTK_CALLER
_FATAL = re.compile(
    rf"^(?:{_STAMP}(?:\S+\[\d+\]: )?)?"
    r"(?:Kernel panic - not syncing|pytest-bootc-init: cannot"
    r"|You are in (?:emergency|rescue) mode|(?:\S+ )?Freezing execution)"
)
_BREAKPOINT = re.compile(rf"^{_STAMP}(?:Oops: )?int3: 0000", re.MULTILINE)
# Sequences as ECMA-48 has them: those with parameters, strings (systemd >= 257 marks units with them), short ones.
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]"
)


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
