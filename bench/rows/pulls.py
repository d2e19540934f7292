"""An image from a registry on the loopback: ours, requests on the same blobs, and skopeo where it is installed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import socket
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import requests

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.image import ImageReference
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for
from rows.figure import Figure

_LAYERS, _MIB = 6, 1 << 20
_LAYER_MIB = 100  # of which half can be packed
_ROUNDS = 5
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

Described = dict[str, object]


def measure() -> list[Figure]:
    skopeo = shutil.which("skopeo")
    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as name, _registry(Path(name)) as host:
        size = _push_image(f"http://{host}/v2/large")
        ways: dict[str, Callable[[Path], None]] = {
            "ours": lambda folder: _pull(f"{host}/large:v1", folder),
            "blobs": lambda folder: _blobs(f"{host}/large:v1", folder),
            "requests": lambda folder: _requests(f"http://{host}/v2/large", folder),
        }
        if skopeo:
            ways["skopeo"] = lambda folder: _skopeo(skopeo, f"{host}/large:v1", folder)
        taken = _timed(ways, Path(name))
    paired = {
        way: statistics.median(mine / theirs for mine, theirs in zip(taken[mine_of], taken[way], strict=True))
        for way, mine_of in (("requests", "blobs"), ("skopeo", "ours"))
        if way in taken
    }
    told = ", ".join(f"{way} {statistics.median(seconds):.1f} s" for way, seconds in taken.items())
    figures = [
        Figure("blobs of a registry, of what requests takes", paired["requests"], "x", 1.2, f"{size} MiB; {told}")
    ]
    if "skopeo" in paired:
        what = "ours unpacks and hashes what comes out, skopeo copies to an OCI layout"
        figures.append(Figure("pull from a registry, of what skopeo takes", paired["skopeo"], "x", 2.0, what))
    return figures


def _timed(ways: dict[str, Callable[[Path], None]], folder: Path) -> dict[str, list[float]]:
    """Each way in turn, several times over."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_ROUNDS):
        for way, run in ways.items():
            work = folder / "work"
            work.mkdir()
            began = time.monotonic()
            run(work)
            taken[way].append(time.monotonic() - began)
            shutil.rmtree(work)
    return taken


def _pull(text: str, folder: Path) -> None:
    reference, deadline = ImageReference.parse(text), Deadline.after(600)
    source = source_for(reference)
    image = source.resolve(reference, deadline)
    LayerStore(Cache(folder)).obtain(image, source, deadline, Silent())


def _blobs(text: str, folder: Path) -> None:
    """What of a pull is the registry's part: fetched and hashed, one after the other as below."""
    reference, deadline = ImageReference.parse(text), Deadline.after(600)
    source = source_for(reference)
    for layer in source.resolve(reference, deadline).layers:
        _write(folder / layer.digest.hex, source.open_blob(layer.digest, deadline))


def _requests(base: str, folder: Path) -> None:
    with requests.Session() as session:
        session.trust_env = False
        manifest = session.get(f"{base}/manifests/v1", headers={"Accept": _MANIFEST_TYPE}, timeout=30).json()
        for layer in manifest["layers"]:
            with session.get(f"{base}/blobs/{layer['digest']}", stream=True, timeout=30) as answer:
                _write(folder / layer["digest"].partition(":")[2], answer.iter_content(_MIB))


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != path.name:
        raise SystemExit(f"{path.name} came as another blob")


def _skopeo(program: str, name: str, folder: Path) -> None:
    argv = [program, "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{folder}/layout:v1"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _registry(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": host},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    argv = ["docker-registry", "serve", str(folder / "config.yml")]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _listens(host), Deadline.after(20), what="docker-registry")
            yield host
        finally:
            process.terminate()


def _listens(host: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(host.rpartition(":")[2]))) == 0


def _push_image(base: str) -> int:
    """An image of large layers; its size in MiB as it comes over the network."""
    layers, diff_ids = [], []
    for number in range(_LAYERS):
        tar = _tar(random.Random(number))
        diff_ids.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        layers.append(_push(base, gzip.compress(tar, 1), _LAYER_TYPE))
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    described = _push(base, json.dumps(config).encode(), _CONFIG_TYPE)
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, "config": described, "layers": layers}
    answer = requests.put(
        f"{base}/manifests/v1", json.dumps(manifest).encode(), headers={"Content-Type": _MANIFEST_TYPE}, timeout=30
    )
    answer.raise_for_status()
    return sum(int(str(layer["size"])) for layer in layers) // _MIB


def _push(base: str, content: bytes, kind: str) -> Described:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    place = requests.post(f"{base}/blobs/uploads/", timeout=30).headers["Location"]
    answer = requests.put(urljoin(base, place), content, params={"digest": digest}, timeout=300)
    answer.raise_for_status()
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def _tar(source: random.Random) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(_LAYER_MIB):
            info = tarfile.TarInfo(f"usr/share/file{number}")
            info.size = _MIB
            content = source.randbytes(_MIB // 2)
            tar.addfile(info, io.BytesIO(content + bytes(_MIB // 2)))
    return file.getvalue()
