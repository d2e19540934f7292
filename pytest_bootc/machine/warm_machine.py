"""A machine of QEMU that is started from a saved boot, or boots and is saved."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BootcTestError, DiskError, GuestError
from pytest_bootc.machine import freshening, warm
from pytest_bootc.machine.migration import load_state, save_state
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.machine.qemu_command import Engine, Memory
from pytest_bootc.machine.rundir import RunFolder
from pytest_bootc.machine.storage import make_overlay
from pytest_bootc.machine.warm import Boot, RefusedError, SavedBoot, WarmStore, copy_sparse
from pytest_bootc.model import LiveDisk, MachineSpec, Network
from pytest_bootc.progress import Progress
from pytest_bootc.ssh import SSHSession

_SHORT = 10.0
# On KVM, as all times here. From readiness until nothing is left to be started:
_SETTLE_SECONDS = 20.0
_LOGIN_SECONDS = 20.0
# In emulation: what takes longer than that is told by the tests, which wait as long as it needs.
_LONGEST_SECONDS = 120.0
_SAVE_SECONDS = 60.0
# A clone that does not answer within this is not waited for: the cold boot is the way out.
_RESUME_SECONDS = 30.0


class WarmMachine(QemuMachine):
    """One machine of a live disk, with the store of the boots that it may be started from."""

    def __init__(
        self, engine: Engine, version: str, spec: MachineSpec, disk: LiveDisk, folder: RunFolder, store: WarmStore
    ) -> None:
        super().__init__(engine, version, spec, disk, folder)
        self._live = disk
        self._store = store
        self._first_timer: float | None = None

    def start_warm(self, deadline: Deadline, judge: Callable[[], str], progress: Progress) -> None:
        """Run at once, from a saved boot; where there is none, boot, and save that for others.

        ``judge`` says what is wrong with the guest once its boot has settled, and nothing if all is well. A boot
        that is not to be saved, or cannot be, makes as good a machine as any; the report says why. Raises as
        :meth:`start` does.
        """
        if self.resume():
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(self._store.saving(Deadline.after(deadline.seconds * self._patience), progress))
            except (DiskError, RefusedError) as error:
                self._not_saved(error)
                self.start(Deadline.after(deadline.seconds))
                return
            if not self.resume():  # another run may have saved it meanwhile
                self._start_and_save(Deadline.after(deadline.seconds), judge)

    @property
    def is_saved(self) -> bool:
        """Whether another machine like this one can be started from a saved boot."""
        return self._store.find() is not None

    def resume(self) -> bool:
        """Run from a saved boot; ``False`` where there is none that can be used."""
        saved = self._store.find()
        if saved is None:
            return False
        try:
            self._resume(saved, Deadline.after(_RESUME_SECONDS * self._patience))
        except (BootcTestError, OSError) as error:
            # Whatever it is: the boot that follows does not depend on it.
            self._mishaps.append(f"booted, because it could not be started from the saved boot: {_said(error)}")
            self._power.cut()
            for path in (self._wiring.overlay, self._console.path):
                path.unlink(missing_ok=True)
            self._store.discard()
            return False
        return True

    def pause(self) -> None:
        """Have the guest stand still, clock included."""
        self._power.qmp.execute("stop", deadline=Deadline.after(_SHORT))

    def wake(self) -> None:
        """Have a guest that was paused go on, at the time that it is now."""
        self._power.qmp.execute("cont", deadline=Deadline.after(_SHORT))
        self._freshen()

    def _start_and_save(self, deadline: Deadline, judge: Callable[[], str]) -> None:
        if shutil.disk_usage(self._folder.path).free < 2 * self._spec.memory_mib << 20:
            self._not_saved("the disk of the cache has no room for the machine's RAM")
            self.start(deadline)
            return
        with self._in_file():
            self.start(deadline)
        try:
            self._first_timer = self._settle()
            why_not = judge()
            if not why_not:
                self._save()
        except (BootcTestError, OSError) as error:
            why_not = _said(error)
        if why_not:
            self._store.refuse(why_not)
            self._not_saved(why_not)

    @contextmanager
    def _in_file(self) -> Iterator[None]:
        """What is switched on meanwhile has its RAM in a file. What a test switches on later need not."""
        plain = self._wiring
        self._wiring = replace(plain, memory=Memory(self._folder.file("memory")))
        try:
            yield
        finally:
            self._wiring = plain

    def _not_saved(self, why: object) -> None:
        self._mishaps.append(f"the boot was not saved: {_said(why)}")

    def _resume(self, saved: SavedBoot, deadline: Deadline) -> None:
        make_overlay(self._disk, self._wiring.overlay, self._engine.qemu, self._spec.var_gib, saved.file(warm.VAR))
        shutil.copyfile(saved.file(warm.CONSOLE), self._console.path)
        shutil.copyfile(saved.file(warm.INITRD), self._wiring.initrd)
        self._power_on(replace(self._wiring, memory=Memory(saved.file(warm.RAM), cloned=True)), deadline)
        load_state(self._power.qmp, self._folder.socket("state"), saved.file(warm.STATE), deadline)
        boot = saved.boot
        self._go_on_from(boot)
        self._first_timer = boot.first_timer
        self._power.qmp.execute("cont", deadline=deadline)
        self._freshen()
        self._origin = f"started from the boot of {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(boot.saved_at))}"

    def _freshen(self) -> None:
        """Give the guest the time that it is, and what makes it different from its like."""
        now = time.time()
        overslept = self._first_timer is not None and now >= self._first_timer
        script = freshening.freshen(now, secrets.token_bytes(32), self.name[-6:].lower(), timers=overslept)
        status, output = self.control(script, Deadline.after(_SHORT * self._time_factor))
        if status != 0 or not output.endswith("fresh\n"):
            raise GuestError("the guest could not be given its time and name", details=output)
        if overslept:
            self._first_timer = None

    def _settle(self) -> float | None:
        """Wait until nothing is left to be started, and warm the way of a login; when the first timer elapses."""
        seconds = min(_SETTLE_SECONDS * self._time_factor, _LONGEST_SECONDS)
        _, output = self.control(freshening.SETTLE, Deadline.after(seconds))
        first_timer = freshening.parse_settled(output)
        if self._live.ssh_units and self._spec.network is not Network.NONE:
            limit = Deadline.after(min(_LOGIN_SECONDS * self._time_factor, _LONGEST_SECONDS))
            with SSHSession.connect(self.ssh_endpoint(limit), limit, keepalive=limit.seconds) as session:
                session.succeed("true", deadline=limit)
        return first_timer

    def _save(self) -> None:
        """Have the machine stand still while it is copied.

        :raises DiskError: the disk of the cache is full.
        :raises BackendError: QEMU cannot save it, or does not go on.
        """
        deadline = Deadline.after(_SAVE_SECONDS)
        boot = Boot(self._boot_id, self._time_factor, time.time(), self._first_timer, self._identity)
        self._power.qmp.execute("stop", deadline=deadline)
        try:
            self._store.publish(boot, lambda folder: self._fill(folder, deadline), self._live)
        finally:
            self.wake()

    def _fill(self, folder: Path, deadline: Deadline) -> None:
        save_state(self._power.qmp, self._folder.socket("state"), folder / warm.STATE, deadline)
        copy_sparse(self._folder.file("memory"), folder / warm.RAM)
        for path, name in (
            (self._wiring.overlay, warm.VAR),
            (self._wiring.initrd, warm.INITRD),
            (self._console.path, warm.CONSOLE),
        ):
            shutil.copyfile(path, folder / name)


def _said(why: object) -> str:
    if not isinstance(why, BootcTestError):
        return str(why)
    return f"{why.brief} ({why.details.splitlines()[-1]})" if why.details else why.brief
