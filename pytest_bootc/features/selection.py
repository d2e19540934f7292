"""Which feature files are collected, and which of their lines. Knows nothing of behave, which takes time to import."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest

#: The option by which lines cross to workers of xdist; nobody types it.
LINES = "bootc_feature_lines"

_LOCATION = re.compile(r"(.+\.feature):([0-9]+)")
_BEHAVES = re.compile(r"\bbehave\b|\bdef (before|after)_(all|feature|rule|scenario|step|tag)\b")
_ANOTHERS = re.compile(r"\bpytest_bdd\b")


@runtime_checkable
class NamesFiles(Protocol):
    """A collector whose files have node ids of their own making."""

    def file_nodeid(self, path: Path) -> str:
        """The node id of a file."""


def is_wanted(path: Path, parent: pytest.Collector, mode: str) -> bool:
    """Whether a feature file is one of behave's: ``mode`` is ``on``, ``off``, or ``auto``, which looks.

    With ``auto`` it is collected where it was named on the command line, where a shipped suite has it, and where
    the nearest ``steps/`` or ``environment.py``, upwards to pytest's root folder, is one of behave's. A folder for
    pytest-bdd has definitions that import that.
    """
    if mode != "auto":
        return mode == "on"
    if isinstance(parent, NamesFiles) or parent.session.isinitpath(path):
        return True
    for folder in folders_up_to(parent.config.rootpath, path.parent):
        environment, steps = _environment(folder), _steps(folder)
        if environment is not None or steps is not None:
            return _is_behaves(environment, steps)
    return False


def top_for(parent: pytest.Collector) -> Path:
    """Up to where the steps of a collector's features may be: the shipped suites, or pytest's root folder."""
    shipped = [node for node in parent.listchain() if isinstance(node, NamesFiles)]
    return shipped[0].path if shipped else parent.config.rootpath


def folders_up_to(top: Path, folder: Path) -> Iterator[Path]:
    """A folder and those above it, up to the top; all of them, where that is elsewhere."""
    for place in (folder, *folder.parents):
        yield place
        if place == top:
            return


def _environment(folder: Path) -> Path | None:
    path = folder / f"{_stage()}environment.py"
    return path if path.is_file() else None


def _steps(folder: Path) -> Path | None:
    path = folder / f"{_stage()}steps"
    return path if path.is_dir() else None


def _stage() -> str:
    stage = os.environ.get("BEHAVE_STAGE")
    return f"{stage}_" if stage else ""


def _is_behaves(environment: Path | None, steps: Path | None) -> bool:
    if environment is not None and _BEHAVES.search(environment.read_text(errors="replace")):
        return True
    files = [] if steps is None else list(steps.glob("**/*.py"))
    return steps is not None and not any(_ANOTHERS.search(path.read_text(errors="replace")) for path in files)


def take_lines(config: pytest.Config, arguments: list[str]) -> None:
    """Turn ``x.feature:LINE`` among pytest's arguments into the file, and an option that has the line."""
    here = config.invocation_params.dir
    located: dict[str, re.Match[str]] = {}
    for argument in arguments:
        match = _LOCATION.fullmatch(argument)
        if match is not None and not argument.startswith("-") and (here / match[1]).is_file():
            located[argument] = match
    if not located:
        return
    whole = [here / argument for argument in arguments if argument not in located and not argument.startswith("-")]
    known = getattr(config.known_args_namespace, "file_or_dir", [])
    for paths in (arguments, known):
        named = [located[path][1] if path in located else path for path in paths]
        # Named twice, pytest 8.4 would collect it twice.
        paths[:] = [path for n, path in enumerate(named) if paths[n] not in located or path not in named[:n]]
    for match in located.values():
        path = Path(os.path.normpath(here / match[1]))
        # Whoever names the file itself, or a folder above it, wants all of it.
        if not any(path.is_relative_to(os.path.normpath(other)) for other in whole):
            arguments.insert(0, f"--feature-line={path}:{match[2]}")


def lines_of(path: Path, config: pytest.Config) -> list[int]:
    """The lines of a file that were asked for; none means all."""
    found = (_LOCATION.fullmatch(told) for told in config.getoption(LINES) or ())
    return [int(match[2]) for match in found if match is not None and Path(match[1]) == path]
