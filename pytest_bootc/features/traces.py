"""Tracebacks without the frames of behave and of this package, of which no test author wants to know."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import behave

_INNER = (Path(str(behave.__file__)).parent, Path(__file__).parent)


def without_runner(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback's entries that lie in nobody's code but the user's."""
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    shown: TracebackType | None = None
    for entry in reversed(entries):
        if not any(Path(entry.tb_frame.f_code.co_filename).is_relative_to(folder) for folder in _INNER):
            shown = TracebackType(shown, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return shown
