"""Keep glibc from handing every large tensor back to the kernel: its pages would fault in again a step later."""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEEP_BYTES = 2**31 - 1


def keep_memory() -> bool:
    """Tell malloc, before the first tensor, to use no mmap and never to trim. False where the C library has no mallopt."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(
        mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEEP_BYTES) and mallopt(M_TOP_PAD, 64 * 2**20)
    )
