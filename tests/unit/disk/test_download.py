"""Blobs that come over a network that breaks."""

from __future__ import annotations

import gzip
import random
from contextlib import contextmanager

import pytest

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.errors import DigestMismatchError, ImageError, RegistryError
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.model import Layer, ResolvedImage
from pytest_bootc.progress import Silent

TAR = random.Random(2).randbytes(300_000)
PACKED = gzip.compress(TAR, mtime=0)
LAYER = Layer(Digest.of(PACKED), Digest.of(TAR), "application/vnd.oci.image.layer.v1.tar+gzip", len(PACKED))


class Network:
    """Delivers a blob until ``breaks_at``, and knows from where it was asked for it."""

    remote = True

    def __init__(self, content: bytes = PACKED, breaks_at: int | None = None) -> None:
        self.content = content
        self.breaks_at = breaks_at
        self.offsets: list[int] = []

    @contextmanager
    def opened(self, image, scratch, deadline, progress):
        yield image

    def open_blob(self, digest, deadline, offset=0):
        self.offsets.append(offset)
        end = len(self.content) if self.breaks_at is None else self.breaks_at
        for at in range(offset, end, 10_000):
            yield self.content[at : min(at + 10_000, end)]
        if self.breaks_at is not None:
            raise RegistryError("the connection broke")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path)


@pytest.fixture
def pull(cache):
    def run(source: Network, layer: Layer = LAYER) -> bytes:
        image = ResolvedImage(ImageReference.parse("oci:a"), Digest.of(b""), "amd64", {}, (layer,))
        (stored,) = LayerStore(cache).obtain(image, source, Deadline.after(20), Silent())
        return stored.path.read_bytes()[: stored.size]

    return run


def kept(cache: Cache) -> list[bytes]:
    return [path.read_bytes() for path in cache.downloads.iterdir()]


def test_a_pull_goes_on_where_an_earlier_one_broke_off(cache, pull):
    source = Network(breaks_at=100_000)
    with pytest.raises(RegistryError, match="the connection broke"):
        pull(source)
    assert kept(cache) == [PACKED[:100_000]]
    source.breaks_at = 100_001
    with pytest.raises(RegistryError, match="the connection broke"):
        pull(source)
    source.breaks_at = None

    assert pull(source) == TAR
    assert source.offsets == [0, 100_000, 100_001]
    assert kept(cache) == []


def test_what_has_come_whole_is_not_asked_for_again(cache, pull):
    source = Network(breaks_at=len(PACKED))
    with pytest.raises(RegistryError):
        pull(source)
    assert pull(source) == TAR
    assert source.offsets == [0]


@pytest.mark.parametrize(
    "left",
    [b"x" * 100_000, PACKED + b"x", PACKED[:5] + b"x" + PACKED[6:], bytes(len(PACKED))],
    ids=["another beginning", "too much", "one byte wrong", "zeros after a power cut"],
)
def test_what_an_earlier_run_left_is_not_trusted(cache, pull, left):
    source = Network(breaks_at=1)
    with pytest.raises(RegistryError):
        pull(source)
    (path,) = cache.downloads.iterdir()
    path.write_bytes(left)
    source.breaks_at = None

    assert pull(source) == TAR
    assert source.offsets[-1] == 0
    assert kept(cache) == []


@pytest.mark.parametrize("resumed", [False, True])
def test_wrong_bytes_are_not_kept(cache, pull, resumed):
    source = Network(PACKED[:-1] + b"x", breaks_at=50_000 if resumed else None)
    if resumed:
        with pytest.raises(RegistryError, match="the connection broke"):
            pull(source)
        source.breaks_at = None
    with pytest.raises(DigestMismatchError):
        pull(source)
    assert kept(cache) == []
    assert list(cache.layers.iterdir()) == []
    assert len(source.offsets) == (3 if resumed else 1)


def test_an_image_that_contradicts_itself_leaves_nothing(cache, pull):
    other = Layer(LAYER.digest, Digest.of(b"other"), LAYER.media_type, LAYER.size)
    with pytest.raises(ImageError, match="unpacks to other content"):
        pull(Network(), other)
    assert kept(cache) == []


def test_a_blob_that_ends_too_early_can_be_gone_on_with(cache, pull):
    with pytest.raises(RegistryError, match="is truncated"):
        pull(Network(PACKED[:200_000]))
    source = Network()
    assert pull(source) == TAR
    assert source.offsets == [200_000]
