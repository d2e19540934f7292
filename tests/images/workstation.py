"""The workstation image: what the suites ask of a desktop's image and needs no screen, as far as Debian has it.

Beside packages it has a regular user, `tester`, whose session runs without a login (it lingers), a local repository of
Flatpak whose application is installed at the first boot, a container image in a file, and system-wide settings with a
lock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import debian
import oci
import oddities
from oci import Compression, Entry, Layer

PLACE = "usr/share/test-images"

PACKAGES = (
    # sessions, settings, portals
    "dbus-user-session",
    "pkexec",
    "dconf-cli",
    "dconf-gsettings-backend",
    "libglib2.0-bin",
    "gsettings-desktop-schemas",
    "gnome-settings-daemon-common",
    "gnome-shell-common",
    "mutter-common",
    "xdg-desktop-portal",
    "xdg-desktop-portal-gtk",
    "xdg-terminal-exec",
    "xdg-user-dirs",
    "xdg-utils",
    "desktop-file-utils",
    "appstream",
    "kitty",
    "pipewire",
    "pipewire-pulse",
    "wireplumber",
    "gnome-keyring",
    "libsecret-tools",
    "at-spi2-core",
    "bluez",
    # containers, applications
    "flatpak",
    "ostree",
    "skopeo",
    "cosign",
    "distrobox",
    "podman-toolbox",
    "podman-compose",
    "docker-cli",
    "passt",
    "slirp4netns",
    "fuse-overlayfs",
    # shells and their tools
    "bat",
    "eza",
    "fastfetch",
    "fd-find",
    "fish",
    "fzf",
    "just",
    "nodejs",
    "python3-venv",
    "ripgrep",
    "starship",
    "zsh",
    # the machine
    "apparmor",
    "efibootmgr",
    "pciutils",
    "systemd-coredump",
    "systemd-homed",
    "tpm2-tools",
    "usbutils",
    # for the building only: see the hook
    "faketime",
)

_FLATPAKS_UNIT = """\
[Unit]
Description=Install applications from the image's own repository
ConditionPathExists=!/var/lib/flatpak/app/org.example.Hello
After=local-fs.target dbus.socket

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/flatpak install --system --assumeyes --noninteractive local org.example.Hello

[Install]
WantedBy=multi-user.target
"""
_SETTINGS = """\
[org/gnome/desktop/interface]
accent-color='slate'
color-scheme='prefer-dark'
font-name='Adwaita Sans 11'

[org/gnome/settings-daemon/plugins/media-keys]
custom-keybindings=['/org/gnome/settings-daemon/plugins/media-keys/custom-keybindings/custom0/']

[org/gnome/settings-daemon/plugins/media-keys/custom-keybindings/custom0]
binding='<Control><Alt>t'
command='xdg-terminal-exec'
name='Terminal'

[org/gnome/desktop/app-folders]
folder-children=['Utilities']

[org/gnome/desktop/lockdown]
disable-command-line=false
"""
_HOME = """\
d /var/home/tester 0700 tester tester - -
C /var/home/tester/.bashrc 0644 tester tester - /etc/skel/.bashrc
C /var/home/tester/.profile 0644 tester tester - /etc/skel/.profile
f /var/lib/systemd/linger/tester 0644 root root - -
"""

FILES = {
    **debian.FILES,
    "etc/hostname": "bootc-workstation\n",
    "etc/flatpak/remotes.d/local.flatpakrepo": f"[Flatpak Repo]\nTitle=Local\nUrl=file:///{PLACE}/flatpaks\n",
    "etc/dconf/profile/user": "user-db:user\nsystem-db:distro\n",
    "etc/dconf/db/distro.d/00-settings": _SETTINGS,
    "etc/dconf/db/distro.d/locks/lockdown": "/org/gnome/desktop/lockdown/disable-command-line\n",
    "usr/lib/systemd/system/dconf-update.service": (
        "[Unit]\nDescription=Compile the system-wide settings\n\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/dconf update\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    ),
    "usr/lib/systemd/system/local-flatpaks.service": _FLATPAKS_UNIT,
    "usr/lib/tmpfiles.d/tester.conf": _HOME,
}

ENABLED = {
    **debian.ENABLED,
    "multi-user.target.wants/dconf-update.service": "dconf-update.service",
    "multi-user.target.wants/local-flatpaks.service": "local-flatpaks.service",
    "sockets.target.wants/podman.socket": "podman.socket",
}

DROPPED = re.compile(
    debian.DROPPED.pattern
    + r"|etc/systemd/system/timers\.target\.wants/(man-db|e2scrub_all)\.timer"
    + r"|var/cache/(man|fontconfig)/.*|var/lib/flatpak(/.*)?"
)

LINKS = {"usr/bin/bat": "batcat", "usr/bin/fd": "fdfind"}


def _above(tree: debian.Tree) -> Sequence[Layer]:
    """What is no text: links, programs' rights, the container image."""
    busybox = oci.content(tree["usr/bin/busybox"])
    entries = [
        Entry(f"{PLACE}/busybox.tar", data=oddities.container_archive(busybox)),
        Entry("etc/sudoers.d/tester", data=b"tester ALL=(ALL:ALL) NOPASSWD: ALL\n", mode=0o440),
        *(oci.symlink(path, target) for path, target in LINKS.items()),
    ]
    return [Layer(debian.completed(entries, tree), Compression.ZSTD, "what the packages leave open")]


RECIPE = debian.Recipe(
    packages=(*(name for name in debian.PACKAGES if name != "linux-image-cloud-amd64"), "linux-image-amd64", *PACKAGES),
    files=FILES,
    enabled=ENABLED,
    dropped=DROPPED,
    above=_above,
    hooks=(Path(__file__).with_name("flatpaks"),),
)
