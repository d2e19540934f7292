"""What is like Flatcar Container Linux: containerd, and Ignition, which sets the machine up at its first boot.

Packages are Debian's, paths are Flatcar's. disk.py makes a disk of it, whose initramfs runs Ignition where the file
/boot/flatcar/first_boot is: on Flatcar GRUB looks for it, and dracut's initramfs has Ignition's units.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import debian
import oci
from oci import Compression, Entry, Layer

#: Where Ignition is, what it reads, and what says that the boot is the first.
IGNITION = "/usr/lib/dracut/modules.d/30ignition/ignition"
CONFIG = "/usr/share/oem/config.ign"
FIRST_BOOT = "/boot/flatcar/first_boot"

# Of a key that nobody has.
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f core@example"
_IGNITION_CONFIG = {
    "ignition": {"version": "3.3.0"},
    "passwd": {"users": [{"name": "core", "sshAuthorizedKeys": [_KEY]}]},
    "storage": {"files": [{"path": "/etc/hostname", "overwrite": True, "contents": {"source": "data:,set-up%0A"}}]},
}


def _above(tree: debian.Tree) -> Sequence[Layer]:
    """What a disk has outside /usr and /etc: the mark of a first boot, and a place for homes."""
    entries = [Entry(FIRST_BOOT.lstrip("/")), oci.directory("var/home")]
    return [Layer(debian.completed(entries, tree), Compression.GZIP, "a disk that has not been booted")]


RECIPE = debian.Recipe(
    packages=(*debian.PACKAGES, "containerd", "ignition"),
    files={
        **debian.FILES,
        "etc/hostname": "not-set-up\n",
        "etc/flatcar/update.conf": "GROUP=stable\n",
        CONFIG.lstrip("/"): json.dumps(_IGNITION_CONFIG) + "\n",
    },
    enabled=debian.ENABLED,
    dropped=debian.DROPPED,
    above=_above,
)
