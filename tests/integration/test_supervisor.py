"""QEMU and its storage daemon under the supervisor, on the command lines of a live machine.

QEMU is told not to run its guest (-S): what is looked at are the programs, and that none of them outlives its owner.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.command import find_program, run
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError, ProvisionError
from pytest_bootc.machine.base import PowerState
from pytest_bootc.machine.process import Processes
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.machine.qemu_backend import QemuBackend
from pytest_bootc.machine.qemu_command import Engine, Wiring, plan
from pytest_bootc.machine.qmp import QMPClient
from pytest_bootc.machine.rundir import RunFolder
from pytest_bootc.machine.storage import make_overlay
from pytest_bootc.model import Accelerator, LiveDisk, MachineSpec, Network, RunConfig

pytestmark = pytest.mark.integration

OWNER = """
import json, sys
from pathlib import Path
from pytest_bootc.deadline import Deadline
from pytest_bootc.machine.base import PowerState
from pytest_bootc.machine.process import Processes
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.machine.qemu_backend import QemuBackend
processes, folders, ending = json.loads(sys.argv[1])
owned = Processes()
owned.start(processes, [Path(folder) for folder in folders], Path(folders[1]) / "qemu.log", Deadline.after(30))
print(json.dumps([owned.pid(process["name"]) for process in processes]), flush=True)
sys.stdin.readline()
if ending == "exception":
    raise RuntimeError("ends without a word to the supervisor")
"""


def soon() -> Deadline:
    return Deadline.after(30)


@pytest.fixture(scope="module")
def disk(live_disk: Callable[[str], LiveDisk]) -> LiveDisk:
    return live_disk("server")


class Machine:
    """A machine that is on, and does nothing. Its paths have commas and spaces in them."""

    def __init__(self, home: Path, disk: LiveDisk) -> None:
        self.folder = RunFolder(home)
        self.processes = Processes()
        qemu = find_program("qemu-system-x86_64", resolution="install QEMU")
        daemon = find_program("qemu-storage-daemon", resolution="install QEMU")
        self.wiring = Wiring(
            qmp=self.folder.socket("qmp"),
            control=self.folder.socket("control"),
            events=self.folder.socket("events"),
            nbd=self.folder.socket("nbd"),
            console=self.folder.file("console.log"),
            overlay=self.folder.file("overlay.qcow2"),
            initrd=self.folder.file("initrd"),
            variables=self.folder.file("variables.fd"),
        )
        make_overlay(disk, self.wiring.overlay, qemu, 1)
        self.wiring.initrd.write_bytes(disk.initramfs.read_bytes())
        engine = Engine(qemu, daemon, Accelerator.TCG, "Nehalem", pvh=True)
        spec = MachineSpec(memory_mib=256, cpus=1, network=Network.RESTRICTED)
        self.plan: list[dict[str, Any]] = [dict(process) for process in plan(engine, self.wiring, spec, disk)]
        self.plan[-1]["argv"] = [*self.plan[-1]["argv"], "-S"]

    @property
    def folders(self) -> list[Path]:
        return [self.folder.sockets, self.folder.path]

    def start(self) -> dict[str, int]:
        self.processes.start(self.plan, self.folders, self.folder.file("qemu.log"), soon())
        pids = {str(process["name"]): self.processes.pid(process["name"]) for process in self.plan}
        return {name: pid for name, pid in pids.items() if pid is not None}

    def qmp(self) -> QMPClient:
        def connected() -> QMPClient | None:
            try:
                return QMPClient.connect(self.wiring.qmp, soon())
            except BackendError:
                assert self.processes.ended("qemu") is None, self.folder.file("qemu.log").read_text()
                return None

        return wait_until(connected, soon(), what="QEMU to answer")

    def survivors(self) -> list[str]:
        """The command lines of processes that have to do with the machine's folders."""
        names = [os.fsencode(folder) for folder in self.folders]
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:  # it has ended just now
                continue
            if process.name != str(os.getpid()) and any(
                name.replace(b",", b",,") in line or name in line for name in names
            ):
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def await_none(self) -> None:
        wait_until(
            lambda: not self.survivors(), soon(), what="every process to end", last=lambda: "\n".join(self.survivors())
        )

    def close(self) -> None:
        self.processes.stop(soon())
        self.folder.remove()


@pytest.fixture
def machine(tmp_path: Path, disk: LiveDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with ExitStack() as stack:
        runtime = Path(f"/tmp/rt,{os.getpid()}")
        runtime.mkdir(mode=0o700)
        stack.callback(runtime.rmdir)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        made = Machine(tmp_path / "vms, of a test", disk)
        stack.callback(made.close)
        yield made


def test_both_programs_take_their_command_lines(machine: Machine) -> None:
    pids = machine.start()
    assert sorted(pids) == ["qemu", "storage"]
    assert machine.survivors() != []
    client = machine.qmp()
    try:
        status = client.execute("query-status", deadline=soon())
        assert isinstance(status, dict)
        assert (status["status"], status["running"]) == ("prelaunch", False)
        blocks = client.execute("query-named-block-nodes", deadline=soon())
        assert isinstance(blocks, list)
        drivers = {block["node-name"]: (block["drv"], block["ro"]) for block in blocks}
        assert drivers["root"] == ("nbd", True)
        assert drivers["var"] == ("qcow2", False)
        network = str(client.execute("human-monitor-command", deadline=soon(), command_line="info usernet"))
        assert "TCP[HOST_FORWARD]" in network
        assert "127.0.0.1" in network
    finally:
        client.close()
    assert all(path.is_socket() for path in (machine.wiring.control, machine.wiring.events, machine.wiring.nbd))
    assert machine.wiring.console.exists()


def test_the_storage_daemon_serves_the_joined_layers(machine: Machine, disk: LiveDisk, tmp_path: Path) -> None:
    """What a client of the socket reads is the disk that QEMU's own tool makes of the description."""
    machine.plan = machine.plan[:1]
    machine.start()
    url = f"nbd+unix:///root?socket={machine.wiring.nbd}"
    wait_until(machine.wiring.nbd.exists, soon(), what="the socket")
    qemu_img = find_program("qemu-img", resolution="install qemu-img")
    compared = run([qemu_img, "compare", "-f", "raw", "-F", "vmdk", url, disk.root], deadline=Deadline.after(120))
    assert b"identical" in compared.stdout


@pytest.mark.parametrize("ending", ["kill -9", "exception", "exit"])
def test_nothing_outlives_the_owner(machine: Machine, ending: str) -> None:
    told = json.dumps([machine.plan, [str(folder) for folder in machine.folders], ending])
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, told], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as owner:
        assert owner.stdout is not None
        pids = json.loads(owner.stdout.readline())
        assert len(pids) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        if ending == "kill -9":
            owner.kill()
        else:
            owner.communicate(b"end\n", timeout=30)
    machine.await_none()
    wait_until(lambda: not any(folder.exists() for folder in machine.folders), soon(), what="the folders to go")


