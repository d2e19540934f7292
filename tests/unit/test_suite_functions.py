"""Functions of the shipped suites that can be tried without a machine."""

from __future__ import annotations

import runpy

from pytest_bootc.collection import suites_folder
from pytest_bootc.system import Mount


def test_a_seed_chooses_files() -> None:
    chosen = runpy.run_path(str(suites_folder() / "boot" / "test_identity.py"))["chosen"]
    database = "/usr/lib/sysimage/dpkg/status"
    hashes = {f"/usr/share/{number}": str(number) for number in range(2000)} | {database: "database"}
    first = chosen(hashes, "7")
    assert first == chosen(dict(reversed(hashes.items())), "7")
    assert first != chosen(hashes, "8")
    assert len(first.keys() - {database}) == 50
    assert first.items() <= hashes.items()
    assert database in first
    assert chosen({database: "database"}, "7") == {database: "database"}


def test_the_mount_that_a_folder_is_on() -> None:
    mount_of = runpy.run_path(str(suites_folder() / "system" / "test_layout.py"))["mount_of"]
    made = [("/", "root"), ("/usr", "first"), ("/usr", "second"), ("/usr/local", "local"), ("/usrmerge", "other")]
    mounts = [Mount(target, source, "ext4", ("rw",)) for target, source in made]
    assert mount_of("/usr", mounts).source == "second"
    assert mount_of("/etc", mounts).source == "root"
