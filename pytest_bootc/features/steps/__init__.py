"""The step library: definitions that every folder of features has, without importing anything.

``from pytest_bootc.features.steps import ask, run, missed`` lets the step files of a folder use what these are made
of. Importing defines nothing for behave.
"""

from pytest_bootc.features.steps import (
    buses,
    commands,
    containers,
    deployments,
    desktop_entries,
    files,
    flatpaks,
    journals,
    network,
    output,
    permissions,
    processes,
    programs,
    settings,
    system,
    units,
    users,
)
from pytest_bootc.features.steps.asking import ask, guest_of, missed, result_of, run
from pytest_bootc.features.steps.library import DEFINED, LayeredRegistry, Phrase, definitions_of, grouped
from pytest_bootc.features.steps.users import user_of

#: The modules of definitions, in the order in which they are listed.
GROUPS = (
    commands, output, files, programs, units, journals, processes, users, permissions, system, deployments, network,
    buses, settings, desktop_entries, flatpaks, containers,
)  # fmt: skip

#: Every phrase, group by group.
PHRASES = tuple(phrase for module in GROUPS for phrase in DEFINED if phrase.function.__module__ == module.__name__)

__all__ = [
    "GROUPS",
    "PHRASES",
    "LayeredRegistry",
    "Phrase",
    "ask",
    "definitions_of",
    "grouped",
    "guest_of",
    "missed",
    "result_of",
    "run",
    "user_of",
]
