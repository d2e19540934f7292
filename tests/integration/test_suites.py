"""Each check of the suites boot and system goes red: something is broken in a running guest, and the check says so.

One machine serves all of it. An inner run of pytest boots it through the plugin, runs the checks on the sound guest,
and then, for each break of breaks.toml, breaks the guest, runs the one check again, and mends what it broke.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import runpy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_bootc import gates, run
from pytest_bootc.collection import suites_folder
from pytest_bootc.deadline import Deadline
from pytest_bootc.machine.pool import VM
from pytest_bootc.system import Mount

pytestmark = pytest.mark.integration

FIRST = "boot/test_boot.py::test_the_guest_is_up"
# Skipped on the image of these tests as long as nothing is changed in the guest.
NOT_JUDGED = {
    "boot/test_crashes.py::test_no_process_has_dumped_core",
    "system/test_health.py::test_names_are_resolved",
    "system/test_health.py::test_tailscale_can_be_used",
    "system/test_health.py::test_the_login_screen_is_up",
    "system/test_health.py::test_updates_are_made_by_themselves",
    "system/test_layout.py::test_the_deployment_is_known",
}
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
"""
SECONDS = 120.0


@dataclass(frozen=True)
class Break:
    """A way to break the guest, as breaks.toml explains."""

    test: str
    do: str = ""
    undo: str = ""
    says: str = ""
    outcome: str = "failed"
    constants: Mapping[str, float | str] = field(default_factory=dict)
    gated: bool = True


def read_breaks() -> dict[str, Break]:
    """The breaks by their ids: the name of the check, and a number."""
    told = tomllib.loads(Path(__file__).with_name("breaks.toml").read_text())["break"]
    breaks = [Break(**said) for said in told]
    return {f"{each.test.partition('::test_')[2]}-{number:02}": each for number, each in enumerate(breaks, 1)}


BREAKS = read_breaks()
Outcomes = Mapping[str, Sequence[str]]


class Between(pytest.Item):
    """Comes after every test, and is never run."""

    def runtest(self) -> None:
        raise NotImplementedError


class Breaker:
    """A plugin of the inner run: its loop over the tests, and what became of each."""

    def __init__(self, breaks: Mapping[str, Break]) -> None:
        self.outcomes: dict[str, tuple[str, str]] = {}
        self._breaks = breaks
        self._reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        current = run.current(session.config)
        image = re.escape(current.subjects[0].name)
        items = {re.sub(rf"\[{image}(\]|-)", "[", item.nodeid).removesuffix("["): item for item in session.items}
        wanted = {FIRST, *(each.test for each in self._breaks.values())}
        for name in [name for name in items if name in wanted]:
            self.outcomes[name] = self._judge(items[name])
        vm = current.pool.find(current.subjects[0].name)
        assert vm is not None
        for name, each in self._breaks.items():
            session.config.stash.get(gates._PROBED, {}).clear()
            trouble = control(vm, each.do)
            self.outcomes[name] = ("not broken", trouble) if trouble else self._judge_broken(items[each.test], each)
            if trouble := control(vm, each.undo):
                self.outcomes[name] = ("not mended", trouble)
        return True

    def _judge_broken(self, item: pytest.Function, broken: Break) -> tuple[str, str]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in broken.constants.items():
                patch.setattr(item.module, name, value)
            if not broken.gated:
                patch.setattr(item, "own_markers", [mark for mark in item.own_markers if mark.name != "needs"])
            return self._judge(item)

    def _judge(self, item: pytest.Item) -> tuple[str, str]:
        self._reports.clear()
        # With this as the next item, nothing but what belongs to the session is kept.
        between = Between.from_parent(item.session, name="between")
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=between)
        told = {report.outcome: message(report) for report in self._reports}
        return next((word, told[word]) for word in ("failed", "skipped", "passed") if word in told)


def message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr if crash is None else crash.message)


def control(vm: VM, command: str) -> str:
    """Run commands in the guest, in spite of whatever is broken there; what went wrong with them, if anything."""
    if not command:
        return ""
    status, output = vm.control(FUNCTIONS + command, Deadline.after(SECONDS))
    return f"`{command}` gave exit status {status}:\n{output}" if status else ""


def judge(layout: Path, breaks: Mapping[str, Break], folder: Path) -> Outcomes:
    """Run pytest with these breaks on a machine of its own."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    breaker = Breaker(breaks)
    arguments = [f"--rootdir={folder}", f"--config-file={folder}/pytest.ini", "--suite=boot,system"]
    arguments += [f"--image=oci:{layout}:latest", "--vm-network=restricted", "--vm-memory=1536", "--evidence=off"]
    arguments += ["--cold"]  # the guest that was broken is to stay, also after a check that failed
    arguments += ["--capture=no", "-pno:randomly", "-pno:cacheprovider", "-pno:faulthandler"]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("BOOTC_", "PYTEST_"))]:
            patch.delenv(name)
        patch.chdir(folder)
        status = pytest.main(arguments, plugins=[breaker])
    assert status is not pytest.ExitCode.INTERNAL_ERROR, "the inner run broke: see what it printed"
    return breaker.outcomes


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, image_layout: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Outcomes:
    """What became of the checks, for the breaks that this session has selected: one machine for all its workers."""
    items = [item for item in request.session.items if item.path == request.path and "case" in item.fixturenames]
    cases = [item.callspec.params["case"] for item in items]
    selected = {BREAKS[case].test for case in cases}
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    with (folder / "suites.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = folder / "suites.json"
        if not kept.exists():
            breaks = {name: each for name, each in BREAKS.items() if each.test in selected}
            kept.write_text(json.dumps(judge(image_layout["server"], breaks, tmp_path_factory.mktemp("suites"))))
    told: Outcomes = json.loads(kept.read_text())
    return told


@pytest.mark.qemu
@pytest.mark.parametrize("case", BREAKS)
def test_a_check_tells_what_is_broken(case: str, outcomes: Outcomes) -> None:
    broken = BREAKS[case]
    before, said = outcomes[broken.test]
    assert before == ("skipped" if broken.test in NOT_JUDGED else "passed"), f"on the sound guest: {said}"
    after, said = outcomes[case]
    assert after == broken.outcome, said
    assert broken.says in said


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
