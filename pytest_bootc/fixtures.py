"""The fixtures: ``image`` -> ``golden_disk`` -> ``machine_spec`` -> ``vm`` -> ``ssh`` -> ``guest``, and ``evidence``.

All but the last are session-scoped, and any of them can be overridden in a conftest. What they need is imported when
they are asked for: a run without machines is not to wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_bootc.evidence import EvidenceRecord
    from pytest_bootc.guarding import Exempting
    from pytest_bootc.guest import Guest
    from pytest_bootc.machine.pool import VM
    from pytest_bootc.model import GoldenDisk, MachineSpec, ResolvedImage
    from pytest_bootc.ssh import SSHSession


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> ResolvedImage | None:
    """The image that is judged, one after the other of those that ``--image`` names.

    ``None`` with ``--host`` and ``--disk``, where no image is booted from a reference.
    """
    from pytest_bootc import run

    return run.image_of(run.current(request.config), getattr(request, "param", None))


@pytest.fixture(scope="session")
def golden_disk(
    request: pytest.FixtureRequest, image: ResolvedImage | None, machine_spec: MachineSpec
) -> GoldenDisk | None:
    """What the machine boots: made of the image, or the file of ``--disk``. ``None`` where nothing is booted."""
    from pytest_bootc import run

    return run.golden_disk(run.current(request.config), image, machine_spec)


@pytest.fixture(scope="session")
def machine_spec(request: pytest.FixtureRequest) -> MachineSpec:
    """The machine's shape, as the options give it."""
    from pytest_bootc import run

    return run.current(request.config).config.spec


@pytest.fixture(scope="session")
def vm(
    request: pytest.FixtureRequest,
    image: ResolvedImage | None,
    machine_spec: MachineSpec,
    golden_disk: GoldenDisk | None,
) -> Iterator[VM]:
    """The machine, booted: a handle that stays the same when the machine reboots or is replaced."""
    from pytest_bootc import run

    with run.machine(run.current(request.config), image, machine_spec, golden_disk) as handle:
        yield handle


@pytest.fixture(scope="session")
def ssh(vm: VM) -> Iterator[SSHSession]:
    """A login as root by the image's own sshd; made anew by itself whenever the machine has booted."""
    from pytest_bootc.ssh import SSHSession

    limit = vm.login_deadline()
    ready = vm.take_login()
    session = ready or SSHSession.connect(vm.ssh_endpoint(limit), limit, keepalive=vm.keepalive)
    with session:

        def connect_anew() -> None:
            ready = vm.take_login()
            if ready is not None:
                session.take_over(ready)
                return
            limit = vm.login_deadline()
            session.reconnect(limit, vm.ssh_endpoint(limit))

        with vm.after_each_boot(connect_anew), vm.when_interrupted(session.interrupt):
            yield session
        vm.leave_login(session)


@pytest.fixture(scope="session")
def guest(ssh: SSHSession) -> Guest:
    """The running system: its units, files, journal and ports."""
    from pytest_bootc.guest import Guest

    return Guest(ssh)


@pytest.fixture
def fresh_vm(request: pytest.FixtureRequest, vm: VM) -> VM:
    """The machine, pristine: no other test has used it before, and none will afterwards.

    It is behind the handle ``vm``, and so behind ``ssh`` and ``guest``. Started from a saved boot it takes a second;
    where boots are not saved (``--cold``, ``--disk``), it is booted.
    """
    from pytest_bootc import renewal

    renewal.require_named(request)
    return vm


@pytest.fixture
def exemptions(request: pytest.FixtureRequest, vm: VM) -> Exempting:
    """What the run exempts: ``exemptions.without(findings)`` are those that count."""
    from pytest_bootc import judging

    return judging.exempting(request.node)


@pytest.fixture
def evidence(request: pytest.FixtureRequest, vm: VM) -> EvidenceRecord:
    """The test's evidence: ``evidence.attach("lsblk.txt", text)`` is kept when the test's evidence is."""
    from pytest_bootc import judging

    return judging.evidence_of(request.node)
