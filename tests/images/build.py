#!/usr/bin/env python3
"""Build a test image as an OCI image layout: `python tests/images/build.py NAME [-o DIR [--tag TAG]]`.

Without `-o` the layout is kept in the user's cache, built only when these sources have not built it yet, and its path
is printed.

Two builds from the same package versions have the same digests: entries are sorted, no mtime is younger than
SOURCE_DATE_EPOCH, and no compressor writes a time stamp. To check it, build `server` twice and compare the two
`index.json` files.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import debian
import flatcar
import oci
import variants
import workstation
from oddities import SOURCE_DATE_EPOCH

SOURCES = Path(__file__).parent
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "created": datetime.fromtimestamp(SOURCE_DATE_EPOCH, UTC).isoformat(),
    "config": {
        "Cmd": ["/sbin/init"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"],
        "Labels": {"containers.bootc": "1", "org.opencontainers.image.version": "13"},
        "StopSignal": "SIGRTMIN+3",
    },
}


def _packaged(recipe: debian.Recipe) -> Callable[[Path, str], None]:
    def build_packaged(target: Path, tag: str) -> None:
        writer = oci.LayoutWriter(target)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".packages-") as folder:
            tar = Path(folder) / "root.tar"
            debian.bootstrap(recipe, tar)
            for layer in debian.layers(recipe, tar):
                writer.add_layer(layer)
        writer.finish(CONFIG, tag)

    return build_packaged


def _variant(make: Callable[[oci.Layout, Path, str], None]) -> Callable[[Path, str], None]:
    def build_variant(target: Path, tag: str) -> None:
        make(oci.Layout.read(ensure("server")), target, tag)

    return build_variant


BUILDERS: dict[str, Callable[[Path, str], None]] = {
    "server": _packaged(debian.SERVER),
    "workstation": _packaged(workstation.RECIPE),
    "flatcar": _packaged(flatcar.RECIPE),
    **{name: _variant(make) for name, make in variants.MAKERS.items()},
}

#: Beside what all images are made of; a variant, of the server image, has no line here.
FURTHER_SOURCES = {"server": (), "workstation": ("workstation.py", "flatpaks"), "flatcar": ("flatcar.py",)}


def build(name: str, target: Path, tag: str = "latest") -> None:
    """Build the image `name` into the layout `target`, which must not exist; it appears whole or not at all."""
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    _publish(target, lambda layout: BUILDERS[name](layout, tag))


def ensure(name: str) -> Path:
    """The cached layout of the image `name`, built first when these sources have not built it yet."""
    return cached(name, _key(name), lambda layout: BUILDERS[name](layout, "latest"))


def cached(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder of `name` in the cache; `make` makes it first where there is none for this `key` (16 hex digits)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-bootc" / "test-images"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{name}-{key}"
    with (cache / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _forget_old(cache, name)
            _publish(target, make)
    return target


def _publish(target: Path, make: Callable[[Path], None]) -> None:
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        made = scratch / "made"
        make(made)
        made.rename(target)
    finally:
        shutil.rmtree(scratch)


def _key(name: str) -> str:
    sources = ["oci.py", "oddities.py", "debian.py", "build.py", *FURTHER_SOURCES.get(name, ["variants.py"])]
    return hashlib.sha256(b"".join((SOURCES / source).read_bytes() for source in sources)).hexdigest()[:16]


def _forget_old(cache: Path, name: str) -> None:
    """Remove what killed builds of `name` left, and layouts of other sources older than a day (no run lasts longer)."""
    finished = f"{name}-" + "[0-9a-f]" * 16
    for path in cache.glob(f".{finished}-*"):
        shutil.rmtree(path)
    for path in cache.glob(finished):
        if path.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(path)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description="Build a test image as an OCI image layout.")
    parser.add_argument("name", choices=sorted(BUILDERS))
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="layout to create (default: a cached one)")
    parser.add_argument("--tag", default="latest", help="ref name of the image in the layout (default: latest)")
    arguments = parser.parse_args()
    if arguments.output:
        build(arguments.name, arguments.output, arguments.tag)
    else:
        print(ensure(arguments.name))


if __name__ == "__main__":
    main()
