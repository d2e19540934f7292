"""One test per image: ids, order, machines, and what reports call them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]
Layout = Callable[..., str]


def ids(result: pytest.RunResult) -> list[str]:
    return [line.rpartition("::")[2] for line in result.outlines if "::" in line]


def test_the_image_is_in_the_id_also_of_a_single_one(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(guest): pass\ndef test_plain(): pass")
    assert ids(judge("--collect-only", "-q")) == ["test_it[server:v1]", "test_plain"]


def test_machines_follow_each_other(
    judge: Judge, pytester: pytest.Pytester, layout: Layout, script: Callable[..., Path]
) -> None:
    log = script("")
    pytester.makepyfile(
        """
        def test_one(vm, image): assert image.reference.short == "server:v1" or image.reference.short == "other:v2"
        def test_plain(): pass
        def test_two(vm): pass
        """
    )
    result = judge(f"--image={layout('other', 'v2')}", "-v")
    result.assert_outcomes(passed=5)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*bootc: *server:v1, sha256:*",
            "*bootc: *other:v2, sha256:*",
            "*= bootc =*",
            "oci:*server:v1: good",
            "oci:*other:v2: good",
        ]
    )
    events = [line.split()[0] for line in log.read_text().splitlines()]
    assert events == ["provision", "start", "stop", "release"] * 2


def test_same_short_names_are_told_apart(judge: Judge, pytester: pytest.Pytester, layout: Layout) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    first, second = layout("a/server"), layout("b/server")
    result = judge(f"--image={second}", "--collect-only", "-q", image=first)
    assert ids(result) == [f"test_it[{first}]", f"test_it[{second}]"]


def test_naming_an_image_twice_is_naming_it_once(judge: Judge, pytester: pytest.Pytester, layout: Layout) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    assert ids(judge(f"--image={layout()}", "--collect-only", "-q")) == ["test_it[server:v1]"]


def test_from_the_environment(pytester: pytest.Pytester, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    monkeypatch.setenv("BOOTC_IMAGE", f" {layout('a')},\n{layout('b')} ")
    monkeypatch.setenv("BOOTC_BACKEND", "fake")
    assert ids(pytester.runpytest_inprocess("--collect-only", "-q")) == ["test_it[a:v1]", "test_it[b:v1]"]
    result = pytester.runpytest_inprocess("--collect-only", "-q", f"--image={layout('c')}")
    assert ids(result) == ["test_it[c:v1]"]


def test_from_the_ini_file(pytester: pytest.Pytester, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile("def test_it(vm): assert vm.facts.backend == 'fake'")
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\nbootc_image = ['{layout('a')}']\nbootc_backend = 'fake'")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    monkeypatch.setenv("BOOTC_BACKEND", "nope")
    result = pytester.runpytest_inprocess()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*BOOTC_BACKEND nope: there is no such backend*"])
    pytester.runpytest_inprocess("--backend=fake").assert_outcomes(passed=1)


def test_a_machine_that_is_asked_for_in_secret(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(request): request.getfixturevalue('vm')")
    result = judge()
    assert result.ret == 4
    result.stdout.fnmatch_lines(["*there is no telling which image it is for*"])


def test_fixtures_can_be_overridden(judge: Judge, pytester: pytest.Pytester, script: Callable[..., Path]) -> None:
    log = script("")
    pytester.makeconftest(
        """
        import dataclasses, pytest

        @pytest.fixture(scope="session")
        def machine_spec(machine_spec):
            return dataclasses.replace(machine_spec, memory_mib=512)
        """
    )
    pytester.makepyfile("def test_it(vm): pass")
    judge("--vm-memory=4G").assert_outcomes(passed=1)
    assert log.read_text().startswith("provision 512 MiB")
