"""What is in the cache, and what of it may go.

An entry goes only when nobody has a lease on it and nothing that stays needs it: a golden disk stays for its saved
states, a layer for its disks. Layers that no disk needs, partial downloads and entries that are not whole are of no
use to any run but the one that is making something of them, which has leases on them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pytest_bootc.cache import SCHEMAS, Cache

#: The stores whose entries are of use by themselves, those first that need others; what lies in the rest is of use as
#: long as one of these needs it.
TOPS = ("warm", "disks")
_ORDER = ("disks", "warm", "layers", "downloads")
_BLOCK = 512  # the unit of st_blocks


@dataclass(frozen=True)
class Entry:
    """One thing in the cache.

    ``store`` is ``layers``, ``disks``, ``warm`` (saved states) or ``downloads``; ``size`` what it takes on the disk, in
    bytes; ``used`` when it, or something that needs it, was last used, in seconds since 1970; ``users`` the processes
    that use it now, in words; ``needs`` and ``needed_by`` are names of entries. ``whole`` says whether the entry can
    be read, and has what it needs.
    """

    store: str
    key: str
    path: Path
    size: int
    used: float
    image: str = ""
    digest: str = ""
    users: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    needed_by: tuple[str, ...] = ()
    whole: bool = True

    @property
    def name(self) -> str:
        """The name by which others need it."""
        return f"{self.store}/{self.key}"


@dataclass(frozen=True)
class Policy:
    """What is to go besides that which is of no use.

    ``older_than`` is in seconds since the last use, ``max_size`` the bytes that may stay (what was used last stays),
    ``everything`` all that is not in use.
    """

    older_than: float | None = None
    max_size: int | None = None
    everything: bool = False

    def wants(self, entry: Entry, now: float, total: int) -> bool:
        """Whether an entry is to go at this time, with so many bytes in the cache."""
        old = self.older_than is not None and now - entry.used > self.older_than
        return self.everything or old or (self.max_size is not None and total > self.max_size)


def take_stock(cache: Cache) -> list[Entry]:
    """Everything that is in the cache, store by store; in each what was used last comes first."""
    found = {entry.name: entry for store in SCHEMAS for entry in _entries(cache, store)}
    needed_by: dict[str, list[str]] = {}
    for entry in found.values():
        for name in entry.needs:
            needed_by.setdefault(name, []).append(entry.name)

    def used(entry: Entry) -> float:
        return max([entry.used, *(used(found[name]) for name in needed_by.get(entry.name, ()))])

    def described(entry: Entry) -> Entry:
        below = [found[name] for name in entry.needs if name in found]
        return entry if entry.image or not below else replace(entry, image=below[0].image, digest=below[0].digest)

    def whole(name: str) -> bool:
        return name in found and found[name].whole and all(whole(need) for need in found[name].needs)

    stock = [
        replace(described(entry), used=used(entry), needed_by=tuple(needed_by.get(name, ())), whole=whole(name))
        for name, entry in found.items()
    ]
    return sorted(stock, key=lambda entry: (_ORDER.index(entry.store), -entry.used, entry.key))


def other_versions(cache: Cache) -> list[tuple[Path, int]]:
    """The folders that other versions of this package keep in the cache, with their sizes in bytes."""
    known = {cache.store(store) for store in SCHEMAS}
    found = [path for store in SCHEMAS for path in (cache.home / store).iterdir() if path not in known]
    return [(path, _size(path)) for path in sorted(found)]


def plan(entries: Sequence[Entry], policy: Policy, now: float) -> list[Entry]:
    """What is to go and may, in an order in which nothing goes before what needs it."""
    left = {entry.name: entry for entry in entries}
    needed = {entry.name: left.keys() & set(entry.needed_by) for entry in entries}
    going: list[Entry] = []

    def take(entry: Entry) -> None:
        if entry.name not in left or entry.users or needed[entry.name]:
            return
        going.append(left.pop(entry.name))
        for name in set(entry.needs) & left.keys():
            needed[name].discard(entry.name)
            if left[name].store not in TOPS:
                take(left[name])

    tops = [entry for store in TOPS for entry in entries if entry.store == store]
    for entry in tops:
        if not entry.whole:
            take(entry)
    for entry in entries:
        if entry.store not in TOPS:
            take(entry)
    for entry in sorted(tops, key=lambda entry: entry.used):
        if policy.wants(entry, now, sum(other.size for other in left.values())):
            take(entry)
    return going


def prune(cache: Cache, going: Sequence[Entry]) -> Iterator[Entry]:
    """Remove entries, in the order of :func:`plan`, and give each one that went.

    What somebody has begun to use or to need meanwhile stays, and so does what that needs.

    :raises DiskError: the host refuses.
    """
    for entry in going:
        if cache.remove(entry.path, partial(_is_needed, cache, entry.name)):
            yield entry


def _is_needed(cache: Cache, name: str) -> bool:
    said = (cache.about(path) for store in TOPS for path in _inside(cache.store(store)))
    return any(about is not None and name in about.needs for about in said)


def _inside(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _entries(cache: Cache, store: str) -> Iterator[Entry]:
    for path in _inside(cache.store(store)):
        try:
            used = path.stat().st_mtime
        except FileNotFoundError:  # it went just now
            continue
        entry = Entry(store, path.name, path, _size(path), used, users=cache.users(path))
        about = cache.about(path)
        if about is not None:
            entry = replace(entry, image=about.image, digest=about.digest, needs=about.needs)
        yield replace(entry, whole=about is not None or store not in TOPS)


def _size(path: Path) -> int:
    """What a file, or a folder with all that is in it, takes on the disk; what has two names in it counts once."""
    sizes: dict[tuple[int, int], int] = {}
    left = [path]
    while left:
        here = left.pop()
        try:
            status = here.lstat()
            if stat.S_ISDIR(status.st_mode):
                left += [here / name for name in os.listdir(here)]  # noqa: PTH208 - faster
        except FileNotFoundError:  # it went just now
            continue
        sizes[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK
    return sum(sizes.values())
