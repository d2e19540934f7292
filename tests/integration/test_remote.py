"""A host that is up already: OpenSSH's server, with the keys where a user has them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError, BootTimeoutError, GuestError, ProvisionError
from pytest_bootc.evidence import Circumstances, EvidenceRecord
from pytest_bootc.machine.base import HasControl, PowerState, load_backend
from pytest_bootc.machine.pool import VM
from pytest_bootc.machine.remote import RemoteMachine
from pytest_bootc.machine.terms import Terms
from pytest_bootc.model import MachineSpec, RunConfig
from pytest_bootc.ssh import SSHSession

pytestmark = pytest.mark.integration


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who has no keys, no agent and knows no hosts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path / ".ssh"


def written(server) -> str:
    return f"{server.endpoint.user}@127.0.0.1:{server.port}"


@contextmanager
def machine_at(host: str) -> Iterator[RemoteMachine]:
    with load_backend(RunConfig(backend="remote", host=host), Path("unused")).provision(MachineSpec(), None) as machine:
        yield machine


def introduce(home: Path, server) -> None:
    """Let the user know the server and the server the user."""
    (home / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {server.host_key.public}\n")
    (home / "id_ed25519").write_text(server.key.private)


@pytest.fixture
def machine(home, rebootable_sshd):
    introduce(home, rebootable_sshd)
    with machine_at(written(rebootable_sshd)) as machine:
        yield machine


def test_the_users_own_keys_and_known_hosts_open_the_door(machine: RemoteMachine):
    machine.start(Deadline.after(20))

    assert machine.power_state() is PowerState.RUNNING
    assert machine.facts.backend == "remote"
    assert machine.facts.kernel_arguments == Path("/proc/cmdline").read_text().strip()
    with SSHSession.connect(machine.ssh_endpoint(Deadline.after(20)), Deadline.after(20)) as session:
        assert session.succeed("echo in") == "in\n"


def test_a_host_that_the_user_does_not_know_is_refused(home, sshd):
    (home / "id_ed25519").write_text(sshd.key.private)

    with machine_at(written(sshd)) as machine, pytest.raises(ProvisionError, match="not in your known_hosts") as caught:
        machine.start(Deadline.after(20))
    assert sshd.host_key.public.split()[1] in caught.value.details
    assert "log in once" in caught.value.resolution


def test_a_user_without_a_key_is_refused_at_once(home, sshd):
    (home / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key.public}\n")

    with machine_at(written(sshd)) as machine, pytest.raises(ProvisionError, match="you have no key to log in with"):
        machine.start(Deadline.after(20))


def test_a_host_that_cannot_be_reached_is_the_labs_trouble(home, closed_port):
    with machine_at(f"127.0.0.1:{closed_port}") as machine:
        assert machine.power_state() is PowerState.OFF
        with pytest.raises(ProvisionError, match="nothing listens there"):
            machine.start(Deadline.after(0.5))


def test_it_is_never_powered_off(machine):
    with pytest.raises(BackendError, match="is not ours"):
        machine.stop(Deadline.after(5))


def test_commands_run_beside_the_tests_login_on_a_connection_that_stays(machine):
    assert isinstance(machine, HasControl)
    assert machine.control("echo out; echo err >&2; exit 3", Deadline.after(20)) == (3, "out\nerr\n")
    first = machine.control("echo $SSH_CONNECTION", Deadline.after(20))
    assert machine.control("echo $SSH_CONNECTION", Deadline.after(20)) == first


def test_what_a_command_leaves_running_is_not_waited_for(machine):
    began = time.monotonic()

    assert machine.control("sleep 30 & echo there", Deadline.after(20)) == (0, "there\n")
    assert time.monotonic() - began < 10


def test_a_command_that_does_not_end_is_given_up_on(machine):
    with pytest.raises(GuestError, match="did not end within 1 s"):
        machine.control("sleep 30", Deadline.after(1))
    assert machine.control("echo again", Deadline.after(20)) == (0, "again\n")


def test_after_a_reboot_commands_run_again(machine, rebootable_sshd):
    assert machine.control("echo before", Deadline.after(20)) == (0, "before\n")
    rebootable_sshd.reboot()

    assert machine.control("echo after", Deadline.after(20)) == (0, "after\n")


def test_where_nobody_answers_commands_say_so(home, closed_port):
    with machine_at(f"127.0.0.1:{closed_port}") as machine, pytest.raises(GuestError, match="nothing listens there"):
        machine.control("true", Deadline.after(0.5))


def test_the_connection_for_commands_ends_with_the_machine(home, sshd):
    introduce(home, sshd)
    before = threading.active_count()
    with machine_at(written(sshd)) as machine:
        machine.control("true", Deadline.after(20))
        assert threading.active_count() > before

    assert threading.active_count() == before


def test_evidence_is_taken_over_it(home, sshd, tmp_path):
    introduce(home, sshd)
    backend = load_backend(RunConfig(backend="remote", host=written(sshd)), Path("unused"))
    vm = VM("host", backend, Terms(boot_seconds=20, missing=RuntimeError, listener=lambda *_: None))
    vm.use(MachineSpec(), None)
    record = EvidenceRecord(tmp_path / "evidence", "test_it")
    record.begin(vm)
    record.collect(vm, Circumstances())
    files = {path.name: path.read_text() for path in record.keep()}
    vm.release()

    assert files.keys() >= {"journal.txt", "units.txt", "mounts.txt", "processes.txt", "versions.txt", "timeline.txt"}
    assert f"kernel: Linux version {os.uname().release}" in files["versions.txt"]
    assert str(os.getpid()) in [line.split()[0] for line in files["processes.txt"].splitlines() if line]


def reboots(server, told: Path, act) -> threading.Thread:
    """Do what a machine does that is told to reboot."""

    def wait() -> None:
        wait_until(lambda: told.exists() and told.stat().st_size, Deadline.after(10), what="the command")
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_it_reboots_itself(machine, rebootable_sshd):
    thread = reboots(rebootable_sshd, rebootable_sshd.folder / "told", rebootable_sshd.reboot)
    machine.reboot(Deadline.after(30))
    thread.join()

    assert (rebootable_sshd.folder / "told").read_text() == "systemctl reboot\n"


def test_a_machine_that_does_not_come_back_is_told(machine, rebootable_sshd):
    thread = reboots(rebootable_sshd, rebootable_sshd.folder / "told", rebootable_sshd.stop)
    with pytest.raises(BootTimeoutError, match="did not come back from a reboot within 3 s"):
        machine.reboot(Deadline.after(3))
    thread.join()


def test_a_machine_that_does_not_go_down_is_told(machine):
    with pytest.raises(BackendError, match="was told to reboot, and did not"):
        machine.reboot(Deadline.after(4))


def test_a_machine_that_does_not_let_us_is_told(machine, rebootable_sshd):
    (rebootable_sshd.folder / "on_reboot").write_text("echo 'Access denied' >&2; exit 1")

    with pytest.raises(BackendError, match="refuses to reboot") as caught:
        machine.reboot(Deadline.after(20))
    assert "Access denied" in caught.value.details


def test_a_host_with_another_key_than_the_user_knows_is_refused(home, sshd, make_key):
    (home / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {make_key().public}\n")
    (home / "id_ed25519").write_text(sshd.key.private)

    with machine_at(written(sshd)) as machine, pytest.raises(ProvisionError, match="host key is not the one"):
        machine.start(Deadline.after(20))
