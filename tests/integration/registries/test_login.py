"""Being let in: by docker-registry with passwords and with tokens, and by servers that ask for odd things."""

from __future__ import annotations

import base64
import json
import time

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import Blame, ConfigError, RegistryError
from pytest_bootc.image import Digest
from pytest_bootc.registry.client import Client
from pytest_bootc.registry.configuration import Place

pytestmark = pytest.mark.integration

TARS = [b"1" * 512, b"2" * (3 << 20)]
PASSWORD = "hush-hush"
BASIC = f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}"


@pytest.fixture
def guarded(make_registry, oci_layout):
    """Start a registry that lets in as it is told, with an image in the repository; the image's name comes back."""

    def start(auth, repository="team/server"):
        folder = make_registry()
        folder.push(oci_layout.path, oci_layout.image(*TARS), repository, "v1")
        return f"{make_registry(folder.folder, auth=auth).host}/{repository}:v1"

    return start


def host_of(name: str) -> str:
    return name.partition("/")[0]


def test_a_password(guarded, htpasswd, log_in, pull):
    name = guarded(htpasswd("me", PASSWORD))
    log_in(**{host_of(name): f"me:{PASSWORD}"})
    assert pull(name) == TARS


def test_no_password(guarded, htpasswd, resolve, home):
    name = guarded(htpasswd("me", PASSWORD))
    began = time.monotonic()
    with pytest.raises(ConfigError, match=f"the registry does not let us read {name.removesuffix(':v1')}") as caught:
        resolve(name)
    assert time.monotonic() - began < 3
    assert "401" in caught.value.details
    assert f"we came without a login; there is none in {home}" not in caught.value.details
    assert f"{home}/.docker/config.json" in caught.value.details
    assert f"podman login {host_of(name)}" in caught.value.resolution


def test_a_wrong_password(guarded, htpasswd, log_in, resolve):
    name = guarded(htpasswd("me", PASSWORD))
    path = log_in(**{host_of(name): "me:wrong-one"})
    with pytest.raises(ConfigError, match="does not let us read") as caught:
        resolve(name)
    assert caught.value.blame is Blame.USAGE
    assert f"we came as me, from the entry {host_of(name)} of {path}" in caught.value.details
    assert "wrong-one" not in str(caught.value)
    assert base64.b64encode(b"me:wrong-one").decode() not in str(caught.value)


def test_an_auth_file_that_cannot_be_read(guarded, htpasswd, resolve, home):
    name = guarded(htpasswd("me", PASSWORD))
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text('{"auths": ')
    with pytest.raises(ConfigError, match=r"the auth file .*config\.json is malformed"):
        resolve(name)


def test_operations_of_oras_are_let_in_too(guarded, htpasswd, log_in):
    name = guarded(htpasswd("me", PASSWORD))
    log_in(**{host_of(name): f"me:{PASSWORD}"})
    repository = name.removesuffix(":v1")
    assert Client(Place(repository)).get_tags(repository) == ["v1"]


def test_a_token_for_a_user(guarded, token_server, log_in, pull):
    token_server.users["me"] = PASSWORD
    name = guarded(token_server.auth)
    log_in(**{host_of(name): f"me:{PASSWORD}"})

    assert pull(name) == TARS
    asked = {"account": ["me"], "service": [token_server.service], "scope": ["repository:team/server:pull"]}
    assert token_server.asked == [asked]


def test_a_token_for_anybody(guarded, token_server, pull):
    token_server.public.add("team/server")
    assert pull(guarded(token_server.auth)) == TARS
    assert token_server.asked == [{"service": [token_server.service], "scope": ["repository:team/server:pull"]}]


def test_a_token_for_a_refresh_token(guarded, token_server, log_in, pull):
    token_server.refresh_tokens.add("refresh-me")
    name = guarded(token_server.auth)
    log_in(**{host_of(name): {"identitytoken": "refresh-me"}})
    assert pull(name) == TARS
    assert token_server.asked[0]["refresh_token"] == ["refresh-me"]


