from __future__ import annotations

import random
import subprocess

import pytest
import zstandard

from pytest_bootc.disk import packed
from pytest_bootc.disk.packed import PackedError, unpack

CONTENT = random.Random(7).randbytes(300_000) + bytes(300_000)
PACKERS = {
    "gzip": ["gzip", "-9n"],
    "xz": ["xz", "--check=crc32", "--x86", "--lzma2=preset=6"],
    "lzma": ["xz", "--format=lzma"],
    "zstd": ["zstd", "-19", "-q"],
}


def pack(kind: str, content: bytes = CONTENT) -> bytes:
    return subprocess.run([*PACKERS[kind], "-c"], input=content, capture_output=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("kind", PACKERS)
def test_what_the_programs_pack_is_unpacked(kind: str) -> None:
    assert unpack(pack(kind)) == CONTENT
    assert unpack(pack(kind) + b"1234") == CONTENT  # the size that a kernel has behind its payload
    assert unpack(pack(kind) + bytes(20_000)) == CONTENT
    assert unpack(pack(kind, b"")) == b""


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("missing", [1, 20, 200_000])
def test_a_stream_that_is_cut_off_is_an_error(kind: str, missing: int) -> None:
    with pytest.raises(PackedError):
        unpack(pack(kind)[:-missing])


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd"])
def test_a_stream_that_is_broken_is_an_error(kind: str) -> None:
    broken = bytearray(pack(kind))
    broken[len(broken) // 2] ^= 0xFF
    if kind == "zstd":  # has no checksum without --check, so break its structure
        broken[6:60] = bytes(range(200, 254))
    with pytest.raises(PackedError):
        unpack(bytes(broken))


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_not_unpacked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "LIMIT", 1 << 20)
    assert len(unpack(pack(kind, bytes(1 << 20)))) == 1 << 20
    with pytest.raises(PackedError, match="more than 1 MiB"):
        unpack(pack(kind, bytes((1 << 20) + 1)))
    with pytest.raises(PackedError, match="more than 1 MiB"):
        unpack(pack(kind, bytes(64 << 20)))


def test_a_zstd_stream_may_have_a_large_window() -> None:
    """Kernels are packed with --ultra -22, whose window is 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    content = CONTENT * 3
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert unpack(stream.compress(content) + stream.flush()) == content


@pytest.mark.parametrize("content", [b"", b"BZh91AY", b"\x7fELF", b"\x02\x21\x4c\x18"])
def test_other_formats_are_named_errors(content: bytes) -> None:
    with pytest.raises(PackedError, match="not packed by gzip, xz, lzma or zstd"):
        unpack(content)
