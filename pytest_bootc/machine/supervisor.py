"""Ends a machine's processes with their owner. A program of its own: ``python -I -S supervisor.py``.

Its standard input is a pipe that the owner holds. The first line is a plan in JSON::

    {"processes": [{"name": "qemu", "argv": [...], "log": PATH, "after": SOCKET or null}, ...], "folders": [PATH, ...],
     "kept": {"socket": PATH, "idle": SECONDS, "hold": [SOCKET, ...], "lock": DESCRIPTOR} or null}

The processes are started in that order, each as soon as the socket that it comes ``after`` exists. Then it waits:

- end of file on standard input (the owner ended, however it ended): kill all, remove the folders;
- the line ``stop``: kill all, keep the folders;
- the last process of the plan ends by itself: end the others, keep the folders.

One line of JSON on standard output tells each start and each end. Were this program killed, the kernel would kill
its children (PR_SET_PDEATHSIG, prctl(2)): it has one thread only, so the death of the spawning thread is its own.
It imports nothing but the standard library, so that it starts in a few hundredths of a second.

A machine is *kept* after its owner has said ``keep``: at the end of file everything goes on, until nobody has been
connected to the socket of the plan for the idle time. Who connects says a line:

- ``use``: be the owner, as by standard input. Starts and ends are told, and then comes ``{"event": "yours"}``, with the
  descriptors of the lock, of connections to the sockets that are to be held, and of the login if there is one. Those
  are held so that a guest sees somebody at the other end of its ports while nobody is. If there is an owner:
  ``{"event": "busy", "pid": PID}``;
- ``login STATE``, with a descriptor: keep a login on the guest for the next owner, who gets both with ``yours``;
- ``visit``: be there, so that the machine is not idle: ``{"event": "status", "user": PID or null, "idle": SECONDS}``;
- ``end``: kill all, remove the folders, unless there is an owner.

An owner who has connected and goes away leaves the machine behind as it is. Where it ends meanwhile, the folders are
the owner's; where there is none, they are removed.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 3.0
_SOCKET_SECONDS = 15.0
_CONNECT_SECONDS = 1.0
_libc = ctypes.CDLL(None)
_self = os.getpid()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _self:  # it died before that
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# Where events are told: standard output, or the connection of whoever owns the machine now.
_ears = [1]


def _tell(**what: object) -> None:
    for ear in _ears:
        # Where the owner is gone, end of file follows.
        with suppress(OSError):
            os.write(ear, json.dumps(what).encode() + b"\n")


def _start(plan: dict[str, object], owner: int) -> "dict[str, subprocess.Popen[bytes]]":
    running: dict[str, subprocess.Popen[bytes]] = {}
    for process in plan["processes"]:  # type: ignore[attr-defined]
        if process["after"] and not _await_socket(process["after"], running, owner):
            _tell(event="failed", name=process["name"], reason=f"{process['after']} did not appear")
            return running
        with open(process["log"], "ab") as log:  # noqa: PTH123
            try:
                child = subprocess.Popen(
                    process["argv"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
                )
            except OSError as error:
                _tell(event="failed", name=process["name"], reason=str(error))
                return running
        running[process["name"]] = child
        _tell(event="started", name=process["name"], pid=child.pid)
    return running


def _await_socket(path: str, running: "dict[str, subprocess.Popen[bytes]]", owner: int) -> bool:
    until = time.monotonic() + _SOCKET_SECONDS
    while not os.path.exists(path):  # noqa: PTH110
        if time.monotonic() > until or any(child.poll() is not None for child in running.values()):
            return False
        if select.select([owner], [], [], 0.01)[0]:
            return False
    return True


class _Watch:
    """Waits for the end of the processes, of their owner, or of an idle time."""

    def __init__(self, running: "dict[str, subprocess.Popen[bytes]]", owner: int, kept: "dict[str, object] | None"):
        self._running = running
        self._last = list(running)[-1]
        self._ends = {os.pidfd_open(child.pid): name for name, child in running.items()}
        self._owner: int | None = owner
        self._said = b""
        self._is_kept = False
        self._kept = kept or {}
        self._listener = _listen(str(kept["socket"])) if kept else None
        self._clients: dict[socket.socket, bytes] = {}
        self._login: tuple[int, str] | None = None
        self._user: socket.socket | None = None
        self._visitors: set[socket.socket] = set()
        self._held: list[socket.socket] = []
        self._alone_since = 0.0

    def until_the_end(self) -> bool:
        """Whether the folders are to be removed."""
        while True:
            others = [who for who in (self._owner, self._listener) if who is not None]
            waited_for: list[int | socket.socket] = [*self._ends, *self._clients, *others]
            ready = select.select(waited_for, [], [], self._patience())[0]
            if not ready and self._patience() == 0:
                return True
            for who in ready:
                remove = self._hear(who)
                if remove is not None:
                    return remove

    def _patience(self) -> "float | None":
        """For how many seconds nobody need come; ``None`` while somebody is there."""
        if self._owner is not None or self._user is not None or self._visitors:
            return None
        return max(0.0, self._alone_since + float(str(self._kept["idle"])) - time.monotonic())

    def _hear(self, who: "int | socket.socket") -> "bool | None":
        """Do what has to be done; at the end, whether the folders are to be removed."""
        if who is self._listener:
            self._clients[self._listener.accept()[0]] = b""
        elif isinstance(who, socket.socket):
            return self._hear_client(who)
        elif who == self._owner:
            return self._hear_owner()
        else:
            name = self._ends.pop(who)
            os.close(who)
            _tell(event="ended", name=name, status=self._running[name].wait())
            if name == self._last:
                return self._owner is None and self._user is None
        return None

    def _hear_owner(self) -> "bool | None":
        chunk = os.read(0, 4096)
        self._said += chunk
        if b"stop\n" in self._said:
            return False
        self._is_kept = self._is_kept or (self._listener is not None and b"keep\n" in self._said)
        if chunk:
            return None
        if not self._is_kept:
            return True
        self._owner = None
        # An owner that lives listens until then.
        os.close(1)
        self._be_alone()
        return None

    def _hear_client(self, client: socket.socket) -> "bool | None":
        try:
            chunk, descriptors, _, _ = socket.recv_fds(client, 4096, 1)
        except OSError:
            chunk, descriptors = b"", []
        if descriptors:
            self._keep_login(descriptors[0])
        *lines, self._clients[client] = (self._clients[client] + chunk).split(b"\n")
        for line in lines:
            remove = self._do(client, line)
            if remove is not None:
                return remove
        if not chunk:
            self._forget(client)
        return None

    def _do(self, client: socket.socket, line: bytes) -> "bool | None":
        if line == b"stop" and client is self._user:
            return False
        if line in (b"use", b"end") and (self._owner is not None or self._user is not None):
            _say(client, event="busy", pid=self._user_process())
        elif line == b"use" and self._is_kept:
            self._hand_over(client)
        elif line == b"end":
            return True
        elif line.startswith(b"login ") and self._login is not None:
            self._login = (self._login[0], line.partition(b" ")[2].decode())
        elif line == b"visit":
            alone = self._owner is None and self._user is None and not self._visitors
            idle = time.monotonic() - self._alone_since if alone else 0.0
            self._visitors.add(client)
            _say(client, event="status", user=self._user_process(), idle=idle)
        return None

    def _hand_over(self, client: socket.socket) -> None:
        self._user = client
        _ears[:] = [client.fileno()]
        for name, child in self._running.items():
            _tell(event="started", name=name, pid=child.pid)
            if child.returncode is not None:
                _tell(event="ended", name=name, status=child.returncode)
        held = [int(str(self._kept["lock"])), *(connection.fileno() for connection in self._held)]
        if self._login is None:
            _say(client, held, event="yours")
        else:
            _say(client, [*held, self._login[0]], event="yours", login=self._login[1])
        self._let_go()
        self._keep_login(None)

    def _forget(self, client: socket.socket) -> None:
        del self._clients[client]
        self._visitors.discard(client)
        client.close()
        if client is self._user:
            self._user = None
            self._be_alone()
        elif self._owner is None and self._user is None and not self._visitors:
            self._alone_since = time.monotonic()

    def _be_alone(self) -> None:
        _ears.clear()
        self._alone_since = time.monotonic()
        paths = self._kept["hold"]
        self._held = [held for path in paths if (held := _connect(str(path))) is not None]  # type: ignore[attr-defined]
        if len(self._held) < len(paths):  # type: ignore[arg-type]
            self._let_go()

    def _keep_login(self, descriptor: "int | None", state: str = "") -> None:
        if self._login is not None:
            os.close(self._login[0])
        self._login = None if descriptor is None else (descriptor, state)

    def _let_go(self) -> None:
        for connection in self._held:
            connection.close()
        self._held = []

    def _user_process(self) -> "int | None":
        if self._user is not None:
            credentials = self._user.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", credentials)[0])
        return os.getppid() if self._owner is not None else None


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def _connect(path: str) -> "socket.socket | None":
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_CONNECT_SECONDS)
        connection.connect(path)
        connection.settimeout(None)
    except OSError:
        # Whoever uses the machine next connects himself, and waits for the guest to notice.
        connection.close()
        return None
    return connection


def _say(client: socket.socket, descriptors: "list[int] | None" = None, **what: object) -> None:
    # Where it has gone, end of file follows.
    with suppress(OSError):
        socket.send_fds(client, [json.dumps(what).encode() + b"\n"], descriptors or [])


def _has_gone(owner: int) -> bool:
    return bool(select.select([owner], [], [], 0)[0]) and os.read(owner, 4096) == b""


def _end(running: "dict[str, subprocess.Popen[bytes]]") -> None:
    """The last started first: QEMU lets go of its disks before the storage daemon does."""
    for name, child in reversed(running.items()):
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            _tell(event="ended", name=name, status=child.returncode)


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    owner = 0
    said = b""
    while b"\n" not in said:
        chunk = os.read(owner, 1 << 16)
        if not chunk:
            return
        said += chunk
    line, _, rest = said.partition(b"\n")
    if rest:  # told to stop before it has begun
        return
    plan = json.loads(line)
    os.chdir("/")
    running = _start(plan, owner)
    remove = True
    try:
        complete = len(running) == len(plan["processes"])
        # It is named, so that whoever has connected to it is still told of the ends below.
        watch = _Watch(running, owner, plan.get("kept")) if complete else None
        remove = _has_gone(owner) if watch is None else watch.until_the_end()
    finally:
        _end(running)
        if remove:
            for folder in plan["folders"]:
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
