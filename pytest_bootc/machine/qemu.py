"""A machine of QEMU that boots: its files, its processes, and what it says until it is ready."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import (
    BackendError,
    BootError,
    BootTimeoutError,
    ConfigError,
    ImageError,
    MachineLostError,
    ProvisionError,
    WaitTimeoutError,
)
from pytest_bootc.machine import qemu_command
from pytest_bootc.machine.accel import REFERENCE_HELLO_SECONDS
from pytest_bootc.machine.base import PowerState
from pytest_bootc.machine.console import ConsoleLog
from pytest_bootc.machine.credentials import PROGRAMS, credentials, write_smbios_strings
from pytest_bootc.machine.inject import Identity, guest_files, inject_archive
from pytest_bootc.machine.keeper import Keeper
from pytest_bootc.machine.kept import KEEPER, Kept, Record, image_of, kept_key, spoil, write_record
from pytest_bootc.machine.power import Power
from pytest_bootc.machine.process import Keeping
from pytest_bootc.machine.qemu_command import Engine, Wiring
from pytest_bootc.machine.rundir import RunFolder
from pytest_bootc.machine.storage import copy_variables, make_overlay
from pytest_bootc.machine.warm import Boot
from pytest_bootc.model import (
    Accelerator,
    GoldenDisk,
    HeldLogin,
    LiveDisk,
    MachineFacts,
    MachineSpec,
    Network,
    Scope,
    SSHEndpoint,
)

_LATE = "look at its console; --boot-timeout gives it more time"
_LATE_DISK_FILE = (
    "look at its console, if its kernel writes to one; --boot-timeout gives it more time. Keys and readiness reach a "
    "disk that boots by itself through systemd >= 256; with an older one, start it yourself, and use --host"
)
# Ordering after units that a disk does not have does no harm.
_USUAL_SSH_UNITS = ("sshd.service", "ssh.service", "sshd.socket", "ssh.socket")
_START_SECONDS = 30.0
_SHORT = 10.0
# How much slower an emulated boot may be before its own speed has been measured.
_TCG_BOOT_FACTOR = 5.0


class _EmulatorError(ProvisionError):
    """QEMU's translator ran an instruction that another processor of the guest was just replacing.

    Kernels change their own code while it runs, with a breakpoint for the moment in between. Emulation with several
    processors sometimes gets there too late or too early, and the kernel dies of the breakpoint ("int3").
    """


class QemuMachine:
    """One machine that boots: a RunFolder, and while it is on, two processes."""

    def __init__(
        self,
        engine: Engine,
        version: str,
        spec: MachineSpec,
        disk: GoldenDisk,
        folder: RunFolder,
    ) -> None:
        self._engine = engine
        self._version = version
        self._spec = spec
        self._disk = disk
        self._folder = folder
        self._identity = Identity.generate()
        self._power = Power(folder.name, folder)
        self._console = ConsoleLog(folder.file("console.log"))
        self._time_factor = 1.0
        self._boot_id = ""
        self._origin = ""
        self._mishaps: list[str] = []
        self._runs, self._up_since = 1, time.time()
        self._login: HeldLogin | None = None
        self._wiring = Wiring(
            qmp=folder.socket("qmp"),
            control=folder.socket("control"),
            events=folder.socket("events"),
            nbd=folder.socket("nbd"),
            console=self._console.path,
            overlay=folder.file("overlay.qcow2"),
            initrd=folder.file("initrd"),
            variables=folder.file("variables.fd"),
        )

    @property
    def name(self) -> str:
        """Unique on this host."""
        return self._folder.name

    @property
    def facts(self) -> MachineFacts:
        """What a report says about the machine."""
        live = self._disk if isinstance(self._disk, LiveDisk) else None
        notes = ["selinux: off (layers carry no labels)", *live.losses, *live.notes] if live else self._engine.remarks
        return MachineFacts(
            backend="qemu",
            accelerator=self._engine.accelerator.value,
            emulator=f"QEMU {self._version}",
            kernel_arguments=qemu_command.kernel_arguments(live, self._engine.accelerator) if live else "",
            scope=Scope.RUNNING_SYSTEM,
            time_factor=self._time_factor,
            notes=(*notes, *self._mishaps),
            origin=self._origin,
        )

    def start(self, deadline: Deadline) -> None:
        """Power on and wait until the guest says that it is ready. Raises as the protocol says."""
        if self._power.running:
            raise BackendError(f"{self.name} is running already")
        try:
            self._prepare()
        except OSError as error:
            raise ProvisionError(
                f"the machine's files could not be written: {error}", resolution="make room on the disk of the cache"
            ) from error
        self._origin = "booted"
        try:
            self._power_on(self._wiring, deadline.sooner(_START_SECONDS))
            self._await_ready(deadline)
        except _EmulatorError as error:
            # Its own fault, and rare: one more try, and the report says so. What it has printed is not the image's.
            self._mishaps.append(f"started a second time: {error.brief}")
            self._power.cut()
            self._console.path.rename(self._folder.file("console-of-emulator-error.log"))
            self._power_on(self._wiring, deadline.sooner(_START_SECONDS))
            self._await_ready(deadline)

    def stop(self, deadline: Deadline) -> None:
        """Ask the guest to power off; by force at the deadline."""
        self._power.press_button(deadline)
        self.crash()

    def crash(self) -> None:
        """Cut the power."""
        self._power.cut()

    def reboot(self, deadline: Deadline) -> None:
        """Reboot and wait until the guest is ready again, with another boot id. Raises as the protocol says."""
        self.control("systemctl reboot", deadline.sooner(_SHORT * self._time_factor))
        self.wait_for_reboot(deadline)

    def wait_for_reboot(self, deadline: Deadline) -> None:
        """Wait until a reboot that somebody asked for has happened, and the guest is ready again."""
        self._await_ready(deadline)

    def power_state(self) -> PowerState:
        """What the machine is doing."""
        return self._power.state

    def lost(self) -> MachineLostError | None:
        """Why QEMU does not run the guest any more, where neither we nor the guest ended it."""
        return self._power.lost()

    def questioned(self, deadline: Deadline) -> MachineLostError | None:
        """The same, asking QEMU itself."""
        return self._power.questioned(deadline)

    def process_id(self, name: str) -> int:
        """The process of ``qemu`` or ``storage`` on the host.

        :raises BackendError: the machine was never started, or has no such process.
        """
        return self._power.pid(name)

    def ssh_endpoint(self, deadline: Deadline) -> SSHEndpoint:
        """Where the image's own sshd answers."""
        if isinstance(self._disk, LiveDisk) and not self._disk.ssh_units:
            raise ImageError(
                "the image has no sshd",
                details="it has no sshd program with a unit sshd.service, ssh.service, sshd.socket or ssh.socket",
                resolution="install an SSH server in the image; suites log in through the image's own",
            )
        if self._spec.network is Network.NONE:
            raise ConfigError("the machine has no network, so no SSH", resolution="use --vm-network restricted")
        text = self._power.qmp.execute(
            "human-monitor-command", deadline=deadline.sooner(_SHORT), command_line="info usernet"
        )
        match = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s", str(text))
        if match is None:
            raise BackendError("QEMU forwards no port to the guest's sshd", details=str(text))
        return SSHEndpoint("127.0.0.1", int(match[1]), "root", self._identity.user_private, self._identity.host_public)

    def console_log(self) -> Path:
        """The file that holds everything printed so far."""
        return self._console.path

    def wait_for_console_text(self, pattern: str, deadline: Deadline) -> str:
        """The first line of the console in which the regular expression is found."""
        return self._console.wait_for(pattern, deadline)

    def screenshot(self, path: Path, deadline: Deadline) -> Path:
        """Write what the display shows as a PNG file."""
        inside = self._folder.file("screen.png")
        self._power.qmp.execute("screendump", deadline=deadline, filename=str(inside), format="png")
        path.write_bytes(inside.read_bytes())
        inside.unlink()
        return path

    def control(self, command: str, deadline: Deadline) -> tuple[int, str]:
        """Run a line of POSIX sh as root, without network and sshd."""
        return self._power.channel.execute(command, deadline)

    @property
    def was_kept(self) -> bool:
        """Whether an earlier run has used it."""
        return self._runs > 1

    def may_be_kept(self, idle: float, leases: tuple[int, ...]) -> None:
        """Prepare, before it is started, for its being kept until nobody has used it for ``idle`` seconds.

        ``leases`` are descriptors of locks that it holds for as long as it runs.
        """
        hold = self._wiring.control, self._wiring.events
        self._power.keeping = Keeping(self._folder.socket(KEEPER), idle, hold, self._folder.lock, leases)

    def keep(self) -> None:
        """From now on the end of this process, however it ends, leaves it running."""
        self._write_record()
        self._power.keep()

    def leave(self, login: HeldLogin | None) -> None:
        """Let it go on without us, and keep a login for who uses it next; the descriptor is closed here."""
        self._write_record()
        if login is not None:
            self._leave_login(login)
        self._power.leave()
        self._folder.leave()

    def _leave_login(self, login: HeldLogin) -> None:
        try:
            # Where the machine is just being ended, so is the login.
            with suppress(BackendError), closing(Keeper(self._folder.socket(KEEPER), Deadline.after(_SHORT))) as keeper:
                keeper.leave_login(login)
        finally:
            os.close(login.descriptor)

    def take_held_login(self) -> HeldLogin | None:
        """The login that its last user has left, if there is one and nobody has taken it."""
        login, self._login = self._login, None
        return login

    def spoil(self) -> None:
        """Say that no later run is to use it."""
        spoil(self._folder.path)

    def join(self, kept: Kept, keeper: Keeper, deadline: Deadline) -> None:
        """Go on with a machine that an earlier run has kept, and whose keeper lets us use it.

        :raises BackendError: it does not answer.
        :raises GuestError: nor does its guest.
        """
        record = kept.record
        self._go_on_from(record.boot)
        self._runs, self._up_since = record.runs + 1, record.up_since
        self._login = keeper.login
        self._power.join(keeper, self._wiring, deadline)
        while (event := self._power.channel.next_event(Deadline.after(0))) is not None:
            # Somebody has rebooted it meanwhile.
            self._boot_id = event.boot_id or self._boot_id
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._up_since))
        self._origin = f"kept, and up since {since}"
        self._mishaps.append(
            f"{self.name} was kept, is up since {since}, and has been used before (run {self._runs} on it)"
        )

    def remark(self, notes: Sequence[str]) -> None:
        """Have the report say something of how it came to be this machine."""
        self._mishaps += notes

    def _go_on_from(self, boot: Boot) -> None:
        """Be the machine that came up so."""
        self._identity, self._boot_id, self._time_factor = boot.identity, boot.boot_id, boot.time_factor

    def _write_record(self) -> None:
        image, digest = image_of(self._disk)
        networked = self._spec.network is not Network.NONE and not (
            isinstance(self._disk, LiveDisk) and not self._disk.ssh_units
        )
        record = Record(
            image=image,
            digest=digest,
            key=kept_key(self._engine, self._version, self._spec, self._disk),
            memory_mib=self._spec.memory_mib,
            cpus=self._spec.cpus,
            emulator=f"QEMU {self._version}",
            accelerator=self._engine.accelerator.value,
            sockets=str(self._folder.sockets),
            console=str(self._console.path),
            up_since=self._up_since,
            runs=self._runs,
            boot=Boot(self._boot_id, self._time_factor, self._up_since, None, self._identity),
            endpoint=self.ssh_endpoint(Deadline.after(_SHORT)) if networked else None,
        )
        try:
            write_record(self._folder.path, record)
        except OSError as error:
            raise ProvisionError(f"what a kept machine needs cannot be written down: {error}") from error

    def _prepare(self) -> None:
        """Make the files of a machine that boots."""
        if not self._wiring.overlay.exists():
            make_overlay(self._disk, self._wiring.overlay, self._engine.qemu, self._spec.var_gib)
            if self._engine.firmware is not None:
                copy_variables(self._engine.firmware, self._wiring.variables)
        if isinstance(self._disk, LiveDisk):
            files = guest_files(self._identity, self._disk.ssh_units)
            with self._wiring.initrd.open("wb") as initrd:
                initrd.write(self._disk.initramfs.read_bytes())
                initrd.write(inject_archive(files, self._disk.folders))
        else:
            named = credentials(guest_files(self._identity, _USUAL_SSH_UNITS, PROGRAMS))
            strings = write_smbios_strings(named, self._folder.file("credentials"))
            self._wiring = replace(self._wiring, credentials=strings)

    def _power_on(self, wiring: Wiring, deadline: Deadline) -> None:
        self._power.switch_on(qemu_command.plan(self._engine, wiring, self._spec, self._disk), wiring, deadline)

    @property
    def _patience(self) -> float:
        return _TCG_BOOT_FACTOR if self._engine.accelerator is Accelerator.TCG else 1.0

    def _await_ready(self, deadline: Deadline) -> None:
        """Take the guest's own word for it, and give up as soon as the console or QEMU says that it is in vain."""
        deadline = Deadline.after(deadline.remaining() * self._patience)
        began, printed = deadline.at - deadline.seconds, self._console.size()
        printed = 0 if not self._boot_id else printed
        last = "nothing"
        while not deadline.expired():
            self._look_for_the_end(printed)
            try:
                event = self._power.channel.next_event(deadline.sooner(0.5))
            except BackendError:
                # QEMU closes its end a moment before we hear how it ended, which says whose fault that was.
                with suppress(WaitTimeoutError):
                    wait_until(lambda: self._look_for_the_end(printed), deadline.sooner(_SHORT), what="QEMU to end")
                raise
            if event is None:
                continue
            last = event.word
            if event.word == "hello":
                hello = deadline.seconds - deadline.remaining()
                if self._engine.accelerator is Accelerator.TCG and began:
                    self._time_factor = max(1.0, min(100.0, hello / REFERENCE_HELLO_SECONDS))
            elif event.word == "ready" and event.boot_id != self._boot_id:
                self._boot_id = event.boot_id
                return
        lost = self.questioned(Deadline.after(_SHORT))
        if lost is not None:
            raise lost
        raise BootTimeoutError(
            f"the guest was not ready within {deadline.seconds:.0f} s (the last that it said: {last})",
            details=self._console.tail(),
            resolution=_LATE if isinstance(self._disk, LiveDisk) else _LATE_DISK_FILE,
        )

    def _look_for_the_end(self, printed: int) -> None:
        line = self._console.fatal_line(printed)
        if line is not None:
            if self._engine.accelerator is Accelerator.TCG and self._console.has_breakpoint_oops(printed):
                raise _EmulatorError(
                    "the emulator broke the guest's kernel: a trap of code that the kernel was changing",
                    details=self._console.tail(),
                    resolution="try again, with a newer QEMU if it happens often, or with --vm-cpus 1",
                )
            raise BootError(f"the image did not come up: {line}", details=self._console.tail())
        lost = self.lost()
        if lost is not None:
            raise lost
        if self._power.ended("qemu") is not None:
            raise BootError("the guest powered off while it booted", details=self._console.tail())
