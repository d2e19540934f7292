"""Machines that are started from a saved boot: what they have in common, what not, and when there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bootc import command
from pytest_bootc.cache import Cache, default_home
from pytest_bootc.deadline import Deadline
from pytest_bootc.machine import warm_machine
from pytest_bootc.machine.qemu_backend import QemuBackend
from pytest_bootc.machine.warm import RAM, STATE, WarmStore
from pytest_bootc.machine.warm_machine import WarmMachine
from pytest_bootc.model import LiveDisk, MachineSpec, Network, RunConfig
from pytest_bootc.progress import Silent
from pytest_bootc.ssh import SSHSession

pytestmark = [pytest.mark.integration, pytest.mark.qemu]

SPEC = MachineSpec(memory_mib=1536, network=Network.RESTRICTED)
_BOOT_SECONDS = 60.0
_DAYS = 3 * 86400


@contextmanager
def provisioned(disk: LiveDisk, spec: MachineSpec = SPEC) -> Iterator[WarmMachine]:
    with QemuBackend(RunConfig(), default_home()).provision(spec, disk) as machine:
        assert isinstance(machine, WarmMachine)
        yield machine


def start(machine: WarmMachine, verdict: str = "") -> None:
    machine.start_warm(Deadline.after(_BOOT_SECONDS), lambda: verdict, Silent())


def ask(machine: WarmMachine, line: str) -> str:
    status, output = machine.control(line, Deadline.after(60))
    assert status == 0, output
    return output.strip()


def folder_of(machine: WarmMachine) -> Path:
    saved = machine._store.find()
    assert saved is not None
    return saved.folder


@pytest.fixture(scope="module")
def disk(live_disk: Callable[[str], LiveDisk]) -> LiveDisk:
    """A disk whose boot has been saved, by this module or an earlier run."""
    disk = live_disk("server")
    with provisioned(disk) as machine:
        start(machine)
        assert machine.is_saved, machine.facts.notes
    return disk


@pytest.fixture(scope="module")
def clones(disk: LiveDisk) -> Iterator[tuple[WarmMachine, WarmMachine]]:
    """Two machines that come from one boot, and run at the same time: leave them as they are."""
    with provisioned(disk) as one, provisioned(disk) as other:
        assert one.resume()
        assert other.resume()
        yield one, other


@pytest.fixture
def clone(disk: LiveDisk) -> Iterator[WarmMachine]:
    with provisioned(disk) as machine:
        assert machine.resume()
        yield machine


def test_a_clone_is_the_system_that_was_saved(clones: tuple[WarmMachine, WarmMachine], disk: LiveDisk) -> None:
    machine, _ = clones
    assert (
        ask(machine, "cat /proc/sys/kernel/random/boot_id")
        == json.loads((folder_of(machine) / "boot.json").read_text())["boot"]["boot_id"]
    )
    assert ask(machine, "systemctl is-system-running") == "running"
    assert ask(machine, "systemctl --failed --no-legend") == ""
    assert "Linux version" in ask(machine, "journalctl -b -o cat --no-pager | head -n 3")
    assert "login:" in machine.console_log().read_text()
    assert machine.facts.origin.startswith("started from the boot of ")


def test_two_clones_are_not_the_same(clones: tuple[WarmMachine, WarmMachine]) -> None:
    script = (
        "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; head -c 16 /dev/random | od -An -tx1"
    )
    one, other = (ask(machine, script).splitlines() for machine in clones)
    assert all(mine != theirs for mine, theirs in zip(one, other, strict=True))
    assert "crng reseeded due to virtual machine fork" in ask(clones[0], "dmesg")


def test_the_clock_of_a_clone_is_right(clones: tuple[WarmMachine, WarmMachine]) -> None:
    for machine in clones:
        assert abs(float(ask(machine, "date +%s")) - time.time()) < 10


def test_the_network_of_a_clone_works(clones: tuple[WarmMachine, WarmMachine]) -> None:
    for machine in clones:
        limit = Deadline.after(120)
        with SSHSession.connect(machine.ssh_endpoint(limit), limit, keepalive=60) as session:
            assert session.succeed("ip -4 -o addr show scope global").split()[3] == "10.0.2.15/24"


def test_the_ram_is_shared_until_it_is_written_to(clones: tuple[WarmMachine, WarmMachine]) -> None:
    ram = folder_of(clones[0]) / RAM
    for machine in clones:
        mappings = Path(f"/proc/{machine.process_id('qemu')}/smaps").read_text()
        (own,) = re.findall(rf"{ram}\n(?:\w+: .*\n)*?Private_Dirty: +(\d+) kB", mappings)
        assert 0 < int(own) < SPEC.memory_mib * 1024 * 0.25
    assert ram.stat().st_mode & 0o777 == 0o600
    assert folder_of(clones[0]).stat().st_mode & 0o777 == 0o700


def test_what_a_clone_writes_is_its_own(disk: LiveDisk, clone: WarmMachine) -> None:
    before = (folder_of(clone) / RAM).stat()
    ask(clone, "echo mine >/var/tmp/mine; echo mine >/run/mine; echo mine >/etc/mine; sync")
    with provisioned(disk) as other:
        assert other.resume()
        assert ask(other, "ls /var/tmp/mine /run/mine /etc/mine 2>/dev/null || true") == ""
    after = (folder_of(clone) / RAM).stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_the_journal_goes_on(clone: WarmMachine) -> None:
    ask(clone, "logger -t tester after the restore; journalctl --sync 2>/dev/null || sleep 1")
    lines = ask(clone, "journalctl -b -o json --output-fields=MESSAGE,__MONOTONIC_TIMESTAMP --no-pager -n 200")
    entries = [json.loads(line) for line in lines.splitlines()]
    assert any(entry["MESSAGE"] == "after the restore" for entry in entries)
    moments = [int(entry["__MONOTONIC_TIMESTAMP"]) for entry in entries]
    assert moments == sorted(moments)
    assert ask(clone, "journalctl --list-boots --no-pager | grep -c .") in ("1", "2")  # a head line since systemd 250
    assert "corrupt" not in ask(clone, "journalctl --verify 2>&1 | grep -i -e corrupt -e fail || true")


@pytest.mark.parametrize("persistent", ["yes", "no"])
def test_timers_do_not_believe_that_they_slept_through_their_hour(
    clone: WarmMachine, monkeypatch: pytest.MonkeyPatch, persistent: str
) -> None:
    units = "/etc/systemd/system"
    ask(clone, f"printf '[Timer]\\nOnCalendar=daily\\nPersistent={persistent}\\n' >{units}/nightly.timer")
    ask(clone, f"printf '[Service]\\nType=oneshot\\nExecStart=/bin/touch /run/fired\\n' >{units}/nightly.service")
    ask(clone, "systemctl start nightly.timer")
    clone._first_timer = clone._settle()
    now = time.time()
    assert clone._first_timer is not None
    assert now < clone._first_timer < now + 86400
    monkeypatch.setattr(warm_machine.time, "time", lambda: now + _DAYS)
    clone.pause()
    clone.wake()
    assert float(ask(clone, "date +%s")) > now + _DAYS - 1
    assert ask(clone, "sleep 2; ls /run/fired 2>/dev/null || true") == ""
    assert ask(clone, "systemctl is-active nightly.timer systemd-tmpfiles-clean.timer") == "active\nactive"
    upcoming = ask(clone, 'date -u -d "$(systemctl show -p NextElapseUSecRealtime --value nightly.timer)" +%s')
    assert now + _DAYS < float(upcoming) < now + _DAYS + 86400
    assert ask(clone, "systemctl is-system-running") == "running"


def test_a_clone_that_can_look_up_its_name_gets_one_of_its_own(clone: WarmMachine) -> None:
    static = ask(clone, "cat /etc/hostname")
    assert ask(clone, "cat /proc/sys/kernel/hostname") == static
    ask(clone, "echo 'hosts: files myhostname dns' >/etc/nsswitch.conf")
    for _ in range(2):
        clone.pause()
        clone.wake()
        assert ask(clone, "cat /proc/sys/kernel/hostname") == f"{static}-{clone.name[-6:].lower()}"


def test_a_pause_is_a_pause(clone: WarmMachine) -> None:
    limit = Deadline.after(120)
    with SSHSession.connect(clone.ssh_endpoint(limit), limit, keepalive=60) as session:
        session.succeed("true")
        clone.pause()
        assert clone.power_state().value == "paused"
        clone.wake()
        assert clone.power_state().value == "running"
        assert abs(float(session.succeed("date +%s", timeout=60)) - time.time()) < 10


def test_a_clone_reboots(clone: WarmMachine) -> None:
    ask(clone, "echo kept >/var/tmp/kept; sync")
    before = ask(clone, "cat /proc/sys/kernel/random/boot_id")
    clone.reboot(Deadline.after(_BOOT_SECONDS))
    assert ask(clone, "cat /proc/sys/kernel/random/boot_id") != before
    assert ask(clone, "cat /var/tmp/kept") == "kept"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: os.utime(folder / RAM), id="written-to"),
        pytest.param(lambda folder: os.truncate(folder / RAM, 4096), id="cut-off"),
        pytest.param(lambda folder: (folder / STATE).unlink(), id="incomplete"),
        pytest.param(lambda folder: (folder / "boot.json").write_text("{}"), id="without-record"),
    ],
)
def test_an_entry_that_changed_is_not_used(disk: LiveDisk, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    with provisioned(disk) as machine:
        shutil.copytree(folder_of(machine), tmp_path / "warm/v1/key", copy_function=_copy_exactly)
    store = WarmStore(Cache(tmp_path), tmp_path, "key")
    assert store.find() is not None
    spoil(tmp_path / "warm/v1/key")
    assert store.find() is None


def _copy_exactly(source: str, target: str) -> None:
    command.run(["cp", "--sparse=always", "--preserve", source, target], deadline=Deadline.after(60))


def test_a_saved_boot_that_cannot_be_used_is_booted_instead_and_a_bad_boot_is_not_saved(disk: LiveDisk) -> None:
    """QEMU refuses the state of a machine with less RAM."""
    spec = replace(SPEC, memory_mib=1472)
    with ExitStack() as stack:
        machine = stack.enter_context(provisioned(disk, spec))
        final = machine._store._folder
        shutil.rmtree(final, ignore_errors=True)
        stack.callback(shutil.rmtree, final, ignore_errors=True)
        with provisioned(disk) as other:
            shutil.copytree(folder_of(other), final, copy_function=_copy_exactly)
        assert machine.is_saved
        start(machine, "something is wrong")
        assert machine.facts.origin == "booted"
        _, note, other_note = machine.facts.notes
        assert note.startswith("booted, because it could not be started from the saved boot: ")
        assert other_note == "the boot was not saved: something is wrong"
        assert not machine.is_saved
        assert ask(machine, "systemctl is-system-running") == "running"


def test_workers_boot_a_cold_image_once(disk: LiveDisk, image_layout: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_origin.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(3))\ndef test_origin(vm, worker_id, n):\n"
        "    open(f'origin-{worker_id}', 'w').write(vm.facts.origin)\n"
    )
    spec = MachineSpec(memory_mib=1408, network=Network.RESTRICTED)
    argv = [sys.executable, "-m", "pytest", "-n3", "-pno:randomly", "--dist=load", "--vm-network=restricted"]
    with provisioned(disk, spec) as machine:
        final = machine._store._folder
    shutil.rmtree(final, ignore_errors=True)
    try:
        image = f"--image=oci:{image_layout['server']}:latest"
        subprocess.run([*argv, image, "--vm-memory=1408"], cwd=tmp_path, check=True, timeout=400)
    finally:
        shutil.rmtree(final, ignore_errors=True)
    origins = sorted(path.read_text().partition(" ")[0] for path in tmp_path.glob("origin-*"))
    assert origins == ["booted", "started", "started"]


@pytest.mark.slow
def test_two_hundred_clones_in_a_row(disk: LiveDisk) -> None:
    """None is stale (the clock), none is another's twin (the random numbers), and none has to be booted."""
    script = (
        "cat /proc/sys/kernel/random/uuid; date +%s; systemctl is-system-running; cat /proc/sys/kernel/random/boot_id"
    )
    with provisioned(disk) as machine:
        known = json.loads((folder_of(machine) / "boot.json").read_text())["boot"]["boot_id"]
    seen = set()
    for number in range(200):
        with provisioned(disk) as machine:
            assert machine.resume(), f"restore {number}: {machine.facts.notes}"
            unique, clock, state, boot = ask(machine, script).split()
            assert abs(float(clock) - time.time()) < 10
            assert (state, boot) == ("running", known)
            assert machine.facts.notes == ("selinux: off (layers carry no labels)",)
            seen.add(unique)
    assert len(seen) == 200
