"""What is deployed in the guest: booted, staged, to go back to.

One value, two providers: ``bootc status --json`` and ``ostree admin status``. Which of them speaks is found by asking
the guest, never by the name of its distribution.

Sources: bootc-status(8), ostree-admin-status(1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pytest_bootc.errors import GuestError

_SHOWN = 2000


@dataclass(frozen=True)
class DeploymentEntry:
    """One deployment on the disk. What the provider does not tell is ``None``.

    ``image`` is the reference that was installed, ``digest`` its manifest's; ``checksum`` is the ostree commit, or the
    composefs digest where the store is composefs.
    """

    image: str | None = None
    transport: str | None = None
    digest: str | None = None
    version: str | None = None
    timestamp: str | None = None
    checksum: str | None = None
    stateroot: str | None = None
    serial: int | None = None
    pinned: bool = False
    incompatible: bool = False


@dataclass(frozen=True)
class Deployment:
    """The deployments of a machine that has any.

    ``staged`` is what a shutdown will make the default, or what was made it since the boot; ``rollback`` the one before
    the booted one. ``rollback_queued`` is told by bootc alone: ostree shows a queued rollback as ``staged``.
    ``wanted_image`` is the reference that updates come from.
    """

    provider: str
    booted: DeploymentEntry | None
    staged: DeploymentEntry | None = None
    rollback: DeploymentEntry | None = None
    rollback_queued: bool = False
    wanted_image: str | None = None

    @property
    def next(self) -> DeploymentEntry | None:
        """What the next boot will be."""
        if self.rollback_queued:
            return self.rollback
        return self.staged or self.booted


class DeploymentProvider(Protocol):
    """A program of the guest that tells of deployments."""

    @property
    def name(self) -> str:
        """The word that :attr:`Deployment.provider` has."""

    @property
    def script(self) -> str:
        """Shell that prints the program's document, and nothing where the guest has no such program.

        It exits with the program's own status.
        """

    def parse(self, document: str) -> Deployment | None:
        """Read the document; ``None`` where it says that this root is no deployment.

        :raises GuestError: it is something else.
        """


class BootcProvider:
    """bootc: it answers on any root, and says in ``status.type`` whether that is a deployment."""

    name = "bootc"
    script = "! command -v bootc >/dev/null || bootc status --json"

    def parse(self, document: str) -> Deployment | None:
        """Read ``bootc status --json``, as :class:`DeploymentProvider` says."""
        host = _object(document, "bootc status --json")
        status, spec = _mapping(host.get("status")), _mapping(host.get("spec"))
        if status.get("type") is None:
            return None
        return Deployment(
            provider=self.name,
            booted=self._entry(status.get("booted")),
            staged=self._entry(status.get("staged")),
            rollback=self._entry(status.get("rollback")),
            rollback_queued=status.get("rollbackQueued") is True,
            wanted_image=_text(_mapping(spec.get("image")).get("image")),
        )

    @staticmethod
    def _entry(told: object) -> DeploymentEntry | None:
        if not isinstance(told, Mapping):
            return None
        image = _mapping(told.get("image"))
        reference = _mapping(image.get("image"))
        ostree, composefs = _mapping(told.get("ostree")), _mapping(told.get("composefs"))
        serial = ostree.get("deploySerial")
        return DeploymentEntry(
            image=_text(reference.get("image")),
            transport=_text(reference.get("transport")),
            digest=_text(image.get("imageDigest")),
            version=_text(image.get("version")),
            timestamp=_text(image.get("timestamp")),
            checksum=_text(ostree.get("checksum")) or _text(composefs.get("verity")),
            stateroot=_text(ostree.get("stateroot")),
            serial=serial if isinstance(serial, int) else None,
            pinned=told.get("pinned") is True,
            incompatible=told.get("incompatible") is True,
        )


class OstreeProvider:
    """ostree: asked only where the kernel was booted into a deployment (/run/ostree-booted)."""

    name = "ostree"
    # Older versions have no --json.
    script = (
        "[ ! -e /run/ostree-booted ] || ! command -v ostree >/dev/null"
        " || ostree admin status --json 2>/dev/null || ostree admin status"
    )

    _HEAD = re.compile(r"(?P<mark>[* ]) (?P<stateroot>\S+) (?P<checksum>[0-9a-f]+)\.(?P<serial>\d+)(?P<words>.*)")

    def parse(self, document: str) -> Deployment | None:
        """Read ``ostree admin status``, with or without ``--json``, as :class:`DeploymentProvider` says."""
        entries = self._from_json(document) if document.lstrip().startswith("{") else self._from_text(document)
        if not entries:
            return None
        states = {state: entry for state, entry in reversed(entries) if state}
        return Deployment(
            provider=self.name,
            booted=states.get("booted"),
            staged=states.get("staged") or states.get("pending"),
            rollback=states.get("rollback"),
        )

    @staticmethod
    def _from_json(document: str) -> list[tuple[str, DeploymentEntry]]:
        told = _object(document, "ostree admin status --json").get("deployments")
        entries = []
        for item in map(_mapping, told if isinstance(told, list) else []):
            serial = item.get("serial")
            entry = DeploymentEntry(
                version=_text(item.get("version")),
                checksum=_text(item.get("checksum")),
                stateroot=_text(item.get("stateroot")),
                serial=serial if isinstance(serial, int) else None,
                pinned=item.get("pinned") is True,
            )
            words = ("booted", "staged", "pending", "rollback")
            entries.append((next((word for word in words if item.get(word) is True), ""), entry))
        return entries

    @classmethod
    def _from_text(cls, document: str) -> list[tuple[str, DeploymentEntry]]:
        entries: list[tuple[str, DeploymentEntry]] = []
        for line in document.splitlines():
            if head := cls._HEAD.fullmatch(line):
                entry = DeploymentEntry(
                    checksum=head["checksum"], stateroot=head["stateroot"], serial=int(head["serial"])
                )
                state = "booted" if head["mark"] == "*" else head["words"].strip(" ()").partition(")")[0]
                entries.append((state, entry))
            elif entries:
                state, entry = entries[-1]
                entries[-1] = state, _with_detail(entry, line.strip())
            elif line.strip() and not line.startswith("No deployments"):
                raise GuestError("ostree admin status printed something that cannot be read", details=document[:_SHOWN])
        return entries


#: The first that says something is believed.
PROVIDERS: tuple[DeploymentProvider, ...] = (BootcProvider(), OstreeProvider())


def _with_detail(entry: DeploymentEntry, line: str) -> DeploymentEntry:
    name, _, value = line.partition(": ")
    if name == "Version":
        return replace(entry, version=value)
    if name == "Pinned":
        return replace(entry, pinned=value == "yes")
    return entry


def _object(document: str, source: str) -> Mapping[str, object]:
    try:
        value = json.loads(document)
    except ValueError as error:
        raise GuestError(f"{source} printed something that is not JSON", details=document[:_SHOWN]) from error
    if not isinstance(value, dict):
        raise GuestError(f"{source} printed no JSON object", details=document[:_SHOWN])
    return value


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
