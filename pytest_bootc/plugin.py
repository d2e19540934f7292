"""The plugin: options and fixtures for every run; everything else only for one that names an image, disk or host.

Nothing is done here. The hooks of a run that judges something are in :mod:`pytest_bootc.hooks`.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_bootc import options

# By name, so that it is imported through pytest and registered once even where a conftest lists this plugin too.
pytest_plugins = ("pytest_bootc.fixtures",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Let users name a line of a feature."""
    if any(".feature:" in argument for argument in args):
        from pytest_bootc.features import selection

        selection.take_lines(early_config, args)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers; begin a run of several workers, and one that judges something."""
    options.configure(config)
    _take_part(config)
    _begin_run(config)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """Start no more workers than the host can bear machines."""
    found = yield
    return _bearable(config, found) if options.is_asked_for(config) else found


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect features."""
    if file_path.suffix == ".feature" and _is_wanted(file_path, parent):
        from pytest_bootc import feature_hooks

        return feature_hooks.collect(file_path, parent)
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell which steps of features took longest, if durations were asked for."""
    if terminalreporter.config.option.durations is not None:
        from pytest_bootc.features import durations

        durations.summarise(terminalreporter)


def _take_part(config: pytest.Config) -> None:
    if options.is_distributed(config):
        from pytest_bootc import scheduling

        scheduling.begin(config)


def _begin_run(config: pytest.Config) -> None:
    if options.is_asked_for(config):
        from pytest_bootc import hooks

        hooks.begin_run(config)


def _bearable(config: pytest.Config, found: int) -> int:
    from pytest_bootc import workers

    return workers.bearable(config, found)


def _is_wanted(path: Path, parent: pytest.Collector) -> bool:
    from pytest_bootc.features import selection

    return selection.is_wanted(path, parent, options.feature_mode(parent.config))
