"""Servers that misbehave in ways that a real registry cannot be made to."""

from __future__ import annotations

import datetime
import email.utils
import gzip
import json
import random
import socket
import threading
import time

import pytest

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
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


def test_a_registry_that_asks_for_patience_gets_it(misbehaving, oci_layout, resolve):
    described = oci_layout.image(TARS[0])
    moments = []

    def answer(request):
        moments.append(time.monotonic())
        if len(moments) == 1:
            request.reply(429, b"slow down", Retry_After="2")
        elif len(moments) == 2:
            moment = email.utils.format_datetime(datetime.datetime.now(datetime.UTC), usegmt=True)
            request.reply(503, b"slow down", Retry_After=moment)
        else:
            request.deliver(oci_layout, described)

    host = misbehaving(answer).host
    assert str(resolve(f"{host}/a:v1").digest) == described["digest"]
    assert moments[1] - moments[0] >= 2
    assert 0.8 <= moments[2] - moments[1] < 2  # what has passed asks for no more than the usual


@pytest.mark.parametrize("said", ["3600", "Thu, 31 Dec 2099 23:59:59 GMT"])
def test_patience_ends_with_the_deadline(misbehaving, resolve, said):
    server = misbehaving(lambda request: request.reply(429, b"too many", Retry_After=said))
    began = time.monotonic()
    with pytest.raises(RegistryError, match="did not deliver manifests/v1") as caught:
        resolve(f"{server.host}/a:v1", seconds=5)
    assert time.monotonic() - began < 2
    assert len(server.asked) == 1
    assert "429 Too Many Requests\ntoo many" in caught.value.details
    assert caught.value.resolution == f"log in, or try again later (it says: {said}); a mirror may help"


@pytest.mark.parametrize("said", ["-1", "soon", "١", "99999999999999999999999", "Thu, 99 Xyz 2099 99:99:99 GMT"])
def test_odd_words_about_patience(misbehaving, resolve, said):
    server = misbehaving(lambda request: request.reply(503, Retry_After=said.encode().decode("latin-1")))
    with pytest.raises(RegistryError, match="did not deliver"):
        resolve(f"{server.host}/a:v1", seconds=5)
    assert 1 <= len(server.asked) <= 3


BLOB = random.Random(3).randbytes(6 << 20)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_gone_on_with(misbehaving, oci_layout, pull, ranges):
    described = oci_layout.image(BLOB, compression="")
    ends = [2 << 20, 3 << 20, (3 << 20) + 5, None]

    def answer(request):
        until = ends.pop(0) if str(Digest.of(BLOB)) in request.path else None
        wanted.append(request.headers.get("Range"))
        request.deliver(oci_layout, described, ranges=ranges, until=until)

    wanted: list[str | None] = []
    host = misbehaving(answer).host
    assert pull(f"{host}/a:v1") == [BLOB]
    assert wanted[2:] == [None, f"bytes={2 << 20}-", f"bytes={3 << 20}-", f"bytes={(3 << 20) + 5}-"]


def test_a_connection_that_breaks_without_headway(misbehaving, oci_layout, pull, tmp_path):
    described = oci_layout.image(BLOB, compression="")

    def answer(request):
        until = 1000 if str(Digest.of(BLOB)) in request.path else None
        request.deliver(oci_layout, described, ranges=True, until=until)

    server = misbehaving(answer)
    with pytest.raises(RegistryError, match=f"{server.host}/a: the connection broke") as caught:
        pull(f"{server.host}/a:v1")
    assert f"blob {Digest.of(BLOB)}, byte 1000" in caught.value.details
    assert len(server.paths(str(Digest.of(BLOB)))) == 3
    (part,) = (tmp_path / "cache/downloads/v1").iterdir()
    assert part.read_bytes() == BLOB[:1000]


def test_a_later_run_asks_for_the_rest_alone(misbehaving, oci_layout, pull):
    described = oci_layout.image(BLOB, compression="")
    broken = [True]

    def answer(request):
        until = 1 << 20 if broken and str(Digest.of(BLOB)) in request.path else None
        wanted.append(request.headers.get("Range"))
        request.deliver(oci_layout, described, ranges=True, until=until)

    wanted: list[str | None] = []
    host = misbehaving(answer).host
    with pytest.raises(RegistryError):
        pull(f"{host}/a:v1")
    broken.clear()
    wanted.clear()
    assert pull(f"{host}/a:v1") == [BLOB]
    assert wanted == [None, None, f"bytes={1 << 20}-"]


