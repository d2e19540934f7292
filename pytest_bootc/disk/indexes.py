"""The EROFS indexes of an image's layers, each made once and kept beside its layer."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk import erofs
from pytest_bootc.disk.tar import TarEntry
from pytest_bootc.progress import Progress

_CHUNK = 1 << 20


class Indexes:
    """Makes the indexes of layers, several at a time, while the caller goes on; use it as a context.

    ``form`` names the files: another recipe or tool makes another index, and one that is there is not asked how it
    was made.
    """

    def __init__(self, cache: Cache, deadline: Deadline, progress: Progress, form: str) -> None:
        self._cache = cache
        self._deadline = deadline
        self._progress = progress
        self._form = form
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="index")
        self._begun: list[Future[tuple[Path, Path]] | Callable[[], tuple[Path, Path]]] = []

    def __enter__(self) -> Indexes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, layer: Path, missing: Mapping[str, TarEntry]) -> None:
        """The next layer, from the lowest up; ``missing`` are the folders that it uses and does not list."""
        work = partial(self._indexed, layer, missing)
        # A copy of a layer is only made when it is certain that there will be indexes.
        self._begun.append(work if missing else self._pool.submit(work))

    def finish(self) -> tuple[list[Path], list[Path]]:
        """The files that the layers' data is in, and their indexes, in the order of the layers.

        :raises DiskError: mkfs.erofs refused a layer, or the disk is full.
        """
        running = [work if isinstance(work, Future) else self._pool.submit(work) for work in self._begun]
        made = [future.result() for future in running]
        return [layer for layer, _ in made], [index for _, index in made]

    def _indexed(self, layer: Path, missing: Mapping[str, TarEntry]) -> tuple[Path, Path]:
        if missing:
            layer = self._completed(layer, missing)
        index = layer.with_suffix(f".{self._form}.erofs")
        self._keep(index, lambda path: erofs.index_layer(layer, path, self._deadline), erofs.is_whole)
        return layer, index

    def _completed(self, layer: Path, missing: Mapping[str, TarEntry]) -> Path:
        """A copy of a layer that lists all folders it uses: mkfs.erofs would make up owner and mode of the others."""
        head = b"".join(_folder_header(name, entry) for name, entry in missing.items())
        copy = layer.with_name(f"{layer.stem}-{hashlib.sha256(head).hexdigest()[:12]}.tar")
        size = len(head) + layer.stat().st_size
        self._keep(
            copy,
            lambda path: _write_joined(path, head, layer),
            lambda path: path.is_file() and path.stat().st_size == size,
        )
        return copy

    def _keep(self, final: Path, make: Callable[[Path], None], is_whole: Callable[[Path], bool]) -> None:
        """Have a file beside a layer. Images that share the layer may be built at the same time."""
        if is_whole(final):
            return
        with self._cache.lock(final.name, self._deadline, self._progress):
            if not is_whole(final):
                self._cache.publish(make, final)


def _folder_header(name: str, entry: TarEntry) -> bytes:
    header = tarfile.TarInfo(f"{name}/")
    header.type = tarfile.DIRTYPE
    header.mode, header.uid, header.gid, header.mtime = entry.mode, entry.uid, entry.gid, int(entry.mtime)
    header.pax_headers = {
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in entry.xattrs.items()
    }
    return header.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")


def _write_joined(path: Path, head: bytes, layer: Path) -> None:
    with path.open("wb") as out, layer.open("rb") as content:
        out.write(head)
        while chunk := content.read(_CHUNK):
            out.write(chunk)
