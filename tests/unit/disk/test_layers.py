import gzip
import json
import os
import random
import tarfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk import layers as layers_module
from pytest_bootc.disk import unpack as unpack_module
from pytest_bootc.disk.layers import LayerStore, StoredLayer
from pytest_bootc.disk.tar import scan
from pytest_bootc.errors import BootcTestError, DigestMismatchError, DiskError, ImageError, RegistryError
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.model import Layer, ResolvedImage
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

TYPE = "application/vnd.oci.image.layer.v1.tar"
NOISE = random.Random(1).randbytes(3 << 20)


class Counting(Silent):
    """Adds up what is announced as done."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done = 0
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, what, total=None):
        self.stages.append((what, total))
        yield self

    def advance(self, amount):
        with self._lock:
            self.done += amount


class Memory:
    """A source of blobs that a test makes up, cut into pieces of odd sizes."""

    remote = False

    def __init__(self, piece: int = 70_001) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.asked: list[Digest] = []
        self._piece = piece

    def add(self, packed: bytes, tar: bytes, **changes) -> Layer:
        layer = replace(Layer(Digest.of(packed), Digest.of(tar), TYPE, len(packed)), **changes)
        self.blobs[layer.digest] = packed
        return layer

    @contextmanager
    def opened(self, image, scratch, deadline, progress):
        yield image

    def open_blob(self, digest, deadline, offset=0):
        self.asked.append(digest)
        packed = self.blobs[digest]
        for at in range(offset, len(packed), self._piece):
            yield packed[at : at + self._piece]


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def obtain(cache):
    """Put these layers into the store."""

    def run(source, *layers: Layer, progress=None) -> tuple[StoredLayer, ...]:
        reference = ImageReference.parse("oci:made/up:t")
        image = ResolvedImage(reference, Digest.of(b""), "amd64", {}, layers)
        return LayerStore(cache).obtain(image, source, Deadline.after(20), progress or Silent())

    return run


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def chunked_zstd(tar: bytes) -> bytes:
    """Many frames, with empty and skippable ones at the ends and between, as zstd:chunked and pzstd write them."""
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"table" + zstandard.compress(b"")
    return skippable + skippable.join(zstandard.compress(tar[at : at + 1000]) for at in range(0, len(tar), 1000))


def windowed(tar: bytes, log: int) -> bytes:
    """A frame that needs a window of 2^log bytes, and does not say how long its content is."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(tar) + stream.flush()


PACKERS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip, many members": lambda tar: b"".join(gzip.compress(tar[at : at + 9999]) for at in range(0, len(tar), 9999)),
    "gzip, empty members": lambda tar: gzip.compress(b"") + gzip.compress(tar) + gzip.compress(b"") * 3,
    "zstd": zstandard.compress,
    "zstd, long window": lambda tar: windowed(tar, 27),
    "zstd, many frames": chunked_zstd,
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("content", [b"", b"x" * 512, NOISE, bytes(5 << 20)], ids=["empty", "block", "noise", "zeros"])
def test_unpacks(obtain, packer, content):
    source = Memory()
    if not content and packer in ("gzip, many members", "zstd, many frames"):
        packer = packer.partition(",")[0]
    layer = source.add(PACKERS[packer](content), content)

    (stored,) = obtain(source, layer)

    assert stored.path.read_bytes() == content
    assert stored == StoredLayer(layer.diff_id, stored.path, len(content))
    assert layer.diff_id.hex in stored.path.name


def test_from_a_layout_to_entries(oci_layout, cache, tar_of, member):
    tars = [tar_of(member("etc/os-release", b"ID=test\n")), tar_of(member("etc/.wh.os-release"))]
    oci_layout.index(oci_layout.image(*tars, compression="+zstd"))
    reference = ImageReference.parse(f"oci:{oci_layout.path}")
    source = source_for(reference)
    image = source.resolve(reference, Deadline.after(5))

    stored = LayerStore(cache).obtain(image, source, Deadline.after(5), Silent())

    assert [[entry.path for entry in scan(layer.path, size=layer.size)] for layer in stored] == [["etc/os-release"]] * 2
    assert [layer.path.read_bytes() for layer in stored] == tars


