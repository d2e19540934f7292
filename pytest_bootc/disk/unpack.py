"""One layer blob on its way to a file: counted, hashed, decompressed, limited, hashed again."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import zstandard

from pytest_bootc.errors import DigestMismatchError, ImageError, RegistryError
from pytest_bootc.model import Layer

_GIB = 1 << 30
#: An image may not unpack to more than this many bytes.
IMAGE_LIMIT = 64 * _GIB
#: A layer of more than :data:`RATIO_FROM` bytes may not be this many times larger than its blob.
RATIO_LIMIT = 1000
RATIO_FROM = 1 * _GIB

_PIECE = 1 << 20
_FEED = 64 << 10  # what a decompressor is given at once: it bounds what one call can do
_WINDOW = 128 << 20  # of zstd; what `zstd --long=27` makes
_BLOCK = 512
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


class Budget:
    """How much the layers of one image may still unpack to; shared by the threads that do it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._lock = threading.Lock()

    def spend(self, size: int) -> None:
        """Take so many bytes.

        :raises ImageError: there are no more.
        """
        with self._lock:
            self._left -= size
            if self._left < 0:
                raise ImageError(
                    f"the image unpacks to more than {self._limit // _GIB} GiB",
                    resolution="if it is no decompression bomb, make the image smaller",
                )


class Blob:
    """The bytes of a layer as they are transported; never more of them than the manifest declares.

    ``watch`` is called between the pieces with their sizes, and raises to give up.
    """

    def __init__(self, layer: Layer, pieces: Iterator[bytes], watch: Callable[[int], None]) -> None:
        self.layer = layer
        self.count = 0
        self._pieces = pieces
        self._watch = watch
        self._digest = hashlib.new(layer.digest.algorithm)
        self._piece = memoryview(b"")

    def read(self, size: int = _FEED) -> bytes:
        """At most so many of the next bytes; none at the end.

        :raises RegistryError: there are more than declared.
        """
        if not self._piece:
            self._take()
        part, self._piece = self._piece[:size], self._piece[size:]
        return bytes(part)

    def _take(self) -> None:
        piece = next(self._pieces, b"")
        self._watch(len(piece))
        self.count += len(piece)
        if self.count > self.layer.size:
            raise RegistryError(
                f"blob {self.layer.digest} is longer than the {self.layer.size} bytes that its manifest declares"
            )
        self._digest.update(piece)
        self._piece = memoryview(piece)

    def verify(self) -> None:
        """Read what is left, and compare with the digest.

        :raises RegistryError: the blob is too short.
        :raises DigestMismatchError: it is another.
        """
        self._piece = memoryview(b"")
        while self.read(_PIECE):
            pass
        wanted = self.layer.digest
        if self.count < self.layer.size:
            raise RegistryError(
                f"blob {wanted} is truncated", details=f"{self.count} of {self.layer.size} bytes arrived"
            )
        if self._digest.hexdigest() != wanted.hex:
            raise DigestMismatchError(
                f"blob {wanted} has other content than its digest says",
                details=f"expected {wanted}\ngot      {wanted.algorithm}:{self._digest.hexdigest()}",
                resolution="fetch or push the image again: what is stored there is damaged or was tampered with",
            )


def unpack(blob: Blob, path: Path, budget: Budget) -> int:
    """Write the layer's tar to a new file, padded to whole blocks of 512 bytes; return the tar's size.

    :raises DigestMismatchError: the blob is another than was asked for.
    :raises RegistryError: it is too long or too short.
    :raises ImageError: it is no valid stream, unpacks to too much, or to something else than the image says.
    """
    layer = blob.layer
    digest = hashlib.new(layer.diff_id.algorithm)
    size = 0
    with path.open("xb") as file:
        try:
            for piece in _decompressed(blob):
                size += len(piece)
                budget.spend(len(piece))
                if size > RATIO_FROM and size > RATIO_LIMIT * blob.count:
                    raise _bomb(layer, size, blob.count)
                digest.update(piece)
                file.write(piece)
        except (zlib.error, zstandard.ZstdError, EOFError) as error:
            blob.verify()  # other bytes than were asked for are the better explanation
            raise ImageError(
                f"layer {layer.diff_id} cannot be decompressed", details=f"{layer.digest}: {error}"
            ) from error
        blob.verify()
        file.write(bytes(padded(size) - size))
    if digest.hexdigest() != layer.diff_id.hex:
        raise ImageError(
            f"layer {layer.digest} unpacks to other content than the image's configuration says",
            details=f"expected {layer.diff_id}\ngot      {layer.diff_id.algorithm}:{digest.hexdigest()}",
            resolution="build the image again: its configuration and its layers do not belong together",
        )
    return size


def padded(size: int) -> int:
    """The size rounded up to whole blocks of 512 bytes."""
    return size + -size % _BLOCK


def _bomb(layer: Layer, size: int, count: int) -> ImageError:
    return ImageError(
        f"layer {layer.diff_id} is a decompression bomb",
        details=f"{count} bytes unpacked to {size} bytes and more",
    )


def _decompressed(blob: Blob) -> Iterator[bytes]:
    """The tar, in pieces. The first bytes say how it is compressed: media types are often wrong about that."""
    start = blob.read()
    if start.startswith(_GZIP):
        return _gunzip(start, blob)
    if start.startswith(_ZSTD) or _is_skippable(start):
        return _unzstd(start, blob)
    return _plain(start, blob)


def _is_skippable(start: bytes) -> bool:
    """Whether a zstd skippable frame begins here (RFC 8878, 3.1.2)."""
    return start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50


def _plain(start: bytes, blob: Blob) -> Iterator[bytes]:
    yield start
    while piece := blob.read(_PIECE):
        yield piece


def _gunzip(start: bytes, blob: Blob) -> Iterator[bytes]:
    """All members of a gzip file, one after the other (RFC 1952)."""
    # The whole way of a layer is 1.4 to 1.6 times faster with zlib-ng or isal, which is less than a gigabit network
    # leaves to gain; where the distribution's zlib is zlib-ng (Fedora), it is this one. Programs are no faster:
    # gzip takes twice as long, pigz packs in parallel but does not unpack so, and what they write is hashed here.
    inflate, fed = zlib.decompressobj(wbits=31), start
    while True:
        piece = inflate.decompress(fed, _PIECE)
        if piece:
            yield piece
        if inflate.eof:
            fed = inflate.unused_data or blob.read()
            if not fed:
                return
            inflate = zlib.decompressobj(wbits=31)
            continue
        fed = inflate.unconsumed_tail
        if not fed:
            fed = blob.read()
            if not fed:
                raise EOFError("the gzip stream ends too early")


def _unzstd(start: bytes, blob: Blob) -> Iterator[bytes]:
    """All frames of a zstd file (RFC 8878)."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    feed = cast("IO[bytes]", _Feed(start, blob))  # of a file only read() is used
    with decompressor.stream_reader(feed, read_size=_FEED, read_across_frames=True) as reader:
        while piece := reader.read(_PIECE):
            yield piece


class _Feed:
    """A blob whose first bytes have been looked at already, as a file to read from."""

    def __init__(self, start: bytes, blob: Blob) -> None:
        self._start = start
        self._blob = blob

    def read(self, size: int) -> bytes:
        """At most so many bytes."""
        if self._start:
            part, self._start = self._start[:size], self._start[size:]
            return part
        return self._blob.read(size)
