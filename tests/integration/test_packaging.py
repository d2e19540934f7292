"""The wheel in an environment of its own: what it carries, and a verdict by a user who has nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.command import look_for_program

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NOBODY = 65534
# All that the host has to have; debugfs comes with mke2fs.
PROGRAMS = ("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img", "mkfs.erofs", "mke2fs", "debugfs")
# What it must do without.
TRAPS = ("podman", "docker", "buildah", "skopeo", "sudo", "mount", "losetup")


def run(command: Sequence[str | Path], **options: Any) -> str:
    """Run a program that has to succeed; what it printed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False, **options
    )
    assert done.returncode == 0, f"{command[0]} gave exit status {done.returncode}:\n{done.stdout}"
    return done.stdout


def tracked(*folders: str) -> set[str]:
    """The files of this checkout, as paths from its root."""
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    return {name for name in run(command).split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, made from a copy that has nothing but the checkout's own files."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    wheels = tmp_path_factory.mktemp("wheels")
    run([sys.executable, "-m", "build", "--wheel", "--outdir", wheels, source])
    (built,) = wheels.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="packaging-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment(wheel: Path, place: Path) -> Path:
    """The folder of a virtual environment with the wheel and what it requires."""
    folder = place / "venv"
    run([_interpreter(), "-m", "venv", "--without-pip", folder])
    python = folder / "bin/python"
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-input", wheel])
    return folder


def _interpreter() -> Path:
    """A Python that the user without rights can start; that of the tests may lie in somebody's home."""
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        command = [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(command, check=False, **_identity()).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.fail("there is no Python 3.11 that all users can start: install python3")


def _identity() -> dict[str, Any]:
    """Who the user without rights is: nobody where the tests are root's, else whoever runs them."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


class User:
    """A user without rights and with an empty home, whose PATH has what is needed and traps for what is not."""

    def __init__(self, place: Path, environment: Path, image: Path) -> None:
        self.home, self.cache, self.work = place / "home", place / "cache", place / "work"
        self.calls = place / "calls"
        programs = place / "bin"
        for folder in (self.home, self.cache, self.work, self.calls, programs):
            folder.mkdir()
        for name in PROGRAMS:
            found = look_for_program(name)
            assert found is not None, f"{name} is missing: run scripts/setup"
            if found.resolve().is_relative_to(Path.home()):
                shutil.copy(found, programs / name)  # built by scripts/setup, where only its user can read it
            else:
                (programs / name).symlink_to(found)
        for name in TRAPS:
            (programs / name).write_text(f"#!/bin/sh\n: >{self.calls / name}\nexit 127\n")
            (programs / name).chmod(0o755)
        shutil.copytree(image, place / "server", copy_function=shutil.copyfile)  # whoever may read it there
        self.image = f"oci:{place / 'server'}"
        self._variables = {
            "PATH": f"{environment / 'bin'}:{programs}",
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.cache),
            "BOOTC_VM_NETWORK": "restricted",
        }
        if os.geteuid() == 0:
            for folder in (self.home, self.cache, self.work, self.calls):
                os.chown(folder, NOBODY, NOBODY)

    def pytest(self, *arguments: str) -> str:
        """Run pytest on the image, in the user's folder; what it printed."""
        program = shutil.which("pytest", path=self._variables["PATH"])
        assert program is not None
        command = [program, "--image", self.image, *arguments]
        return run(command, cwd=self.work, env=self._variables, **_identity())


@pytest.fixture(scope="module")
def user(place: Path, environment: Path, image_layout: dict[str, Path]) -> User:
    return User(place, environment, image_layout["server"])


def test_the_wheel_has_all_that_it_needs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    (information,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert f"{information}/licenses/LICENSE" in names
    carried = {name for name in names if not name.startswith(information)}
    assert carried == tracked("pytest_bootc") | {f"pytest_bootc/{name}" for name in tracked("suites")}
    assert {"pytest_bootc/py.typed", "pytest_bootc/suites/boot/test_boot.py"} <= carried
    assert "License-Expression: Apache-2.0" in metadata
    assert "pytest_bootc.plugin = pytest_bootc.plugin" in entry_points


def test_it_collects_what_the_checkout_does(user: User) -> None:
    arguments = ("--suite", "boot,system", "--collect-only", "-q")
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "--image", user.image, *arguments]
    here = [line for line in run(command, cwd=ROOT).splitlines() if "::" in line]
    assert [line for line in user.pytest(*arguments).splitlines() if "::" in line] == here
    assert here


@pytest.mark.qemu
def test_a_user_without_rights_gets_a_verdict(user: User) -> None:
    report = user.home / "junit.xml"
    before = {".pytest_cache", *(path.name for path in user.work.iterdir())}
    printed = user.pytest("--suite", "boot,system", f"--junitxml={report}")
    assert f"{user.image}: good" in printed
    assert "note: the root is a copy" not in printed
    properties = [entry.attrib for entry in ET.parse(report).getroot().iter("property")]
    states = [entry["value"] for entry in properties if entry["name"] == "state"]
    assert states.count("pass") > 10
    assert set(states) <= {"pass", "skip"}
    assert [path.name for path in user.calls.iterdir()] == [], "it called what it must do without"
    assert {path.name for path in user.work.iterdir()} <= before
    assert [path.name for path in user.home.iterdir()] == ["junit.xml"]
    assert list((user.cache / "pytest-bootc/vms").glob("vm-*")) == [], "a machine's files were left behind"


@pytest.mark.qemu
def test_the_readmes_test_prints_what_the_readme_says(user: User) -> None:
    readme = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"(?ms)^```python\n(.*?)^```$", readme)
    (shown,) = re.findall(r"(?ms)^\$ pytest --image oci:server\n(.*?)^```$", readme)
    (user.work / "test_first.py").write_text(example)
    printed = user.pytest()
    assert "tests: 3 pass" in printed
    assert _told(printed) == _told(shown)


def _told(output: str) -> list[str]:
    """What the section about the image tells of."""
    return re.findall(r"(?m)^  ([a-z ]+):", output)