MEMBERS = {
    "traversal": ([("../../outside", {})], "climbs out of its folder"),
    "absolute traversal": ([("/../outside", {})], "climbs out of its folder"),
    "below a link": (
        [("a", {"type": tarfile.SYMTYPE, "linkname": "/tmp"}), ("a/outside", {})],
        "lies below 'a', which is a symlink",
    ),
    "hard link": ([("a", {"type": tarfile.LNKTYPE, "linkname": "../../victim"})], "leads out of the image"),
    "twice": ([("a", {}), ("a", {})], "is in the layer twice"),
    "absolute": ([("OUTSIDE/outside", {})], ""),
    "device": ([("a", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0})], ""),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_hostile_members_touch_nothing(oci_layout, cache, tmp_path, tar_of, member, case):
    """Layers are kept as the tars that they are: what is in them is refused or an entry, and never made on the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("unharmed")
    members, message = MEMBERS[case]
    named = [member(name.replace("OUTSIDE", str(outside)), **header) for name, header in members]
    oci_layout.index(oci_layout.image(tar_of(*named)))
    reference = ImageReference.parse(f"oci:{oci_layout.path}")
    source = source_for(reference)
    image = source.resolve(reference, Deadline.after(5))
    before = everything(tmp_path)

    (stored,) = LayerStore(cache).obtain(image, source, Deadline.after(5), Silent())
    if message:
        with pytest.raises(ImageError, match=f"layer {stored.diff_id.short}: .*{message}"):
            scan(stored.path)
    else:
        (entry,) = scan(stored.path)
        assert not entry.path.startswith("/")

    kept = stored.path.parent
    new = {str(path.relative_to(tmp_path)) for path in (kept, stored.path, kept / "layer.json")}
    assert everything(tmp_path) - before == new
    assert (outside / "victim").read_text() == "unharmed"
    assert all(path.is_dir() or path.is_file() for path in tmp_path.rglob("*"))


def test_bottom_first_each_once_and_only_once(obtain, cache):
    source, progress = Memory(), Counting()
    tars = [bytes([number]) * 512 for number in (1, 2, 1, 3)]
    layers = [source.add(gzip.compress(tar), tar) for tar in tars]
    total = sum({layer.digest: layer.size for layer in layers}.values())

    stored = obtain(source, *layers, progress=progress)

    assert [layer.path.read_bytes() for layer in stored] == tars
    assert sorted(map(str, source.asked)) == sorted({str(layer.digest) for layer in layers})
    assert progress.stages == [("pulling up:t", total)]
    assert progress.done == total
    assert obtain(source, *layers, progress=progress) == stored
    assert len(source.asked) == 3
    assert len(progress.stages) == 1
    assert everything(cache.home / "locks") == set()


def test_padded_to_whole_blocks(obtain):
    source = Memory()
    (stored,) = obtain(source, source.add(gzip.compress(b"x" * 700), b"x" * 700))
    assert (stored.size, stored.path.stat().st_size) == (700, 1024)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tar: os.truncate(tar, 100),
        lambda tar: tar.unlink(),
        lambda tar: tar.write_bytes(tar.read_bytes() * 2),
        lambda tar: (tar.parent / "layer.json").unlink(),
        lambda tar: (tar.parent / "layer.json").write_text(""),
        lambda tar: (tar.parent / "layer.json").write_text('{"size": "512"}'),
        lambda tar: (tar.parent / "layer.json").write_text("[]"),
    ],
)
def test_a_spoilt_layer_is_made_again(obtain, cache, spoil):
    source = Memory()
    layer = source.add(gzip.compress(b"x" * 512), b"x" * 512)
    (stored,) = obtain(source, layer)
    before = everything(cache.home)
    spoil(stored.path)

    assert obtain(source, layer) == (stored,)
    assert stored.path.read_bytes() == b"x" * 512
    assert everything(cache.home) == before


def flipped(packed: bytes, at: int) -> bytes:
    return packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]


TAR = NOISE[:200_000]
GZIP, ZSTD = gzip.compress(TAR, mtime=0), zstandard.compress(TAR)
TOO_WIDE = windowed(TAR, 28)
HOSTILE = {
    # What the manifest declares, what arrives, and the class and words of the error.
    "flipped byte": (GZIP, flipped(GZIP, 90_000), DigestMismatchError, "has other content than its digest says"),
    "flipped byte, zstd": (ZSTD, flipped(ZSTD, 4), DigestMismatchError, "has other content than its digest says"),
    "flipped magic": (GZIP, flipped(GZIP, 0), DigestMismatchError, "has other content than its digest says"),
    "flipped trailer": (GZIP, flipped(GZIP, len(GZIP) - 1), DigestMismatchError, "expected sha256:"),
    "truncated": (GZIP, GZIP[:100_000], RegistryError, "is truncated"),
    "truncated, zstd": (ZSTD, ZSTD[:100_000], RegistryError, "is truncated"),
    "nothing": (GZIP, b"", RegistryError, "is truncated"),
    "too long": (GZIP, GZIP + b"x", RegistryError, "is longer than the"),
    "too long by far": (GZIP, GZIP + NOISE, RegistryError, "is longer than the"),
    "truncated when made": (GZIP[:-9], GZIP[:-9], ImageError, "cannot be decompressed"),
    "garbage behind": (GZIP + b"garbage", GZIP + b"garbage", ImageError, "cannot be decompressed"),
    "garbage behind zstd": (ZSTD + b"garbage", ZSTD + b"garbage", ImageError, "cannot be decompressed"),
    "broken when made": (flipped(GZIP, 90_000), flipped(GZIP, 90_000), ImageError, "cannot be decompressed"),
    "truncated when made, zstd": (ZSTD[:-9], ZSTD[:-9], ImageError, "unpacks to other content"),
    "another layer": (gzip.compress(b"x"), gzip.compress(b"x"), ImageError, "unpacks to other content"),
    "window too wide": (TOO_WIDE, TOO_WIDE, ImageError, "cannot be decompressed"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_blobs(obtain, cache, tmp_path, case):
    declared, delivered, kind, message = HOSTILE[case]
    source = Memory()
    good = source.add(zstandard.compress(b"good" * 128), b"good" * 128)
    obtain(source, good)
    layer = source.add(declared, TAR)
    source.blobs[layer.digest] = delivered
    before = everything(tmp_path)

    with pytest.raises(BootcTestError) as caught:
        obtain(source, good, layer)

    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert str(layer.digest) in str(caught.value)
    assert everything(tmp_path) == before


def test_a_mismatch_says_what_was_expected_and_what_came(obtain):
    source = Memory()
    layer = source.add(GZIP, TAR)
    source.blobs[layer.digest] = flipped(GZIP, 50_000)
    with pytest.raises(DigestMismatchError) as caught:
        obtain(source, layer)
    assert str(layer.digest) in caught.value.brief
    assert caught.value.details == f"expected {layer.digest}\ngot      {Digest.of(flipped(GZIP, 50_000))}"

    source = Memory()
    layer = source.add(GZIP, TAR, diff_id=Digest.of(b"other"))
    with pytest.raises(ImageError) as caught:
        obtain(source, layer)
    assert caught.value.details == f"expected {Digest.of(b'other')}\ngot      {Digest.of(TAR)}"


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_bomb_is_stopped_early(obtain, tmp_path, monkeypatch, pack):
    monkeypatch.setattr(unpack_module, "RATIO_FROM", 10 << 20)
    source = Memory()
    # 64 MiB of zeros; a hundred times over, which is only reached if nobody stops.
    bomb = pack(bytes(64 << 20)) * 100
    layer = source.add(bomb, b"never known")
    before = everything(tmp_path)

    with pytest.raises(ImageError, match="is a decompression bomb"):
        obtain(source, layer)
    assert everything(tmp_path) == before


def test_an_image_has_a_budget(obtain, tmp_path, monkeypatch):
    monkeypatch.setattr(layers_module, "IMAGE_LIMIT", 5 << 20)
    source = Memory()
    tars = [NOISE[:2_000_000], NOISE[1_000_000:3_000_000], NOISE[:3_000_000]]
    small, other, large = (source.add(tar, tar) for tar in tars)
    obtain(source, small)
    obtain(source, small, other)
    before = everything(tmp_path)

    # What is stored already counts.
    with pytest.raises(ImageError, match="the image unpacks to more than"):
        obtain(source, small, other, large)
    assert everything(tmp_path) == before


def test_a_full_disk_is_told_beforehand(obtain):
    source = Memory()
    layer = source.add(b"x", b"x", size=1 << 60)
    with pytest.raises(DiskError, match="there is no room for the layers of oci:made/up:t"):
        obtain(source, layer)
    assert source.asked == []


class Endless(Memory):
    """Some blobs never end, and tell when they have begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.endless: set[Digest] = set()

    def open_blob(self, digest, deadline, offset=0):
        if digest not in self.endless:
            assert self.begun.wait(10)
            yield from super().open_blob(digest, deadline, offset)
            return
        while not deadline.expired():
            self.begun.set()
            deadline.pause(0.01)
            yield b"x"


