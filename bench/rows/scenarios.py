"""Scenarios over SSH: what a step adds to its command; a hundred of them beside behave with an `ssh` for each step.

The first is measured against the sshd on the loopback, in one process: a scenario with many steps, and a test with as
many calls of ``ssh.execute``. For the second both run the same features on the same machine, a clone of a saved boot.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from pytest_bootc.cache import default_home
from pytest_bootc.cli import main
from pytest_bootc.machine.kept import find_kept
from pytest_bootc.vm_commands import ssh_command
from rows.figure import Figure
from rows.kept_rerun import _KEPT
from rows.roots import _server
from rows.server import serving

_STEPS = 300
_PAIRS = 5
_FILES = 5
_SCENARIOS = 20
_CONFTEST = """\
import json, time
from pathlib import Path
import pytest
from pytest_bootc.deadline import Deadline
from pytest_bootc.model import SSHEndpoint
from pytest_bootc.ssh import SSHSession

@pytest.fixture(scope="session")
def ssh():
    endpoint = SSHEndpoint(**json.loads(Path("endpoint.json").read_text()))
    with SSHSession.connect(endpoint, Deadline.after(30)) as session:
        session.execute("true")
        yield session

def pytest_runtest_logreport(report):
    if report.when == "call":
        with open("calls", "a") as calls:
            calls.write(f"{report.duration}\\n")
"""
_CALLS = f"def test_calls(ssh):\n    for _ in range({_STEPS}):\n        ssh.execute('true')\n"
_BEHAVE_STEPS = """\
import json, subprocess
from behave import then
COMMAND = json.loads(open("command.json").read())

@then("`{command}` succeeds")
def succeeds(context, command):
    subprocess.run([*COMMAND, command], check=True, stdin=subprocess.DEVNULL)
"""


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        return [_step(Path(name)), _against_behave(Path(name))]


def _step(work: Path) -> Figure:
    """What the step library takes for a step beyond its command."""
    folder = work / "steps"
    folder.mkdir()
    steps = "    Then `true` succeeds\n" * _STEPS
    (folder / "many.feature").write_text(f"Feature: Many\n\n  Scenario: Steps\n{steps}")
    (folder / "test_calls.py").write_text(_CALLS)
    (folder / "conftest.py").write_text(_CONFTEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    with serving() as server:
        (folder / "endpoint.json").write_text(json.dumps(asdict(server.endpoint)))
        for _ in range(_PAIRS):
            subprocess.run([*command, "many.feature", "test_calls.py"], check=True, cwd=folder, capture_output=True)
    seconds = [float(line) for line in (folder / "calls").read_text().split()]
    pairs = list(zip(seconds[::2], seconds[1::2], strict=True))
    added = statistics.median((ours - bare) / _STEPS for ours, bare in pairs)
    bare = statistics.median(bare / _STEPS for _, bare in pairs)
    told = f"over ssh.execute with {bare * 1000:.2f} ms, {_PAIRS} pairs of {_STEPS}"
    return Figure("a step of the library, over its command", added * 1000, "ms", 2, told)


def _against_behave(work: Path) -> Figure:
    """A hundred scenarios on a machine whose boot was saved: all of pytest, and behave on the same machine."""
    features = work / "features"
    (features / "steps").mkdir(parents=True)
    for number in range(_FILES):
        scenarios = "".join(f"\n  Scenario: {n}\n    Then `true` succeeds\n" for n in range(_SCENARIOS))
        (features / f"f{number}.feature").write_text(f"Feature: Number {number}\n{scenarios}")
    image = f"oci:{_server()}:latest"
    ours = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "--keep-vm", "--image", image, "features"]
    _seconds(ours, work)  # the boot is saved; the machine that was kept goes, so that the next one is a clone
    main(["vm", "stop", _kept(ours, work)])
    pytest_seconds = _seconds(ours, work)
    machine = _kept(ours, work)
    try:
        (features / "steps" / "behave_steps.py").write_text(_BEHAVE_STEPS)
        kept = next(each for each in find_kept(default_home() / "vms") if each.name == machine)
        assert kept.record.endpoint is not None
        (work / "command.json").write_text(
            json.dumps(ssh_command(Path("/usr/bin/ssh"), kept.record.endpoint, work, []))
        )
        behave_seconds = _seconds([sys.executable, "-m", "behave", "--no-capture", "features"], work)
    finally:
        main(["vm", "stop", machine])
    told = f"{pytest_seconds:.1f} s with the machine's start, {behave_seconds:.1f} s"
    name = "100 scenarios on a warm machine, of behave's time"
    return Figure(name, pytest_seconds / behave_seconds, "x", 0.2, told)


def _seconds(command: list[str], work: Path) -> float:
    began = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BOOTC_")}
    with (work / "output").open("w") as output:
        done = subprocess.run(command, cwd=work, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit((work / "output").read_text())
    return seconds


def _kept(command: list[str], work: Path) -> str:
    """The name of the machine that a run kept."""
    found = _KEPT.search((work / "output").read_text())
    if found is None:
        raise SystemExit(f"{' '.join(command)} kept no machine:\n{(work / 'output').read_text()}")
    return found[1]
