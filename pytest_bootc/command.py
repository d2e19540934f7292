"""The only door to other programs on the host.

Programs are started from argument vectors, never through a shell; a failure shows a command to paste.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BootcTestError, ConfigError

Argument = str | os.PathLike[str]

# Debian keeps mke2fs and debugfs out of a normal user's PATH.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_SHOWN_OUTPUT = 4000


class CommandError(BootcTestError):
    """A program on the host could not be started, failed, or did not end in time."""


@dataclass(frozen=True)
class Completed:
    """What a program that has ended left behind."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


def find_program(name: str, *, resolution: str) -> Path:
    """The program's path: beside this Python, in PATH, or in the system administrator's folders.

    :raises ConfigError: it is in none of them; ``resolution`` says how to get it.
    """
    found = look_for_program(name)
    if found is None:
        raise ConfigError(f"{name} is not installed", resolution=resolution)
    return found


def look_for_program(name: str) -> Path | None:
    """Like :func:`find_program`, with ``None`` where there is none."""
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS)
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None


def run(
    argv: Sequence[Argument],
    *,
    deadline: Deadline,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it wrote.

    ``env`` is added to a copy of this process's environment, with ``LC_ALL=C.UTF-8`` so that texts can be read.

    :raises CommandError: not startable, a non-zero exit status (unless ``check=False``), or past the deadline
        (the program is then killed).
    """
    arguments = tuple(os.fspath(a) for a in argv)
    try:
        done = subprocess.run(
            arguments,
            input=stdin,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            timeout=deadline.remaining(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(
            f"{Path(arguments[0]).name} did not end within {deadline.seconds:g} s",
            details=_transcript(arguments, error.stdout or b"", error.stderr or b""),
        ) from error
    except OSError as error:
        raise CommandError(f"{arguments[0]} cannot be started: {error.strerror}") from error
    if check and done.returncode != 0:
        raise CommandError(
            f"{Path(arguments[0]).name} failed with exit status {done.returncode}",
            details=_transcript(arguments, done.stdout, done.stderr),
        )
    return Completed(arguments, done.returncode, done.stdout, done.stderr)


def spawn(
    argv: Sequence[Argument],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own (a Ctrl-C at the terminal is not for it); the caller owns its end.

    :raises CommandError: it cannot be started.
    """
    arguments = [os.fspath(a) for a in argv]
    try:
        return subprocess.Popen(
            arguments, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds, start_new_session=True
        )
    except OSError as error:
        raise CommandError(f"{arguments[0]} cannot be started: {error.strerror}") from error


def disown(process: subprocess.Popen[bytes]) -> None:
    """Let a process outlive us: nobody waits for it any more."""
    if process.poll() is None:
        # Else its object complains when it is collected.
        process.returncode = 0


def attend(argv: Sequence[Argument]) -> int:
    """Run a program in the foreground, with our own terminal, to its end; the exit status, as a shell tells it.

    Ctrl-C is for the program, and not for us.

    :raises CommandError: it cannot be started.
    """
    arguments = [os.fspath(a) for a in argv]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with subprocess.Popen(arguments, preexec_fn=_heed_interrupts) as process:  # one thread only
            status = process.wait()
    except OSError as error:
        raise CommandError(f"{arguments[0]} cannot be started: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
Process = subprocess.Popen[bytes]
Pipe = IO[bytes]
TimeoutExpired = subprocess.TimeoutExpired


def pasteable(argv: Sequence[Argument]) -> str:
    """The command as one would type it in a shell."""
    return shlex.join(os.fspath(a) for a in argv)


def _transcript(argv: Sequence[str], stdout: bytes, stderr: bytes) -> str:
    parts = [f"$ {pasteable(argv)}"]
    for output in (stdout, stderr):
        text = output.decode(errors="replace").strip()
        if text:
            parts.append(text[-_SHOWN_OUTPUT:])
    return "\n".join(parts)
