"""What a process gives up before it reads files that nobody trusts (Linux; elsewhere what there is).

It may be taken over by what it reads: then it can compute, read what its user may read and answer its parent, but
neither write a file, start a program, reach the network, signal others, dump its memory nor outlive its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

# linux/prctl.h
_DEATH_SIGNAL, _DUMPABLE, _NO_NEW_PRIVILEGES = 1, 4, 38
# linux/landlock.h; the numbers of the calls are the same on all processors
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE = 1 << 0, 1 << 1
# removing and making of anything
_CHANGE = sum(1 << bit for bit in range(4, 13))
# from which version of Landlock a right is known: moving between folders, cutting off files
_SINCE = {2: 1 << 13, 3: 1 << 14}
_CONNECT_OR_LISTEN = 0b11  # TCP, since version 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # since version 6
_PAGE = resource.getpagesize()


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def confine(parent: int) -> None:
    """Give up everything but reading; call it before other threads begin, which would keep what they have.

    Args:
        parent: process id of the parent; this process ends with the parent's thread that started it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # when memory ends, this process goes before its parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _restrict_files_and_network(library)
    library.prctl(_DUMPABLE, 0, 0, 0, 0)  # cores that are piped to a program know no limit


def _restrict_files_and_network(library: ctypes.CDLL) -> None:
    """Landlock: no writing but to devices, no programs, no TCP, no signals; nothing where the kernel has it not."""
    version = library.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if version < 1:
        return
    files = _EXECUTE | _WRITE_FILE | _CHANGE | sum(right for since, right in _SINCE.items() if version >= since)
    ruleset = _Ruleset(
        files, _CONNECT_OR_LISTEN if version >= 4 else 0, _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    )
    # older kernels refuse a longer structure, unless what they do not know is 0: here it is
    made = library.syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0)
    if made < 0:
        return
    devices = os.open("/dev", os.O_PATH | os.O_CLOEXEC)
    rule = _Beneath(_WRITE_FILE, devices)  # /dev/null, and the processors that networks run on
    library.syscall(_ADD_RULE, made, _PATH_BENEATH, ctypes.byref(rule), 0)
    library.syscall(_RESTRICT_SELF, made, 0)
    os.close(devices)
    os.close(made)


def restrain(memory_bytes: int) -> None:
    """Bound what this process may have from now on: memory, and no file that it could write.

    Args:
        memory_bytes: of its own beyond what it has now. Twice that may be reserved: much that is reserved is never
            used, and what is used is watched by the parent.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError):  # no such file: no Linux
        most = _data_bytes() + 2 * memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _data_bytes() -> int:
    """What counts towards RLIMIT_DATA so far."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * _PAGE


def resident_bytes(process: int) -> int:
    """Memory that a process has in use, 0 if it is gone or the system does not tell."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
