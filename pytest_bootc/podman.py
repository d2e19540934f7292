"""Images in the storage of Podman and its kin on this host (``containers-storage:``), by way of ``podman``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_bootc.command import CommandError, Completed, Process, TimeoutExpired, find_program, pasteable, run, spawn
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ImageError, ImageReferenceError, RegistryError
from pytest_bootc.image import Digest, ImageReference, Transport
from pytest_bootc.layout import LayoutSource
from pytest_bootc.model import Layer, ResolvedImage
from pytest_bootc.progress import Progress, Stage
from pytest_bootc.source import ImageSource

_ASK_SECONDS = 60.0
_LOOK_SECONDS = 0.2
_END_SECONDS = 5.0
_SHOWN_LOG = 2000
_UNKNOWN = ("image not known", "no such image", "failed to find image", "unable to find")
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class _Inspected:
    """What podman says of an image; ``size`` is in bytes."""

    identity: str
    digest: Digest
    platform: str
    size: int
    config: Mapping[str, object]
    diff_ids: tuple[Digest, ...]


class PodmanSource:
    """An image in a storage as an :class:`~pytest_bootc.source.ImageSource`.

    Podman is asked which image it is, and writes it out only where its blobs are needed. Its digest is the one that
    Podman knows it by: of a pulled image the registry's.

    :raises ConfigError: the host has no podman.
    """

    remote = False

    def __init__(self, reference: ImageReference) -> None:
        self._reference = reference
        program = find_program(
            "podman", resolution="install podman, or write the image to a folder elsewhere, and use oci:DIR"
        )
        self._podman = (str(program), *_options(reference.store))
        self._saved: ImageSource | None = None

    def resolve(self, reference: ImageReference, deadline: Deadline, architecture: str = "amd64") -> ResolvedImage:
        """See :meth:`pytest_bootc.source.ImageSource.resolve`.

        Of the layers only their diff-ids are known yet.
        """
        found = self._inspect(reference, deadline)
        if found.platform != f"linux/{architecture}":
            raise ImageReferenceError(
                f"{reference}: the image is made for {found.platform.removeprefix('linux/')}; "
                f"this machine runs {architecture}",
                resolution=f"build or choose an image for linux/{architecture}",
            )
        if not found.diff_ids:
            raise ImageError(f"{reference} has no layers")
        layers = tuple(Layer(diff_id, diff_id, _LAYER_TYPE, 0) for diff_id in found.diff_ids)
        return ResolvedImage(reference, found.digest, architecture, found.config, layers)

    @contextmanager
    def opened(
        self, image: ResolvedImage, scratch: Path, deadline: Deadline, progress: Progress
    ) -> Iterator[ResolvedImage]:
        """See :meth:`pytest_bootc.source.ImageSource.opened`."""
        found = self._inspect(self._reference.pinned(image.digest), deadline)
        with progress.stage(f"saving {image.reference.short}", found.size) as stage:
            self._save(found.identity, scratch, deadline, stage)
        layout = ImageReference(Transport.LAYOUT, str(scratch))
        source = LayoutSource(layout)
        saved = source.resolve(layout, deadline, image.architecture)
        if [layer.diff_id for layer in saved.layers] != [layer.diff_id for layer in image.layers]:
            raise RegistryError(f"podman wrote another image than {image.reference}", resolution="try again")
        self._saved = source
        try:
            yield replace(image, layers=saved.layers)
        finally:
            self._saved = None

    def open_blob(self, digest: Digest, deadline: Deadline, offset: int = 0) -> Iterator[bytes]:
        """See :meth:`pytest_bootc.source.ImageSource.open_blob`; only while the image is :meth:`opened`."""
        if self._saved is None:
            raise RegistryError(f"{self._reference} has not been written out")
        return self._saved.open_blob(digest, deadline, offset)

    def _inspect(self, reference: ImageReference, deadline: Deadline) -> _Inspected:
        name = reference.name if reference.tag is None else f"{reference.name}:{reference.tag}"
        if reference.digest is not None:  # Podman takes no tag beside it
            name = f"{reference.name}@{reference.digest}"
        done = self._ask(("image", "inspect", name), deadline)
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip()
            details = f"$ {pasteable(done.argv)}\n{words}"
            if any(unknown in words.lower() for unknown in _UNKNOWN):
                raise ImageReferenceError(
                    f"podman has no image {name}",
                    details=details,
                    resolution="check the name; `podman images` lists what this user has, `sudo podman images` what "
                    "root has",
                )
            raise RegistryError(f"podman does not say what {name} is", details=details)
        try:
            return _read(json.loads(done.stdout)[0])
        except (ValueError, LookupError, TypeError, ImageReferenceError) as error:
            raise RegistryError(f"what podman says of {name} cannot be understood", details=repr(error)) from error

    def _ask(self, arguments: Sequence[str], deadline: Deadline) -> Completed:
        try:
            return run((*self._podman, *arguments), deadline=deadline.sooner(_ASK_SECONDS), check=False)
        except CommandError as error:
            raise RegistryError("podman does not answer", details=str(error)) from error

    def _save(self, identity: str, folder: Path, deadline: Deadline, stage: Stage) -> None:
        """Have the image written to a folder, uncompressed: its layers are unpacked at once anyway."""
        # Podman keeps what it is writing in /var/tmp, and leaves it there if it is ended.
        work = folder.with_name(f"{folder.name}.tmp")
        work.mkdir()
        save = ("save", "--quiet", "--uncompressed", "--format", "oci-dir", "-o", str(folder), identity)
        argv = ("env", f"TMPDIR={work}", *self._podman, *save)
        with tempfile.TemporaryFile() as log:
            process = spawn(argv, stdout=log, stderr=log)
            try:
                status = _watched(process, folder, deadline, stage)
            finally:
                _end(process)
            log.seek(0)
            told = f"$ {pasteable(argv)}\n{log.read()[-_SHOWN_LOG:].decode(errors='replace').strip()}"
        if status is None:
            raise RegistryError(f"podman did not write the image within {deadline.seconds:g} s", details=told)
        if status != 0:
            raise RegistryError(f"podman did not write the image: exit status {status}", details=told)


def _options(store: str) -> tuple[str, ...]:
    """Podman's options for a storage (containers-transports(5))."""
    if not store:
        return ()
    place, _, more = store.partition(":")
    driver, at, roots = place.rpartition("@")
    root, plus, runroot = roots.partition("+")
    options = ["--root", root]
    options += ["--runroot", runroot] if plus else []
    options += ["--storage-driver", driver] if at else []
    for option in filter(None, more.split(",")):
        options += ["--storage-opt", option]
    return tuple(options)


