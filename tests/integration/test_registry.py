"""Images in a real registry, and in servers that misbehave in ways that a real one cannot be made to."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.cache import Cache
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.errors import ConfigError, DigestMismatchError, ImageError, ImageReferenceError, RegistryError
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.model import ResolvedImage
from pytest_bootc.progress import Silent
from pytest_bootc.source import CHUNK, ImageSource, source_for

pytestmark = pytest.mark.integration

TARS = [b"1" * 512, b"2" * (3 * CHUNK), b"3" * 1024]


def opened(text: str) -> tuple[ImageReference, ImageSource]:
    reference = ImageReference.parse(text)
    return reference, source_for(reference)


def resolve(text: str, architecture: str = "amd64", seconds: float = 10) -> ResolvedImage:
    reference, source = opened(text)
    return source.resolve(reference, Deadline.after(seconds), architecture)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_by_tag_and_by_digest(registry, oci_layout, tmp_path):
    described = oci_layout.image(*TARS, compression="+zstd")
    name = registry.push(oci_layout.path, described, "some/server", "v1")
    repository = name.removesuffix(":v1")

    for text in (name, f"docker://{name}", f"{repository}@{described['digest']}", f"{name}@{described['digest']}"):
        image = resolve(text)
        assert str(image.digest) == described["digest"]
        assert image.labels == {"made": "by hand"}
    reference, source = opened(name)
    image = source.resolve(reference, Deadline.after(10))
    stored = LayerStore(Cache(tmp_path / "cache")).obtain(image, source, Deadline.after(10), Silent())
    assert [layer.path.read_bytes() for layer in stored] == TARS


def test_an_index(registry, oci_layout):
    amd, arm = oci_layout.image(TARS[0]), oci_layout.image(*TARS, config_architecture="arm64")
    entries = [
        entry | {"platform": {"architecture": name, "os": "linux"}} for entry, name in ((amd, "amd64"), (arm, "arm64"))
    ]
    name = registry.push(oci_layout.path, oci_layout.manifest_list(*entries), "index", "v1")

    assert str(resolve(name).digest) == amd["digest"]
    assert str(resolve(name, "arm64").digest) == arm["digest"]
    with pytest.raises(ImageReferenceError, match="the image is made for amd64, arm64; this machine runs s390x"):
        resolve(name, "s390x")


def test_docker_media_types(registry, oci_layout):
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.loads(oci_layout.file(oci_layout.image(TARS[0])).read_text())
    manifest["mediaType"] = docker
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    name = registry.push(oci_layout.path, oci_layout.json(manifest, docker), "docker", "v1")
    assert resolve(name).layers[0].media_type.endswith("tar.gzip")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("compression", ["", "+gzip", "+zstd"])
def test_a_blob_that_was_tampered_with(registry, oci_layout, tmp_path, compression):
    described = oci_layout.image(TARS[0], b"%" + compression.encode() + TARS[1], compression=compression)
    name = registry.push(oci_layout.path, described, f"tampered{compression.strip('+')}", "v1")
    reference, source = opened(name)
    image = source.resolve(reference, Deadline.after(10))
    cache = Cache(tmp_path / "cache")
    before = everything(tmp_path)
    victim = image.layers[1].digest
    flip(registry.file(str(victim)))

    with pytest.raises(DigestMismatchError) as caught:
        LayerStore(cache).obtain(image, source, Deadline.after(10), Silent())

    assert f"blob {victim} has other content" in caught.value.brief
    stored = everything(tmp_path) - before
    assert not any(image.layers[1].diff_id.hex in path for path in stored)
    assert not any("building" in path or "lock" in path for path in stored)


def test_a_manifest_that_was_tampered_with(registry, oci_layout):
    described = oci_layout.image(b"m" * 512)
    name = registry.push(oci_layout.path, described, "manifest", "v1")
    assert resolve(name)
    path = registry.file(described["digest"])
    path.write_bytes(path.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion":  2'))
    with pytest.raises(DigestMismatchError, match=f"(?s)the manifest of {name}.*expected {described['digest']}"):
        resolve(name)


def test_a_configuration_that_was_tampered_with(registry, oci_layout):
    described = oci_layout.image(b"c" * 512)
    name = registry.push(oci_layout.path, described, "configuration", "v1")
    config = json.loads(oci_layout.file(described).read_text())["config"]["digest"]
    flip(registry.file(config))
    with pytest.raises(DigestMismatchError, match=f"(?s)the configuration of {name}.*expected {config}"):
        resolve(name)


def test_a_blob_that_became_shorter_or_vanished(registry, oci_layout, tmp_path):
    name = registry.push(oci_layout.path, oci_layout.image(b"v" * 4096, compression=""), "short", "v1")
    reference, source = opened(name)
    image = source.resolve(reference, Deadline.after(10))
    store = LayerStore(Cache(tmp_path / "cache"))
    path = registry.file(str(image.layers[0].digest))

    path.write_bytes(b"v" * 1000)
    with pytest.raises(RegistryError, match=r"(?s)is truncated.*1000 of 4096 bytes arrived"):
        store.obtain(image, source, Deadline.after(10), Silent())
    path.unlink()
    with pytest.raises(RegistryError, match=f"did not deliver blobs/{image.layers[0].digest}") as caught:
        store.obtain(image, source, Deadline.after(10), Silent())
    assert "404" in caught.value.details


def test_names_that_are_not_there(registry, oci_layout):
    name = registry.push(oci_layout.path, oci_layout.image(TARS[0]), "there", "v1")
    for text, missing in (
        (name.replace(":v1", ":v2"), "there is no v2 in"),
        (f"{registry.host}/nowhere:v1", "there is no v1 in"),
        (f"{registry.host}/there@{Digest.of(b'')}", f"there is no {Digest.of(b'')} in"),
    ):
        with pytest.raises(ImageReferenceError, match=missing) as caught:
            resolve(text)
        assert "404" in caught.value.details


def test_an_artifact_is_no_image(registry, oci_layout):
    config = oci_layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
    name = registry.push(oci_layout.path, oci_layout.image(TARS[0], config=config), "artifact", "v1")
    with pytest.raises(ImageReferenceError, match="is not a container image"):
        resolve(name)


def test_a_registry_that_wants_a_login(login_registry):
    started = time.monotonic()
    with pytest.raises(ConfigError, match="does not let us read") as caught:
        resolve(f"{login_registry.host}/a:v1")
    assert f"podman login {login_registry.host}" in caught.value.resolution
    assert "we came without a login; there is none in " in caught.value.details
    assert time.monotonic() - started < 3


def test_nobody_listens():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(RegistryError, match=f"the registry {host} cannot be reached") as caught:
            resolve(f"{host}/a:v1", seconds=60)
    assert "refused" in caught.value.details
    assert time.monotonic() - started < 3


def test_no_proxy_stands_before_the_loopback(registry, oci_layout, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert resolve(registry.push(oci_layout.path, oci_layout.image(TARS[0]), "proxied", "v1"))


class Answers(BaseHTTPRequestHandler):
    """Answers as the test's function says, and keeps what was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.server.answer(self)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def misbehaving() -> Iterator[Callable]:
    """Start a server; its host and what it is asked come back."""
    servers = []

    def start(answer: Callable[[Answers], None]) -> tuple[str, list[tuple[str, str | None]]]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.daemon_threads = True
        server.answer, server.asked = answer, []
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"127.0.0.1:{server.server_port}", server.asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def from_layout(layout, request: Answers, tag: str) -> None:
    """What a registry would answer."""
    kind, name = request.path.rsplit("/", 2)[1:]
    digest = tag if kind == "manifests" and not name.startswith("sha256:") else name
    request.reply(200, (layout.blobs / digest.partition(":")[2]).read_bytes())


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_has_to_be_asked_again(misbehaving, oci_layout, status):
    described = oci_layout.image(TARS[0])
    failures = iter([status, status])

    def answer(request):
        failing = next(failures, None)
        if failing is None:
            from_layout(oci_layout, request, described["digest"])
        else:
            request.reply(failing, b"busy")

    host, asked = misbehaving(answer)
    assert str(resolve(f"{host}/a:v1").digest) == described["digest"]
    assert [path for path, _ in asked][:3] == ["/v2/a/manifests/v1"] * 3


