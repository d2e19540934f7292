"""Gates: what a test's marker ``needs`` asks of the machine; probed once per machine, unmet needs skip the test."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError
from pytest_bootc.machine.base import HasControl
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import LiveDisk, Network
from pytest_bootc.reports import junit
from pytest_bootc.run import Run

_PROBE_SECONDS = 30.0
_MACHINE_FIXTURES = frozenset(("vm", "ssh", "guest"))

#: What probes a word in the guest: a line of POSIX sh that exits with 0 where the need is met.
_PROBES: dict[str, Callable[[str], str]] = {
    "program": lambda name: f"command -v {shlex.quote(name)}",
    "unit": lambda name: f"systemctl cat {shlex.quote(name)}",
    "file": lambda path: f"test -e {shlex.quote(path)}",
}
_FACTS = ("network", "live")

# By machine and word.
_PROBED = pytest.StashKey[dict[tuple[str, str], bool]]()


def check(request: pytest.FixtureRequest, run: Run) -> None:
    """Skip a test that needs what its machine has not.

    :raises ConfigError: a word is not known, or the test uses no machine.
    """
    item = request.node
    words = [word for mark in item.iter_markers("needs") for word in mark.args]
    unmet = [word for word in dict.fromkeys(words) if not _is_met(word, request, run)]
    if unmet:
        item.user_properties += [(junit.UNMET_NEED, word) for word in unmet]
        pytest.skip(f"needs {', '.join(unmet)}")


def _is_met(word: str, request: pytest.FixtureRequest, run: Run) -> bool:
    kind, colon, name = word.partition(":")
    if not (word in _FACTS or (kind in _PROBES and colon and name)):
        raise ConfigError(
            f"the marker needs does not know {word!r}",
            resolution=f"write one of {', '.join(f'{kind}:NAME' for kind in _PROBES)}, {', '.join(_FACTS)}",
        )
    if not _MACHINE_FIXTURES.intersection(request.fixturenames):
        raise ConfigError(f"the test needs {word}, but uses no machine", resolution="add vm, ssh or guest to it")
    if word == "network":
        return run.config.host is not None or run.config.spec.network is Network.USER
    if word == "live":
        return isinstance(request.getfixturevalue("golden_disk"), LiveDisk)
    vm: VM = request.getfixturevalue("vm")
    probed = request.config.stash.setdefault(_PROBED, {})
    if (vm.name, word) not in probed:
        probed[vm.name, word] = _probe(_PROBES[kind](name), vm, request)
    return probed[vm.name, word]


def _probe(command: str, vm: VM, request: pytest.FixtureRequest) -> bool:
    deadline = Deadline.after(_PROBE_SECONDS)
    machine = vm.machine
    if isinstance(machine, HasControl):
        return machine.control(f"{command} >/dev/null 2>&1", deadline)[0] == 0
    return bool(request.getfixturevalue("ssh").execute(command, deadline=deadline).status == 0)
