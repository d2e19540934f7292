"""Images in real registries, to which everybody has access."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.errors import DigestMismatchError, ImageReferenceError, RegistryError
from pytest_bootc.image import Digest
from pytest_bootc.progress import Silent
from pytest_bootc.source import CHUNK

pytestmark = pytest.mark.integration

TARS = [b"1" * 512, b"2" * (3 * CHUNK), b"3" * 1024]


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(params=["docker-registry", "olareg"])
def either(request):
    """Both registries, one after the other."""
    return request.getfixturevalue({"docker-registry": "registry"}.get(request.param, request.param))


def test_by_tag_and_by_digest(either, oci_layout, tmp_path, opened, resolve):
    described = oci_layout.image(*TARS, compression="+zstd")
    name = either.push(oci_layout.path, described, "some/server", "v1")
    repository = name.removesuffix(":v1")

    for text in (name, f"docker://{name}", f"{repository}@{described['digest']}", f"{name}@{described['digest']}"):
        image = resolve(text)
        assert str(image.digest) == described["digest"]
        assert image.labels == {"made": "by hand"}
    reference, source = opened(name)
    image = source.resolve(reference, Deadline.after(10))
    stored = LayerStore(Cache(tmp_path / "cache")).obtain(image, source, Deadline.after(10), Silent())
    assert [layer.path.read_bytes() for layer in stored] == TARS


def test_an_index(either, oci_layout, resolve):
    amd, arm = oci_layout.image(TARS[0]), oci_layout.image(*TARS, config_architecture="arm64")
    entries = [
        entry | {"platform": {"architecture": name, "os": "linux"}} for entry, name in ((amd, "amd64"), (arm, "arm64"))
    ]
    index = oci_layout.manifest_list(*entries)
    name = either.push(oci_layout.path, index, "index", "v1")

    for text in (name, f"{name.removesuffix(':v1')}@{index['digest']}", f"{name}@{index['digest']}"):
        assert str(resolve(text).digest) == amd["digest"]
        assert str(resolve(text, "arm64").digest) == arm["digest"]
    with pytest.raises(ImageReferenceError, match="the image is made for amd64, arm64; this machine runs s390x"):
        resolve(name, "s390x")


def test_an_index_of_indexes(either, oci_layout, resolve):
    described = oci_layout.image(TARS[0])
    outer = oci_layout.manifest_list(
        oci_layout.manifest_list(described | {"platform": {"architecture": "amd64", "os": "linux"}})
    )
    assert str(resolve(either.push(oci_layout.path, outer, "nested", "v1")).digest) == described["digest"]


def test_a_part_of_a_blob(either, oci_layout, opened):
    described = oci_layout.image(TARS[1], compression="")
    reference, source = opened(either.push(oci_layout.path, described, "parts", "v1"))
    digest = source.resolve(reference, Deadline.after(10)).layers[0].digest
    for offset in (0, 1, len(TARS[1]) - 1):
        assert b"".join(source.open_blob(digest, Deadline.after(10), offset)) == TARS[1][offset:]
    with pytest.raises(RegistryError, match="did not deliver"):
        list(source.open_blob(digest, Deadline.after(10), len(TARS[1]) + 1))


def test_a_pull_is_gone_on_with(either, oci_layout, pull, opened, tmp_path):
    """What an earlier run has left of a layer is completed by what the registry has."""
    described = oci_layout.image(TARS[1], compression="")
    name = either.push(oci_layout.path, described, "rest", "v1")
    digest = Digest.of(TARS[1])
    folder = tmp_path / "cache/downloads/v1"
    folder.mkdir(parents=True)
    (folder / f"{digest.hex[:32]}-{digest.hex[:32]}.part").write_bytes(TARS[1][:1_000_000])
    if either.__class__.__name__ == "RegistryServer":  # its file has a hole where nothing has to be read any more
        with either.file(str(digest)).open("r+b") as file:
            file.write(bytes(1_000_000))
    assert pull(name) == [TARS[1]]


def test_docker_media_types(registry, oci_layout, resolve):
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
def test_a_blob_that_was_tampered_with(registry, oci_layout, tmp_path, compression, opened, resolve):
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


def test_a_manifest_that_was_tampered_with(registry, oci_layout, resolve):
    described = oci_layout.image(b"m" * 512)
    name = registry.push(oci_layout.path, described, "manifest", "v1")
    assert resolve(name)
    path = registry.file(described["digest"])
    path.write_bytes(path.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion":  2'))
    with pytest.raises(DigestMismatchError, match=f"(?s)the manifest of {name}.*expected {described['digest']}"):
        resolve(name)


def test_a_configuration_that_was_tampered_with(registry, oci_layout, resolve):
    described = oci_layout.image(b"c" * 512)
    name = registry.push(oci_layout.path, described, "configuration", "v1")
    config = json.loads(oci_layout.file(described).read_text())["config"]["digest"]
    flip(registry.file(config))
    with pytest.raises(DigestMismatchError, match=f"(?s)the configuration of {name}.*expected {config}"):
        resolve(name)


def test_a_blob_that_became_shorter_or_vanished(registry, oci_layout, tmp_path, opened, resolve):
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


def test_names_that_are_not_there(registry, oci_layout, resolve):
    name = registry.push(oci_layout.path, oci_layout.image(TARS[0]), "there", "v1")
    for text, missing in (
        (name.replace(":v1", ":v2"), "there is no v2 in"),
        (f"{registry.host}/nowhere:v1", "there is no v1 in"),
        (f"{registry.host}/there@{Digest.of(b'')}", f"there is no {Digest.of(b'')} in"),
    ):
        with pytest.raises(ImageReferenceError, match=missing) as caught:
            resolve(text)
        assert "404" in caught.value.details


def test_an_artifact_is_no_image(registry, oci_layout, resolve):
    config = oci_layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
    name = registry.push(oci_layout.path, oci_layout.image(TARS[0], config=config), "artifact", "v1")
    with pytest.raises(ImageReferenceError, match="is not a container image"):
        resolve(name)


def test_nobody_listens(resolve):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(RegistryError, match=f"the registry {host} cannot be reached") as caught:
            resolve(f"{host}/a:v1", seconds=60)
    assert "refused" in caught.value.details
    assert time.monotonic() - started < 3


def test_no_proxy_stands_before_the_loopback(registry, oci_layout, monkeypatch, resolve):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert resolve(registry.push(oci_layout.path, oci_layout.image(TARS[0]), "proxied", "v1"))
