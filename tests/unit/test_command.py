from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_bootc.command import CommandError, find_program, look_for_program, pasteable, run, spawn
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import Blame, ConfigError


def soon() -> Deadline:
    return Deadline.after(20)


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_program_gets_its_input_and_leaves_both_outputs() -> None:
    done = run(["sh", "-c", "cat; echo err >&2"], deadline=soon(), stdin=b"\x00\xff")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\x00\xff", b"err\n")
    assert done.argv == ("sh", "-c", "cat; echo err >&2")


def test_arguments_pass_no_shell(tmp_path: Path) -> None:
    odd = "$(touch made) `touch made`; \"x' *"
    done = run(["printf", "%s", odd], deadline=soon())
    assert done.stdout.decode() == odd
    assert run(["cat", program(tmp_path, "a b")], deadline=soon()).stdout == b"#!/bin/sh\n"


def test_the_environment_is_ours_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("LC_ALL", "tlh_KLI")
    shown = run(["sh", "-c", 'echo "$KEPT $MORE $LC_ALL"'], deadline=soon(), env={"MORE": "more"})
    assert shown.stdout == b"kept more C.UTF-8\n"


def test_a_failure_shows_what_to_paste() -> None:
    argv = ["sh", "-c", "echo out; echo 'it is bad' >&2; exit 3"]
    with pytest.raises(CommandError) as caught:
        run(argv, deadline=soon())
    error = caught.value
    assert error.brief == "sh failed with exit status 3"
    command, *output = error.details.splitlines()
    assert output == ["out", "it is bad"]
    assert command.startswith("$ ")
    assert shlex.split(command[2:]) == argv
    assert error.blame is Blame.LAB


def test_a_failure_can_be_asked_for() -> None:
    assert run(["sh", "-c", "exit 3"], deadline=soon(), check=False).returncode == 3
    assert run(["sh", "-c", "kill -9 $$"], deadline=soon(), check=False).returncode == -9


def test_a_long_output_is_shown_from_its_end() -> None:
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "seq 100000 >&2; exit 1"], deadline=soon())
    assert caught.value.details.endswith("99999\n100000")
    assert len(caught.value.details) < 5000


def test_a_program_that_does_not_end_is_killed(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", f"echo $$ >{noted}; echo sta''rted; exec sleep 60"], deadline=Deadline.after(0.5))
    assert time.monotonic() - began < 10
    assert caught.value.brief == "sh did not end within 0.5 s"
    assert "started" in caught.value.details
    assert not Path(f"/proc/{noted.read_text().strip()}").exists()


@pytest.mark.parametrize("start", [lambda argv: run(argv, deadline=soon()), spawn], ids=["run", "spawn"])
def test_a_program_that_cannot_be_started(start: Callable[[list[Path]], object], tmp_path: Path) -> None:
    bad = program(tmp_path, "bad", "#!/no/such/interpreter\n")
    with pytest.raises(CommandError) as caught:
        start([bad])
    assert caught.value.brief == f"{bad} cannot be started: No such file or directory"


def test_spawn_starts_a_session_of_its_own() -> None:
    process = spawn(["sh", "-c", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert os.getsid(process.pid) == process.pid
        out, _ = process.communicate(b"echo", timeout=10)
        assert (out, process.returncode) == (b"echo", 0)
    finally:
        process.kill()
        process.wait()


def test_programs_are_looked_for_beside_python_then_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_path = program(tmp_path / "bin", "only-here-xyz")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert look_for_program("only-here-xyz") == in_path
    program(tmp_path / "bin", "pytest")
    assert look_for_program("pytest") == Path(sys.executable).parent / "pytest"
    assert look_for_program("not-anywhere-xyz") is None


def test_programs_of_the_administrator_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = look_for_program("mke2fs")
    assert found is not None
    assert found.parent.name == "sbin"


def test_a_missing_program_says_how_to_get_it() -> None:
    with pytest.raises(ConfigError) as caught:
        find_program("not-anywhere-xyz", resolution="install xyz")
    assert caught.value.brief == "not-anywhere-xyz is not installed"
    assert caught.value.resolution == "install xyz"
    assert caught.value.blame is Blame.USAGE


def test_a_pasted_command_is_the_same_command() -> None:
    argv: list[str | Path] = ["a b", Path("c'd"), "$e", ""]
    assert shlex.split(pasteable(argv)) == ["a b", "c'd", "$e", ""]
