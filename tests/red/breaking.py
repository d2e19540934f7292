"""What breaks a running guest, and what the suites must say of it: breaks/SUITE.toml and outcomes/SUITE.toml.

For each suite a file in ``breaks`` has tables ``[[break]]``. Their keys:

test       the check, as pytest calls it without ``--image``: ``system/test_health.py::test_var_has_room``,
           ``common/portals.feature::Scenario name``, ``common/shell.feature::<program> runs[program=zsh]``
do         shell that breaks the guest; undo mends it (both with ``set -e`` and the functions below)
says       a part of what the check says then
outcome    "passed", or "skipped" where the change must not count as broken (else "failed")
constants  replace those of the check's module
gated      false: the check runs in spite of what it needs, and whichever image it is for
image      the test image that it is made on; at the top of the file for all of them (else "server")
short      true: also without ``scripts/test --all``; those on the server image are, anyway

The breaks of one check are made one after the other, in this order, all of an image on one machine. Each function and
scenario has one with which it fails (of an outline, one row is enough), or a line in excused.toml that says why not.

``outcomes`` has what becomes of each check on the sound guest, by image: "passed", or "skipped: " and the reason.
``python tests/red/record.py IMAGE [SUITE...]`` writes it from a real run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc import gates, renewal, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.machine.pool import VM

RED = Path(__file__).parent
FIRST = "boot/test_boot.py::test_the_guest_is_up"
#: The images that checks are broken on, and the RAM of their machines in MiB.
IMAGES = {"server": 1536, "workstation": 2048, "flatcar": 1536}
#: Those of them that are disks with a bootloader of their own.
DISKS = ("flatcar",)
SECONDS = 120.0
FUNCTIONS = """\
set -e
program() {  # a program that the shell finds before the image's own; the lines of the script come from standard input
    mkdir -p /usr/local/sbin
    { echo '#!/bin/sh'; cat; } >"/usr/local/sbin/$1"
    chmod 755 "/usr/local/sbin/$1"
}
unit() { cat >"/etc/systemd/system/$1"; }
remove() {  # a unit, and perhaps a program
    systemctl stop "$1"
    rm "/etc/systemd/system/$1"
    [ -z "$2" ] || rm "/usr/local/sbin/$2"
}
copy() { cp -p "$1" /run/copy; mount --bind /run/copy "$1"; }  # a copy to change, in the place of a file
console() { printf '\\r\\n%s\\r\\n' "$1" >/dev/ttyS0; }
session() {  # a command in the session of the user `tester`
    runuser -u tester -- \\
        env XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus "$@"
}
"""

#: Of checks by their names, or of breaks by their ids: the word for what became of it, and what it said.
Outcomes = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Break:
    """A way to break the guest."""

    test: str
    do: str = ""
    undo: str = ""
    says: str = ""
    outcome: str = "failed"
    constants: Mapping[str, float | str] = field(default_factory=dict)
    gated: bool = True
    image: str = "server"
    short: bool = False

    @property
    def is_short(self) -> bool:
        """Whether it is made in each run of the tests."""
        return self.short or self.image == "server"


def read_breaks() -> dict[str, Break]:
    """The breaks by their ids: the suite, the name of the check, and a number in the suite."""
    found = {}
    for file in sorted((RED / "breaks").glob("*.toml")):
        told = tomllib.loads(file.read_text())
        image = told.get("image", "server")
        for number, said in enumerate(told["break"], 1):
            each = Break(**{"image": image, **said})
            name = each.test.partition("::")[2].removeprefix("test_")
            found[f"{file.stem}-{name}-{number:02}"] = each
    return found


def read_outcomes() -> dict[str, dict[str, str]]:
    """What becomes of each check on the sound guest, by image."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted((RED / "outcomes").glob("*.toml")):
        for image, outcomes in tomllib.loads(file.read_text()).items():
            found.setdefault(image, {}).update(outcomes)
    return found


def as_recorded(outcome: Sequence[str]) -> str:
    """An outcome on the sound guest as the files have it."""
    word, said = outcome
    return word if word == "passed" else f"{word}: {said}"


def suites_of(tests: Iterable[str]) -> list[str]:
    """The suites of checks, and the one that all others stand on."""
    return sorted({"boot", *(test.partition("/")[0] for test in tests)})


def without_parameters(test: str) -> str:
    """The name of the function or scenario that a check belongs to."""
    return re.sub(r"\[[^\[]*\]$", "", test)


class Between(pytest.Item):
    """Comes after every test, and is never run."""

    def runtest(self) -> None:
        raise NotImplementedError


