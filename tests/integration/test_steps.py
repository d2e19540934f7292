"""Each step of the library on real systems: where it passes, where it fails, and by which message.

The features are in library/: what has a column *message* in its examples is to fail with that.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import pwd
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from behave.parser import parse_file

from pytest_bootc.deadline import Deadline
from pytest_bootc.features.steps import PHRASES, definitions_of
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.ssh import SSHSession

pytestmark = pytest.mark.integration

_LIBRARY = Path(__file__).parent / "library"
# They run a command, and it is for other steps to say how it is to end.
_ALWAYS_PASS = {
    "I run `{command}`",
    "I run `{command}` as the user",
    "I run `{command}` as {name}",
    "I run `{command}` as the user within {seconds:int} seconds",
    'I run `{command}` with the input "{text}"',
    "I run `{command}` with the input",
    "I run the script",
    "I run the script as the user",
    *(f"I call {{method}} of {{interface}} at {{path}} of {{name}} on the {bus} bus" for bus in ("system", "session")),
    *(
        f"I call {{method}} of {{interface}} at {{path}} of {{name}} on the {bus} bus with `{{arguments}}`"
        for bus in ("system", "session")
    ),
    "I run `{command}` in a container of {image}",
    "I run `{command}` in a container of {image} as the user",
    # They wait for a minute, and are the same as those that say how long.
    "I wait until `{command}` succeeds",
    # They fail where the system has no programs for it.
    "a user",
    "a user with a session",
    "the file {path} with the text",
}
# What bootc 1.16 prints, as far as it is read.
_DIGEST = "sha256:" + "1a" * 32
_STATUS = {
    "spec": {"image": {"image": "registry.example/os:a"}},
    "status": {
        "type": "bootcHost",
        "booted": {"image": {"image": {"image": "registry.example/os:a"}, "imageDigest": _DIGEST}},
        "rollback": {"image": {"image": {"image": "registry.example/os:a"}, "imageDigest": "sha256:" + "2b" * 32}},
    },
}
_CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def ssh(request):
    return request.config.session_to_use
"""


class Recorder:
    """Collects how each scenario ended."""

    def __init__(self, session: SSHSession) -> None:
        self.session = session
        self.ended: dict[str, tuple[str, str]] = {}
        self.expected: dict[str, str] = {}

    def pytest_configure(self, config: Any) -> None:
        config.session_to_use = self.session

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            self.expected[item.nodeid] = _message(item.scenario)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.ended[report.nodeid] = report.outcome, crash.message if crash else report.longreprtext


def _message(scenario: Any) -> str:
    """What a scenario is to fail with; empty where it is to pass."""
    row = getattr(scenario, "_row", None)
    return "" if row is None else row.get("message") or ""


@pytest.fixture
def try_steps(pytester: pytest.Pytester) -> Callable[..., Recorder]:
    """Run one of the features with words replaced, over a session."""

    def run(name: str, session: SSHSession, words: dict[str, str]) -> Recorder:
        text = (_LIBRARY / name).read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        (pytester.path / name).write_text(text)
        pytester.makeconftest(_CONFTEST)
        recorder = Recorder(session)
        pytester.inline_run("-p", "no:randomly", name, plugins=[recorder])
        return recorder

    return run


def check(recorder: Recorder) -> None:
    """Everything ended as its feature says."""
    wrong = {}
    for name, message in recorder.expected.items():
        outcome, told = recorder.ended[name]
        if (outcome == "failed") is not bool(message) or message not in told:
            wrong[name] = f"expected {message or 'to pass'}, and it {outcome}: {told}"
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    assert len(recorder.expected) > 5


@pytest.fixture
def session(sshd: Any) -> Iterator[SSHSession]:
    with SSHSession.connect(sshd.endpoint, Deadline.after(20)) as login:
        yield login


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "own"
    place.mkdir()
    (place / "before").write_text("before\n")
    # Paths of sockets are short.
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(place)
        listening.bind("socket")
        os.chdir(here)
        yield place


def test_steps_on_this_host(
    try_steps: Callable[..., Recorder], session: SSHSession, folder: Path, closed_port: int
) -> None:
    me = pwd.getpwnam(getpass.getuser())
    words = {
        "FOLDER": str(folder),
        "OWNER": folder.owner(),
        "ROOT_SHELL": pwd.getpwnam("root").pw_shell,
        "OS_ID": platform.freedesktop_os_release()["ID"],
        " ME\n": f" {me.pw_name}\n",
        " ME ": f" {me.pw_name} ",
        "PORT": str(session.endpoint.port),
        "CLOSED": str(closed_port),
    }
    check(try_steps("host.feature", session, words))


def test_steps_about_deployments(
    try_steps: Callable[..., Recorder], make_sshd: Callable[..., Any], tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "status.json").write_text(json.dumps(_STATUS))
    bootc = programs / "bootc"
    bootc.write_text(f"#!/bin/sh\nexec cat {programs}/status.json\n")
    bootc.chmod(0o755)
    server = make_sshd(path=f"{programs}:{os.defpath}")
    with SSHSession.connect(server.endpoint, Deadline.after(20)) as session:
        check(try_steps("deployment.feature", session, {"FOLDER": str(programs)}))


@pytest.mark.qemu
@pytest.mark.slow
def test_steps_in_a_guest(try_steps: Callable[..., Recorder], workstation_vm: QemuMachine) -> None:
    limit = Deadline.after(300)
    with SSHSession.connect(workstation_vm.ssh_endpoint(limit), limit, keepalive=60) as session:
        check(try_steps("guest.feature", session, {}))


def test_each_step_is_seen_to_pass_and_to_fail() -> None:
    passing, failing = set(), set()
    for path in sorted(_LIBRARY.glob("*.feature")):
        for scenario in parse_file(str(path)).walk_scenarios():
            texts = [step.name.replace("PORT", "1").replace("CLOSED", "2") for step in scenario.all_steps]
            used = [next(definitions_of(text)).pattern for text in texts]
            if _message(scenario):
                failing.add(used[-1])
            else:
                passing.update(used)
    known = {phrase.text for phrase in PHRASES}
    assert sorted(known - passing) == []
    assert sorted(known - failing - _ALWAYS_PASS) == []
