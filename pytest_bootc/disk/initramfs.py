"""An initramfs of our own: the modules that the root file system needs, and an init that mounts it.

The init is one static ELF whose program is a table of system calls: no shell, no libc, nothing taken from the host
and nothing from the image but its kernel modules. It boots in a fraction of a second where a general initramfs
needs many in emulation. What it builds is the layout that a bootc deployment has:

- ``/`` is the image's root file system, read-only;
- ``/etc`` is an overlay: files that come with the machine (``/inject/etc``), over the image's, under a tmpfs;
- ``/var`` is a disk of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_bootc import cpio
from pytest_bootc.model import INJECT_FOLDER

_CALLS = {"write": 1, "open": 2, "close": 3, "exit": 60, "chdir": 80, "mkdir": 83, "chroot": 161, "mount": 165}
_CALLS |= {"execve": 59, "finit_module": 313}
_MS_RDONLY, _MS_MOVE = 1, 8192

# x86-64, position-independent; the table begins right behind it. A row is nine 64-bit words: the number of the
# system call, five arguments, how often to try again, and address and length of a message. A row that fails is
# tried again every 5 ms; one that has failed for good writes its message and exits (the kernel then panics and
# says so on the console), or is passed over where it has none.
_CODE = bytes.fromhex(
    "488d1d79000000"  # 00        lea   rbx, [rip + table]
    "488b03"  # 07  row:  mov   rax, [rbx]
    "488b7b08"  # 0a        mov   rdi, [rbx + 8]
    "488b7310"  # 0e        mov   rsi, [rbx + 16]
    "488b5318"  # 12        mov   rdx, [rbx + 24]
    "4c8b5320"  # 16        mov   r10, [rbx + 32]
    "4c8b4328"  # 1a        mov   r8, [rbx + 40]
    "4531c9"  # 1e        xor   r9d, r9d
    "0f05"  # 21        syscall
    "4885c0"  # 23        test  rax, rax
    "7942"  # 26        jns   next
    "48837b3000"  # 28        cmp   qword [rbx + 48], 0
    "7416"  # 2d        je    failed
    "48ff4b30"  # 2f        dec   qword [rbx + 48]
    "b823000000"  # 33        mov   eax, 35 (nanosleep)
    "488d3d31000000"  # 38        lea   rdi, [rip + pause]
    "31f6"  # 3f        xor   esi, esi
    "0f05"  # 41        syscall
    "ebc2"  # 43        jmp   row
    "488b7338"  # 45  failed: mov rsi, [rbx + 56]
    "4885f6"  # 49        test  rsi, rsi
    "741c"  # 4c        jz    next
    "b801000000"  # 4e        mov   eax, 1 (write)
    "bf02000000"  # 53        mov   edi, 2
    "488b5340"  # 58        mov   rdx, [rbx + 64]
    "0f05"  # 5c        syscall
    "b83c000000"  # 5e        mov   eax, 60 (exit)
    "bf01000000"  # 63        mov   edi, 1
    "0f05"  # 68        syscall
    "4883c348"  # 6a  next: add   rbx, 72
    "eb97"  # 6e        jmp   row
    "0000000000000000"  # 70  pause: 0 s
    "404b4c0000000000"  # 78        5 000 000 ns
)
_ROW_WORDS = 9
_BASE = 0x400000
_ELF_HEADER, _PROGRAM_HEADER = 64, 56
_DEVICE_TRIES = 6000  # 30 s: a device shows up late where the host is loaded and the guest emulated


@dataclass(frozen=True)
class Step:
    """One system call of the init. Arguments: numbers, texts, argument vectors, or nothing (a null pointer)."""

    call: str
    arguments: tuple[int | str | Sequence[str] | None, ...]
    tries: int = 0
    message: str = ""


@dataclass(frozen=True)
class Root:
    """What the init mounts: file system types and options of ``/`` (first disk) and ``/var`` (second disk)."""

    root_type: str
    root_options: str
    var_type: str


def init_program(steps: Sequence[Step]) -> bytes:
    """The ELF executable (x86-64, static) that performs the steps in turn."""
    table_at = _ELF_HEADER + _PROGRAM_HEADER + len(_CODE)
    data = bytearray()
    data_at = _BASE + table_at + len(steps) * _ROW_WORDS * 8

    def place(content: bytes) -> int:
        data.extend(bytes(-len(data) % 8))
        data.extend(content)
        return data_at + len(data) - len(content)

    def word(argument: int | str | Sequence[str] | None) -> int:
        if argument is None:
            return 0
        if isinstance(argument, int):
            return argument & 0xFFFFFFFFFFFFFFFF
        if isinstance(argument, str):
            return place(argument.encode() + b"\0")
        pointers = [word(text) for text in argument]
        return place(struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0))

    table = bytearray()
    for step in steps:
        words = [word(argument) for argument in step.arguments]
        message = step.message.encode()
        row = [_CALLS[step.call], *words, *([0] * (5 - len(words)))]
        row += [step.tries, place(message) if message else 0, len(message)]
        table += struct.pack(f"<{_ROW_WORDS}Q", *row)
    return _elf_header(table_at + len(table) + len(data)) + _CODE + table + data


def _elf_header(size: int) -> bytes:
    """One segment that can be read, written (the tries count down in place) and executed."""
    entry = _BASE + _ELF_HEADER + _PROGRAM_HEADER
    ident = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, _ELF_HEADER, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + header + struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size, 4096)


def base_archive(modules: Sequence[tuple[str, bytes]], root: Root) -> bytes:
    """The part of the initramfs that all machines of a disk share; ``modules`` in the order of their loading."""
    entries = [cpio.folder(name) for name in ("dev", "modules", "new", "rw", "inject", INJECT_FOLDER)]
    entries.append(cpio.character_device("dev/console", 5, 1))
    entries += [cpio.file(f"modules/{name}", content) for name, content in modules]
    entries.append(cpio.file("init", init_program(_steps([name for name, _ in modules], root)), 0o755))
    return cpio.archive(entries)


def _steps(modules: Sequence[str], root: Root) -> list[Step]:
    return [*_load(modules), *_mount(root), *_hand_over()]


def _load(modules: Sequence[str]) -> list[Step]:
    steps = [Step("mount", ("devtmpfs", "/dev", "devtmpfs", 0, None), message=_cannot("mount /dev"))]
    for name in modules:
        steps += [
            # The kernel opened the console as 0, 1 and 2, so the next file is always 3.
            Step("open", (f"/modules/{name}", 0, 0)),
            Step("finit_module", (3, "", 0)),
            Step("close", (3,)),
        ]
    return steps


def _mount(root: Root) -> list[Step]:
    etc = f"lowerdir=/{INJECT_FOLDER}:/new/etc,upperdir=/rw/upper,workdir=/rw/work"
    return [
        Step(
            "mount",
            ("/dev/vda", "/new", root.root_type, _MS_RDONLY, root.root_options or None),
            _DEVICE_TRIES,
            _cannot(f"mount the root file system ({root.root_type} on /dev/vda)"),
        ),
        Step(
            "mount",
            ("/dev/vdb", "/new/var", root.var_type, 0, "noinit_itable"),
            _DEVICE_TRIES,
            _cannot(f"mount /var ({root.var_type} on /dev/vdb)"),
        ),
        Step("mount", ("tmpfs", "/rw", "tmpfs", 0, "mode=0755"), message=_cannot("mount a tmpfs")),
        Step("mkdir", ("/rw/upper", 0o755)),
        Step("mkdir", ("/rw/work", 0o755)),
        Step("mount", ("overlay", "/new/etc", "overlay", 0, etc), message=_cannot("mount the overlay on /etc")),
    ]


def _hand_over() -> list[Step]:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return [
        Step("mount", ("/dev", "/new/dev", None, _MS_MOVE, None), message=_cannot("move /dev (has the image one?)")),
        Step("chdir", ("/new",)),
        Step("mount", (".", "/", None, _MS_MOVE, None), message=_cannot("move the root")),
        Step("chroot", (".",)),
        Step("chdir", ("/",)),
        Step("execve", ("/sbin/init", ["/sbin/init"], ["HOME=/", "TERM=linux", path])),
        Step("execve", ("/usr/lib/systemd/systemd", ["/sbin/init"], ["HOME=/", "TERM=linux", path])),
        Step("write", (-1, "", 0), message=_cannot("run /sbin/init")),
    ]


def _cannot(what: str) -> str:
    return f"pytest-bootc-init: cannot {what}\n"