def test_a_token_that_was_given_before(guarded, token_server, log_in, resolve):
    token_server.public.add("team/server")
    name = guarded(token_server.auth)
    resolve(name)
    log_in(**{host_of(name): {"registrytoken": token_server.given[0]}})
    resolve(name)
    assert len(token_server.asked) == 1


@pytest.mark.parametrize("entry", ["me:wrong-one", {"identitytoken": "wrong-one"}])
def test_a_login_that_the_token_server_refuses(guarded, token_server, log_in, resolve, entry):
    name = guarded(token_server.auth)
    path = log_in(**{host_of(name): entry})
    with pytest.raises(ConfigError, match=f"the registry {host_of(name)} refuses the login") as caught:
        resolve(name)
    assert str(path) in caught.value.details
    assert caught.value.resolution == f"log in again: podman login {host_of(name)}"
    assert "wrong-one" not in str(caught.value)


def test_nobody_gets_a_token(guarded, token_server, resolve):
    with pytest.raises(ConfigError, match="does not let us read") as caught:
        resolve(guarded(token_server.auth))
    assert "we came without a login" in caught.value.details


def test_repositories_with_logins_of_their_own(guarded, token_server, log_in, resolve):
    token_server.users |= {"me": PASSWORD, "other": "other-one"}
    name = guarded(token_server.auth)
    log_in(**{host_of(name): "other:wrong", f"{host_of(name)}/team": f"me:{PASSWORD}"})
    resolve(name)
    assert token_server.asked[0]["account"] == ["me"]


def test_a_token_that_expires_in_a_pull_is_renewed(misbehaving, oci_layout, opened):
    """The challenge that public images on most large registries are behind."""
    described = oci_layout.image(TARS[0])
    valid = ["first"]

    def answer(request):
        if request.path.startswith("/token"):
            assert "service=test" in request.path
            request.reply(200, json.dumps({"token": valid[-1]}).encode())
        elif request.headers.get("Authorization") == f"Bearer {valid[-1]}":
            request.deliver(oci_layout, described)
        else:
            challenge = f'Bearer realm="http://{server.host}/token",service="test",scope="repository:a:pull"'
            request.reply(401, b"", Www_Authenticate=challenge)

    server = misbehaving(answer)
    reference, source = opened(f"{server.host}/a:v1")
    image = source.resolve(reference, Deadline.after(5))
    assert len(server.paths("/token")) == 1

    valid.append("second")
    packed = b"".join(source.open_blob(image.layers[0].digest, Deadline.after(5)))
    assert Digest.of(packed) == image.layers[0].digest
    assert server.asked[-1][1] == "Bearer second"


def test_a_token_that_is_known_to_have_expired_is_not_shown(misbehaving, oci_layout, opened, monkeypatch):
    described = oci_layout.image(TARS[0])

    def answer(request):
        if request.path.startswith("/token"):
            request.reply(200, json.dumps({"access_token": "short", "expires_in": 30}).encode())
        elif request.headers.get("Authorization"):
            request.deliver(oci_layout, described)
        else:
            request.reply(401, Www_Authenticate=f'Bearer realm="http://{server.host}/token"')

    server = misbehaving(answer)
    reference, source = opened(f"{server.host}/a:v1")
    image = source.resolve(reference, Deadline.after(5))
    later = time.monotonic() + 21
    monkeypatch.setattr(time, "monotonic", lambda: later)
    list(source.open_blob(image.layers[0].digest, Deadline.after(5)))
    assert len(server.paths("/token")) == 2
    assert "scope=repository%3Aa%3Apull" in server.paths("/token")[0]  # ours, where the registry names none


def test_a_registry_that_asks_for_blobs_alone(misbehaving, oci_layout, log_in, pull):
    described = oci_layout.image(*TARS)

    def answer(request):
        if "/blobs/" in request.path and request.headers.get("Authorization") != BASIC:
            request.reply(401, Www_Authenticate='Negotiate abc==, Basic realm="blobs"')
        else:
            request.deliver(oci_layout, described)

    server = misbehaving(answer)
    log_in(**{server.host: f"me:{PASSWORD}"})
    assert pull(f"{server.host}/a:v1") == TARS
    assert all(shown is None for path, shown in server.asked if "/manifests/" in path)


