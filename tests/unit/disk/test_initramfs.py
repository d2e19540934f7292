"""The init program is executed for real: it is an ordinary executable that makes system calls."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from pytest_bootc.disk.initramfs import Root, Step, base_archive, init_program

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is x86-64 code")


def execute(folder: Path, steps: list[Step]) -> subprocess.CompletedProcess[bytes]:
    program = folder / "init"
    program.write_bytes(init_program(steps))
    program.chmod(0o755)
    return subprocess.run([program], capture_output=True, timeout=10, check=False)


def test_steps_are_performed_in_turn(tmp_path: Path) -> None:
    done = execute(
        tmp_path,
        [
            Step("mkdir", (str(tmp_path / "made"), 0o700)),
            Step("write", (1, "one\n", 4)),
            Step("write", (1, "two\n", 4)),
            Step("exit", (7,)),
        ],
    )
    assert (done.returncode, done.stdout) == (7, b"one\ntwo\n")
    assert (tmp_path / "made").is_dir()


def test_a_failed_step_with_a_message_ends_the_program(tmp_path: Path) -> None:
    done = execute(
        tmp_path, [Step("chdir", (str(tmp_path / "missing"),), tries=3, message="cannot go\n"), Step("exit", (0,))]
    )
    assert (done.returncode, done.stderr) == (1, b"cannot go\n")


def test_a_failed_step_without_a_message_is_passed_over(tmp_path: Path) -> None:
    done = execute(tmp_path, [Step("chdir", (str(tmp_path / "missing"),), tries=1), Step("exit", (3,))])
    assert done.returncode == 3


def test_a_step_is_tried_again_until_it_succeeds(tmp_path: Path) -> None:
    program = tmp_path / "init"
    wanted = tmp_path / "late"
    program.write_bytes(init_program([Step("chdir", (str(wanted),), tries=1500, message="never"), Step("exit", (0,))]))
    program.chmod(0o755)
    with subprocess.Popen([program]) as process:
        wanted.mkdir()
        assert process.wait(timeout=10) == 0


def test_argument_vectors_reach_the_next_program(tmp_path: Path) -> None:
    done = execute(tmp_path, [Step("execve", ("/bin/sh", ["sh", "-c", 'echo "$A $0"', "zero"], ["A=b"]))])
    assert done.stdout == b"b zero\n"


def test_the_kernel_can_read_the_archive(tmp_path: Path) -> None:
    content = base_archive([("erofs.ko", b"module")], Root("erofs", "", "ext4"))
    assert len(content) % 512 == 0
    (tmp_path / "archive").write_bytes(content)
    listed = subprocess.run(
        ["cpio", "-tv", "--quiet"], input=content, capture_output=True, check=True, timeout=10
    ).stdout.decode()
    assert "modules/erofs.ko" in listed
    assert "5,   1" in listed
    assert listed.splitlines()[-1].endswith(" init")
