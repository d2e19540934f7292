import gzip
import json
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import (
    BootcTestError,
    DigestMismatchError,
    ImageError,
    ImageReferenceError,
    RegistryError,
)
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.model import ResolvedImage
from pytest_bootc.source import CHUNK, source_for

REF_NAME = "org.opencontainers.image.ref.name"
TAR = bytes(1024)


def resolve(text: str, architecture: str = "amd64") -> ResolvedImage:
    reference = ImageReference.parse(text)
    return source_for(reference).resolve(reference, Deadline.after(5), architecture)


def refusal(text: str, kind: type[BootcTestError], architecture: str = "amd64") -> str:
    """What resolving this says; the error's class is just that one."""
    with pytest.raises(BootcTestError) as caught:
        resolve(text, architecture)
    assert type(caught.value) is kind
    return str(caught.value)


def tagged(descriptor, tag: str):
    return descriptor | {"annotations": {REF_NAME: tag}}


def platform(descriptor, architecture: str, system: str = "linux", **more: str):
    return descriptor | {"platform": {"architecture": architecture, "os": system} | more}


def test_the_only_image(oci_layout):
    described = oci_layout.image(TAR, b"x" * 512, compression="+zstd")
    oci_layout.index(described)

    image = resolve(f"oci:{oci_layout.path}")

    assert str(image.digest) == described["digest"]
    assert image.architecture == "amd64"
    assert image.labels == {"made": "by hand"}
    assert [str(layer.diff_id) for layer in image.layers] == [str(Digest.of(TAR)), str(Digest.of(b"x" * 512))]
    assert image.layers[0].media_type.endswith("+zstd")
    assert image.layers[0].size == oci_layout.file({"digest": str(image.layers[0].digest)}).stat().st_size


def test_by_tag_and_by_digest(oci_layout):
    one, two = oci_layout.image(TAR), oci_layout.image(TAR, TAR)
    oci_layout.index(tagged(one, "v1"), tagged(two, "v2"))

    assert len(resolve(f"oci:{oci_layout.path}:v2").layers) == 2
    assert len(resolve(f"oci:{oci_layout.path}@{one['digest']}").layers) == 1
    # The digest says which one it is, whatever the tag.
    assert len(resolve(f"oci:{oci_layout.path}:v2@{one['digest']}").layers) == 1


def test_archives_are_read_in_place(oci_layout, tmp_path):
    oci_layout.index(tagged(oci_layout.image(TAR, compression=""), "v1"))
    for prefix in ("", "./"):
        archive = oci_layout.archive(tmp_path / "a.tar", prefix)
        reference = ImageReference.parse(f"oci-archive:{archive}:v1")
        source = source_for(reference)
        image = source.resolve(reference, Deadline.after(5))
        assert b"".join(source.open_blob(image.layers[0].digest, Deadline.after(5))) == TAR
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "layout"}


def test_only_files_of_an_archive_count(oci_layout, tmp_path):
    described = oci_layout.image(TAR)
    oci_layout.index(described)
    manifest = oci_layout.file(described)
    manifest.rename(manifest.with_name("elsewhere"))
    manifest.symlink_to("elsewhere")
    archive = oci_layout.archive(tmp_path / "a.tar")
    assert f"it has no blobs/sha256/{manifest.name}" in refusal(f"oci-archive:{archive}", RegistryError)


def test_blobs_come_in_pieces(oci_layout):
    oci_layout.index(oci_layout.image(b"y" * (2 * CHUNK + 5), compression=""))
    reference = ImageReference.parse(f"oci:{oci_layout.path}")
    source = source_for(reference)
    digest = source.resolve(reference, Deadline.after(5)).layers[0].digest

    assert [len(piece) for piece in source.open_blob(digest, Deadline.after(5))] == [CHUNK, CHUNK, 5]
    with pytest.raises(RegistryError, match="took more than 0 s"):
        next(source.open_blob(digest, Deadline.after(0)))


