"""Gates: what a test's markers ``needs`` and ``image`` ask for; probed once per machine, unmet needs skip the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import pytest

from pytest_bootc import needs
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError
from pytest_bootc.machine.base import HasControl
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import LiveDisk, Network
from pytest_bootc.reports import junit
from pytest_bootc.run import Run
from pytest_bootc.system import parse_os_release

_PROBE_SECONDS = 30.0
_MACHINE_FIXTURES = frozenset(("vm", "ssh", "guest"))
# What says which image a machine was made of that was booted from none (os-release(5)).
_NAMES = ("ID", "VARIANT_ID", "IMAGE_ID")
_OS_RELEASE = "cat /etc/os-release || cat /usr/lib/os-release"

# By machine and word.
_PROBED = pytest.StashKey[dict[str, dict[str, bool]]]()
# By machine.
_TITLES = pytest.StashKey[dict[str, tuple[str, ...]]]()


def check(request: pytest.FixtureRequest, run: Run) -> None:
    """Skip a test that needs what its machine has not, or that is for other images.

    :raises ConfigError: a word is not known, or the test uses no machine.
    """
    item = request.node
    wanted = tuple(dict.fromkeys(str(name) for mark in item.iter_markers("image") for name in mark.args))
    words = list(dict.fromkeys(str(word) for mark in item.iter_markers("needs") for word in mark.args))
    met = _met_by_the_guest([word for word in words if needs.probe(word)], request)
    unmet = [word for word in words if word not in met and not _is_met_by_the_run(word, request, run)]
    if wanted and not _is_of(wanted, request, run):
        unmet.append(f"an image named {' or '.join(wanted)}")
    if unmet:
        item.user_properties += [(junit.UNMET_NEED, word) for word in unmet]
        pytest.skip(f"needs {', '.join(unmet)}")


def _met_by_the_guest(words: Sequence[str], request: pytest.FixtureRequest) -> set[str]:
    """Those of the words that the guest meets; what has not been asked yet is asked in one request."""
    if not words:
        return set()
    _require_machine(request, words[0])
    vm: VM = request.getfixturevalue("vm")
    known = request.config.stash.setdefault(_PROBED, {}).setdefault(vm.name, {})
    unknown = [word for word in words if word not in known]
    for some in (unknown[n : n + needs.MOST] for n in range(0, len(unknown), needs.MOST)):
        status, _ = _ask(needs.question(some), vm, request)
        known |= dict(zip(some, needs.answers(status, len(some)), strict=True))
    return {word for word in words if known[word]}


def _is_met_by_the_run(word: str, request: pytest.FixtureRequest, run: Run) -> bool:
    if word not in needs.CIRCUMSTANCES:
        return False
    _require_machine(request, word)
    if word == "network":
        return run.config.host is not None or run.config.spec.network is Network.USER
    is_live = isinstance(request.getfixturevalue("golden_disk"), LiveDisk)
    return is_live if word == "live" else not is_live


def _is_of(wanted: tuple[str, ...], request: pytest.FixtureRequest, run: Run) -> bool:
    """Whether the test's image, or the system where none was booted from a reference, has one of these names."""
    subject = run.config.host or run.config.disk
    if subject is None:
        image = request.getfixturevalue("image")
        titles: tuple[str, ...] = () if image is None else (PurePath(image.reference.name).name,)
    else:
        _require_machine(request, "an image's name")
        vm: VM = request.getfixturevalue("vm")
        known = request.config.stash.setdefault(_TITLES, {})
        if vm.name not in known:
            release = parse_os_release(_ask(_OS_RELEASE, vm, request)[1])
            known[vm.name] = tuple(release.get(name, "") for name in _NAMES)
        titles = known[vm.name]
    return any(name in title for name in wanted for title in titles)


def _require_machine(request: pytest.FixtureRequest, what: str) -> None:
    if not _MACHINE_FIXTURES.intersection(request.fixturenames):
        raise ConfigError(f"the test needs {what}, but uses no machine", resolution="add vm, ssh or guest to it")


def _ask(command: str, vm: VM, request: pytest.FixtureRequest) -> tuple[int, str]:
    """The exit status and output of a line of shell in the guest."""
    deadline = Deadline.after(_PROBE_SECONDS)
    machine = vm.machine
    if isinstance(machine, HasControl):
        return machine.control(command, deadline)
    result = request.getfixturevalue("ssh").execute(["sh", "-c", command], deadline=deadline)
    return result.status, result.stdout
