"""Blobs on their way from a network: what has come of one is kept, so that the next try needs only the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import DigestMismatchError, ImageError
from pytest_bootc.model import Layer
from pytest_bootc.source import CHUNK, ImageSource

_NAME_DIGITS = 32


class PartialBlob:
    """The first bytes of a layer's blob, in a file of ``folder``. Hold the lock of the layer meanwhile.

    ``resumed`` says whether some of them were there before. They are not known to be right: whoever reads them to
    the end hashes them with the rest.
    """

    def __init__(self, folder: Path, layer: Layer) -> None:
        self._layer = layer
        self.path = folder / f"{layer.diff_id.hex[:_NAME_DIGITS]}-{layer.digest.hex[:_NAME_DIGITS]}.part"
        self.resumed = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the file where the context ends because the rest does not come, and in no other case."""
        try:
            yield
        except (DigestMismatchError, ImageError, OSError):  # wrong bytes, or no room for them
            self.path.unlink(missing_ok=True)
            raise
        self.path.unlink(missing_ok=True)

    def pieces(self, source: ImageSource, deadline: Deadline) -> Iterator[bytes]:
        """The blob: what the file has of it, then what the source delivers, which is added to the file.

        :raises RegistryError: see :meth:`pytest_bootc.source.ImageSource.open_blob`.
        """
        with self.path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size > self._layer.size:
                size = file.truncate(0)
            self.resumed = size > 0
            file.seek(0)
            while piece := file.read(CHUNK):
                yield piece
            if size < self._layer.size:
                for piece in source.open_blob(self._layer.digest, deadline, size):
                    file.write(piece)
                    file.flush()
                    yield piece
