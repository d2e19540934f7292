"""paramiko's transport, which knows some things more of its connection."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST
from paramiko.packet import Packetizer

# The cheapest key exchange first: an emulated CPU takes a noticeable part of a second for the others.
_KEX = "curve25519-sha256@libssh.org"

#: A login with one of these can be handed over to another process.
GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

_exit_signals: WeakKeyDictionary[paramiko.Channel, str] = WeakKeyDictionary()


def exit_signal(channel: paramiko.Channel) -> str | None:
    """The signal that ended the channel's command, without SIG, where sshd told of one (RFC 4254, 6.10)."""
    return _exit_signals.get(channel)


@dataclass
class Stream:
    """One direction since its last keys: the cipher, its key and first nonce, and how many packets there were."""

    name: str = ""
    key: bytes = b""
    nonce: bytes = b""
    packets: int = 0


class _Packetizer(Packetizer):
    """One that knows when the peer was last heard, and what both directions have come to.

    It is ``silent`` as long as the peer has nothing to be told of who we are.
    """

    def __init__(self, stream: socket.socket) -> None:
        super().__init__(stream)
        self.heard = time.monotonic()
        self.inbound, self.outbound = Stream(), Stream()
        self.silent = False
        self._sending = threading.Lock()

    def read_message(self) -> tuple[int, paramiko.Message]:
        message = super().read_message()
        self.inbound.packets += 1
        self.heard = time.monotonic()
        return message

    def send_message(self, data: paramiko.Message) -> None:
        with self._sending:
            super().send_message(data)
            self.outbound.packets += 1

    def write_all(self, out: Any) -> None:
        if not self.silent:
            super().write_all(out)

    def start_handshake(self, timeout: float) -> None:
        if not self.silent:
            super().start_handshake(timeout)


def _channel_request(channel: paramiko.Channel, message: paramiko.Message) -> None:
    if message.get_text() == "exit-signal":
        message.get_boolean()
        _exit_signals[channel] = message.get_text()
        return
    message.rewind()
    message.get_int()  # the channel's number, which was read before
    channel._handle_request(message)  # type: ignore[attr-defined]


class GuestTransport(paramiko.Transport):
    """paramiko's transport, which also hears when the peer is alive and which signal ended a command."""

    # paramiko drops exit-signal, and offers no public way to a request that it does not know.
    _channel_handler_table = {  # noqa: RUF012 (as paramiko has it)
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_REQUEST: _channel_request,
    }

    packetizer: _Packetizer
    #: Who made it, and would close it as soon as nobody refers to him.
    client: paramiko.SSHClient | None = None

    def __init__(self, sock: Any) -> None:
        super().__init__(sock, packetizer_class=_Packetizer)
        security = self.get_security_options()
        security.kex = (_KEX, *(name for name in security.kex if name != _KEX))
        security.ciphers = (*GCM, *(name for name in security.ciphers if name not in GCM))

    def _get_engine(
        self, name: str, key: bytes, iv: bytes = b"", operation: object = None, *, aead: bool = False
    ) -> object:
        stream = Stream(name, key, iv)
        if operation is self._ENCRYPT:  # type: ignore[attr-defined]
            self.packetizer.outbound = stream
        else:
            self.packetizer.inbound = stream
        return super()._get_engine(name, key, iv, operation, aead)  # type: ignore[misc]

    @property
    def heard(self) -> float:
        """When the peer last said something, on the monotonic clock."""
        return self.packetizer.heard
