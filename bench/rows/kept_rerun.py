"""One test run again on a machine that was kept: from the start of pytest to its end."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_bootc.cli import main
from rows.figure import Figure
from rows.roots import _server

_ROUNDS = 5
_TEST = "def test_again(ssh):\n    assert ssh.succeed('id -u').strip() == '0'\n"
_KEPT = re.compile(r"note: (vm-\S+) is kept until")


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "test_again.py").write_text(_TEST)
        command = [sys.executable, "-m", "pytest", "-q", "--keep-vm", "--image", f"oci:{_server()}:latest"]
        began = subprocess.run(command, check=True, cwd=work, capture_output=True, text=True)
        machine = _KEPT.search(began.stdout)
        if machine is None:
            raise SystemExit(f"no machine was kept:\n{began.stdout}")
        try:
            again = [_seconds(command, work, machine[1]) for _ in range(_ROUNDS)]
        finally:
            main(["vm", "stop", machine[1]])
    told = ", ".join(f"{each:.1f}" for each in again)
    return [Figure("one test again on a kept machine, all of pytest", statistics.median(again), "s", 2, told)]


def _seconds(command: list[str], work: Path, machine: str) -> float:
    began = time.monotonic()
    told = subprocess.run(command, check=True, cwd=work, capture_output=True, text=True).stdout
    if f"note: {machine} was kept" not in told:
        raise SystemExit(f"it ran on another machine:\n{told}")
    return time.monotonic() - began
