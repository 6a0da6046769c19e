"""ESP with Intel's multi-buffer library for IPsec: packets of a batch are sealed and opened side by side.

CBC is serial inside a packet, so one packet cannot use the width of a processor; many packets can. Sealers and
openers write a job for each packet, and `flush` runs the jobs of all SAs of a batch. A suite that fails its known
answer at start stays with `cryptography`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from itertools import accumulate, chain
from operator import add
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec import ipsec_mb_library as library
from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.cipher_engine import (
    CipherEngine,
    EspOpener,
    EspSealer,
    Opened,
    Pending,
    Unsealed,
)
from chassis.ase.ipsec.cryptography_engine import (
    CRYPTOGRAPHY,
    EXTENDED,
    GCM_IV,
    GCM_SALT,
    authentic_ones,
    extended_headers,
    gcm_ivs,
    gcm_nonces,
    random_ivs,
)
from chassis.ase.ipsec.ipsec_mb_library import JOB_OCTETS, JOB_WORDS, Library
from chassis.ase.ipsec.known_answers import SUITES, Suite, is_right
from chassis.ase.ipsec.received import Item, PacketColumns
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH, Esp
from chassis.net.columns import Bytes, Numbers

_CBC_MODES: Final = {"null": library.NO_CIPHER, "des-cbc": library.DES, "3des-cbc": library.DES3}

_HASHES: Final = {
    "hmac-md5-96": (library.HMAC_MD5, "md5_one_block", 64),
    "hmac-sha1-96": (library.HMAC_SHA_1, "sha1_one_block", 64),
    "hmac-sha-256-128": (library.HMAC_SHA_256, "sha256_one_block", 64),
    "hmac-sha-384-192": (library.HMAC_SHA_384, "sha384_one_block", 128),
    "hmac-sha-512-256": (library.HMAC_SHA_512, "sha512_one_block", 128),
}
"""HMACs: number, function of one block, octets of a block (RFC 2104)."""

_ALIGNMENT: Final = 64
_KEY_OCTETS: Final = 256
"""Room for one direction of an expanded AES key, or for the schedules of three DES keys before their pointers."""
_GCM_KEY_OCTETS: Final = 1024
_HASH_KEY_OCTETS: Final = 64
"""Room for one part of an integrity algorithm's key, but for the first part of XCBC's, which has `_KEY_OCTETS`."""
_DES_SCHEDULE: Final = 128

_HIGH: Final = struct.Struct("!I").pack


class _Jobs:
    """The jobs of a batch, end to end, and the buffers that they refer to."""

    def __init__(self, used: Library) -> None:
        self.library = used
        self._count = 0
        self._kept: list[object] = []
        self._grow(library.RING)

    def _grow(self, jobs: int) -> None:
        self._room = jobs
        buffer = bytearray(JOB_OCTETS * jobs)
        self._words = memoryview(buffer).cast("Q")
        self._rows = np.frombuffer(buffer, np.uint64).reshape(jobs, JOB_WORDS)
        self._pointer = self.library.ffi.from_buffer("IMB_JOB[]", buffer)

    def add(self, template: array[int], columns: Sequence[tuple[int, array[int]]], *kept: object) -> None:
        """Add jobs like `template` but for the words of `columns`, given for each job. `kept` is kept until they
        have run."""
        count = len(columns[0][1])
        if self._count + count > self._room:
            self.flush()
            if count > self._room:
                self._grow(count)
        start = JOB_WORDS * self._count
        self._count += count
        stop = JOB_WORDS * self._count
        words = self._words
        words[start:stop] = memoryview(template * count)
        for word, values in columns:
            words[start + word : stop : JOB_WORDS] = memoryview(values)
        self._kept += kept

    def add_one(self, template: array[int], *kept: object) -> tuple[memoryview, int]:
        """Add a job like `template`; return the words of all jobs, and where its own begin."""
        if self._count == self._room:
            self.flush()
        at = JOB_WORDS * self._count
        self._count += 1
        self._words[at : at + JOB_WORDS] = memoryview(template)
        self._kept += kept
        return self._words, at

    def add_rows(self, words: NDArray[np.uint64], *kept: object) -> None:
        """Add jobs, a row of words each. `kept` is kept until they have run."""
        count = len(words)
        if self._count + count > self._room:
            self.flush()
            if count > self._room:
                self._grow(count)
        self._rows[self._count : self._count + count] = words
        self._count += count
        self._kept += kept

    def flush(self) -> None:
        """Run all jobs."""
        if self._count:
            count, self._count = self._count, 0
            self.library.run(self._pointer, count)
            # After an error the library may still refer to them.
            self._kept.clear()


@dataclass(frozen=True, slots=True)
class _Keys:
    """What the jobs of an SA have in common. `kept` is the memory of its expanded keys."""

    template: array[int]
    kept: object


def _keys(used: Library, esp: Esp, encrypt: bool) -> _Keys:
    """Expand the keys of an SA for one direction."""
    manager, pointer = used.manager, used.pointer
    cipher, integrity = esp.cipher_algorithm, esp.integrity_algorithm
    kept = used.ffi.new(f"uint8_t[{_GCM_KEY_OCTETS + 2 * _KEY_OCTETS + 2 * _HASH_KEY_OCTETS + _ALIGNMENT}]")
    address = int(used.ffi.cast("uintptr_t", kept))
    address += -address % _ALIGNMENT
    words = [0] * JOB_WORDS
    mode, hash_number = library.CBC, library.NO_HASH
    if cipher.combined:
        key = esp.cipher_key[:-GCM_SALT]
        manager.gcm_pre[len(key) // 8 - 2](key, pointer(address))
        words[library.ENCRYPTION_KEY] = words[library.DECRYPTION_KEY] = address
        words[library.KEY_OCTETS] = len(key)
        words[library.IV_OCTETS] = GCM_SALT + GCM_IV
        mode, hash_number = library.GCM, library.GMAC
    else:
        mode = _CBC_MODES.get(esp.cipher, library.CBC)
        words[library.KEY_OCTETS] = len(esp.cipher_key)
        words[library.IV_OCTETS] = cipher.iv_octets
        if mode == library.CBC:
            expand = manager.keyexp[len(esp.cipher_key) // 8 - 2]
            expand(esp.cipher_key, pointer(address), pointer(address + _KEY_OCTETS))
            words[library.ENCRYPTION_KEY], words[library.DECRYPTION_KEY] = address, address + _KEY_OCTETS
        elif mode != library.NO_CIPHER:
            schedules = range(address, address + 3 * _DES_SCHEDULE, _DES_SCHEDULE)
            parts = [esp.cipher_key[at : at + 8] for at in range(0, len(esp.cipher_key), 8)]
            for schedule, part in zip(schedules, parts, strict=False):
                manager.des_key_sched(pointer(schedule), part)
            place = address
            if mode == library.DES3:
                place = address + 3 * _DES_SCHEDULE
                used.ffi.memmove(pointer(place), struct.pack("=3Q", *schedules), 24)
            words[library.ENCRYPTION_KEY] = words[library.DECRYPTION_KEY] = place
    if integrity is not None:
        address += 2 * _KEY_OCTETS
        if integrity.name in _HASHES:
            hash_number, function, block = _HASHES[integrity.name]
            padded = esp.integrity_key.ljust(block, b"\0")
            for pad, word in ((0x36, library.HASH_1), (0x5C, library.HASH_2)):
                getattr(manager, function)(bytes(octet ^ pad for octet in padded), pointer(address))
                words[word] = address
                address += _HASH_KEY_OCTETS
        else:
            hash_number = library.XCBC
            places = [address, address + _KEY_OCTETS, address + _KEY_OCTETS + _HASH_KEY_OCTETS]
            manager.xcbc_keyexp(esp.integrity_key, *[pointer(place) for place in places])
            words[library.HASH_1 : library.HASH_3 + 1] = places
    words[library.CIPHER_OFFSET] = ESP_HEADER_LENGTH + cipher.iv_octets
    words[library.TAG_OCTETS] = esp.icv_octets
    words[library.STATUS_AND_MODE] = mode << 32
    words[library.DIRECTION_AND_HASH] = (library.ENCRYPT if encrypt else library.DECRYPT) | hash_number << 32
    words[library.ORDER] = library.CIPHER_THEN_HASH if encrypt else library.HASH_THEN_CIPHER
    return _Keys(array("Q", words), kept)


class _GcmData:
    """Nonces and additional authenticated data of AES-GCM packets (RFC 4106 sections 4 and 5)."""

    def __init__(self, esp: Esp, esn: bool) -> None:
        self.salt = esp.cipher_key[-GCM_SALT:]
        self.spi = esp.spi
        self.esn = esn
        self.octets = ESP_HEADER_LENGTH + (4 if esn else 0)

    def columns(
        self, used: Library, ivs: Sequence[bytes | memoryview], sources: Sequence[int], numbers: Sequence[int]
    ) -> tuple[list[tuple[int, array[int]]], list[Any]]:
        """Return the words of the jobs, and what to keep. `sources` are the addresses of the ESP headers."""
        salt = self.salt
        nonces, kept = used.address(b"".join([part for iv in ivs for part in (salt, iv)]))
        keep = [kept]
        data = array("Q", sources)
        if self.esn:
            spi, octets = self.spi, self.octets
            start, kept = used.address(b"".join([EXTENDED(spi, number) for number in numbers]))
            keep.append(kept)
            data = array("Q", range(start, start + octets * len(numbers), octets))
        nonce_octets = GCM_SALT + GCM_IV
        places = array("Q", range(nonces, nonces + nonce_octets * len(ivs), nonce_octets))
        return [(library.IV, places), (library.HASH_1, data)], keep


class MultiBufferSealer:
    """Outbound ESP of one SA. The IVs of CBC are random octets, as they come."""

    __slots__ = (
        "_esn",
        "_gcm",
        "_icv_octets",
        "_iv_octets",
        "_jobs",
        "_keys",
        "_lead",
        "_room",
        "iv_in_head",
        "random_octets",
        "words",
    )  # fmt: skip

    def __init__(self, jobs: _Jobs, esp: Esp, esn: bool) -> None:
        self.iv_in_head = True
        self._jobs = jobs
        self._keys = _keys(jobs.library, esp, True)
        # A job's source is its ciphertext, which it writes in place; what it authenticates begins before that.
        self._keys.template[library.CIPHER_OFFSET] = 0
        self._keys.template[library.HASH_OFFSET] = (1 << 64) - ESP_HEADER_LENGTH - esp.cipher_algorithm.iv_octets
        self._iv_octets = esp.cipher_algorithm.iv_octets
        self._icv_octets = esp.icv_octets
        self._lead = ESP_HEADER_LENGTH + self._iv_octets
        self._gcm = _GcmData(esp, esn) if esp.cipher_algorithm.combined else None
        self.random_octets = 0 if self._gcm else self._iv_octets
        if self._gcm is not None:
            self._keys.template[library.HASH_2] = self._gcm.octets
        self.words = self._keys.template
        # Numbers of 64 bits: their high half lies behind the ciphertext until the ICV overwrites it (RFC 4303
        # 2.2.1).
        self._esn = esn and esp.integrity is not None
        self._room = bytes(self._icv_octets)

    def ivs(self, first: int, count: int, random: Callable[[int], bytes]) -> Sequence[bytes]:
        if self._gcm is not None:
            return gcm_ivs(first, count)
        return random_ivs(self._iv_octets, count, random)

    def suffix(self, first: int) -> bytes:
        return _HIGH(first >> 32) + self._room[4:] if self._esn else self._room

    def seal(
        self,
        view: memoryview,
        spans: Sequence[tuple[int, int]],
        heads: Sequence[bytes],
        tails: Sequence[bytes],
        sizes: Sequence[int],
        ivs: Sequence[bytes],
        first: int,
    ) -> bytearray:
        pieces: list[bytes | memoryview] = []
        for head, (start, end), tail in zip(heads, spans, tails, strict=True):
            pieces += (head, view[start:end], tail)
        out = bytearray().join(pieces)
        if not heads:
            return out
        used, lead, iv_octets = self._jobs.library, self._lead, self._iv_octets
        base, kept = used.address(out)
        fixed = len(heads[0]) + self._icv_octets
        sources = list(accumulate([size + fixed for size in sizes[:-1]], initial=base + len(heads[0])))
        places = array("Q", sources)
        covered = lead + 4 if self._esn else lead
        columns = [
            (library.SOURCE, places),
            (library.DESTINATION, places),
            (library.CIPHER_OCTETS, array("Q", sizes)),
            (library.TAG, array("Q", map(add, sources, sizes))),
        ]
        keep: list[object] = [kept, out, self._keys]
        if self._gcm is not None:
            headers = [source - lead for source in sources]
            more, data = self._gcm.columns(used, ivs, headers, range(first, first + len(sizes)))
            columns += more
            keep += data
        else:
            columns += (
                (library.HASH_OCTETS, array("Q", [size + covered for size in sizes])),
                (library.IV, array("Q", [source - iv_octets for source in sources])),
            )
        self._jobs.add(self._keys.template, columns, *keep)
        return out

    def seal_one(
        self, head: bytes, clear: memoryview, tail: bytes, size: int, iv: bytes, number: int
    ) -> bytearray:
        if self._gcm is not None:
            return self.seal(clear, ((0, len(clear)),), (head,), (tail,), (size,), (iv,), number)
        out = bytearray().join((head, clear, tail))
        jobs = self._jobs
        base, kept = jobs.library.address(out)
        source = base + len(head)
        words, at = jobs.add_one(self._keys.template, kept, out, self._keys)
        words[at + library.SOURCE] = words[at + library.DESTINATION] = source
        words[at + library.CIPHER_OCTETS] = size
        words[at + library.TAG] = source + size
        words[at + library.HASH_OCTETS] = size + (self._lead + 4 if self._esn else self._lead)
        words[at + library.IV] = source - self._iv_octets
        return out

    def seal_all(self, packets: Unsealed) -> None:
        columns, at, runs, iv_octets = packets.columns, packets.at, packets.runs, self._iv_octets
        used, count, counts = self._jobs.library, columns.count, runs.packets
        words = runs.words
        if counts is None:
            words = words.repeat(count, axis=0)
        elif len(words) == count:
            words = words.copy()
        else:
            words = words.repeat(counts, axis=0)
        base, kept = used.address(columns.octets.data)
        sources = columns.starts + (base + at + iv_octets)
        words[:, library.SOURCE] = words[:, library.DESTINATION] = sources
        words[:, library.CIPHER_OCTETS] = packets.sizes
        words[:, library.TAG] = sources + packets.sizes
        sealers = cast("Sequence[MultiBufferSealer]", runs.sealers)
        keep: list[object] = [kept, columns.octets, sealers]
        if self._gcm is None:
            if packets.drawn:
                columns.write(at, np.frombuffer(packets.drawn, np.uint8).reshape(count, iv_octets))
            covered = self._lead
            if self._esn:
                covered += 4
                highs = np.array([first >> 32 for _, _, first in runs.each(count)], ">u4")
                padded = _padded(highs.view(np.uint8).reshape(-1, 4), self._icv_octets)
                packets.write_icvs(padded.repeat(count if counts is None else counts, axis=0).tobytes())
            words[:, library.HASH_OCTETS] = packets.sizes + covered
            words[:, library.IV] = sources - iv_octets
        else:
            ivs = [iv for _, many, first in runs.each(count) for iv in gcm_ivs(first, many)]
            columns.write(at, np.frombuffer(b"".join(ivs), np.uint8).reshape(count, iv_octets))
            row = 0
            for sealer, many, first in runs.each(count):
                stop = row + many
                headers = (sources[row:stop] - self._lead).tolist()
                gcm = cast(_GcmData, cast(MultiBufferSealer, sealer)._gcm)
                more, data = gcm.columns(used, ivs[row:stop], headers, range(first, first + many))
                for word, values in more:
                    words[row:stop, word] = np.frombuffer(values, np.uint64)
                keep += data
                row = stop
        self._jobs.add_rows(words, *keep)


def _padded(rows: Bytes, octets: int) -> Bytes:
    """Return rows of so many octets that begin with these."""
    padded = np.zeros((len(rows), octets), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded


@dataclass(slots=True)
class _Columns:
    """Packets whose jobs were written: the packets, the octets of payload and trailer of all or of each, the ICVs
    computed, end to end, and the octets decrypted, end to end."""

    packets: PacketColumns
    sizes: int | Numbers
    tags: Bytes
    clear: Octets


@dataclass(slots=True)
class _Opening:
    """Packets whose jobs were written: the view and the packets, the octets of payload and trailer of each, the
    ICVs computed, end to end, and the octets decrypted, end to end."""

    view: memoryview
    items: Sequence[Item]
    sizes: list[int]
    tags: bytearray
    clear: bytes | bytearray


def _places(first: int, octets: int | Numbers, count: int) -> NDArray[np.uint64]:
    """Return the addresses of `count` things that lie end to end from `first` on, of so many octets, or each."""
    if isinstance(octets, int):
        return np.arange(first, first + count * octets, octets, dtype=np.uint64)
    return (np.add.accumulate(octets) - octets).astype(np.uint64) + np.uint64(first)


class MultiBufferOpener:
    """Inbound ESP of one SA. Packets are decrypted beside their authentication, into a buffer of their own; what
    is not authentic is never read."""

    __slots__ = ("_esn", "_gcm", "_icv_octets", "_jobs", "_keys", "_null", "_overhead", "lead")

    def __init__(self, jobs: _Jobs, esp: Esp, esn: bool) -> None:
        self.lead = 0
        self._jobs = jobs
        self._keys = _keys(jobs.library, esp, False)
        self._null = esp.cipher == "null"
        self._icv_octets = esp.icv_octets
        self._overhead = ESP_HEADER_LENGTH + esp.cipher_algorithm.iv_octets
        self._gcm = _GcmData(esp, esn) if esp.cipher_algorithm.combined else None
        if self._gcm is not None:
            self._keys.template[library.HASH_2] = self._gcm.octets
        self._esn = esn and esp.integrity is not None

    def begin(self, view: memoryview, items: Sequence[Item], numbers: Sequence[int]) -> Pending:
        used, overhead, icv_octets = self._jobs.library, self._overhead, self._icv_octets
        fixed = overhead + icv_octets
        sizes = [item[3] - item[2] - fixed for item in items]
        keep: list[object] = [view, self._keys]
        covered = overhead
        if self._esn:
            # The high half is authenticated behind the packet, so the packets are copied to put it there.
            covered += 4
            copied = b"".join(
                [
                    part
                    for item, number in zip(items, numbers, strict=True)
                    for part in (view[item[2] : item[3] - icv_octets], _HIGH(number >> 32))
                ]
            )
            base, kept = used.address(copied)
            sources = list(accumulate([size + covered for size in sizes[:-1]], initial=base))
        else:
            base, kept = used.address(view)
            sources = [base + item[2] for item in items]
        keep.append(kept)
        clear: bytes | bytearray
        if self._null:
            clear = b"".join([view[item[2] + overhead : item[3] - icv_octets] for item in items])
            places: Sequence[int] = sources
        else:
            clear = bytearray(sum(sizes))
            base, kept = used.address(clear)
            keep.append(kept)
            places = list(accumulate(sizes[:-1], initial=base))
        tags = bytearray(icv_octets * len(items))
        base, kept = used.address(tags)
        keep.append(kept)
        stop = base + icv_octets * len(items)
        columns = [
            (library.SOURCE, array("Q", sources)),
            (library.DESTINATION, array("Q", places)),
            (library.CIPHER_OCTETS, array("Q", sizes)),
        ]
        if icv_octets:
            columns.append((library.TAG, array("Q", range(base, stop, icv_octets))))
        if self._gcm is not None:
            ivs = [view[item[2] + ESP_HEADER_LENGTH : item[2] + overhead] for item in items]
            more, data = self._gcm.columns(used, ivs, sources, numbers)
            columns += more
            keep += data
        else:
            columns += (
                (library.HASH_OCTETS, array("Q", [size + covered for size in sizes])),
                (library.IV, array("Q", [source + ESP_HEADER_LENGTH for source in sources])),
            )
        self._jobs.add(self._keys.template, columns, *keep)
        return _Opening(view, items, sizes, tags, clear)

    def begin_one(self, view: memoryview, item: Item, number: int) -> Pending:
        if self._gcm is not None or self._esn or self._null:
            return self.begin(view, (item,), (number,))
        jobs, overhead, octets = self._jobs, self._overhead, self._icv_octets
        size = item[3] - item[2] - overhead - octets
        # The ICV computed is behind what is decrypted.
        out = bytearray(size + octets)
        source, kept = jobs.library.address(view)
        source += item[2]
        place, room = jobs.library.address(out)
        words, at = jobs.add_one(self._keys.template, kept, room, view, out, self._keys)
        words[at + library.SOURCE] = source
        words[at + library.DESTINATION] = place
        words[at + library.CIPHER_OCTETS] = size
        words[at + library.TAG] = place + size
        words[at + library.HASH_OCTETS] = size + overhead
        words[at + library.IV] = source + ESP_HEADER_LENGTH
        return view, item, size, out

    def begin_columns(self, packets: PacketColumns, numbers: Numbers) -> Pending:
        return self.begin_all(packets, numbers, (self,), (packets.count,))

    def begin_all(
        self, packets: PacketColumns, numbers: Numbers, openers: Sequence[EspOpener], counts: Sequence[int]
    ) -> Pending:
        used, overhead, octets, count = self._jobs.library, self._overhead, self._icv_octets, packets.count
        used_keys = [cast(MultiBufferOpener, own)._keys for own in openers]
        templates = np.frombuffer(b"".join([keys.template for keys in used_keys]), np.uint64)
        words = templates.reshape(len(openers), JOB_WORDS).repeat(counts, axis=0)
        sizes = packets.size - overhead - octets if packets.size else packets.sizes - overhead - octets
        keep: list[object] = [used_keys]
        covered = overhead
        if self._esn:
            # The high half is authenticated behind the packet, so the packets are copied to put it there.
            covered += 4
            highs = map(_HIGH, (numbers >> 32 & 0xFFFFFFFF).tolist())
            copied = b"".join(chain.from_iterable(zip(packets.parts(0, octets), highs, strict=True)))
            base, kept = used.address(copied)
            keep.append(copied)
            sources = _places(base, sizes + covered, count)
        else:
            base, kept = used.address(packets.octets)
            keep.append(packets.octets)
            if packets.size:
                first, step = base + packets.first, packets.step
                sources = np.arange(first, first + count * step, step, dtype=np.uint64)
            else:
                sources = packets.heads.astype(np.uint64) + np.uint64(base)
        keep.append(kept)
        clear: Octets
        if self._null:
            clear = packets.joined(overhead, octets)
            words[:, library.DESTINATION] = sources
        else:
            total = sizes * count if isinstance(sizes, int) else int(np.add.reduce(sizes))
            clear = np.empty(total, np.uint8).data
            base, kept = used.address(clear)
            keep.append(kept)
            words[:, library.DESTINATION] = _places(base, sizes, count)
        tags = np.empty(octets * count, np.uint8)
        if octets:
            base, kept = used.address(tags.data)
            keep.append(kept)
            words[:, library.TAG] = _places(base, octets, count)
        words[:, library.SOURCE] = sources
        words[:, library.CIPHER_OCTETS] = sizes
        if self._gcm is None:
            words[:, library.HASH_OCTETS] = sizes + covered
            words[:, library.IV] = sources + np.uint64(ESP_HEADER_LENGTH)
        else:
            several = [cast(_GcmData, own._gcm) for own in cast("Sequence[MultiBufferOpener]", openers)]
            base, kept = used.address(gcm_nonces([own.salt for own in several], packets, counts))
            keep.append(kept)
            words[:, library.IV] = _places(base, GCM_SALT + GCM_IV, count)
            if self._gcm.esn:
                spis = np.repeat([own.spi for own in several], counts)
                base, kept = used.address(extended_headers(spis, numbers))
                keep.append(kept)
                words[:, library.HASH_1] = _places(base, self._gcm.octets, count)
            else:
                words[:, library.HASH_1] = sources
        self._jobs.add_rows(words, *keep)
        return _Columns(packets, sizes, tags, clear)

    def finish_all(self, pending: Pending) -> Opened:
        opening = cast(_Columns, pending)
        octets = self._icv_octets
        tags, sent = opening.tags.tobytes(), opening.packets.tails(octets)
        if not octets or compare_digest(tags, sent):
            return None, opening.clear
        return authentic_ones(tags, sent, octets), opening.clear

    def _finish_columns(self, opening: _Columns) -> Opened:
        packets = opening.packets
        authentic, clear = self.finish_all(opening)
        if authentic is None:
            return None, clear
        sizes = opening.sizes
        each = [sizes] * packets.count if isinstance(sizes, int) else sizes.tolist()
        places = list(accumulate(each, initial=0))
        return authentic, b"".join([clear[places[index] : places[index + 1]] for index in authentic])

    def finish(self, pending: Pending) -> Opened:
        if isinstance(pending, _Columns):
            return self._finish_columns(pending)
        if isinstance(pending, tuple):
            view, item, size, out = pending
            clear = out[:size]
            if compare_digest(out[size:], view[item[3] - self._icv_octets : item[3]]):
                return None, clear
            return (), b""
        opening = cast(_Opening, pending)
        view, items, tags, octets = opening.view, opening.items, opening.tags, self._icv_octets
        if not octets:
            return None, opening.clear
        sent = [view[item[3] - octets : item[3]] for item in items]
        if compare_digest(tags, b"".join(sent)):
            return None, opening.clear
        authentic = [
            index
            for index, icv in enumerate(sent)
            if compare_digest(tags[octets * index : octets * (index + 1)], icv)
        ]
        starts = list(accumulate(opening.sizes, initial=0))
        clear = opening.clear
        return authentic, b"".join([clear[starts[index] : starts[index + 1]] for index in authentic])


class MultiBufferEngine:
    """Seals and opens with the library. Make it after the last fork.

    `name` has the library's version. `failed` are the suites that gave a wrong known answer.
    """

    job_words = JOB_WORDS

    def __init__(self, used: Library) -> None:
        self.name = f"ipsec-mb {used.version}"
        self._jobs = _Jobs(used)
        self._suites: frozenset[Suite] = frozenset(SUITES)
        self.failed = tuple([suite for suite in SUITES if not is_right(self, suite)])
        self._suites -= frozenset(self.failed)

    def sealer(self, esp: Esp, esn: bool) -> EspSealer:
        if (esp.cipher, esp.integrity) in self._suites:
            return MultiBufferSealer(self._jobs, esp, esn)
        return CRYPTOGRAPHY.sealer(esp, esn)

    def opener(self, esp: Esp, esn: bool) -> EspOpener:
        if (esp.cipher, esp.integrity) in self._suites:
            return MultiBufferOpener(self._jobs, esp, esn)
        return CRYPTOGRAPHY.opener(esp, esn)

    def flush(self) -> None:
        self._jobs.flush()


def choose_engine(asked: str) -> tuple[CipherEngine, tuple[str, ...]]:
    """Return the engine for what a lab asks for, one of `chassis.model.ipsec.CIPHER_ENGINES`, and remarks for the
    operator. Call it after the last fork."""
    if asked == CRYPTOGRAPHY.name:
        return CRYPTOGRAPHY, ()
    try:
        engine = MultiBufferEngine(library.load())
    except library.LibraryMissing as error:
        return CRYPTOGRAPHY, () if asked == "auto" else (f"ESP is by cryptography: {error}",)
    if not engine.failed:
        return engine, ()
    names = ", ".join("/".join(filter(None, suite)) for suite in engine.failed)
    return engine, (f"wrong known answers of {engine.name}, so ESP is by cryptography with {names}",)
