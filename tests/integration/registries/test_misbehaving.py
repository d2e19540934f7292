"""Servers that misbehave in ways that a real registry cannot be made to."""

from __future__ import annotations

import gzip
import json
import socket
import time

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.cache import Cache
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.errors import ConfigError, DigestMismatchError, ImageError, RegistryError
from pytest_bootc.image import Digest
from pytest_bootc.progress import Silent

pytestmark = pytest.mark.integration

TARS = [b"1" * 512, b"2" * (3 << 20), b"3" * 1024]


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_has_to_be_asked_again(misbehaving, oci_layout, status, resolve):
    described = oci_layout.image(TARS[0])
    failures = iter([status, status])

    def answer(request):
        failing = next(failures, None)
        if failing is None:
            request.deliver(oci_layout, described)
        else:
            request.reply(failing, b"busy")

    server = misbehaving(answer)
    host, asked = server.host, server.asked
    assert str(resolve(f"{host}/a:v1").digest) == described["digest"]
    assert [path for path, _ in asked][:3] == ["/v2/a/manifests/v1"] * 3


def test_a_registry_that_stays_broken(misbehaving, resolve):
    server = misbehaving(lambda request: request.reply(503, b"out of order"))
    host, asked = server.host, server.asked
    started = time.monotonic()
    with pytest.raises(RegistryError, match="did not deliver manifests/v1") as caught:
        resolve(f"{host}/a:v1")
    assert "503 Service Unavailable\nout of order" in caught.value.details
    assert len(asked) == 3
    assert time.monotonic() - started < 3


def test_a_registry_that_says_nothing(resolve):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(RegistryError, match=f"{host} does not answer"):
            resolve(f"{host}/a:v1", seconds=0.5)
    assert time.monotonic() - started < 2


def test_a_trickle_does_not_outlast_the_deadline(misbehaving, resolve):
    def answer(request):
        request.reply(200, Content_Length="1000000")
        for _ in range(200):
            try:
                request.wfile.write(b"{")
            except OSError:  # it was given up
                return
            time.sleep(0.05)

    host = misbehaving(answer).host
    started = time.monotonic()
    with pytest.raises(RegistryError, match=r"took more than 0\.5 s"):
        resolve(f"{host}/a:v1", seconds=0.5)
    assert time.monotonic() - started < 3


def test_a_connection_that_breaks(misbehaving, oci_layout, tmp_path, opened, resolve):
    described = oci_layout.image(b"b" * 100_000, compression="")

    def answer(request):
        if "/blobs/" in request.path and request.path.endswith(str(Digest.of(b"b" * 100_000))):
            request.reply(200, b"b" * 50_000, Content_Length="100000")
            request.close_connection = True
        else:
            request.deliver(oci_layout, described)

    host = misbehaving(answer).host
    reference, source = opened(f"{host}/a:v1")
    image = source.resolve(reference, Deadline.after(5))
    with pytest.raises(RegistryError, match=r"the connection broke|is truncated"):
        LayerStore(Cache(tmp_path)).obtain(image, source, Deadline.after(5), Silent())


def test_a_registry_that_lies_about_a_digest(misbehaving, oci_layout, resolve):
    described, lie = oci_layout.image(TARS[0]), str(Digest.of(b"lie"))
    raw = oci_layout.file(described).read_bytes()
    host = misbehaving(lambda request: request.reply(200, raw, Docker_Content_Digest=lie)).host
    with pytest.raises(DigestMismatchError, match=f"(?s)expected {lie}.*got      {described['digest']}"):
        resolve(f"{host}/a:v1")
    with pytest.raises(DigestMismatchError, match=f"(?s)expected {Digest.of(b'x')}"):
        resolve(f"{host}/a@{Digest.of(b'x')}")

    host = misbehaving(lambda request: request.reply(200, raw, Docker_Content_Digest="junk")).host
    with pytest.raises(RegistryError, match="says that 'junk' is a digest"):
        resolve(f"{host}/a:v1")


def test_answers_that_are_no_manifest(misbehaving, resolve):
    host = misbehaving(lambda request: request.reply(200, b"<html>")).host
    with pytest.raises(RegistryError, match="is not JSON"):
        resolve(f"{host}/a:v1")
    host = misbehaving(lambda request: request.reply(200, b"{}")).host
    with pytest.raises(ImageError, match="neither a manifest nor an index"):
        resolve(f"{host}/a:v1")
    host = misbehaving(lambda request: request.reply(200, b" " * ((4 << 20) + 1))).host
    with pytest.raises(RegistryError, match="more than 4194304 bytes"):
        resolve(f"{host}/a:v1")
    host = misbehaving(lambda request: request.reply(302, Location=request.path)).host
    with pytest.raises(RegistryError, match="answers oddly"):
        resolve(f"{host}/a:v1")


def test_a_configuration_that_is_longer_than_declared(misbehaving, oci_layout, resolve):
    described = oci_layout.image(TARS[0])
    size = json.loads(oci_layout.file(described).read_text())["config"]["size"]

    def answer(request):
        if "/blobs/" in request.path:
            request.reply(200, b" " * (size + 1))
        else:
            request.deliver(oci_layout, described)

    host = misbehaving(answer).host
    with pytest.raises(RegistryError, match=f"has more than {size} bytes"):
        resolve(f"{host}/a:v1")


def test_nothing_is_compressed_for_the_way(misbehaving, oci_layout, resolve):
    described = oci_layout.image(TARS[0])

    def answer(request):
        if "gzip" in request.headers.get("Accept-Encoding", "gzip"):
            request.reply(200, gzip.compress(oci_layout.file(described).read_bytes()), Content_Encoding="gzip")
        else:
            request.deliver(oci_layout, described)

    host = misbehaving(answer).host
    assert str(resolve(f"{host}/a:v1").digest) == described["digest"]


def test_a_token_for_what_everybody_may_read(misbehaving, oci_layout, opened, resolve):
    """The challenge that public images on most large registries are behind; a token that has expired is renewed."""
    described = oci_layout.image(TARS[0])
    valid = ["first"]

    def answer(request):
        if request.path.startswith("/token"):
            assert "service=test" in request.path
            request.reply(200, json.dumps({"token": valid[-1]}).encode())
        elif request.headers.get("Authorization") == f"Bearer {valid[-1]}":
            request.deliver(oci_layout, described)
        else:
            challenge = f'Bearer realm="http://{host}/token",service="test",scope="repository:a:pull"'
            request.reply(401, b"", Www_Authenticate=challenge)

    server = misbehaving(answer)
    host, asked = server.host, server.asked
    reference, source = opened(f"{host}/a:v1")
    image = source.resolve(reference, Deadline.after(5))
    assert len([path for path, _ in asked if path.startswith("/token")]) == 1

    valid.append("second")
    packed = b"".join(source.open_blob(image.layers[0].digest, Deadline.after(5)))
    assert Digest.of(packed) == image.layers[0].digest
    assert asked[-1][1] == "Bearer second"


def test_a_token_that_nobody_gets(misbehaving, resolve):
    def answer(request):
        if request.path.startswith("/token"):
            request.reply(403, b"{}")
        else:
            challenge = f'Bearer realm="http://{host}/token",service="test"'
            request.reply(401, b"secret thing" * 100, Www_Authenticate=challenge)

    host = misbehaving(answer).host
    with pytest.raises(ConfigError, match="does not let us read") as caught:
        resolve(f"{host}/a:v1")
    assert "401 Unauthorized\nsecret thingsecret thing" in caught.value.details
    assert len(caught.value.details) < 1000
