"""Runs over several workers: the same ids, states, exit status and reports as in one process."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]


def test_states_cross_over(
    judge: Judge, pytester: pytest.Pytester, tmp_path: Path, script: Callable[..., Path]
) -> None:
    script('notes = ["selinux: off"]')
    pytester.makepyfile(
        """
        import pytest
        from pytest_bootc.errors import BackendError
        def test_good(vm): pass
        def test_lab(vm): raise BackendError("QEMU was killed")
        @pytest.mark.needs("program:podman")
        def test_need(vm): pass
        """
    )
    result = judge("-n2", f"--junitxml={tmp_path / 'junit.xml'}", apart=True)
    assert result.ret == 10
    result.stdout.fnmatch_lines(
        [
            "bootc: oci:*server:v1, sha256:*, backend fake",
            "*scope: running system",
            "*note: selinux: off",
            "*tests: 1 infra, 1 pass, 1 skip",
            "*skipped for unmet needs: program:podman (1)",
            "*infra: *::test_lab*: *QEMU was killed",
            "INFRA *::test_lab*",
        ]
    )
    suite = next(ET.parse(tmp_path / "junit.xml").getroot().iter("testsuite"))
    properties = {entry.get("name"): entry.get("value") for entry in suite.find("properties") or ()}
    assert properties.keys() == {"image", "digest", "scope"}
    states = {
        case.get("name"): {entry.get("name"): entry.get("value") for entry in case.iter("property")}["state"]
        for case in suite.iter("testcase")
    }
    assert states == {"test_good[server:v1]": "pass", "test_lab[server:v1]": "infra", "test_need[server:v1]": "skip"}


def test_one_machine_per_worker_and_image(
    judge: Judge, pytester: pytest.Pytester, script: Callable[..., Path], layout: Callable[..., str]
) -> None:
    log = script("")
    pytester.makepyfile("import pytest\n@pytest.mark.parametrize('n', range(8))\ndef test_it(vm, n): pass")
    result = judge("-n2", f"--image={layout('other')}", apart=True)
    result.assert_outcomes(passed=16)
    events = log.read_text().split("\n")
    assert 2 <= sum(event.startswith("provision") for event in events) <= 4
    assert sum(event.startswith("release") for event in events) == sum(
        event.startswith("provision") for event in events
    )


def test_a_worker_that_dies_is_the_labs_trouble(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import os\ndef test_it(vm): os._exit(1)\ndef test_other(vm): pass")
    result = judge("-n1", apart=True)
    assert result.ret == 10
    result.stdout.fnmatch_lines(["*1 infra*"])


def test_workers_use_the_digest_of_the_controller(
    judge: Judge, pytester: pytest.Pytester, layout: Callable[..., str]
) -> None:
    reference = layout()
    # The tag moves after the controller has resolved it, before any worker can.
    pytester.makeconftest(
        """
        import pathlib, pytest
        @pytest.hookimpl(trylast=True)
        def pytest_configure_node(node):
            index = pathlib.Path({path!r}) / "index.json"
            index.write_text(index.read_text().replace("v1", "moved"))
        """.format(path=reference.removeprefix("oci:").removesuffix(":v1"))
    )
    pytester.makepyfile("def test_it(image, vm): assert image.digest and str(image.reference).endswith(':v1')")
    result = judge("-n1", apart=True, image=reference)
    assert result.ret == 0
    result.assert_outcomes(passed=1)


def test_a_bad_image_ends_the_run_before_any_worker_starts(judge: Judge) -> None:
    result = judge("-n2", apart=True, image="oci:nowhere")
    assert result.ret == 4
    result.stdout.no_fnmatch_line("*worker*")
