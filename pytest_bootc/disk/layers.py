"""The unpacked layers of images, each stored once under its diff-id, verified on the way in."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.cache import Cache
from pytest_bootc.disk.unpack import Budget, Cancelled, unpack
from pytest_bootc.image import Digest
from pytest_bootc.model import Layer, ResolvedImage
from pytest_bootc.progress import Progress, Stage
from pytest_bootc.source import ImageSource

_THREADS = 2  # more do not help: one waits for bytes while the other unpacks, and most machines of CI have two cores


@dataclass(frozen=True)
class StoredLayer:
    """An unpacked layer. ``size`` is the tar's, in bytes; the file may be longer by its padding to whole blocks."""

    diff_id: Digest
    path: Path
    size: int
