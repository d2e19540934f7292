"""How many workers of pytest-xdist a run can have: as many as the host has processors, and room for their machines."""

from __future__ import annotations

import os
from functools import cache

import pytest

from pytest_bootc import collection, configuration
from pytest_bootc.cache import default_home
from pytest_bootc.command import find_program
from pytest_bootc.errors import BootcTestError
from pytest_bootc.machine.accel import choose_without_kernel, qemu_version
from pytest_bootc.machine.cgroup import usable_processors
from pytest_bootc.machine.memory import HOST, gib, needed
from pytest_bootc.machine.reservation import machines_that_fit
from pytest_bootc.model import Accelerator, RunConfig

_VARIABLE = "PYTEST_XDIST_AUTO_NUM_WORKERS"
_WHY = pytest.StashKey[str]()
_BOOTS_HERE = "qemu"
_VMS = "vms"
_PROBES = "probes"


def bearable(config: pytest.Config, found: int) -> int:
    """What ``-n auto`` and ``-n logical`` mean for this run, where xdist has ``found`` so many processors."""
    try:
        parsed = configuration.parse(config, collection.suite_names())
    except BootcTestError:
        return found  # The run says so when it begins.
    if parsed.backend != _BOOTS_HERE or os.environ.get(_VARIABLE):
        return found
    processors, machines = min(found, usable_processors()), _machines(parsed)
    config.stash[_WHY] = f"{_count(processors, 'processor')}, {_room(parsed, machines)}"
    return max(1, min(processors, machines))


def header(config: pytest.Config, parsed: RunConfig) -> list[str]:
    """The line about the workers: why there are so many, or that some of them will wait."""
    count = len(config.getoption("tx", None) or ())
    if count == 0 or parsed.backend != _BOOTS_HERE:
        return []
    if _WHY in config.stash:
        return [f"bootc: {_count(count, 'worker')} ({config.stash[_WHY]})"]
    machines = _machines(parsed)
    if machines >= count:
        return []
    return [f"bootc: {_count(count, 'worker')}, {_room(parsed, machines)}: the others wait for theirs"]


def _needed(parsed: RunConfig) -> int:
    return needed(parsed.spec.memory_mib, _accelerator(parsed.spec.qemu), HOST.room())


@cache
def _accelerator(qemu: str) -> Accelerator:
    """What will execute the guests, as far as is known before there is any kernel."""
    try:
        program = find_program(qemu, resolution="")
        return choose_without_kernel(program, qemu_version(program), default_home() / _PROBES)[0]
    except BootcTestError:
        return Accelerator.TCG  # The first machine says so.


def _machines(parsed: RunConfig) -> int:
    return machines_that_fit(default_home() / _VMS, _needed(parsed))


def _room(parsed: RunConfig, machines: int) -> str:
    return f"RAM for {_count(machines, 'machine')} of {gib(_needed(parsed))}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
