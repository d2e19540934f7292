"""A pytest run that uses none of it, with the plugin and without."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows.figure import Figure

_PAIRS = 15


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder, "test_nothing.py")
        test.write_text("def test_nothing():\n    pass\n")
        pairs = [(_seconds(folder, []), _seconds(folder, ["-p", "no:pytest_bootc.plugin"])) for _ in range(_PAIRS)]
    added = statistics.median(ours - bare for ours, bare in pairs)
    bare = statistics.median(bare for _, bare in pairs)
    return [
        Figure("plugin installed and not used", added * 1000, "ms", 50, f"bare {bare * 1000:.0f} ms, {_PAIRS} pairs")
    ]


def _seconds(folder: str, options: list[str]) -> float:
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, folder]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return time.monotonic() - began
