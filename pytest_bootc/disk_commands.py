"""The commands `pytest-bootc disk ...`: what the cache holds, and how it is emptied."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pytest_bootc.cache import Cache, default_home
from pytest_bootc.disk.stock import Entry, Policy, other_versions, plan, prune, take_stock

Say = Callable[[str], None]

_KINDS = {"disks": "disk", "warm": "state", "layers": "layer", "downloads": "download"}
_PLURALS = {"disks": "disks", "warm": "saved states", "layers": "layers", "downloads": "partial downloads"}
_HEAD = ("KIND", "KEY", "IMAGE", "SIZE", "LAST USED", "IN USE BY")
_KEY_DIGITS = 12
_UNITS = "KMGT"
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?) *([smhdw])")


def describe_disk(disk: argparse.ArgumentParser, say: Say) -> None:
    """Add the sub-commands; ``say`` takes their lines."""
    commands = disk.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "show what the cache holds: golden disks, saved states, layers and partial downloads"
    _describe_list(commands.add_parser("list", help=text, description=f"{text[0].upper()}{text[1:]}."), say)
    text = "remove from the cache what no run needs, and more if told so"
    _describe_prune(commands.add_parser("prune", help=text, description=_PRUNE), say)


_PRUNE = (
    "Remove from the cache what no run needs: layers that belong to no golden disk, partial downloads, and what is not"
    " whole. The options add golden disks and saved states, those first that were used longest ago; layers go with the"
    " last disk that is made of them, and a disk stays as long as a saved state of it does. What a run, a machine or"
    " a build is using stays."
)


def _describe_list(command: argparse.ArgumentParser, say: Say) -> None:
    command.set_defaults(command=lambda options: _list(options, say))
    command.add_argument("-a", "--all", action="store_true", help="show each layer too, not only how many there are")
    command.add_argument(
        "--format",
        metavar="FORMAT",
        choices=("table", "json"),
        default="table",
        help="`table`, or `json` for programs: everything, sizes in bytes (default: table)",
    )


def _describe_prune(command: argparse.ArgumentParser, say: Say) -> None:
    command.set_defaults(command=lambda options: _prune(options, say))
    command.add_argument(
        "--older-than", metavar="TIME", type=_seconds, help="what was not used for so long, as in 12h, 7d or 2w"
    )
    command.add_argument(
        "--max-size",
        metavar="SIZE",
        type=_bytes,
        help="so much that no more than this stays, as in 500M or 20G (1G is 1024 M)",
    )
    command.add_argument("-a", "--all", action="store_true", help="everything that is not in use")
    command.add_argument("--dry-run", action="store_true", help="only say what would go")


def _list(options: argparse.Namespace, say: Say) -> None:
    cache = Cache(default_home())
    stock = take_stock(cache)
    if options.format == "json":
        others = [{"path": str(path), "size": size} for path, size in other_versions(cache)]
        whole = {"home": str(cache.home), "entries": [_plain(entry) for entry in stock], "other_versions": others}
        say(json.dumps(whole, indent=2))
        return
    shown = [entry for entry in stock if options.all or entry.store != "layers"]
    for line in table([_HEAD, *(_row(entry, time.time()) for entry in shown)]):
        say(line)
    say(f"{_sums(stock)} in {cache.home}")
    now = time.time()
    useless = plan(stock, Policy(), now)
    unused = plan(stock, Policy(everything=True), now)
    say(f"pytest-bootc disk prune would free {human(_total(useless))}, with --all {human(_total(unused))}")
    _say_others(cache, say)


def _prune(options: argparse.Namespace, say: Say) -> None:
    cache = Cache(default_home())
    stock = take_stock(cache)
    policy = Policy(options.older_than, options.max_size, options.all)
    going = plan(stock, policy, time.time())
    verb = "would remove" if options.dry_run else "removed"
    gone: list[Entry] = []
    for entry in going if options.dry_run else prune(cache, going):
        say(f"{verb} {_line(entry)}")
        gone.append(entry)
    kept = [entry for entry in stock if entry not in gone]
    say(f"{'would free' if options.dry_run else 'freed'} {human(_total(gone))}; {_sums(kept)} stay in {cache.home}")
    too_much = options.max_size is not None and _total(kept) > options.max_size
    for entry in kept:
        if entry.users and (options.all or too_much):
            say(f"in use: {_line(entry)}, by {', '.join(entry.users)}")
    _say_others(cache, say)


def human(size: int) -> str:
    """A number of bytes for people: ``1.4 GiB``."""
    number, unit = float(size), "B"
    for prefix in _UNITS:
        if number < 1024:
            break
        number, unit = number / 1024, f"{prefix}iB"
    return f"{number:.1f} {unit}" if unit != "B" and number < 10 else f"{number:.0f} {unit}"


def ago(seconds: float) -> str:
    """A time that has passed, for people: ``5 minutes ago``."""
    for name, length in (("week", 7 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count > (1 if name == "week" else 0):
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "just now"


def _say_others(cache: Cache, say: Say) -> None:
    for path, size in other_versions(cache):
        removal = f"rm -r {shlex.quote(str(path))}"
        say(f"left alone: {human(size)} of another version of pytest-bootc; if you have no other, remove it: {removal}")


def _sums(entries: Sequence[Entry]) -> str:
    parts = []
    for store, plural in _PLURALS.items():
        own = [entry for entry in entries if entry.store == store]
        if own or store == "disks":
            name = plural if len(own) != 1 else plural.removesuffix("s")
            parts.append(f"{len(own)} {name} ({human(_total(own))})")
    return f"{', '.join(parts)}: {human(_total(entries))}" if len(parts) > 1 else parts[0]


def _total(entries: Iterable[Entry]) -> int:
    return sum(entry.size for entry in entries)


def _line(entry: Entry) -> str:
    image = f" of {_image(entry)}" if entry.image else ""
    return f"{_KINDS[entry.store]} {entry.key[:_KEY_DIGITS]}{image} ({human(entry.size)})"


def _image(entry: Entry) -> str:
    digest = entry.digest.partition(":")[2][:_KEY_DIGITS]
    return entry.image if not digest or digest in entry.image else f"{entry.image}@{digest}"


def _row(entry: Entry, now: float) -> tuple[str, ...]:
    image = _image(entry) if entry.whole else "(not whole)"
    if entry.store == "layers":
        image = f"(of {len(entry.needed_by)} disk{'' if len(entry.needed_by) == 1 else 's'})"
    used, users = ago(now - entry.used), ", ".join(entry.users)
    return _KINDS[entry.store], entry.key[:_KEY_DIGITS], image, human(entry.size), used, users


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with the cells of each column below one another."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "kind": _KINDS[entry.store],
        "key": entry.key,
        "name": entry.name,
        "path": str(entry.path),
        "image": entry.image,
        "digest": entry.digest,
        "size": entry.size,
        "last_used": datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds"),
        "in_use_by": list(entry.users),
        "needs": list(entry.needs),
        "needed_by": list(entry.needed_by),
        "whole": entry.whole,
    }


def _seconds(text: str) -> float:
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give a number and one of s m h d w, as in 7d")
    return float(match[1]) * _SPANS[match[2]]


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give a number and one of K M G T, as in 20G")
    return int(float(match[1]) * 1024 ** (1 + _UNITS.index(match[2].upper()) if match[2] else 0))
