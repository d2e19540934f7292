"""Images in registries (OCI distribution-spec): the only place that imports oras and its HTTP library.

Of oras its registry class is used for the session and the challenge of a registry that wants a token even for what
everybody may read. Its retries (131 s), its missing timeouts and its unverified downloads are not.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import oras.provider
import requests
import urllib3
from requests.adapters import HTTPAdapter

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ImageReferenceError, RegistryError
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.manifest import ACCEPTED, DOCUMENT_LIMIT, Kind, parse_document, resolve
from pytest_bootc.model import ResolvedImage
from pytest_bootc.progress import Progress
from pytest_bootc.source import CHUNK

_RETRY_PAUSES = (0.2, 0.8)  # seconds
_CONNECT_TIMEOUT, _READ_TIMEOUT = 5.0, 30.0  # seconds, per attempt and per piece
_AGAIN = (429, 500, 502, 503, 504)
_DENIED = (401, 403)
_SHOWN_BODY = 500
_DOCKER_HUB = ("docker.io", "index.docker.io")


class RegistrySource:
    """One repository of a registry as an :class:`~pytest_bootc.source.ImageSource`; nothing is asked before its use.

    Loopback addresses are spoken to in plain HTTP, all others in HTTPS. Nobody logs in: only images that everybody
    may read can be had.
    """

    remote = True

    def __init__(self, reference: ImageReference) -> None:
        self._name = reference.name
        self._base = base_url(reference.name)
        self._provider = _Provider(reference.name.partition("/")[0], plain=self._base.startswith("http:"))

    def resolve(self, reference: ImageReference, deadline: Deadline, architecture: str = "amd64") -> ResolvedImage:
        """See :meth:`pytest_bootc.source.ImageSource.resolve`."""

        def fetch(kind: Kind, digest: Digest, size: int) -> bytes:
            return self._document(f"{kind}/{digest}", min(size, DOCUMENT_LIMIT), deadline)[0]

        wanted = reference.digest or reference.tag
        raw, told = self._document(f"manifests/{wanted}", DOCUMENT_LIMIT, deadline)
        digest = reference.digest or told or Digest.of(raw)
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
        with closing(self._get(f"blobs/{digest}", deadline)) as response:
            for piece in self._pieces(response, deadline):
                skipped = min(offset, len(piece))
                offset -= skipped
                if skipped < len(piece):
                    yield piece[skipped:]

    def _document(self, path: str, limit: int, deadline: Deadline) -> tuple[bytes, Digest | None]:
        """A small document, and its digest by the registry's own word."""
        content = b""
        with closing(self._get(path, deadline)) as response:
            for piece in self._pieces(response, deadline):
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

    def _get(self, path: str, deadline: Deadline) -> requests.Response:
        """A response whose body has not been read yet.

        :raises ImageReferenceError: the registry has no such manifest.
        :raises RegistryError: it answers anything else than with success, or not at all.
        """
        headers = {"Accept": ", ".join(ACCEPTED) if path.startswith("manifests/") else "*/*"}
        headers["Accept-Encoding"] = "identity"  # digests are of what is stored
        url = f"{self._base}/{path}"
        response: requests.Response = self._provider.do_request(url, headers=headers, stream=True, deadline=deadline)
        if response.status_code == requests.codes.ok:
            return response
        with closing(response):
            raise self._failure(response, path, deadline)

    def _failure(
        self, response: requests.Response, path: str, deadline: Deadline
    ) -> RegistryError | ImageReferenceError:
        body = b""
        for piece in self._pieces(response, deadline):
            body += piece
            if len(body) > _SHOWN_BODY:
                break
        details = f"GET {response.url}: {response.status_code} {response.reason}\n"
        details += body[:_SHOWN_BODY].decode(errors="replace").strip()
        if response.status_code in _DENIED:
            return RegistryError(
                f"the registry does not let us read {self._name}",
                details=details,
                resolution="check the name; where it takes a login, copy the image with `skopeo copy` to an OCI layout "
                "and use oci:DIR",
            )
        if response.status_code == requests.codes.not_found and path.startswith("manifests/"):
            return ImageReferenceError(
                f"there is no {path.removeprefix('manifests/')} in {self._name}",
                details=details,
                resolution="check the name and the tag; `skopeo list-tags docker://NAME` lists what there is",
            )
        return RegistryError(f"{self._name}: the registry did not deliver {path}", details=details)

    def _pieces(self, response: requests.Response, deadline: Deadline) -> Iterator[bytes]:
        """The body as it comes in, so that a slow trickle cannot outlast the deadline."""
        try:
            # As it comes, without requests' own decoding: digests are of what is stored.
            while piece := response.raw.read1(CHUNK, decode_content=False):
                yield piece
                if deadline.expired():
                    raise RegistryError(f"{self._name}: {response.url} took more than {deadline.seconds:g} s")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RegistryError(f"{self._name}: the connection broke", details=f"{response.url}: {error}") from error


