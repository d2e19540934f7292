"""Telling a person what a long operation is doing: pull, build, boot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Stage(Protocol):
    """One running operation."""

    def advance(self, amount: int) -> None:
        """So much more of the total (bytes, layers) is done. May be called from any thread."""


class Progress(Protocol):
    """Where operations announce themselves."""

    @contextmanager
    def stage(self, what: str, total: int | None = None) -> Iterator[Stage]:
        """Announce an operation for as long as the context lasts; ``total`` where it is known beforehand."""


class Silent:
    """Announces nothing."""

    @contextmanager
    def stage(self, what: str, total: int | None = None) -> Iterator[Stage]:
        """Nothing to show."""
        yield self

    def advance(self, amount: int) -> None:
        """Nothing to show."""


SILENT = Silent()
