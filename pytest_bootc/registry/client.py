"""Requests to one registry: each ends before a deadline, is repeated a few times, and shows secrets to nobody else."""

from __future__ import annotations

import email.utils
import ipaddress
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

import oras.provider
import requests
from requests import codes

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import RegistryError
from pytest_bootc.image import DOCKER_HUB
from pytest_bootc.registry.body import reason, without_query
from pytest_bootc.registry.bounded import before
from pytest_bootc.registry.challenge import Challenge, parse_challenges
from pytest_bootc.registry.configuration import Place
from pytest_bootc.registry.login import Login, TokenRequest
from pytest_bootc.registry.tls import Adapter, certificate_folder, make_context

#: How long is waited before what has failed is tried again, in seconds.
RETRY_PAUSES = (0.2, 0.8)
#: The answers of a registry that does not let us read.
DENIED = (codes.unauthorized, codes.forbidden)
_CONNECT_TIMEOUT, _READ_TIMEOUT = 5.0, 30.0  # seconds, per attempt and per piece
_AGAIN = (codes.too_many_requests, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)
_HOPS = 5
_TOKEN_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_HUB_API = "registry-1.docker.io"


class Client(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """oras's registry with requests that end, for one repository.

    Loopback addresses are spoken to in plain HTTP, unless there are certificates for them or they are called insecure;
    all others in HTTPS, which insecure ones may lack.
    """

    session: requests.Session

    def __init__(self, place: Place) -> None:
        folder = certificate_folder(place.host)
        plain = is_loopback(place.host) and folder is None and not place.insecure
        super().__init__(hostname=place.host, insecure=plain)
        self.place = place
        self._api = _HUB_API if place.host == DOCKER_HUB else place.host
        self._scheme = "http" if plain else "" if place.insecure else "https"
        self._lock = threading.Lock()
        self.login = Login(place.name, self._ask_for_token, plain=plain or place.insecure)
        cookies, self.session = self.session.cookies, _Session()
        self.session.cookies = cookies  # oras lets none in
        self.session.trust_env = not is_loopback(place.host)  # no proxy stands before those
        self.session.mount("https://", Adapter(make_context))
        if folder is not None or place.insecure:
            own = partial(make_context, folder, verified=not place.insecure)
            self.session.mount(f"https://{self._api}/", Adapter(own))

    def base(self, deadline: Deadline) -> str:
        """Where the API for the repository is: ``https://ghcr.io/v2/owner/name``."""
        with self._lock:
            if not self._scheme:
                self._scheme = self._found_scheme(deadline)
        return f"{self._scheme}://{self._api}/v2/{self.place.name.partition('/')[2]}"

    def get(self, path: str, deadline: Deadline, headers: Mapping[str, str]) -> requests.Response:
        """The answer to a request below :meth:`base`, its body not read yet; whatever its status is.

        :raises ConfigError: the credentials cannot be read, or are refused.
        :raises RegistryError: there was no answer.
        """
        response: requests.Response = self.do_request(
            f"{self.base(deadline)}/{path}", headers=dict(headers), stream=True, deadline=deadline
        )
        return response

    def do_request(self, url: str, method: str = "GET", **options: Any) -> requests.Response:
        """One request with at most two repetitions, all before the ``deadline`` among the options.

        :raises ConfigError: the credentials cannot be read, or are refused.
        :raises RegistryError: there was no answer.
        """
        deadline: Deadline = options.pop("deadline", None) or Deadline.after(_READ_TIMEOUT)
        pauses = [*RETRY_PAUSES]
        while True:
            try:
                response = self._let_in(method, url, options, deadline)
            except requests.Timeout as error:
                raise RegistryError(f"{self.hostname} does not answer", details=_told(method, url, error)) from error
            except requests.exceptions.SSLError as error:
                raise _untrusted(str(self.hostname), _told(method, url, error)) from error
            except requests.ConnectionError as error:
                if not pauses or deadline.expired():
                    raise _unreachable(str(self.hostname), _told(method, url, error)) from error
                pause = pauses.pop(0)
            except (requests.RequestException, ValueError) as error:  # the latter of addresses that are none
                raise RegistryError(f"{self.hostname} answers oddly", details=_told(method, url, error)) from error
            else:
                if response.status_code not in _AGAIN or not pauses:
                    return response
                pause = max(pauses.pop(0), _retry_after(response))
                if pause >= deadline.remaining():
                    return response
                response.close()
            deadline.pause(pause)

    def _let_in(self, method: str, url: str, options: dict[str, Any], deadline: Deadline) -> requests.Response:
        """The answer to one request, repeated once with what the registry wants to be shown."""
        shown = self.login.header
        response = self._follow(method, url, options, shown, deadline)
        if response.status_code not in DENIED or urlsplit(response.url).netloc != urlsplit(url).netloc:
            return response
        with ExitStack() as unless_returned:
            unless_returned.callback(response.close)
            challenges = parse_challenges(response.headers.get("Www-Authenticate", ""))
            if not challenges and response.status_code == codes.unauthorized:
                challenges = self._general_challenges(url, deadline)
            header = self.login.answer(challenges, shown, deadline)
            if not header:
                unless_returned.pop_all()
                return response
        return self._follow(method, url, options, header, deadline)

    def _follow(
        self, method: str, url: str, options: dict[str, Any], authorization: str, deadline: Deadline
    ) -> requests.Response:
        """The answer to one request, wherever it leads; another host is not shown what is for this one."""
        headers = {**(options.get("headers") or {})}
        if authorization:
            headers["Authorization"] = authorization
        for _ in range(_HOPS):
            response = self._send(method, url, {**options, "headers": headers}, deadline)
            target = response.headers.get("Location")
            if response.status_code not in _MOVED or not target or method not in ("GET", "HEAD"):
                return response
            response.close()
            there = urljoin(url, target)
            here, next_one = urlsplit(url), urlsplit(there)
            if next_one.scheme not in ("http", "https") or (here.scheme, next_one.scheme) == ("https", "http"):
                raise requests.exceptions.InvalidURL(f"it leads to a {next_one.scheme or 'broken'} address")
            if (here.scheme, here.netloc) != (next_one.scheme, next_one.netloc):
                headers.pop("Authorization", None)
            url = there
        raise requests.TooManyRedirects(f"it leads on more than {_HOPS} times")

    def _send(self, method: str, url: str, options: dict[str, Any], deadline: Deadline) -> requests.Response:
        seconds = max(0.001, deadline.remaining())
        timeout = min(_CONNECT_TIMEOUT, seconds), min(_READ_TIMEOUT, seconds)
        send = partial(self.session.request, method, url, **options, timeout=timeout, auth=_as_it_is)
        return before(deadline, send)

    def _ask_for_token(self, request: TokenRequest, deadline: Deadline) -> requests.Response:
        options: dict[str, Any] = {"stream": True, "headers": _TOKEN_HEADERS}
        if request.form:
            return self._send("POST", request.url, options | {"data": list(request.form)}, deadline)
        return self._follow(
            "GET", request.url, options | {"params": list(request.query)}, request.authorization, deadline
        )

    def _general_challenges(self, url: str, deadline: Deadline) -> tuple[Challenge, ...]:
        """What the registry wants to be shown in general: some say so nowhere else."""
        parts = urlsplit(url)
        response = self._send("GET", f"{parts.scheme}://{parts.netloc}/v2/", {"stream": True}, deadline)
        response.close()
        return parse_challenges(response.headers.get("Www-Authenticate", ""))

    def _found_scheme(self, deadline: Deadline) -> str:
        try:
            self._send("GET", f"https://{self._api}/v2/", {"stream": True}, deadline).close()
        except (requests.RequestException, ValueError):
            return "http"
        return "https"


class _Session(requests.Session):
    """A session that follows nowhere: requests would read the whole body of an answer that leads elsewhere."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """See :class:`requests.Session`."""
        return None


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine: ``localhost``, 127.0.0.0/8 or ``[::1]``."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from adding logins that ~/.netrc has for a host."""
    return request


def _retry_after(response: requests.Response) -> float:
    """How many seconds the registry wants to be left alone (RFC 9110, 10.2.3)."""
    said = response.headers.get("Retry-After", "")
    if said.isascii() and said.isdecimal():
        return float(said)
    moment = email.utils.parsedate_to_datetime(said).timestamp() if _is_date(said) else 0.0
    return max(0.0, moment - time.time())


def _is_date(text: str) -> bool:
    return email.utils.parsedate(text) is not None


def _told(method: str, url: str, error: Exception) -> str:
    return f"{method} {without_query(url)}: {reason(error)}"


def _unreachable(host: str, details: str) -> RegistryError:
    return RegistryError(
        f"the registry {host} cannot be reached", details=details, resolution="check the name, the port and the network"
    )


def _untrusted(host: str, details: str) -> RegistryError:
    return RegistryError(
        f"no TLS connection to {host} that can be trusted",
        details=details,
        resolution=f"put the certificate of its authority into /etc/containers/certs.d/{host}/ca.crt, or name it in "
        f"SSL_CERT_FILE; a registry without TLS takes `insecure = true` in registries.conf",
    )
