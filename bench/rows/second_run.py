"""What a saved boot saves: the second run of an image, a pristine machine for one test, and what machines share.

Beside the second run stands a bare QEMU that boots the same kernel and systemd to the login prompt: what a run takes
at least with pytest-testinfra, labgrid or a script of one's own, none of which keeps anything for the next run.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from pytest_bootc.cache import default_home
from pytest_bootc.deadline import Deadline
from pytest_bootc.machine.pool import VM
from pytest_bootc.machine.qemu_backend import QemuBackend
from pytest_bootc.machine.terms import Terms
from pytest_bootc.machine.warm_machine import WarmMachine
from pytest_bootc.model import LiveDisk, MachineSpec, Network, RunConfig
from pytest_bootc.ssh import SSHSession
from rows.figure import Figure
from rows.first_verdict import bare_boot, disk_of, seconds_to_verdict
from rows.roots import _server

_ROUNDS = 5
_SPEC = MachineSpec(memory_mib=2048, network=Network.RESTRICTED)


def measure() -> list[Figure]:
    layout = _server()
    disk = disk_of(layout)
    return [*_second_run(layout, disk), *_fresh(disk), *_shared(disk)]


def _second_run(layout: Path, disk: LiveDisk) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        cold = seconds_to_verdict(layout, work, "--cold")
        seconds_to_verdict(layout, work)  # where nothing has been saved yet, this run does it
        pairs = [(seconds_to_verdict(layout, work), bare_boot(disk)) for _ in range(2)]
        again = [ours for ours, _ in pairs] + [seconds_to_verdict(layout, work) for _ in range(_ROUNDS - 2)]
    bare = min(bare for _, bare in pairs)
    second = statistics.median(again)
    told = f"median of {_ROUNDS}: {', '.join(f'{each:.1f}' for each in again)}; cold {cold:.1f}, bare boot {bare:.1f} s"
    return [
        Figure("second run on the same digest -> first verdict", second, "s", 5, told),
        Figure("the same, of a cold run", second / cold, "x", 0.1),
        Figure("the same, of a bare boot (what peers need at least)", second / bare, "x", 0.2),
    ]


def _fresh(disk: LiveDisk) -> list[Figure]:
    backend = QemuBackend(RunConfig(), default_home())
    terms = Terms(boot_seconds=120, missing=RuntimeError, listener=lambda vm, finding, error: None)
    alone, alone_ssh, pooled, pooled_ssh = [], [], [], []
    vm = VM("server", backend, terms)
    try:
        vm.use(_SPEC, disk)
        for _ in range(_ROUNDS):
            first, login = _renewed(vm, disk)
            alone.append(first)
            alone_ssh.append(login)
            vm.prepare_spare()
            while vm._spares._order is None or vm._spares._order._paused is None:
                time.sleep(0.1)
            time.sleep(1)
            first, login = _renewed(vm, disk)
            pooled.append(first)
            pooled_ssh.append(login)
    finally:
        vm.close()
    return [
        Figure("pristine machine, spare waiting -> first answer", _median(pooled), "s", 1, _each(pooled)),
        Figure("the same, first answer through its sshd", _median(pooled_ssh), "s", 1.5, _each(pooled_ssh)),
        Figure("pristine machine, none waiting -> first answer", _median(alone), "s", 2.5, _each(alone)),
        Figure("the same, first answer through its sshd", _median(alone_ssh), "s", 5, _each(alone_ssh)),
    ]


def _renewed(vm: VM, disk: LiveDisk) -> tuple[float, float]:
    """Until the control channel answers, and until a command has run through sshd; the old machine's end included."""
    began = time.monotonic()
    vm.condemn()
    vm.use(_SPEC, disk)
    status, answer = vm.control("cat /proc/sys/kernel/random/boot_id")
    if status != 0 or len(answer) < 30:
        raise SystemExit(f"the machine answered {answer!r}")
    first = time.monotonic() - began
    limit = Deadline.after(60)
    ready = vm.take_login()
    with ready or SSHSession.connect(vm.ssh_endpoint(limit), limit, keepalive=60) as session:
        session.succeed("test -w /var/tmp", timeout=60)
        return first, time.monotonic() - began


def _shared(disk: LiveDisk) -> list[Figure]:
    """Three machines that have logged somebody in and looked at themselves."""
    backend = QemuBackend(RunConfig(), default_home())
    ram, disks = [], []
    with ExitStack() as stack:
        for _ in range(3):
            machine = stack.enter_context(backend.provision(_SPEC, disk))
            if not isinstance(machine, WarmMachine) or not machine.resume():
                raise SystemExit("there is no saved boot")
            limit = Deadline.after(60)
            with SSHSession.connect(machine.ssh_endpoint(limit), limit, keepalive=60) as session:
                session.succeed("systemctl list-units >/dev/null; journalctl -n 50 >/dev/null; id", timeout=60)
            status = Path(f"/proc/{machine.process_id('qemu')}/status").read_text()
            private = re.search(r"RssAnon:\s+(\d+) kB", status)
            if private is None:
                raise SystemExit("the kernel does not tell private memory")
            ram.append(int(private[1]) / 1024)
            files = machine.console_log().parent.iterdir()
            disks.append(sum(path.stat().st_blocks * 512 for path in files) / 2**20)
    share = _median(ram) / _SPEC.memory_mib * 100
    return [
        Figure("RAM of a further machine, of the guest's", share, "%", 25, f"{_median(ram):.0f} MiB with QEMU"),
        Figure("disk of a further machine", _median(disks), "MiB", 16, "grows with what the guest writes"),
    ]


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _each(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
