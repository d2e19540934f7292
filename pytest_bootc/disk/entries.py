"""What was found in a layer, kept beside it: the next image that has the layer need not look through it again.

Half a million members take seconds to read and check, and a tenth of that to load. What the reading code would find
today is what counts: a file that other code has written is not looked at.
"""

from __future__ import annotations

import hashlib
import inspect
import marshal
from collections.abc import Sequence
from pathlib import Path

import zstandard

from pytest_bootc.disk import members, tar
from pytest_bootc.disk.tar import EntryKind, TarEntry

_KINDS = tuple(EntryKind)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_SOURCES = "".join(inspect.getsource(module) for module in (members, tar))

#: What tells the files of this code from those of other code, for their names.
FORM = hashlib.sha256(f"{marshal.version} {TarEntry._fields} {_SOURCES}".encode()).hexdigest()[:8]


def save(entries: Sequence[TarEntry], path: Path) -> None:
    """Write the members of a layer."""
    paths, kinds, *others = zip(*entries, strict=True) if entries else [()] * len(TarEntry._fields)
    xattrs = [dict(found) for found in others[-2]]
    columns = [list(paths), bytes(map(_NUMBERS.__getitem__, kinds)), *map(list, others[:-2]), xattrs, list(others[-1])]
    packer = zstandard.ZstdCompressor(level=1, write_checksum=True)
    path.write_bytes(packer.compress(marshal.dumps(columns)))


def load(path: Path) -> list[TarEntry] | None:
    """The members of a layer; ``None`` where the file is not there, or is not whole."""
    try:
        columns = marshal.loads(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
    except (OSError, zstandard.ZstdError):
        return None
    paths, kinds, *others = columns
    return list(map(TarEntry, paths, map(_KINDS.__getitem__, kinds), *others))
