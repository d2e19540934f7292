"""What an image holds in compressed form: its kernel, and the modules of that.

The libraries return what they have when a stream is cut off; here that is an error, and so is a stream that unpacks
to more than any kernel or module has.
"""

from __future__ import annotations

import lzma
import zlib

import zstandard

LIMIT = 1 << 30
"""The most bytes that a stream may unpack to."""

_FORMATS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"\x5d\0\0": "lzma"}
_LZMA_MEMORY = 512 << 20  # the dictionary of a kernel has 128 MiB at most
_ZSTD_FEED = 4 << 10  # one feed makes 128 MiB at most: a block of four bytes may stand for 128 KiB


class PackedError(Exception):
    """The stream is broken, cut off, too large, or of no format that is read here."""


def unpack(content: bytes) -> bytes:
    """The first stream of a gzip, xz, lzma or zstd file; what follows it is not looked at.

    :raises PackedError: there is none, or not a whole one.
    """
    kind = next((name for magic, name in _FORMATS.items() if content.startswith(magic)), None)
    if kind is None:
        raise PackedError("it is not packed by gzip, xz, lzma or zstd")
    try:
        out, whole = _unzstd(content) if kind == "zstd" else _inflated(content, kind)
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise PackedError(str(error)) from error
    if len(out) > LIMIT:
        raise PackedError(f"it unpacks to more than {LIMIT >> 20} MiB")
    if not whole:
        raise PackedError(f"the {kind} stream is cut off")
    return out


def _inflated(content: bytes, kind: str) -> tuple[bytes, bool]:
    if kind == "gzip":
        inflate = zlib.decompressobj(wbits=31)
        return inflate.decompress(content, LIMIT + 1), inflate.eof
    decompressor = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    return decompressor.decompress(content, LIMIT + 1), decompressor.eof


def _unzstd(content: bytes) -> tuple[bytes, bool]:
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    pieces: list[bytes] = []
    size = 0
    for at in range(0, len(content), _ZSTD_FEED):
        pieces.append(decompressor.decompress(content[at : at + _ZSTD_FEED]))
        size += len(pieces[-1])
        if decompressor.eof or size > LIMIT:
            break
    return b"".join(pieces), decompressor.eof
