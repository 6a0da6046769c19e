"""Binding of Intel's multi-buffer library for IPsec, `libIPSec_MB.so.1`: what of its interface is used here.

The library works on many packets side by side, one job a packet. The layouts below are those of the versions in
`VERSIONS`; a library of another version is refused. Call `load` after the last fork: its manager is not shared.
"""

from __future__ import annotations

from typing import Any, Final

FILE: Final = "libIPSec_MB.so.1"
INSTALL: Final = "apt-get install libipsec-mb1"
VERSIONS: Final = {0x10300: "1.3.0"}
"""Versions whose layouts are those below."""

JOB_WORDS: Final = 25
JOB_OCTETS: Final = 8 * JOB_WORDS
MAX_BURST: Final = 128
"""Most jobs of one burst."""
RING: Final = 2 * MAX_BURST
"""Jobs in a manager."""

# Words of a job, as IMB_JOB has them. Words 16 and 17 are two numbers of 32 bits each.
ENCRYPTION_KEY, DECRYPTION_KEY, KEY_OCTETS, SOURCE, DESTINATION, CIPHER_OFFSET, CIPHER_OCTETS = range(7)
HASH_OFFSET, HASH_OCTETS, IV, IV_OCTETS, TAG, TAG_OCTETS, HASH_1, HASH_2, HASH_3 = range(7, 16)
STATUS_AND_MODE, DIRECTION_AND_HASH, ORDER = range(16, 19)

ENCRYPT, DECRYPT = 1, 2
CIPHER_THEN_HASH, HASH_THEN_CIPHER = 1, 2
CBC, NO_CIPHER, GCM, DES, DES3 = 1, 3, 5, 7, 10
HMAC_SHA_1, HMAC_SHA_256, HMAC_SHA_384, HMAC_SHA_512, XCBC, HMAC_MD5, NO_HASH, GMAC = 1, 3, 4, 5, 6, 7, 8, 9

_DEFINITIONS: Final = """
typedef struct { uint64_t words[25]; } IMB_JOB;
typedef struct IMB_MGR {
    uint64_t flags;
    uint64_t features;
    uint64_t reserved[5];
    uint32_t used_arch;
    int imb_errno;
    void *job_calls[6];
    void (*keyexp[3])(const void *, void *, void *);
    void *cmac_subkey_gen_128;
    void (*xcbc_keyexp)(const void *, void *, void *, void *);
    int (*des_key_sched)(void *, const void *);
    void (*sha1_one_block)(const void *, void *);
    void (*sha224_one_block)(const void *, void *);
    void (*sha256_one_block)(const void *, void *);
    void (*sha384_one_block)(const void *, void *);
    void (*sha512_one_block)(const void *, void *);
    void (*md5_one_block)(const void *, void *);
    void *hash_and_gcm_calls[30];
    void (*gcm_pre[3])(const void *, void *);
    void *other_calls[60];
    uint32_t (*get_next_burst)(struct IMB_MGR *, uint32_t, IMB_JOB **);
    uint32_t (*submit_burst)(struct IMB_MGR *, uint32_t, IMB_JOB **);
    void *submit_burst_nocheck;
    uint32_t (*flush_burst)(struct IMB_MGR *, uint32_t, IMB_JOB **);
    void *synchronous_bursts[4];
    int earliest_job;
    int next_job;
    IMB_JOB jobs[256];
} IMB_MGR;
unsigned imb_get_version(void);
const char *imb_get_strerror(int);
IMB_MGR *alloc_mb_mgr(uint64_t);
void free_mb_mgr(IMB_MGR *);
void init_mb_mgr_auto(IMB_MGR *, int *);
"""


class LibraryMissing(Exception):
    """The library cannot be used here; the text says why, and what to do."""


class Library:
    """The loaded library and its manager. `ffi` is cffi's interface, `manager` the IMB_MGR."""

    def __init__(self, ffi: Any, functions: Any) -> None:
        self.ffi = ffi
        self.version = VERSIONS[functions.imb_get_version()]
        self._functions = functions
        manager = functions.alloc_mb_mgr(0)
        if manager == ffi.NULL:
            raise LibraryMissing(f"{FILE} has no memory for its manager")
        self.manager = ffi.gc(manager, functions.free_mb_mgr)
        functions.init_mb_mgr_auto(self.manager, ffi.new("int *"))
        if self.manager.get_next_burst == ffi.NULL:
            raise LibraryMissing(f"{FILE} {self.version} does not work on this processor")
        self._ring = ffi.cast("IMB_JOB *", self.manager.jobs)
        self._next_burst, self._submit = self.manager.get_next_burst, self.manager.submit_burst
        self._flush = self.manager.flush_burst
        self._jobs = ffi.new(f"IMB_JOB *[{MAX_BURST}]")
        self._number = ffi.typeof("uintptr_t")

    def address(self, octets: bytes | bytearray | memoryview) -> tuple[int, Any]:
        """Return the address of octets, and what must be kept as long as a job refers to it."""
        kept = self.ffi.from_buffer(octets)
        return int(self.ffi.cast(self._number, kept)), kept

    def pointer(self, address: int) -> Any:
        """Return an address as an argument of the library's functions."""
        return self.ffi.cast("void *", address)

    def run(self, jobs: Any, count: int) -> None:
        """Run jobs that lie end to end at `jobs`; return when all are complete."""
        ffi, manager, ring, pointers, flush = self.ffi, self.manager, self._ring, self._jobs, self._flush
        done = 0
        while done < count:
            wanted = min(MAX_BURST, count - done)
            burst = self._next_burst(manager, wanted, pointers)
            if not burst:
                raise RuntimeError(f"{FILE} has no room for {wanted} jobs")
            place = pointers[0]
            before_wrap = min(burst, RING - (place - ring))
            ffi.memmove(place, jobs + done, JOB_OCTETS * before_wrap)
            if before_wrap < burst:
                ffi.memmove(ring, jobs + done + before_wrap, JOB_OCTETS * (burst - before_wrap))
            complete = self._submit(manager, burst, pointers)
            if not complete and manager.imb_errno:
                text = ffi.string(self._functions.imb_get_strerror(manager.imb_errno)).decode()
                raise RuntimeError(f"{FILE} refuses a job: {text}")
            while complete < burst:
                flushed = flush(manager, burst - complete, pointers)
                if not flushed:
                    raise RuntimeError(f"{FILE} has completed {complete} of {burst} jobs")
                complete += flushed
            done += burst


def load() -> Library:
    """Return the library with a manager of this process's own.

    Raises:
        LibraryMissing: it is not installed, has another version, or does not work on this processor.
    """
    try:
        from cffi import FFI
    except ImportError:
        raise LibraryMissing("cffi is not installed: pip install 'smartedge-chassis[ipsec-mb]'") from None
    ffi = FFI()
    ffi.cdef(_DEFINITIONS)
    try:
        functions = ffi.dlopen(FILE)
        version = functions.imb_get_version()
    except (OSError, AttributeError):
        raise LibraryMissing(f"{FILE} is not installed: {INSTALL}") from None
    if version not in VERSIONS:
        found = ".".join(str(version >> shift & 0xFF) for shift in (16, 8, 0))
        known = ", ".join(VERSIONS.values())
        raise LibraryMissing(f"{FILE} has version {found}; expected {known}")
    return Library(ffi, functions)
