"""The whole way, from the command line to exit status and sentence, for images that are good and bad on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.qemu]

_SECONDS = 900


@dataclass(frozen=True)
class Judged:
    """How a run ended."""

    status: int
    text: str
    junit: Path

    def states(self) -> set[str]:
        """The states of the tests, as the JUnit report has them."""
        properties = ET.parse(self.junit).getroot().iter("property")
        return {p.attrib["value"] for p in properties if p.attrib["name"] == "state"}


@pytest.fixture
def judge(image_layout: dict[str, Path], tmp_path: Path) -> Callable[..., Judged]:
    def run(name: str, *options: str, **environment: str) -> Judged:
        junit = tmp_path / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-pno:cacheprovider", "-pno:randomly", "--vm-network=restricted"]
        command += ["--image", f"oci:{image_layout[name]}:latest", f"--junitxml={junit}", *options]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BOOTC_", "PYTEST_"))}
        environment = {**inherited, **environment}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        return Judged(done.returncode, done.stdout + done.stderr, junit)

    return run


def test_a_good_image_is_good(judge: Callable[..., Judged]) -> None:
    judged = judge("server-128", "--suite", "boot,system")
    assert "server-128" in judged.text
    assert (judged.status, judged.states() - {"skip"}) == (0, {"pass"}), judged.text
    assert ": good" in judged.text
    assert "scope: running system" in judged.text
    assert "note: selinux: off" in judged.text


def test_a_failing_unit_is_named(judge: Callable[..., Judged]) -> None:
    judged = judge("failing-unit", "--suite", "boot")
    assert judged.status == 1, judged.text
    assert "failed units: broken-on-purpose.service" in judged.text
    assert "fail" in judged.states()
    assert "infra" not in judged.states()


def test_an_image_without_sshd_is_told_so(judge: Callable[..., Judged]) -> None:
    judged = judge("no-sshd", "--suite", "boot")
    assert judged.status == 1, judged.text
    assert "the image has no sshd" in judged.text
    assert "infra" not in judged.states()


def test_an_image_without_a_kernel_is_told_so(judge: Callable[..., Judged]) -> None:
    judged = judge("no-kernel", "--suite", "boot")
    assert judged.status == 1, judged.text
    assert "the image has no kernel" in judged.text
    assert judged.states() == {"fail"}


def test_an_image_for_another_architecture_is_a_wrong_question(judge: Callable[..., Judged]) -> None:
    judged = judge("arm64", "--suite", "boot")
    assert judged.status == 4, judged.text
    assert "arm64" in judged.text
    assert "Traceback" not in judged.text
    assert not (judged.junit.exists() and judged.states())


def test_a_flipped_byte_is_the_transports_fault(judge: Callable[..., Judged], tmp_path: Path) -> None:
    # With the layer in the cache, verified when it was pulled, nobody would read the broken blob.
    judged = judge("flipped", "--suite", "boot", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert judged.status == 10, judged.text
    assert "digest" in judged.text
    assert judged.states() == {"infra"}
