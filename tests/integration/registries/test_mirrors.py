"""registries.conf(5) with real registries behind it: mirrors, other places, registries that are insecure."""

from __future__ import annotations

import socket

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError, ImageReferenceError, RegistryError
from pytest_bootc.image import Digest

pytestmark = pytest.mark.integration

TARS = [b"1" * 512, b"2" * (2 << 20)]


@pytest.fixture
def configure(home):
    """Write registries.conf."""

    def write(text: str) -> None:
        (home / "registries.conf").write_text(text)

    return write


@pytest.fixture
def nobody():
    """A port of 127.0.0.1 where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


def mirrored(prefix: str, *mirrors: str, location: str | None = None, more: str = "") -> str:
    """An entry of the file."""
    tables = "".join(f'[[registry.mirror]]\nlocation = "{mirror}"\n{more}\n' for mirror in mirrors)
    return f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location or prefix}"\n{tables}'


def test_a_mirror_stands_for_a_registry_that_is_not_reached(registry, oci_layout, configure, pull):
    registry.push(oci_layout.path, oci_layout.image(*TARS), "mirror/server", "v1")
    configure(mirrored("r.invalid/team", f"{registry.host}/mirror"))
    assert pull("r.invalid/team/server:v1") == TARS


def test_another_place(registry, oci_layout, configure, resolve):
    described = oci_layout.image(*TARS)
    registry.push(oci_layout.path, described, "placed/server", "v1")
    configure(mirrored("*.invalid", location=f"{registry.host}/placed"))
    assert str(resolve("anything.invalid/server:v1").digest) == described["digest"]
    assert str(resolve(f"anything.invalid/server@{described['digest']}").reference) == (
        f"anything.invalid/server@{described['digest']}"
    )


def test_the_next_one_is_asked_where_one_fails(registry, oci_layout, configure, pull, misbehaving, nobody):
    registry.push(oci_layout.path, oci_layout.image(*TARS), "falls/server", "v1")
    broken = misbehaving(lambda request: request.reply(500))
    locked = misbehaving(lambda request: request.reply(401, Www_Authenticate="Basic realm=x"))
    empty, lies = misbehaving(lambda request: request.reply(404)), misbehaving(lambda request: request.reply(200, b"{"))
    mirrors = [f"{place}/m" for place in (nobody, broken.host, locked.host, empty.host, lies.host)]
    configure(mirrored(f"{registry.host}/falls", *mirrors))
    assert pull(f"{registry.host}/falls/server:v1") == TARS
    for server in (broken, locked, empty, lies):
        assert server.paths("/v2/m/server/manifests/v1")
        assert not server.paths("/blobs/")  # whoever delivered the manifest is asked for the rest


def test_a_mirror_that_has_not_all_blobs(registry, oci_layout, configure, pull, misbehaving):
    described = oci_layout.image(*TARS)
    registry.push(oci_layout.path, described, "partly/server", "v1")
    given = []

    def answer(request):
        if "/blobs/" in request.path and len(given) == 2:
            request.reply(404)
        else:
            given.extend([1] if "/blobs/" in request.path else [])
            request.deliver(oci_layout, described)

    configure(mirrored(f"{registry.host}/partly", f"{misbehaving(answer).host}/m"))
    assert pull(f"{registry.host}/partly/server:v1") == TARS


def test_a_blob_that_breaks_off_is_gone_on_with_elsewhere(registry, oci_layout, configure, opened, misbehaving):
    described = oci_layout.image(*TARS, compression="")
    registry.push(oci_layout.path, described, "breaks/server", "v1")
    large = str(Digest.of(TARS[1]))

    def answer(request):
        request.deliver(oci_layout, described, ranges=True, until=1000 if large in request.path else None)

    mirror = misbehaving(answer)
    configure(mirrored(f"{registry.host}/breaks", f"{mirror.host}/m"))
    reference, source = opened(f"{registry.host}/breaks/server:v1")
    image = source.resolve(reference, Deadline.after(10))
    assert b"".join(source.open_blob(image.layers[1].digest, Deadline.after(10))) == TARS[1]
    assert len(mirror.paths(large)) == 3


def test_all_fail(registry, configure, resolve, misbehaving, nobody):
    broken = misbehaving(lambda request: request.reply(503))
    configure(mirrored(f"{registry.host}/none", f"{nobody}/m", f"{broken.host}/m"))
    with pytest.raises(ImageReferenceError, match=f"there is no v1 in {registry.host}/none/server") as caught:
        resolve(f"{registry.host}/none/server:v1")
    assert f"a mirror before it: the registry {nobody} cannot be reached" in caught.value.details
    assert f"a mirror before it: {broken.host}/m/server: the registry did not deliver" in caught.value.details


def test_a_mirror_for_digests_alone(registry, oci_layout, configure, resolve, misbehaving):
    described = oci_layout.image(*TARS)
    mirror = misbehaving(lambda request: request.deliver(oci_layout, described))
    configure(mirrored(f"{registry.host}/d", f"{mirror.host}/m", more='pull-from-mirror = "digest-only"'))
    with pytest.raises(ImageReferenceError):
        resolve(f"{registry.host}/d/server:v1")
    assert mirror.asked == []
    assert str(resolve(f"{registry.host}/d/server:v1@{described['digest']}").digest) == described["digest"]


def test_each_place_has_its_own_login(registry, oci_layout, configure, resolve, misbehaving, log_in):
    mirror = misbehaving(lambda request: request.reply(401, Www_Authenticate="Basic realm=x"))
    real = misbehaving(lambda request: request.reply(401, Www_Authenticate="Basic realm=x"))
    configure(mirrored(f"{real.host}/a", f"{mirror.host}/b"))
    log_in(**{mirror.host: "mirror:pass", real.host: "real:pass"})
    with pytest.raises(ConfigError, match=f"does not let us read {real.host}/a/server"):
        resolve(f"{real.host}/a/server:v1")
    assert len(mirror.shown()) == len(real.shown()) == 1
    assert not mirror.shown() & real.shown()


def test_a_name_that_is_blocked(registry, configure, resolve):
    configure(f'[[registry]]\nlocation = "{registry.host}"\nblocked = true\n')
    with pytest.raises(ConfigError, match=f"images from {registry.host} are blocked on this host"):
        resolve(f"{registry.host}/a:v1")


def test_a_file_that_is_malformed(registry, configure, resolve):
    configure("[[registry]]\nlocation = 1\n")
    with pytest.raises(ConfigError, match=r"registries\.conf is malformed"):
        resolve(f"{registry.host}/a:v1")


def test_an_insecure_registry_without_tls(registry, oci_layout, configure, pull):
    """Called insecure, it is asked by TLS first."""
    name = registry.push(oci_layout.path, oci_layout.image(*TARS), "plain/server", "v1")
    configure(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
    assert pull(name) == TARS


def test_a_name_that_nobody_knows(configure, resolve):
    with pytest.raises(RegistryError, match=r"the registry r\.invalid cannot be reached"):
        resolve("r.invalid/a:v1", seconds=10)
