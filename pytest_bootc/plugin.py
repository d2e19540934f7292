"""The plugin: options and fixtures for every run; everything else only for one that names an image, disk or host.

Nothing is done here. The hooks of a run that judges something are in :mod:`pytest_bootc.hooks`.
"""

from __future__ import annotations

import pytest

from pytest_bootc import options

# By name, so that it is imported through pytest and registered once even where a conftest lists this plugin too.
pytest_plugins = ("pytest_bootc.fixtures",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers; begin a run that judges something."""
    options.add_markers(config)
    if options.is_asked_for(config):
        from pytest_bootc import hooks

        hooks.begin_run(config)
