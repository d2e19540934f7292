"""Collecting 500 scenarios, beside a pytest run that collects one test."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows.figure import Figure

_PAIRS = 7
_FILES = 25
_SCENARIOS = 20
_SCENARIO = """
  @tag.{n} @smoke
  Scenario: Number {n}
    Given a machine
    When "something {n}" is done
      | name | value |
      | one  | {n}   |
    Then it is done
"""


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        bare, features = Path(folder, "bare"), Path(folder, "features")
        bare.mkdir()
        (bare / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
        (features / "steps").mkdir(parents=True)
        for number in range(_FILES):
            scenarios = "".join(_SCENARIO.format(n=n) for n in range(_SCENARIOS))
            (features / f"f{number}.feature").write_text(f"Feature: Number {number}\n{scenarios}")
        _seconds(features, _FILES * _SCENARIOS)
        pairs = [(_seconds(features, _FILES * _SCENARIOS), _seconds(bare, 1)) for _ in range(_PAIRS)]
    added = statistics.median(ours - bare for ours, bare in pairs)
    bare_seconds = statistics.median(bare for _, bare in pairs)
    return [
        Figure("500 scenarios collected", added, "s", 1, f"over a bare run of {bare_seconds:.2f} s, {_PAIRS} pairs")
    ]


def _seconds(folder: Path, count: int) -> float:
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, check=True, capture_output=True, cwd=folder, text=True)
    seconds = time.monotonic() - began
    assert f"{count} test" in done.stdout, done.stdout[-500:]
    return seconds
