"""The session that fixtures and tests hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError, SSHConnectError, SSHError, WaitTimeoutError
from pytest_bootc.model import HeldLogin, SSHEndpoint
from pytest_bootc.shell import Command, CommandResult, ShellVerbs, shell_line, time_limit
from pytest_bootc.ssh.connection import Connection
from pytest_bootc.ssh.files import Files
from pytest_bootc.ssh.login import endpoint_name, log_in
from pytest_bootc.ssh.resumption import take_up
from pytest_bootc.ssh.transport import GuestTransport

#: Where the kernel names the current boot (random(4)).
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_CHUNK = 256 << 10
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 3.0
_LOGIN_SECONDS = 0.5  # with less time left, another login would only fail by that


class SSHSession(ShellVerbs):
    """A login on a machine: a handle that stays, over a connection that may be made anew.

    Commands may be run from several threads, eight at a time; the others wait.
    """

    def __init__(self, endpoint: SSHEndpoint, *, keepalive: float = 15.0) -> None:
        self._endpoint = endpoint
        self._keepalive = keepalive
        self._open: tuple[Connection, Files] | None = None

    @classmethod
    def connect(cls, endpoint: SSHEndpoint, deadline: Deadline, *, keepalive: float = 15.0) -> SSHSession:
        """Log in, trying again until the deadline where the port is closed or the connection breaks off.

        ``keepalive`` is how many seconds a guest may be silent while something is under way before it counts as
        frozen; an emulated one needs more.

        :raises SSHConnectError: nobody answered in time, the host key differs, or the login was refused.
        :raises ConfigError: the endpoint's own key or host key cannot be read.
        """
        session = cls(endpoint, keepalive=keepalive)
        session.reconnect(deadline)
        return session

    @classmethod
    def resume(cls, endpoint: SSHEndpoint, held: HeldLogin, *, keepalive: float = 15.0) -> SSHSession | None:
        """Go on with a login that another process has handed over; ``None`` where the guest does not answer on it.

        The descriptor belongs to the session, or is closed.
        """
        session = cls(endpoint, keepalive=keepalive)
        try:
            session._begin(take_up(held))
        except SSHConnectError:
            return None
        if session.alive():
            return session
        session.close()
        return None

    def hand_over(self) -> HeldLogin | None:
        """End this session and have another process go on with its login; ``None`` where that cannot be."""
        opened, self._open = self._open, None
        return None if opened is None else opened[0].hand_over()

    @property
    def endpoint(self) -> SSHEndpoint:
        """Where and as whom this session logs in."""
        return self._endpoint

    def reconnect(self, deadline: Deadline, endpoint: SSHEndpoint | None = None) -> None:
        """Drop the connection and log in anew, at another endpoint where one is given.

        Raises as :meth:`connect` does.
        """
        self._reconnect(deadline, endpoint or self._endpoint, refusal_is_final=True)

    def take_over(self, other: SSHSession) -> None:
        """Drop the connection and go on with that of another session, which has none then."""
        self.close()
        self._endpoint, self._keepalive = other._endpoint, other._keepalive
        self._open, other._open = other._open, None

    def close(self) -> None:
        """Drop the connection; whatever still runs in it ends with an error. Closing twice does nothing."""
        opened, self._open = self._open, None
        if opened is not None:
            opened[0].close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection that nobody has noticed to be closed, lost or cut; the guest is not asked."""
        return self._open is not None and self._open[0].up()

    def alive(self) -> bool:
        """Whether the guest answers on this connection now; a frozen one is waited for as long as ``keepalive``."""
        return self._open is not None and self._open[0].answers()

    def interrupt(self, error: BaseException) -> None:
        """End whatever runs in this session at once with ``error``; for another thread than the one that waits.

        The connection is cut: later commands raise the same error until :meth:`reconnect`.
        """
        if self._open is not None:
            self._open[0].cut(error)

    def execute(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command in the user's login shell, as :meth:`ShellVerbs.execute` says.

        At the deadline the command's processes in the guest are ended, too, as far as they are still in its
        process group. More than 256 MiB of output is an error.
        """
        connection, _ = self._opened()
        return connection.execute(shell_line(command, env), stdin, time_limit(timeout, deadline))

    def read_file(self, path: str, *, timeout: float | None = None, deadline: Deadline | None = None) -> bytes:
        """The content of a file in the guest.

        :raises SSHCommandError: it cannot be read, or not in time.
        """
        _, files = self._opened()
        return b"".join(files.fetch(path, time_limit(timeout, deadline)))

    def write_file(
        self,
        path: str,
        content: bytes,
        *,
        mode: int | None = None,
        timeout: float | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        """Write a file in the guest; ``mode``, its permission bits, is set before anything is in it.

        :raises SSHCommandError: it cannot be written, or not in time.
        """
        _, files = self._opened()
        files.send((content,), path, mode, time_limit(timeout, deadline))

    def get(self, remote: str, local: Path, *, timeout: float | None = None, deadline: Deadline | None = None) -> None:
        """Copy a file from the guest; ``local`` appears when all of it is there. Raises as :meth:`read_file` does.

        :raises ConfigError: ``local`` cannot be written.
        """
        _, files = self._opened()
        part = local.with_name(f"{local.name}.part")
        try:
            with (
                closing(files.fetch(remote, time_limit(timeout, deadline))) as chunks,
                _host_file(local),
                part.open("wb") as sink,
            ):
                for chunk in chunks:
                    sink.write(chunk)
                part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def put(
        self,
        local: Path,
        remote: str,
        *,
        mode: int | None = None,
        timeout: float | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        """Copy a file to the guest. Raises as :meth:`write_file` does.

        :raises ConfigError: ``local`` cannot be read.
        """
        _, files = self._opened()
        with _host_file(local), local.open("rb") as source:
            files.send(iter(partial(source.read, _CHUNK), b""), remote, mode, time_limit(timeout, deadline))

    def boot_id(self, *, timeout: float | None = None, deadline: Deadline | None = None) -> str:
        """The kernel's name for this boot of the guest; another one means that it was rebooted."""
        return self.succeed(["cat", BOOT_ID], timeout=timeout, deadline=deadline).strip()

    def wait_for_reboot(self, old_boot_id: str, deadline: Deadline) -> str:
        """Log in anew until the guest has another boot id; return that.

        A refused login counts as *not ready yet*: sshd may be up before logins are allowed (pam_nologin(8)).

        :raises SSHConnectError: nobody let us in before the deadline.
        :raises WaitTimeoutError: the guest answered until the deadline, and was not rebooted.
        """
        pause, last = _FIRST_PAUSE, ""
        while True:
            try:
                self._reconnect(deadline, self._endpoint, refusal_is_final=False)
            except SSHConnectError as error:
                details = "\n".join(filter(None, (error.details, last)))
                raise SSHConnectError(error.brief, details=details, resolution=error.resolution) from error
            try:
                if (seen := self.boot_id(deadline=deadline)) != old_boot_id:
                    return seen
                last = f"It answered from the boot {old_boot_id}."
            except SSHError as error:  # it went down under us, which is what we wait for
                last = error.brief
            self.close()
            deadline.pause(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.6)
            if deadline.remaining() < _LOGIN_SECONDS:
                raise WaitTimeoutError(
                    f"waited {deadline.seconds:g} s for {endpoint_name(self._endpoint)} to reboot", details=last
                )

    def __enter__(self) -> SSHSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reconnect(self, deadline: Deadline, endpoint: SSHEndpoint, *, refusal_is_final: bool) -> None:
        self.close()
        self._endpoint = endpoint
        self._begin(log_in(endpoint, deadline, refusal_is_final=refusal_is_final))

    def _begin(self, transport: GuestTransport) -> None:
        connection = Connection(transport, endpoint_name(self._endpoint), self._keepalive)
        self._open = connection, Files(connection)

    def _opened(self) -> tuple[Connection, Files]:
        if self._open is None:
            raise SSHConnectError(f"there is no connection to {endpoint_name(self._endpoint)}")
        return self._open


@contextmanager
def _host_file(path: Path) -> Iterator[None]:
    """Map the host's own trouble with a file; the guest's has been mapped already."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be copied: {error.strerror}") from error
