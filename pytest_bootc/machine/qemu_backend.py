"""Machines on this host: QEMU, without root and without anything that stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.cache import Cache
from pytest_bootc.errors import ConfigError
from pytest_bootc.machine.base import Machine
from pytest_bootc.machine.memory import HOST, needed
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.machine.qemu_engine import choose_engine
from pytest_bootc.machine.reservation import reserve, reserve_spare
from pytest_bootc.machine.rundir import RunFolder
from pytest_bootc.machine.warm import WarmStore, warm_key
from pytest_bootc.machine.warm_machine import WarmMachine
from pytest_bootc.model import GoldenDisk, LiveDisk, MachineSpec, RunConfig
from pytest_bootc.progress import SILENT, Progress

_SHORT = 10.0
# A worker holds its machine until its last test has ended; what the dead have held is free at once.
_RAM_SECONDS = 4 * 3600.0


class QemuBackend:
    """Runs machines with the host's QEMU."""

    def __init__(self, config: RunConfig, home: Path) -> None:
        self._config = config
        self._home = home

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
            machine: QemuMachine
            if isinstance(disk, LiveDisk) and not self._config.cold:
                store = WarmStore(Cache(self._home), self._home / "probes", warm_key(engine, version, spec, disk))
                stack.enter_context(store.lease(Deadline.after(_SHORT)))
                machine = WarmMachine(engine, version, spec, disk, folder, store)
            else:
                machine = QemuMachine(engine, version, spec, disk, folder)
            stack.callback(machine.crash)
            yield machine


def _reserve(folder: RunFolder, mib: int, waiting: Progress | None) -> None:
    if waiting is None:
        reserve_spare(folder, mib)
    else:
        reserve(folder, mib, Deadline.after(_RAM_SECONDS), waiting)
