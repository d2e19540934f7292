from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bootc import configuration, options
from pytest_bootc.errors import ConfigError
from pytest_bootc.image import ImageReference
from pytest_bootc.model import DiskFile, Evidence, MachineSpec, Network, RunConfig

IMAGE = "h.example/a:b"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in options.OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)


def parsed(pytester: pytest.Pytester, *arguments: str, suites: tuple[str, ...] = ()) -> RunConfig:
    return configuration.parse(pytester.parseconfig(*arguments), suites)


def test_the_defaults_are_those_of_the_model_and_of_the_help(pytester: pytest.Pytester) -> None:
    config = parsed(pytester, f"--image={IMAGE}")
    default = RunConfig()
    assert config == replace(
        default,
        images=(ImageReference.parse(IMAGE),),
        evidence_folder=pytester.path / default.evidence_folder,
    )
    told = {
        options.MEMORY: default.spec.memory_mib,
        options.CPUS: default.spec.cpus,
        options.QEMU: default.spec.qemu,
        options.BOOT_TIMEOUT: f"{default.boot_timeout:g}",
        options.EVIDENCE_DIR: default.evidence_folder,
    }
    for option, value in told.items():
        assert option.help.endswith(f"(default {value})")
    assert f"{default.backend} (the default)" in options.BACKEND.help
    assert f"{default.evidence.value} (the default)" in options.EVIDENCE.help
    assert default.spec.network is Network.USER
    assert "included; the default), restricted" in options.NETWORK.help


def test_every_option(pytester: pytest.Pytester) -> None:
    config = parsed(
        pytester, f"--image={IMAGE}", "--image=h.example/c@sha256:" + "0" * 64, "--suite=one,two", "--suite", "three",
        "--backend=fake", "--vm-network=none", "--vm-memory=2G", "--vm-cpus=4", "--boot-timeout=7.5",
        "--qemu=/opt/qemu", "--evidence=on", "--evidence-dir=kept", "--rerun-failed", "--exemptions=a.toml",
        "--exemptions", "/etc/b c.toml", suites=("boot", "one", "two", "three"),
    )  # fmt: skip
    assert config == RunConfig(
        images=(ImageReference.parse(IMAGE), ImageReference.parse("h.example/c@sha256:" + "0" * 64)),
        suites=("boot", "one", "two", "three"),
        backend="fake",
        spec=MachineSpec(memory_mib=2048, cpus=4, network=Network.NONE, qemu="/opt/qemu"),
        evidence=Evidence.ON,
        evidence_folder=pytester.path / "kept",
        boot_timeout=7.5,
        rerun_failed=True,
        exemptions=(pytester.path / "a.toml", Path("/etc/b c.toml")),
    )


@pytest.mark.parametrize(
    ("text", "mebibytes"), [("512", 512), ("512M", 512), ("1g", 1024), ("3GiB", 3072), ("128", 128)]
)
def test_sizes(pytester: pytest.Pytester, text: str, mebibytes: int) -> None:
    assert parsed(pytester, f"--image={IMAGE}", f"--vm-memory={text}").spec.memory_mib == mebibytes


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), (None, 1800)])
def test_how_long_a_machine_is_kept(pytester: pytest.Pytester, text: str | None, seconds: float) -> None:
    words = [] if text is None else [f"--keep-vm-idle={text}"]
    config = parsed(pytester, f"--image={IMAGE}", "--keep-vm", *words)
    assert (config.keep_vm, config.keep_vm_idle) == (True, seconds)
    assert not parsed(pytester, f"--image={IMAGE}").keep_vm


@pytest.mark.parametrize("host", ["vm", "root@10.0.0.5", "core@vm.example:2222", "root@[fe80::1]:22"])
def test_hosts(pytester: pytest.Pytester, host: str) -> None:
    config = parsed(pytester, f"--host={host}")
    assert (config.host, config.backend) == (host, "remote")


def test_disks(pytester: pytest.Pytester) -> None:
    disk = pytester.path / "server"
    disk.write_bytes(bytes(510) + b"\x55\xaa")
    assert parsed(pytester, "--disk=server").disk == DiskFile(disk, "raw", uefi=False)


