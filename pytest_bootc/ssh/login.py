"""Logging in: one attempt at a time, with a pinned host key, until the deadline."""

from __future__ import annotations

import base64
import io
import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import paramiko

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError, SSHConnectError
from pytest_bootc.model import SSHEndpoint
from pytest_bootc.ssh.border import FINAL, FOREIGN, NoKeyError, explain, said
from pytest_bootc.ssh.transport import GuestTransport

# A guest in emulation needs seconds to say its first word; after a minute it is more likely that a packet got lost.
_ATTEMPT_SECONDS = 60.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
# The first logins of a guest that is still booting are refused (pam_nologin(8)); sshd punishes the hasty.
_REFUSED_PAUSE = 5.0
_SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
_KEY_CLASSES: tuple[type[paramiko.PKey], ...] = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
_NO_METHODS = "No authentication methods available"  # in paramiko's words
_UNREADABLE: tuple[type[BaseException], ...] = (*FOREIGN, ValueError)

# paramiko tells of every broken handshake on stderr, with a traceback; here they come as exceptions.
_LOGGER = "pytest_bootc.ssh.paramiko"
logging.getLogger(_LOGGER).setLevel(logging.CRITICAL + 1)


def endpoint_name(endpoint: SSHEndpoint) -> str:
    """The endpoint as people write it: ``root@[::1]:2222``."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{endpoint.user}@{host}:{endpoint.port}"


def log_in(endpoint: SSHEndpoint, deadline: Deadline, *, refusal_is_final: bool = True) -> GuestTransport:
    """A connection that is logged in.

    A port that is closed and a connection that breaks off are tried again, with growing pauses: sshd punishes
    addresses that connect and go away (PerSourcePenalties, sshd_config(5)). With ``refusal_is_final`` false, so is
    a login that was refused.

    :raises SSHConnectError: nobody answered before the deadline, the host key differs, or the login was refused.
    :raises ConfigError: the endpoint's own key or host key cannot be read.
    """
    key = _private_key(endpoint)
    started, attempts, pause = time.monotonic(), 0, _FIRST_PAUSE
    while True:
        attempts += 1
        try:
            return _attempt(endpoint, key, deadline.sooner(_ATTEMPT_SECONDS))
        except FOREIGN as error:
            refused = isinstance(error, paramiko.AuthenticationException)
            if refused:
                pause = _REFUSED_PAUSE
            final = refusal_is_final if refused else isinstance(error, FINAL)
            if final or deadline.expired():
                tried = "" if final else f"Tried {attempts} times in {time.monotonic() - started:.1f} s."
                raise _connect_error(endpoint, error, tried) from error
        deadline.pause(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.6)


class _RefuseUnknown(paramiko.MissingHostKeyPolicy):
    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise SSHConnectError(
            f"{hostname} is not in your known_hosts",
            details=f"It shows the key {key.get_name()} {key.get_base64()}",
            resolution=f"log in once with `ssh {hostname}` and compare the fingerprint",
        )


def _attempt(endpoint: SSHEndpoint, key: paramiko.PKey | None, deadline: Deadline) -> GuestTransport:
    client = _client(endpoint)
    stream = socket.create_connection((endpoint.host, endpoint.port), timeout=max(0.1, deadline.remaining()))
    try:
        # Without it every exchange waits for the peer's delayed acknowledgement: 40 ms.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def make_transport(sock: Any, **_: object) -> GuestTransport:
            made = GuestTransport(sock)
            made.handshake_timeout = deadline.remaining()
            return made

        client.connect(
            endpoint.host,
            endpoint.port,
            endpoint.user,
            sock=stream,
            pkey=key,
            allow_agent=key is None,
            look_for_keys=key is None,
            compress=False,
            timeout=deadline.remaining(),
            banner_timeout=deadline.remaining(),
            auth_timeout=deadline.remaining(),
            transport_factory=make_transport,
        )
    except BaseException as error:
        transport = client.get_transport()
        lost = transport is None or not transport.is_active()
        client.close()
        stream.close()
        reason = _reason(error, deadline, lost=lost and key is not None)
        if reason is not None:
            raise reason from error
        raise
    transport = cast(GuestTransport, client.get_transport())
    transport.client = client
    return transport


def _reason(error: BaseException, deadline: Deadline, *, lost: bool) -> Exception | None:
    """What paramiko has hidden behind an exception of a more general kind."""
    # One key that is refused leaves the connection open; one that broke says nothing about the key.
    if isinstance(error, paramiko.AuthenticationException):
        return EOFError("the connection broke off during the login") if lost else None
    if type(error) is not paramiko.SSHException:
        return None
    if str(error) == _NO_METHODS:
        return NoKeyError(_NO_METHODS)
    if isinstance(error.__context__, EOFError | OSError):
        return error.__context__
    return TimeoutError(str(error)) if deadline.expired() else None


def _client(endpoint: SSHEndpoint) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_log_channel(_LOGGER)
    client.set_missing_host_key_policy(_RefuseUnknown())
    if endpoint.host_key is None:
        client.load_system_host_keys()
        if _SYSTEM_KNOWN_HOSTS.exists():
            client.load_system_host_keys(str(_SYSTEM_KNOWN_HOSTS))
        return client
    kind, _, text = endpoint.host_key.partition(" ")
    try:
        pinned = paramiko.PKey.from_type_string(kind, base64.b64decode(text.split(" ")[0], validate=True))
    except _UNREADABLE as error:
        raise ConfigError(
            f"the host key of {endpoint_name(endpoint)} cannot be read",
            details=f"{endpoint.host_key}\n{said(error)}",
            resolution="give it as ssh-keyscan prints it: `ssh-ed25519 AAAA...`",
        ) from error
    name = endpoint.host if endpoint.port == paramiko.config.SSH_PORT else f"[{endpoint.host}]:{endpoint.port}"
    client.get_host_keys().add(name, kind, pinned)
    return client


def _private_key(endpoint: SSHEndpoint) -> paramiko.PKey | None:
    if endpoint.private_key is None:
        return None
    complaints = []
    for kind in _KEY_CLASSES:
        try:
            return kind.from_private_key(io.StringIO(endpoint.private_key))
        except _UNREADABLE as error:
            complaints.append(f"as {kind.__name__}: {error}")
    raise ConfigError(
        f"the private key for {endpoint_name(endpoint)} cannot be read",
        details="\n".join(complaints),
        resolution="give an Ed25519, ECDSA or RSA key without passphrase in OpenSSH's format",
    )


_RESOLUTIONS: Mapping[type[BaseException], str] = {
    paramiko.BadHostKeyException: "another machine answers at this address; or, on a host that is known to have "
    "been installed anew, remove its old line from known_hosts",
    NoKeyError: "make one with ssh-keygen(1), or load one into an agent with ssh-add(1)",
    paramiko.PasswordRequiredException: "load it into an agent: ssh-add(1)",
    paramiko.AuthenticationException: "see sshd's journal in the guest: it names the reason (permissions of the "
    "key file and the folders above it, PermitRootLogin, AllowUsers)",
}


def _connect_error(endpoint: SSHEndpoint, error: BaseException, tried: str) -> SSHConnectError:
    return SSHConnectError(
        f"no login at {endpoint_name(endpoint)}: {explain(error)}",
        details="\n".join(filter(None, (said(error), tried))),
        resolution=next((text for kind, text in _RESOLUTIONS.items() if isinstance(error, kind)), ""),
    )
