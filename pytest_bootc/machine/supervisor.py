"""Ends a machine's processes with their owner. A program of its own: ``python -I -S supervisor.py``.

Its standard input is a pipe that the owner holds. The first line is a plan in JSON::

    {"processes": [{"name": "qemu", "argv": [...], "log": PATH, "after": SOCKET or null}, ...], "folders": [PATH, ...]}

The processes are started in that order, each as soon as the socket that it comes ``after`` exists. Then it waits:

- end of file on standard input (the owner ended, however it ended): kill all, remove the folders;
- the line ``stop``: kill all, keep the folders;
- the last process of the plan ends by itself: end the others, keep the folders.

One line of JSON on standard output tells each start and each end. Were this program killed, the kernel would kill
its children (PR_SET_PDEATHSIG, prctl(2)): it has one thread only, so the death of the spawning thread is its own.
It imports nothing but the standard library, so that it starts in a few hundredths of a second.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 3.0
_SOCKET_SECONDS = 15.0
_libc = ctypes.CDLL(None)
_self = os.getpid()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _self:  # it died before that
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _tell(**what: object) -> None:
    try:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()
    except OSError:
        # The owner is gone; end of file on standard input follows.
        pass


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


def _watch(running: "dict[str, subprocess.Popen[bytes]]", owner: int) -> bool:
    """Wait for the end; whether the folders are to be removed."""
    last = list(running)[-1]
    ends = {os.pidfd_open(child.pid): name for name, child in running.items()}
    while True:
        for ready in select.select([owner, *ends], [], [])[0]:
            if ready == owner:
                return os.read(owner, 4096) == b""
            name = ends.pop(ready)
            os.close(ready)
            _tell(event="ended", name=name, status=running[name].wait())
            if name == last:
                return False


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
    running = _start(plan, owner)
    remove = True
    try:
        complete = len(running) == len(plan["processes"])
        remove = _watch(running, owner) if complete else _has_gone(owner)
    finally:
        _end(running)
        if remove:
            for folder in plan["folders"]:
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
