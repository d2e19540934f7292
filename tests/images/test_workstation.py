"""The workstation image keeps what a bootc image promises, and has what its suites ask for."""

import subprocess
import sys
from pathlib import Path

import debian
import oci
import pytest
import workstation
from oci import Entry, Kind, Layout

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    builder = Path(__file__).with_name("build.py")
    command = [sys.executable, str(builder), "workstation"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return oci.merge(Layout.read(Path(printed.strip())).entries(tmp_path_factory.mktemp("layers")))


def text(root: dict[str, Entry], path: str) -> str:
    return oci.content(root[path]).decode()


def test_only_usr_and_etc_have_content(root: dict[str, Entry]) -> None:
    top = {path for path in root if "/" not in path and root[path].kind is Kind.DIRECTORY}
    assert {folder for folder in top if any(path.startswith(f"{folder}/") for path in root)} == {"usr", "etc"}
    assert {path: root[path].target for path in debian.LINKS} == debian.LINKS
    assert sum(entry.size for entry in root.values()) < 2_500_000_000


def test_a_regular_user_lingers(root: dict[str, Entry]) -> None:
    assert "tester:x:1000:1000:Tester:/home/tester:/bin/bash\n" in text(root, "etc/passwd")
    assert "tester:" in text(root, "etc/subuid")
    assert "/var/lib/systemd/linger/tester" in text(root, "usr/lib/tmpfiles.d/tester.conf")
    assert root["etc/sudoers.d/tester"].mode == 0o440


def test_the_repository_of_flatpak_is_whole(root: dict[str, Entry]) -> None:
    repository = f"{workstation.PLACE}/flatpaks"
    assert {f"{repository}/config", f"{repository}/summary", f"{repository}/summary.idx"} <= root.keys()
    for ref in ("app/org.example.Hello", "runtime/org.example.Platform"):
        commit = text(root, f"{repository}/refs/heads/{ref}/x86_64/1").strip()
        assert f"{repository}/objects/{commit[:2]}/{commit[2:]}.commit" in root


def test_what_it_is_built_with_is_gone(root: dict[str, Entry]) -> None:
    assert [path for path in root if "faketime" in path] == []
    assert "Package: faketime\n" not in text(root, "usr/lib/sysimage/dpkg/status")
