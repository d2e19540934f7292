from __future__ import annotations

import copy
import json

import pytest

from pytest_bootc.deployment import BootcProvider, Deployment, DeploymentEntry, OstreeProvider
from pytest_bootc.errors import GuestError

OLD = "sha256:" + "1a" * 32
NEW = "sha256:" + "2b" * 32


def entry(tag: str, digest: str, checksum: str, **more: object) -> dict[str, object]:
    """An entry as bootc 1.16 prints it."""
    return {
        "image": {
            "image": {"image": f"registry.example/os:{tag}", "transport": "registry"},
            "version": f"43.20261124.{tag}",
            "timestamp": "2026-11-24T08:12:45Z",
            "imageDigest": digest,
            "architecture": "amd64",
        },
        "cachedUpdate": None,
        "incompatible": False,
        "pinned": False,
        "downloadOnly": False,
        "softRebootCapable": False,
        "store": "ostreeContainer",
        "ostree": {"stateroot": "default", "checksum": checksum, "deploySerial": 0},
        "composefs": None,
        **more,
    }


FRESH: dict[str, object] = {
    "apiVersion": "org.containers.bootc/v1",
    "kind": "BootcHost",
    "metadata": {"name": "host"},
    "spec": {"bootOrder": "default", "image": {"image": "registry.example/os:a", "transport": "registry"}},
    "status": {
        "staged": None,
        "booted": entry("a", OLD, "c1" * 32),
        "rollback": None,
        "rollbackQueued": False,
        "readOnly": False,
        "usrOverlay": None,
        "type": "bootcHost",
    },
}
NO_DEPLOYMENT = {
    "apiVersion": "org.containers.bootc/v1",
    "kind": "BootcHost",
    "metadata": {"name": "host"},
    "spec": {"bootOrder": "default", "image": None},
    "status": {"staged": None, "booted": None, "rollback": None, "rollbackQueued": False, "type": None},
}


def changed(status: dict[str, object], spec: dict[str, object] | None = None) -> str:
    document = copy.deepcopy(FRESH)
    document["status"].update(status)
    document["spec"].update(spec or {})
    return json.dumps(document)


class TestBootc:
    provider = BootcProvider()

    def test_a_fresh_install(self):
        deployment = self.provider.parse(json.dumps(FRESH))

        assert deployment == Deployment(
            provider="bootc",
            booted=DeploymentEntry(
                image="registry.example/os:a",
                transport="registry",
                digest=OLD,
                version="43.20261124.a",
                timestamp="2026-11-24T08:12:45Z",
                checksum="c1" * 32,
                stateroot="default",
                serial=0,
            ),
            wanted_image="registry.example/os:a",
        )
        assert deployment.next is deployment.booted

    def test_a_switch_stages_another_image(self):
        deployment = self.provider.parse(
            changed(
                {"staged": entry("b", NEW, "c2" * 32)},
                {"image": {"image": "registry.example/os:b", "transport": "registry"}},
            )
        )

        assert deployment.staged.digest == NEW
        assert deployment.booted.digest == OLD
        assert deployment.wanted_image == "registry.example/os:b"
        assert deployment.next is deployment.staged

    def test_after_the_reboot_the_old_one_is_the_rollback(self):
        deployment = self.provider.parse(
            changed({"booted": entry("b", NEW, "c2" * 32), "rollback": entry("a", OLD, "c1" * 32, pinned=True)})
        )

        assert (deployment.booted.digest, deployment.rollback.digest) == (NEW, OLD)
        assert deployment.rollback.pinned
        assert not deployment.rollback_queued

    def test_a_rollback_that_is_queued_is_what_boots_next(self):
        deployment = self.provider.parse(
            changed(
                {
                    "booted": entry("b", NEW, "c2" * 32),
                    "rollback": entry("a", OLD, "c1" * 32),
                    "rollbackQueued": True,
                },
                {"bootOrder": "rollback"},
            )
        )

        assert deployment.rollback_queued
        assert deployment.next.digest == OLD

    def test_a_composefs_deployment_is_named_by_its_verity_digest(self):
        told = {"verity": "d3" * 64, "bootType": "Bls", "bootloader": "Systemd"}
        deployment = self.provider.parse(
            changed({"booted": entry("a", OLD, "", ostree=None, composefs=told, store=None)})
        )

        assert (deployment.booted.checksum, deployment.booted.serial) == ("d3" * 64, None)

    def test_a_deployment_that_did_not_come_from_an_image(self):
        told = {"image": None, "incompatible": True, "pinned": False, "ostree": {"checksum": "c1" * 32}}
        deployment = self.provider.parse(changed({"booted": told}))

        assert (deployment.booted.image, deployment.booted.incompatible) == (None, True)

    def test_a_root_that_is_no_deployment(self):
        assert self.provider.parse(json.dumps(NO_DEPLOYMENT)) is None

    @pytest.mark.parametrize("printed", ["error: opendir(boot): Operation not permitted", "[]", '"x"'])
    def test_something_else_is_an_error(self, printed):
        with pytest.raises(GuestError, match="bootc status --json printed") as caught:
            self.provider.parse(printed)

        assert caught.value.details == printed


