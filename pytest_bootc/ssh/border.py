"""What the exceptions of paramiko and of sockets mean."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import paramiko
from paramiko.auth_strategy import AuthFailure
from paramiko.ber import BERException
from paramiko.buffered_pipe import PipeTimeout
from paramiko.hostkeys import InvalidHostKey
from paramiko.packet import NeedRekeyException
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import (
    IncompatiblePeer,
    MessageOrderError,
    NoValidConnectionsError,
    PartialAuthentication,
    UnableToAuthenticate,
)


class NoKeyError(paramiko.AuthenticationException):
    """The user has neither an agent with keys nor key files; paramiko has no exception of its own for that."""


#: Every exception that can come through, with a sentence for people; of several base classes the nearest counts.
MEANINGS: Mapping[type[BaseException], str] = {
    paramiko.BadHostKeyException: "its host key is not the one that was expected",
    paramiko.AuthenticationException: "it refused our key",
    NoKeyError: "you have no key to log in with",
    paramiko.PasswordRequiredException: "the private key is encrypted",
    paramiko.BadAuthenticationType: "it does not accept keys",
    PartialAuthentication: "it wants more than a key",
    UnableToAuthenticate: "it refused every key",
    AuthFailure: "it refused every key",
    paramiko.ChannelException: "it refused another session",
    IncompatiblePeer: "it speaks no algorithm that we know",
    MessageOrderError: "it broke the SSH protocol",
    paramiko.ProxyCommandFailure: "the proxy command failed",
    NoValidConnectionsError: "nothing listens there",
    paramiko.CouldNotCanonicalize: "its name cannot be made canonical",
    paramiko.ConfigParseError: "the SSH configuration cannot be read",
    paramiko.SSHException: "the SSH protocol broke off",
    paramiko.SFTPError: "its SFTP server broke the protocol",
    InvalidHostKey: "known_hosts has a line that cannot be read",
    UnknownKeyType: "the key is of an unknown type",
    BERException: "the key cannot be decoded",
    NeedRekeyException: "new session keys could not be agreed on",
    PipeTimeout: "it did not answer in time",
    EOFError: "it closed the connection",
    socket.gaierror: "its name cannot be resolved",
    ConnectionRefusedError: "nothing listens there",
    ConnectionError: "it closed the connection",
    TimeoutError: "it did not answer in time",
    OSError: "the connection failed",
}

#: For an ``except`` clause around anything that touches paramiko.
FOREIGN: tuple[type[BaseException], ...] = tuple(MEANINGS)

#: What another attempt a little later does not change.
FINAL = (
    paramiko.BadHostKeyException,
    paramiko.AuthenticationException,
    IncompatiblePeer,
    socket.gaierror,
    InvalidHostKey,
    UnknownKeyType,
)


def explain(error: BaseException) -> str:
    """What an exception from below means for the one who waits, as a clause about the machine."""
    return next((MEANINGS[kind] for kind in type(error).__mro__ if kind in MEANINGS), "the connection failed")


def said(error: BaseException) -> str:
    """The exception's own words, for an error's details."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
