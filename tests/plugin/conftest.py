"""What the tests of the plugin stand on: image layouts to name, scripts for fake machines, and installed copies."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import pytest_bootc

# Runs in this process forget what they have imported (pytester), but the package keeps it as attributes: what is
# imported before them stays one and the same.
import pytest_bootc.feature_hooks
import pytest_bootc.guest
import pytest_bootc.hooks
import pytest_bootc.machine.fake
import pytest_bootc.ssh

Judge = Callable[..., pytest.RunResult]

_HOST = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    """Nothing of the user's own settings, no shuffling; the folder of the test is the current one."""
    for name in [name for name in os.environ if name.startswith(("BOOTC_", "XDG_CACHE"))]:
        monkeypatch.delenv(name)
    # With them pytest shortens no line of its summary.
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-pno:randomly")


@pytest.fixture
def layout(tmp_path: Path) -> Callable[..., str]:
    """Write an OCI layout with one empty layer and return its reference."""

    def write(name: str = "server", tag: str = "v1", architecture: str = _HOST) -> str:
        folder = tmp_path / name
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)

        def blob(content: bytes, kind: str) -> dict[str, Any]:
            digest = hashlib.sha256(content).hexdigest()
            (blobs / digest).write_bytes(content)
            media_type = f"application/vnd.oci.image.{kind}"
            return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

        packed = io.BytesIO()
        tarfile.open(fileobj=packed, mode="w").close()
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}"]}
        config = {"architecture": architecture, "os": "linux", "config": {"Labels": {"name": name}}, "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [blob(gzip.compress(packed.getvalue(), mtime=0), "layer.v1.tar+gzip")],
        }
        entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return f"oci:{folder}:{tag}"

    return write


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a script for the fake machines; return the path of their log."""

    def write(text: str) -> Path:
        log = tmp_path / "fake.log"
        (tmp_path / "fake.toml").write_text(f'log = "{log}"\n{text}\n')
        monkeypatch.setenv("BOOTC_FAKE", str(tmp_path / "fake.toml"))
        return log

    return write


@pytest.fixture
def judge(pytester: pytest.Pytester, layout: Callable[..., str]) -> Judge:
    """Run pytest on an image with fake machines, in this process or (``apart=True``) in one of its own."""

    def run(*arguments: str, apart: bool = False, image: str | None = None) -> pytest.RunResult:
        start = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        return start("--backend=fake", f"--image={image or layout()}", *arguments)

    return run


@pytest.fixture
def write(pytester: pytest.Pytester) -> Callable[[Mapping[str, str]], None]:
    """Write files below the test's folder."""

    def put(files: Mapping[str, str]) -> None:
        for name, content in files.items():
            path = pytester.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(content))

    return put


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the hooks of features have told, a line each, in the file that EVENTS names."""
    path = tmp_path / "events"
    monkeypatch.setenv("EVENTS", str(path))
    # So that pytest's summary is not cut.
    monkeypatch.setenv("COLUMNS", "200")
    return lambda: path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def install(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put the package with other suites where Python finds it first; return the suites' folder.

    ``wheel``: the suites are inside the package, as a wheel has them; else beside it, as a checkout has. Runs must
    be in a process of their own.
    """

    def put(suites: Mapping[str, str], *, wheel: bool) -> Path:
        site = pytester.path.parent / f"{pytester.path.name}-{'site' if wheel else 'checkout'}"
        package = site / "pytest_bootc"
        source = Path(pytest_bootc.__file__).parent
        if wheel:
            package.mkdir(parents=True)
            for entry in source.iterdir():
                if entry.name not in ("suites", "__pycache__"):
                    (package / entry.name).symlink_to(entry)
        else:
            site.mkdir()
            package.symlink_to(source)
        folder = (package if wheel else site) / "suites"
        for name, content in suites.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setenv("PYTHONPATH", str(site))
        return folder

    return put
