"""Images of Debian packages, laid out like a bootc image and split into layers; the recipe of the server image.

`mmdebstrap` makes one tarball of the packages; everything after it is done on the entries of that tarball: no chroot,
no mount. The layout: only /usr is content, /etc is configuration, /home, /root, /opt, /srv, /mnt and /usr/local point
into /var, and /var is made at boot by systemd-tmpfiles, so the root may be mounted read-only.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import oci
import oddities
from oci import Compression, Entry, Kind, Layer
from oddities import SOURCE_DATE_EPOCH

SUITE = "trixie"

PACKAGES = [
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "udev",
    "dbus",
    "polkitd",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "kmod",
    "openssh-server",
    "sudo",
    "procps",
    "iproute2",
    "ca-certificates",
    "libcap2-bin",
    "busybox-static",
    "podman",
    "crun",
    "conmon",
    "netavark",
    "aardvark-dns",
    "nftables",
    "uidmap",
]

APT_OPTIONS = ('Apt::Install-Recommends "0"', 'Acquire::Languages "none"')
DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
)

LINKS = {
    "home": "var/home",
    "root": "var/roothome",
    "opt": "var/opt",
    "srv": "var/srv",
    "mnt": "var/mnt",
    "usr/local": "../var/usrlocal",
    "ostree": "sysroot/ostree",
    "etc/localtime": "../usr/share/zoneinfo/Etc/UTC",
    "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
}

ENABLED = {
    "multi-user.target.wants/systemd-networkd.service": "systemd-networkd.service",
    "sockets.target.wants/systemd-networkd.socket": "systemd-networkd.socket",
    "network-online.target.wants/systemd-networkd-wait-online.service": "systemd-networkd-wait-online.service",
    "dbus-org.freedesktop.network1.service": "systemd-networkd.service",
}

FILES = {
    "etc/hostname": "bootc-server\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/locale.conf": "LANG=C.UTF-8\n",
    "etc/machine-id": "",
    "usr/lib/systemd/network/70-wired.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n",
    # Debian makes host keys on the first boot only, and a boot with an empty machine-id file is not a first boot.
    "usr/lib/systemd/system/sshd-keygen.service.d/10-any-boot.conf": (
        "[Unit]\nConditionFirstBoot=\nConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n"
    ),
}

# Left behind by package installation, or of no use in an image: patterns of whole paths.
DROPPED = re.compile(
    r"(dev|run|proc|sys|tmp|boot)/.*"
    r"|(vmlinuz|initrd\.img)(\.old)?"
    r"|etc/(fstab|mtab|\.pwd\.lock|(passwd|group|shadow|gshadow|subuid|subgid)-)"
    r"|etc/ssh/ssh_host_.*"
    r"|etc/(init\.d|rc[0-6S]\.d|runit|sv)(/.*)?"
    r"|etc/systemd/system/timers\.target\.wants/(apt-daily.*|dpkg-db-backup|fstrim)\.timer"
    r"|var/(backups|local)"
    r"|var/cache/(apt|debconf|ldconfig)(/.*)?"
    r"|var/lib/(apt|pam|sgml-base|ucf|xml-core|systemd/(catalog|deb-systemd-.*))(/.*)?"
    r"|var/lib/dpkg/(lock.*|.*-old|triggers/Lock)"
    r"|var/log/(apt|runit)(/.*)?"
)


Tree = Mapping[str, Entry]


class RecipeError(Exception):
    """The packages did not give what the recipe expects."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What one image is made of: packages, and what is done with them."""

    packages: Sequence[str]
    files: Mapping[str, str]
    #: Links below /etc/systemd/system to units, by their paths there.
    enabled: Mapping[str, str]
    dropped: re.Pattern[str]
    #: Further layers, made of the tree that the packages and files give.
    above: Callable[[Tree], Sequence[Layer]]
    #: Programs that are run after the installation, with the root's folder as their argument (mmdebstrap(1), hooks).
    hooks: Sequence[Path] = ()


