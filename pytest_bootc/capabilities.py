"""File capabilities: what the kernel stores in ``security.capability``, and what getcap(8) prints.

Sources: capabilities(7), include/uapi/linux/capability.h (struct vfs_cap_data), cap_text_formats(7).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from pytest_bootc.errors import GuestError

# By bit number.
_NAMES = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
]
_EFFECTIVE = 0x000001
_REVISIONS = {0x01000000: "<II", 0x02000000: "<IIII", 0x03000000: "<IIIII"}
_CLAUSE = re.compile(r"(?P<names>[a-z0-9_,]*)(?P<flags>([=+-][eip]*)+)")


@dataclass(frozen=True)
class FileCapabilities:
    """The capabilities that a program gets by being executed: none where the sets are empty.

    ``effective`` is the file's one bit: the permitted ones are in effect from the start. ``rootid`` is the user that is
    root in the name space that the capabilities are for; 0 is the machine's own root.
    """

    permitted: frozenset[str] = frozenset()
    inheritable: frozenset[str] = frozenset()
    effective: bool = False
    rootid: int = 0

    @classmethod
    def from_xattr(cls, value: bytes) -> FileCapabilities:
        """Decode the extended attribute's value (revisions 1 to 3).

        :raises GuestError: it has another revision or length.
        """
        magic = int.from_bytes(value[:4], "little")
        layout = _REVISIONS.get(magic & 0xFF000000)
        if layout is None or len(value) != 4 + struct.calcsize(layout):
            raise GuestError("security.capability has an unknown form", details=value.hex())
        words = struct.unpack(layout, value[4:])
        high = words[2:4] if len(words) >= 4 else (0, 0)
        return cls(
            permitted=_names(words[0] | high[0] << 32),
            inheritable=_names(words[1] | high[1] << 32),
            effective=bool(magic & _EFFECTIVE),
            rootid=words[4] if len(words) == 5 else 0,
        )

    @classmethod
    def from_text(cls, text: str) -> FileCapabilities:
        """Read what getcap prints behind the path: ``cap_net_raw=ep``, ``cap_a,cap_b+eip``.

        :raises GuestError: it is something else.
        """
        sets: dict[str, set[str]] = {"e": set(), "i": set(), "p": set()}
        for word in text.removeprefix("= ").split():
            clause = _CLAUSE.fullmatch(word)
            if clause is None:
                raise GuestError("getcap printed something that cannot be read", details=text)
            names = set(_NAMES) if clause["names"] in ("", "all") else set(clause["names"].split(","))
            for operator, flags in re.findall(r"([=+-])([eip]*)", clause["flags"]):
                _apply(sets, names, operator, flags)
        return cls(frozenset(sets["p"]), frozenset(sets["i"]), effective=bool(sets["e"]))

    def __str__(self) -> str:
        flags = f"{'e' if self.effective else ''}{'i' if self.inheritable else ''}{'p' if self.permitted else ''}"
        return f"{','.join(sorted(self.permitted | self.inheritable))}={flags}" if flags else "none"


def _apply(sets: dict[str, set[str]], names: set[str], operator: str, flags: str) -> None:
    for flag, members in sets.items():
        if operator == "=":
            members -= names
        if flag in flags:
            if operator == "-":
                members -= names
            else:
                members |= names


def _names(bits: int) -> frozenset[str]:
    # A kernel newer than this table has names that we do not know; getcap prints those as numbers, too.
    return frozenset(
        _NAMES[bit] if bit < len(_NAMES) else str(bit) for bit in range(bits.bit_length()) if bits >> bit & 1
    )
