"""What cannot be done ends the run at once, with exit status 4 and one sentence."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--image", "UPPER/x"], "*upper*"),
        (["--image", "oci:nowhere"], "*nowhere*"),
        (["--image", "h.example/a", "--host", "h"], "*--image and --host do not go together*"),
        (["--disk", "none.qcow2"], "*--disk none.qcow2: there is no such file*"),
        (["--disk", "there.txt"], "*there.txt is empty*"),
        (["--host", "a b"], "*--host a b: this is not a host*"),
        (["--host", "h", "--backend", "qemu"], "*--backend qemu: --host h runs already*"),
        (["--image", "h.example/a", "--backend", "remote"], "*--backend remote: it is not said where*"),
        (["--image", "h.example/a", "--backend", "vmware"], "*--backend vmware: there is no such backend*"),
        (["--image", "h.example/a", "--suite", "nope"], "*--suite nope: there is no suite 'nope'*"),
        (["--suite", "boot"], "*--suite boot: there is nothing to run it on*"),
        (["--image", "h.example/a", "--vm-network", "bridge"], "*choose one of user, restricted, none*"),
        (["--image", "h.example/a", "--vm-memory", "64"], "*--vm-memory 64: this is not a size of RAM*"),
        (["--image", "h.example/a", "--vm-memory", "2T"], "*--vm-memory 2T: this is not a size of RAM*"),
        (["--image", "h.example/a", "--vm-cpus", "0"], "*--vm-cpus 0: this is not a number of processors*"),
        (["--image", "h.example/a", "--keep-vm-idle", "0m"], "*--keep-vm-idle 0m: this is not a time*"),
        (["--image", "h.example/a", "--keep-vm-idle", "2d"], "*--keep-vm-idle 2d: this is not a time*"),
        (["--host", "h", "--keep-vm"], "*--keep-vm yes: --host h is no machine of this run*"),
        (["--image", "h.example/a", "--boot-timeout", "-1"], "*--boot-timeout -1: this is not a time*"),
        (["--image", "h.example/a", "--evidence", "maybe"], "*choose one of on, off, retain-on-failure*"),
    ],
)
def test_options(pytester: pytest.Pytester, arguments: list[str], sentence: str) -> None:
    pytester.makepyfile("def test_it(): pass")
    (pytester.path / "there.txt").touch()
    result = pytester.runpytest_inprocess(*arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([sentence])
    result.stderr.no_fnmatch_line("*Traceback*")


def test_nothing_is_collected_before_the_image_is_known(pytester: pytest.Pytester, layout: Callable[..., str]) -> None:
    pytester.makepyfile("raise SystemExit('collected')")
    reference = layout().removesuffix("v1") + "v2"
    result = pytester.runpytest_inprocess(f"--image={reference}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*v2*", "*v1*"])


def test_wrong_architecture(pytester: pytest.Pytester, layout: Callable[..., str]) -> None:
    result = pytester.runpytest_inprocess(f"--image={layout(architecture='s390x')}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*s390x*"])


def test_an_image_that_did_not_come_is_the_labs_trouble(
    pytester: pytest.Pytester, layout: Callable[..., str], tmp_path: Path
) -> None:
    reference = layout()
    for blob in (tmp_path / "server" / "blobs" / "sha256").iterdir():
        blob.write_bytes(b"{}" + b" " * (blob.stat().st_size - 2))
    result = pytester.runpytest_inprocess(f"--image={reference}")
    assert result.ret == 10
    result.stderr.fnmatch_lines(["*digest*"])
    result.stderr.no_fnmatch_line("*Traceback*")


def test_asking_for_a_machine_without_naming_an_image(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(guest): pass\ndef test_other(): pass")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1, passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*this test needs a machine, and pytest was not told what to boot*"])


def test_help_names_every_option_with_its_twins(pytester: pytest.Pytester) -> None:
    from pytest_bootc.options import OPTIONS

    result = pytester.runpytest_inprocess("--help")
    assert result.ret == 0
    text = result.stdout.str()
    for option in OPTIONS:
        assert (f"  {option.flag} " if option.switch else f"{option.flag}={option.metavar}") in text
        assert option.variable in text
        assert f"  {option.dest} (" in text


def test_help_does_not_mind_what_the_environment_says(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTC_IMAGE", "UPPER")
    assert pytester.runpytest_inprocess("--help").ret == 0
    assert pytester.runpytest_inprocess("--version").ret == 0
    assert pytester.runpytest_inprocess().ret == 4


def test_markers_are_declared(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.needs('network')\ndef test_it(): pass")
    assert pytester.runpytest_inprocess("--strict-markers").ret == 0
    pytester.runpytest_inprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.needs(*"])


def test_a_suite_in_the_ini_file_waits_for_an_image(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nbootc_suite = boot")
    pytester.makepyfile("def test_it(): pass")
    assert pytester.runpytest_inprocess().ret == 0


EXEMPTION = """
[[exempt]]
trouble = "failed-unit"
pattern = "a.service"
image = "*"
owner = "somebody"
tracker = "https://example.org/1"
expires = 2999-12-31
"""


@pytest.mark.parametrize(
    ("said", "changes", "sentence"),
    [
        ("typed", {"2999-12-31": "2020-02-29"}, "*, exemption 1 has expired on 2020-02-29*"),
        ("environment", {"2999-12-31": "2020-02-29"}, "*, exemption 1 has expired on 2020-02-29*"),
        ("ini", {"2999-12-31": "2020-02-29"}, "*, exemption 1 has expired on 2020-02-29*"),
        ("typed", {"owner": "keeper"}, "*it lacks owner and keeper means nothing*"),
        ("typed", {"2999-12-31": "'2999-12-31'"}, "*expires must be a date, not '2999-12-31'*"),
        ("typed", {"failed-unit": "sadness"}, "*there is no trouble 'sadness'*"),
        ("typed", {"exempt]]": "exempt"}, "*the exemptions in *known.toml cannot be read*"),
        ("typed", None, "*the exemptions in *known.toml cannot be read*No such file*"),
    ],
)
def test_exemptions_that_mean_nothing(
    judge: Judge,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    changes: Mapping[str, str] | None,
    sentence: str,
) -> None:
    pytester.makepyfile("raise SystemExit('collected')")
    if changes is not None:
        content = EXEMPTION
        for old, new in changes.items():
            content = content.replace(old, new)
        (pytester.path / "known.toml").write_text(content)
    if said == "ini":
        pytester.makeini("[pytest]\nbootc_exemptions = known.toml")
    elif said == "environment":
        monkeypatch.setenv("BOOTC_EXEMPTIONS", "known.toml")
    result = judge(*(["--exemptions=known.toml"] if said == "typed" else []))
    assert result.ret == 4
    assert fnmatch.fnmatch(" ".join(result.stderr.lines), sentence)
    result.stderr.no_fnmatch_line("*Traceback*")


def test_an_exemption_that_holds_is_no_trouble(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    (pytester.path / "known.toml").write_text(EXEMPTION)
    assert judge("--exemptions=known.toml").ret == 0


def test_a_switch_that_is_neither_on_nor_off(
    judge: Judge, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    monkeypatch.setenv("BOOTC_RERUN_FAILED", "maybe")
    result = judge()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*BOOTC_RERUN_FAILED maybe: this is neither yes nor no*"])
