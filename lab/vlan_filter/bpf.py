"""The kernel's bpf(2), as far as it is needed here: load a program, attach it to a device in place of an older one."""

import ctypes
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYSCALL = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_PROG_LOAD, _PROG_ATTACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 13, 16
_SCHED_CLS = 3
_REPLACE = 4
INGRESS, EGRESS = 46, 47
"""Where a program sees frames: those that a device receives, those that it sends (BPF_TCX_*)."""
_MOST = 8
"""Programs at one place of a device; one is there at most."""


def load(code: bytes) -> int:
    """Loads a program; its descriptor. Raises OSError with the verifier's words."""
    program, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(1 << 16)
    addresses = ctypes.addressof(program), ctypes.addressof(licence)
    attributes = struct.pack(
        "<IIQQIIQ", _SCHED_CLS, len(code) // 8, *addresses, 1, len(log), ctypes.addressof(log)
    )  # fmt: skip
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {log.value.decode()[-400:]}") from None


def attach(program: int, device: int, place: int) -> None:
    """Attaches a program to a device, by its index, in place of the one that is there."""
    before = _attached(device, place)
    if before is None:
        _bpf(_PROG_ATTACH, struct.pack("<IIIIIIQ", device, program, place, 0, 0, 0, 0))
        return
    try:
        _bpf(_PROG_ATTACH, struct.pack("<IIIIIIQ", device, program, place, _REPLACE, before, 0, 0))
    finally:
        os.close(before)


def _attached(device: int, place: int) -> int | None:
    """The program that is there, as a descriptor."""
    ids = (ctypes.c_uint32 * _MOST)()
    attributes = struct.pack("<IIIIQII", device, place, 0, 0, ctypes.addressof(ids), _MOST, 0)
    _bpf(_PROG_QUERY, attributes)
    return _bpf(_PROG_GET_FD_BY_ID, struct.pack("<I", ids[0])) if ids[0] else None


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = int(_LIBC.syscall(_SYSCALL, command, buffer, len(buffer)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
