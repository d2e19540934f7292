"""Where the images of a name are really fetched from: registries.conf (containers-registries.conf(5))."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.errors import ConfigError
from pytest_bootc.image import DOCKER_HUB, ImageReference

_SYSTEM = Path("/etc/containers")
_USE_MIRROR = ("all", "digest-only", "tag-only")


@dataclass(frozen=True)
class Place:
    """A repository, ``host/path``, that has an image; ``insecure`` allows plain HTTP and certificates of anybody."""

    name: str
    insecure: bool = False

    @property
    def host(self) -> str:
        """The registry's host, with the port where it is written."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class _Mirror:
    location: str
    insecure: bool
    use: str


@dataclass(frozen=True)
class _Entry:
    """One ``[[registry]]``."""

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[_Mirror, ...]
    path: Path


def places(reference: ImageReference) -> tuple[Place, ...]:
    """Where the image of the reference is to be looked for, in this order: mirrors first.

    :raises ConfigError: a configuration file cannot be read, or blocks the name.
    """
    name = canonical(reference.name)
    written = str(ImageReference(reference.transport, name, reference.tag, reference.digest)).removeprefix("docker://")
    matching = [entry for entry in _entries().values() if _matched(entry.prefix, written)]
    if not matching:
        return (Place(name),)
    entry = max(matching, key=lambda entry: (len(entry.prefix), not entry.prefix.startswith("*")))
    length = _matched(entry.prefix, written)
    if entry.blocked:
        raise ConfigError(
            f"images from {entry.prefix} are blocked on this host",
            details=f"{entry.path} says so for {reference}",
            resolution="take `blocked` out of that file, or use an image from elsewhere",
        )
    pinned = "digest-only" if reference.digest is not None else "tag-only"
    found = [(mirror.location, mirror.insecure) for mirror in entry.mirrors if mirror.use in ("all", pinned)]
    found.append((entry.location, entry.insecure))
    moved = [(f"{location}{name[length:]}" if location else name, insecure) for location, insecure in found]
    for place, _ in moved:
        if "/" not in place:
            raise _malformed(entry.path, f"it leads from {name} to {place}, which has no path")
    return tuple(dict.fromkeys(Place(canonical(place), insecure) for place, insecure in moved))


def canonical(name: str) -> str:
    """The name of a repository with the one spelling that the Docker Hub has: ``docker.io/library/debian``."""
    host, _, path = name.partition("/")
    if host == "index.docker.io":
        host = DOCKER_HUB
    return f"{host}/library/{path}" if host == DOCKER_HUB and path and "/" not in path else f"{host}/{path}"


def _matched(prefix: str, written: str) -> int:
    """How much of the reference the prefix matches; none where it does not."""
    if prefix.startswith("*."):
        host = written.partition("/")[0].partition(":")[0] if ":" not in prefix else written.partition("/")[0]
        rest = prefix[1:]
        if "/" in rest or not host.endswith(rest) or host == rest[1:]:
            return 0
        return len(host)
    if not written.startswith(prefix):
        return 0
    return len(prefix) if written[len(prefix) : len(prefix) + 1] in ("", "/", ":", "@") else 0


def _entries() -> Mapping[str, _Entry]:
    """All entries by their prefixes; a later file replaces those of earlier ones."""
    entries: dict[str, _Entry] = {}
    for path in _files():
        for entry in _read(path):
            entries[entry.prefix] = entry
    return entries


def _files() -> Iterator[Path]:
    """The files that count, in the order in which they replace each other."""
    explicit = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    user = _user_folder()
    if explicit:
        yield Path(explicit)
    elif user is not None and (user / "registries.conf").exists():
        yield user / "registries.conf"
        yield from sorted((user / "registries.conf.d").glob("*.conf"))
        return
    elif (_SYSTEM / "registries.conf").exists():
        yield _SYSTEM / "registries.conf"
    for folder in (_SYSTEM, user):
        if folder is not None:
            yield from sorted((folder / "registries.conf.d").glob("*.conf"))


def _user_folder() -> Path | None:
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "containers")
    except RuntimeError:  # this user has no home
        return None


def _read(path: Path) -> Iterator[_Entry]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read",
            details=str(error.strerror),
            resolution="let this user read it, or name another one in CONTAINERS_REGISTRIES_CONF",
        ) from error
    except ValueError as error:  # tomllib's, and of what is not UTF-8
        raise _malformed(path, str(error)) from error
    for table in _Table(content, path, "").tables("registry"):
        yield _entry(table)
    old = _Table(content, path, "").table("registries")
    for word in ("insecure", "block"):  # the first version of the format
        for host in old.table(word).texts("registries"):
            yield _Entry(host, host, word == "insecure", word == "block", (), path)


def _entry(table: _Table) -> _Entry:
    location, prefix = table.location("location"), table.text("prefix").rstrip("/")
    if not location and not prefix.startswith("*."):
        raise _malformed(table.path, f"{table.where} has no location")
    only_digests = table.switch("mirror-by-digest-only")
    mirrors = []
    for mirror in table.tables("mirror"):
        use = mirror.text("pull-from-mirror") or ("digest-only" if only_digests else "all")
        if use not in _USE_MIRROR:
            raise _malformed(table.path, f"{mirror.where}: pull-from-mirror is none of {', '.join(_USE_MIRROR)}")
        if not mirror.location("location"):
            raise _malformed(table.path, f"{mirror.where} has no location")
        mirrors.append(_Mirror(mirror.location("location"), mirror.switch("insecure"), use))
    insecure, blocked = table.switch("insecure"), table.switch("blocked")
    return _Entry(prefix or location, location, insecure, blocked, tuple(mirrors), table.path)


@dataclass(frozen=True)
class _Table:
    """A table of a file, read with the errors that its author needs."""

    content: Mapping[str, object]
    path: Path
    where: str

    def text(self, key: str) -> str:
        value = self.content.get(key, "")
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def location(self, key: str) -> str:
        value = self.text(key).rstrip("/")
        if "://" in value:
            raise self._wrong(key, "HOST[:PORT][/PATH]; for plain HTTP add insecure = true")
        return value

    def switch(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of texts")
        return value

    def table(self, key: str) -> _Table:
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "a table")
        return _Table(value, self.path, self._named(f"[{key}]"))

    def tables(self, key: str) -> list[_Table]:
        value = self.content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(key, "a list of tables")
        return [_Table(item, self.path, self._named(f"[[{key}]] {at}")) for at, item in enumerate(value, 1)]

    def _named(self, what: str) -> str:
        return f"{self.where}, {what}" if self.where else what

    def _wrong(self, key: str, wanted: str) -> ConfigError:
        return _malformed(self.path, f"{self._named(key)} is not {wanted}")


def _malformed(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path} is malformed",
        details=what,
        resolution="correct it (containers-registries.conf(5)), or name another one in CONTAINERS_REGISTRIES_CONF",
    )
