"""From unpacked layers to a root: a large image of many layers, and one changed layer of it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.disk.live import Workshop, build_live_disk
from pytest_bootc.image import ImageReference
from pytest_bootc.model import LiveDisk, ResolvedImage
from pytest_bootc.progress import Silent
from pytest_bootc.source import ImageSource, source_for
from rows.figure import Figure

_LAYERS, _ENTRIES = 128, 500_000
_LARGE_MIB = 1024


def measure() -> list[Figure]:
    server = _server()
    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as name:
        folder = Path(name)
        many = _extended(server, folder / "many", [_small_files(n) for n in range(_LAYERS - _count(server))])
        figures = _many_layers(many, folder)
        large = _extended(server, folder / "large", [_large_files(_LARGE_MIB)])
        figures += _changed_layer(server, large, folder)
    return figures


def _many_layers(many: Path, folder: Path) -> list[Figure]:
    cache = folder / "cache-many"
    changed = _extended(many, folder / "many-changed", [_one_file()], without=1)
    return [
        _timed("root of 128 layers with 500 000 entries", many, cache, 25),
        _timed("the same image with another layer on top", changed, cache, 10),
        _timed("the same layers, packed otherwise", _repacked(many, folder / "many-repacked", cache), cache, 1),
    ]


def _changed_layer(server: Path, large: Path, folder: Path) -> list[Figure]:
    cache = folder / "cache-large"
    first = _timed(
        f"root of an image with {_LARGE_MIB} MiB in one layer", large, cache, 1.0 * (_LARGE_MIB + 340) / 1024
    )
    store = sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file())
    tars = sum(path.stat().st_size for path in cache.rglob("*.tar"))
    changed = _extended(server, folder / "changed", [_large_files(_LARGE_MIB), _one_file()])
    again = _timed("the same image with one small layer more", changed, cache, 2.0)
    return [first, again, Figure("store, of the unpacked size", store / tars, "x", 1.05, f"{store >> 20} MiB")]


def _timed(name: str, layout: Path, home: Path, wanted: float) -> Figure:
    """Unpacking is timed apart: the row is about the root."""
    cache = Cache(home)
    deadline = Deadline.after(1800)
    image, source = _resolved(layout)
    began = time.monotonic()
    LayerStore(cache).obtain(image, source, deadline, Silent())
    unpacked = time.monotonic() - began
    with ExitStack() as leases:
        before = sum(os.times()[:4])
        began = time.monotonic()
        disk: LiveDisk = build_live_disk(image, source, Workshop(cache, deadline, Silent(), 40, leases))
        seconds = time.monotonic() - began
        spent = sum(os.times()[:4]) - before
    size = sum(layer.stat().st_size for layer in disk.layers)
    return Figure(
        name,
        seconds,
        "s",
        wanted,
        f"{spent:.1f} s of the processor; {len(disk.layers)} layers, {size >> 20} MiB; unpacked in {unpacked:.1f} s",
    )


def _server() -> Path:
    builder = Path(__file__).parents[2] / "tests" / "images" / "build.py"
    done = subprocess.run([sys.executable, builder, "server"], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def _count(layout: Path) -> int:
    return len(_manifest(layout)["layers"])


def _manifest(layout: Path) -> dict[str, list[dict[str, object]]]:
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].partition(":")[2]
    manifest: dict[str, list[dict[str, object]]] = json.loads((layout / "blobs/sha256" / digest).read_text())
    return manifest


def _extended(server: Path, target: Path, layers: list[bytes], *, without: int = 0) -> Path:
    """A copy of the layout with more layers on top, in the place of so many."""
    shutil.copytree(server, target)
    blobs = target / "blobs/sha256"
    index = json.loads((target / "index.json").read_text())
    manifest = _manifest(target)
    config_name = str(manifest["config"]["digest"]).partition(":")[2]  # type: ignore[call-overload]
    config = json.loads((blobs / config_name).read_text())
    kept = len(manifest["layers"]) - without
    del manifest["layers"][kept:], config["rootfs"]["diff_ids"][kept:]
    for content in layers:
        packed = gzip.compress(content, 1)
        manifest["layers"].append(_put(blobs, packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(content).hexdigest()}")
    config.pop("history", None)
    manifest["config"] = _put(blobs, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")  # type: ignore[assignment]
    entry = _put(blobs, json.dumps(manifest).encode(), index["manifests"][0]["mediaType"])
    index["manifests"][0] |= entry
    (target / "index.json").write_text(json.dumps(index))
    return target


def _repacked(layout: Path, target: Path, home: Path) -> Path:
    """A copy of the layout in which every layer is another blob with the same content."""
    shutil.copytree(layout, target)
    blobs = target / "blobs/sha256"
    index = json.loads((target / "index.json").read_text())
    manifest = _manifest(target)
    image, _ = _resolved(target)
    for descriptor, layer in zip(manifest["layers"], image.layers, strict=True):
        stored = LayerStore(Cache(home)).find(layer.diff_id)
        if stored is None:
            raise SystemExit(f"{layer.diff_id} is not in the cache")
        content = stored.path.read_bytes()[: stored.size]
        descriptor |= _put(blobs, gzip.compress(content, 2), "application/vnd.oci.image.layer.v1.tar+gzip")
    index["manifests"][0] |= _put(blobs, json.dumps(manifest).encode(), index["manifests"][0]["mediaType"])
    (target / "index.json").write_text(json.dumps(index))
    return target


def _resolved(layout: Path) -> tuple[ResolvedImage, ImageSource]:
    reference = ImageReference.parse(f"oci:{layout}:latest")
    source = source_for(reference)
    return source.resolve(reference, Deadline.after(1800)), source


def _put(blobs: Path, content: bytes, media_type: str) -> dict[str, object]:
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(content)}


def _small_files(number: int) -> bytes:
    per_layer = _ENTRIES // _LAYERS
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for parent in ("usr", "usr/share", f"usr/share/bench-{number}"):
            _add(tar, parent, None)
        for file in range(per_layer):
            if file % 100 == 0:
                _add(tar, f"usr/share/bench-{number}/{file // 100}", None)
            _add(tar, f"usr/share/bench-{number}/{file // 100}/file-{file}", b"%d\n" % file)
    return out.getvalue()


def _large_files(mib: int) -> bytes:
    rng = random.Random(1)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for parent in ("usr", "usr/share", "usr/share/large"):
            _add(tar, parent, None)
        for number in range(mib):
            _add(tar, f"usr/share/large/{number}", rng.randbytes(1 << 16) * 16)
    return out.getvalue()


def _one_file() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for parent in ("usr", "usr/share"):
            _add(tar, parent, None)
        _add(tar, "usr/share/changed", b"changed\n")
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes | None) -> None:
    entry = tarfile.TarInfo(name)
    entry.mtime = 1_700_000_000
    entry.mode = 0o755 if content is None else 0o644
    entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    entry.size = len(content or b"")
    tar.addfile(entry, io.BytesIO(content or b""))
