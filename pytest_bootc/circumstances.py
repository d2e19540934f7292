"""What evidence says of the run in which a test failed: versions, and the command that runs the test again."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import pytest

from pytest_bootc import collection
from pytest_bootc.evidence import Circumstances, reproduce_line
from pytest_bootc.run import Run, Subject

# The property by which a test of the suite boot says how it chose files; BOOTC_FILES_SEED has them chosen again.
_FILES_SEED = "files_seed"


def circumstances_of(item: pytest.Item, subject: Subject, run: Run) -> Circumstances:
    """Under which circumstances a test judges its subject."""
    return Circumstances(_versions(subject, run), _reproduce(item, subject, run))


def _versions(subject: Subject, run: Run) -> dict[str, str]:
    words = {"subject": subject.text, "digest": "" if subject.digest is None else str(subject.digest)}
    facts = run.facts.get(subject.name)
    if facts is not None:
        words |= {
            "backend": facts.backend,
            "accelerator": facts.accelerator,
            "emulator": facts.emulator,
            "start": facts.origin,
            "slower than with KVM": f"{facts.time_factor:.1f} times",
            "notes": "; ".join(facts.notes),
        }
    host = f"{platform.platform()}, Python {platform.python_version()}"
    return words | {"pytest-bootc": _own_version(), "pytest": pytest.__version__, "host": host}


def _own_version() -> str:
    try:
        return importlib.metadata.version("pytest-bootc")
    except importlib.metadata.PackageNotFoundError:
        return "not installed, only imported"


def _reproduce(item: pytest.Item, subject: Subject, run: Run) -> str:
    """For the folder in which this run was started; a shipped test is named alike everywhere."""
    path, mark, parts = item.nodeid.partition("::")
    if collection.suite_of(item) is None:
        path = os.path.relpath(item.path, item.config.invocation_params.dir)
    reference = subject.reference
    if reference is not None and subject.digest is not None:
        reference = reference.pinned(subject.digest)
        # A reference without a tag is called otherwise when it is pinned.
        name, bracket, parameters = parts.partition("[")
        parts = f"{name}{bracket}{parameters.replace(subject.name, reference.short)}"
    seeds = [str(value) for name, value in item.user_properties if name == _FILES_SEED]
    environment = {f"BOOTC_{_FILES_SEED.upper()}": seed for seed in seeds[-1:]}
    return reproduce_line(run.config, reference, f"{path}{mark}{parts}", environment)
