"""How a run ends whose image does not come: 4 where its user can mend it, 10 where the registry is to blame."""

from __future__ import annotations

import socket

import pytest

from pytest_bootc.podman import PodmanSource
from pytest_bootc.registry import RegistrySource

pytestmark = pytest.mark.integration


# A run within this process forgets the modules that it is the first to import, and their libraries do not bear that.
FIRST_IMPORTED_HERE = (PodmanSource, RegistrySource)


@pytest.fixture
def run(pytester):
    """Run pytest on an image, with no test ever collected."""

    def judge(reference: str) -> pytest.RunResult:
        pytester.makepyfile("raise SystemExit('collected')")
        result = pytester.runpytest_inprocess(f"--image={reference}")
        for stream in (result.stdout, result.stderr):
            stream.no_fnmatch_line("*Traceback*")
            stream.no_fnmatch_line("*hush*")
        return result

    return judge


WRONG = {
    "not there": (lambda request: request.reply(404), "*there is no v1 in *"),
    "denied": (lambda request: request.reply(403), "*the registry does not let us read *"),
    "login wanted": (lambda request: request.reply(401, Www_Authenticate="Basic realm=x"), "*does not let us read *"),
}
BROKEN = {
    "500": (lambda request: request.reply(500), "*did not deliver manifests/v1*"),
    "429": (lambda request: request.reply(429, Retry_After="900"), "*did not deliver manifests/v1*"),
    "no JSON": (lambda request: request.reply(200, b"<html>"), "*is not JSON*"),
    "another digest": (
        lambda request: request.reply(200, b"{}", Docker_Content_Digest=f"sha256:{'0' * 64}"),
        "*has other content than its digest says*",
    ),
    "in a circle": (lambda request: request.reply(302, Location=request.path), "*answers oddly*"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_user_can_mend(misbehaving, run, case):
    answer, sentence = WRONG[case]
    result = run(f"{misbehaving(answer).host}/a:v1")
    assert result.ret == 4
    result.stderr.fnmatch_lines([sentence])


@pytest.mark.parametrize("case", BROKEN)
def test_what_the_registry_is_to_blame_for(misbehaving, run, case):
    answer, sentence = BROKEN[case]
    result = run(f"{misbehaving(answer).host}/a:v1")
    assert result.ret == 10
    result.stderr.fnmatch_lines([sentence])


def test_nobody_is_there(run):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        result = run(f"127.0.0.1:{closed.getsockname()[1]}/a:v1")
    assert result.ret == 10
    result.stderr.fnmatch_lines(["*cannot be reached*"])


def test_settings_that_are_malformed(misbehaving, run, home, monkeypatch):
    server = misbehaving(lambda request: request.reply(401, Www_Authenticate="Basic realm=x"))
    (home / "auth.json").write_text('{"auths": "hush"}')
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "auth.json"))
    result = run(f"{server.host}/a:v1")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*the auth file {home}/auth.json is malformed*"])

    (home / "registries.conf").write_text(f'[[registry]]\nlocation = "{server.host}"\nblocked = true\n')
    result = run(f"{server.host}/a:v1")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*are blocked on this host*"])


def test_an_image_in_a_storage_without_podman(run, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    result = run("containers-storage:localhost/a")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*podman is not installed*"])
