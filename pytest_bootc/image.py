"""Image references and digests: parse, pin, print. Pure: nothing here opens a file or a connection.

References are written as skopeo writes them (containers-transports(5)); the grammar of names, tags and digests is
that of distribution/reference.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from pytest_bootc.errors import ImageReferenceError

_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


@dataclass(frozen=True)
class Digest:
    """The name of a blob by its content: ``sha256:<64 hex digits>`` or ``sha512:<128 hex digits>``."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read a digest.

        :raises ImageReferenceError: unknown algorithm or wrong length.
        """
        if not _DIGEST.fullmatch(text):
            raise ImageReferenceError(
                f"{text!r} is not a digest",
                resolution="write sha256: and 64 hexadecimal digits, or sha512: and 128",
            )
        return cls(text)

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """The sha256 digest of these bytes."""
        return cls(f"sha256:{hashlib.sha256(content).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.text.partition(":")[0]

    @property
    def hex(self) -> str:
        """The hexadecimal part."""
        return self.text.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hexadecimal digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return self.text


class Transport(Enum):
    """Where images come from (containers-transports(5))."""

    REGISTRY = "docker"
    LAYOUT = "oci"
    ARCHIVE = "oci-archive"
    STORAGE = "containers-storage"


@dataclass(frozen=True)
class ImageReference:
    """An image by name: a transport, a registry repository or a path, and at most a tag and a digest."""

    transport: Transport
    name: str
    tag: str | None = None
    digest: Digest | None = None
