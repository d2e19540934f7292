"""One login: its sessions, the commands in them, and whether the peer is still there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import paramiko

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import SSHCommandError, SSHConnectError
from pytest_bootc.model import HeldLogin
from pytest_bootc.shell import Command, CommandResult, shell_line, short
from pytest_bootc.ssh.border import FOREIGN, explain, said
from pytest_bootc.ssh.ending import parse_siblings, siblings_command, signal_command
from pytest_bootc.ssh.resumption import hand_over
from pytest_bootc.ssh.streams import Streams
from pytest_bootc.ssh.transport import GuestTransport, exit_signal

# sshd allows ten sessions on a connection (MaxSessions, sshd_config(5)); one is for files, one to end a command.
_MOST_COMMANDS = 8
_REFUSED_SECONDS = 2.0
_REFUSED_PAUSE = 0.05
_END_SECONDS = 30.0
_TERM_SECONDS = 1.0
_FIND_PAUSE = 0.1


class Connection:
    """A client that is logged in, until it is closed, lost or cut; all methods may be called from any thread.

    ``keepalive`` is how many seconds the peer may be silent while something is under way.
    """

    def __init__(self, transport: GuestTransport, name: str, keepalive: float) -> None:
        self.name = name
        self._transport = transport
        self._keepalive = keepalive
        self._cut_by: BaseException | None = None
        self._slots = threading.BoundedSemaphore(_MOST_COMMANDS)
        self._starting = threading.Lock()
        self._sessions: list[paramiko.Channel] = []
        self._since: dict[object, float] = {}
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._watch_silence, name=f"watch {name}", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Drop the connection and end its threads."""
        self.cut(SSHConnectError(f"the connection to {self.name} was closed"))
        self._end()

    def hand_over(self) -> HeldLogin | None:
        """End our use of it, so that another process can go on with it; ``None`` where that cannot be."""
        for channel in tuple(self._sessions):
            self.end_session(channel)
        try:
            with self.working("handing it over"):
                return hand_over(self._transport)
        except SSHConnectError:
            return None
        finally:
            self._cut_by = SSHConnectError(f"the connection to {self.name} was handed over")
            self._end()

    def _end(self) -> None:
        self._closing.set()
        self._transport.close()
        self._watch.join()
        self._transport.join(_END_SECONDS)

    def cut(self, error: BaseException) -> None:
        """Break the connection: whatever runs in it, and is asked of it later, raises ``error``."""
        if self._cut_by is None:
            self._cut_by = error
        with suppress(OSError):  # it was broken already
            self._transport.sock.shutdown(socket.SHUT_RDWR)

    def answers(self) -> bool:
        """Whether the peer opens a session within the keepalive."""
        try:
            self._transport.open_session(timeout=self._keepalive).close()
        except paramiko.ChannelException:
            return True  # it says that it has enough of them
        except FOREIGN:
            return False
        return True

    def up(self) -> bool:
        """Whether the connection was neither closed, lost nor cut, as far as anybody noticed."""
        return self._cut_by is None and self._transport.is_active()

    @contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """While something is under way: the peer's silence is noticed, and foreign exceptions are mapped.

        :raises SSHConnectError: the connection was lost, or the peer stopped answering.
        """
        if self._cut_by is not None:
            raise self._cut_by
        token = object()
        self._since[token] = time.monotonic()
        try:
            yield
        except FOREIGN as error:
            reason = explain(error) if self._transport.is_active() else "it closed the connection"
            raise self._lost_error(doing, reason, said(error)) from error
        finally:
            del self._since[token]

    def open_session(self, start: Callable[[paramiko.Channel], None], deadline: Deadline) -> paramiko.Channel:
        """A channel in which ``start`` has asked sshd for something; :meth:`end_session` must follow.

        Raises :class:`TimeoutError` at the deadline, and what paramiko raises.

        Starts come one after the other, so that our list has the order of sshd's forks: by it a command's process
        is found when it must be ended.
        """
        channel = self._new_channel(deadline)
        try:
            channel.settimeout(deadline.remaining())
            with self._starting:
                self._sessions.append(channel)
                start(channel)
        except BaseException:
            self.end_session(channel)
            raise
        return channel

    def _new_channel(self, deadline: Deadline) -> paramiko.Channel:
        # sshd counts a session until it has read of its end, and an image may allow fewer of them than we hope.
        patience = deadline.sooner(_REFUSED_SECONDS)
        while True:
            try:
                return self._transport.open_session(timeout=deadline.remaining())
            except paramiko.SSHException as error:
                limit = deadline if self._sessions else patience
                if not self.up() or (limit.expired() and isinstance(error, paramiko.ChannelException)):
                    raise
                if deadline.expired():
                    raise TimeoutError(str(error)) from error
            limit.pause(_REFUSED_PAUSE)

    def end_session(self, channel: paramiko.Channel) -> None:
        """Close the channel; closing it twice does nothing."""
        if channel in self._sessions:
            self._sessions.remove(channel)
        channel.close()

    def execute(self, line: str, stdin: bytes, deadline: Deadline) -> CommandResult:
        """Run a line of shell to its end.

        :raises SSHCommandError: not within the deadline, or too much output.
        :raises SSHConnectError: the connection was lost.
        """
        started = time.monotonic()
        late = f"`{short(line)}` could not start within {deadline.seconds:g} s"
        if not self._slots.acquire(timeout=deadline.remaining()):
            raise SSHCommandError(late, details=f"{_MOST_COMMANDS} other commands run on {self.name}.")
        try:
            with self.working(f"running `{short(line)}`"):
                try:
                    channel = self.open_session(lambda channel: channel.exec_command(line), deadline)
                except TimeoutError as error:
                    raise SSHCommandError(late, details=f"{self.name} opened no session in that time.") from error
                try:
                    return self._serve(channel, line, stdin, deadline, started)
                finally:
                    self.end_session(channel)
        finally:
            self._slots.release()

    def _serve(
        self, channel: paramiko.Channel, line: str, stdin: bytes, deadline: Deadline, started: float
    ) -> CommandResult:
        streams = Streams(channel, stdin)
        in_time = streams.drain(deadline)
        signal = exit_signal(channel)
        seconds = time.monotonic() - started
        result = CommandResult(line, channel.exit_status, streams.stdout, streams.stderr, seconds, signal)
        if not in_time:
            reason = "printed too much" if streams.overflowed else f"did not end within {deadline.seconds:g} s"
            raise SSHCommandError(
                f"`{short(line)}` {reason}", details=f"{result.transcript()}\n{self._end_processes(channel)}"
            )
        if result.status == -1 and signal is None:
            # The channel may end a moment before the transport knows why.
            self._transport.join(_FIND_PAUSE)
            reason = "no exit status came" if self._transport.is_active() else "it closed the connection"
            raise self._lost_error(f"running `{short(line)}`", reason, result.transcript())
        return result

    def _lost_error(self, doing: str, reason: str, details: str) -> BaseException:
        return self._cut_by or SSHConnectError(f"{self.name} was lost while {doing}: {reason}", details=details)

    def _end_processes(self, channel: paramiko.Channel) -> str:
        """End an overdue command's processes in the guest; what became of them, as a sentence."""
        if channel.status_event.is_set():
            return "The command itself has ended; something that it started still holds its output (redirect that)."
        limit = Deadline.after(min(self._keepalive / 2, _END_SECONDS))
        try:
            with self._starting:
                process = self._find_process(channel, limit)
                if process is not None:
                    self._run_aside(signal_command(process, "TERM"), limit)
                    if not channel.status_event.wait(min(_TERM_SECONDS, limit.remaining())):
                        self._run_aside(signal_command(process, "KILL"), limit)
                elif not channel.status_event.is_set():
                    return "Its processes could not be found in the guest, and may still run."
        except FOREIGN as error:
            return f"Its processes may still run in the guest: {said(error)}"
        return "Its processes in the guest were ended."

    def _find_process(self, channel: paramiko.Channel, limit: Deadline) -> int | None:
        # Another command may end between the two looks at our list; then all are taken again.
        while not (limit.expired() or channel.status_event.is_set()):
            before = self._unfinished()
            processes = parse_siblings(self._run_aside(siblings_command(), limit))
            if before == self._unfinished() and len(before) == len(processes) and channel in before:
                return processes[before.index(channel)]
            limit.pause(_FIND_PAUSE)
        return None

    def _unfinished(self) -> list[paramiko.Channel]:
        return [channel for channel in tuple(self._sessions) if not channel.status_event.is_set()]

    def _run_aside(self, command: Command, limit: Deadline) -> str:
        channel = self._new_channel(limit)
        try:
            channel.exec_command(shell_line(command))
            streams = Streams(channel, b"")
            streams.drain(limit)
            return streams.stdout.decode(errors="replace")
        finally:
            channel.close()

    def _watch_silence(self) -> None:
        ping: threading.Thread | None = None
        while not self._closing.wait(self._keepalive / 4) and self.up():
            quiet = self._quiet()
            if quiet > self._keepalive:
                self.cut(
                    SSHConnectError(
                        f"{self.name} stopped answering",
                        details=f"Nothing came from it for {quiet:.1f} s, not even an answer to a keepalive.",
                        resolution="look at its console: it may have crashed, or be starved of CPU time",
                    )
                )
            elif quiet > self._keepalive / 3 and (ping is None or not ping.is_alive()):
                # In a thread of its own: sending blocks where the peer takes nothing any more.
                ping = threading.Thread(target=self._ping, name=f"ping {self.name}", daemon=True)
                ping.start()

    def _quiet(self) -> float:
        """How long the peer has been silent while something was under way, in seconds."""
        since = tuple(self._since.values())
        return time.monotonic() - max(self._transport.heard, min(since)) if since else 0.0

    def _ping(self) -> None:
        with suppress(*FOREIGN):  # whoever waits for the peer learns of a broken connection by himself
            self._transport.global_request("keepalive@openssh.com")
