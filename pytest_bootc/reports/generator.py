"""The program that makes HTML of Allure's results: the npm package `allure`, found or installed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.cache import Cache
from pytest_bootc.command import Argument, CommandError, find_program, look_for_program, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError
from pytest_bootc.progress import Progress

#: What is installed where there is none. Others of this major version are taken as they are.
VERSION = "3.18.0"

_MAJOR = VERSION.partition(".")[0]
# Debian 12 has Node 18. Some libraries of allure name newer ones; making a report does not need them.
_OLDEST_NODE = 18
_ASK_SECONDS = 60.0
_INSTALL_SECONDS = 600.0
_GET_NODE = (
    f"run scripts/setup report, or install Node {_OLDEST_NODE} or later with npm "
    "(Debian: nodejs and npm; Fedora: nodejs-npm)"
)


@dataclass(frozen=True)
class Generator:
    """How the program is called: its first words, and what they need in the environment."""

    argv: tuple[str, ...]
    version: str
    environment: Mapping[str, str]


def find_generator(cache: Cache, progress: Progress) -> Generator:
    """The program `allure` of the user's PATH if it is of the right major version, else our own copy, made if need be.

    :raises ConfigError: there is no Node, no npm, or one that is too old.
    :raises CommandError: npm could not install it.
    :raises DiskError: the cache cannot be written.
    """
    program = look_for_program("allure")
    version = None if program is None else _version((str(program),))
    if program is not None and version is not None and version.partition(".")[0] == _MAJOR:
        return Generator((str(program),), version, {})
    return own_generator(cache, progress)


def own_generator(cache: Cache, progress: Progress) -> Generator:
    """Our own copy, made if need be. Raises as :func:`find_generator` does."""
    node = _node()
    environment = {"PATH": os.pathsep.join((str(node.parent), os.environ.get("PATH", os.defpath)))}
    folder = cache.tools / f"allure-{VERSION}"
    script = folder / "node_modules" / "allure" / "cli.js"
    if not script.exists():
        with cache.lock(folder.name, Deadline.after(_INSTALL_SECONDS), progress):
            if not script.exists():
                npm = find_program("npm", resolution=_GET_NODE)
                cache.tools.mkdir(exist_ok=True)
                with progress.stage(f"installing allure {VERSION}, once"):
                    cache.publish(lambda work: _install(npm, work, environment), folder)
    return Generator((str(node), str(script)), VERSION, environment)


def _node() -> Path:
    node = find_program("node", resolution=_GET_NODE)
    version = _version((str(node),))
    major = 0 if version is None else int(version.partition(".")[0])
    if major < _OLDEST_NODE:
        raise ConfigError(f"{node} is of version {version}, which is too old for allure", resolution=_GET_NODE)
    return node


def _version(argv: tuple[str, ...]) -> str | None:
    """What the program says of its version; ``None`` if it does not run."""
    try:
        said = run((*argv, "--version"), deadline=Deadline.after(_ASK_SECONDS)).stdout.decode(errors="replace")
    except CommandError:
        return None
    found = re.search(r"^v?(\d+(?:\.\d+)+)", said.strip())
    return None if found is None else found[1]


def _install(npm: Path, folder: Path, environment: Mapping[str, str]) -> None:
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    command: tuple[Argument, ...]
    command = (npm, "install", "--prefix", folder, "--ignore-scripts", "--omit=dev", *quiet, f"allure@{VERSION}")
    folder.mkdir()
    try:
        run(command, deadline=Deadline.after(_INSTALL_SECONDS), env=environment)
    except CommandError as error:
        raise CommandError(
            f"npm could not install allure {VERSION}",
            details=f"{error.brief}\n{error.details}",
            resolution="see that npm reaches its registry (npm ping), or have an `allure` of version 3 in PATH",
        ) from error