TEXT = f"""\
  debian {"b2" * 32}.0 (staged)
    Version: 13.2
    origin refspec: local:debian/13
* debian {"a1" * 32}.1
    Version: 13.1
    Pinned: yes
    origin refspec: local:debian/13
    GPG: Signature made Tue 24 Nov 2026 using RSA key ID 8B48AD6246925553
  debian {"99" * 32}.0 (rollback)
    origin: <unknown origin type>
"""
JSON = json.dumps(
    {
        "deployments": [
            {
                "checksum": "b2" * 32,
                "stateroot": "debian",
                "serial": 0,
                "index": 0,
                "booted": False,
                "pending": True,
                "rollback": False,
                "finalization-locked": False,
                "soft-reboot-target": False,
                "staged": True,
                "pinned": False,
                "unlocked": "none",
                "version": "13.2",
            },
            {
                "checksum": "a1" * 32,
                "stateroot": "debian",
                "serial": 1,
                "index": 1,
                "booted": True,
                "pending": False,
                "rollback": False,
                "finalization-locked": False,
                "soft-reboot-target": False,
                "staged": False,
                "pinned": True,
                "unlocked": "none",
                "version": "13.1",
            },
            {
                "checksum": "99" * 32,
                "stateroot": "debian",
                "serial": 0,
                "index": 2,
                "booted": False,
                "pending": False,
                "rollback": True,
                "finalization-locked": False,
                "soft-reboot-target": False,
                "staged": False,
                "pinned": False,
                "unlocked": "none",
            },
        ]
    }
)


class TestOstree:
    provider = OstreeProvider()

    @pytest.mark.parametrize("document", [TEXT, JSON], ids=["text", "json"])
    def test_both_forms_tell_the_same(self, document):
        assert self.provider.parse(document) == Deployment(
            provider="ostree",
            booted=DeploymentEntry(version="13.1", checksum="a1" * 32, stateroot="debian", serial=1, pinned=True),
            staged=DeploymentEntry(version="13.2", checksum="b2" * 32, stateroot="debian", serial=0),
            rollback=DeploymentEntry(checksum="99" * 32, stateroot="debian", serial=0),
        )

    def test_what_is_pending_boots_next(self):
        deployment = self.provider.parse(f"  os {'b2' * 32}.0 (pending)\n* os {'a1' * 32}.0\n")

        assert deployment.next.checksum == "b2" * 32
        assert deployment.rollback is None

    def test_deployments_that_are_neither_do_not_count(self):
        deployment = self.provider.parse(f"* os {'a1' * 32}.0\n  os {'b2' * 32}.0 (rollback)\n  os {'c3' * 32}.0\n")

        assert deployment.rollback.checksum == "b2" * 32
        assert deployment.staged is None

    @pytest.mark.parametrize("document", ["No deployments.\n", "", '{"deployments": []}'])
    def test_no_deployments(self, document):
        assert self.provider.parse(document) is None

    def test_something_else_is_an_error(self):
        with pytest.raises(GuestError, match="cannot be read"):
            self.provider.parse("error: loading sysroot\n")
