"""The tracebacks of errors that explain themselves."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import pytest

from pytest_bootc.errors import BootcTestError

_FOREIGN = (Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))


def shorten(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """End the traceback of an error that explains itself where the test calls this package."""
    if call.excinfo is None or not isinstance(call.excinfo.value, BootcTestError):
        return
    entries = list(walk_traceback(call.excinfo.tb))
    files = [Path(frame.f_code.co_filename) for frame, *_ in entries]
    if item.path not in files:
        return
    first = files.index(item.path)
    end = next((n for n, file in enumerate(files) if n > first and _is_foreign(file)), len(files))
    shown: TracebackType | None = None
    for frame, instruction, line in reversed(entries[:end]):
        shown = TracebackType(shown, frame, instruction, line)
    call.excinfo = pytest.ExceptionInfo.from_exception(call.excinfo.value.with_traceback(shown))


def _is_foreign(file: Path) -> bool:
    """Whether code is neither a test's nor its author's own."""
    return any(file.is_relative_to(folder) for folder in _FOREIGN)


def walk_traceback(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int, int]]:
    """The frame, the instruction and the line of each entry, the outermost first."""
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno
        traceback = traceback.tb_next
