import pytest

from pytest_bootc.errors import Blame, ImageReferenceError
from pytest_bootc.image import Digest, ImageReference, Transport

HEX = "0123456789abcdef" * 4
DIGEST = Digest(f"sha256:{HEX}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/a/b", ImageReference(Transport.REGISTRY, "ghcr.io/a/b", "latest")),
        ("ghcr.io/a/b:t", ImageReference(Transport.REGISTRY, "ghcr.io/a/b", "t")),
        ("docker://ghcr.io/a/b:t", ImageReference(Transport.REGISTRY, "ghcr.io/a/b", "t")),
        ("docker.io/library/x", ImageReference(Transport.REGISTRY, "docker.io/library/x", "latest")),
        ("localhost/a", ImageReference(Transport.REGISTRY, "localhost/a", "latest")),
        ("127.0.0.1:5000/a__b-c.d", ImageReference(Transport.REGISTRY, "127.0.0.1:5000/a__b-c.d", "latest")),
        ("[::1]:5000/a:1", ImageReference(Transport.REGISTRY, "[::1]:5000/a", "1")),
        ("Host.Example/a:T_1.x-y", ImageReference(Transport.REGISTRY, "Host.Example/a", "T_1.x-y")),
        (f"ghcr.io/a/b@sha256:{HEX}", ImageReference(Transport.REGISTRY, "ghcr.io/a/b", None, DIGEST)),
        (f"ghcr.io/a/b:t@sha256:{HEX}", ImageReference(Transport.REGISTRY, "ghcr.io/a/b", "t", DIGEST)),
        ("docker://oci:5000/a:t", ImageReference(Transport.REGISTRY, "oci:5000/a", "t")),
        ("oci:/srv/my images", ImageReference(Transport.LAYOUT, "/srv/my images")),
        ("oci:../layout:v1", ImageReference(Transport.LAYOUT, "../layout", "v1")),
        ("oci:l:ghcr.io/a/b:t", ImageReference(Transport.LAYOUT, "l", "ghcr.io/a/b:t")),
        (f"oci:l:t@sha256:{HEX}", ImageReference(Transport.LAYOUT, "l", "t", DIGEST)),
        ("oci-archive:a.tar", ImageReference(Transport.ARCHIVE, "a.tar")),
        (f"oci-archive:a.tar@sha256:{HEX}", ImageReference(Transport.ARCHIVE, "a.tar", None, DIGEST)),
        ("containers-storage:localhost/a:t", ImageReference(Transport.STORAGE, "localhost/a", "t")),
        ("containers-storage:a", ImageReference(Transport.STORAGE, "a")),
        (
            f"containers-storage:[vfs@/root dir+/run:vfs.x=/a,y=z]localhost/a:t@sha256:{HEX}",
            ImageReference(Transport.STORAGE, "localhost/a", "t", DIGEST, "vfs@/root dir+/run:vfs.x=/a,y=z"),
        ),
        ("containers-storage:[/root]a:t", ImageReference(Transport.STORAGE, "a", "t", None, "/root")),
    ],
)
def test_parse_and_print(text: str, expected: ImageReference) -> None:
    parsed = ImageReference.parse(text)
    assert parsed == expected
    assert ImageReference.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \t", "is empty"),
        (" ghcr.io/a", "white space around"),
        ("ghcr.io/a\n", "white space around"),
        ("ghcr.io/a\x00b", "control characters"),
        ("ghcr.io/a b", "bad part 'a b'"),
        ("ghcr.io/Bluefin/x", "upper-case letters"),
        ("ghcr.io/a//b", "empty part"),
        ("ghcr.io/", "empty part"),
        ("ghcr.io/a..b", "bad part 'a..b'"),
        ("ghcr.io/-a", "bad part '-a'"),
        ("ghcr.io/a:", "bad tag ''"),
        ("ghcr.io/a:-x", "bad tag '-x'"),
        ("ghcr.io/a:é", "bad tag 'é'"),
        ("ghcr.io/a:" + "x" * 129, "bad tag"),
        ("ghcr.io/a@sha256:12", "'sha256:12' is not a digest"),
        ("ghcr.io/a@md5:" + HEX, "is not a digest"),
        ("gh_cr.io/a", "bad registry host 'gh_cr.io'"),
        ("ghcr.io:port/a", "bad registry host 'ghcr.io:port'"),
        ("ghcr.io/" + "a/" * 130 + "a", "name of 269 characters"),
        ("fedora", "does not say which registry"),
        ("fedora:42", "does not say which registry"),
        ("library/fedora:42", "does not say which registry"),
        ("docker:ghcr.io/a", "lacks two slashes"),
        ("https://ghcr.io/a", "transport 'https'"),
        ("dir:/tmp/x", "transport 'dir'"),
        ("docker-daemon:a:b", "transport 'docker-daemon'"),
        ("oci:", "names no path"),
        ("oci::tag", "names no path"),
        ("oci:a:", "bad tag ''"),
        ("oci:a:b c", "bad tag 'b c'"),
        ("oci:a:b//c", "bad tag 'b//c'"),
        ("containers-storage:[root]a", "does not say well where the storage is"),
        ("containers-storage:[vfs@/root", "does not say well where the storage is"),
        ("containers-storage:[/a+b]c", "does not say well where the storage is"),
        ("containers-storage:[/a]", "empty part"),
    ],
)
def test_bad_references_are_named(text: str, message: str) -> None:
    with pytest.raises(ImageReferenceError) as caught:
        ImageReference.parse(text)
    assert message in caught.value.brief
    assert caught.value.blame is Blame.USAGE


def test_a_short_name_is_shown_in_full() -> None:
    with pytest.raises(ImageReferenceError, match=r"docker\.io/library/fedora:42") as caught:
        ImageReference.parse("fedora:42")
    assert "podman would try each of the unqualified-search-registries" in caught.value.details


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("ghcr.io/projectbluefin/bluefin:testing", "bluefin:testing"),
        ("ghcr.io/projectbluefin/bluefin", "bluefin:latest"),
        (f"ghcr.io/projectbluefin/bluefin@sha256:{HEX}", "bluefin@0123456789ab"),
        (f"ghcr.io/projectbluefin/bluefin:t@sha256:{HEX}", "bluefin:t"),
        ("oci:/srv/images/server:v1", "server:v1"),
        ("oci:/srv/images/server/", "server"),
        ("oci:.", "."),
        ("oci-archive:x/server.tar", "server.tar"),
        ("containers-storage:[vfs@/a+/b]server:t", "server:t"),
    ],
)
def test_short(text: str, short: str) -> None:
    assert ImageReference.parse(text).short == short


def test_pinned_keeps_the_tag_for_people() -> None:
    pinned = ImageReference.parse("ghcr.io/a/b:t").pinned(DIGEST)
    assert str(pinned) == f"ghcr.io/a/b:t@sha256:{HEX}"
    assert ImageReference.parse(str(pinned)) == pinned


def test_digest_of_and_parts() -> None:
    digest = Digest.of(b"abc")
    assert str(digest) == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (digest.algorithm, digest.short) == ("sha256", "ba7816bf8f01")
    assert Digest.parse(str(Digest.of(b"abc", "sha512"))).algorithm == "sha512"