class Breaker:
    """A plugin of the inner run: its loop over the tests, and what became of each.

    ``wanted`` are the checks to run on the sound guest; ``None`` are all of them.
    """

    def __init__(self, breaks: Mapping[str, Break], wanted: frozenset[str] | None) -> None:
        self.outcomes: dict[str, tuple[str, str]] = {}
        self._breaks = breaks
        self._wanted = wanted
        self._reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        current = run.current(session.config)
        items = dict(named(session.items, current.subjects[0].name))
        for name, item in items.items():
            if self._wanted is None or name in self._wanted or name == FIRST:
                self.outcomes[name] = self._judge(item)
        vm = current.pool.find(current.subjects[0].name)
        assert vm is not None
        for name, each in self._breaks.items():
            # What was broken is not to be mended by a fresh machine, nor to be looked for on the sound one.
            forgotten: tuple[pytest.StashKey[Any], ...] = (gates._PROBED, gates._TITLES, renewal._LAST)
            for key in forgotten:
                session.config.stash[key] = {}
            if each.test not in items:
                self.outcomes[name] = ("not found", f"there is no {each.test}")
                continue
            trouble = control(vm, each.do)
            self.outcomes[name] = ("not broken", trouble) if trouble else self._judge_broken(items[each.test], each)
            mending = control(vm, each.undo)
            if mending and not trouble:
                self.outcomes[name] = ("not mended", mending)
        return True

    def _judge_broken(self, item: pytest.Function, broken: Break) -> tuple[str, str]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in broken.constants.items():
                patch.setattr(item.module, name, value)
            if not broken.gated:
                kept = [mark for mark in item.own_markers if mark.name not in ("needs", "image")]
                patch.setattr(item, "own_markers", kept)
            return self._judge(item)

    def _judge(self, item: pytest.Item) -> tuple[str, str]:
        self._reports.clear()
        # With this as the next item, nothing but what belongs to the session is kept.
        between = Between.from_parent(item.session, name="between")
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=between)
        told = {word_of(report): message(report) for report in self._reports}
        return next((word, told[word]) for word in ("error", "failed", "skipped", "passed") if word in told)


def named(items: Iterable[Any], image: str) -> Iterator[tuple[str, Any]]:
    """The items by their names without the image's."""
    parameter = re.escape(image)
    for item in items:
        name = re.sub(rf"\[{parameter}\]$", "", item.nodeid)
        name = re.sub(rf"\[{parameter}-", "[", name)
        yield re.sub(rf"-{parameter}\]$", "]", name), item


def word_of(report: pytest.TestReport) -> str:
    """The word for a phase: what fails in a setup or a teardown is an error, and no verdict on the image."""
    return "error" if report.failed and report.when != "call" else report.outcome


def message(report: pytest.TestReport) -> str:
    """What a report says, in short."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr if crash is None else crash.message)


def control(vm: VM, command: str) -> str:
    """Run commands in the guest, in spite of whatever is broken there; what went wrong with them, if anything."""
    if not command:
        return ""
    status, output = vm.control(FUNCTIONS + command, Deadline.after(SECONDS))
    return f"`{command}` gave exit status {status}:\n{output}" if status else ""


def built(image: str) -> str:
    """The option that has pytest judge a test image, which is built first where it is not there."""
    builder = "disk.py" if image in DISKS else "build.py"
    command = [sys.executable, str(RED.parent / "images" / builder), image]
    path = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return f"--disk={path}" if image in DISKS else f"--image=oci:{path}:latest"


@dataclass(frozen=True)
class Inner:
    """An inner run of pytest: the test image, the suites to collect, and what to do there."""

    image: str
    suites: Sequence[str]
    breaks: Mapping[str, Break] = field(default_factory=dict)
    wanted: frozenset[str] | None = None

    def judge(self, folder: Path) -> Outcomes:
        """Run it, on a machine of its own."""
        (folder / "pytest.ini").write_text("[pytest]\n")
        breaker = Breaker(self.breaks, self.wanted)
        arguments = [f"--rootdir={folder}", f"--config-file={folder}/pytest.ini", f"--suite={','.join(self.suites)}"]
        arguments += [built(self.image), f"--vm-memory={IMAGES[self.image]}"]
        arguments += ["--vm-network=restricted", "--evidence=off"]
        arguments += ["--capture=no", "-pno:randomly", "-pno:cacheprovider", "-pno:faulthandler"]
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("BOOTC_", "PYTEST_"))]:
                patch.delenv(name)
            patch.chdir(folder)
            status = pytest.main(arguments, plugins=[breaker])
        assert status is not pytest.ExitCode.INTERNAL_ERROR, "the inner run broke: see what it printed"
        return breaker.outcomes