def test_the_command_line_beats_the_environment_and_that_the_ini_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nbootc_vm_cpus = 3\nbootc_vm_memory = 1G\nbootc_image = h.example/ini h.example/ini2")
    assert [image.name for image in parsed(pytester).images] == ["h.example/ini", "h.example/ini2"]
    assert parsed(pytester).spec.cpus == 3
    monkeypatch.setenv("BOOTC_VM_CPUS", "4")
    monkeypatch.setenv("BOOTC_IMAGE", "h.example/env,h.example/env2\nh.example/env3")
    assert [image.name[-4:] for image in parsed(pytester).images] == ["/env", "env2", "env3"]
    config = parsed(pytester, "--vm-cpus=5", "--image=h.example/typed")
    assert (config.spec.cpus, config.spec.memory_mib) == (5, 1024)
    assert [image.name for image in config.images] == ["h.example/typed"]


def test_an_empty_variable_says_nothing(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTC_VM_CPUS", " ")
    monkeypatch.setenv("BOOTC_IMAGE", "")
    assert not options.is_asked_for(pytester.parseconfig())
    assert parsed(pytester, f"--image={IMAGE}").spec.cpus == 2


def test_what_asks_for_a_run(pytester: pytest.Pytester) -> None:
    for argument in (f"--image={IMAGE}", "--host=h", "--disk=d", "--suite=boot"):
        assert options.is_asked_for(pytester.parseconfig(argument)), argument
    for argument in ("--backend=fake", "--vm-cpus=2", "--evidence=on"):
        assert not options.is_asked_for(pytester.parseconfig(argument)), argument


def test_the_boot_suite_is_always_there_and_named_once(pytester: pytest.Pytester) -> None:
    there = ("boot", "smoke")
    assert parsed(pytester, f"--image={IMAGE}", "--suite=smoke", suites=there).suites == there
    assert parsed(pytester, f"--image={IMAGE}", "--suite=smoke,boot,smoke", suites=there).suites == there
    assert parsed(pytester, f"--image={IMAGE}", suites=there).suites == ()


def test_names_of_an_option() -> None:
    assert options.NETWORK.dest == "bootc_vm_network"
    assert options.NETWORK.variable == "BOOTC_VM_NETWORK"
    assert len({option.flag for option in options.OPTIONS}) == len(options.OPTIONS)


def test_the_evidence_folder_is_seen_from_where_pytest_was_started(pytester: pytest.Pytester) -> None:
    assert parsed(pytester, f"--image={IMAGE}", "--evidence-dir=/elsewhere").evidence_folder == Path("/elsewhere")


@pytest.mark.parametrize(
    ("word", "is_on"),
    [
        ("yes", True),
        ("True", True),
        ("on", True),
        ("1", True),
        ("no", False),
        ("FALSE", False),
        ("off", False),
        ("0", False),
    ],
)
def test_a_switch_in_the_environment_and_in_the_ini_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, word: str, *, is_on: bool
) -> None:
    pytester.makeini(f"[pytest]\nbootc_rerun_failed = {word}")
    assert parsed(pytester, f"--image={IMAGE}").rerun_failed is is_on
    pytester.makeini(f"[pytest]\nbootc_rerun_failed = {'no' if is_on else 'yes'}")
    monkeypatch.setenv("BOOTC_RERUN_FAILED", word)
    assert parsed(pytester, f"--image={IMAGE}").rerun_failed is is_on
    assert parsed(pytester, f"--image={IMAGE}", "--rerun-failed").rerun_failed


@pytest.mark.parametrize("word", ["maybe", "2", "yes please"])
def test_a_switch_that_is_neither_on_nor_off(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("BOOTC_RERUN_FAILED", word)
    with pytest.raises(ConfigError) as caught:
        parsed(pytester, f"--image={IMAGE}")
    assert caught.value.brief == f"BOOTC_RERUN_FAILED {word}: this is neither yes nor no"
    assert caught.value.resolution == "write one of yes, true, on, 1, no, false, off, 0"
    # Typed, it says yes whatever stands there.
    assert parsed(pytester, f"--image={IMAGE}", "--rerun-failed").rerun_failed


def test_files_of_exemptions(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    here = pytester.path
    pytester.makeini("[pytest]\nbootc_exemptions = ini.toml 'with blank.toml'")
    assert parsed(pytester, f"--image={IMAGE}").exemptions == (here / "ini.toml", here / "with blank.toml")
    monkeypatch.setenv("BOOTC_EXEMPTIONS", "a.toml,/etc/b.toml c.toml")
    assert parsed(pytester, f"--image={IMAGE}").exemptions == (here / "a.toml", Path("/etc/b.toml"), here / "c.toml")
    assert parsed(pytester, f"--image={IMAGE}", "--exemptions=typed.toml").exemptions == (here / "typed.toml",)
