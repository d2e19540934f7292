"""Being let in by one registry, for one repository: credentials, tokens, and when which of them are shown."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

import requests

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError, RegistryError
from pytest_bootc.registry.body import BROKEN, pieces, reason, without_query
from pytest_bootc.registry.challenge import Challenge
from pytest_bootc.registry.credentials import Credentials, auth_files, find_credentials

_ANSWER_LIMIT = 1 << 20
_LIFETIME, _MARGIN = 60.0, 10.0  # seconds; the first is what a token lives whose server says nothing about that
_DENIED = (401, 403)
_CLIENT = "pytest-bootc"


@dataclass(frozen=True)
class TokenRequest:
    """A request to a token server; ``form`` is sent as its body, and makes it a POST."""

    url: str
    query: Sequence[tuple[str, str]]
    authorization: str = field(default="", repr=False)
    form: Sequence[tuple[str, str]] = field(default=(), repr=False)


#: Sends one, and returns the answer, its body not read yet.
Send = Callable[[TokenRequest, Deadline], requests.Response]


class Login:
    """What is shown to a registry for a repository (``name`` is ``host/path``). For use by several threads.

    Nothing is shown before the registry asks, and credentials are looked for only then. ``plain`` says whether it is
    spoken to without TLS.
    """

    def __init__(self, name: str, send: Send, *, plain: bool) -> None:
        self._name = name
        self._send = send
        self._plain = plain
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._looked = False
        self._header = ""
        self._expires = 0.0

    @property
    def header(self) -> str:
        """The header ``Authorization`` as far as is known by now; empty where none is needed, or it has expired."""
        return self._header if time.monotonic() < self._expires else ""

    def answer(self, challenges: Sequence[Challenge], shown: str, deadline: Deadline) -> str:
        """The header that answers the challenges; empty where there is none. ``shown`` is the one that did not do.

        :raises ConfigError: the credentials cannot be read, or are refused.
        :raises RegistryError: the token server does not deliver.
        """
        with self._lock:
            if self.header not in ("", shown):  # another thread was faster
                return self._header
            if not self._looked:
                self._credentials = find_credentials(self._name, deadline)
                self._looked = True
            for challenge in sorted(challenges, key=lambda challenge: challenge.scheme != "bearer"):
                header, seconds = self._answered(challenge, deadline)
                if header and header != shown:
                    self._header, self._expires = header, time.monotonic() + seconds
                    return header
            return ""

    def told(self) -> str:
        """Who we are to the registry, for an error."""
        if self._credentials is not None:
            who = f"as {self._credentials.username}" if self._credentials.username else "with a token"
            return f"{who}, from {self._credentials.origin}"
        if not self._looked:
            return "without a login, which it did not ask for"
        return f"without a login; there is none in {', '.join(map(str, auth_files()))}"

    def redacted(self, text: str) -> str:
        """The text without what must not be printed."""
        secrets = [] if self._credentials is None else [*self._credentials.secrets]
        for secret in (*secrets, self._header.partition(" ")[2]):
            text = text.replace(secret, "***") if secret else text
        return text

    def _answered(self, challenge: Challenge, deadline: Deadline) -> tuple[str, float]:
        """The header, and for how many seconds it is good."""
        known = self._credentials
        if challenge.scheme == "basic" and known is not None and known.basic:
            return f"Basic {known.basic}", float("inf")
        if challenge.scheme != "bearer":
            return "", 0.0
        if known is not None and known.registry_token:
            return f"Bearer {known.registry_token}", float("inf")
        return self._token(challenge, deadline)

    def _token(self, challenge: Challenge, deadline: Deadline) -> tuple[str, float]:
        request = self._request(challenge)
        with closing(self._send(request, deadline)) as response:
            if response.status_code in _DENIED or (request.form and response.status_code == requests.codes.bad_request):
                if self._credentials is None:
                    return "", 0.0
                raise self._refused(response.status_code, challenge)
            if response.status_code != requests.codes.ok:
                raise self._odd(f"it says {response.status_code} {response.reason}")
            raw = self._body(response, deadline)
        try:
            answer = json.loads(raw)
            token = answer.get("token") or answer["access_token"]
            seconds = float(answer.get("expires_in") or _LIFETIME)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._odd("it gives no token") from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._odd("it gives no token")
        return f"Bearer {token}", max(seconds - _MARGIN, _MARGIN)

    def _body(self, response: requests.Response, deadline: Deadline) -> bytes:
        content = b""
        try:
            for piece in pieces(response, deadline):
                content += piece
                if len(content) > _ANSWER_LIMIT:
                    raise self._odd("its answer is too long")
        except BROKEN as error:
            raise self._odd(f"the connection broke: {reason(error)}") from error
        return content

    def _request(self, challenge: Challenge) -> TokenRequest:
        realm = self._realm(challenge)
        if realm.scheme == "http" and not self._plain:
            raise self._odd("the registry wants tokens to be asked for without TLS")
        scopes = challenge.parameters.get("scope") or f"repository:{self._name.partition('/')[2]}:pull"
        query = [("scope", scope) for scope in scopes.split()]
        if challenge.parameters.get("service"):
            query.insert(0, ("service", challenge.parameters["service"]))
        known = self._credentials
        if known is not None and known.identity_token:
            form = [(key, value) for key, value in query if key != "scope"]
            form += [("grant_type", "refresh_token"), ("client_id", _CLIENT), ("scope", scopes)]
            return TokenRequest(realm.geturl(), (), form=(*form, ("refresh_token", known.identity_token)))
        if known is None or not known.basic:
            return TokenRequest(realm.geturl(), query)
        return TokenRequest(realm.geturl(), (("account", known.username), *query), f"Basic {known.basic}")

    def _realm(self, challenge: Challenge) -> SplitResult:
        try:
            realm = urlsplit(challenge.parameters.get("realm", ""))
        except ValueError:
            realm = urlsplit("")
        if realm.scheme not in ("http", "https") or not realm.hostname:
            raise self._odd("the registry names no address for it")
        return realm

    def _refused(self, status: int, challenge: Challenge) -> ConfigError:
        host = self._name.partition("/")[0]
        return ConfigError(
            f"the registry {host} refuses the login",
            details=f"{self.told()}\n{without_query(challenge.parameters['realm'])}: {status}",
            resolution=f"log in again: podman login {host}",
        )

    def _odd(self, what: str) -> RegistryError:
        return RegistryError(f"no token for {self._name} can be had from its token server", details=what)
