#!/usr/bin/env python3
"""Write down what becomes of each check on a sound guest: `python tests/red/record.py IMAGE [SUITE...]`.

The suites (all, where none is named) are run once on a machine of the test image IMAGE, and outcomes/SUITE.toml gets
their outcomes. Look at the difference before you commit it: a check that fails here is wrong, or the image is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import breaking
from breaking import Inner

from pytest_bootc.collection import suite_names


def written(outcomes: Mapping[str, Mapping[str, str]]) -> str:
    """The text of a file of outcomes: of images, and of the tests on them."""
    lines = ["# Written by tests/red/record.py."]
    for image, told in sorted(outcomes.items()):
        lines += ["", f"[{image}]"]
        lines += [f"{_quoted(test)} = {_quoted(outcome)}" for test, outcome in told.items()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def main() -> None:
    """Parse the command line, run and write."""
    known = suite_names()
    parser = argparse.ArgumentParser(description="Write down what becomes of each check on a sound guest.")
    parser.add_argument("image", choices=sorted(breaking.IMAGES))
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(known)} (default: all)")
    arguments = parser.parse_args()
    suites = arguments.suites or known
    inner = Inner(arguments.image, sorted({"boot", *suites}))
    with tempfile.TemporaryDirectory() as folder:
        outcomes = inner.judge(Path(folder))
    for suite in suites:
        file = breaking.RED / "outcomes" / f"{suite}.toml"
        before = tomllib.loads(file.read_text()) if file.exists() else {}
        of_suite = {test: outcome for test, outcome in outcomes.items() if test.startswith(f"{suite}/")}
        now = {test: breaking.as_recorded(outcome) for test, outcome in of_suite.items()}
        file.write_text(written(before | {arguments.image: now}))
    wrong = {test: said for test, (word, said) in outcomes.items() if word not in ("passed", "skipped")}
    for test, said in wrong.items():
        print(f"{test}: {said}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
