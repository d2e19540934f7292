"""A login that goes on in another process: the connection itself, and what SSH has to know to go on with it.

With AES-GCM that is little: a key for each direction, and how many packets have been encrypted with it (RFC 5647, 7.1).
Logins with another cipher are not handed over. Once the other end has seen a packet of each side, both agree; where
somebody has used the connection meanwhile, or lost a byte of it, the first packet cannot be decrypted, and it breaks.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from paramiko.auth_handler import AuthHandler

from pytest_bootc.errors import SSHConnectError
from pytest_bootc.model import HeldLogin
from pytest_bootc.ssh.transport import GCM, GuestTransport

_FIXED_BYTES = 4  # of the 12 of a nonce; the others count
_BLOCK = _TAG = 16  # bytes, of AES and of what proves a packet genuine
_SCHEMA = 1


def hand_over(transport: GuestTransport) -> HeldLogin | None:
    """End our use of a connection on which nothing is under way; ``None`` where it cannot go on elsewhere.

    The caller owns the descriptor. The transport is closed in any case.
    """
    ciphers = transport.packetizer.inbound.name, transport.packetizer.outbound.name
    if not (transport.is_active() and all(name in GCM for name in ciphers)):
        transport.close()
        return None
    # Whatever was still on its way has come when this is answered.
    transport.global_request("keepalive@openssh.com")
    if not transport.is_active():
        return None
    descriptor = os.dup(transport.sock.fileno())
    transport.close()
    transport.join()
    streams = [
        (stream.name, stream.key.hex(), _advanced(stream.nonce, stream.packets).hex())
        for stream in (transport.packetizer.inbound, transport.packetizer.outbound)
    ]
    state = {"schema": _SCHEMA, "streams": streams, **_agreed(transport)}
    return HeldLogin(descriptor, json.dumps(state))


def take_up(held: HeldLogin) -> GuestTransport:
    """Go on with a login; the descriptor is ours then. Whether the peer is there, nobody knows before it is asked.

    :raises SSHConnectError: the state is that of another version of this module.
    """
    stream = socket.socket(fileno=held.descriptor)
    try:
        state = json.loads(held.state)
        if state.get("schema") != _SCHEMA:
            raise SSHConnectError("the login that was kept is one of another version")
        transport = _ResumedTransport(stream, state)
    except BaseException:
        stream.close()
        raise
    transport.begin()
    return transport


def _agreed(transport: Any) -> Mapping[str, Any]:
    return {
        "session_id": transport.session_id.hex(),
        "version": transport.remote_version,
        "strict": transport.agreed_on_strict_kex,
        "channels": transport._channel_counter,
    }


def _advanced(nonce: bytes, packets: int) -> bytes:
    counter = int.from_bytes(nonce[_FIXED_BYTES:], "big") + packets
    return nonce[:_FIXED_BYTES] + counter.to_bytes(len(nonce) - _FIXED_BYTES, "big")


class _ResumedTransport(GuestTransport):
    """One whose handshake and login another process has made.

    paramiko has no public way to be without them: what its thread begins with is left out here, by the names that
    are overridden below. New keys are agreed on as on every connection, when their time has come.
    """

    def __init__(self, sock: socket.socket, state: Mapping[str, Any]) -> None:
        super().__init__(sock)
        self._resuming = self.packetizer.silent = True
        _install(self, state)

    def begin(self) -> None:
        """Do what start_client() does, which would wait for a handshake."""
        self.active = True
        self.start()

    def _check_banner(self) -> None:
        """It was read long ago."""

    def _send_kex_init(self) -> None:
        if not self._resuming:
            super()._send_kex_init()  # type: ignore[misc]

    def _expect_packet(self, *types: int) -> None:
        if self._resuming:
            # This is the last thing before paramiko's thread reads its first packet.
            self._resuming = self.packetizer.silent = False
        else:
            super()._expect_packet(*types)  # type: ignore[misc]


# The names are private to paramiko.
def _install(transport: Any, state: Mapping[str, Any]) -> None:
    """Bring a transport into the state that handshake and login leave behind."""
    transport.session_id = bytes.fromhex(state["session_id"])
    transport.remote_version = state["version"]
    transport.agreed_on_strict_kex = state["strict"]
    # What the server still has to say of earlier channels is no news.
    transport._channel_counter = state["channels"]
    transport.channels_seen = dict.fromkeys(range(state["channels"]), True)
    transport.initial_kex_done = transport.packetizer._initial_kex_done = True
    transport.in_kex = False
    transport.clear_to_send.set()
    transport.auth_handler = AuthHandler(transport)
    transport.auth_handler.authenticated = True
    (transport.remote_cipher, key_in, nonce_in), (transport.local_cipher, key_out, nonce_out) = (
        (name, bytes.fromhex(key), bytes.fromhex(nonce)) for name, key, nonce in state["streams"]
    )
    packetizer, engine = transport.packetizer, transport._get_engine
    decryptor = engine(transport.remote_cipher, key_in, nonce_in, transport._DECRYPT, aead=True)
    packetizer.set_inbound_cipher(decryptor, _BLOCK, None, _TAG, None, aead=True, iv_in=nonce_in)
    encryptor = engine(transport.local_cipher, key_out, nonce_out, transport._ENCRYPT, aead=True)
    packetizer.set_outbound_cipher(encryptor, _BLOCK, None, _TAG, None, aead=True, iv_out=nonce_out)