@pytest.mark.parametrize("span", ["bytes 0-9/10", "bytes 5-9/10", "pages 1-2", ""])
def test_another_part_than_was_asked_for(misbehaving, oci_layout, pull, span):
    described = oci_layout.image(BLOB, compression="")

    def answer(request):
        if request.headers.get("Range"):
            request.reply(206, b"x" * 10, Content_Range=span)
        else:
            request.deliver(oci_layout, described, until=1000 if str(Digest.of(BLOB)) in request.path else None)

    host = misbehaving(answer).host
    with pytest.raises(RegistryError, match="delivered another part of blobs/"):
        pull(f"{host}/a:v1")


def test_a_manifest_that_is_cut_off(misbehaving, oci_layout, resolve):
    described = oci_layout.image(TARS[0])
    ends = [10, 20, None, None]
    server = misbehaving(lambda request: request.deliver(oci_layout, described, until=ends.pop(0)))
    assert str(resolve(f"{server.host}/a:v1").digest) == described["digest"]
    server = misbehaving(lambda request: request.deliver(oci_layout, described, until=10))
    with pytest.raises(RegistryError, match="the connection broke"):
        resolve(f"{server.host}/a:v1")
    assert len(server.asked) == 3


def test_wrong_bytes_of_the_right_length(misbehaving, oci_layout, pull, tmp_path):
    described = oci_layout.image(BLOB, compression="")

    def answer(request):
        if str(Digest.of(BLOB)) in request.path:
            request.reply(200, BLOB[:-1] + b"?")
        else:
            request.deliver(oci_layout, described)

    host = misbehaving(answer).host
    with pytest.raises(DigestMismatchError, match=f"blob {Digest.of(BLOB)} has other content"):
        pull(f"{host}/a:v1")
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "did not deliver"),
        ("ftp://127.0.0.1/a", "it leads to a ftp address"),
        ("file:///etc/passwd", "it leads to a file address"),
        ("/v2/a/manifests/v1", "it leads on more than 5 times"),
        ("http://[", "answers oddly"),
        ("http://", "answers oddly"),
    ],
)
def test_redirections_to_nowhere(misbehaving, resolve, location, message):
    host = misbehaving(lambda request: request.reply(302, Location=location)).host
    with pytest.raises(RegistryError) as caught:
        resolve(f"{host}/a:v1")
    assert message in str(caught.value)


def test_two_servers_that_lead_to_each_other(misbehaving, resolve):
    others: list[str] = []
    first = misbehaving(lambda request: request.reply(307, Location=f"http://{others[0]}{request.path}"))
    second = misbehaving(lambda request: request.reply(307, Location=f"http://{first.host}{request.path}"))
    others.append(second.host)
    with pytest.raises(RegistryError, match="answers oddly") as caught:
        resolve(f"{first.host}/a:v1")
    assert "more than 5 times" in caught.value.details
    assert len(first.asked) + len(second.asked) == 5


def test_layers_come_side_by_side(misbehaving, oci_layout, pull):
    tars = [bytes([number]) * 512 for number in range(12)]
    described = oci_layout.image(*tars)
    config = json.loads(oci_layout.file(described).read_text())["config"]["digest"]
    running, most = [0], [0]
    lock = threading.Lock()

    def answer(request):
        if "/blobs/" not in request.path or config in request.path:
            request.deliver(oci_layout, described)
            return
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.2)
        with lock:
            running[0] -= 1
        request.deliver(oci_layout, described)

    host = misbehaving(answer).host
    assert pull(f"{host}/a:v1") == tars
    assert 3 <= most[0] <= 6


def test_a_header_that_trickles_does_not_outlast_the_deadline(misbehaving, resolve):
    def answer(request):
        for _ in range(100):
            try:
                request.wfile.write(b"HTTP/1.1 200 OK\r\n"[:1] if _ == 0 else b"T")
            except OSError:  # it was given up
                return
            time.sleep(0.05)

    host = misbehaving(answer).host
    began = time.monotonic()
    with pytest.raises(RegistryError):
        resolve(f"{host}/a:v1", seconds=0.5)
    assert time.monotonic() - began < 3


def test_the_body_of_an_answer_that_leads_on_is_not_read(misbehaving, oci_layout, resolve):
    described = oci_layout.image(TARS[0])

    def answer(request):
        if request.path.endswith("v1"):
            request.reply(302, Location=request.path.replace("v1", "v2"), Content_Length="1000000000000")
        else:
            request.deliver(oci_layout, described)

    began = time.monotonic()
    assert str(resolve(f"{misbehaving(answer).host}/a:v1").digest) == described["digest"]
    assert time.monotonic() - began < 3
