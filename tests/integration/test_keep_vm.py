"""A machine that is kept after its run, used by others, looked at from outside, and ended: with a real guest.

The tests share one machine, and leave it kept and well.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_bootc.cache import default_home
from pytest_bootc.deadline import Deadline, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.qemu]

DISK_BUILDER = Path(__file__).parents[1] / "images" / "disk.py"
TESTS = """
import time
import pytest

def test_writes(ssh):
    ssh.succeed("touch /run/was-here; echo $PPID >/run/who-serves")

def test_reads(ssh):
    assert ssh.succeed("ls /run/was-here") == "/run/was-here\\n"

def test_goes_on(ssh):
    assert ssh.succeed("echo $PPID") == ssh.succeed("cat /run/who-serves")

def test_fails(ssh, vm, guest):
    print("here")
    assert ssh.succeed("echo no") == "yes"

def test_takes_long(ssh):
    print("begun", flush=True)
    time.sleep(120)
"""


class Laboratory:
    """A cache with the disks and saved boots of the usual one, and machines of its own."""

    def __init__(self, folder: Path, layout: Path) -> None:
        self.folder = folder
        self.home = folder / "cache" / "pytest-bootc"
        self.home.mkdir(parents=True)
        for entry in default_home().iterdir():
            if entry.name != "vms":
                (self.home / entry.name).symlink_to(entry)
        (folder / "test_it.py").write_text(TESTS)
        self.arguments = [
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "--keep-vm",
            "--vm-network=restricted", "--vm-memory=1536", "-rA", "--evidence=off", f"--image=oci:{layout}:latest",
        ]  # fmt: skip
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}

    def run(self, *words: str, subject: str = "") -> str:
        arguments = [*self.arguments[:-1], subject] if subject else self.arguments
        done = subprocess.run(
            [*arguments, *words], cwd=self.folder, env=self.environment, timeout=300, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "begun.log").open("wb") as log:
            return subprocess.Popen(
                [*self.arguments, *words], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; from pytest_bootc.cli import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, "vm", *words], env=self.environment, timeout=120, capture_output=True,
            text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def machines(self) -> list[dict[str, object]]:
        machines: list[dict[str, object]] = json.loads(self.command("list", "--format", "json").stdout)
        return machines

    def state(self, name: str) -> object:
        return next((machine["state"] for machine in self.machines() if machine["name"] == name), None)

    def close(self) -> None:
        """End what is left, whatever a test has done."""
        for record in self.home.glob("vms/vm-*/kept.json"):
            self.command("stop", record.parent.name)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(self.home / "vms") in line and b"qemu" in line:
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, image_layout: dict[str, Path]) -> Iterator[Laboratory]:
    made = Laboratory(tmp_path_factory.mktemp("keep"), image_layout["server"])
    yield made
    made.close()


@pytest.fixture(scope="module")
def name(lab: Laboratory) -> str:
    """The machine that a first run has kept."""
    told = lab.run("-k", "writes")
    assert "1 passed" in told, told
    match = re.search(r"note: (vm-\S+) is kept until nobody has used it for 30 min", told)
    assert match is not None, told
    return match[1]


def test_the_next_run_uses_it_as_it_was_left(lab: Laboratory, name: str) -> None:
    # A run before may have been killed, and has left no login.
    assert "1 passed" in lab.run("-k", "writes")
    began = time.monotonic()
    told = lab.run("-k", "reads or goes_on")
    assert "2 passed" in told, "also with the login of the run before"
    assert f"note: {name} was kept, is up since" in told
    assert f"note: {name} is kept until nobody has used it" in told
    assert [machine["name"] for machine in lab.machines()] == [name]
    print(f"rerun on the kept machine: {time.monotonic() - began:.1f} s")


def test_after_a_failure_it_is_still_there(lab: Laboratory, name: str) -> None:
    told = lab.run("-k", "fails or reads")
    assert "1 failed, 1 passed" in told, told
    assert f"note: {name} was kept" in told
    assert lab.state(name) == "kept"


def test_it_is_listed_and_entered(lab: Laboratory, name: str) -> None:
    (machine,) = lab.machines()
    assert machine["memory_mib"] == 1536
    assert str(machine["digest"]).startswith("sha256:")
    table = lab.command("list").stdout
    assert re.search(rf"^{name} .* kept, idle 0 min ", table, re.MULTILINE), table
    done = lab.command("ssh", name, "--", "sh", "-c", "ls /run/was-here; exit 7")
    assert (done.stdout, done.returncode) == ("/run/was-here\n", 7)
    assert lab.command("ssh", "echo $((20 + 1))").stdout == "21\n"
    assert "login:" in lab.command("console", name).stdout
    wrong = lab.command("console", "vm-nobody")
    assert (wrong.returncode, wrong.stdout) == (4, "")
    assert "there is no machine vm-nobody" in wrong.stderr
    assert name in wrong.stderr


def test_a_run_that_is_killed_leaves_it(lab: Laboratory, name: str) -> None:
    with lab.begin("-s", "-k", "takes_long") as run:
        try:
            log = lab.folder / "begun.log"
            wait_until(lambda: b"begun" in log.read_bytes(), Deadline.after(120), what="the test", last=log.read_text)
            assert lab.state(name) == "in use"
            refused = lab.command("stop", name)
            assert refused.returncode == 4
            assert f"{name} is in use: process {run.pid} uses the machine" in refused.stderr
        finally:
            run.send_signal(signal.SIGKILL)
    assert lab.state(name) == "kept"
    told = lab.run("-k", "reads")
    assert "1 passed" in told, told
    assert f"note: {name} was kept" in told


@pytest.mark.parametrize("option", ["--pdb", "--trace"])
def test_a_debugger_finds_it_usable(lab: Laboratory, name: str, option: str) -> None:
    terminal = Terminal(lab, option, "-k", "fails")
    try:
        terminal.await_text("(Pdb) ")
        terminal.say('ssh.succeed("echo $((40 + 2))")')
        terminal.await_text("'42\\n'")
        terminal.await_text("(Pdb) ")
        terminal.say("vm.power_state().value, guest.facts() is not None")
        terminal.await_text("'running'")
        terminal.await_text("(Pdb) ")
        terminal.say("q")
        assert terminal.process.wait(60) in (1, 2)
    finally:
        terminal.close()
    assert lab.state(name) == "kept"


class Terminal:
    """A run in a terminal of its own, and somebody who types there."""

    def __init__(self, lab: Laboratory, *words: str) -> None:
        self._here, there = pty.openpty()
        self.process = subprocess.Popen(
            [*lab.arguments, *words], cwd=lab.folder, env={**lab.environment, "TERM": "dumb"}, stdin=there,
            stdout=there, stderr=there, start_new_session=True,
        )  # fmt: skip
        os.close(there)
        self._text = ""

    def await_text(self, wanted: str) -> None:
        deadline = Deadline.after(60)
        while wanted not in self._text:
            assert not deadline.expired(), self._text
            if select.select([self._here], [], [], 0.5)[0]:
                self._text += os.read(self._here, 1 << 16).decode(errors="replace")
        self._text = self._text.partition(wanted)[2]

    def say(self, line: str) -> None:
        os.write(self._here, f"{line}\n".encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._here)


def test_a_machine_of_a_disk_is_kept(lab: Laboratory) -> None:
    """Its boot is not saved: only being kept spares the next run the boot."""
    done = subprocess.run([sys.executable, DISK_BUILDER, "bios"], check=True, stdout=subprocess.PIPE, text=True)
    disk = f"--disk={done.stdout.strip()}"
    told = lab.run("-k", "writes", subject=disk)
    match = re.search(r"note: (vm-\S+) is kept until", told)
    assert match is not None, told
    try:
        told = lab.run("-k", "reads or goes_on", subject=disk)
        assert "2 passed" in told, told
        assert f"note: {match[1]} was kept, is up since" in told
    finally:
        lab.command("stop", match[1])
    assert lab.state(match[1]) is None


def test_stopping_leaves_nothing(lab: Laboratory, name: str) -> None:
    """Of a machine of its own, so that the tests may come in any order."""
    kept = lab.home / "vms" / name
    aside = lab.folder / "aside.json"
    assert kept.is_dir()
    (kept / "kept.json").rename(aside)  # so that the run does not find it
    try:
        told = lab.run("-k", "writes", "--keep-vm-idle=2h")
        match = re.search(r"note: (vm-\S+) is kept until nobody has used it for 120 min", told)
        assert match is not None, told
        other = match[1]
        assert other != name
        sockets = Path((lab.home / "vms" / other / "owner").read_text())
        done = lab.command("stop", other)
        assert (done.returncode, done.stdout.split()[:2]) == (0, ["ended", other])
        assert not (lab.home / "vms" / other).exists()
        assert not sockets.exists()
    finally:
        aside.rename(kept / "kept.json")
    assert lab.command("ssh", name, "true").returncode == 0