def mirror() -> tuple[str, ...]:
    """The Debian archive that this host already uses, as arguments for mmdebstrap; empty for its default."""
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(COMPONENT) $(REPO_URI) $(ORIGIN)/$(LABEL)",
        "Created-By: Packages",
    ]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return ()
    for line in listed.splitlines():
        component, uri, archive = line.split(" ", 2)
        if component == "main" and archive == "Debian/Debian":
            return (f"deb {uri} {SUITE} main",)
    return ()


def bootstrap(recipe: Recipe, tar: Path) -> None:
    """Install the packages into a new tarball `tar` (root, or a user with subordinate ids)."""
    packages = ",".join(recipe.packages)
    command = ["mmdebstrap", "--quiet", "--variant=essential", "--format=tar", f"--include={packages}"]
    command += ["--mode=root" if os.geteuid() == 0 else "--mode=unshare"]
    command += [f"--aptopt={option}" for option in APT_OPTIONS] + [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    command += [f"--customize-hook={hook}" for hook in recipe.hooks]
    # INITRD=No: the kernel package depends on initramfs-tools, whose hook would spend a minute on an initramfs to drop.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), "INITRD": "No", "LC_ALL": "C.UTF-8"}
    subprocess.run([*command, SUITE, os.fspath(tar), *mirror()], check=True, stdin=subprocess.DEVNULL, env=environment)


def layers(recipe: Recipe, tar: Path) -> list[Layer]:
    """The layers of an image, lowest first, from the tarball that `bootstrap` made."""
    packaged = {entry.path: _clamped(entry) for entry in oci.read_tar(tar)}
    owner = _owners(packaged)
    tree = lay_out(recipe, packaged)
    release = _kernel_release(tree)
    parts: dict[str, dict[str, Entry]] = {"base": {}, "kernel": {}, "packages": {}}
    for path, entry in tree.items():
        name = "kernel" if path.startswith(f"usr/lib/modules/{release}") else owner.get(path, "packages")
        parts[name][path] = entry
    for part in parts.values():
        for path in list(part):
            part.update({above: tree[above] for above in oci.parents(path)})
    return [
        Layer(list(parts["base"].values()), Compression.GZIP, "required packages"),
        Layer(list(parts["kernel"].values()), Compression.ZSTD, f"kernel {release}"),
        Layer(list(parts["packages"].values()), Compression.ZSTD, "all other packages and configuration"),
        *recipe.above(tree),
    ]


def _odd_layers(tree: Tree) -> list[Layer]:
    busybox = tree["usr/bin/busybox"]
    return [
        Layer(oddities.below(busybox), Compression.NONE, "files to be hidden or replaced by the next layer"),
        Layer(oddities.above(), Compression.GZIP, "whiteouts, an opaque directory, replaced files"),
    ]


SERVER = Recipe(PACKAGES, FILES, ENABLED, DROPPED, _odd_layers)


def lay_out(recipe: Recipe, packaged: dict[str, Entry]) -> dict[str, Entry]:
    """The tree of a bootc image made of the files of an installed Debian system."""
    tree = {path: entry for path, entry in packaged.items() if not recipe.dropped.fullmatch(path)}
    _move_kernel(packaged, tree)
    _move(tree, "var/lib/dpkg", "usr/lib/sysimage/dpkg")
    variable = _take_variable(tree)
    for path, target in LINKS.items():
        tree[path] = oci.symlink(path, target)
    for path, text in recipe.files.items():
        tree[path] = Entry(path, data=text.encode())
    for link, unit in recipe.enabled.items():
        tree["etc/systemd/system/" + link] = oci.symlink(
            "etc/systemd/system/" + link, f"/usr/lib/systemd/system/{unit}"
        )
    _declare(variable, tree)
    tree["sysroot"] = oci.directory("sysroot")
    for path in list(tree):
        for above in oci.parents(path):
            tree.setdefault(above, oci.directory(above))
    return {path: dataclasses.replace(entry, mtime=entry.mtime or SOURCE_DATE_EPOCH) for path, entry in tree.items()}


def completed(entries: Iterable[Entry], below: Tree) -> list[Entry]:
    """The entries for a layer: with their folders, as these are in the tree `below`, and dated."""
    added = {entry.path: entry for entry in entries}
    folders = {folder for path in added for folder in oci.parents(path)}
    whole = {folder: below.get(folder, oci.directory(folder)) for folder in folders} | added
    return [dataclasses.replace(entry, mtime=SOURCE_DATE_EPOCH) for entry in whole.values()]


def _clamped(entry: Entry) -> Entry:
    return dataclasses.replace(entry, mtime=min(entry.mtime, SOURCE_DATE_EPOCH))


def _move(tree: dict[str, Entry], old: str, new: str) -> None:
    for path in [path for path in tree if path == old or path.startswith(old + "/")]:
        moved = new + path.removeprefix(old)
        tree[moved] = dataclasses.replace(tree.pop(path), path=moved)


def _move_kernel(packaged: dict[str, Entry], tree: dict[str, Entry]) -> None:
    release = _kernel_release(tree)
    for name in ("vmlinuz", "config"):
        path = f"usr/lib/modules/{release}/{name}"
        tree[path] = dataclasses.replace(packaged[f"boot/{name}-{release}"], path=path)


def _kernel_release(tree: Iterable[str]) -> str:
    found = {match[1] for path in tree if (match := re.match(r"usr/lib/modules/([^/]+)/modules\.dep$", path))}
    if len(found) != 1:
        raise RecipeError(f"expected one kernel below /usr/lib/modules, found {sorted(found)}")
    return found.pop()


def _take_variable(tree: dict[str, Entry]) -> list[Entry]:
    """Remove from `tree` all that lives in /var on the running system; return it under its /var paths."""
    taken = []
    for path in list(tree):
        for link, target in LINKS.items():
            place = target.removeprefix("../")
            if place.startswith("var/") and (path == link or path.startswith(link + "/")):
                taken.append(dataclasses.replace(tree.pop(path), path=place + path.removeprefix(link)))
                break
        else:
            if path.startswith("var/"):
                taken.append(tree.pop(path))
    return taken


def _declare(variable: Sequence[Entry], tree: dict[str, Entry]) -> None:
    """Add a tmpfiles.d file that makes the directories and links of `variable` which no package declares."""
    linked = {"/" + link for link, target in LINKS.items() if target.removeprefix("../").startswith("var/")}
    declared = {"var/lib/dpkg"}
    for path in [path for path in tree if re.fullmatch(r"usr/lib/tmpfiles\.d/[^/]+\.conf", path)]:
        lines = oci.content(tree[path]).decode().splitlines(keepends=True)
        # Lines like "Q /home" are for systems where it is a directory of its own.
        lines = [line for line in lines if not {*line.split()[1:2]} & linked]
        tree[path] = dataclasses.replace(tree[path], data="".join(lines).encode())
        declared |= {line.split()[1].strip("/") for line in lines if line[0] in "dDqQvLfC"}
    lines = ["L /var/lib/dpkg - - - - ../../usr/lib/sysimage/dpkg\n"]
    for entry in oci.in_order({entry.path: entry for entry in variable}.values()):
        if entry.path in declared:
            continue
        if entry.kind is Kind.DIRECTORY:
            lines.append(f"d /{entry.path} {entry.mode:04o} {entry.uid} {entry.gid} - -\n")
        elif entry.kind is Kind.SYMLINK:
            lines.append(f"L /{entry.path} - - - - {entry.target}\n")
    path = "usr/lib/tmpfiles.d/image-var.conf"
    tree[path] = Entry(path, data="".join(lines).encode())


def _owners(packaged: dict[str, Entry]) -> dict[str, str]:
    """Path to layer name ("base", or "packages") for each file of a package."""
    status = oci.content(packaged["var/lib/dpkg/status"]).decode()
    owner: dict[str, str] = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Architecture|Priority|Multi-Arch): (.*)$", paragraph, re.MULTILINE))
        if not fields:
            continue
        name = fields["Package"]
        if fields.get("Multi-Arch") == "same":
            name += ":" + fields["Architecture"]
        layer = "base" if fields.get("Priority") in ("required", "important") else "packages"
        for line in oci.content(packaged[f"var/lib/dpkg/info/{name}.list"]).decode().splitlines():
            path = re.sub(r"^(bin|sbin|lib|lib64)/", r"usr/\1/", line.lstrip("/"))
            if layer == "base" or path not in owner:
                owner[path] = layer
    return owner
