"""The hooks around the scenarios of features: which hook leads where, nothing more."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_bootc import options
from pytest_bootc.features import checking, lifecycle
from pytest_bootc.features.nodes import FeatureFile, Gathering

_NAME = "pytest_bootc.feature_hooks"


def collect(path: Path, parent: pytest.Collector) -> FeatureFile:
    """The node for a feature file; from the first one on these hooks are in use."""
    config = parent.config
    if not config.pluginmanager.has_plugin(_NAME):
        config.pluginmanager.register(FeatureHooks(), _NAME)
    fixtures = ("vm",) if options.is_asked_for(config) else ()
    in_allure = bool(config.getoption("allure_report_dir", None))
    return FeatureFile.at(path, parent, Gathering(options.userdata(config), fixtures, in_allure))


class FeatureHooks:
    """What happens around scenarios."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Look at the steps only, if that is what was asked for."""
        return checking.check(session) if options.checks_steps(session.config) else None

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
        """Run the hooks after a scenario before any of its fixtures is torn down."""
        with lifecycle.left(item, nextitem):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Have the report carry the steps."""
        return lifecycle.with_steps(item, (yield))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Run the hooks that an interrupted run still owes."""
        lifecycle.leave_all(session)
