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
    "mutter",
    "xdg-desktop-portal",
    "xdg-desktop-portal-gnome",
    "xdg-desktop-portal-gtk",
    "xdg-terminal-exec",
    "xdg-user-dirs",
    "xdg-utils",
    "desktop-file-utils",
    "appstream",
    "avahi-daemon",
    "pipewire",
    "pipewire-pulse",
    "rtkit",
    "wireplumber",
    "gnome-keyring",
    "libsecret-tools",
    "at-spi2-core",
    "speech-dispatcher",
    # applications, and what logs people in
    "dillo",
    "gnome-calculator",
    "gnome-software",
    "gnome-text-editor",
    "greetd",
    "kitty",
    "login",
    "papers",
    "ptyxis",
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
    "bluez",
    "bluez-test-tools",
    "btrfs-progs",
    "efibootmgr",
    "fwupd",
    "iputils-ping",
    "linux-sysctl-defaults",
    "pciutils",
    "sudo-rs",
    "systemd-coredump",
    "swtpm",
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
# No screen is needed: the portals have a compositor to talk to, and programs a display.
_SESSION_UNIT = """\
[Unit]
Description=A compositor without a screen
BindsTo=graphical-session.target
Before=graphical-session.target
Wants=graphical-session-pre.target
After=graphical-session-pre.target

[Service]
Type=dbus
BusName=org.gnome.Mutter.DisplayConfig
Environment=GALLIUM_DRIVER=softpipe
ExecStart=/usr/bin/mutter --wayland --headless --no-x11 --wayland-display=wayland-0 --virtual-monitor=800x600
TimeoutStartSec=300
Slice=session.slice
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

[org/gnome/software]
allow-updates=false
"""
# Devices that a virtual machine has not: the kernel's own stand in for them, and a TPM that is a program.
_TPM_UNIT = """\
[Unit]
Description=A TPM in software
ConditionPathExists=!/dev/tpm0

[Service]
StateDirectory=swtpm
ExecStartPre=/usr/sbin/modprobe tpm_vtpm_proxy
ExecStart=/usr/bin/swtpm chardev --vtpm-proxy --tpm2 --tpmstate dir=/var/lib/swtpm
# The kernel waits for two seconds only, and at its first start the program makes keys.
Restart=always

[Install]
WantedBy=multi-user.target
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
    "etc/dconf/db/distro.d/locks/updates": "/org/gnome/software/allow-updates\n",
    "usr/lib/modules-load.d/devices.conf": "softdog\nvhci-hcd\n",
    "usr/lib/systemd/system/swtpm.service": _TPM_UNIT,
    "usr/lib/systemd/system/dconf-update.service": (
        "[Unit]\nDescription=Compile the system-wide settings\n\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/dconf update\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    ),
    "usr/lib/systemd/system/local-flatpaks.service": _FLATPAKS_UNIT,
    "usr/lib/systemd/user/headless-session.service": _SESSION_UNIT,
    "usr/lib/environment.d/60-session.conf": (
        "WAYLAND_DISPLAY=wayland-0\nXDG_SESSION_TYPE=wayland\nXDG_CURRENT_DESKTOP=GNOME\n"
    ),
    "usr/lib/tmpfiles.d/tester.conf": _HOME,
}

ENABLED = {
    **debian.ENABLED,
    "multi-user.target.wants/dconf-update.service": "dconf-update.service",
    "multi-user.target.wants/local-flatpaks.service": "local-flatpaks.service",
    "multi-user.target.wants/swtpm.service": "swtpm.service",
    "sockets.target.wants/podman.socket": "podman.socket",
}

# AppArmor's profiles are compiled at each boot: these are of programs that are here.
_PROFILES = "abi|abstractions|tunables|local|crun|flatpak|podman|unix-chkpwd|busybox"

DROPPED = re.compile(
    debian.DROPPED.pattern
    + rf"|etc/apparmor\.d/(?!({_PROFILES})(/|$)).*"
    + r"|etc/systemd/system/timers\.target\.wants/(man-db|e2scrub_all|fwupd-refresh)\.timer"
    + r"|var/cache/(man|fontconfig)/.*|var/lib/flatpak(/.*)?"
)

_WANTED_BY_USERS = "etc/systemd/user/default.target.wants/headless-session.service"
LINKS = {
    "usr/bin/bat": "batcat",
    "usr/bin/fd": "fdfind",
    _WANTED_BY_USERS: "/usr/lib/systemd/user/headless-session.service",
}


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