def test_an_index_is_searched_for_the_platform(oci_layout):
    amd, arm = oci_layout.image(TAR), oci_layout.image(TAR, TAR, config_architecture="arm64")
    attestation = oci_layout.json({"schemaVersion": 2, "layers": [], "config": {}}, "application/json")
    windows = platform(oci_layout.image(TAR, TAR, TAR, config_os="windows"), "amd64", "windows")
    oci_layout.index(
        oci_layout.manifest_list(
            platform(attestation, "unknown", "unknown"), windows, platform(arm, "arm64"), platform(amd, "amd64")
        )
    )

    assert len(resolve(f"oci:{oci_layout.path}").layers) == 1
    assert len(resolve(f"oci:{oci_layout.path}", "arm64").layers) == 2
    message = refusal(f"oci:{oci_layout.path}", ImageReferenceError, "s390x")
    assert "the image is made for amd64, arm64, windows/amd64; this machine runs s390x" in message


def test_the_plainest_of_several_variants(oci_layout):
    v3 = platform(oci_layout.image(TAR, TAR, TAR), "amd64", variant="v3")
    oci_layout.index(oci_layout.manifest_list(v3, platform(oci_layout.image(TAR), "amd64")))
    assert len(resolve(f"oci:{oci_layout.path}").layers) == 1


def test_indexes_nest(oci_layout):
    nested = oci_layout.manifest_list(platform(oci_layout.image(TAR), "amd64"))
    for _ in range(3):
        oci_layout.index(nested)
        assert resolve(f"oci:{oci_layout.path}")
        nested = oci_layout.manifest_list(nested)
    oci_layout.index(oci_layout.manifest_list(nested))
    assert "nested more than 4 deep" in refusal(f"oci:{oci_layout.path}", ImageError)


def test_a_single_manifest_for_another_machine(oci_layout):
    oci_layout.index(oci_layout.image(TAR, config_architecture="arm64"))
    message = refusal(f"oci:{oci_layout.path}", ImageReferenceError)
    assert "the image is made for arm64; this machine runs amd64" in message


def test_an_index_that_does_not_say_what_its_images_run_on(oci_layout):
    oci_layout.index(oci_layout.manifest_list(oci_layout.image(TAR), oci_layout.image(TAR, TAR)))
    assert "2 images that do not say what they run on" in refusal(f"oci:{oci_layout.path}", ImageReferenceError)


def test_an_index_without_images(oci_layout):
    attestation = platform(oci_layout.image(TAR), "unknown", "unknown")
    oci_layout.index(oci_layout.manifest_list(attestation))
    assert "is an index without images" in refusal(f"oci:{oci_layout.path}", ImageReferenceError)


def test_docker_media_types(oci_layout):
    tar = gzip.compress(TAR)
    layer = oci_layout.blob(tar, "application/vnd.docker.image.rootfs.diff.tar.gzip")
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [str(Digest.of(TAR))]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": oci_layout.json(config, "application/vnd.docker.container.image.v1+json"),
        "layers": [layer],
    }
    described = oci_layout.json(manifest, manifest["mediaType"])
    oci_layout.index(
        oci_layout.json(
            {"schemaVersion": 2, "manifests": [platform(described, "amd64")]},
            "application/vnd.docker.distribution.manifest.list.v2+json",
        )
    )
    assert resolve(f"oci:{oci_layout.path}").layers[0].media_type == layer["mediaType"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"layers": []}, ImageError, "0 layers in the manifest, 1 diff_ids in the configuration"),
        ({"layers": [], "config_rootfs": {"diff_ids": []}}, ImageError, "has 0 layers; there must be 1 to 128"),
        ({"config_rootfs": {}}, ImageError, "1 layers in the manifest, 0 diff_ids"),
        ({"config_rootfs": {"diff_ids": ["md5:1"]}}, ImageError, "bad digest: 'md5:1'"),
        ({"config_rootfs": {"diff_ids": [None]}}, ImageError, "without digest or size"),
        ({"layers": [{"mediaType": "x", "digest": f"sha256:{'0' * 64}", "size": -1}]}, ImageError, "or size"),
        ({"layers": [{"mediaType": "x", "digest": f"sha256:{'0' * 64}", "size": "1"}]}, ImageError, "or size"),
        ({"layers": [{"mediaType": "x", "size": 1}]}, ImageError, "without digest or size"),
        ({"config_os": "windows"}, ImageReferenceError, "made for windows/amd64; this machine runs amd64"),
        ({"layers": "x"}, ImageError, "has no list of layers"),
        ({"layers": ["x"]}, ImageError, "has no list of layers"),
        ({"manifests": []}, ImageError, "an index and a manifest at once"),
        ({"schemaVersion": 1}, ImageError, "old schema 1"),
        ({"config": {"mediaType": "application/vnd.x"}}, ImageReferenceError, "is not a container image"),
        ({"config": None}, ImageReferenceError, "is not a container image"),
    ],
    ids=str,
)
def test_contradictions(oci_layout, changes, kind, message):
    oci_layout.index(oci_layout.image(TAR, **changes))
    assert message in refusal(f"oci:{oci_layout.path}", kind)