def test_a_registry_that_stays_broken(misbehaving):
    host, asked = misbehaving(lambda request: request.reply(503, b"out of order"))
    started = time.monotonic()
    with pytest.raises(RegistryError, match="did not deliver manifests/v1") as caught:
        resolve(f"{host}/a:v1")
    assert "503 Service Unavailable\nout of order" in caught.value.details
    assert len(asked) == 3
    assert time.monotonic() - started < 3


def test_a_registry_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(RegistryError, match=f"{host} does not answer"):
            resolve(f"{host}/a:v1", seconds=0.5)
    assert time.monotonic() - started < 2


def test_a_trickle_does_not_outlast_the_deadline(misbehaving):
    def answer(request):
        request.reply(200, Content_Length="1000000")
        for _ in range(200):
            try:
                request.wfile.write(b"{")
            except OSError:  # it was given up
                return
            time.sleep(0.05)

    host, _ = misbehaving(answer)
    started = time.monotonic()
    with pytest.raises(RegistryError, match=r"took more than 0\.5 s"):
        resolve(f"{host}/a:v1", seconds=0.5)
    assert time.monotonic() - started < 3


def test_a_connection_that_breaks(misbehaving, oci_layout, tmp_path):
    described = oci_layout.image(b"b" * 100_000, compression="")

    def answer(request):
        if "/blobs/" in request.path and request.path.endswith(str(Digest.of(b"b" * 100_000))):
            request.reply(200, b"b" * 50_000, Content_Length="100000")
            request.close_connection = True
        else:
            from_layout(oci_layout, request, described["digest"])

    host, _ = misbehaving(answer)
    reference, source = opened(f"{host}/a:v1")
    image = source.resolve(reference, Deadline.after(5))
    with pytest.raises(RegistryError, match=r"the connection broke|is truncated"):
        LayerStore(Cache(tmp_path)).obtain(image, source, Deadline.after(5), Silent())


