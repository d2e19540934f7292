"""The members of a tar file, as its headers and extended headers describe them.

Formats: ustar and PAX (POSIX.1-2017, pax), GNU long names and base-256 numbers. The file is later indexed by another
program, which has ideas of its own about broken tars; so whatever is not unambiguous is refused here.
Written for speed: images have half a million members.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, NoReturn

from pytest_bootc.errors import ImageError

_BLOCK = 512
_WINDOW = 8 * _BLOCK  # what is read at once: small files lie close to each other
_EXTENSION_LIMIT = 4 << 20
_GLOBAL, _PAX = 0x67, 0x78  # g, x
_LONG_NAMES = {0x4C: b"path", 0x4B: b"linkpath"}  # GNU's L, K
_EXTENSIONS = frozenset({_GLOBAL, _PAX, *_LONG_NAMES})
_ADLER_MODULUS = 65521
# With an end: some readers would read on into the next field.
_OCTAL = re.compile(rb" *([0-7]*)[ \0]+")
_DECIMAL = re.compile(rb"\d{1,19}")
# What a global header must not say of every member after it.
_SAYS_SOMETHING = re.compile(rb"(path|linkpath|size|uid|gid|mtime|(SCHILY|LIBARCHIVE)\.xattr\..*|GNU\..*)", re.DOTALL)

Records = Mapping[bytes, bytes]


class Member(NamedTuple):
    """One member: its name, the type flag and the whole header block, where its data is, and its PAX records.

    GNU long names are among the records under the keys that PAX has for them.
    """

    name: bytes
    flag: int
    header: bytes
    offset: int
    size: int
    records: Records


class Refusals:
    """Says no, naming the layer and the member that is being looked at."""

    def __init__(self, layer: str) -> None:
        self._layer = layer
        #: The name of the member, as the tar has it.
        self.member = b""

    def refuse_next(self, what: str) -> NoReturn:
        """Refuse what comes after the member, and has no name of its own yet."""
        self.refuse(f"is followed by {what}" if self.member else f"begins with {what}")

    def refuse(self, why: str, resolution: str = "") -> NoReturn:
        """Always raise :class:`~pytest_bootc.errors.ImageError`."""
        name = self.member.decode("utf-8", "surrogateescape").lstrip("/")
        sentence = f"layer {self._layer}: /{name} {why}" if self.member else f"layer {self._layer} {why}"
        if not sentence.isprintable():  # control characters and halves of surrogates must not reach a terminal
            sentence = sentence.encode("unicode_escape").decode("ascii")
        raise ImageError(
            sentence, resolution=resolution or "build the layer again with a current tool; as it is it is not used"
        )


class Members:
    """Reads the members of an open tar file of ``length`` bytes.

    :raises ImageError: (while iterating) the tar is truncated, malformed or ambiguous.
    """

    def __init__(self, descriptor: int, length: int, refusals: Refusals) -> None:
        self._descriptor = descriptor
        self._length = length
        self._window = b""
        self._window_at = 0
        self._refusals = refusals
        self._refuse = refusals.refuse
        self._refuse_next = refusals.refuse_next

    def __iter__(self) -> Iterator[Member]:
        offset = 0
        records: dict[bytes, bytes] = {}
        while True:
            header = self._block(offset) if offset < self._length else b""
            if not header or header[0] == 0:
                self._end(header, offset, records)
                return
            self._check(header)
            data = offset + _BLOCK
            if header[156] in _EXTENSIONS:
                size = self.number(header[124:136])
                offset = self._after(data, size)
                self._extend(records, header[156], data, size)
                continue
            name = self._name(header, records)
            size = self.number(header[124:136])
            if records:
                size = self.decimal(records, b"size", size)
            offset = self._after(data, size)
            yield Member(name, header[156], header, data, size, records)
            records = {}

    def _block(self, offset: int) -> bytes:
        at = offset - self._window_at
        if not 0 <= at <= len(self._window) - _BLOCK:
            self._window, self._window_at, at = os.pread(self._descriptor, _WINDOW, offset), offset, 0
        return self._window[at : at + _BLOCK]

    def number(self, field: bytes) -> int:
        """A number of a header: octal digits, or GNU's base 256 (never negative)."""
        number = parsed(field)
        if number is None:
            self._refuse(f"has a number in its header that cannot be read: {field!r}")
        return number

    def decimal(self, records: Records, key: bytes, otherwise: int) -> int:
        """The number that a PAX record gives, or ``otherwise``."""
        text = records.get(key)
        if text is None:
            return otherwise
        if not _DECIMAL.fullmatch(text):
            self._refuse(f"has a PAX header with a bad {key.decode()}")
        return int(text)

    def _check(self, header: bytes) -> None:
        if len(header) < _BLOCK:
            self._refuse("is truncated: it ends within a header")
        # The lower half of an Adler-32 is the sum of all bytes plus one, modulo 65521, and is made at the speed of C.
        if zlib.adler32(header) & 0xFFFF != self._wanted_sum(header[148:156]):
            self._refuse_next("a header with a wrong checksum")
        if header[257:262] != b"ustar":
            self._refuse_next("a header that is neither ustar, PAX nor GNU")

    def _wanted_sum(self, field: bytes) -> int:
        """What Adler-32 makes of a header that says this of the sum of its bytes, the field itself taken for spaces."""
        wanted = _wanted_sum(field)
        return self.number(field) if wanted is None else wanted

    def _end(self, header: bytes, offset: int, records: Records) -> None:
        """Two blocks of zeros, or the end of the file between two members."""
        if records:
            self._refuse("is truncated: it ends after an extended header")
        if header.strip(b"\0"):
            self._refuse_next("a header without a name")
        if os.pread(self._descriptor, _BLOCK, offset + _BLOCK).strip(b"\0"):
            self._refuse_next("a single block of zeros with more members after it")

    def _after(self, data: int, size: int) -> int:
        """Where the next header is."""
        if data + size > self._length:
            self._refuse(f"is truncated: {data + size - self._length} bytes are missing")
        return data + (size + _BLOCK - 1) // _BLOCK * _BLOCK

    def _name(self, header: bytes, records: Records) -> bytes:
        name = records.get(b"path")
        if name is None:
            name = header[: header.index(0) if header[99] == 0 else 100]
            if header[345]:
                if header[262]:  # old GNU tar keeps times in the place of ustar's prefix
                    self._refuse_next("a member of an incremental GNU archive")
                name = header[345:500].partition(b"\0")[0].rstrip(b"/") + b"/" + name
        self._refusals.member = name
        if not name or b"\0" in name:
            self._refuse("has an empty name, or a NUL in it")
        return name

    def _extend(self, records: dict[bytes, bytes], flag: int, data: int, size: int) -> None:
        """Take in what an extended header says of the next member."""
        if size > _EXTENSION_LIMIT:
            self._refuse_next(f"an extended header of {size} bytes")
        content = os.pread(self._descriptor, size, data)
        key = _LONG_NAMES.get(flag)
        found = self._parse(content) if key is None else {key: content.partition(b"\0")[0]}
        if flag == _GLOBAL:
            if any(_SAYS_SOMETHING.fullmatch(name) for name in found):
                self._refuse_next("a global header about names, sizes or owners")
            return
        if found.keys() & records.keys():
            self._refuse_next("two extended headers for one member that contradict each other")
        records.update(found)

    def _parse(self, content: bytes) -> dict[bytes, bytes]:
        """The records ``LENGTH KEY=VALUE\\n`` of a PAX header; of two with one key the last counts."""
        records: dict[bytes, bytes] = {}
        at = 0
        while at < len(content):
            length, _, _ = content[at : at + 20].partition(b" ")
            end = at + int(length) if _DECIMAL.fullmatch(length) else 0
            key, equals, value = content[at + len(length) + 1 : end - 1].partition(b"=")
            if not at < end <= len(content) or content[end - 1] != 0x0A or not (key and equals):
                self._refuse_next("a malformed PAX header")
            records[key] = value
            at = end
        return records


@lru_cache(maxsize=4096)
def parsed(field: bytes) -> int | None:
    """A number of a header, see :meth:`Members.number`; ``None`` where it cannot be read."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    return None if match is None else int(match[1] or b"0", 8)


@lru_cache(maxsize=4096)
def _wanted_sum(field: bytes) -> int | None:
    told = parsed(field)
    return None if told is None else (told + sum(field) - len(field) * 0x20 + 1) % _ADLER_MODULUS
