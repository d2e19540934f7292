"""The machines of one process: one per subject, each behind a handle that outlives reboots and replacements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError, Blame, BootcTestError, CrashError, GuestError
from pytest_bootc.machine.base import (
    Backend,
    CanBeKept,
    HasConsole,
    HasControl,
    HasCrash,
    HasSavedBoots,
    HasVitalSigns,
    Machine,
    PowerState,
)
from pytest_bootc.machine.spares import Spare, Spares, join
from pytest_bootc.machine.terms import BootFailure, Examiner, Terms
from pytest_bootc.machine.verbs import KEEPALIVE, LONGEST_KEEPALIVE, MachineVerbs
from pytest_bootc.machine.watch import Watch
from pytest_bootc.model import Finding, GoldenDisk, MachineSpec
from pytest_bootc.ssh import SSHSession
from pytest_bootc.timeline import Timeline

_STOP_SECONDS = 30.0
_KEPT_CONSOLE = 1 << 20
# How many machines an image may bring down, or the laboratory lose, before no other is booted.
_MOST_DEATHS = {Blame.IMAGE: 2, Blame.LAB: 4}
# A guest that was just asked something in vain is asked once more, so long, before it counts as hung.
_LAST_CHANCE_SECONDS = 5.0


class VM(MachineVerbs):
    """A stable handle on a machine: the machine behind it may reboot or be replaced, the handle stays."""

    def __init__(self, subject: str, backend: Backend, terms: Terms) -> None:
        super().__init__(terms.missing)
        self.subject = subject
        self._backend = backend
        self._terms = terms
        self._spares = Spares(backend)
        self._login: SSHSession | None = None
        self._stack = ExitStack()
        self._machine: Machine | None = None
        self._watch: Watch | None = None
        self._shape: tuple[MachineSpec, GoldenDisk | None] | None = None
        #: Looks at a machine that did not come up, before it is ended.
        self.examiner: Examiner = _look_at_nothing
        self._when_booted: list[Callable[[], None]] = []
        self._when_interrupted: list[Callable[[BootcTestError], None]] = []
        self._stale = False
        self._deaths: Counter[Blame] = Counter()
        self.failure: BootFailure | None = None
        #: Why the machine behind the handle cannot be used any more; the next :meth:`use` boots another one.
        self.trouble: BootcTestError | None = None
        self.timeline = Timeline()

    def use(self, spec: MachineSpec, disk: GoldenDisk | None) -> None:
        """Have a machine of this shape behind the handle: the one that is there, or a new one that is booted now.

        A machine that died is replaced; where that happens again and again, it is not.

        :raises BootcTestError: it did not boot; once per shape at length, from then on in short.
        """
        if self._shape == (spec, disk):
            if self.failure is not None:
                raise self.failure.again()
            if self.has(spec, disk):
                return
            self._bury()
        else:
            self._deaths.clear()
        first = self._shape is None
        self.release()
        self._shape, self.failure, self.trouble, self._stale = (spec, disk), None, None, False
        if not (self._take_spare(spec, disk) or (first and self._join(spec, disk))):
            self._boot(spec, disk)

    def has(self, spec: MachineSpec, disk: GoldenDisk | None) -> bool:
        """Whether a machine of this shape is behind the handle, and may go on being used."""
        fit = self._shape == (spec, disk) and not self._stale and self.look() is None
        return fit and self._machine is not None and self._is_on(self._machine)

    def release(self) -> None:
        """End the machine; a failure to boot is remembered."""
        if self._machine is not None:
            self.timeline.note(f"{self._machine.name} is ended")
        if self._watch is not None:
            self._watch.end()
        if self._login is not None:
            self._login.close()
        self._machine = self._watch = self._login = None
        self._stack.close()

    def close(self) -> bool:
        """End the machine, and the spare one; whether the machine is kept instead."""
        self._spares.close()
        machine = self._machine
        kept = self.stays and isinstance(machine, CanBeKept) and self.look() is None and self._is_on(machine)
        if self._watch is not None:
            self._watch.end()
        if kept and isinstance(machine, CanBeKept):
            session = self.take_login()
            machine.leave(None if session is None else session.hand_over())
        self.release()
        return kept

    def end_spare(self) -> None:
        """End the spare machine, if there is one."""
        self._spares.close()

    def prepare_spare(self) -> None:
        """Begin to make a machine like the one behind the handle, for when a fresh one is wanted."""
        if self._shape is not None and self.failure is None and self.can_be_cloned:
            self._spares.prepare(self._shape)

    def expect(self, spec: MachineSpec, disk: GoldenDisk | None) -> None:
        """Begin to start the first machine, which will be of this shape, before it is asked for."""
        if self._shape is None:
            self._spares.prepare((spec, disk), at_once=True, kept=self.stays)

    @property
    def can_be_cloned(self) -> bool:
        """Whether a fresh machine like this one is to be had within seconds, for its boot has been saved."""
        return isinstance(self._machine, HasSavedBoots) and self._machine.is_saved

    @property
    def stays(self) -> bool:
        """Whether the machine is to be kept after the run."""
        return self._terms.keep

    def take_login(self) -> SSHSession | None:
        """The login that came with the machine, if there is one and nobody has taken it."""
        session, self._login = self._login, None
        return session

    def leave_login(self, session: SSHSession) -> None:
        """Take a login back, for the next run on a machine that is kept; the session is closed then."""
        if self.stays and session.connected:
            self._login = SSHSession(session.endpoint)
            self._login.take_over(session)

    def condemn(self) -> None:
        """Have the next :meth:`use` boot a fresh machine, also where the last one did not come to boot."""
        self.timeline.note("a fresh machine is wanted")
        self._stale, self.failure = True, None

    def interrupt(self, error: BootcTestError) -> None:
        """End with ``error`` whatever is under way in the guest; may be called from any thread."""
        for act in tuple(self._when_interrupted):
            act(error)

    def look(self) -> BootcTestError | None:
        """Look at the machine now: why it is dead, if it is."""
        if self.trouble is None and self._watch is not None:
            self.trouble = self._watch.look()
        return self.trouble

    def question(self) -> BootcTestError | None:
        """Find out why a guest did not answer: its host side is asked, and then the guest once more.

        ``None`` where both answer.
        """
        machine = self._machine
        if machine is None or self.look() is not None:
            return self.trouble
        limit = _LAST_CHANCE_SECONDS * min(machine.facts.time_factor, LONGEST_KEEPALIVE / KEEPALIVE)
        if isinstance(machine, HasVitalSigns):
            self.trouble = machine.questioned(Deadline.after(limit))
        if self.trouble is None and isinstance(machine, HasControl):
            try:
                machine.control(":", Deadline.after(limit))
            except (GuestError, BackendError) as error:
                # QEMU may have ended a moment before its end is told.
                self.trouble = self.look() or CrashError(
                    f"the guest hangs: {error.brief}", details="QEMU runs it, and its console tells of no crash."
                )
        return self.trouble

    def findings(self) -> list[Finding]:
        """What the console of the machine behind the handle has told of trouble, since it was switched on."""
        self.look()
        return [] if self._watch is None else list(self._watch.findings)

    @contextmanager
    def after_each_boot(self, act: Callable[[], None]) -> Iterator[None]:
        """While the context lasts, call ``act`` whenever a machine behind the handle has booted: connect anew."""
        self._when_booted.append(act)
        try:
            yield
        finally:
            self._when_booted.remove(act)

    @contextmanager
    def when_interrupted(self, act: Callable[[BootcTestError], None]) -> Iterator[None]:
        """While the context lasts, call ``act`` with the error that ends what is under way in the guest."""
        self._when_interrupted.append(act)
        try:
            yield
        finally:
            self._when_interrupted.remove(act)

    @property
    def running(self) -> Machine | None:
        """The machine, if one has booted and was not released."""
        return self._machine

    @property
    def machine(self) -> Machine:
        """The machine behind the handle. Do not keep it: after a reboot it may be another one.

        :raises BackendError: none has booted.
        """
        if self._machine is None:
            raise BackendError("there is no machine behind this handle: it did not boot, or was released")
        return self._machine

    def login_deadline(self) -> Deadline:
        """The deadline of a login that begins now: as long as a boot may take."""
        return Deadline.after(self._terms.boot_seconds * self.facts.time_factor)

    def reconnect_deadline(self) -> Deadline:
        """The deadline of a login to a machine that has let somebody in before."""
        return Deadline.after(2 * self.keepalive)

    def start(self) -> None:
        """Power on a machine that was stopped, and wait until it is ready. Raises as :meth:`Machine.start` does."""
        machine = self.machine
        with self._booting(machine, "is switched on") as deadline:
            machine.start(deadline)
        self._booted()

    def stop(self, deadline: Deadline | None = None) -> None:
        """Power off: by asking the guest, and by force at the deadline (after 30 s)."""
        self.timeline.note(f"{self.name} is switched off")
        self.machine.stop(deadline or Deadline.after(_STOP_SECONDS))

    def reboot(self) -> None:
        """Reboot and wait until the guest is ready again. Raises as :meth:`Machine.reboot` does."""
        machine = self.machine
        with self._booting(machine, "is rebooted") as deadline:
            machine.reboot(deadline)
        self._booted()

    def crash(self) -> None:
        """Cut the machine's power."""
        if not isinstance(machine := self.machine, HasCrash):
            raise self.lacking("no power that could be cut")
        self.timeline.note(f"the power of {machine.name} is cut")
        machine.crash()

    def _join(self, spec: MachineSpec, disk: GoldenDisk | None) -> bool:
        """Take over a machine that an earlier run has kept, if there is one."""
        return self.stays and self._accept(join(self._backend, (spec, disk)))

    def _take_spare(self, spec: MachineSpec, disk: GoldenDisk | None) -> bool:
        return self._accept(self._spares.take((spec, disk)))

    def _accept(self, spare: Spare | None) -> bool:
        if spare is None:
            return False
        self._stack.push(spare.stack.pop_all())
        self._login = spare.session
        self._take_over(spare.machine)
        return True

    def _boot(self, spec: MachineSpec, disk: GoldenDisk | None) -> None:
        self.timeline.note("a machine is made")
        try:
            machine = self._stack.enter_context(self._backend.provision(spec, disk, self._terms.progress()))
        except BootcTestError as error:
            self.timeline.note(f"no machine can be made: {error.brief}")
            self.failure = BootFailure(error, b"")
            raise
        with self._booting(machine, "is started") as deadline:
            if isinstance(machine, HasSavedBoots):
                machine.start_warm(deadline, lambda: self._terms.judge(self.subject, machine), self._terms.progress())
            else:
                machine.start(deadline)
        self._take_over(machine)

    def _take_over(self, machine: Machine) -> None:
        if machine.facts.origin:
            self.timeline.note(f"{machine.name}: {machine.facts.origin}")
        self._machine = machine
        self._watch = Watch(machine, lambda finding, error: self._terms.listener(self, finding, error))
        self._booted()

    def _is_on(self, machine: Machine) -> bool:
        """Whether a test did not leave the machine switched off, which is no fault of anybody's."""
        return machine.power_state() not in (PowerState.OFF, PowerState.CRASHED)

    def _bury(self) -> None:
        """Count the machine's death; one too many is remembered as if none could be booted."""
        if self.trouble is None:
            return
        self._deaths[self.trouble.blame] += 1
        if self._deaths[self.trouble.blame] >= _MOST_DEATHS.get(self.trouble.blame, 1):
            console = b"" if self._machine is None else _console_end(self._machine)
            what = "the image brought down" if self.trouble.blame is Blame.IMAGE else "the laboratory lost"
            count = self._deaths[self.trouble.blame]
            self.failure = BootFailure(self.trouble, console, f"{what} {count} machines, and gets no other")
            self.release()
            raise self.failure.again()

    @contextmanager
    def _booting(self, machine: Machine, what: str) -> Iterator[Deadline]:
        if self._watch is not None:
            self._watch.pause()
        self.timeline.note(f"{machine.name} {what}")
        try:
            # On a host with KVM; a backend that emulates allows more.
            yield Deadline.after(self._terms.boot_seconds)
        except BootcTestError as error:
            self.timeline.note(f"{machine.name} did not come up: {error.brief}")
            if machine is self._machine:
                # It has booted before: what a test has done to it, another one need not suffer from.
                self.trouble = error
            else:
                self.failure = BootFailure(error, _console_end(machine), evidence=self.examiner(machine, error))
                self.release()
            raise
        self.timeline.note(f"{machine.name} is ready")

    def _booted(self) -> None:
        if self.stays and isinstance(self._machine, CanBeKept):
            self._machine.keep()
        if self._watch is not None:
            self._watch.begin()
        for act in self._when_booted:
            act()


class Pool:
    """All handles of one process, by the name of their subject."""

    def __init__(self, backend: Callable[[], Backend], terms: Terms) -> None:
        self._load = backend
        self._terms = terms
        self._backend: Backend | None = None
        self._vms: dict[str, VM] = {}

    def vm(self, subject: str) -> VM:
        """The handle for the subject; the same at every call, with no machine behind it at first."""
        if subject not in self._vms:
            if self._backend is None:
                self._backend = self._load()
            self._vms[subject] = VM(subject, self._backend, self._terms)
        return self._vms[subject]

    def find(self, subject: str) -> VM | None:
        """The handle, if the subject has one already."""
        return self._vms.get(subject)

    def close(self) -> None:
        """End what nobody has come to use."""
        for vm in self._vms.values():
            vm.end_spare()


def _look_at_nothing(machine: Machine, error: BootcTestError) -> Mapping[str, bytes]:
    return {}


def _console_end(machine: Machine) -> bytes:
    if not isinstance(machine, HasConsole):
        return b""
    try:
        return machine.console_log().read_bytes()[-_KEPT_CONSOLE:]
    except OSError as error:
        return f"[the console's file cannot be read: {error.strerror}]\n".encode()
