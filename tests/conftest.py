"""OCI images made by hand, so that a test can make each byte of them wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

# Half of its scenarios are to fail; tests/plugin/test_features_behave.py runs a copy.
collect_ignore = ["features_behave"]

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

Descriptor = dict[str, Any]
Member = tuple[tarfile.TarInfo, bytes]


class OCILayout:
    """A layout folder that is filled piece by piece; ``index`` makes it complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.index()

    def blob(self, content: bytes, media_type: str) -> Descriptor:
        name = hashlib.sha256(content).hexdigest()
        (self.blobs / name).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(content)}

    def json(self, value: Mapping[str, Any], media_type: str) -> Descriptor:
        return self.blob(json.dumps(value).encode(), media_type)

    def layer(self, tar: bytes, compression: str = "+gzip") -> Descriptor:
        packed = {"": bytes, "+gzip": gzip.compress, "+zstd": zstandard.compress}[compression](tar)
        return self.blob(packed, LAYER_TYPE + compression)

    def image(self, *tars: bytes, compression: str = "+gzip", **changes: Any) -> Descriptor:
        """The descriptor of a manifest; ``changes`` replace parts of it or, as ``config_X``, of its configuration."""
        layers = [self.layer(tar, compression) for tar in tars]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"made": "by hand"}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]},
        }
        config |= {key.removeprefix("config_"): changes.pop(key) for key in list(changes) if key.startswith("config_")}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self.json(config, CONFIG_TYPE),
            "layers": layers,
        }
        return self.json(manifest | changes, MANIFEST_TYPE)

    def manifest_list(self, *descriptors: Descriptor) -> Descriptor:
        return self.json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": descriptors}, INDEX_TYPE)

    def index(self, *descriptors: Descriptor) -> None:
        """Write index.json; the last one counts."""
        content = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": descriptors}
        (self.path / "index.json").write_text(json.dumps(content))

    def file(self, descriptor: Descriptor) -> Path:
        """Where a blob is."""
        return self.blobs / descriptor["digest"].partition(":")[2]

    def archive(self, path: Path, prefix: str = "") -> Path:
        """The layout as a tar file."""
        with tarfile.open(path, "w") as tar:
            for file in sorted(self.path.rglob("*")):
                tar.add(file, f"{prefix}{file.relative_to(self.path)}", recursive=False)
        return path


@pytest.fixture
def oci_layout(tmp_path: Path) -> OCILayout:
    return OCILayout(tmp_path / "layout")


@pytest.fixture
def member() -> Callable[..., Member]:
    """A tar member: a name, perhaps content, and what else its header is to say."""

    def make(name: str, content: bytes = b"", **header: Any) -> Member:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in header.items():
            setattr(info, key, value)
        return info, content

    return make


@pytest.fixture
def tar_of() -> Callable[..., bytes]:
    """The bytes of a tar with these members, as they come."""

    def make(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
        return _tar(members, format)

    return make


def _tar(members: Iterable[Member], format: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()
