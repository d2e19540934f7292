"""What `pytest-bootc vm` says where there is nothing; with real machines: tests/integration/test_keep_vm.py."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pytest_bootc.cli import main
from pytest_bootc.model import SSHEndpoint
from pytest_bootc.vm_commands import ssh_command


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vm", "list"]) == 0
    assert main(["vm", "list", "--format", "json"]) == 0
    assert main(["vm", "stop", "--all"]) == 0
    assert capsys.readouterr().out == "no machine is kept\n[]\n"


@pytest.mark.parametrize("words", [["ssh"], ["ssh", "vm-x", "true"], ["console"], ["stop", "vm-x"]])
def test_none_is_kept(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["vm", *words]) == 4
    told = capsys.readouterr().err
    assert told == (
        "pytest-bootc: error: no machine is kept\nWhat to do: keep one: pytest --image REF --keep-vm\n"
    )  # fmt: skip


def test_a_name_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vm", "stop", "vm-x", "--all"]) == 4
    assert "--all and vm-x do not go together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"), [([], []), (["exit 7"], ["exit 7"]), (["echo", "a b", "$c"], ["echo 'a b' '$c'"])]
)
def test_the_clients_command_line(tmp_path: Path, words: list[str], line: list[str]) -> None:
    endpoint = SSHEndpoint("127.0.0.1", 2222, "root", "the key\n", "ssh-ed25519 AAAA")
    command = ssh_command(Path("/usr/bin/ssh"), endpoint, tmp_path, words)
    place = command.index("-p")
    assert command[place:] == ["-p", "2222", "root@127.0.0.1", *line]
    assert command[:3] == ["/usr/bin/ssh", "-F", "none"]
    assert f"UserKnownHostsFile={tmp_path}/known_hosts" in command
    assert "StrictHostKeyChecking=yes" in command
    assert (tmp_path / "known_hosts").read_text() == "[127.0.0.1]:2222 ssh-ed25519 AAAA\n"
    assert (tmp_path / "key").read_text() == "the key\n"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
