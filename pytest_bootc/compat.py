"""Every private name of pytest that this package uses, and nothing else. Tried with pytest 8.4 and 9.2."""

from __future__ import annotations

import pytest
from _pytest.junitxml import xml_key


def offer_fixtures(node: pytest.Collector) -> None:
    """Offer the fixtures of the node's object (its attribute ``obj``) to all below it, as ``pytest.Module`` does.

    The way of a ``conftest.py`` in pytest 8.4 would offer them to the whole run when it lies outside the root folder.
    """
    node.session._fixturemanager.parsefactories(node)


def parameter(item: pytest.Item, name: str) -> object | None:
    """The value of a test's parameter, if it has one of that name."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(name)


def add_suite_property(config: pytest.Config, name: str, value: str) -> None:
    """Add a property to the JUnit report's test suite, if one is written.

    The fixture ``record_testsuite_property`` does the same, but only where tests run: not in xdist's controller.
    """
    log = config.stash.get(xml_key, None)
    if log is not None:
        log.add_global_property(name, value)
