"""Which credentials are found where, and that no error shows one."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError
from pytest_bootc.registry.credentials import Credentials, auth_files, find_credentials


def entry(user: str, password: str = "hidden") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, **content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def find(name: str, seconds: float = 10) -> Credentials | None:
    return find_credentials(name, Deadline.after(seconds))


def user(name: str) -> str | None:
    found = find(name)
    return None if found is None else found.username


def test_the_files_and_their_order(home, monkeypatch):
    own = f"/run/containers/{os.getuid()}/auth.json"
    assert auth_files() == (Path(own), home / ".config/containers/auth.json", home / ".docker/config.json")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/settings")
    docker = home / ".docker/config.json"
    podman = (Path("/run/user/1/containers/auth.json"), Path("/settings/containers/auth.json"))
    assert auth_files() == (*podman, docker)
    monkeypatch.setenv("DOCKER_CONFIG", "/docker")
    assert auth_files() == (Path("/docker/config.json"), *podman)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/only/this.json")
    assert auth_files() == (Path("/only/this.json"),)


def test_the_first_file_that_has_some_counts(home, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    write(home / "run/containers/auth.json", auths={"r.example": entry("runtime")})
    write(home / ".config/containers/auth.json", auths={"r.example": entry("config"), "s.example": entry("config")})
    write(home / ".docker/config.json", auths={"s.example": entry("docker"), "t.example": entry("docker")})

    names = ("r.example/a", "s.example/a", "t.example/a", "u.example/a")
    assert [user(name) for name in names] == ["runtime", "config", "docker", None]
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "other"))
    write(home / "other/config.json", auths={"r.example": entry("other")})
    assert [user(name) for name in names] == ["other", "config", None, None]
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(write(home / "only.json", auths={"u.example": entry("only")})))
    assert [user(name) for name in names] == [None, None, None, "only"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r.example/a/b/c", "exact"),
        ("r.example/a/b/d", "b"),
        ("r.example/a/bb", "a"),
        ("r.example/x", "host"),
        ("r.example:5000/x", "port"),
        ("r.example.org/x", None),
        ("url.example/x", "url"),
        ("url.example:8443/x", "url with a port"),
        ("path.example/x", None),
        ("docker.io/library/debian", "hub"),
        ("docker.io/team/x", "team"),
        ("empty.example/x", None),
    ],
)
def test_the_longest_prefix_counts(home, name, expected):
    keys = {
        "r.example": "host",
        "r.example/a": "a",
        "r.example/a/b": "b",
        "r.example/a/b/c": "exact",
        "r.example:5000": "port",
        "https://url.example/v1/": "url",
        "http://url.example:8443": "url with a port",
        "path.example/only/this": "path",
        "https://index.docker.io/v1/": "hub",
        "docker.io/team": "team",
    }
    auths = {key: entry(user) for key, user in keys.items()} | {"empty.example": {}}
    write(home / ".docker/config.json", auths=auths)
    assert user(name) == expected


@pytest.mark.parametrize("key", ["docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"])
def test_the_names_of_the_hub(home, key):
    write(home / ".docker/config.json", auths={key: entry("me")})
    assert user("docker.io/library/debian") == "me"


def test_what_an_entry_may_hold(home):
    auths = {
        "a.example": entry("me", "pass:word"),
        "b.example": {"username": "me", "password": "pass"},
        "c.example": {"identitytoken": "refresh"},
        "d.example": {"registrytoken": "bearer"},
        "e.example": entry("00000000-0000-0000-0000-000000000000", "\0") | {"identitytoken": "refresh"},
    }
    path = write(home / ".docker/config.json", auths=auths)

    a, b, c, d, e = (find(f"{host}/x") for host in auths)
    assert (a.username, a.password, a.origin) == ("me", "pass:word", f"the entry a.example of {path}")
    assert base64.b64decode(a.basic) == b"me:pass:word"
    assert base64.b64decode(b.basic) == b"me:pass"
    assert (c.identity_token, c.basic) == ("refresh", "")
    assert d.registry_token == "bearer"
    assert (e.identity_token, e.password) == ("refresh", "")
    for found in (a, b, c, d, e):
        assert not any(secret in repr(found) for secret in ("pass", "refresh", "bearer"))


SECRET = "c2VjcmV0LXRoaW5n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"auths": {"r.example": {"auth": "' + SECRET + '"}', "line 1"),
        ("", "line 1"),
        (f'["{SECRET}"]', "it is not a JSON object"),
        (b"\xc3\x28" + SECRET.encode(), "it is not JSON in UTF-8"),
        ("[" * 100_000, "it is not JSON in UTF-8"),
        ('{"auths": ["' + SECRET + '"]}', "auths is not an object of objects"),
        ('{"auths": {"r.example": "' + SECRET + '"}}', "auths is not an object of objects"),
        ('{"auths": {"r.example": {"auth": "' + SECRET + '"}}}', "r.example: auth is not USER:PASSWORD in base64"),
        ('{"auths": {"r.example": {"auth": "!' + SECRET + '"}}}', "r.example: auth is not USER:PASSWORD in base64"),
        ('{"auths": {"r.example": {"auth": "//79"}}}', "r.example: auth is not USER:PASSWORD in base64"),
        ('{"credHelpers": {"r.example": 1}}', "credHelpers is not an object of texts"),
        ('{"credsStore": []}', "credsStore is not a text"),
        ('{"credHelpers": {"r.example": "../evil"}}', "'../evil' is no name of a credential helper"),
    ],
)
def test_a_malformed_file(home, content, message):
    path = home / ".docker/config.json"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=f"the auth file {path} is malformed") as caught:
        find("r.example/a")
    assert message in caught.value.details
    assert "podman login" in caught.value.resolution
    assert SECRET not in str(caught.value)
    assert "secret-thing" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_cannot_be_read(home, monkeypatch):
    folder = home / ".docker/config.json"
    folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"the auth file {folder} cannot be read") as caught:
        find("r.example/a")
    assert caught.value.details == "Is a directory"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "nowhere.json"))
    with pytest.raises(ConfigError, match=r"REGISTRY_AUTH_FILE names .*nowhere.json, which is not there"):
        find("r.example/a")


@pytest.fixture
def helper(home, monkeypatch):
    """Make a credential helper that this script is; what it is asked is written down."""
    programs = home / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        asked = home / f"{name}.asked"
        program = programs / f"docker-credential-{name}"
        program.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 9\ncat >{asked}\n{script}\n')
        program.chmod(0o755)
        return asked

    return make


GIVES = """echo '{"ServerURL": "x", "Username": "helped", "Secret": "hush"}'"""


def test_helpers(home, helper):
    ours, all_others = helper("ours", GIVES), helper("store", GIVES.replace("helped", "stored"))
    auths = {"ours.example": entry("entry"), "entry.example": entry("entry"), "stored.example": {}}
    write(home / ".docker/config.json", auths=auths, credHelpers={"ours.example": "ours"}, credsStore="store")

    assert [user(f"{host}/a") for host in auths] == ["helped", "entry", "stored"]
    assert find("ours.example/a").password == "hush"
    assert ours.read_text() == "ours.example"
    assert all_others.read_text() == "stored.example"
    assert user("docker.io/library/a") == "stored"
    assert all_others.read_text() == "https://index.docker.io/v1/"
    assert "hush" not in repr(find("ours.example/a"))


def test_a_helper_for_the_hub_is_asked_by_the_name_it_is_known_under(home, helper):
    asked = helper("hub", GIVES)
    for key in ("docker.io", "https://index.docker.io/v1/"):
        write(home / ".docker/config.json", credHelpers={key: "hub"})
        assert user("docker.io/library/a") == "helped"
        assert asked.read_text() == key


def test_a_helper_that_gives_a_token(home, helper):
    helper("ours", GIVES.replace("helped", "<token>"))
    write(home / ".docker/config.json", credHelpers={"r.example": "ours"})
    found = find("r.example/a")
    assert (found.identity_token, found.username, found.basic) == ("hush", "", "")


def test_a_helper_that_knows_nothing_leaves_it_to_the_next_file(home, helper):
    helper("ours", "echo 'credentials not found in native keychain'; exit 1")
    write(home / ".config/containers/auth.json", credHelpers={"r.example": "ours"}, credsStore="ours")
    write(home / ".docker/config.json", auths={"r.example": entry("next")})
    assert user("r.example/a") == "next"
    assert user("s.example/a") is None


@pytest.mark.parametrize(
    ("script", "details"),
    [
        ("echo 'hush: locked' >&2; echo hush; exit 3", "it ended with status 3"),
        ("echo hush", "its answer cannot be read"),
        ('echo \'{"Username": "hush"}\'', "its answer cannot be read"),
        ("echo '[]'", "its answer cannot be read"),
    ],
)
def test_a_helper_that_fails(home, helper, script, details):
    helper("ours", script)
    path = write(home / ".docker/config.json", credHelpers={"r.example": "ours"})
    with pytest.raises(ConfigError, match="docker-credential-ours did not give the credentials") as caught:
        find("r.example/a")
    assert caught.value.details == details
    assert str(path) in caught.value.resolution
    assert "hush" not in str(caught.value)


def test_a_helper_that_does_not_end(home, helper):
    helper("ours", "echo hush; exec sleep 20")
    write(home / ".docker/config.json", credHelpers={"r.example": "ours"})
    began = time.monotonic()
    with pytest.raises(ConfigError, match="did not give the credentials") as caught:
        find("r.example/a", seconds=0.5)
    assert time.monotonic() - began < 5
    assert "did not end within" in caught.value.details
    assert "hush" not in str(caught.value)


def test_helpers_that_are_not_there(home):
    write(home / ".docker/config.json", credsStore="nowhere")
    assert user("r.example/a") is None  # everybody may read most images
    write(home / ".docker/config.json", credHelpers={"r.example": "nowhere"})
    with pytest.raises(ConfigError, match="docker-credential-nowhere is not installed") as caught:
        find("r.example/a")
    assert "take it out of" in caught.value.resolution
