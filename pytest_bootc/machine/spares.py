"""A machine ahead of need: started from a saved boot, logged in, and paused, while tests run on another one."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BootcTestError
from pytest_bootc.machine.base import Backend, CanBeKept, HasSavedBoots, KeepsMachines, Machine
from pytest_bootc.machine.verbs import keepalive_of
from pytest_bootc.model import GoldenDisk, MachineSpec
from pytest_bootc.ssh import SSHSession

_LOGIN_SECONDS = 60.0

Shape = tuple[MachineSpec, GoldenDisk | None]


@dataclass(frozen=True)
class Spare:
    """A machine that runs; ``stack`` ends it. ``session`` is a login that has been used, where one is possible."""

    machine: Machine
    session: SSHSession | None
    stack: ExitStack
    kept: bool = False

    def give_back(self) -> None:
        """End it; one that an earlier run has kept goes on."""
        if self.kept and isinstance(self.machine, CanBeKept):
            self.machine.leave(None if self.session is None else self.session.hand_over())
        self.stack.close()


class Spares:
    """One spare machine at most, made on a thread of its own.

    It is a matter of time alone: where none can be had, whoever wanted it starts a machine himself, and learns why
    that does not work.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._order: _Order | None = None

    def prepare(self, shape: Shape, *, at_once: bool = False, kept: bool = False) -> None:
        """Begin to make one of this shape, unless that has been done.

        ``at_once``: it will be taken soon, and need not stand still until then. ``kept``: one that an earlier run
        has kept will do.
        """
        if self._order is None or self._order.shape != shape:
            self.close()
            self._order = _Order(self._backend, shape, pausing=not at_once, kept=kept)

    def take(self, shape: Shape) -> Spare | None:
        """The spare of this shape, running; one that is being made is waited for. ``None`` where there is none."""
        order, self._order = self._order, None
        if order is None:
            return None
        spare = order.deliver()
        if spare is None or order.shape == shape:
            return spare
        spare.give_back()
        return None

    def close(self) -> None:
        """End the spare."""
        order, self._order = self._order, None
        spare = None if order is None else order.deliver()
        if spare is not None:
            spare.give_back()


class _Order:
    """One spare in the making."""

    def __init__(self, backend: Backend, shape: Shape, *, pausing: bool, kept: bool) -> None:
        self.shape = shape
        self._backend = backend
        self._kept = kept
        self._changing = threading.Lock()
        self._awaited = not pausing
        self._paused: HasSavedBoots | None = None
        self._spare: Spare | None = None
        self._thread = threading.Thread(target=self._make, name="spare machine", daemon=True)
        self._thread.start()

    def deliver(self) -> Spare | None:
        """Wait for it and have it go on."""
        with self._changing:
            self._awaited = True
        self._thread.join()
        spare, self._spare = self._spare, None
        if spare is None or self._paused is None:
            return spare
        try:
            self._paused.wake()
        except BootcTestError:
            # It has died meanwhile.
            spare.stack.close()
            return None
        return spare

    def _make(self) -> None:
        try:
            self._spare = (join(self._backend, self.shape) if self._kept else None) or self._start()
        except BootcTestError:
            # Nobody has asked for it yet. Who does will try himself.
            return

    def _start(self) -> Spare | None:
        with ExitStack() as stack:
            machine = stack.enter_context(self._backend.provision(*self.shape, waiting=None))
            if not isinstance(machine, HasSavedBoots) or not machine.resume():
                return None
            session = _logged_in(machine, stack)
            with self._changing:
                if not self._awaited:
                    machine.pause()
                    self._paused = machine
            return Spare(machine, session, stack.pop_all())


def join(backend: Backend, shape: Shape) -> Spare | None:
    """A machine of this shape that an earlier run has kept; ``None`` where there is none.

    Raises as :meth:`KeepsMachines.kept` does.
    """
    if not isinstance(backend, KeepsMachines):
        return None
    with ExitStack() as stack:
        machine = stack.enter_context(backend.kept(*shape))
        if machine is None:
            return None
        return Spare(machine, _logged_in(machine, stack), stack.pop_all(), kept=True)


def _logged_in(machine: Machine, stack: ExitStack) -> SSHSession | None:
    """A login whose first command, which is the slow one, has been run; ``None`` for a guest that has no way in.

    The stack closes it.
    """
    limit = Deadline.after(_LOGIN_SECONDS * machine.facts.time_factor)
    held = machine.take_held_login() if isinstance(machine, CanBeKept) else None
    keepalive = keepalive_of(machine.facts)
    try:
        endpoint = machine.ssh_endpoint(limit)
        resumed = None if held is None else SSHSession.resume(endpoint, held, keepalive=keepalive)
        session = resumed or SSHSession.connect(endpoint, limit, keepalive=keepalive)
    except BootcTestError:
        return None
    try:
        if resumed is None:
            session.succeed("true", deadline=limit)
    except BootcTestError:
        session.close()
        return None
    stack.callback(session.close)
    return session