class _Provider(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """oras's registry with requests that end."""

    session: requests.Session

    def __init__(self, host: str, *, plain: bool) -> None:
        super().__init__(hostname=host, insecure=plain)
        self._login = threading.Lock()
        if plain:  # no proxy stands before a loopback address, and no netrc has a login for it
            self.session.trust_env = False
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _ImpatientAdapter())

    def do_request(self, url: str, method: str = "GET", **options: Any) -> requests.Response:
        """One request with at most two repetitions, all before the ``deadline`` among the options.

        :raises RegistryError: there was no answer.
        """
        deadline: Deadline = options.pop("deadline", None) or Deadline.after(_READ_TIMEOUT)
        headers = options.pop("headers", None) or {}
        pauses = [*_RETRY_PAUSES]
        while True:
            seconds = max(0.001, deadline.remaining())
            options["timeout"] = (min(_CONNECT_TIMEOUT, seconds), min(_READ_TIMEOUT, seconds))
            try:
                response = self._send(url, method, dict(headers), options)
            except requests.Timeout as error:
                raise RegistryError(f"{self.hostname} does not answer", details=f"{method} {url}: {error}") from error
            except requests.ConnectionError as error:
                if not pauses or deadline.expired():
                    raise _unreachable(self.hostname, f"{method} {url}: {error}") from error
            except (requests.RequestException, ValueError) as error:  # oras raises the latter for odd challenges
                raise RegistryError(f"{self.hostname} answers oddly", details=f"{method} {url}: {error}") from error
            else:
                if not pauses or response.status_code not in _AGAIN or deadline.expired():
                    return response
                response.close()
            deadline.pause(pauses.pop(0))

    def _send(self, url: str, method: str, headers: dict[str, str], options: dict[str, Any]) -> requests.Response:
        headers.update(self.auth.get_auth_header())
        response = self.session.request(method, url, headers=headers, verify=self._tls_verify, **options)
        challenge = response.headers.get("Www-Authenticate", "")
        if response.status_code not in _DENIED or not challenge.lower().startswith("bearer"):
            return response
        with self._login:
            # A token that we have may have expired in a long pull.
            headers, changed = self.auth.authenticate_request(response, headers, refresh=True)
        if not changed:
            return response
        response.close()
        return self.session.request(method, url, headers=headers, verify=self._tls_verify, **options)


class _ImpatientAdapter(HTTPAdapter):
    """Gives a timeout to the requests that oras makes by itself, for tokens."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """See :class:`HTTPAdapter`."""
        options["timeout"] = options.get("timeout") or (_CONNECT_TIMEOUT, _READ_TIMEOUT)
        return super().send(request, *arguments, **options)


def _unreachable(host: str, details: str) -> RegistryError:
    return RegistryError(
        f"the registry {host} cannot be reached", details=details, resolution="check the name, the port and the network"
    )


def base_url(name: str) -> str:
    """Where the API for a repository is: ``https://ghcr.io/v2/owner/name``; HTTP for loopback addresses alone."""
    host, _, repository = name.partition("/")
    if host in _DOCKER_HUB:  # the one registry that is called by another name than it has
        repository = repository if "/" in repository else f"library/{repository}"
        return f"https://registry-1.docker.io/v2/{repository}"
    return f"{'http' if _is_loopback(host) else 'https'}://{host}/v2/{repository}"


def _is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine: ``localhost``, 127.0.0.0/8 or ``[::1]``."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