def test_of_several_challenges_a_token_is_preferred(misbehaving, oci_layout, log_in, resolve):
    described = oci_layout.image(TARS[0])

    def answer(request):
        if request.path.startswith("/token"):
            request.reply(200, b'{"token": "given"}')
        elif request.headers.get("Authorization") == "Bearer given":
            request.deliver(oci_layout, described)
        else:
            realm = f"http://{server.host}/token"
            request.reply(401, Www_Authenticate=f'Basic realm="a, b", Bearer realm="{realm}",service="x"')

    server = misbehaving(answer)
    log_in(**{server.host: f"me:{PASSWORD}"})
    resolve(f"{server.host}/a:v1")
    assert {shown for path, shown in server.asked if path.startswith("/v2/")} == {None, "Bearer given"}


def test_a_registry_that_says_what_it_wants_in_general_alone(misbehaving, oci_layout, log_in, resolve):
    described = oci_layout.image(TARS[0])

    def answer(request):
        if request.headers.get("Authorization") == BASIC:
            request.deliver(oci_layout, described)
        elif request.path == "/v2/":
            request.reply(401, Www_Authenticate="Basic realm=x")
        else:
            request.reply(401)

    server = misbehaving(answer)
    log_in(**{server.host: f"me:{PASSWORD}"})
    assert str(resolve(f"{server.host}/a:v1").digest) == described["digest"]


BROKEN_TOKENS = {
    "no json": (lambda request: request.reply(200, b"hush"), "it gives no token"),
    "no token": (lambda request: request.reply(200, b"{}"), "it gives no token"),
    "a list": (lambda request: request.reply(200, b"[]"), "it gives no token"),
    "a number": (lambda request: request.reply(200, b'{"token": 1}'), "it gives no token"),
    "a header in it": (lambda request: request.reply(200, b'{"token": "a\\r\\nX: y"}'), "it gives no token"),
    "endless": (lambda request: request.reply(200, b" " * (2 << 20)), "its answer is too long"),
    "cut off": (lambda request: request.reply(200, b"{", Content_Length="99") or cut(request), "the connection broke"),
    "broken": (lambda request: request.reply(500, b"hush"), "it says 500"),
}


def cut(request):
    request.close_connection = True


@pytest.mark.parametrize("case", BROKEN_TOKENS)
def test_a_token_server_that_is_broken(misbehaving, resolve, case):
    reply, message = BROKEN_TOKENS[case]

    def answer(request):
        if request.path.startswith("/token"):
            reply(request)
        else:
            request.reply(401, Www_Authenticate=f'Bearer realm="http://{server.host}/token"')

    server = misbehaving(answer)
    with pytest.raises(RegistryError, match=f"no token for {server.host}/a can be had") as caught:
        resolve(f"{server.host}/a:v1")
    assert caught.value.blame is Blame.LAB
    assert message in caught.value.details
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("realm", ["", "token", "ftp://example/token", "http://", "http://[", "file:///etc/passwd"])
def test_a_realm_that_is_no_address(misbehaving, resolve, realm):
    server = misbehaving(lambda request: request.reply(401, Www_Authenticate=f'Bearer realm="{realm}"'))
    with pytest.raises(RegistryError, match="no token for") as caught:
        resolve(f"{server.host}/a:v1")
    assert caught.value.details == "the registry names no address for it"


@pytest.mark.parametrize("status", [302, 307])
def test_another_host_is_shown_nothing(misbehaving, oci_layout, log_in, pull, status):
    described = oci_layout.image(*TARS)
    cdn = misbehaving(lambda request: request.deliver(oci_layout, described))

    def answer(request):
        if request.headers.get("Authorization") != BASIC:
            request.reply(401, Www_Authenticate="Basic realm=x")
        elif "/blobs/" in request.path:
            request.reply(status, Location=f"http://{cdn.host}{request.path}?signature=abc")
        else:
            request.deliver(oci_layout, described)

    server = misbehaving(answer)
    log_in(**{server.host: f"me:{PASSWORD}", cdn.host: "never:shown"})
    assert pull(f"{server.host}/a:v1") == TARS
    assert cdn.paths("/blobs/")
    assert cdn.shown() == set()