@pytest.mark.parametrize("victim", ["supervisor", "storage", "qemu"])
def test_kill_9_of_one_of_them(machine: Machine, victim: str) -> None:
    pids = machine.start()
    machine.qmp().close()
    supervisor = machine.processes._supervisor
    assert supervisor is not None
    os.kill({**pids, "supervisor": supervisor.pid}[victim], signal.SIGKILL)
    if victim == "storage":
        # QEMU goes on, as a machine does whose disk fails; its owner is told.
        wait_until(lambda: machine.processes.ended("storage"), soon(), what="the end to be told")
        assert machine.processes.running
        assert machine.processes.ended("qemu") is None
        machine.processes.stop(soon())
    else:
        wait_until(lambda: not machine.processes.running, soon(), what="the supervisor to end")
    machine.await_none()
    assert machine.processes.ended(victim) == (None if victim == "supervisor" else -signal.SIGKILL)
    assert all(folder.is_dir() for folder in machine.folders)


def test_a_guest_that_powers_off_ends_everything(machine: Machine) -> None:
    machine.start()
    client = machine.qmp()
    try:
        client.execute("quit", deadline=soon())
    finally:
        client.close()
    wait_until(lambda: not machine.processes.running, soon(), what="the supervisor to end")
    machine.await_none()
    assert machine.processes.ended("qemu") == 0
    assert machine.folder.path.is_dir()


def test_stop_ends_everything_and_keeps_the_folders(machine: Machine) -> None:
    machine.start()
    machine.qmp().close()
    machine.processes.stop(soon())
    assert machine.survivors() == []
    assert machine.processes.ended("qemu") == 0
    assert all(folder.is_dir() for folder in machine.folders)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan: plan[0]["argv"].append("--no-such-option"), "unrecognized option '--no-such-option'"),
        (lambda plan: plan[0]["argv"].__setitem__(2, '{"driver": "file", "filename": "/nowhere"}'), "/nowhere"),
    ],
    ids=["option", "disk"],
)
def test_a_storage_daemon_that_refuses_says_why(
    machine: Machine, change: Callable[[list[dict[str, Any]]], object], words: str
) -> None:
    change(machine.plan)
    with pytest.raises(ProvisionError) as caught:
        machine.start()
    assert caught.value.brief.startswith("the machine could not be started: ")
    assert words in caught.value.details
    machine.processes.stop(soon())
    machine.await_none()


def test_a_qemu_that_refuses_says_why(machine: Machine) -> None:
    machine.plan[1]["argv"].append("-no-such-option")
    with suppress(ProvisionError):  # it may have been seen to start, just before its end
        machine.start()
    wait_until(lambda: machine.processes.ended("qemu"), soon(), what="QEMU to end")
    assert "-no-such-option" in machine.folder.file("qemu.log").read_text()
    machine.await_none()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_is_full_before_qemu_is_started(disk: LiveDisk, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with QemuBackend(RunConfig(), tmp_path).provision(MachineSpec(), disk) as machine:
            with pytest.raises(ProvisionError) as caught:
                machine.start(soon())
            assert machine.power_state() is PowerState.OFF
        assert caught.value.brief.startswith("the machine's files could not be written: ")
        assert "No space left on device" in caught.value.brief
        assert caught.value.resolution == "make room on the disk of the cache"
        assert list((tmp_path / "vms").glob("vm-*")) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_qemu_that_opens_no_sockets_is_the_labs_trouble(disk: LiveDisk, tmp_path: Path) -> None:
    """A program of that name which answers to --version and then does nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "qemu-system-x86_64").write_text(
        "#!/bin/sh\ncase $* in *--version*) echo QEMU emulator version 9.9.9;; *-L*) ;; *) exec sleep 300;; esac\n"
    )
    (folder / "qemu-system-x86_64").chmod(0o755)
    spec = MachineSpec(qemu=str(folder / "qemu-system-x86_64"))
    with QemuBackend(RunConfig(), tmp_path / "home").provision(spec, disk) as machine:
        assert isinstance(machine, QemuMachine)
        with pytest.raises(ProvisionError) as caught:
            machine.start(Deadline.after(2))
        pid = machine.process_id("qemu")
    assert caught.value.brief == "QEMU opened no sockets within 2 s"
    assert not Path(f"/proc/{pid}").exists()
