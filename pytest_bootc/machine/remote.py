"""A host that runs already (``--host``): it is judged over SSH, and belongs to somebody else.

Who may log in is the user's own affair: his agent and key files open the door, his known_hosts says whose door it is.
ssh_config(5) is not read.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import (
    BackendError,
    BootTimeoutError,
    ConfigError,
    GuestError,
    ProvisionError,
    SSHConnectError,
    SSHError,
    WaitTimeoutError,
)
from pytest_bootc.machine.base import PowerState
from pytest_bootc.model import GoldenDisk, MachineFacts, MachineSpec, RunConfig, Scope, SSHEndpoint
from pytest_bootc.progress import SILENT, Progress
from pytest_bootc.ssh import SSHSession

_PORT = 22
_REACH_SECONDS = 5.0
_FORM = "[user@]host[:port], an IPv6 address in brackets: root@[2001:db8::5]:2222"
_HOST = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[^\]\s]+)\]|(?P<name>[^:@\[\]\s/]+))(?::(?P<port>\d+))?")
_NAME = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}")
# Commands leave processes behind that write on: so output goes to a file without a name, and is read to its end then.
_CONTROL = """\
umask 077; out=$(mktemp /run/pytest-bootc.XXXXXX 2>/dev/null || mktemp) || exit
exec 3>"$out" 4<"$out"; rm -f "$out"
sh -c "$1" >&3 2>&1 3>&- 4<&- </dev/null; status=$?
exec 3>&-; cat <&4; exit $status
"""
# Prints nothing for a program that is not there.
_ASK = "cat /proc/cmdline; ! command -v systemd-detect-virt >/dev/null || systemd-detect-virt --vm"


def parse_host(text: str) -> SSHEndpoint:
    """The endpoint that ``[user@]host[:port]`` means; root and 22 where they are left out.

    :raises ConfigError: the text has another form.
    """
    found = _HOST.fullmatch(text)
    if found is None or not (_is_six(found["six"]) if found["six"] else _NAME.fullmatch(found["name"])):
        raise ConfigError(f"{text!r} is no host", resolution=f"write {_FORM}")
    port = int(found["port"] or _PORT)
    if not 0 < port < 1 << 16:
        raise ConfigError(f"{text!r} has no port of TCP", resolution="write a port from 1 to 65535")
    return SSHEndpoint(found["six"] or found["name"], port, found["user"] or "root")


class RemoteMachine:
    """A machine that others own: it can be asked and rebooted, but neither switched on nor off."""

    def __init__(self, endpoint: SSHEndpoint, written: str) -> None:
        self.name = written
        self._endpoint = endpoint
        self._kernel_arguments = ""
        self._virtualization = ""
        self._session: SSHSession | None = None

    @property
    def facts(self) -> MachineFacts:
        """What the machine said of itself when it was started."""
        return MachineFacts(
            backend="remote",
            accelerator=self._virtualization or "unknown",
            emulator="none: the host was up already",
            kernel_arguments=self._kernel_arguments,
            scope=Scope.RUNNING_SYSTEM,
            notes=("the machine is not a pristine one: it is as others have left it",),
        )

    def start(self, deadline: Deadline) -> None:
        """Log in.

        :raises ProvisionError: that did not work before the deadline.
        """
        try:
            with SSHSession.connect(self._endpoint, deadline) as session:
                arguments, *rest = session.execute(_ASK, deadline=deadline).stdout.splitlines() or [""]
        except SSHConnectError as error:
            raise ProvisionError(error.brief, details=error.details, resolution=error.resolution) from error
        self._kernel_arguments = arguments
        self._virtualization = "no virtual machine" if rest == ["none"] else " ".join(rest)

    def control(self, command: str, deadline: Deadline) -> tuple[int, str]:
        """Run a line of POSIX sh as the user who logs in, on a connection of its own that is kept.

        It is logged in anew where it is known to be lost, as after a reboot; never in the middle of a command.

        :raises GuestError: nobody let us in, the connection was lost, or the command did not end in time.
        """
        try:
            if self._session is None:
                self._session = SSHSession.connect(self._endpoint, deadline)
            elif not self._session.connected:
                self._session.reconnect(deadline)
            result = self._session.execute(("sh", "-c", _CONTROL, "sh", command), deadline=deadline)
        except SSHError as error:
            raise GuestError(error.brief, details=error.details, resolution=error.resolution) from error
        return result.status, result.stdout + result.stderr

    def disconnect(self) -> None:
        """Let go of the connection for :meth:`control`, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def stop(self, deadline: Deadline) -> None:
        """Not for us.

        :raises BackendError: always.
        """
        raise BackendError(
            f"{self.name} is not ours, and is not powered off",
            resolution="keep tests that stop their machine away from --host",
        )

    def reboot(self, deadline: Deadline) -> None:
        """Have the machine reboot itself, and wait until its sshd answers from another boot.

        :raises BackendError: it does not let us, or did not reboot.
        :raises BootTimeoutError: it went down and did not come back before the deadline.
        """
        with SSHSession.connect(self._endpoint, deadline) as session:
            before = session.boot_id(deadline=deadline)
            with suppress(SSHConnectError):  # it may be gone before it has answered
                told = session.execute("systemctl reboot", deadline=deadline)
                if told.status != 0:
                    raise BackendError(f"{self.name} refuses to reboot", details=told.transcript())
            try:
                session.wait_for_reboot(before, deadline)
            except WaitTimeoutError as error:
                raise BackendError(f"{self.name} was told to reboot, and did not", details=str(error)) from error
            except SSHConnectError as error:
                raise BootTimeoutError(
                    f"{self.name} did not come back from a reboot within {deadline.seconds:g} s", details=str(error)
                ) from error

    def power_state(self) -> PowerState:
        """Running where its port for SSH can be reached, off where not."""
        try:
            socket.create_connection((self._endpoint.host, self._endpoint.port), _REACH_SECONDS).close()
        except OSError:
            return PowerState.OFF
        return PowerState.RUNNING

    def ssh_endpoint(self, deadline: Deadline) -> SSHEndpoint:
        """Where the user said that it answers."""
        return self._endpoint


class RemoteBackend:
    """Provisions what is there already."""

    def __init__(self, config: RunConfig, home: Path) -> None:
        if config.host is None:
            raise ConfigError("the backend remote needs a host", resolution=f"add --host {_FORM}")
        self._written = config.host
        self._endpoint = parse_host(config.host)

    @contextmanager
    def provision(
        self, spec: MachineSpec, disk: GoldenDisk | None, waiting: Progress | None = SILENT
    ) -> Iterator[RemoteMachine]:
        """The host, whatever its shape; nothing is left behind on it."""
        machine = RemoteMachine(self._endpoint, self._written)
        try:
            yield machine
        finally:
            machine.disconnect()


def _is_six(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
