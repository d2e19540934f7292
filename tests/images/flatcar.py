"""The files of a disk like Flatcar Container Linux's: containerd, and Ignition, which sets it up at its first boot.

Packages are Debian's; paths, names and the order of things at boot are Flatcar's. disk.py makes the disk.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import debian
import oci
from oci import Compression, Layer

#: Where the program is, what it reads, and what says that the boot is the first.
IGNITION = "/usr/lib/dracut/modules.d/30ignition/ignition"
CONFIG = "oem/config.ign"
FIRST_BOOT = "boot/flatcar/first_boot"

_WITHOUT = ("podman", "crun", "conmon", "netavark", "aardvark-dns", "nftables", "uidmap")
# Ignition asks for setfiles when it has written anything, be there SELinux or not.
PACKAGES = (*(name for name in debian.PACKAGES if name not in _WITHOUT), "containerd", "ignition", "policycoreutils")

_RELEASE = "13.0.0"
# Of a key that nobody has.
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f core@example"
_UNIT = """\
[Unit]
Description=Was set up by Ignition

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/test -d /var/lib/set-up

[Install]
WantedBy=multi-user.target
"""
_UPDATES = base64.b64encode(b"GROUP=stable\nSERVER=disabled\n").decode()
_IGNITION_CONFIG = {
    "ignition": {"version": "3.3.0"},
    "passwd": {"users": [{"name": "core", "groups": ["sudo"], "shell": "/bin/bash", "sshAuthorizedKeys": [_KEY]}]},
    "storage": {
        "directories": [{"path": "/var/lib/set-up", "mode": 0o750}],
        "files": [
            {"path": "/etc/hostname", "overwrite": True, "mode": 0o644, "contents": {"source": "data:,set-up%0A"}},
            {
                "path": "/etc/flatcar/update.conf",
                "overwrite": True,
                "mode": 0o644,
                "contents": {"source": f"data:text/plain;base64,{_UPDATES}"},
            },
        ],
        "links": [{"path": "/etc/set-up", "target": "/var/lib/set-up"}],
    },
    "systemd": {"units": [{"name": "set-up.service", "enabled": True, "contents": _UNIT}]},
}

FILES = {
    **debian.FILES,
    "etc/hostname": "not-set-up\n",
    # With this, it is a first boot for systemd too, and the presets count that Ignition writes (machine-id(5)).
    "etc/machine-id": "uninitialized\n",
    "usr/lib/systemd/system-preset/99-default.preset": "disable *\n",
    "etc/fstab": "LABEL=EFI-SYSTEM /boot vfat umask=0077 0 0\nLABEL=OEM /oem ext4 defaults 0 0\n",
    "etc/flatcar/update.conf": "GROUP=not-set-up\n",
    "etc/selinux/config": "SELINUX=disabled\nSELINUXTYPE=none\n",
    "etc/selinux/none/contexts/files/file_contexts": "",
    "etc/ssh/sshd_config.d/50-ignition.conf": (
        "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys.d/ignition\n"
    ),
    "usr/lib/os-release": (
        'NAME="A disk like Flatcar\'s, of Debian packages"\n'
        f"ID=flatcar\nID_LIKE=debian\nVERSION={_RELEASE}\nVERSION_ID={_RELEASE}\n"
    ),
    "usr/share/flatcar/release": f"FLATCAR_RELEASE_VERSION={_RELEASE}\nFLATCAR_RELEASE_BOARD=amd64-usr\n",
    "usr/share/flatcar/update.conf": "SERVER=https://update.example/v1/update/\nGROUP=stable\n",
    CONFIG: json.dumps(_IGNITION_CONFIG, indent=1) + "\n",
}


def _above(tree: debian.Tree) -> Sequence[Layer]:
    """What has to be there before anything is booted: places to mount, and one for homes."""
    entries = [oci.directory(path) for path in ("boot", "oem", "var/home", "var/lib")]
    return [Layer(debian.completed(entries, tree), Compression.GZIP, "folders of a disk that has not been booted")]


RECIPE = debian.Recipe(
    packages=PACKAGES,
    files=FILES,
    enabled=debian.ENABLED,
    dropped=debian.DROPPED,
    above=_above,
)
