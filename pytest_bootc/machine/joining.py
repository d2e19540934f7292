"""Finding, among the machines that are kept, the one that a run can go on with."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError
from pytest_bootc.machine.keeper import Keeper, KeptElsewhereError
from pytest_bootc.machine.kept import Kept, image_of
from pytest_bootc.model import GoldenDisk

_CALL_SECONDS = 5.0


@dataclass(frozen=True)
class Offer:
    """A kept machine that is ours now; ``keeper`` is the way to who keeps it."""

    kept: Kept
    keeper: Keeper


def offers(known: Collection[Kept], key: str, disk: GoldenDisk, notes: list[str]) -> Iterator[Offer]:
    """The kept machines of this kind, one after the other until somebody takes one.

    ``notes`` gets a line for each machine of the same image that cannot be used, and why.
    """
    image, digest = image_of(disk)
    for kept in known:
        record = kept.record
        if (record.digest, record.key) != (digest, key):
            if record.image == image:
                other = record.digest if record.digest != digest else ""
                notes.append(refusal(kept, f"is of another image ({other})" if other else "is another kind of machine"))
            continue
        if kept.is_spoiled:
            _end(kept)
            notes.append(f"kept machine {kept.name} had been changed by a test that says so: ended")
            continue
        try:
            keeper = kept.call(Deadline.after(_CALL_SECONDS))
        except BackendError:  # it is just being ended
            continue
        try:
            keeper.use()
        except KeptElsewhereError as error:
            keeper.close()
            notes.append(f"kept machine {kept.name} is used by process {error.process}: this run has one of its own")
        except BackendError:
            keeper.close()
        else:
            yield Offer(kept, keeper)


def refusal(kept: Kept, why: str) -> str:
    """Why a kept machine is not used, for the report."""
    return f"kept machine {kept.name} {why}: not used; `pytest-bootc vm stop {kept.name}` ends it"


def _end(kept: Kept) -> None:
    # Another process may be using it, or end it.
    with suppress(BackendError):
        keeper = kept.call(Deadline.after(_CALL_SECONDS))
        try:
            keeper.end()
        finally:
            keeper.close()
