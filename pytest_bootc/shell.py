"""Commands for a machine's shell: how they are written down, what they leave behind, and the verbs on top.

The verbs are those of the NixOS test driver. Whatever can run one line of shell in a guest (an SSH session, a control
channel) gets them by implementing :meth:`ShellVerbs.execute`. All text for a remote shell is quoted here.
"""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import ConfigError, SSHCommandError, WaitTimeoutError

#: A line of shell for the remote user's login shell, or the words of one command, which are then quoted.
Command = str | Sequence[str]

T = TypeVar("T")

_COMMAND_SECONDS = 60.0
_SHOWN_COMMAND = 120
_SHOWN_OUTPUT = 4000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# $1 is the user; the others are the command.
_AS_USER = """
name=$1; shift
uid=$(id -u "$name") || exit
home=$(eval "echo ~$name")
runtime=/run/user/$uid
set -- env HOME="$home" USER="$name" LOGNAME="$name" \\
  XDG_RUNTIME_DIR="$runtime" DBUS_SESSION_BUS_ADDRESS="unix:path=$runtime/bus" "$@"
cd "$home" 2>/dev/null || cd /
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = "$uid" ] || set -- runuser -u "$name" -- "$@"
exec "$@"
"""
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest left behind.

    ``status`` is its exit status, or -1 where a signal ended it: then ``signal`` is the signal's name without SIG.
    ``seconds`` is the time from asking to the last byte.
    """

    command: str
    status: int
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)
    seconds: float
    signal: str | None = None

    @cached_property
    def stdout(self) -> str:
        """Standard output as text; what is not UTF-8 becomes U+FFFD."""
        return self.stdout_bytes.decode(errors="replace")

    @cached_property
    def stderr(self) -> str:
        """Standard error as text; what is not UTF-8 becomes U+FFFD."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def outcome(self) -> str:
        """How the command ended, as the end of a sentence."""
        return f"was ended by signal {self.signal}" if self.signal else f"gave exit status {self.status}"

    def transcript(self) -> str:
        """The command and the end of what it printed, for an error's details."""
        parts = [f"$ {self.command}"]
        for text in (self.stdout.strip(), self.stderr.strip()):
            if text:
                parts.append(text if len(text) <= _SHOWN_OUTPUT else f"[...]\n{text[-_SHOWN_OUTPUT:]}")
        return "\n".join(parts)


class CommandRunner(Protocol):
    """Something that runs a command in the guest; see :meth:`ShellVerbs.execute`."""

    def execute(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command to its end, whatever its exit status."""


class ShellVerbs(ABC):
    """What one does with a shell, in the words of the NixOS test driver.

    Every verb takes a ``timeout`` in seconds or a :class:`Deadline`, whichever comes first; with neither, a command
    has 60 seconds.
    """

    @abstractmethod
    def execute(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command to its end, whatever its exit status.

        :raises SSHCommandError: it did not end in time; what it had printed is in the details.
        :raises SSHConnectError: the connection was lost, or the guest stopped answering.
        """

    def succeed(
        self,
        *commands: Command,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run commands one after the other, each of which must exit with 0; their standard output, joined.

        :raises SSHCommandError: one did not, or not in time. Also raises as :meth:`execute` does.
        """
        limit = time_limit(timeout, deadline)
        printed = []
        for command in commands:
            result = self.execute(command, deadline=limit, env=env)
            if result.status != 0:
                raise SSHCommandError(f"`{short(result.command)}` {result.outcome}", details=result.transcript())
            printed.append(result.stdout)
        return "".join(printed)

    def fail(
        self,
        *commands: Command,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run commands one after the other, none of which may exit with 0; their standard output, joined.

        :raises SSHCommandError: one succeeded. Also raises as :meth:`execute` does.
        """
        limit = time_limit(timeout, deadline)
        printed = []
        for command in commands:
            result = self.execute(command, deadline=limit, env=env)
            if result.status == 0:
                raise SSHCommandError(
                    f"`{short(result.command)}` succeeded, and should not have", details=result.transcript()
                )
            printed.append(result.stdout)
        return "".join(printed)

    def wait_until_succeeds(
        self, command: Command, *, timeout: float | None = None, deadline: Deadline | None = None
    ) -> str:
        """Run the command again and again until it exits with 0; what it then printed on standard output.

        :raises WaitTimeoutError: it never did; the last try is in the details.
        """
        return self._wait_for_outcome(command, time_limit(timeout, deadline), success=True)

    def wait_until_fails(
        self, command: Command, *, timeout: float | None = None, deadline: Deadline | None = None
    ) -> str:
        """Run the command again and again until it does not exit with 0; what it then printed on standard output.

        :raises WaitTimeoutError: it succeeded every time; the last try is in the details.
        """
        return self._wait_for_outcome(command, time_limit(timeout, deadline), success=False)

    def _wait_for_outcome(self, command: Command, limit: Deadline, *, success: bool) -> str:
        last: list[CommandResult] = []

        def attempt() -> CommandResult | None:
            last[:] = [self.execute(command, deadline=limit)]
            return last[0] if (last[0].status == 0) == success else None

        what = f"`{short(shell_line(command))}` to {'succeed' if success else 'fail'}"
        return wait_for(attempt, limit, what=what, last=lambda: _told(last)).stdout


def wait_for(check: Callable[[], T | None], limit: Deadline, *, what: str, last: Callable[[], str] = str) -> T:
    """:func:`~pytest_bootc.deadline.wait_until` for a check that runs commands up to the limit.

    :raises WaitTimeoutError: also where the limit came in the middle of a command.
    """
    try:
        return wait_until(check, limit, what=what, last=last)
    except SSHCommandError as error:
        if not limit.expired():
            raise
        raise WaitTimeoutError(f"waited {limit.seconds:g} s for {what}", details=last() or str(error)) from error


def time_limit(timeout: float | None, deadline: Deadline | None) -> Deadline:
    """The earlier of the two limits that the verbs take; 60 seconds from now where neither is given."""
    if deadline is None:
        return Deadline.after(_COMMAND_SECONDS if timeout is None else timeout)
    return deadline if timeout is None else deadline.sooner(timeout)


def shell_line(command: Command, env: Mapping[str, str] | None = None) -> str:
    """The line that the remote shell is given.

    Variables go in front of it as text, because sshd drops those that are sent beside it (AcceptEnv,
    sshd_config(5)).

    :raises ConfigError: a variable's name is none.
    """
    words = " ".join(f"{_checked(name)}={shlex.quote(value)}" for name, value in (env or {}).items())
    if isinstance(command, str):
        return f"export {words}; {command}" if words else command
    return f"env {words} {shlex.join(command)}" if words else shlex.join(command)


def user_command(name: str, words: Sequence[str]) -> Sequence[str]:
    """The command that runs another one as a user: in their home folder, with their session's bus and runtime folder.

    Source: runuser(1), XDG Base Directory Specification, pam_systemd(8).

    :raises ConfigError: this is no name of a user.
    """
    if not _USER.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a user", resolution="use letters, digits and . _ -")
    return ("sh", "-c", _AS_USER, "sh", name, *words)


def short(line: str) -> str:
    """A command on one line of bounded length, for a sentence."""
    first, _, rest = line.strip().partition("\n")
    return first if len(first) <= _SHOWN_COMMAND and not rest else f"{first[:_SHOWN_COMMAND]}..."


def _told(last: list[CommandResult]) -> str:
    return f"{last[0].transcript()}\nIt {last[0].outcome}." if last else ""


def _checked(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for an environment variable", resolution="use letters, digits and underscores"
        )
    return name
