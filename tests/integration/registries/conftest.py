"""Registries that a user meets: with logins, tokens and TLS, and servers that misbehave as no real one does."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.image import ImageReference
from pytest_bootc.model import ResolvedImage
from pytest_bootc.progress import Silent
from pytest_bootc.source import ImageSource, source_for

SETTINGS = (
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
LIFETIME = datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose settings are all below a folder of the test's."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "registries.conf").touch()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(folder / "registries.conf"))
    return folder


@pytest.fixture
def log_in(home: Path) -> Callable[..., Path]:
    """Write Docker's auth file: a user and a password, or an entry as it is, for each key."""

    def write(**entries: str | dict[str, str]) -> Path:
        path = home / ".docker/config.json"
        path.parent.mkdir(exist_ok=True)
        auths = {
            key: {"auth": base64.b64encode(entry.encode()).decode()} if isinstance(entry, str) else entry
            for key, entry in entries.items()
        }
        path.write_text(json.dumps({"auths": auths}))
        return path

    return write


@pytest.fixture
def opened() -> Callable[[str], tuple[ImageReference, ImageSource]]:
    """A reference and its source."""

    def open_text(text: str) -> tuple[ImageReference, ImageSource]:
        reference = ImageReference.parse(text)
        return reference, source_for(reference)

    return open_text


@pytest.fixture
def resolve() -> Callable[..., ResolvedImage]:
    """Resolve a reference."""

    def run(text: str, architecture: str = "amd64", seconds: float = 10) -> ResolvedImage:
        reference = ImageReference.parse(text)
        return source_for(reference).resolve(reference, Deadline.after(seconds), architecture)

    return run


@pytest.fixture
def pull(tmp_path: Path) -> Callable[..., list[bytes]]:
    """Pull an image as a run does; its layers' tars come back."""

    def run(text: str, seconds: float = 20) -> list[bytes]:
        reference = ImageReference.parse(text)
        source, deadline = source_for(reference), Deadline.after(seconds)
        image = source.resolve(reference, deadline)
        stored = LayerStore(Cache(tmp_path / "cache")).obtain(image, source, deadline, Silent())
        return [layer.path.read_bytes()[: layer.size] for layer in stored]

    return run


class Answers(BaseHTTPRequestHandler):
    """Answers as the test's function says, and keeps what was asked."""

    protocol_version = "HTTP/1.1"
    server: Misbehaving

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.server.answer(self)

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.do_GET()

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def deliver(
        self, layout: Any, described: dict[str, Any], *, ranges: bool = False, until: int | None = None
    ) -> None:
        """What a registry would answer that has this manifest under every tag; the body may be cut off."""
        kind, name = self.path.partition("?")[0].rsplit("/", 2)[1:]
        digest = described["digest"] if kind == "manifests" and not name.startswith("sha256:") else name
        body = (layout.blobs / digest.partition(":")[2]).read_bytes()
        wanted = self.headers.get("Range")
        if ranges and wanted:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            length = str(len(body) - start)
            self.reply(206, body[start : (until or len(body))], Content_Range=span, Content_Length=length)
        else:
            self.reply(200, body[:until], Content_Length=str(len(body)))
        self.close_connection = until is not None

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Misbehaving(ThreadingHTTPServer):
    """A server whose answers a test makes; ``asked`` has the paths, and what was shown to be let in."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Answers], None], pair: KeyPair | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        if pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.certificate_file, pair.key_file)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.answer = answer
        self.asked: list[tuple[str, str | None]] = []
        self.host = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what many tests are about."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def paths(self, part: str) -> list[str]:
        """What was asked of paths with such a part."""
        return [path for path, _ in self.asked if part in path]

    def shown(self) -> set[str]:
        """Everything that was shown to it to be let in."""
        return {shown for _, shown in self.asked if shown is not None}


@pytest.fixture
def misbehaving() -> Iterator[Callable[..., Misbehaving]]:
    """Start servers that answer as a function says, with TLS where they are given a certificate."""
    servers: list[Misbehaving] = []

    def start(answer: Callable[[Answers], None], pair: KeyPair | None = None) -> Misbehaving:
        servers.append(Misbehaving(answer, pair))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class KeyPair:
    """A key and a certificate for it, as files too."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path


