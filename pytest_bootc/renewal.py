"""When a test gets a machine that no other test has used.

It must have one if it asks for it (``fresh_vm``), and if the test before had asked, or has the marker ``mutates``.
Where the boot has been saved, so that a clean machine costs seconds only, it also has one after a failure, and where a
suite begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from pytest_bootc import collection
from pytest_bootc.errors import ConfigError
from pytest_bootc.machine.pool import VM

_FRESH = "fresh_vm"
_MACHINE = "vm"


@dataclass
class _User:
    """The test that has used the machine behind a handle last: whether it failed, and whether it was skipped unrun."""

    item: pytest.Item
    failed: bool = False
    skipped: bool = False


# By subject.
_LAST = pytest.StashKey[dict[str, _User]]()


def require_named(request: pytest.FixtureRequest) -> None:
    """See to it that a test has named the fixture, so that its machine was replaced before it began.

    :raises ConfigError: it asks for it while it runs.
    """
    if _FRESH not in getattr(request.node, "fixturenames", ()):
        raise ConfigError(
            "fresh_vm was asked for while the test runs, when its machine has been used already",
            resolution="name fresh_vm among the test's arguments, or in usefixtures",
        )


def renew(item: pytest.Item, vm: VM) -> None:
    """Have a fresh machine behind the handle from the next use on, if the test is to have one."""
    last = item.config.stash.setdefault(_LAST, {})
    if vm.subject in last:
        before = last[vm.subject]
        # Who keeps the machine wants to look at what has failed.
        may = vm.can_be_cloned and not vm.stays
        must = _wants(item) if before.skipped else _must(before.item, item)
        if must or (may and (before.failed or _begins_a_suite(before.item, item))):
            vm.condemn()
    elif vm.was_kept and _must(item, item):
        vm.condemn()
    last[vm.subject] = _User(item)


def remember(item: pytest.Item, report: pytest.TestReport, subject: str) -> None:
    """How a phase of the test ended that uses the machine of this subject."""
    last = item.config.stash.get(_LAST, {})
    if subject in last and report.failed:
        last[subject] = _User(item, failed=True)
    elif subject in last and report.skipped and report.when == "setup" and last[subject].item is item:
        last[subject].skipped = True


def look_ahead(item: pytest.Item, following: Sequence[pytest.Item], vm: VM) -> None:
    """Begin to make the machine that one of the tests to come will need; only those that use a machine count."""
    if _must(item, item):
        vm.spoil()
    users = [test for test in (item, *following) if _MACHINE in getattr(test, "fixturenames", ())]
    if any(_must(one, other) or (_begins_a_suite(one, other) and not vm.stays) for one, other in pairwise(users)):
        vm.prepare_spare()


def _must(before: pytest.Item, item: pytest.Item) -> bool:
    return _wants(before) or _wants(item) or before.get_closest_marker("mutates") is not None


def _wants(item: pytest.Item) -> bool:
    return _FRESH in getattr(item, "fixturenames", ())


def _begins_a_suite(before: pytest.Item, item: pytest.Item) -> bool:
    return collection.suite_of(before) != collection.suite_of(item)
