"""Image references and digests: parse, pin, print. Pure: nothing here opens a file or a connection.

References are written as skopeo writes them (containers-transports(5)); the grammar of names, tags and digests is
that of distribution/reference.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import PurePath

from pytest_bootc.errors import ImageReferenceError

_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")
_PATH_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_LAYOUT_PART = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_LAYOUT_TAG = re.compile(rf"{_LAYOUT_PART}(?:/{_LAYOUT_PART})*")
_STORE = re.compile(r"\[((?:[a-z0-9]+@)?/[^\[\]+:]*(?:\+/[^\[\]+:]*)?(?::[^\[\]]*)?)\]")
_NAME_LIMIT = 255
_DEFAULT_TAG = "latest"
#: The registry that images without one are usually from.
DOCKER_HUB = "docker.io"
_OTHER_TRANSPORTS = frozenset({"dir", "docker-archive", "docker-daemon", "ostree", "sif", "tarball", "atomic"})
_EXAMPLE = "ghcr.io/owner/name:tag"


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
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

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
    """An image by name: a transport, a registry repository or a path, and at most a tag and a digest.

    ``name`` is ``host/path`` for a registry, the path as it was written for a layout or an archive. Where both a
    tag and a digest are given, the digest says which image it is, and the tag is for people. ``store`` says where a
    container engine's storage is, as ``[DRIVER@]ROOT[+RUNROOT][:OPTIONS]``, where it is not the usual one.
    """

    transport: Transport
    name: str
    tag: str | None = None
    digest: Digest | None = None
    store: str = ""

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Read a reference as skopeo would.

        ``HOST/PATH[:TAG][@DIGEST]`` (with or without ``docker://`` before it; the tag is ``latest`` where neither
        is given), ``oci:FOLDER[:TAG]``, ``oci-archive:FILE[:TAG]`` (both also with ``@DIGEST`` at the end, which is
        how a pinned one is printed), ``containers-storage:[[STORE]]NAME[:TAG][@DIGEST]``.

        :raises ImageReferenceError: it does not follow the grammar; the error says where.
        """
        if not text.strip():
            raise ImageReferenceError("the image reference is empty", resolution=f"write for example {_EXAMPLE}")
        if text != text.strip() or any(ord(character) < 32 for character in text):
            raise ImageReferenceError(
                f"the image reference {text!r} has white space around it or control characters in it"
            )
        word, colon, rest = text.partition(":")
        if colon and word in (Transport.LAYOUT.value, Transport.ARCHIVE.value):
            return _parse_path(Transport(word), rest, text)
        if colon and word == Transport.STORAGE.value:
            return _parse_storage(rest, text)
        if colon and word == Transport.REGISTRY.value:
            if not rest.startswith("//"):
                raise ImageReferenceError(f"{text!r} lacks two slashes", resolution=f"write docker://{rest}")
            return _parse_registry(rest.removeprefix("//"), text)
        if colon and (word in _OTHER_TRANSPORTS or rest.startswith("//")):
            known = ", ".join(transport.value for transport in Transport)
            raise ImageReferenceError(
                f"{text!r} has the transport {word!r}, which cannot be read here",
                resolution=f"use one of {known}, or leave the transport out for a registry",
            )
        return _parse_registry(text, text)

    @property
    def short(self) -> str:
        """The last part of the name with the tag, for people and test ids: ``bluefin:testing``."""
        base = PurePath(self.name).name or self.name
        if self.tag is not None:
            return f"{base}:{self.tag}"
        return base if self.digest is None else f"{base}@{self.digest.short}"

    def pinned(self, digest: Digest) -> ImageReference:
        """The same reference, fixed to the image of this digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        text = f"[{self.store}]{self.name}{tag}{digest}" if self.store else f"{self.name}{tag}{digest}"
        if self.transport is not Transport.REGISTRY:
            return f"{self.transport.value}:{text}"
        # A host may be called like a transport: oci:5000/name.
        word = text.partition(":")[0]
        taken = word in _OTHER_TRANSPORTS or word in {transport.value for transport in Transport}
        return f"docker://{text}" if taken else text


def _parse_registry(rest: str, text: str) -> ImageReference:
    reference = _parse_name(Transport.REGISTRY, rest, text)
    host, slash, _ = reference.name.partition("/")
    if not slash or not (host == "localhost" or any(mark in host for mark in ".:[")):
        raise ImageReferenceError(
            f"{text!r} does not say which registry it is in",
            details="podman would try each of the unqualified-search-registries of registries.conf, and take whichever "
            "has the name; what is judged must not depend on that",
            resolution=f"write it out in full, for example docker.io/library/{rest}",
        )
    if reference.tag is None and reference.digest is None:
        return replace(reference, tag=_DEFAULT_TAG)
    return reference


def _parse_storage(rest: str, text: str) -> ImageReference:
    """``[DRIVER@ROOT+RUNROOT:OPTIONS]NAME``, of which only NAME has to be there."""
    store = _STORE.match(rest)
    if store is not None:
        rest = rest[store.end() :]
    elif rest.startswith("["):
        raise ImageReferenceError(
            f"{text!r} does not say well where the storage is",
            resolution="write containers-storage:[DRIVER@/ROOT+/RUNROOT]NAME, or leave the brackets out",
        )
    parsed = _parse_name(Transport.STORAGE, rest, text)
    return parsed if store is None else replace(parsed, store=store[1])


def _parse_name(transport: Transport, rest: str, text: str) -> ImageReference:
    """``[HOST/]PATH[:TAG][@DIGEST]`` by the grammar of distribution/reference."""
    whole, at, digest = rest.partition("@")
    name, colon, tag = whole.rpartition(":")
    if not colon or "/" in tag:  # the colon belongs to a port, or there is none
        name, colon, tag = whole, "", ""
    if colon and not _TAG.fullmatch(tag):
        raise ImageReferenceError(
            f"{text!r} has a bad tag {tag!r}",
            resolution="a tag has at most 128 letters, digits, '_', '.' and '-', and begins with none of the last two",
        )
    _check_name(name, text)
    return ImageReference(transport, name, tag if colon else None, Digest.parse(digest) if at else None)


def _check_name(name: str, text: str) -> None:
    host, slash, path = name.partition("/")
    if not slash or not (host in ("localhost",) or any(mark in host for mark in ".:[")):
        host, path = "", name
    if host and not _HOST.fullmatch(host):
        raise ImageReferenceError(f"{text!r} has a bad registry host {host!r}")
    if len(name) > _NAME_LIMIT:
        raise ImageReferenceError(f"{text!r} has a name of {len(name)} characters; the limit is {_NAME_LIMIT}")
    for part in path.split("/"):
        if _PATH_PART.fullmatch(part):
            continue
        if not part:
            raise ImageReferenceError(f"{text!r} has an empty part in its name", resolution=f"write it like {_EXAMPLE}")
        if part != part.lower():
            raise ImageReferenceError(f"{text!r} has upper-case letters in its repository", resolution="use lower case")
        raise ImageReferenceError(
            f"{text!r} has a bad part {part!r} in its name",
            resolution="use lower-case letters and digits, with single '.', '_', '__' or '-' between them",
        )


def _parse_path(transport: Transport, rest: str, text: str) -> ImageReference:
    """``PATH[:TAG][@DIGEST]``; as with skopeo the first colon ends the path."""
    digest = None
    before, at, after = rest.rpartition("@")
    if at and _DIGEST.fullmatch(after):
        rest, digest = before, Digest(after)
    path, colon, tag = rest.partition(":")
    if not path:
        raise ImageReferenceError(
            f"{text!r} names no path", resolution=f"write {transport.value}:PATH or {transport.value}:PATH:TAG"
        )
    if colon and not _LAYOUT_TAG.fullmatch(tag):
        raise ImageReferenceError(
            f"{text!r} has a bad tag {tag!r}",
            details="the first colon ends the path, so a path with a colon in it cannot be named",
        )
    return ImageReference(transport, path, tag if colon else None, digest)
