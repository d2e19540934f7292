from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.errors import ConfigError
from pytest_bootc.machine.firmware import Firmware, descriptor_folders, find_firmware


class Host:
    """Folders with descriptions of firmware, as a host has them."""

    def __init__(self, home: Path) -> None:
        self.images = home / "images"
        self.folders = (home / "etc", home / "usr")
        for folder in (self.images, *self.folders):
            folder.mkdir()

    def describe(self, file: str, name: str, *, form: str = "raw", **changes: Any) -> None:
        """Install firmware with a description; changes replace parts of it, or (``mapping_X``) of its mapping."""
        code, variables = self.images / f"{name}_CODE", self.images / f"{name}_VARS"
        code.touch()
        variables.touch()
        mapping = {
            "device": "flash",
            "executable": {"filename": str(code), "format": form},
            "nvram-template": {"filename": str(variables), "format": form},
        }
        mapping |= {key.removeprefix("mapping_"): changes.pop(key) for key in list(changes) if "mapping_" in key}
        description = {
            "interface-types": ["uefi"],
            "mapping": mapping,
            "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
            "features": ["acpi-s3", "amd-sev", "amd-sev-es", "verbose-dynamic"],
        }
        path = self.folders[0].parent / file
        path.write_text(json.dumps(description | {key.replace("_", "-"): value for key, value in changes.items()}))

    def found(self) -> str:
        """The name of the firmware that is taken."""
        return find_firmware(self.folders).code.name.removesuffix("_CODE")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_code_and_variables_with_their_formats(host: Host) -> None:
    host.describe("usr/50-x.json", "X", form="qcow2", mapping_mode="split")
    images = host.images
    assert find_firmware(host.folders) == Firmware(images / "X_CODE", "qcow2", images / "X_VARS", "qcow2")


@pytest.mark.parametrize(
    "unfit",
    [
        {"features": ["secure-boot", "enrolled-keys"]},
        {"features": ["secure-boot", "requires-smm"]},
        {"interface_types": ["bios"]},
        {"mapping_device": "memory"},
        {"mapping_mode": "stateless"},
        {"targets": [{"architecture": "aarch64", "machines": ["pc-q35-*"]}]},
        {"targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "microvm"]}]},
        {"targets": []},
        {"mapping_executable": {"filename": "/none", "format": "raw"}},
        {"mapping_nvram-template": {"filename": "/none", "format": "raw"}},
        {"mapping_executable": {}},
        {"mapping": "flash"},
        {"features": None},
    ],
)
def test_firmware_that_does_not_fit_is_passed_over(host: Host, unfit: dict[str, Any]) -> None:
    host.describe("usr/10-unfit.json", "UNFIT", **unfit)
    with pytest.raises(ConfigError, match="no UEFI firmware for QEMU") as caught:
        host.found()
    assert "usr/10-unfit.json: " in caught.value.details
    host.describe("usr/20-fit.json", "FIT")
    assert host.found() == "FIT"


def test_the_administrator_comes_before_the_distribution(host: Host) -> None:
    host.describe("usr/20-b.json", "B")
    host.describe("usr/30-c.json", "C")
    assert host.found() == "B"
    (host.folders[0] / "20-b.json").touch()  # emptied: not to be used
    assert host.found() == "C"
    host.describe("etc/20-b.json", "OTHER")
    assert host.found() == "OTHER"
    host.describe("etc/10-a.json", "A")
    assert host.found() == "A"


def test_a_host_without_firmware_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the disk boots by UEFI") as caught:
        find_firmware((tmp_path / "none",))
    assert str(tmp_path / "none") in caught.value.details
    assert "Debian: ovmf, Fedora: edk2-ovmf" in caught.value.resolution


def test_the_folders_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/own")
    assert [str(folder) for folder in descriptor_folders()] == [
        "/own/qemu/firmware", "/etc/qemu/firmware", "/usr/share/qemu/firmware",
    ]  # fmt: skip