def _read(said: Mapping[str, object]) -> _Inspected:
    """The answer of ``podman image inspect`` for one image."""
    architecture, system, root = str(said["Architecture"]), str(said["Os"]), said["RootFS"]
    diff_ids = root.get("Layers") if isinstance(root, dict) else None
    if not isinstance(diff_ids, list):
        raise TypeError("RootFS has no Layers")
    size = said.get("Size")
    config = {
        "architecture": architecture,
        "os": system,
        "config": said.get("Config") or {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return _Inspected(
        identity=str(said["Id"]),
        digest=Digest.parse(str(said["Digest"])),
        platform=f"{system}/{architecture}",
        size=size if isinstance(size, int) else 0,
        config=config,
        diff_ids=tuple(Digest.parse(str(diff_id)) for diff_id in diff_ids),
    )


def _watched(process: Process, folder: Path, deadline: Deadline, stage: Stage) -> int | None:
    """Tell how the folder grows until the program ends; its exit status, or ``None`` after the deadline."""
    told = 0
    while True:
        try:
            status: int | None = process.wait(min(_LOOK_SECONDS, deadline.remaining()))
        except TimeoutExpired:
            status = None
        size = _size(folder)
        stage.advance(max(0, size - told))
        told = max(told, size)
        if status is not None or deadline.expired():
            return status


def _size(folder: Path) -> int:
    """How many bytes lie below a folder, in which files come and go."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _end(process: Process) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except TimeoutExpired:
        process.kill()
        process.wait()
