"""Folders of machines, and of machines whose owner is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bootc.errors import ProvisionError
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
