from __future__ import annotations

from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import (
    BootError,
    BootTimeoutError,
    ConfigError,
    GuestError,
    ImageError,
    ProvisionError,
    WaitTimeoutError,
)
from pytest_bootc.machine.base import HasConsole, HasControl, HasCrash, HasScreenshot, Machine, PowerState, load_backend
from pytest_bootc.machine.fake import FakeBackend, FakeMachine, Script
from pytest_bootc.model import MachineSpec, RunConfig


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> FakeBackend:
    monkeypatch.delenv("BOOTC_FAKE", raising=False)
    text = getattr(request, "param", None)
    if text is not None:
        (tmp_path / "fake.toml").write_text(text)
        monkeypatch.setenv("BOOTC_FAKE", str(tmp_path / "fake.toml"))
    made = load_backend(RunConfig(backend="fake"), tmp_path)
    assert isinstance(made, FakeBackend)
    return made


def soon() -> Deadline:
    return Deadline.after(0.05)


def test_what_it_is(backend: FakeBackend) -> None:
    with backend.provision(MachineSpec(), None) as machine:
        whole: Machine = machine
        assert isinstance(whole, HasConsole)
        assert isinstance(whole, HasControl)
        assert isinstance(whole, HasCrash)
        assert not isinstance(whole, HasScreenshot)
        assert whole.power_state() is PowerState.OFF
        with pytest.raises(ProvisionError):
            machine.ssh_endpoint(soon())
        machine.start(soon())
        with pytest.raises(ImageError, match="no sshd"):
            machine.ssh_endpoint(soon())
        console = machine.console_log()
    assert not console.exists()


@pytest.mark.parametrize("backend", ['boots = ["panic", "silent", "broken", "ready"]'], indirect=True)
def test_boots_follow_the_script_and_the_last_word_stands(backend: FakeBackend) -> None:
    with backend.provision(MachineSpec(), None) as machine:
        with pytest.raises(BootError):
            machine.start(soon())
        assert machine.power_state() is PowerState.CRASHED
        with pytest.raises(BootTimeoutError, match="not ready"):
            machine.reboot(soon())
        with pytest.raises(ProvisionError):
            machine.start(soon())
        machine.start(soon())
        machine.reboot(soon())
        assert machine.power_state() is PowerState.RUNNING


@pytest.mark.parametrize("backend", ['console = "one\\ntwo\\n"'], indirect=True)
def test_the_console(backend: FakeBackend) -> None:
    with backend.provision(MachineSpec(), None) as machine:
        machine.start(soon())
        assert machine.wait_for_console_text("^t.o$", soon()) == "two"
        with pytest.raises(WaitTimeoutError, match="three"):
            machine.wait_for_console_text("three", soon())


@pytest.mark.parametrize(
    "backend",
    ['[[control]]\nmatch = "uname"\noutput = "Linux"\n[[control]]\nmatch = "false"\nstatus = 1\n'
     '[[control]]\nmatch = "sleep"\nhang = true'],
    indirect=True,
)  # fmt: skip
def test_the_control_channel(backend: FakeBackend) -> None:
    with backend.provision(MachineSpec(), None) as machine:
        machine.start(soon())
        assert machine.control("uname -s", soon()) == (0, "Linux")
        assert machine.control("false", soon()) == (1, "")
        assert machine.control("date", soon())[0] == 127
        with pytest.raises(GuestError, match="no answer"):
            machine.control("sleep 5", soon())


def test_each_machine_has_its_own_name(backend: FakeBackend) -> None:
    with backend.provision(MachineSpec(), None) as one, backend.provision(MachineSpec(), None) as two:
        assert one.name != two.name


@pytest.mark.parametrize(
    "text", ["boots = [", 'boots = ["explode"]', "boots = []", "nonsense = 1", '[[control]]\nmatches = "x"',
             '[ssh]\nprivate_key = "nowhere"\nhost = "h"\nport = 1'],
)  # fmt: skip
def test_a_script_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fake.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"fake\.toml"):
        Script.load(path)


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        Script.load(tmp_path / "none.toml")


def test_the_sshd_of_a_script(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    path = tmp_path / "fake.toml"
    path.write_text('[ssh]\nhost = "127.0.0.1"\nport = 2222\nprivate_key = "key"\nhost_key = "ssh-ed25519 A"')
    machine = FakeMachine("a", Script.load(path), tmp_path)
    machine.start(soon())
    endpoint = machine.ssh_endpoint(soon())
    assert (endpoint.port, endpoint.user, endpoint.private_key) == (2222, "root", "secret")