def test_a_host_that_is_led_to_and_asks_for_a_login_gets_none(misbehaving, log_in, resolve):
    thief = misbehaving(lambda request: request.reply(401, Www_Authenticate="Basic realm=x"))
    server = misbehaving(
        lambda request: request.reply(302, Location=f"http://{thief.host}{request.path}?signature=abc")
    )
    log_in(**{server.host: f"me:{PASSWORD}", thief.host: f"me:{PASSWORD}"})
    with pytest.raises(RegistryError, match="did not deliver manifests/v1") as caught:
        resolve(f"{server.host}/a:v1")
    assert thief.shown() == server.shown() == set()
    assert "signature" not in str(caught.value)


def test_a_token_server_that_leads_on_is_not_followed_with_a_refresh_token(misbehaving, log_in, resolve):
    thief = misbehaving(lambda request: request.reply(200, b'{"access_token": "x"}'))

    def answer(request):
        if request.path.startswith("/token"):
            request.reply(307, Location=f"http://{thief.host}/")
        else:
            request.reply(401, Www_Authenticate=f'Bearer realm="http://{server.host}/token"')

    server = misbehaving(answer)
    log_in(**{server.host: {"identitytoken": "refresh-me"}})
    with pytest.raises(RegistryError, match="no token for"):
        resolve(f"{server.host}/a:v1")
    assert thief.asked == []


def test_netrc_is_not_read(misbehaving, home, resolve):
    (home / ".netrc").write_text(f"default login me password {PASSWORD}\n")
    (home / ".netrc").chmod(0o600)
    server = misbehaving(lambda request: request.reply(401))
    # An address that leads to this machine, but is none of the loopback's, so that the environment counts.
    host = f"0.0.0.0:{server.server_port}"
    (home / "registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    with pytest.raises(ConfigError):
        resolve(f"{host}/a:v1")
    assert server.paths("manifests")
    assert server.shown() == set()


def test_what_is_sent_goes_nowhere_else(misbehaving):
    other = misbehaving(lambda request: request.reply(200))
    server = misbehaving(lambda request: request.reply(307, Location=f"http://{other.host}/"))
    client = Client(Place(f"{server.host}/a"))
    with client.do_request(f"http://{server.host}/v2/a/blobs/uploads/", "POST", data=b"content") as answer:
        assert answer.status_code == 307
    assert other.asked == []


def test_one_token_serves_all_threads(misbehaving, oci_layout, pull):
    tars = [bytes([number]) * 512 for number in range(6)]
    described = oci_layout.image(*tars)
    config = json.loads(oci_layout.file(described).read_text())["config"]["digest"]

    def answer(request):
        if request.path.startswith("/token"):
            time.sleep(0.3)
            request.reply(200, b'{"token": "given"}')
        elif "/manifests/" in request.path or config in request.path or request.headers.get("Authorization"):
            request.deliver(oci_layout, described)
        else:
            request.reply(401, Www_Authenticate=f'Bearer realm="http://{server.host}/token"')

    server = misbehaving(answer)
    assert pull(f"{server.host}/a:v1") == tars
    assert len(server.paths("/token")) == 1


def test_what_a_registry_echoes_is_not_shown(misbehaving, log_in, resolve):
    def answer(request):
        shown = request.headers.get("Authorization", "")
        request.reply(401, f"I saw {shown} and {PASSWORD}".encode(), Www_Authenticate="Basic realm=x")

    server = misbehaving(answer)
    log_in(**{server.host: f"me:{PASSWORD}"})
    with pytest.raises(ConfigError) as caught:
        resolve(f"{server.host}/a:v1")
    assert "I saw Basic *** and ***" in caught.value.details
    assert PASSWORD not in str(caught.value)
