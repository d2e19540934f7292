"""The hooks around the tests of a run that judges something: which hook leads where, nothing more.

Those of a single test are in :mod:`pytest_bootc.item_hooks`.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc import collection, configuration, judging, workers
from pytest_bootc import run as runs
from pytest_bootc.errors import BootcTestError
from pytest_bootc.item_hooks import ItemHooks
from pytest_bootc.run import RUN, Run


def begin_run(config: pytest.Config) -> None:
    """Read the options and take the hooks into use.

    :raises pytest.UsageError: they cannot be read.
    """
    if config.option.help or config.option.version:
        return
    try:
        run = Run(configuration.parse(config, collection.suite_names()))
    except BootcTestError as error:
        raise configuration.usage_error(error) from error
    config.stash[RUN] = run
    collection.select_suites(config, run.config.suites)
    config.pluginmanager.register(Hooks(run), "pytest_bootc.hooks")
    config.pluginmanager.register(ItemHooks(run), "pytest_bootc.item_hooks")


class Hooks:
    """What happens before, between and after the tests."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Resolve the images, or take over what the controller has resolved."""
        runs.start(self.run, session.config)

    def pytest_report_header(self, config: pytest.Config) -> list[str]:
        """Name what is judged, and say how many workers do it."""
        return [*judging.header(self.run), *workers.header(config, self.run.config)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """xdist: give a worker the digests."""
        runs.send_to_worker(self.run, node.workerinput)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """xdist: take what a worker says about its machines."""
        runs.receive_in_controller(self.run, node)

    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect the suites' folder by our own nodes."""
        return collection.collect_folder(path, parent)

    def pytest_pycollect_makeitem(self, collector: pytest.Collector, name: str, obj: object) -> pytest.Collector | None:
        """Collect the suites' classes by our own nodes."""
        return collection.collect_class(collector, name, obj)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Add the selected suites to what pytest collects."""
        return collection.with_suites(collector, (yield))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test per image."""
        judging.parametrise(metafunc, self.run)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item], config: pytest.Config
    ) -> Generator[None, None, None]:
        """Keep what was selected, say what it judges, and order it after everybody else has."""
        collection.select(items, config)
        judging.prepare(items, config, self.run)
        yield
        collection.boot_first(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember what is to be run."""
        self.run.tally.expect(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """xdist: remember what the workers are to run."""
        self.run.tally.expect(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count, where all reports arrive."""
        judging.note(report, self.run)

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, str | tuple[str, dict[str, bool]]] | None:
        """Show trouble of the laboratory, flaky tests, and first tries as such."""
        return judging.status_words(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Conclude: exit status and the reports that are written once."""
        judging.finish(session, self.run)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the section about what was judged."""
        judging.summarise(terminalreporter, self.run)
