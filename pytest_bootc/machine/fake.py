"""A backend that boots nothing: its machines follow a script. For trying out suites, reports and states without QEMU.

The script is a TOML file that the environment variable ``BOOTC_FAKE`` names; without one every boot succeeds, and
there is no sshd. All keys are optional::

    boots = ["panic", "ready"]    # what becomes of each start and reboot; the last word holds from then on
    console = "Linux version 6.12\n"   # what each boot prints before that
    log = "fake.log"              # gets a line for each event: provision, start, resume, pause, wake, stop, release
    notes = ["selinux: off"]
    clones = false                # whether a fresh machine is to be had at once, as from a saved boot

    [ssh]                         # an sshd that somebody else runs
    host = "127.0.0.1"
    port = 2222
    user = "root"
    private_key = "key"           # a file; so is nothing else here
    host_key = "ssh-ed25519 AAAA..."

    [[control]]                   # answers of the control channel: the first whose text the command contains
    match = "journalctl"
    output = "..."
    status = 0                    # the command's exit status
    hang = false                  # answer nothing until the deadline
    prints = ""                   # what appears on the console first
    loses = ""                    # why the host has lost the machine from then on
    machines = 0                  # only the first so many machines answer so; 0: all of them

Base checks (:mod:`pytest_bootc.health`) find everything well, except for answers whose ``match`` is "base-check". A
machine that is lost answers nothing any more.

The words of ``boots``: ``ready``; ``panic`` (the image gives up); ``silent`` (it says nothing until the deadline);
``broken`` (the host cannot run it). Paths are relative to the script's folder.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_bootc import health
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import (
    BootError,
    BootTimeoutError,
    ConfigError,
    GuestError,
    ImageError,
    MachineLostError,
    ProvisionError,
)
from pytest_bootc.machine.base import PowerState
from pytest_bootc.machine.rundir import RunFolder
from pytest_bootc.model import Accelerator, GoldenDisk, MachineFacts, MachineSpec, RunConfig, Scope, SSHEndpoint
from pytest_bootc.progress import SILENT, Progress

_BOOTS = ("ready", "panic", "silent", "broken")
_PANIC = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"


@dataclass(frozen=True)
class Answer:
    """What the control channel says to commands that contain ``match``."""

    match: str
    output: str = ""
    status: int = 0
    hang: bool = False
    prints: str = ""
    loses: str = ""
    machines: int = 0


@dataclass(frozen=True)
class Script:
    """What the machines of a run do; the module's text tells the meaning of each field."""

    boots: tuple[str, ...] = ("ready",)
    console: str = "Linux version 0 (fake)\n"
    log: Path | None = None
    notes: tuple[str, ...] = ()
    clones: bool = False
    ssh: SSHEndpoint | None = None
    control: tuple[Answer, ...] = field(default_factory=tuple)

    @classmethod
    def load(cls, path: Path) -> Script:
        """Read a script.

        :raises ConfigError: there is none, or it says something that no fake machine can do.
        """
        try:
            said = tomllib.loads(path.read_text())
            return cls._read(said, path.parent)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"the script of the fake machines, {path}, cannot be read",
                details=f"{type(error).__name__}: {error}",
                resolution="see the documentation of pytest_bootc.machine.fake",
            ) from error

    @classmethod
    def _read(cls, said: dict[str, Any], folder: Path) -> Script:
        known = dict(said)
        known["boots"] = tuple(said.get("boots", cls.boots))
        known["notes"] = tuple(said.get("notes", ()))
        known["control"] = tuple(Answer(**answer) for answer in said.get("control", ()))
        if "log" in said:
            known["log"] = folder / said["log"]
        if "ssh" in said:
            ssh = dict(said["ssh"])
            if "private_key" in ssh:
                ssh["private_key"] = (folder / ssh["private_key"]).read_text()
            known["ssh"] = SSHEndpoint(**ssh)
        for word in known["boots"] or ("",):
            if word not in _BOOTS:
                raise ValueError(f"boots: {word!r} is none of {', '.join(_BOOTS)}")
        return cls(**known)


