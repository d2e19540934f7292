"""What the Allure report says beyond what allure-pytest writes by itself.

allure-pytest is always installed, and without ``--alluredir`` nobody listens: every call is then without effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import allure
import pytest
from allure_commons.types import AttachmentType

# Allure 2 sorts failures by these; Allure 3 has its own, set in its configuration.
_CATEGORIES = [
    {"name": "The image failed", "matchedStatuses": ["failed"]},
    {"name": "Laboratory, options or tests", "matchedStatuses": ["broken"]},
    {"name": "Not judged", "matchedStatuses": ["skipped"]},
]
_TYPES = {".png": AttachmentType.PNG, ".json": AttachmentType.JSON}


@dataclass(frozen=True, repr=False)
class Plain:
    """A text that Allure shows as it is. It shows a string in quotes, and the ``repr`` of anything else."""

    text: str

    def __repr__(self) -> str:
        return self.text


def add_labels(item: pytest.Item, subject: str, suite: str | None) -> None:
    """Sort a test under its subject and suite. Marks, because a skipped test never comes to say more."""
    labels = {"parentSuite": subject}
    if suite is not None:
        labels |= {"suite": suite, "subSuite": item.path.stem}
    for kind, text in labels.items():
        item.add_marker(pytest.mark.allure_label(text, label_type=kind))


def note_digest(digest: str) -> None:
    """Say which image it was. Excluded from the history, which would else begin anew with every build."""
    allure.dynamic.parameter("digest", Plain(digest), excluded=True)


def attach(paths: Iterable[Path]) -> None:
    """Attach files to the current test."""
    for path in paths:
        kind = _TYPES.get(path.suffix, AttachmentType.TEXT)
        allure.attach.file(path, path.name, kind)  # type: ignore[no-untyped-call]


def write_run_files(folder: Path, environment: Mapping[str, str]) -> None:
    """Write what holds for the whole run: environment.properties and categories.json."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{_escaped(name, ' :=')} = {_escaped(value, '')}\n" for name, value in environment.items())
    (folder / "environment.properties").write_text(lines)
    (folder / "categories.json").write_text(json.dumps(_CATEGORIES, indent=2) + "\n")


def _escaped(text: str, separators: str) -> str:
    """A key or a value of a Java properties file (java.util.Properties.load)."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    for character in separators:
        text = text.replace(character, f"\\{character}")
    return text
