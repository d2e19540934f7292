"""What behave's own configuration says: ``behave.ini``, ``setup.cfg``, ``pyproject.toml`` and the others."""

from __future__ import annotations

import configparser
import contextlib
import io
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from behave.configuration import Configuration, read_configuration
from behave.exception import ConfigError as BehaveConfigError
from behave.exception import TagExpressionError

from pytest_bootc.errors import ConfigError

# What comes first outweighs what comes later.
_FILES = ("behave.ini", ".behaverc", "setup.cfg", "tox.ini", "pyproject.toml")
_SECTIONS = ("[behave", "[tool.behave")
# The rest of the settings is about behave's own runner, its output and its reports.
_KEPT = frozenset(
    (
        "capture", "capture_log", "capture_stderr", "capture_stdout", "config_tags", "default_tags", "exclude_re",
        "include_re", "lang", "logging_datefmt", "logging_filter", "logging_format", "logging_level", "name",
        "scenario_outline_annotation_schema", "stage", "tag_expression_protocol", "use_nested_step_modules",
        "userdata", "verbose",
    )
)  # fmt: skip


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that hold for the features in a folder.

    As for behave, those of the home folder, and over them those of the project: of the nearest folder, from here
    upwards, with a file that has settings of behave. (Behave itself takes the one in which it was started.)

    :raises ConfigError: a file cannot be read.
    """
    nearest = next((place for place in (folder, *folder.parents) if any(_files_in(place))), None)
    settings: dict[str, Any] = {}
    for place in dict.fromkeys((Path.home(), nearest)):
        for path in reversed(list(_files_in(place))):
            try:
                settings.update(read_configuration(str(path)))
            except (configparser.Error, tomllib.TOMLDecodeError, ValueError, BehaveConfigError) as error:
                raise ConfigError(f"{path}: behave's settings cannot be read", details=str(error)) from error
    return {name: value for name, value in settings.items() if name in _KEPT}


def make_configuration(folder: Path, userdata: Mapping[str, str]) -> Any:
    """Behave's configuration for the features in a folder; ``userdata`` outweighs that of the files.

    :raises ConfigError: a file cannot be read, or has what behave refuses.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            configuration = Configuration([], load_config=False, **read_settings(folder))
    except (SystemExit, ValueError, BehaveConfigError, TagExpressionError) as error:
        told = said.getvalue() or str(error)
        raise ConfigError(f"{folder}: behave refuses its settings", details=told) from error
    configuration.userdata_defines = list(userdata.items())
    configuration.setup_userdata()
    # Pytest captures what hooks and cleanups print.
    configuration.capture_hooks = False
    return configuration


def _files_in(folder: Path | None) -> Iterator[Path]:
    for name in _FILES if folder is not None else ():
        path = Path(str(folder), name)
        if path.is_file() and any(section in path.read_text(errors="replace") for section in _SECTIONS):
            yield path
