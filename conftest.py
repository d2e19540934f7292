"""In this repository, and only here: an image or a host without paths means the suites, not the project's own tests."""

import pytest

from pytest_bootc import collection, options


def pytest_configure(config: pytest.Config) -> None:
    """Replace what pyproject.toml says by the suites, if nobody typed paths or suites."""
    asked = any(options.lookup(config, option) for option in (options.IMAGE, options.HOST, options.DISK))
    bare = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if asked and bare and not options.lookup(config, options.SUITE):
        config.args[:] = [str(collection.suites_folder())]
