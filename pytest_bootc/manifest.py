"""From a name to one image: index, manifest and configuration, checked (OCI image-spec; Docker's v2 schema 2 too).

Pure: where the documents come from is the caller's business, by way of one small function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_bootc.errors import DigestMismatchError, ImageError, ImageReferenceError, RegistryError
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.model import Layer, ResolvedImage

#: No index, manifest or configuration may be longer than this many bytes.
DOCUMENT_LIMIT = 4 << 20

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
#: What a registry is asked for, best first.
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX)

_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_LAYER_TYPES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
)
_COMPRESSIONS = ("", "+gzip", "+zstd", ".gzip", ".zstd")
_LAYERS = frozenset(kind + suffix for kind in _LAYER_TYPES for suffix in _COMPRESSIONS)
_LAYER_COUNT = 128
_INDEX_DEPTH = 4

#: How the distribution-spec calls the two kinds of things that a digest names.
Kind = Literal["manifests", "blobs"]
#: Fetches a document by kind, digest and the size that its descriptor declares, in bytes.
Fetch = Callable[[Kind, Digest, int], bytes]


@dataclass(frozen=True)
class Document:
    """An index or a manifest: its digest and its parsed JSON."""

    digest: Digest
    content: Mapping[str, object]


def parse_document(raw: bytes, digest: Digest, what: str) -> Document:
    """Verify and parse an index or a manifest.

    :raises DigestMismatchError: the bytes are others than the digest says.
    :raises RegistryError: they are not a JSON object.
    """
    verify(raw, digest, what)
    return Document(digest, parse_json(raw, what))


def verify(raw: bytes, digest: Digest, what: str) -> None:
    """Compare the bytes of a small document with the digest by which it was asked for.

    :raises DigestMismatchError: they do not have it.
    """
    found = Digest.of(raw, digest.algorithm)
    if found != digest:
        raise DigestMismatchError(
            f"{what} has other content than its digest says",
            details=f"expected {digest}\ngot      {found} ({len(raw)} bytes)",
            resolution="fetch or push the image again: what is stored there is damaged or was tampered with",
        )


def parse_json(raw: bytes, what: str) -> Mapping[str, object]:
    """The JSON object that the bytes are.

    :raises RegistryError: they are none.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{what} is not JSON", details=str(error)) from error
    if not isinstance(content, dict):
        raise RegistryError(f"{what} is not a JSON object", details=repr(content)[:200])
    return content


def resolve(reference: ImageReference, root: Document, architecture: str, fetch: Fetch) -> ResolvedImage:
    """The image that ``root``, an index or a manifest, holds for Linux on ``architecture``.

    :raises ImageReferenceError: it holds none.
    :raises ImageError: it cannot be an image.
    """
    walk = _Walk(reference, architecture, fetch)
    return walk.image(walk.choose(root, 0))