@pytest.fixture
def certify(tmp_path: Path) -> Callable[..., KeyPair]:
    """Make certificates for 127.0.0.1, by an authority or, without one, for an authority."""

    def make(name: str, authority: KeyPair | None = None) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority.certificate.subject if authority else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - LIFETIME)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        )
        if authority is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
            builder = builder.add_extension(names, critical=False).add_extension(uses, critical=False)
        certificate = builder.sign(authority.key if authority else key, hashes.SHA256())
        pair = KeyPair(key, certificate, tmp_path / f"{name}.key", tmp_path / f"{name}.cert")
        pair.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        pair.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        return pair

    return make


@pytest.fixture
def htpasswd(tmp_path: Path) -> Callable[[str, str], dict[str, Any]]:
    """The section of docker-registry's configuration that lets a user in by a password."""

    def make(user: str, password: str) -> dict[str, Any]:
        path = tmp_path / "htpasswd"
        path.write_text(f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()}\n")
        return {"htpasswd": {"realm": "test", "path": str(path)}}

    return make


class TokenServer:
    """Signs tokens that docker-registry accepts: for a user, for a refresh token, and for anybody where it is told so.

    ``asked`` has the query or form of each request; tokens are good for ``seconds``.
    """

    service, issuer = "the registry", "the token server"

    def __init__(self, pair: KeyPair, start: Callable[[Callable[[Answers], None]], Misbehaving]) -> None:
        self._pair = pair
        self.users: dict[str, str] = {}
        self.refresh_tokens: set[str] = set()
        self.public: set[str] = set()
        self.seconds = 300
        self.asked: list[dict[str, list[str]]] = []
        self.given: list[str] = []
        self.server = start(self._answer)

    @property
    def auth(self) -> dict[str, Any]:
        """The section of docker-registry's configuration that makes it want these tokens."""
        realm = f"http://{self.server.host}/token"
        bundle = str(self._pair.certificate_file)
        return {"token": {"realm": realm, "service": self.service, "issuer": self.issuer, "rootcertbundle": bundle}}

    def _answer(self, request: Answers) -> None:
        form = parse_qs(request.body if request.command == "POST" else urlsplit(request.path).query)
        self.asked.append(form)
        scopes = [scope for value in form["scope"] for scope in value.split()]
        if not self._lets_in(request, form, scopes):
            request.reply(401, b'{"details": "incorrect username or password"}')
            return
        token = self._token([scope.split(":") for scope in scopes])
        self.given.append(token)
        word = "access_token" if request.command == "POST" else "token"
        request.reply(200, json.dumps({word: token, "expires_in": self.seconds}).encode())

    def _lets_in(self, request: Answers, form: dict[str, list[str]], scopes: list[str]) -> bool:
        if request.command == "POST":
            return form["grant_type"] == ["refresh_token"] and form["refresh_token"][0] in self.refresh_tokens
        shown = request.headers.get("Authorization")
        if shown is None:
            return all(scope.split(":")[1] in self.public for scope in scopes)
        user, _, password = base64.b64decode(shown.removeprefix("Basic ")).decode().partition(":")
        return self.users.get(user) == password and form["account"] == [user]

    def _token(self, scopes: list[list[str]]) -> str:
        now = int(time.time())
        chain = [base64.b64encode(self._pair.certificate.public_bytes(Encoding.DER)).decode()]
        access = [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in scopes]
        claims = {"iss": self.issuer, "sub": "", "aud": self.service, "jti": str(time.monotonic_ns()), "access": access}
        claims |= {"iat": now - 30, "nbf": now - 30, "exp": now + self.seconds}
        signed = f"{_encoded({'typ': 'JWT', 'alg': 'ES256', 'x5c': chain})}.{_encoded(claims)}"
        numbers = decode_dss_signature(self._pair.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_url_safe(b''.join(number.to_bytes(32, 'big') for number in numbers))}"


def _encoded(value: dict[str, Any]) -> str:
    return _url_safe(json.dumps(value).encode())


def _url_safe(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@pytest.fixture
def token_server(certify: Callable[..., KeyPair], misbehaving: Callable[..., Misbehaving]) -> TokenServer:
    return TokenServer(certify("tokens"), misbehaving)