class FakeMachine:
    """A machine of the script. It has a console, a control channel and a power cord, but no display."""

    def __init__(self, name: str, script: Script, folder: Path) -> None:
        self.name = name
        self._script = script
        self._console = folder / "console.log"
        self._console.touch()
        self._boots = 0
        self._state = PowerState.OFF
        self._lost: MachineLostError | None = None

    @property
    def facts(self) -> MachineFacts:
        """Says everywhere that it is a fake."""
        return MachineFacts(
            backend="fake",
            accelerator=Accelerator.TCG.value,
            emulator="none: a script",
            kernel_arguments="console=fake",
            scope=Scope.RUNNING_SYSTEM,
            notes=self._script.notes,
        )

    def start(self, deadline: Deadline) -> None:
        """Do what the script says of this boot."""
        self.note("start")
        self._boot(deadline)

    @property
    def is_saved(self) -> bool:
        """What the script says."""
        return self._script.clones

    def start_warm(self, deadline: Deadline, judge: Callable[[], str], progress: Progress) -> None:
        """Do what the script says of this boot; what it says of clones is about machines that come later."""
        self.start(deadline)

    def resume(self) -> bool:
        """Be up at once, if the script says so."""
        if self._script.clones:
            self.note("resume")
            self._state = PowerState.RUNNING
        return self._script.clones

    def pause(self) -> None:
        """Stand still."""
        self.note("pause")
        self._state = PowerState.PAUSED

    def wake(self) -> None:
        """Go on."""
        self.note("wake")
        self._state = PowerState.RUNNING

    def stop(self, deadline: Deadline) -> None:
        """Be off."""
        if self._state is not PowerState.OFF:
            self.note("stop")
        self._state = PowerState.OFF

    def reboot(self, deadline: Deadline) -> None:
        """Do what the script says of the next boot."""
        self.note("reboot")
        self._boot(deadline)

    def power_state(self) -> PowerState:
        """What the script has led to."""
        return self._state

    def crash(self) -> None:
        """Be off, as after a power cut."""
        self.note("crash")
        self._state = PowerState.OFF

    def ssh_endpoint(self, deadline: Deadline) -> SSHEndpoint:
        """The sshd of the script."""
        if self._state is not PowerState.RUNNING:
            raise ProvisionError(f"{self.name} is not running")
        if self._script.ssh is None:
            raise ImageError("the image has no sshd", resolution="name one in the section [ssh] of the fake's script")
        return self._script.ssh

    def console_log(self) -> Path:
        """What the boots have printed."""
        return self._console

    def wait_for_console_text(self, pattern: str, deadline: Deadline) -> str:
        """The first line that matches."""

        def look() -> str | None:
            return next((line for line in self._console.read_text().splitlines() if re.search(pattern, line)), None)

        return wait_until(look, deadline, what=f"{pattern!r} on the console", last=self._console.read_text)

    def control(self, command: str, deadline: Deadline) -> tuple[int, str]:
        """The script's answer; without one, status 127 as a shell says of a command that is not there."""
        answer = self._answer_to(command)
        if answer is not None:
            self._print(answer.prints)
            if answer.loses:
                self._lost = MachineLostError(answer.loses)
        if self._lost is not None or (answer is not None and answer.hang):
            deadline.pause(deadline.remaining())
            raise GuestError(f"the script has no answer to {command!r} within {deadline.seconds:g} s")
        if answer is not None:
            return answer.status, answer.output
        if command == health.CHECK:
            return 0, health.ALL_IS_WELL
        return 127, f"sh: no answer to {command!r} in the script\n"

    def lost(self) -> MachineLostError | None:
        """What the script says."""
        return self._lost

    def questioned(self, deadline: Deadline) -> MachineLostError | None:
        """What the script says."""
        return self._lost

    def _answer_to(self, command: str) -> Answer | None:
        if command == health.CHECK:
            command = health.NAME
        number = int(self.name.rpartition("-")[2])
        return next(
            (
                answer
                for answer in self._script.control
                if answer.match in command and (not answer.machines or number <= answer.machines)
            ),
            None,
        )

    def note(self, event: str) -> None:
        """Add a line to the script's log, if it wants one."""
        if self._script.log is not None:
            with self._script.log.open("a") as log:
                log.write(f"{event} {self.name}\n")

    def _boot(self, deadline: Deadline) -> None:
        self._lost = None
        word = self._script.boots[min(self._boots, len(self._script.boots) - 1)]
        self._boots += 1
        if word == "broken":
            raise ProvisionError("the fake host cannot run the machine", resolution="change boots in its script")
        self._print(self._script.console)
        if word == "panic":
            self._state = PowerState.CRASHED
            self._print(_PANIC)
            raise BootError("the kernel panicked", details=_PANIC)
        if word == "silent":
            deadline.pause(deadline.remaining())
            raise BootTimeoutError(
                f"the machine was not ready after {deadline.seconds:g} s", details=self._console.read_text()
            )
        self._state = PowerState.RUNNING

    def _print(self, text: str) -> None:
        with self._console.open("a") as console:
            console.write(text)


class FakeBackend:
    """Provisions scripted machines."""

    def __init__(self, config: RunConfig, home: Path) -> None:
        path = os.environ.get("BOOTC_FAKE")
        self._script = Script.load(Path(path)) if path else Script()
        self._home = home
        self._made = 0

    @contextmanager
    def provision(
        self, spec: MachineSpec, disk: GoldenDisk | None, waiting: Progress | None = SILENT
    ) -> Iterator[FakeMachine]:
        """A machine with a console file of its own; there is always room for it."""
        self._made += 1
        folder = RunFolder(self._home / "vms")
        try:
            machine = FakeMachine(f"fake-{os.getpid()}-{self._made}", self._script, folder.path)
            machine.note(f"provision {spec.memory_mib} MiB")
            try:
                yield machine
            finally:
                machine.stop(Deadline.after(1))
                machine.note("release")
        finally:
            folder.remove()
