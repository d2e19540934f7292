from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError
from pytest_bootc.machine.sockets import connect


def test_a_socket_that_is_not_listened_on_yet_is_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        later = threading.Timer(0.3, listener.listen)
        later.start()
        with connect(tmp_path / "s", Deadline.after(5)) as connection:
            assert connection.gettimeout() is not None
        later.join()


def test_one_that_nobody_will_listen_on_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        began = time.monotonic()
        with pytest.raises(BackendError, match=r"does not answer on .*refused"):
            connect(tmp_path / "s", Deadline.after(0.3))
        assert 0.3 <= time.monotonic() - began < 2


def test_one_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="No such file"):
        connect(tmp_path / "s", Deadline.after(60))
