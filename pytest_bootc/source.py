"""Where the bytes of images come from: one interface over registries, layouts and archives, and the table of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol

from pytest_bootc.deadline import Deadline
from pytest_bootc.image import Digest, ImageReference, Transport
from pytest_bootc.model import ResolvedImage
from pytest_bootc.progress import Progress

#: How many bytes :meth:`ImageSource.open_blob` hands over at a time, at most.
CHUNK = 1 << 20


class ImageSource(Protocol):
    """The place that one image reference points to. May be used from several threads at once."""

    @property
    def remote(self) -> bool:
        """Whether blobs come over a network, so that what has come of one is worth keeping when the rest does not."""

    def resolve(self, reference: ImageReference, deadline: Deadline, architecture: str = "amd64") -> ResolvedImage:
        """The image for Linux on ``architecture`` (the word of the OCI image-spec: amd64, arm64 ...).

        The digests of manifest and configuration have been verified when this returns.

        :raises ImageReferenceError: there is no image of that name, or none for the architecture.
        :raises ImageError: what is there cannot be an image: wrong counts, encrypted layers ...
        :raises RegistryError: the source did not deliver.
        :raises DigestMismatchError: it delivered other bytes than were asked for.
        """

    @contextmanager
    def opened(
        self, image: ResolvedImage, scratch: Path, deadline: Deadline, progress: Progress
    ) -> Iterator[ResolvedImage]:
        """Have the blobs of a resolved image at hand for as long as the context lasts.

        What comes back is the same image with its layers as :meth:`open_blob` delivers them. ``scratch`` is a path
        where nothing is yet, for a source that has to write the blobs somewhere; the caller removes what is there.

        :raises RegistryError: the source did not deliver.
        """

    def open_blob(self, digest: Digest, deadline: Deadline, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a blob from ``offset`` on, in pieces of at most :data:`CHUNK` bytes. The caller verifies them.

        :raises RegistryError: the source did not deliver, at the first piece or later.
        """


# Loaded by name: the registry's library takes a quarter of a second to import, and a layout does not need it.
_SOURCES = {
    Transport.REGISTRY: "pytest_bootc.registry:RegistrySource",
    Transport.LAYOUT: "pytest_bootc.layout:LayoutSource",
    Transport.ARCHIVE: "pytest_bootc.layout:LayoutSource",
    Transport.STORAGE: "pytest_bootc.podman:PodmanSource",
}


def source_for(reference: ImageReference) -> ImageSource:
    """The source that the reference points to.

    :raises ConfigError: it takes a program that this host lacks, or a setting of the host that cannot be read.
    """
    module, _, name = _SOURCES[reference.transport].partition(":")
    source: ImageSource = getattr(import_module(module), name)(reference)
    return source