@pytest.mark.parametrize(
    ("media_type", "message"),
    [
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "a layer that registries do not hold"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "a layer that registries do not hold"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "an encrypted layer"),
        ("application/vnd.oci.image.layer.v1.squashfs", "a layer of an unknown type"),
    ],
)
def test_layers_that_cannot_be_had(oci_layout, media_type, message):
    layer = oci_layout.layer(TAR) | {"mediaType": media_type}
    oci_layout.index(oci_layout.image(TAR, layers=[layer]))
    assert message in refusal(f"oci:{oci_layout.path}", ImageError)


def test_128_layers_are_enough(oci_layout):
    oci_layout.index(oci_layout.image(*[TAR] * 128))
    assert len(resolve(f"oci:{oci_layout.path}").layers) == 128
    oci_layout.index(oci_layout.image(*[TAR] * 129))
    assert "has 129 layers; there must be 1 to 128" in refusal(f"oci:{oci_layout.path}", ImageError)


def test_tampered_documents(oci_layout):
    described = oci_layout.image(TAR)
    oci_layout.index(described)
    manifest = oci_layout.file(described)
    config = oci_layout.file(json.loads(manifest.read_text())["config"])

    original = config.read_text()
    config.write_text(original.replace("by hand", "by_hand"))
    message = refusal(f"oci:{oci_layout.path}", DigestMismatchError)
    assert "the configuration of" in message
    assert f"expected sha256:{config.name}" in message

    config.write_text(original + " ")
    assert f"has {len(original) + 1} bytes instead of {len(original)}" in refusal(
        f"oci:{oci_layout.path}", RegistryError
    )

    manifest.write_text(manifest.read_text().replace("made", "MADE").replace("schemaVersion", "schemaversion"))
    assert "the manifest of" in refusal(f"oci:{oci_layout.path}", DigestMismatchError)


def test_documents_have_a_limit(oci_layout):
    oci_layout.index(oci_layout.image(TAR, annotations={"a": "x" * (4 << 20)}))
    assert "4194304 are the limit" in refusal(f"oci:{oci_layout.path}", RegistryError)


def test_which_of_several(oci_layout):
    oci_layout.index(tagged(oci_layout.image(TAR), "v1"), tagged(oci_layout.image(TAR, TAR), "v2"))

    message = refusal(f"oci:{oci_layout.path}", ImageReferenceError)
    assert "holds 2 images" in message
    assert "its tags are v1, v2" in message
    assert f"oci:{oci_layout.path}:TAG" in message
    message = refusal(f"oci:{oci_layout.path}:v3", ImageReferenceError)
    assert "no image with the tag 'v3'" in message
    assert "its tags are v1, v2" in message

    oci_layout.index()
    assert "holds no image" in refusal(f"oci:{oci_layout.path}", ImageReferenceError)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda layout: (layout / "oci-layout").unlink(), RegistryError, "it has no oci-layout"),
        (lambda layout: (layout / "index.json").unlink(), RegistryError, "it has no index.json"),
        (lambda layout: (layout / "index.json").write_text('{"manif'), RegistryError, "index.json of"),
        (lambda layout: (layout / "index.json").write_text("[]"), RegistryError, "is not a JSON object"),
        (lambda layout: (layout / "index.json").write_text("[" * 100_000), RegistryError, "is not JSON"),
        (lambda layout: (layout / "index.json").write_text('{"manifests": {}}'), ImageError, "no list of manifests"),
        (
            lambda layout: (layout / "index.json").write_text('{"manifests": [{}]}'),
            ImageError,
            "without digest or size",
        ),
        (
            lambda layout: (layout / "oci-layout").write_text('{"imageLayoutVersion": "2"}'),
            RegistryError,
            "version '2'",
        ),
        (lambda layout: [f.unlink() for f in (layout / "blobs/sha256").iterdir()], RegistryError, "is incomplete"),
    ],
)
def test_broken_layouts(oci_layout, spoil, kind, message):
    oci_layout.index(oci_layout.image(TAR))
    spoil(oci_layout.path)
    assert message in refusal(f"oci:{oci_layout.path}", kind)


