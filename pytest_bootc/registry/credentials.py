"""What a registry is shown to be let in, from the files of Docker and Podman (containers-auth.json(5)).

Nothing here ever prints a secret: errors name files and keys.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_bootc.command import CommandError, find_program, look_for_program, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError
from pytest_bootc.image import DOCKER_HUB

_HUB_KEY = "https://index.docker.io/v1/"  # by which Docker knows the one registry that has several names
_HUB_HOSTS = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"  # what a helper calls the user whose secret is an identity token
_HELPER_NAME = re.compile(r"[\w.-]+", re.ASCII)
_HELPER_SECONDS = 30.0
_NOT_FOUND = b"credentials not found"  # docker-credential-helpers, whatever stands behind it


@dataclass(frozen=True)
class Credentials:
    """A user name and a password, or a token; ``origin`` says for people where they are from.

    An ``identity_token`` is exchanged for others at the registry's token server; a ``registry_token`` is shown as is.
    """

    origin: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """User name and password as HTTP's scheme *Basic* has them; empty where there are none."""
        if not self.password:
            return ""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be printed."""
        return tuple(filter(None, (self.basic, self.password, self.identity_token, self.registry_token)))


@dataclass(frozen=True)
class _AuthFile:
    path: Path
    entries: Mapping[str, Mapping[str, object]]
    helpers: Mapping[str, str]
    store: str | None


def auth_files() -> tuple[Path, ...]:
    """Where credentials are looked for, in this order.

    ``$REGISTRY_AUTH_FILE`` alone, where it is set; else ``$DOCKER_CONFIG/config.json``, Podman's ``auth.json`` of the
    running system and of the user, and Docker's ``~/.docker/config.json`` where ``$DOCKER_CONFIG`` does not replace it.
    """
    explicit = os.environ.get("REGISTRY_AUTH_FILE")
    if explicit:
        return (Path(explicit),)
    docker = os.environ.get("DOCKER_CONFIG")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    files = [Path(docker, "config.json")] if docker else []
    files.append(Path(runtime, "containers/auth.json") if runtime else Path(f"/run/containers/{os.getuid()}/auth.json"))
    try:
        home = Path.home()
    except RuntimeError:  # this user has none
        return tuple(files)
    files.append(Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "containers/auth.json"))
    if not docker:
        files.append(home / ".docker/config.json")
    return tuple(files)


def find_credentials(name: str, deadline: Deadline) -> Credentials | None:
    """The credentials for a repository, ``host/path``: of the first file that has some.

    Within a file a helper for the registry goes before all entries, and the entry of the longest prefix of the
    name before the others; ``credsStore`` is asked where no entry fits.

    :raises ConfigError: a file cannot be read, or a helper fails.
    """
    for path in auth_files():
        file = _read(path)
        found = None if file is None else _look_in(file, name, deadline)
        if found is not None:
            return found
    return None


def _look_in(file: _AuthFile, name: str, deadline: Deadline) -> Credentials | None:
    host = _registry(name.partition("/")[0])
    for key, helper in file.helpers.items():
        if _registry(key) == host:
            return _ask(helper, key, file.path, deadline)
    for key in _keys(file, name, host):
        found = _decoded(file, key)
        if found is not None:
            return found
    if file.store and look_for_program(f"docker-credential-{file.store}"):
        # One that is not there must not keep anybody from images that everybody may read.
        return _ask(file.store, _HUB_KEY if host == DOCKER_HUB else host, file.path, deadline)
    return None


def _keys(file: _AuthFile, name: str, host: str) -> Iterator[str]:
    """The keys in the file that are for the repository, best first."""
    key = name
    while key:
        if key in file.entries:
            yield key
        key = key.rpartition("/")[0]
    yield from (key for key in file.entries if _registry(key) == host)


def _registry(key: str) -> str:
    """The host that a key means; Docker writes URLs, and the Hub has many names. Other keys stay as they are."""
    if key.startswith(("http://", "https://")):
        key = key.partition("://")[2].partition("/")[0]
    return DOCKER_HUB if key in _HUB_HOSTS else key


def _decoded(file: _AuthFile, key: str) -> Credentials | None:
    entry = {name: value for name, value in file.entries[key].items() if isinstance(value, str) and value}
    username, password = entry.get("username", ""), entry.get("password", "")
    if "auth" in entry:
        try:
            username, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise _malformed(file.path, f"auths, {key}: auth is not USER:PASSWORD in base64") from None
    found = Credentials(
        f"the entry {key} of {file.path}",
        username,
        password.strip("\0"),
        entry.get("identitytoken", ""),
        entry.get("registrytoken", ""),
    )
    return found if found.secrets else None


def _ask(helper: str, server: str, path: Path, deadline: Deadline) -> Credentials | None:
    """Ask a credential helper. What it prints is a secret, also where it fails: it may have printed half of it."""
    if not _HELPER_NAME.fullmatch(helper):
        raise _malformed(path, f"{helper!r} is no name of a credential helper")
    name = f"docker-credential-{helper}"
    program = find_program(name, resolution=f"install it, or take it out of {path}")
    failed = f"{name} did not give the credentials for {server}"
    resolution = f"see what `echo {server} | {name} get` says, or log in without the helper that {path} names"
    try:
        done = run([program, "get"], deadline=deadline.sooner(_HELPER_SECONDS), stdin=server.encode(), check=False)
    except CommandError as error:
        raise ConfigError(failed, details=error.brief, resolution=resolution) from None
    if done.returncode != 0:
        if _NOT_FOUND in done.stdout or _NOT_FOUND in done.stderr:
            return None
        raise ConfigError(failed, details=f"it ended with status {done.returncode}", resolution=resolution)
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, TypeError, KeyError):
        raise ConfigError(failed, details="its answer cannot be read", resolution=resolution) from None
    if username == _TOKEN_USER:
        return Credentials(name, identity_token=secret)
    return Credentials(name, username, secret)


def _read(path: Path) -> _AuthFile | None:
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not os.environ.get("REGISTRY_AUTH_FILE"):
            return None
        raise ConfigError(
            f"REGISTRY_AUTH_FILE names {path}, which is not there",
            resolution=f"log in with `podman login --authfile {path} HOST`, or unset the variable",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"the auth file {path} cannot be read",
            details=str(error.strerror),
            resolution="let this user read it, or name another one in REGISTRY_AUTH_FILE",
        ) from error
    try:
        content = json.loads(raw)
    except json.JSONDecodeError as error:
        raise _malformed(path, f"line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError):
        raise _malformed(path, "it is not JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise _malformed(path, "it is not a JSON object")
    entries, helpers = _table(content, "auths", dict, path), _table(content, "credHelpers", str, path)
    return _AuthFile(path, entries, helpers, _store(content, path))


def _table(content: Mapping[str, object], key: str, kind: type, path: Path) -> Mapping[str, Any]:
    table = content.get(key) or {}
    if not isinstance(table, dict) or not all(isinstance(value, kind) for value in table.values()):
        raise _malformed(path, f"{key} is not an object of {'objects' if kind is dict else 'texts'}")
    return table


def _store(content: Mapping[str, object], path: Path) -> str | None:
    store = content.get("credsStore")
    if store is not None and not isinstance(store, str):
        raise _malformed(path, "credsStore is not a text")
    return store


def _malformed(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"the auth file {path} is malformed",
        details=what,
        resolution="correct it, or log in again with `podman login HOST` or `docker login HOST`",
    )
