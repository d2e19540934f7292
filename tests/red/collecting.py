#!/usr/bin/env python3
"""Print what the suites hold, as JSON: `python tests/red/collecting.py`; no image and no machine is needed.

An object with a member for each check, by its name without an image's: the words of its markers `needs` and `image`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from pytest_bootc.collection import suite_names


@dataclass(frozen=True)
class Check:
    """What a check asks for."""

    needs: tuple[str, ...]
    images: tuple[str, ...]


class Reader:
    """A plugin of the inner run: remembers the tests that were collected."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            needs, images = (tuple(dict.fromkeys(_words(item, name))) for name in ("needs", "image"))
            self.checks[item.nodeid] = Check(needs, images)


def _words(item: pytest.Item, name: str) -> Iterable[str]:
    return (str(word) for mark in item.iter_markers(name) for word in mark.args)


def read() -> dict[str, Check]:
    """The checks of all suites. They are collected in a process of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOTC_", "PYTEST_"))}
    done = subprocess.run([sys.executable, __file__], check=True, stdout=subprocess.PIPE, env=kept)
    told: Mapping[str, Mapping[str, list[str]]] = json.loads(done.stdout)
    return {name: Check(tuple(check["needs"]), tuple(check["images"])) for name, check in told.items()}


def main() -> None:
    """Collect and print."""
    reader = Reader()
    arguments = ["--collect-only", "--host=root@127.0.0.1", f"--suite={','.join(suite_names())}"]
    arguments += ["--config-file=pytest.ini", "-pno:randomly", "-pno:cacheprovider"]
    shown = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(shown):
        Path("pytest.ini").write_text("[pytest]\n")
        status = pytest.main(arguments, plugins=[reader])
    if status != pytest.ExitCode.OK:
        sys.exit(shown.getvalue())
    print(json.dumps({name: asdict(check) for name, check in reader.checks.items()}))


if __name__ == "__main__":
    main()
