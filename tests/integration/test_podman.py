"""Images in the storage of a real podman, of which the tests have one of their own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_bootc import podman
from pytest_bootc.cache import Cache
from pytest_bootc.command import find_program, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.errors import ConfigError, ImageReferenceError, RegistryError
from pytest_bootc.image import ImageReference
from pytest_bootc.model import ResolvedImage
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="a storage of one's own takes root, or a user's own settings"),
]

NAME = "localhost/team/server"


class Telling(Silent):
    """Keeps what is announced, and how much of it was done."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done = 0

    @contextmanager
    def stage(self, what, total=None):
        self.stages.append((what, total))
        yield self

    def advance(self, amount):
        self.done += amount


class Storage:
    def __init__(self, folder: Path) -> None:
        self.options = ("--root", folder / "root", "--runroot", folder / "run", "--storage-driver", "vfs")
        self.specifier = f"[vfs@{folder}/root+{folder}/run]"

    def podman(self, *arguments: str | Path) -> str:
        program = find_program("podman", resolution="install podman")
        done = run([program, *self.options, *arguments], deadline=Deadline.after(60))
        return done.stdout.decode().strip()

    def add(self, layout: Path, name: str) -> None:
        self.podman("tag", self.podman("pull", "--quiet", f"oci:{layout}"), name)


@pytest.fixture
def storage() -> Iterator[Storage]:
    with tempfile.TemporaryDirectory() as folder:  # Podman takes no runroot of more than 50 characters
        made = Storage(Path(folder))
        yield made
        made.podman("rmi", "--all", "--force")


@pytest.fixture
def tars(member, tar_of) -> list[bytes]:
    return [tar_of(member("etc/os-release", b"ID=test\n")), tar_of(member("usr/large", b"x" * (3 << 20)))]


def resolve(text: str, architecture: str = "amd64", seconds: float = 30) -> ResolvedImage:
    reference = ImageReference.parse(text)
    return source_for(reference).resolve(reference, Deadline.after(seconds), architecture)


def test_an_image_is_pulled_out_of_the_storage(storage, oci_layout, tars, tmp_path):
    described = oci_layout.image(*tars)
    oci_layout.index(described)
    storage.add(oci_layout.path, f"{NAME}:v1")
    image = resolve(f"containers-storage:{storage.specifier}{NAME}:v1")
    cache, progress = Cache(tmp_path / "cache"), Telling()

    # As a run does: with another source than the one that resolved it.
    stored = LayerStore(cache).obtain(image, source_for(image.reference), Deadline.after(60), progress)

    assert str(image.digest) == described["digest"]
    assert image.labels == {"made": "by hand"}
    assert [layer.path.read_bytes() for layer in stored] == tars
    assert [what for what, _ in progress.stages] == ["saving server:v1", "pulling server:v1"]
    total = sum(len(tar) for tar in tars)
    assert progress.stages[1][1] == total
    assert total <= progress.done - total < total + 100_000
    assert list(cache.downloads.iterdir()) == []


def test_an_image_that_is_known_is_not_written_out_again(storage, oci_layout, tars, tmp_path):
    oci_layout.index(oci_layout.image(*tars))
    storage.add(oci_layout.path, f"{NAME}:v1")
    text = f"containers-storage:{storage.specifier}{NAME}:v1"
    cache, progress = Cache(tmp_path / "cache"), Telling()
    for _ in range(2):
        image = resolve(text)
        LayerStore(cache).obtain(image, source_for(image.reference), Deadline.after(60), progress)
    assert [what for what, _ in progress.stages] == ["saving server:v1", "pulling server:v1"]


def test_pinned(storage, oci_layout, tars, tmp_path):
    """A tag that has moved meanwhile does not matter."""
    first = oci_layout.image(*tars)
    oci_layout.index(first)
    storage.add(oci_layout.path, f"{NAME}:v1")
    image = resolve(f"containers-storage:{storage.specifier}{NAME}:v1")
    oci_layout.index(oci_layout.image(*reversed(tars)))
    storage.add(oci_layout.path, f"{NAME}:v1")

    assert resolve(str(image.reference)).digest != image.digest
    again = resolve(str(image.reference.pinned(image.digest)))
    assert (again.digest, again.config) == (image.digest, image.config)
    stored = LayerStore(Cache(tmp_path / "cache")).obtain(
        image, source_for(image.reference), Deadline.after(60), Silent()
    )
    assert [layer.path.read_bytes() for layer in stored] == tars


def test_an_image_that_podman_has_built(storage, oci_layout, tars, tmp_path):
    history = [{"created_by": "hand"}] * len(tars)  # which Podman wants of what it builds upon
    oci_layout.index(oci_layout.image(*tars, config_history=history))
    storage.add(oci_layout.path, f"{NAME}:v1")
    context = tmp_path / "context"
    context.mkdir()
    (context / "motd").write_text("built\n")
    (context / "Containerfile").write_text(f"FROM {NAME}:v1\nCOPY motd /etc/motd\nLABEL made=built\n")
    storage.podman("build", "--quiet", "--isolation", "chroot", "--tag", "built", context)

    image = resolve(f"containers-storage:{storage.specifier}built")
    stored = LayerStore(Cache(tmp_path / "cache")).obtain(
        image, source_for(image.reference), Deadline.after(60), Silent()
    )
    assert image.labels["made"] == "built"
    assert [layer.path.read_bytes() for layer in stored[:2]] == tars
    assert b"built\n" in stored[2].path.read_bytes()


