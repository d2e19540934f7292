"""Allure, JUnit and the terminal say the same."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import allure_commons
import pytest

Judge = Callable[..., pytest.RunResult]
Script = Callable[..., Path]
Layout = Callable[..., str]

TESTS = '''
import pytest
from pytest_bootc.errors import BackendError

def test_good(vm):
    """It is good.

    So it is.
    """
def test_bad(vm): assert 1 == 2
def test_lab(vm): raise BackendError("QEMU was killed", details="signal 9")
@pytest.mark.skip(reason="not now")
def test_skipped(vm): pass
def test_plain(): pass
'''


def results(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("*-result.json")]
    return {entry["fullName"].rpartition("#")[2]: entry for entry in found}


def pairs(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["name"]: entry["value"] for entry in entries}


@pytest.mark.parametrize("workers", [[], ["-n2"]])
def test_allure(judge: Judge, pytester: pytest.Pytester, script: Script, tmp_path: Path, workers: list[str]) -> None:
    script('console = "booting\\n"\nnotes = ["selinux: off"]')
    pytester.makepyfile(test_a=TESTS)
    folder = tmp_path / "allure"
    result = judge(f"--alluredir={folder}", *workers, apart=bool(workers))
    assert result.ret == 1
    found = results(folder)
    assert {entry["name"] for entry in found.values()} == set(found)
    assert found["test_good"]["description"] == "It is good.\n\nSo it is."
    assert found["test_bad"]["statusDetails"]["message"] == "assert 1 == 2"
    assert found["test_lab"]["statusDetails"]["message"] == "QEMU was killed\n  signal 9"
    assert {name: entry["status"] for name, entry in found.items()} == {
        "test_good": "passed", "test_bad": "failed", "test_lab": "broken", "test_skipped": "skipped",
        "test_plain": "passed",
    }  # fmt: skip
    for name, entry in found.items():
        labels = pairs(entry["labels"])
        if name == "test_plain":
            assert labels.get("parentSuite") != "server:v1"
            continue
        parameters = {parameter["name"]: parameter for parameter in entry["parameters"]}
        assert parameters["image"]["value"] == "server:v1"
        assert parameters["digest"]["value"].startswith("sha256:")
        assert parameters["digest"]["excluded"] is True
        assert labels["parentSuite"] == "server:v1"
    environment = dict(line.split(" = ") for line in (folder / "environment.properties").read_text().splitlines())
    assert environment["verdict"] == "bad"
    assert environment["notes"] == "selinux: off"
    assert environment["backend"] == "fake"
    assert environment["digest"] == parameters["digest"]["value"]
    categories = json.loads((folder / "categories.json").read_text())
    assert {status for category in categories for status in category["matchedStatuses"]} == {
        "failed", "broken", "skipped",
    }  # fmt: skip


def test_a_new_build_continues_the_history(
    judge: Judge, pytester: pytest.Pytester, tmp_path: Path, layout: Layout
) -> None:
    pytester.makepyfile(test_a=TESTS)
    histories, digests = [], []
    for build in ("amd64", "amd64/v2"):
        reference = layout()
        if build != "amd64":
            rebuild(tmp_path / "server")
        folder = tmp_path / build.replace("/", "-")
        judge(f"--alluredir={folder}", image=reference)
        found = results(folder)
        histories.append({name: entry["historyId"] for name, entry in found.items()})
        digests.append(
            {p["value"] for entry in found.values() for p in entry.get("parameters", ()) if p["name"] == "digest"}
        )
    assert histories[0] == histories[1]
    assert histories[0].keys() >= {"test_skipped", "test_good"}
    assert digests[0] != digests[1]


def rebuild(folder: Path) -> None:
    """Give the layout's only image another digest, under the same tag."""
    import hashlib

    index = json.loads((folder / "index.json").read_text())
    (entry,) = index["manifests"]
    blobs = folder / "blobs" / "sha256"
    content = (blobs / entry["digest"].partition(":")[2]).read_bytes() + b"\n"
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    entry |= {"digest": f"sha256:{digest}", "size": len(content)}
    (folder / "index.json").write_text(json.dumps(index))


def test_two_images_have_two_histories(judge: Judge, pytester: pytest.Pytester, tmp_path: Path, layout: Layout) -> None:
    pytester.makepyfile(test_a="def test_it(vm): pass")
    judge(f"--alluredir={tmp_path / 'allure'}", f"--image={layout('other')}")
    found = [json.loads(path.read_text()) for path in (tmp_path / "allure").glob("*-result.json")]
    assert len({entry["historyId"] for entry in found}) == 2
    environment = (tmp_path / "allure" / "environment.properties").read_text()
    assert "server\\:v1\\ digest = sha256:" in environment
    assert "other\\:v1\\ digest = sha256:" in environment


