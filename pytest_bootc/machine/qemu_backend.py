"""Machines on this host: QEMU, without root and without anything that stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BootcTestError, ConfigError
from pytest_bootc.machine.base import Machine
from pytest_bootc.machine.joining import Offer, offers
from pytest_bootc.machine.kept import find_kept, kept_key
from pytest_bootc.machine.memory import HOST, needed
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.machine.qemu_command import Engine
from pytest_bootc.machine.qemu_engine import choose_engine
from pytest_bootc.machine.reservation import reserve, reserve_spare
from pytest_bootc.machine.rundir import RunFolder
from pytest_bootc.machine.warm import WarmStore, warm_key
from pytest_bootc.machine.warm_machine import WarmMachine
from pytest_bootc.model import GoldenDisk, LiveDisk, MachineSpec, RunConfig
from pytest_bootc.progress import SILENT, Progress

_SHORT = 10.0
_JOIN_SECONDS = 5.0
# A worker holds its machine until its last test has ended; what the dead have held is free at once.
_RAM_SECONDS = 4 * 3600.0


class QemuBackend:
    """Runs machines with the host's QEMU."""

    def __init__(self, config: RunConfig, home: Path) -> None:
        self._config = config
        self._home = home
        self._notes: list[str] = []

    @contextmanager
    def provision(
        self, spec: MachineSpec, disk: GoldenDisk | None, waiting: Progress | None = SILENT
    ) -> Iterator[Machine]:
        """A machine that is not started yet, and for which RAM is reserved.

        :raises ConfigError: QEMU is not installed.
        :raises ProvisionError: the host cannot provide such a machine.
        """
        if disk is None:
            raise ConfigError("QEMU boots a disk, and there is none", resolution="give --image or --disk")
        engine, version = choose_engine(spec, disk, self._home / "probes")
        with ExitStack() as stack:
            folder = RunFolder(self._home / "vms")
            stack.callback(folder.remove)
            _reserve(folder, needed(spec.memory_mib, engine.accelerator, HOST.room()), waiting)
            machine = self._machine(_Kind(engine, version, spec, disk), folder, stack)
            machine.remark(self._notes)
            yield machine

    @contextmanager
    def kept(self, spec: MachineSpec, disk: GoldenDisk | None) -> Iterator[Machine | None]:
        """A machine that an earlier run has kept, and which runs; ``None`` where there is none of this kind.

        :raises ConfigError: QEMU is not installed.
        """
        if disk is None or self._config.cold:
            yield None
            return
        engine, version = choose_engine(spec, disk, self._home / "probes")
        known = find_kept(self._home / "vms")
        key = kept_key(engine, version, spec, disk) if known else ""
        with ExitStack() as stack:
            for offer in offers(known, key, disk, self._notes):
                machine = self._joined(_Kind(engine, version, spec, disk), offer, stack)
                if machine is not None:
                    yield machine
                    return
            yield None

    def _joined(self, kind: _Kind, offer: Offer, outer: ExitStack) -> QemuMachine | None:
        kept, keeper = offer.kept, offer.keeper
        with ExitStack() as stack:
            folder = RunFolder.joined(kept.folder, Path(kept.record.sockets), keeper.descriptors[0])
            stack.callback(folder.remove)
            machine = self._machine(kind, folder, stack)
            try:
                machine.join(kept, keeper, Deadline.after(_JOIN_SECONDS * kept.record.boot.time_factor))
            except BootcTestError as error:
                # Whatever it is, another machine does not depend on it. This one is of no use to anybody.
                self._notes.append(f"kept machine {kept.name} was ended, because it could not be used: {error.brief}")
                return None
            machine.remark(self._notes)
            outer.push(stack.pop_all())
            return machine

    def _machine(self, kind: _Kind, folder: RunFolder, stack: ExitStack) -> QemuMachine:
        """A machine in these folders; leaving ``stack`` ends it."""
        engine, version, spec, disk = kind
        cache, leases = Cache(self._home), []
        machine: QemuMachine
        if isinstance(disk, LiveDisk):
            used = [disk.folder]
            if self._config.cold:
                machine = QemuMachine(engine, version, spec, disk, folder)
            else:
                key = warm_key(engine, version, spec, disk)
                used.append(cache.warm / key)
                machine = WarmMachine(engine, version, spec, disk, folder, WarmStore(cache, self._home / "probes", key))
            leases = [stack.enter_context(cache.lease(entry, Deadline.after(_SHORT))) for entry in used]
        else:
            machine = QemuMachine(engine, version, spec, disk, folder)
        if self._config.keep_vm:
            machine.may_be_kept(self._config.keep_vm_idle, tuple(lease.fileno() for lease in leases))
        stack.callback(machine.crash)
        return machine


class _Kind(NamedTuple):
    """What a machine is made of."""

    engine: Engine
    version: str
    spec: MachineSpec
    disk: GoldenDisk


def _reserve(folder: RunFolder, mib: int, waiting: Progress | None) -> None:
    if waiting is None:
        reserve_spare(folder, mib)
    else:
        reserve(folder, mib, Deadline.after(_RAM_SECONDS), waiting)
