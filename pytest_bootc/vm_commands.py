"""The commands `pytest-bootc vm ...`: the machines that runs with --keep-vm have left, to look at, enter and end."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pytest_bootc import command
from pytest_bootc.cache import default_home
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk_commands import ago, table
from pytest_bootc.errors import BackendError, ConfigError
from pytest_bootc.machine.keeper import KeptElsewhereError
from pytest_bootc.machine.kept import Kept, find_kept
from pytest_bootc.model import SSHEndpoint

Say = Callable[[str], None]

_SHORT = 5.0
_END_SECONDS = 30.0
_FOLLOW_SECONDS = 1.0
_PIECE = 1 << 16
_HEAD = ("NAME", "IMAGE", "DIGEST", "STATE", "UP SINCE", "MEMORY")
_DIGEST_DIGITS = 12


class Standing(NamedTuple):
    """A machine as it stands: the process that uses it, or for how many seconds nobody has."""

    kept: Kept
    user: int | None
    idle: float


def _machines() -> list[Kept]:
    return find_kept(default_home() / "vms")


def _chosen(name: str | None) -> Kept:
    """The machine of that name, or the only one.

    :raises ConfigError: there is none, or it is not clear which.
    """
    machines = _machines()
    there = "\n".join(f"{kept.name}  {kept.record.image}" for kept in machines)
    if not machines:
        raise ConfigError("no machine is kept", resolution="keep one: pytest --image REF --keep-vm")
    if name is None:
        if len(machines) > 1:
            raise ConfigError("there are several machines", details=there, resolution="name one of them")
        return machines[0]
    for kept in machines:
        if kept.name == name:
            return kept
    raise ConfigError(f"there is no machine {name}", details=f"there is:\n{there}", resolution="name one of them")


def show(options: argparse.Namespace, say: Say) -> None:
    """`vm list`: the machines that are kept, and who uses them."""
    standing = [state for kept in _machines() if (state := _state(kept)) is not None]
    if options.format == "json":
        say(json.dumps([_plain(state) for state in standing], indent=2))
        return
    if not standing:
        say("no machine is kept")
        return
    for line in table([_HEAD, *(_row(state) for state in standing)]):
        say(line)


def _state(kept: Kept) -> Standing | None:
    """How a machine stands; ``None`` where it is ending just now."""
    with ExitStack() as stack:
        try:
            keeper = kept.call(Deadline.after(_SHORT))
            stack.callback(keeper.close)
            return Standing(kept, *keeper.visit())
        except BackendError:
            return None


def _row(state: Standing) -> tuple[str, ...]:
    record = state.kept.record
    digest = record.digest.partition(":")[2][:_DIGEST_DIGITS]
    word = f"kept, idle {state.idle / 60:.0f} min" if state.user is None else f"in use by {state.user}"
    up = ago(time.time() - record.up_since)
    return state.kept.name, record.image, digest, word, up, f"{record.memory_mib} MiB"


def _plain(state: Standing) -> dict[str, Any]:
    record = state.kept.record
    return {
        "name": state.kept.name,
        "image": record.image,
        "digest": record.digest,
        "state": "kept" if state.user is None else "in use",
        "used_by": state.user,
        "idle_seconds": round(state.idle, 1),
        "up_since": datetime.fromtimestamp(record.up_since, UTC).isoformat(timespec="seconds"),
        "memory_mib": record.memory_mib,
        "cpus": record.cpus,
        "runs": record.runs,
        "accelerator": record.accelerator,
        "emulator": record.emulator,
        "console": record.console,
    }


def ssh(options: argparse.Namespace) -> int:
    """`vm ssh`: log in, or run a command; the exit status of the ssh client.

    :raises ConfigError: it is not clear to which machine, or that has no way in.
    """
    words: list[str] = options.words
    # What is no machine's name is the command's first word, where the name was left out.
    name = options.name
    if name == "--" or (name is not None and not name.startswith("vm-")):
        words, name = ([] if name == "--" else [name]) + words, None
    kept = _chosen(name)
    endpoint = kept.record.endpoint
    if endpoint is None:
        raise ConfigError(
            f"{kept.name} has no network, or no sshd", resolution=f"look at it: pytest-bootc vm console {kept.name}"
        )
    program = command.find_program("ssh", resolution="install an OpenSSH client (Debian: openssh-client)")
    with ExitStack() as stack:
        keeper = kept.call(Deadline.after(_SHORT))
        stack.callback(keeper.close)
        keeper.visit()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pytest-bootc-ssh-")))
        return command.attend(ssh_command(program, endpoint, folder, words[1:] if words[:1] == ["--"] else words))


def ssh_command(program: Path, endpoint: SSHEndpoint, folder: Path, words: Sequence[str]) -> list[str]:
    """The command line of the system's ssh client; writes the key and the pinned host key into a private folder."""
    key, hosts = folder / "key", folder / "known_hosts"
    key.touch(mode=0o600)
    key.write_text(endpoint.private_key or "")
    hosts.write_text(f"[{endpoint.host}]:{endpoint.port} {endpoint.host_key}\n")
    settings = {
        "IdentityFile": key, "IdentitiesOnly": "yes", "IdentityAgent": "none", "UserKnownHostsFile": hosts,
        "GlobalKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "yes", "UpdateHostKeys": "no",
        "BatchMode": "yes", "LogLevel": "ERROR",
    }  # fmt: skip
    given = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    line = [shlex.join(words)] if len(words) > 1 else list(words)
    return [str(program), "-F", "none", *given, "-p", str(endpoint.port), f"{endpoint.user}@{endpoint.host}", *line]


def console(options: argparse.Namespace) -> None:
    """`vm console`: what the serial console has printed, and prints.

    :raises ConfigError: it is not clear of which machine.
    :raises BackendError: it cannot be read.
    """
    kept = _chosen(options.name)
    try:
        with Path(kept.record.console).open("rb") as file:
            _copy(file.read)
            while options.follow and kept.folder.exists():
                Deadline.after(_FOLLOW_SECONDS).pause(_FOLLOW_SECONDS)
                _copy(file.read)
    except OSError as error:
        raise BackendError(f"the console of {kept.name} cannot be read: {error.strerror}") from error


def _copy(read: Callable[[int], bytes]) -> None:
    while piece := read(_PIECE):
        sys.stdout.buffer.write(piece)
    sys.stdout.flush()


def stop(options: argparse.Namespace, say: Say) -> None:
    """`vm stop`: end a machine, or all that nobody uses.

    :raises ConfigError: it is not clear which, or somebody uses it.
    """
    if options.all and options.name:
        raise ConfigError(f"--all and {options.name} do not go together", resolution="say one of them")
    for kept in _machines() if options.all else [_chosen(options.name)]:
        try:
            _end(kept)
        except KeptElsewhereError as error:
            if not options.all:
                raise ConfigError(
                    f"{kept.name} is in use: {error.brief}", resolution="let that run finish, or end it first"
                ) from error
            say(f"in use by process {error.process}: {kept.name}")
        else:
            say(f"ended {kept.name} ({kept.record.image})")


def _end(kept: Kept) -> None:
    keeper = kept.call(Deadline.after(_END_SECONDS))
    try:
        keeper.end()
    finally:
        keeper.close()