def test_evidence_is_attached(judge: Judge, pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(test_a="def test_it(evidence):\n    evidence.attach('a.txt', 'content')\n    assert False")
    folder = tmp_path / "allure"
    judge(f"--alluredir={folder}")
    attached = {entry["name"]: entry["source"] for entry in results(folder)["test_it"]["attachments"]}
    assert attached.keys() >= {"a.txt", "console.log"}
    assert (folder / attached["a.txt"]).read_text() == "content"


BODIES = {
    "pass": "pass",
    "fail": "raise GuestError('a unit failed')",
    "infra": "raise BackendError('QEMU was killed')",
    "usage": "raise ConfigError('no mkfs.erofs')",
    "skip": "pytest.skip('not here')",
}
# In the call whatever the test stumbles over is a failure, which Allure's own plugin calls broken.
CELLS = {
    **{(phase, body): body for phase in ("setup", "call", "teardown") for body in BODIES},
    ("call", "{}['missing']"): "fail",
    ("setup", "{}['missing']"): "infra",
    ("setup", "assert 1 == 2"): "fail",
    ("teardown", "assert 1 == 2"): "fail",
    ("teardown", "raise OSError(28, 'full')"): "infra",
}
STATUSES = {"pass": "passed", "fail": "failed", "infra": "broken", "usage": "broken", "skip": "skipped"}


@pytest.mark.parametrize("workers", [[], ["-n2"]])
def test_the_state_of_each_phase_decides_the_status(
    judge: Judge, pytester: pytest.Pytester, tmp_path: Path, workers: list[str]
) -> None:
    tests = ["import pytest", "from pytest_bootc.errors import BackendError, ConfigError, GuestError"]
    wanted = {}
    for number, ((phase, body), state) in enumerate(CELLS.items()):
        lines = dict.fromkeys(("setup", "call", "teardown"), "pass") | {phase: BODIES.get(body, body)}
        tests.append(
            f"@pytest.fixture\ndef prepared{number}(vm):\n    {lines['setup']}\n    yield\n    {lines['teardown']}\n"
            f"def test_{number}(prepared{number}):\n    {lines['call']}\n"
        )
        wanted[f"test_{number}"] = (
            ("pass", "passed") if (phase, body) == ("teardown", "skip") else (state, STATUSES[state])
        )
    pytester.makepyfile(test_a="\n".join(tests))
    judge(f"--alluredir={tmp_path / 'allure'}", *workers, apart=bool(workers))
    found = results(tmp_path / "allure")
    labels = {name: pairs(entry["labels"]) for name, entry in found.items()}
    assert {name: (labels[name]["state"], entry["status"]) for name, entry in found.items()} == wanted
    assert {said["scope"] for said in labels.values()} == {"running system"}
    for entry in found.values():
        assert [label["name"] for label in entry["labels"]].count("state") == 1


RETRIED = """
import pytest
from pytest_bootc.errors import BackendError

tries = {"lab": 0, "image": 0}

def test_lab(vm, evidence):
    tries["lab"] += 1
    evidence.attach("note.txt", f"try {tries['lab']}")
    if tries["lab"] == 1: raise BackendError("QEMU was killed")
    assert False

def test_image(vm):
    tries["image"] += 1
    assert tries["image"] > 1
"""


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_each_try_is_a_result(judge: Judge, pytester: pytest.Pytester, tmp_path: Path, workers: list[str]) -> None:
    pytester.makepyfile(test_a=RETRIED)
    folder = tmp_path / "allure"
    judge("--rerun-failed", f"--alluredir={folder}", *workers, apart=bool(workers))
    found = sorted(
        (json.loads(path.read_text()) for path in folder.glob("*-result.json")), key=lambda entry: entry["stop"]
    )
    tries = {name: [entry for entry in found if entry["name"] == name] for name in ("test_lab", "test_image")}
    assert [entry["status"] for entry in tries["test_lab"]] == ["broken", "failed"]
    assert [entry["status"] for entry in tries["test_image"]] == ["failed", "failed"]
    for first, second in tries.values():
        assert first["historyId"] == second["historyId"]
        assert first["uuid"] != second["uuid"]
        assert second["start"] >= first["stop"]
        for entry in (first, second):
            names = [label["name"] for label in entry["labels"]]
            assert [names.count(name) for name in ("state", "parentSuite", "host")] == [1, 1, 1]
    first, second = tries["test_image"]
    assert "flaky" not in first["statusDetails"]
    assert second["statusDetails"] == {
        "flaky": True,
        "message": "it passed only when it was tried again. At first:\nassert 1 > 1",
    }
    for number, entry in enumerate(tries["test_lab"], 1):
        (note,) = (attached["source"] for attached in entry["attachments"] if attached["name"] == "note.txt")
        assert (folder / note).read_text() == f"try {number}"


def test_a_test_whose_worker_died_is_in_it(judge: Judge, pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(
        test_a="""
        import os
        class TestHere:
            def test_good(self, vm): pass
            def test_deadly(self, vm): os.kill(os.getpid(), 9)
        """
    )
    for kill in (True, False):  # the same test has the same history, whether it was lost or not
        if not kill:
            path = pytester.path / "test_a.py"
            path.write_text(path.read_text().replace("os.kill(os.getpid(), 9)", "pass"))
        judge("-n1", f"--alluredir={tmp_path / str(kill)}", apart=True)
    lost, kept = (results(tmp_path / name)["test_deadly"] for name in ("True", "False"))
    assert results(tmp_path / "True")["test_good"]["status"] == "passed"
    assert (lost["status"], lost["name"], pairs(lost["labels"])["state"]) == ("broken", "test_deadly", "infra")
    assert lost["statusDetails"]["message"].startswith("worker 'gw0' crashed while running")
    assert lost["fullName"] == kept["fullName"]
    assert pairs(lost["labels"])["parentSuite"] == "server:v1"
    for entry in (lost, kept):
        assert [p["value"] for p in entry["parameters"] if not p.get("excluded")] == ["server:v1"]


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_a_run_that_was_cut_off_says_so(
    judge: Judge, pytester: pytest.Pytester, tmp_path: Path, workers: list[str]
) -> None:
    pytester.makepyfile(test_a="def test_good(vm): pass\ndef test_bad(vm): assert 0\ndef test_never(vm): pass")
    for name, options in {"whole": [], "cut": ["-x"]}.items():
        judge(f"--alluredir={tmp_path / name}", *options, *workers, apart=bool(workers))
    assert not list((tmp_path / "whole").glob("*-globals.json"))
    (told,) = (tmp_path / "cut").glob("*-globals.json")
    (error,) = json.loads(told.read_text())["errors"]
    assert error["message"] == "cut off: 1 tests were not run: test_a.py::test_never[server:v1]"


def test_fixtures_are_told_and_what_is_inside_is_not(judge: Judge, pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def prepared(vm):
            yield
            assert False

        @pytest.fixture
        def _inner(vm): pass

        @pytest.fixture
        def _broken(vm): raise OSError("no bus")

        def test_it(prepared, _inner): pass
        def test_other(_broken): pass
        """
    )
    judge(f"--alluredir={tmp_path / 'allure'}")
    told: dict[str, set[tuple[str, str]]] = {"befores": set(), "afters": set()}
    for path in (tmp_path / "allure").glob("*-container.json"):
        container = json.loads(path.read_text())
        for part, steps in told.items():
            steps |= {(step["name"], step["status"]) for step in container.get(part, ())}
    fixtures = {"prepared", "vm", "image", "golden_disk", "machine_spec"}
    assert told["befores"] == {(name, "passed") for name in fixtures} | {("_broken", "broken")}
    assert told["afters"] == {("prepared", "failed"), ("vm", "passed")}


def test_nothing_stays_behind_in_allure(judge: Judge, pytester: pytest.Pytester, tmp_path: Path) -> None:
    before = set(allure_commons.plugin_manager.get_plugins())
    pytester.makepyfile(
        """
        import allure_commons

        def test_it(vm):
            plugins = allure_commons.plugin_manager.get_plugins()
            assert "StatusByState" in [type(plugin).__name__ for plugin in plugins]
        """
    )
    assert judge(f"--alluredir={tmp_path / 'allure'}").ret == 0
    kinds = {type(plugin).__name__ for plugin in set(allure_commons.plugin_manager.get_plugins()) - before}
    assert "StatusByState" not in kinds


def test_pictures_are_attached_as_pictures(judge: Judge, pytester: pytest.Pytester, tmp_path: Path) -> None:
    names = {"a.png": "image/png", "b.svg": "image/svg+xml", "c.json": "application/json", "d.log": "text/plain",
             "e.txt": "text/plain", "f.html": "text/plain", "core": "text/plain"}  # fmt: skip
    lines = "".join(f"    evidence.attach({name!r}, b'<{name}>' * 9)\n" for name in names)
    pytester.makepyfile(test_a=f"def test_it(evidence):\n{lines}    assert False")
    judge(f"--alluredir={tmp_path / 'allure'}")
    attached = {entry["name"]: entry for entry in results(tmp_path / "allure")["test_it"]["attachments"]}
    for name, kind in names.items():
        assert attached[name]["type"] == kind
        assert (tmp_path / "allure" / attached[name]["source"]).read_text() == f"<{name}>" * 9


def test_shipped_suites_are_sorted_by_suite(judge: Judge, install: Callable[..., Path], tmp_path: Path) -> None:
    tests = "def test_it(vm): pass\n"
    names: list[dict[str, tuple[str, ...]]] = []
    for wheel in (True, False):
        install({"boot/test_basics.py": tests, "smoke/test_first.py": tests}, wheel=wheel)
        folder = tmp_path / f"allure-{wheel}"
        assert judge("--suite=smoke", f"--alluredir={folder}", apart=True).ret == 0
        found = [json.loads(path.read_text()) for path in folder.glob("*-result.json")]
        labels = {entry["fullName"]: pairs(entry["labels"]) for entry in found}
        names.append(
            {name: tuple(said[kind] for kind in ("parentSuite", "suite", "subSuite")) for name, said in labels.items()}
        )
    assert (
        names[0]
        == names[1]
        == {
            "boot.test_basics#test_it": ("server:v1", "boot", "test_basics"),
            "smoke.test_first#test_it": ("server:v1", "smoke", "test_first"),
        }
    )


def test_junit(judge: Judge, pytester: pytest.Pytester, tmp_path: Path, layout: Layout) -> None:
    pytester.makepyfile(test_a=TESTS)
    judge(f"--junitxml={tmp_path / 'junit.xml'}", f"--image={layout('other')}")
    suite = next(ET.parse(tmp_path / "junit.xml").getroot().iter("testsuite"))
    named = [entry.get("name") for entry in suite.find("properties") or ()]
    assert named == ["image", "digest", "scope"] * 2
    states = {
        case.get("name"): {entry.get("name"): entry.get("value") for entry in case.iter("property")}
        for case in suite.iter("testcase")
    }
    assert states["test_bad[other:v1]"] == {"image": "other:v1", "state": "fail"}
    assert states["test_lab[server:v1]"] == {"image": "server:v1", "state": "infra"}
    assert states["test_skipped[server:v1]"] == {"image": "server:v1", "state": "skip"}
    assert states["test_plain"] == {"state": "pass"}


def test_terminal(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script('notes = ["selinux: off", "xattrs were lost"]')
    pytester.makepyfile(test_a=TESTS)
    result = judge("-v")
    result.stdout.fnmatch_lines(
        [
            "bootc: oci:*server:v1, sha256:*, backend fake",
            "test_a.py::test_good[[]server:v1] PASSED*",
            "test_a.py::test_bad[[]server:v1] FAILED*",
            "test_a.py::test_lab[[]server:v1] INFRA*",
            "E *BackendError: QEMU was killed",
            "E *signal 9",
            "=*= bootc =*",
            "oci:*server:v1: bad",
            "  digest: sha256:*",
            "  scope: running system",
            "  machine: fake, tcg, none: a script",
            "  kernel arguments: console=fake",
            "  note: selinux: off",
            "  note: xattrs were lost",
            "  tests: 1 fail, 1 infra, 1 pass, 1 skip",
            "  fail: test_a.py::test_bad[[]server:v1]: assert 1 == 2",
            "  infra: test_a.py::test_lab[[]server:v1]: QEMU was killed",
            "INFRA test_a.py::test_lab[[]server:v1] - QEMU was killed",
        ]
    )
    result.assert_outcomes(passed=2, failed=2, skipped=1)


def test_nothing_of_us_in_a_plain_run(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(test_a="def test_it(): assert 0")
    result = pytester.runpytest_inprocess(f"--alluredir={tmp_path / 'allure'}", f"--junitxml={tmp_path / 'junit.xml'}")
    assert result.ret == 1
    result.stdout.no_fnmatch_line("*bootc:*")
    result.stdout.no_fnmatch_line("*= bootc =*")
    assert not (tmp_path / "allure" / "environment.properties").exists()
    assert "state" not in (tmp_path / "junit.xml").read_text()