def test_the_first_failure_ends_the_others(obtain, cache):
    source = Endless()
    bad = source.add(GZIP, TAR)
    source.blobs[bad.digest] = flipped(GZIP, 9)
    endless = source.add(NOISE, NOISE)
    source.endless = {endless.digest}
    good = [source.add(bytes([number]) * 512, bytes([number]) * 512) for number in range(50)]
    started = time.monotonic()

    with pytest.raises(DigestMismatchError):
        obtain(source, endless, bad, *good)
    assert time.monotonic() - started < 5
    assert len(source.asked) < 10
    assert everything(cache.home / "locks") == set()


def test_the_deadline_is_kept(cache):
    source = Endless()
    layer = source.add(NOISE, NOISE)
    source.endless = {layer.digest}
    image = ResolvedImage(ImageReference.parse("oci:a"), Digest.of(b""), "amd64", {}, (layer,))
    with pytest.raises(RegistryError, match=r"did not arrive within 0\.2 s"):
        LayerStore(cache).obtain(image, source, Deadline.after(0.2), Silent())
    assert everything(cache.layers) == set()


def test_two_runs_make_a_layer_once(tmp_path):
    source = Memory(piece=1000)
    layers = [source.add(gzip.compress(tar), tar) for tar in (NOISE[:1_000_000], NOISE[1_000_000:2_000_000])]
    image = ResolvedImage(ImageReference.parse("oci:a"), Digest.of(b""), "amd64", {}, tuple(layers))
    found = []

    def run():
        found.append(LayerStore(Cache(tmp_path)).obtain(image, source, Deadline.after(30), Silent()))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert len(source.asked) == 2


def test_the_record_beside_a_layer(obtain):
    source = Memory()
    (stored,) = obtain(source, source.add(GZIP, TAR))
    assert json.loads((stored.path.parent / "layer.json").read_text()) == {
        "diff_id": str(stored.diff_id),
        "size": len(TAR),
    }
