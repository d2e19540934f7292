"""The command ``pytest-bootc``: what there is to do around runs. The runs themselves are pytest's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do what it says; the exit status."""
    parser = argparse.ArgumentParser(
        prog="pytest-bootc",
        description="Companion of the pytest plugin. To judge an image, run: pytest --image REF",
    )
    parser.add_argument("--version", action="version", version=f"pytest-bootc {version('pytest-bootc')}")
    parser.parse_args(arguments)
    parser.print_help()
    return 0
