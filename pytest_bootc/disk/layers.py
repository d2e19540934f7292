"""The unpacked layers of images, each stored once under its diff-id and verified on the way in."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.download import PartialBlob
from pytest_bootc.disk.unpack import IMAGE_LIMIT, Blob, Budget, padded, unpack
from pytest_bootc.errors import DigestMismatchError, DiskError, ImageError, RegistryError
from pytest_bootc.image import Digest
from pytest_bootc.model import Layer, ResolvedImage
from pytest_bootc.progress import Progress, Stage
from pytest_bootc.source import ImageSource

# What a registry sends side by side; one waits for bytes while another unpacks. Unpacking takes a core each, and more
# connections than podman opens may annoy a registry.
_THREADS = max(3, min(6, len(os.sched_getaffinity(0))))
_NAME_DIGITS = 32
_SIDECAR = "layer.json"


@dataclass(frozen=True)
class StoredLayer:
    """An unpacked layer. ``size`` is the tar's, in bytes; the file may be longer by padding to a block of 512."""

    diff_id: Digest
    path: Path
    size: int


class LayerStore:
    """Layers as ``layers/v1/DIFF-ID/``: the tar, and a JSON file with its size.

    A stored layer was hashed when it came in and is later known by its size alone; one of another size is made again.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def obtain(
        self, image: ResolvedImage, source: ImageSource, deadline: Deadline, progress: Progress
    ) -> tuple[StoredLayer, ...]:
        """All layers of the image, bottom first; those that are not stored yet are fetched from the source.

        :raises DigestMismatchError: a blob has other bytes than the manifest says.
        :raises RegistryError: the source did not deliver, or not before the deadline.
        :raises ImageError: a layer is no valid stream, a bomb, or not what the image's configuration says.
        :raises DiskError: the host's disk is full or cannot be written.
        """
        stored: dict[Digest, StoredLayer] = {}
        missing: dict[Digest, Layer] = {}
        for layer in image.layers:
            found = self.find(layer.diff_id)
            if found is None:
                missing[layer.diff_id] = layer
            else:
                stored[layer.diff_id] = found
        if missing:
            budget = Budget(IMAGE_LIMIT)
            budget.spend(sum(layer.size for layer in stored.values()))
            scratch = self._cache.downloads / image.digest.hex[:_NAME_DIGITS]
            with self._cache.draft(scratch) as draft, source.opened(image, draft.path, deadline, progress) as opened:
                missing = {layer.diff_id: layer for layer in opened.layers if layer.diff_id in missing}
                total = sum(layer.size for layer in missing.values())
                self._cache.require_free(total, f"the layers of {image.reference}")
                with progress.stage(f"pulling {image.reference.short}", total) as stage:
                    pull = _Pull(self._cache, source, deadline, progress, stage, budget)
                    for made in pull.run(self, list(missing.values())):
                        stored[made.diff_id] = made
        return tuple(stored[layer.diff_id] for layer in image.layers)

    def find(self, diff_id: Digest) -> StoredLayer | None:
        """The stored layer of this diff-id, or ``None``."""
        path = self.path(diff_id)
        try:
            size = json.loads(path.with_name(_SIDECAR).read_bytes())["size"]
            length = path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not written by us
            return None
        if not isinstance(size, int) or length != padded(size):
            return None
        return StoredLayer(diff_id, path, size)

    def path(self, diff_id: Digest) -> Path:
        """Where the tar of this diff-id is, or would be."""
        return self._cache.layers / diff_id.hex / f"{diff_id.hex}.tar"


class _GivenUpError(Exception):
    """Another layer failed, or the run is being ended."""


@dataclass(frozen=True)
class _Pull:
    """The layers of one image on their way into the store."""

    cache: Cache
    source: ImageSource
    deadline: Deadline
    progress: Progress
    stage: Stage
    budget: Budget
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, store: LayerStore, layers: list[Layer]) -> list[StoredLayer]:
        """Fetch them side by side; the first failure ends the others."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="layer") as pool:
            futures = [pool.submit(self._layer, store, layer) for layer in layers]
            try:
                return [future.result() for future in as_completed(futures)]
            except BaseException:
                self.stop.set()
                raise

    def _layer(self, store: LayerStore, layer: Layer) -> StoredLayer:
        with self.cache.lock(f"layer-{layer.diff_id.hex}", self.deadline, self.progress, self._check):
            found = store.find(layer.diff_id)
            if found is not None:  # another run made it while we waited
                self.stage.advance(layer.size)
                return found
            path = store.path(layer.diff_id)
            self.cache.publish(lambda folder: self._build(layer, folder / path.name), path.parent)
        made = store.find(layer.diff_id)
        if made is None:
            raise DiskError(f"{path} vanished or changed just after it was written")
        return made

    def _build(self, layer: Layer, path: Path) -> None:
        path.parent.mkdir()
        size = self._unpacked(layer, path)
        path.with_name(_SIDECAR).write_text(json.dumps({"diff_id": str(layer.diff_id), "size": size}))

    def _unpacked(self, layer: Layer, path: Path) -> int:
        """Write the layer's tar; return its size."""
        if not self.source.remote:
            return self._unpack(layer, self.source.open_blob(layer.digest, self.deadline), path)
        part = PartialBlob(self.cache.downloads, layer)
        with self.cache.lease(part.path, self.deadline):
            return self._resumed(part, layer, path)

    def _resumed(self, part: PartialBlob, layer: Layer, path: Path) -> int:
        try:
            with part.kept():
                return self._unpack(layer, part.pieces(self.source, self.deadline), path)
        except (DigestMismatchError, ImageError):
            if not part.resumed:
                raise
        # What an earlier run has left may be what is wrong.
        path.unlink()
        with part.kept():
            return self._unpack(layer, part.pieces(self.source, self.deadline), path)

    def _unpack(self, layer: Layer, pieces: Iterator[bytes], path: Path) -> int:
        return unpack(Blob(layer, pieces, self._watch), path, self.budget)

    def _watch(self, size: int) -> None:
        self._check()
        self.stage.advance(size)

    def _check(self) -> None:
        if self.stop.is_set():
            raise _GivenUpError
        if self.deadline.expired():
            raise RegistryError(f"the layers did not arrive within {self.deadline.seconds:g} s")