def test_paths_that_are_no_layout(oci_layout, tmp_path):
    archive = oci_layout.archive(tmp_path / "a.tar")

    assert "there is no folder" in refusal(f"oci:{tmp_path}/none", ImageReferenceError)
    assert f"write oci-archive:{archive}" in refusal(f"oci:{archive}", ImageReferenceError)
    assert "there is no file" in refusal(f"oci-archive:{tmp_path}/none", ImageReferenceError)
    assert f"write oci:{oci_layout.path}" in refusal(f"oci-archive:{oci_layout.path}", ImageReferenceError)


def test_paths_that_cannot_be_opened(oci_layout, tmp_path):
    (oci_layout.path / "index.json").unlink()
    (oci_layout.path / "index.json").mkdir()
    assert "index.json cannot be read: Is a directory" in refusal(f"oci:{oci_layout.path}", RegistryError)
    (tmp_path / "loop").symlink_to("loop")
    message = refusal(f"oci-archive:{tmp_path}/loop", RegistryError)
    assert "cannot be read: Too many levels of symbolic links" in message


def test_compressed_and_truncated_archives(oci_layout, tmp_path):
    oci_layout.index(oci_layout.image(TAR))
    content = oci_layout.archive(tmp_path / "a.tar").read_bytes()
    archive = tmp_path / "b.tar"

    archive.write_bytes(gzip.compress(content))
    assert "unpack it with gzip -d" in refusal(f"oci-archive:{archive}", ImageReferenceError)
    archive.write_bytes(b"no tar" * 1000)
    assert "is no tar file" in refusal(f"oci-archive:{archive}", RegistryError)
    archive.write_bytes(content[: len(content) // 2 - len(content) // 2 % 512 - 200])
    assert "truncated" in refusal(f"oci-archive:{archive}", RegistryError)


def test_a_blob_that_ends_too_early(oci_layout, tmp_path):
    described = oci_layout.image(b"z" * 512, compression="")
    oci_layout.index(described)
    archive = oci_layout.archive(tmp_path / "a.tar")
    reference = ImageReference.parse(f"oci-archive:{archive}")
    source = source_for(reference)
    digest = source.resolve(reference, Deadline.after(5)).layers[0].digest
    blob_at = archive.read_bytes().index(b"z" * 512)
    archive.write_bytes(archive.read_bytes()[: blob_at + 100])

    with pytest.raises(RegistryError, match="412 of 512 bytes are missing"):
        list(source.open_blob(digest, Deadline.after(5)))


def test_sha512(oci_layout: object, tmp_path: Path) -> None:
    raw = b'{"not": "an image"}'
    digest = Digest.of(raw, "sha512")
    folder = oci_layout.path / "blobs" / "sha512"
    folder.mkdir()
    (folder / digest.hex).write_bytes(raw)
    assert "neither a manifest nor an index" in refusal(f"oci:{oci_layout.path}@{digest}", ImageError)
    (folder / digest.hex).write_bytes(raw + b" ")
    assert f"expected {digest}" in refusal(f"oci:{oci_layout.path}@{digest}", DigestMismatchError)
