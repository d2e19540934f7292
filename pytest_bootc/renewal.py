"""When a test gets a machine that no other test has used.

It must have one if it asks for it (``fresh_vm``), and if the test before had asked, or has the marker ``mutates``.
Where the boot has been saved, so that a clean machine costs seconds only, it also has one after a failure, and where a
suite begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from pytest_bootc import collection
from pytest_bootc.errors import ConfigError
from pytest_bootc.machine.pool import VM

_FRESH = "fresh_vm"
_MACHINE = "vm"
# By subject: the test that has used the machine behind the handle last, and whether it failed.
_LAST = pytest.StashKey[dict[str, tuple[pytest.Item, bool]]]()


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
        before, failed = last[vm.subject]
        # Who keeps the machine wants to look at what has failed.
        may = vm.can_be_cloned and not vm.stays
        if _must(before, item) or (may and (failed or _begins_a_suite(before, item))):
            vm.condemn()
    elif vm.was_kept and _must(item, item):
        vm.condemn()
    last[vm.subject] = item, False


def remember_failure(item: pytest.Item, subject: str) -> None:
    """The test has failed on the machine of this subject."""
    last = item.config.stash.get(_LAST, {})
    if subject in last:
        last[subject] = item, True


def look_ahead(item: pytest.Item, following: Sequence[pytest.Item], vm: VM) -> None:
    """Begin to make the machine that one of the tests to come will need; only those that use a machine count."""
    if _must(item, item):
        vm.spoil()
    users = [test for test in (item, *following) if _MACHINE in getattr(test, "fixturenames", ())]
    if any(_must(one, other) or (_begins_a_suite(one, other) and not vm.stays) for one, other in pairwise(users)):
        vm.prepare_spare()


def _must(before: pytest.Item, item: pytest.Item) -> bool:
    wanted = any(_FRESH in getattr(test, "fixturenames", ()) for test in (before, item))
    return wanted or before.get_closest_marker("mutates") is not None


def _begins_a_suite(before: pytest.Item, item: pytest.Item) -> bool:
    return collection.suite_of(before) != collection.suite_of(item)