def test_a_registry_that_lies_about_a_digest(misbehaving, oci_layout):
    described, lie = oci_layout.image(TARS[0]), str(Digest.of(b"lie"))
    raw = oci_layout.file(described).read_bytes()
    host, _ = misbehaving(lambda request: request.reply(200, raw, Docker_Content_Digest=lie))
    with pytest.raises(DigestMismatchError, match=f"(?s)expected {lie}.*got      {described['digest']}"):
        resolve(f"{host}/a:v1")
    with pytest.raises(DigestMismatchError, match=f"(?s)expected {Digest.of(b'x')}"):
        resolve(f"{host}/a@{Digest.of(b'x')}")

    host, _ = misbehaving(lambda request: request.reply(200, raw, Docker_Content_Digest="junk"))
    with pytest.raises(RegistryError, match="says that 'junk' is a digest"):
        resolve(f"{host}/a:v1")


def test_answers_that_are_no_manifest(misbehaving):
    host, _ = misbehaving(lambda request: request.reply(200, b"<html>"))
    with pytest.raises(RegistryError, match="is not JSON"):
        resolve(f"{host}/a:v1")
    host, _ = misbehaving(lambda request: request.reply(200, b"{}"))
    with pytest.raises(ImageError, match="neither a manifest nor an index"):
        resolve(f"{host}/a:v1")
    host, _ = misbehaving(lambda request: request.reply(200, b" " * ((4 << 20) + 1)))
    with pytest.raises(RegistryError, match="more than 4194304 bytes"):
        resolve(f"{host}/a:v1")
    host, _ = misbehaving(lambda request: request.reply(302, Location=request.path))
    with pytest.raises(RegistryError, match="answers oddly"):
        resolve(f"{host}/a:v1")


def test_a_configuration_that_is_longer_than_declared(misbehaving, oci_layout):
    described = oci_layout.image(TARS[0])
    size = json.loads(oci_layout.file(described).read_text())["config"]["size"]

    def answer(request):
        if "/blobs/" in request.path:
            request.reply(200, b" " * (size + 1))
        else:
            from_layout(oci_layout, request, described["digest"])

    host, _ = misbehaving(answer)
    with pytest.raises(RegistryError, match=f"has more than {size} bytes"):
        resolve(f"{host}/a:v1")


def test_nothing_is_compressed_for_the_way(misbehaving, oci_layout):
    described = oci_layout.image(TARS[0])

    def answer(request):
        if "gzip" in request.headers.get("Accept-Encoding", "gzip"):
            request.reply(200, gzip.compress(oci_layout.file(described).read_bytes()), Content_Encoding="gzip")
        else:
            from_layout(oci_layout, request, described["digest"])

    host, _ = misbehaving(answer)
    assert str(resolve(f"{host}/a:v1").digest) == described["digest"]


def test_a_token_for_what_everybody_may_read(misbehaving, oci_layout):
    """The challenge that public images on most large registries are behind; a token that has expired is renewed."""
    described = oci_layout.image(TARS[0])
    valid = ["first"]

    def answer(request):
        if request.path.startswith("/token"):
            assert "service=test" in request.path
            request.reply(200, json.dumps({"token": valid[-1]}).encode())
        elif request.headers.get("Authorization") == f"Bearer {valid[-1]}":
            from_layout(oci_layout, request, described["digest"])
        else:
            challenge = f'Bearer realm="http://{host}/token",service="test",scope="repository:a:pull"'
            request.reply(401, b"", Www_Authenticate=challenge)

    host, asked = misbehaving(answer)
    reference, source = opened(f"{host}/a:v1")
    image = source.resolve(reference, Deadline.after(5))
    assert len([path for path, _ in asked if path.startswith("/token")]) == 1

    valid.append("second")
    packed = b"".join(source.open_blob(image.layers[0].digest, Deadline.after(5)))
    assert Digest.of(packed) == image.layers[0].digest
    assert asked[-1][1] == "Bearer second"


def test_a_token_that_nobody_gets(misbehaving):
    def answer(request):
        if request.path.startswith("/token"):
            request.reply(403, b"{}")
        else:
            challenge = f'Bearer realm="http://{host}/token",service="test"'
            request.reply(401, b"secret thing" * 100, Www_Authenticate=challenge)

    host, _ = misbehaving(answer)
    with pytest.raises(ConfigError, match="does not let us read") as caught:
        resolve(f"{host}/a:v1")
    assert "401 Unauthorized\nsecret thingsecret thing" in caught.value.details
    assert len(caught.value.details) < 1000