def test_what_podman_does_not_have(storage):
    with pytest.raises(ImageReferenceError, match=f"podman has no image {NAME}:v1") as caught:
        resolve(f"containers-storage:{storage.specifier}{NAME}:v1")
    assert "$ /usr/bin/podman --root" in caught.value.details
    assert "sudo podman images" in caught.value.resolution


def test_an_image_for_another_machine(storage, oci_layout, tars):
    oci_layout.index(oci_layout.image(*tars))
    storage.add(oci_layout.path, f"{NAME}:v1")
    with pytest.raises(ImageReferenceError, match="the image is made for amd64; this machine runs s390x"):
        resolve(f"containers-storage:{storage.specifier}{NAME}:v1", "s390x")


def test_no_podman(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="podman is not installed") as caught:
        source_for(ImageReference.parse("containers-storage:a"))
    assert "oci:DIR" in caught.value.resolution


def test_a_storage_that_cannot_be():
    with pytest.raises(RegistryError, match="podman does not say what a is") as caught:
        resolve("containers-storage:[vfs@/dev/null/root+/dev/null/run]a")
    assert "not a directory" in caught.value.details


@pytest.fixture
def stand_in(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A podman that does something else where its arguments have this word, and else is the real one."""

    def make(word: str, script: str) -> None:
        real = find_program("podman", resolution="install podman")
        program = tmp_path / "bin/podman"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\ncase " $* " in *" {word} "*) {script};; esac\nexec {real} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("echo junk", "cannot be understood"),
        ("echo []", "cannot be understood"),
        ("echo '[{}]'", "cannot be understood"),
    ],
)
def test_a_podman_that_answers_oddly(stand_in, answer, message):
    stand_in("inspect", f"{answer}; exit 0")
    with pytest.raises(RegistryError, match=message):
        resolve("containers-storage:a")


def test_a_podman_that_says_nothing(stand_in):
    stand_in("inspect", "exec sleep 20")
    began = time.monotonic()
    with pytest.raises(RegistryError, match="podman does not answer"):
        resolve("containers-storage:a", seconds=0.5)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'no space left on device' >&2; exit 125", "podman did not write the image: exit status 125"),
        ("exec sleep 60", r"podman did not write the image within 2 s"),
        ("trap '' TERM; mkdir -p $TMPDIR/left; while :; do sleep 0.1; done", r"did not write the image within 2 s"),
        ("exit 0", "there is no folder"),
    ],
    ids=["full disk", "too slow", "stubborn", "nothing written"],
)
def test_writing_out_fails(storage, oci_layout, tars, tmp_path, stand_in, monkeypatch, script, message):
    monkeypatch.setattr(podman, "_END_SECONDS", 0.5)
    oci_layout.index(oci_layout.image(*tars))
    storage.add(oci_layout.path, f"{NAME}:v1")
    image = resolve(f"containers-storage:{storage.specifier}{NAME}:v1")
    stand_in("save", script)
    cache = Cache(tmp_path / "cache")
    with pytest.raises((RegistryError, ImageReferenceError), match=message) as caught:
        LayerStore(cache).obtain(image, source_for(image.reference), Deadline.after(2), Silent())
    if "space" in script:
        assert "no space left on device" in caught.value.details
    assert list(cache.downloads.iterdir()) == list(cache.layers.iterdir()) == []


def test_blobs_are_there_only_while_the_image_is_open(storage, oci_layout, tars):
    oci_layout.index(oci_layout.image(*tars))
    storage.add(oci_layout.path, f"{NAME}:v1")
    image = resolve(f"containers-storage:{storage.specifier}{NAME}:v1")
    with pytest.raises(RegistryError, match="has not been written out"):
        source_for(image.reference).open_blob(image.layers[0].digest, Deadline.after(5))


def test_layers_in_zstd_chunked(storage, oci_layout, tars, registry, tmp_path):
    """As Podman pushes them: a frame for each file, and skippable frames with the table of contents at the end."""
    # Without the padding to whole records, which Go's tar does not write, and Podman 4.3 would leave out.
    tars = [tar.rstrip(b"\0") for tar in tars]
    tars = [tar + bytes(-len(tar) % 512 + 1024) for tar in tars]
    oci_layout.index(oci_layout.image(*tars))
    storage.add(oci_layout.path, f"{NAME}:v1")
    name = f"{registry.host}/chunked:v1"
    push = ("push", "--quiet", "--tls-verify=false", "--compression-format", "zstd:chunked")
    storage.podman(*push, f"{NAME}:v1", f"docker://{name}")

    image = resolve(name)
    stored = LayerStore(Cache(tmp_path / "cache")).obtain(
        image, source_for(image.reference), Deadline.after(30), Silent()
    )

    packed = [registry.file(str(layer.digest)).read_bytes() for layer in image.layers]
    assert all(blob.startswith(b"\x28\xb5\x2f\xfd") and b"\x2a\x4d\x18" in blob for blob in packed)
    assert [layer.path.read_bytes() for layer in stored] == tars
