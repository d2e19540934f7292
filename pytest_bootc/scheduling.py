"""Tests that must not run at the same time, under pytest-xdist: the marker ``serial``.

The controller hands out tests and knows only their ids; the workers know their markers. So a worker that has such
tests writes their groups into a folder that the controller has named, before it reports what it has collected. Without
any such test everything is left to the scheduler that ``--dist`` has chosen.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.errors import ConfigError
from pytest_bootc.serial import SerialScheduling

_FOLDER = "bootc_serial"
_WORKER = "workerid"


def begin(config: pytest.Config) -> None:
    """Take part in a run of several workers, as its controller or as one of them."""
    told: Mapping[str, str] = getattr(config, "workerinput", {})
    if _FOLDER in told:
        config.pluginmanager.register(Worker(told[_FOLDER], told[_WORKER]), "pytest_bootc.scheduling")
    elif not told and config.getoption("dist") != "each":
        config.pluginmanager.register(Controller(), "pytest_bootc.scheduling")


class Controller:
    """The hooks of the process that hands out the tests."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Name the folder to a worker; none to one on another host. It is made by the first that needs it."""
        if self._folder is None:
            self._folder = Path(tempfile.gettempdir(), f"pytest-bootc-{uuid.uuid4().hex}")
        node.workerinput[_FOLDER] = str(self._folder) if node.gateway.spec.popen else ""

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_xdist_make_scheduler(self) -> Generator[None, Any, Any]:
        """Watch over whichever scheduler was chosen."""
        chosen = yield
        return chosen if chosen is None else SerialScheduling(chosen, self._groups)

    def pytest_sessionfinish(self) -> None:
        """Remove what the workers have written."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _groups(self) -> dict[str, str]:
        """The groups of all tests that have one. All workers have collected the same."""
        groups: dict[str, str] = {}
        for file in () if self._folder is None else self._folder.glob("*.json"):
            groups |= json.loads(file.read_text())
        return groups


class Worker:
    """The hooks of a process that runs tests."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._name = name
        self._troubles: dict[str, ConfigError] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write down the groups before xdist reports the tests."""
        groups: dict[str, str] = {}
        for item in session.items:
            try:
                group = group_of(item)
            except ConfigError as error:
                self._troubles[item.nodeid] = error
            else:
                if group is not None:
                    groups[item.nodeid] = group
        if groups and self._folder:
            draft = Path(self._folder) / f"{self._name}.draft"
            draft.parent.mkdir(mode=0o700, exist_ok=True)
            draft.write_text(json.dumps(groups))
            draft.replace(draft.with_suffix(".json"))
        elif groups:
            resolution = "leave out --tx, or the test"
            elsewhere = ConfigError(
                "serial tests are kept together on workers of this host only", resolution=resolution
            )
            self._troubles |= dict.fromkeys(groups, elsewhere)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Refuse a test whose marker cannot be followed."""
        if item.nodeid in self._troubles:
            raise self._troubles[item.nodeid]


def group_of(item: pytest.Item) -> str | None:
    """The name of the test's group, if it is in one.

    :raises ConfigError: its marker has other arguments than a name.
    """
    marker = item.get_closest_marker("serial")
    if marker is None:
        return None
    values = [*marker.args, *marker.kwargs.values()]
    if len(values) > 1 or not marker.kwargs.keys() <= {"group"} or not all(isinstance(name, str) for name in values):
        raise ConfigError(
            "the marker serial takes the name of a group, or nothing",
            resolution='write @pytest.mark.serial("NAME"), @pytest.mark.serial(group="NAME") or @pytest.mark.serial',
        )
    return values[0] if values else ""
