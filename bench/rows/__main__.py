"""Print the table."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib import import_module

from rows.figure import Figure

_ROWS = (
    "overhead",
    "collecting",
    "roundtrip",
    "pulls",
    "roots",
    "first_verdict",
    "second_run",
    "kept_rerun",
    "scenarios",
)


def main(wanted: list[str]) -> int:
    unknown = [name for name in wanted if name not in _ROWS]
    if unknown:
        print(f"no such row: {', '.join(unknown)}; there are {', '.join(_ROWS)}")
        return 2
    print(f"machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    for name in wanted or _ROWS:
        measure: Callable[[], list[Figure]] = import_module(f"rows.{name}").measure
        before = os.getloadavg()[0]
        for figure in measure():
            print(f"{figure}  (load {before:.1f} before, {os.getloadavg()[0]:.1f} after)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
