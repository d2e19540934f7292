"""Images in registries (OCI distribution-spec), wherever registries.conf says that they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import requests
from requests import codes

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BootcTestError, ConfigError, ImageReferenceError, RegistryError
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.manifest import ACCEPTED, DOCUMENT_LIMIT, Kind, parse_document, resolve
from pytest_bootc.model import ResolvedImage
from pytest_bootc.progress import Progress
from pytest_bootc.registry.body import BROKEN, pieces, reason, without_query
from pytest_bootc.registry.client import DENIED, RETRY_PAUSES, Client
from pytest_bootc.registry.configuration import Place, places

T = TypeVar("T")

_SHOWN_BODY = 500
_HEADWAY = 1 << 20  # bytes; whoever delivers so many between two interruptions may be interrupted again
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")
_AS_STORED = {"Accept-Encoding": "identity"}  # digests are of what is stored


class RegistrySource:
    """One repository of a registry, and its mirrors, as an :class:`~pytest_bootc.source.ImageSource`.

    Nothing is asked before its use. Where one place fails, the next is tried; the one that delivered the manifest is
    asked first for blobs.

    :raises ConfigError: registries.conf cannot be read, or blocks the name.
    """

    remote = True

    def __init__(self, reference: ImageReference) -> None:
        self._repositories = [_Repository(place) for place in places(reference)]

    def resolve(self, reference: ImageReference, deadline: Deadline, architecture: str = "amd64") -> ResolvedImage:
        """See :meth:`pytest_bootc.source.ImageSource.resolve`."""

        def attempt(repository: _Repository) -> ResolvedImage:
            return repository.resolve(reference, deadline, architecture)

        return self._first(attempt)

    @contextmanager
    def opened(
        self, image: ResolvedImage, scratch: Path, deadline: Deadline, progress: Progress
    ) -> Iterator[ResolvedImage]:
        """See :meth:`pytest_bootc.source.ImageSource.opened`."""
        yield image

    def open_blob(self, digest: Digest, deadline: Deadline, offset: int = 0) -> Iterator[bytes]:
        """See :meth:`pytest_bootc.source.ImageSource.open_blob`."""
        failures: list[BootcTestError] = []
        for repository in tuple(self._repositories):
            try:
                for piece in repository.blob(digest, deadline, offset):
                    offset += len(piece)
                    yield piece
            except BootcTestError as error:
                failures.append(error)
            else:
                return
        raise _all_failed(failures)

    def _first(self, attempt: Callable[[_Repository], T]) -> T:
        failures: list[BootcTestError] = []
        for repository in tuple(self._repositories):
            try:
                result = attempt(repository)
            except BootcTestError as error:
                failures.append(error)
                continue
            self._repositories.remove(repository)
            self._repositories.insert(0, repository)
            return result
        raise _all_failed(failures)


def _all_failed(failures: list[BootcTestError]) -> BootcTestError:
    """The failure of the last place, which is the registry itself; it tells what the mirrors said."""
    *mirrors, last = failures
    lines = [last.details, *(f"a mirror before it: {error.brief}" for error in mirrors)]
    failure = type(last)(last.brief, details="\n".join(filter(None, lines)), resolution=last.resolution)
    failure.__cause__ = last.__cause__
    return failure


class _Repository:
    """A repository in one place."""

    def __init__(self, place: Place) -> None:
        self._name = place.name
        self._client = Client(place)

    def resolve(self, reference: ImageReference, deadline: Deadline, architecture: str) -> ResolvedImage:
        def fetch(kind: Kind, digest: Digest, size: int) -> bytes:
            return self._document(f"{kind}/{digest}", min(size, DOCUMENT_LIMIT), deadline)[0]

        wanted = reference.digest or reference.tag
        raw, told = self._document(f"manifests/{wanted}", DOCUMENT_LIMIT, deadline)
        digest = reference.digest or told or Digest.of(raw)
        root = parse_document(raw, digest, f"the manifest of {reference}")
        return resolve(reference, root, architecture, fetch)

    def blob(self, digest: Digest, deadline: Deadline, offset: int) -> Iterator[bytes]:
        """The bytes from ``offset`` on; where the connection breaks, a new one goes on."""
        pauses, fresh = [*RETRY_PAUSES], 0
        while True:
            try:
                for piece in self._rest(f"blobs/{digest}", deadline, offset):
                    offset += len(piece)
                    fresh += len(piece)
                    yield piece
            except BROKEN as error:
                if fresh >= _HEADWAY:
                    pauses, fresh = [*RETRY_PAUSES], 0
                if not pauses or deadline.expired():
                    raise RegistryError(
                        f"{self._name}: the connection broke", details=f"blob {digest}, byte {offset}: {reason(error)}"
                    ) from error
                deadline.pause(pauses.pop(0))
            else:
                return

    def _rest(self, path: str, deadline: Deadline, offset: int) -> Iterator[bytes]:
        headers = _AS_STORED | ({"Range": f"bytes={offset}-"} if offset else {})
        with closing(self._get(path, deadline, headers)) as response:
            if response.status_code == codes.partial_content:
                start = _RANGE.match(response.headers.get("Content-Range", ""))
                if start is None or int(start[1]) != offset:
                    raise RegistryError(f"{self._name}: the registry delivered another part of {path} than asked for")
                offset = 0
            for piece in pieces(response, deadline):
                # A registry that knows no ranges begins anew.
                skipped = min(offset, len(piece))
                offset -= skipped
                if skipped < len(piece):
                    yield piece[skipped:]

    def _document(self, path: str, limit: int, deadline: Deadline) -> tuple[bytes, Digest | None]:
        """A small document, and its digest by the registry's own word."""
        pauses = [*RETRY_PAUSES]
        while True:
            try:
                return self._read_document(path, limit, deadline)
            except BROKEN as error:
                if not pauses or deadline.expired():
                    raise RegistryError(
                        f"{self._name}: the connection broke", details=f"{path}: {reason(error)}"
                    ) from error
                deadline.pause(pauses.pop(0))

    def _read_document(self, path: str, limit: int, deadline: Deadline) -> tuple[bytes, Digest | None]:
        accepted = ", ".join(ACCEPTED) if path.startswith("manifests/") else "*/*"
        content = b""
        with closing(self._get(path, deadline, _AS_STORED | {"Accept": accepted})) as response:
            for piece in pieces(response, deadline):
                content += piece
                if len(content) > limit:
                    raise RegistryError(f"{self._name}: {path} has more than {limit} bytes")
            told = response.headers.get("Docker-Content-Digest")
        return content, None if told is None else self._told(told)

    def _told(self, told: str) -> Digest:
        try:
            return Digest.parse(told)
        except ImageReferenceError as error:
            raise RegistryError(f"{self._name}: the registry says that {told!r} is a digest") from error

    def _get(self, path: str, deadline: Deadline, headers: dict[str, str]) -> requests.Response:
        """A good answer, its body not read yet.

        :raises ImageReferenceError: the registry has no such manifest.
        :raises ConfigError: it does not let us read it.
        :raises RegistryError: it answers anything else than with success, or not at all.
        """
        response = self._client.get(path, deadline, headers)
        if response.status_code in (codes.ok, codes.partial_content):
            return response
        with closing(response):
            raise self._failure(response, path, deadline)

    def _failure(self, response: requests.Response, path: str, deadline: Deadline) -> BootcTestError:
        details = f"GET {without_query(response.url)}: {response.status_code} {response.reason}\n"
        details += self._client.login.redacted(self._shown_body(response, deadline))
        missing = response.status_code == codes.not_found
        if response.status_code in DENIED and response.url.startswith(self._client.base(deadline)):
            return ConfigError(
                f"the registry does not let us read {self._name}",
                details=f"{details}\nwe came {self._client.login.told()}",
                resolution=f"check the name; log in with `podman login {self._client.place.host}` where it takes one",
            )
        if missing and path.startswith("manifests/"):
            return ImageReferenceError(
                f"there is no {path.removeprefix('manifests/')} in {self._name}",
                details=details,
                resolution="check the name and the tag; `skopeo list-tags docker://NAME` lists what there is",
            )
        resolution = ""
        if response.status_code == codes.too_many_requests:
            wait = response.headers.get("Retry-After", "")
            resolution = f"log in, or try again later{f' (it says: {wait})' if wait else ''}; a mirror may help"
        return RegistryError(
            f"{self._name}: the registry did not deliver {path}", details=details, resolution=resolution
        )

    def _shown_body(self, response: requests.Response, deadline: Deadline) -> str:
        body = b""
        try:
            for piece in pieces(response, deadline):
                body += piece
                if len(body) > _SHOWN_BODY:
                    break
        except BROKEN as error:
            return f"{body.decode(errors='replace')} ({reason(error)})"
        return body[:_SHOWN_BODY].decode(errors="replace").strip()
