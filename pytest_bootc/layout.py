"""Images in OCI layouts on this host: folders (``oci:``) and tar files of them (``oci-archive:``), read in place."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn, Protocol

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ImageReferenceError, RegistryError
from pytest_bootc.image import Digest, ImageReference, Transport
from pytest_bootc.manifest import (
    DOCUMENT_LIMIT,
    Kind,
    declared,
    descriptors,
    parse_document,
    parse_json,
    resolve,
)
from pytest_bootc.model import ResolvedImage
from pytest_bootc.progress import Progress
from pytest_bootc.source import CHUNK

_REF_NAME = "org.opencontainers.image.ref.name"
_VERSION = "1.0.0"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}


class LayoutSource:
    """A layout folder or archive as an :class:`~pytest_bootc.source.ImageSource`.

    :raises ImageReferenceError: there is nothing at that path.
    :raises RegistryError: what is there is no layout.
    """

    remote = False

    def __init__(self, reference: ImageReference) -> None:
        self._path = Path(reference.name)
        self._store: _Store = (_Archive if reference.transport is Transport.ARCHIVE else _Folder)(self._path)
        version = self._json("oci-layout").get("imageLayoutVersion")
        if version != _VERSION:
            raise RegistryError(f"{self._path} is an OCI layout of version {version!r}; {_VERSION} is known here")

    def resolve(self, reference: ImageReference, deadline: Deadline, architecture: str = "amd64") -> ResolvedImage:
        """See :meth:`pytest_bootc.source.ImageSource.resolve`."""

        def fetch(_: Kind, digest: Digest, size: int) -> bytes:
            return self._document(_blob_name(digest), size)

        digest, size = self._find(reference)
        raw = self._document(_blob_name(digest), size)
        root = parse_document(raw, digest, f"the manifest of {reference}")
        return resolve(reference, root, architecture, fetch)

    @contextmanager
    def opened(
        self, image: ResolvedImage, scratch: Path, deadline: Deadline, progress: Progress
    ) -> Iterator[ResolvedImage]:
        """See :meth:`pytest_bootc.source.ImageSource.opened`."""
        yield image

    def open_blob(self, digest: Digest, deadline: Deadline, offset: int = 0) -> Iterator[bytes]:
        """See :meth:`pytest_bootc.source.ImageSource.open_blob`."""
        name = _blob_name(digest)
        with self._store.open(name) as (file, size):
            left = max(0, size - offset)
            file.seek(size - left, os.SEEK_CUR)
            while left:
                if deadline.expired():
                    raise RegistryError(f"reading {name} of {self._path} took more than {deadline.seconds:g} s")
                piece = self._read(file, min(CHUNK, left), name)
                if not piece:
                    raise RegistryError(
                        f"{self._path} ends in the middle of {name}", details=f"{left} of {size} bytes are missing"
                    )
                left -= len(piece)
                yield piece

    def _find(self, reference: ImageReference) -> tuple[Digest, int | None]:
        """The descriptor in index.json that the reference means."""
        if reference.digest is not None:
            return reference.digest, None
        entries = descriptors(self._json("index.json"), "manifests", f"index.json of {self._path}")
        tags = [tag for entry in entries if (tag := _tag(entry)) is not None]
        if reference.tag is not None:
            entries = [entry for entry in entries if _tag(entry) == reference.tag]
        if len(entries) == 1:
            return declared(entries[0], str(reference))
        listed = f"its tags are {', '.join(sorted(tags))}" if tags else "it has no tags"
        if not entries:
            what = "holds no image" if reference.tag is None else f"has no image with the tag {reference.tag!r}"
            raise ImageReferenceError(f"{self._path} {what}", details=listed)
        which = "" if reference.tag is None else f" with the tag {reference.tag!r}"
        raise ImageReferenceError(
            f"{self._path} holds {len(entries)} images{which}",
            details=listed,
            resolution=f"name one: {reference.transport.value}:{self._path}:TAG, or @sha256:... at the end",
        )

    def _json(self, name: str) -> Mapping[str, object]:
        return parse_json(self._document(name, None), f"{name} of {self._path}")

    def _document(self, name: str, size: int | None) -> bytes:
        with self._store.open(name) as (file, length):
            if length > DOCUMENT_LIMIT:
                raise RegistryError(f"{name} of {self._path} has {length} bytes; {DOCUMENT_LIMIT} are the limit")
            if size is not None and length != size:
                raise RegistryError(f"{name} of {self._path} has {length} bytes instead of {size}")
            return self._read(file, length, name)

    def _read(self, file: IO[bytes], size: int, name: str) -> bytes:
        try:
            return file.read(size)
        except OSError as error:
            raise RegistryError(f"{name} of {self._path} cannot be read: {error.strerror}") from error


class _Store(Protocol):
    """The files of a layout by their names in it."""

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        """An open file that stands at the first byte, and how many bytes are the file's."""


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            raise ImageReferenceError(f"there is no folder {path}")
        if not path.is_dir():
            raise ImageReferenceError(
                f"{path} is no folder", resolution=f"for a tar file of a layout write oci-archive:{path}"
            )

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        """See :class:`_Store`."""
        path = self._path / name
        try:
            size, file = path.stat().st_size, path.open("rb")
        except FileNotFoundError as error:
            raise _absent(self._path, name) from error
        except OSError as error:
            raise RegistryError(f"{path} cannot be read: {error.strerror}") from error
        with file:
            yield file, size


class _Archive:
    """Only the headers are read, once; blobs are then read where they lie."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, tuple[int, int]] = {}
        if path.is_dir():
            raise ImageReferenceError(f"{path} is a folder", resolution=f"for a layout folder write oci:{path}")
        with self._open() as file:
            self._refuse_compressed(file)
            self._index(file)

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        """See :class:`_Store`."""
        if name not in self._members:
            raise _absent(self._path, name)
        offset, size = self._members[name]
        with self._open() as file:
            file.seek(offset)
            yield file, size

    def _open(self) -> IO[bytes]:
        try:
            return self._path.open("rb")
        except FileNotFoundError as error:
            raise ImageReferenceError(f"there is no file {self._path}") from error
        except OSError as error:
            raise RegistryError(f"{self._path} cannot be read: {error.strerror}") from error

    def _refuse_compressed(self, file: IO[bytes]) -> None:
        start = file.read(8)
        file.seek(0)
        for magic, program in _COMPRESSED.items():
            if start.startswith(magic):
                raise ImageReferenceError(
                    f"{self._path} is compressed as a whole, so its blobs cannot be read in place",
                    resolution=f"unpack it with {program} -d, and name the .tar file",
                )

    def _index(self, file: IO[bytes]) -> None:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.isreg():
                        self._members[member.name.removeprefix("./")] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            _no_archive(self._path, error)


def _no_archive(path: Path, error: Exception) -> NoReturn:
    raise RegistryError(f"{path} is no tar file, or a truncated one", details=str(error)) from error


def _absent(path: Path, name: str) -> RegistryError:
    if name in ("oci-layout", "index.json"):
        return RegistryError(
            f"{path} is no OCI layout: it has no {name}",
            resolution="write one with `skopeo copy ... oci:DIR:TAG` or `podman save --format oci-dir`",
        )
    return RegistryError(f"{path} is incomplete: it has no {name}", resolution="write the layout again")


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _tag(descriptor: Mapping[str, object]) -> str | None:
    annotations = descriptor.get("annotations")
    tag = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
    return tag if isinstance(tag, str) else None
