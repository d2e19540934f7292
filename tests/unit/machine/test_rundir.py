"""Folders of machines, and of machines whose owner is gone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import ProvisionError
from pytest_bootc.machine import rundir
from pytest_bootc.machine.rundir import RunFolder

OWNER = """
import sys, time
from pathlib import Path
from pytest_bootc.machine.rundir import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print(folder.path, folder.sockets, flush=True)
time.sleep(300)
"""


def test_folders_are_private_and_short(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "vms")
    try:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert folder.sockets.stat().st_mode & 0o777 == 0o700
        assert len(str(folder.socket("control"))) < 100
        assert folder.file("initrd").parent == folder.path
    finally:
        folder.remove()
    assert not folder.path.exists()
    assert not folder.sockets.exists()
    folder.remove()


def test_folders_of_a_killed_owner_are_removed_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        left = [Path(word) for word in owner.stdout.readline().split()]
        neighbour = RunFolder(tmp_path)
        assert all(path.is_dir() for path in left), "the folder of a living owner was taken away"
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    heir = RunFolder(tmp_path)
    try:
        assert [path for path in left if path.exists()] == []
        assert neighbour.path.is_dir()
        assert neighbour.sockets.is_dir()
    finally:
        heir.remove()
        neighbour.remove()


def test_a_folder_that_never_got_an_owner_is_removed(tmp_path: Path) -> None:
    orphan = tmp_path / "vm-orphan"
    orphan.mkdir()
    RunFolder(tmp_path).remove()
    assert not orphan.exists()


def test_what_is_no_machines_stays(tmp_path: Path) -> None:
    other = tmp_path / "notes"
    other.mkdir()
    RunFolder(tmp_path).remove()
    assert other.is_dir()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ProvisionError, match="no folder for a machine can be made"):
        RunFolder(blocked / "vms")


def test_two_at_once_do_not_sweep_each_other(tmp_path: Path) -> None:
    owners = [
        subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        made = []
        for owner in owners:
            assert owner.stdout is not None
            made += [Path(word) for word in owner.stdout.readline().split()]
        assert len(set(made)) == 8
        assert all(path.is_dir() for path in made)
    finally:
        for owner in owners:
            owner.kill()
            owner.wait()
            assert owner.stdout is not None
            owner.stdout.close()
    RunFolder(tmp_path).remove()
    assert [path for path in made if path.exists()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


def test_a_living_owner_keeps_its_folders_when_it_forks(tmp_path: Path) -> None:
    """A child that the owner starts by a program does not hold the lock: the folder goes with its owner."""
    script = OWNER.replace("time.sleep(300)", "import subprocess; subprocess.run(['/bin/sleep', '300'])")
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        path, _ = (Path(word) for word in owner.stdout.readline().split())
        children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children")

        def sleeper() -> str | None:
            pids = children.read_text().split()
            return next((pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"), None)

        child = wait_until(sleeper, Deadline.after(10), what="the child")
        RunFolder(tmp_path).remove()
        assert path.is_dir()
        owner.kill()
        owner.wait()
        try:
            RunFolder(tmp_path).remove()
            assert not path.exists()
        finally:
            os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("written", ["", "{folder}", "{folder}/keep"])
def test_a_path_that_was_written_in_part_is_not_removed(tmp_path: Path, written: str) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    orphan = tmp_path / "vms" / "vm-orphan"
    orphan.mkdir(parents=True)
    (orphan / "owner").write_text(written.format(folder=tmp_path))
    RunFolder(tmp_path / "vms").remove()
    assert not orphan.exists()
    assert keep.is_dir()


def test_an_owner_that_died_before_it_made_its_sockets(tmp_path: Path) -> None:
    orphan = tmp_path / "vm-orphan"
    orphan.mkdir()
    (orphan / "owner").write_text(str(tmp_path / "pytest-bootc-never"))
    RunFolder(tmp_path).remove()
    assert not orphan.exists()


@pytest.mark.parametrize("length", [40, 70])
def test_sockets_lie_in_the_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    base = Path(tempfile.mkdtemp(prefix="x", dir="/tmp"))
    try:
        runtime = Path(f"{base}/{'r' * (length - len(str(base)) - 1)}")
        runtime.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        folder = RunFolder(tmp_path)
        assert folder.sockets.parent == runtime
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder.socket("control")))
        folder.remove()
    finally:
        shutil.rmtree(base)


@pytest.mark.parametrize("runtime", ["/" + "r" * 70, ".", "/nowhere/at/all", ""])
def test_a_runtime_folder_that_does_not_do_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    long = tmp_path / ("t" * 80)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(long))
    folder = RunFolder(tmp_path / "vms")
    assert folder.sockets.parent == Path("/tmp")
    folder.remove()


def test_no_place_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_LONGEST", 3)
    with pytest.raises(ProvisionError) as caught:
        RunFolder(tmp_path)
    assert caught.value.brief == "there is no folder for sockets that can be written and has a short name"
    assert "/tmp" in caught.value.details
    assert list(tmp_path.glob("vm-*")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize("room", [3, 4, 5])
def test_a_full_disk_is_told_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """There is room for the root and for .lock, then for the folder as well, then for its owner, not for sockets."""
    full = Path(tempfile.mkdtemp(prefix="full-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=64k,nr_inodes={room}", "tmpfs", full], check=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(full))
    try:
        (full / "filler").touch()
        with pytest.raises(ProvisionError, match="No space left on device") as caught:
            RunFolder(full)
        assert caught.value.resolution == f"make room below {full}"
        assert sorted(path.name for path in full.iterdir()) == [".lock", "filler"]
    finally:
        subprocess.run(["umount", full], check=True)
        full.rmdir()