@dataclass(frozen=True)
class _Walk:
    reference: ImageReference
    architecture: str
    fetch: Fetch

    def choose(self, document: Document, depth: int) -> Document:
        """The manifest for our platform, in or below the document."""
        content = document.content
        if is_index(content):
            if depth >= _INDEX_DEPTH:
                raise ImageError(f"{self.reference} has indexes nested more than {_INDEX_DEPTH} deep")
            return self._choose_from(descriptors(content, "manifests", f"the index of {self.reference}"), depth)
        if content.get("schemaVersion") == 1 or "fsLayers" in content:
            raise ImageError(
                f"{self.reference} has a manifest of the old schema 1", resolution="push it again with a current tool"
            )
        if "layers" not in content or "config" not in content:
            raise ImageError(f"{self.reference}: {document.digest} is neither a manifest nor an index")
        return document

    def _choose_from(self, entries: Sequence[Mapping[str, object]], depth: int) -> Document:
        ours, unsaid, others = [], [], []
        for entry in entries:
            said = platform(entry)
            if said is None:
                unsaid.append(entry)
            elif said == f"linux/{self.architecture}":
                ours.append(entry)
            elif said != "unknown/unknown":  # an attestation
                others.append(said)
        # Of several for one architecture the one without a variant (v2, v3) runs everywhere.
        ours.sort(key=lambda entry: bool(_mapping(entry.get("platform")).get("variant")))
        candidates = ours or unsaid
        if not candidates:
            raise self._other_platform(others)
        if not ours and len(candidates) > 1:
            raise ImageReferenceError(
                f"{self.reference} is an index of {len(candidates)} images that do not say what they run on",
                resolution="name the wanted one by its digest",
            )
        return self.choose(self._document(candidates[0]), depth + 1)

    def _document(self, descriptor: Mapping[str, object]) -> Document:
        digest, size = declared(descriptor, str(self.reference))
        return parse_document(self.fetch("manifests", digest, size), digest, f"the manifest of {self.reference}")

    def image(self, manifest: Document) -> ResolvedImage:
        """Check the manifest and its configuration against each other."""
        described = _mapping(manifest.content.get("config"))
        if described.get("mediaType") not in _CONFIGS:
            raise ImageReferenceError(
                f"{self.reference} is not a container image",
                details=f"its configuration is of the type {described.get('mediaType')!r}",
            )
        digest, size = declared(described, str(self.reference))
        raw = self.fetch("blobs", digest, size)
        what = f"the configuration of {self.reference}"
        verify(raw, digest, what)
        config = parse_json(raw, what)
        found = f"{config.get('os')}/{config.get('architecture')}"
        if found != f"linux/{self.architecture}":
            raise self._other_platform([found])
        return ResolvedImage(
            reference=self.reference,
            digest=manifest.digest,
            architecture=self.architecture,
            config=config,
            layers=self._layers(manifest.content, config),
        )

    def _layers(self, manifest: Mapping[str, object], config: Mapping[str, object]) -> tuple[Layer, ...]:
        blobs = descriptors(manifest, "layers", f"the manifest of {self.reference}")
        diff_ids = _mapping(config.get("rootfs")).get("diff_ids")
        if not isinstance(diff_ids, list) or len(diff_ids) != len(blobs):
            count = len(diff_ids) if isinstance(diff_ids, list) else 0
            raise ImageError(
                f"{self.reference} contradicts itself: {len(blobs)} layers in the manifest, "
                f"{count} diff_ids in the configuration"
            )
        if not 1 <= len(blobs) <= _LAYER_COUNT:
            raise ImageError(f"{self.reference} has {len(blobs)} layers; there must be 1 to {_LAYER_COUNT}")
        return tuple(self._layer(blob, diff_id) for blob, diff_id in zip(blobs, diff_ids, strict=True))

    def _layer(self, blob: Mapping[str, object], diff_id: object) -> Layer:
        kind = str(blob.get("mediaType"))
        digest, size = declared(blob, str(self.reference))
        if "nondistributable" in kind or ".foreign." in kind:
            raise ImageError(
                f"{self.reference} has a layer that registries do not hold ({kind})",
                details=f"blob {digest}",
                resolution="build the image without non-distributable layers",
            )
        if kind.endswith("+encrypted"):
            raise ImageError(f"{self.reference} has an encrypted layer", details=f"blob {digest} is {kind}")
        if kind not in _LAYERS:
            raise ImageError(f"{self.reference} has a layer of an unknown type", details=f"blob {digest} is {kind}")
        return Layer(
            digest=digest,
            diff_id=declared({"digest": diff_id, "size": 0}, str(self.reference))[0],
            media_type=kind,
            size=size,
        )

    def _other_platform(self, found: Sequence[str]) -> ImageReferenceError:
        names = sorted({name.removeprefix("linux/") for name in found})
        if not names:
            return ImageReferenceError(f"{self.reference} is an index without images")
        return ImageReferenceError(
            f"{self.reference}: the image is made for {', '.join(names)}; this machine runs {self.architecture}",
            resolution=f"build or choose an image for linux/{self.architecture}",
        )


def is_index(content: Mapping[str, object]) -> bool:
    """Whether the document is an index.

    :raises ImageError: it is an index and a manifest at once, so that tools would disagree about what it is.
    """
    if "manifests" not in content:
        return False
    if "layers" in content or "config" in content:
        raise ImageError("a document is an index and a manifest at once", resolution="push the image again")
    return True


def descriptors(content: Mapping[str, object], key: str, what: str) -> list[Mapping[str, object]]:
    """The list of descriptors under ``key``.

    :raises ImageError: it is no list of objects.
    """
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImageError(f"{what} has no list of {key}")
    return entries


def declared(descriptor: Mapping[str, object], what: str) -> tuple[Digest, int]:
    """The digest and the size (bytes) that a descriptor declares.

    :raises ImageError: one is missing or malformed.
    """
    digest, size = descriptor.get("digest"), descriptor.get("size")
    if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
        raise ImageError(f"{what} has a descriptor without digest or size", details=repr(dict(descriptor))[:500])
    try:
        return Digest.parse(digest), size
    except ImageReferenceError as error:
        raise ImageError(f"{what} has a descriptor with a bad digest: {digest!r}") from error


def platform(descriptor: Mapping[str, object]) -> str | None:
    """What a descriptor in an index says that it runs on, as ``os/architecture``."""
    said = _mapping(descriptor.get("platform"))
    if not said:
        return None
    return f"{said.get('os')}/{said.get('architecture')}"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
