"""ESP with the library `cryptography`: the engine that every machine has (RFC 4303, RFC 3602, RFC 4106).

CBC: one context lives as long as its SA. The sender begins every packet with a fresh random block, whose
ciphertext is the IV of the packet; so one call encrypts the packets of a batch. The receiver decrypts the IVs and
ciphertexts of a batch with one call, and the first block of each packet has no meaning.

AES-GCM: the key of the SA ends in four octets of salt. The nonce of a packet is the salt and the eight octets of
IV that travel with the packet. A repeated nonce under one key breaks secrecy and integrity. The IV is therefore
the 64-bit sequence number (RFC 4106 3.1 allows a counter): it is allocated before encryption and never used twice.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from hmac import compare_digest
from itertools import chain
from typing import Final, cast

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.ase.ipsec.algorithms import Integrity
from chassis.ase.ipsec.cipher_engine import EspOpener, EspSealer, Opened, Pending, Unsealed
from chassis.ase.ipsec.received import Item, PacketColumns
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH, Esp
from chassis.net.columns import Numbers

GCM_SALT: Final = 4
GCM_IV: Final = 8
GCM_ICV: Final = 16

_NO_WORDS: Final = array("Q")

_HIGH: Final = struct.Struct("!I").pack
_GCM_IV: Final = struct.Struct("!Q").pack
EXTENDED: Final = struct.Struct("!IQ").pack
"""SPI and extended number: the additional authenticated data (RFC 4106 section 5)."""


def gcm_ivs(first: int, count: int) -> list[bytes]:
    """Return the IVs of packets from sequence number `first` on."""
    return [_GCM_IV(number) for number in range(first, first + count)]


def gcm_nonces(salts: Sequence[bytes], packets: PacketColumns, counts: Sequence[int]) -> bytes:
    """Return the nonces of received packets, end to end (RFC 4106 section 4): so many with each salt."""
    rows = np.empty((packets.count, GCM_SALT + GCM_IV), np.uint8)
    each = np.frombuffer(b"".join(salts), np.uint8).reshape(len(salts), GCM_SALT)
    rows[:, :GCM_SALT] = each if len(salts) == 1 else np.repeat(each, counts, axis=0)
    ivs = packets.fields(ESP_HEADER_LENGTH, GCM_IV)
    rows[:, GCM_SALT:] = np.frombuffer(ivs, np.uint8).reshape(packets.count, GCM_IV)
    return rows.tobytes()


def extended_headers(spi: int | Numbers, numbers: Numbers) -> bytes:
    """Return what is authenticated of packets with these extended numbers, beside their payloads, end to end."""
    rows = np.empty((len(numbers), 3), ">u4")
    rows[:, 0], rows[:, 1], rows[:, 2] = spi, numbers >> 32, numbers & 0xFFFFFFFF
    return rows.tobytes()


def random_ivs(octets: int, count: int, random: Callable[[int], bytes]) -> list[bytes]:
    """Return the IVs of `count` packets, of so many random octets each; `random` is called at most once."""
    if not octets:
        return [b""] * count
    blocks = random(octets * count)
    if count == 1:
        return [blocks]
    return [blocks[at : at + octets] for at in range(0, octets * count, octets)]


def authentic_ones(icvs: bytes, sent: bytes, octets: int) -> list[int]:
    """Return the indices of the packets whose ICV, of so many octets, is the right one. ICVs are end to end. How
    long it takes does not depend on the octets, as with `compare_digest`."""
    different = np.frombuffer(icvs, np.uint8) ^ np.frombuffer(sent, np.uint8)
    wrong = np.bitwise_or.reduce(different.reshape(-1, octets), axis=1)
    found: list[int] = (wrong == 0).nonzero()[0].tolist()
    return found


class CbcSealer:
    """A CBC cipher, or none, with or without an integrity algorithm."""

    __slots__ = ("_encrypt", "_esn", "_icv", "_integrity", "iv_in_head", "random_octets", "words")

    def __init__(self, esp: Esp, esn: bool) -> None:
        cipher, integrity = esp.cipher_algorithm, esp.integrity_algorithm
        encryptor = cipher.encryptor(esp.cipher_key)
        self.iv_in_head = False
        self.words = _NO_WORDS
        self._encrypt = None if encryptor is None else encryptor.update
        self.random_octets = cipher.iv_octets
        self._integrity = integrity.keyed(esp.integrity_key) if integrity else None
        self._icv = self._integrity.icv if self._integrity else None
        self._esn = esn

    def ivs(self, first: int, count: int, random: Callable[[int], bytes]) -> Sequence[bytes]:
        return random_ivs(self.random_octets, count, random)

    def suffix(self, first: int) -> bytes:
        return b""

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
        for (start, end), tail, iv in zip(spans, tails, ivs, strict=True):
            pieces += (iv, view[start:end], tail)
        sealed = b"".join(pieces)
        if self._encrypt is not None:
            sealed = self._encrypt(sealed)
        icv, iv_octets = self._icv, self.random_octets
        result: list[bytes] = []
        at = 0
        if icv is None:
            for head, size in zip(heads, sizes, strict=True):
                after = at + size + iv_octets
                result += (head, sealed[at:after])
                at = after
            return bytearray().join(result)
        # The high half is authenticated at the end of the packet but not sent (RFC 4303 2.2.1).
        high = _HIGH(first >> 32) if self._esn else None
        for head, size in zip(heads, sizes, strict=True):
            after = at + size + iv_octets
            octets = sealed[at:after]
            at = after
            if high is None:
                result += (head, octets, icv(octets, head[-ESP_HEADER_LENGTH:]))
            else:
                result += (head, octets, icv(high, head[-ESP_HEADER_LENGTH:] + octets))
        return bytearray().join(result)

    def seal_one(self, head: bytes, clear: memoryview, tail: bytes, size: int, iv: bytes, number: int) -> bytes:
        sealed = b"".join((iv, clear, tail))
        if self._encrypt is not None:
            sealed = self._encrypt(sealed)
        icv = self._icv
        if icv is None:
            return head + sealed
        if self._esn:
            return b"".join((head, sealed, icv(_HIGH(number >> 32), head[-ESP_HEADER_LENGTH:] + sealed)))
        return b"".join((head, sealed, icv(sealed, head[-ESP_HEADER_LENGTH:])))

    def seal_all(self, packets: Unsealed) -> None:
        columns, runs = packets.columns, packets.runs
        sealers = cast("Sequence[CbcSealer]", runs.sealers)
        counts = runs.packets
        if self._encrypt is not None:
            octets, widths = packets.clear()
            if counts is None:
                packets.write(self._encrypt(octets))
            else:
                packets.write(_encrypted(sealers, octets, widths, counts))
        if self._integrity is None:
            return
        view = columns.octets.data
        start = packets.at - ESP_HEADER_LENGTH
        starts: Sequence[int]
        ends: Sequence[int]
        if isinstance(packets.sizes, int):
            after = packets.at + packets.iv_octets + packets.sizes
            starts = range(start, len(view), columns.stride)
            ends = range(after, len(view), columns.stride)
        else:
            starts = (columns.starts + start).tolist()
            ends = (columns.starts + (packets.at + packets.iv_octets) + packets.sizes).tolist()
        # The high half is authenticated at the end of the packet but not sent (RFC 4303 2.2.1).
        if counts is None:
            high = _HIGH(int(runs.firsts[0]) >> 32) if self._esn else b""
            icvs = self._integrity.icvs(view, starts, ends, high)
        else:
            keyed = cast("list[Integrity]", [sealer._integrity for sealer in sealers])
            highs: Sequence[bytes] = ()
            if self._esn:
                highs = [_HIGH(first >> 32) for _, _, first in runs.each(columns.count)]
            if len(keyed) != columns.count:
                which = np.repeat(np.arange(len(keyed)), counts).tolist()
                keyed = [keyed[run] for run in which]
                highs = highs and [highs[run] for run in which]
            icvs = self._integrity.icvs_by(keyed, view, starts, ends, highs)
        packets.write_icvs(icvs)


def _encrypted(sealers: Sequence[CbcSealer], octets: memoryview, widths: Numbers | int, counts: Numbers) -> bytes:
    """Return the octets of packets, of so many octets each or all, encrypted by the sealer of each run."""
    if isinstance(widths, int) and len(octets) == widths * len(sealers):
        # A packet in each run.
        parts = _part_of(widths).iter_unpack(octets)
        return b"".join([sealer._encrypt(part) for sealer, (part,) in zip(sealers, parts, strict=True)])  # type: ignore[misc]
    if isinstance(widths, int):
        ends = np.add.accumulate(counts * widths).tolist()
    else:
        ends = np.add.accumulate(widths)[np.add.accumulate(counts) - 1].tolist()
    starts = [0, *ends[:-1]]
    rows = zip(sealers, starts, ends, strict=True)
    return b"".join([sealer._encrypt(octets[start:end]) for sealer, start, end in rows])  # type: ignore[misc]


@lru_cache(maxsize=256)
def _part_of(octets: int) -> struct.Struct:
    return struct.Struct(f"{octets}s")


class CbcOpener:
    """A CBC cipher, or none, with or without an integrity algorithm. What is not authentic is not decrypted."""

    __slots__ = ("_decrypt", "_decrypt_into", "_esn", "_icv", "_icv_octets", "_integrity", "lead")

    def __init__(self, esp: Esp, esn: bool) -> None:
        cipher, integrity = esp.cipher_algorithm, esp.integrity_algorithm
        decryptor = cipher.decryptor(esp.cipher_key)
        self.lead = cipher.iv_octets
        self._decrypt = None if decryptor is None else decryptor.update
        self._decrypt_into = None if decryptor is None else decryptor.update_into
        self._integrity = integrity.keyed(esp.integrity_key) if integrity else None
        self._icv = self._integrity.icv if self._integrity else None
        self._icv_octets = esp.icv_octets
        self._esn = esn

    def begin(self, view: memoryview, items: Sequence[Item], numbers: Sequence[int]) -> Pending:
        icv, icv_octets = self._icv, self._icv_octets
        authentic: list[int] | None = None
        if icv is not None:
            same = compare_digest
            good: list[bool] = []
            add = good.append
            if self._esn:
                for item, number in zip(items, numbers, strict=True):
                    edge = item[3] - icv_octets
                    value = icv(_HIGH(number >> 32 & 0xFFFFFFFF), view[item[2] : edge])
                    add(same(value, view[edge : item[3]]))
            else:
                for item in items:
                    edge = item[3] - icv_octets
                    add(same(icv(view[item[2] : edge]), view[edge : item[3]]))
            if not all(good):
                authentic = [index for index, right in enumerate(good) if right]
                items = [items[index] for index in authentic]
        joined = b"".join([view[item[2] + ESP_HEADER_LENGTH : item[3] - icv_octets] for item in items])
        return authentic, joined if self._decrypt is None else self._decrypt(joined)

    def begin_one(self, view: memoryview, item: Item, number: int) -> Pending:
        start, edge = item[2], item[3] - self._icv_octets
        icv = self._icv
        if icv is not None:
            octets = view[start:edge]
            right = icv(_HIGH(number >> 32 & 0xFFFFFFFF), octets) if self._esn else icv(octets)
            if not compare_digest(right, view[edge : item[3]]):
                return (), b""
        sealed = view[start + ESP_HEADER_LENGTH : edge]
        return None, bytes(sealed) if self._decrypt is None else self._decrypt(sealed)

    def begin_columns(self, packets: PacketColumns, numbers: Numbers) -> Pending:
        integrity, octets = self._integrity, self._icv_octets
        if integrity is not None:
            high = _HIGH(int(numbers[0]) >> 32 & 0xFFFFFFFF) if self._esn else b""
            icvs = integrity.icvs(packets.octets, *packets.spans(0, octets), high)
            sent = packets.tails(octets)
            if not compare_digest(icvs, sent):
                authentic = authentic_ones(icvs, sent, octets)
                parts = packets.parts(ESP_HEADER_LENGTH, octets)
                joined = b"".join([parts[index] for index in authentic])
                return authentic, joined if self._decrypt is None else self._decrypt(joined)
        sealed = packets.joined(ESP_HEADER_LENGTH, octets)
        if self._decrypt_into is None:
            return None, sealed
        # One copy less than `update` makes, which also fills its buffer first.
        clear = np.empty(len(sealed) + self.lead, np.uint8).data
        self._decrypt_into(sealed, clear)
        return None, clear[: len(sealed)]

    def begin_all(
        self, packets: PacketColumns, numbers: Numbers, openers: Sequence[EspOpener], counts: Sequence[int]
    ) -> Pending:
        octets, lead, several = self._icv_octets, self.lead, cast("Sequence[CbcOpener]", openers)
        keyed = cast("list[Integrity]", [own._integrity for own in several])
        if len(keyed) != packets.count:
            keyed = [keyed[run] for run in np.repeat(np.arange(len(keyed)), counts).tolist()]
        more: Sequence[bytes] = ()
        if self._esn:
            # The high half is authenticated at the end of the packet but not sent (RFC 4303 2.2.1).
            more = list(map(_HIGH, (numbers >> 32 & 0xFFFFFFFF).tolist()))
        starts, ends = packets.spans(0, octets)
        icvs = keyed[0].icvs_by(keyed, packets.octets, starts, ends, more)
        sent = packets.tails(octets)
        authentic: list[int] | None = None
        if not compare_digest(icvs, sent):
            authentic = authentic_ones(icvs, sent, octets)
        good = [True] * len(several)
        if authentic is not None:
            right = np.zeros(packets.count, bool)
            right[authentic] = True
            many = np.array(counts, np.int64)
            firsts: Numbers = np.add.accumulate(many) - many
            good = np.logical_and.reduceat(right, firsts).tolist()
        fixed = ESP_HEADER_LENGTH + octets
        each = [packets.size - fixed] * packets.count if packets.size else (packets.sizes - fixed).tolist()
        sealed = memoryview(packets.joined(ESP_HEADER_LENGTH, octets))
        clear = np.empty(len(sealed) + lead, np.uint8).data
        at = row = 0
        for own, count, decrypts in zip(several, counts, good, strict=True):
            after = at + (each[row] if count == 1 else sum(each[row : row + count]))
            if decrypts:
                own._decrypt_into(sealed[at:after], clear[at : after + lead])  # type: ignore[misc]
            at, row = after, row + count
        return authentic, clear[: len(sealed)]

    def finish(self, pending: Pending) -> Opened:
        return cast(Opened, pending)

    finish_all = finish


class GcmSealer:
    """AES-GCM."""

    __slots__ = ("_encrypt", "_esn", "_salt", "_spi", "iv_in_head", "random_octets", "words")

    def __init__(self, esp: Esp, esn: bool) -> None:
        self.iv_in_head = True
        self.words = _NO_WORDS
        self.random_octets = 0
        self._encrypt = AESGCM(esp.cipher_key[:-GCM_SALT]).encrypt
        self._salt = esp.cipher_key[-GCM_SALT:]
        self._spi = esp.spi
        self._esn = esn

    def ivs(self, first: int, count: int, random: Callable[[int], bytes]) -> Sequence[bytes]:
        return gcm_ivs(first, count)

    def suffix(self, first: int) -> bytes:
        return b""

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
        encrypt, salt = self._encrypt, self._salt
        known = (
            [EXTENDED(self._spi, number) for number in range(first, first + len(spans))]
            if self._esn
            else [head[-ESP_HEADER_LENGTH - GCM_IV : -GCM_IV] for head in heads]
        )
        result: list[bytes] = []
        for (start, end), head, tail, iv, data in zip(spans, heads, tails, ivs, known, strict=True):
            result += (head, encrypt(salt + iv, b"".join((view[start:end], tail)), data))
        return bytearray().join(result)

    def seal_one(self, head: bytes, clear: memoryview, tail: bytes, size: int, iv: bytes, number: int) -> bytes:
        data = EXTENDED(self._spi, number) if self._esn else head[-ESP_HEADER_LENGTH - GCM_IV : -GCM_IV]
        return head + self._encrypt(self._salt + iv, b"".join((clear, tail)), data)

    def seal_all(self, packets: Unsealed) -> None:
        columns, at = packets.columns, packets.at
        view, start = columns.octets.data, at + GCM_IV
        places = columns.starts.tolist()
        sizes = [packets.sizes] * columns.count if isinstance(packets.sizes, int) else packets.sizes.tolist()
        row = 0
        for sealer, count, first in packets.runs.each(columns.count):
            own = cast(GcmSealer, sealer)
            encrypt, salt, esn, spi = own._encrypt, own._salt, own._esn, own._spi
            for number, iv in enumerate(gcm_ivs(first, count), first):
                place, size = places[row], sizes[row]
                row += 1
                head = view[place + at - ESP_HEADER_LENGTH : place + at]
                data = EXTENDED(spi, number) if esn else head
                sealed = encrypt(salt + iv, view[place + start : place + start + size], data)
                view[place + at : place + start] = iv
                view[place + start : place + start + len(sealed)] = sealed


class GcmOpener:
    """AES-GCM. The payload of a packet that is not authentic is never read."""

    __slots__ = ("_decrypt", "_esn", "_salt", "_spi", "lead")

    def __init__(self, esp: Esp, esn: bool) -> None:
        self.lead = 0
        self._decrypt = AESGCM(esp.cipher_key[:-GCM_SALT]).decrypt
        self._salt = esp.cipher_key[-GCM_SALT:]
        self._spi = esp.spi
        self._esn = esn

    def begin(self, view: memoryview, items: Sequence[Item], numbers: Sequence[int]) -> Pending:
        decrypt, salt, esn, spi = self._decrypt, self._salt, self._esn, self._spi
        pieces: list[bytes] = []
        authentic: list[int] = []
        for index, item in enumerate(items):
            at = item[2] + ESP_HEADER_LENGTH
            start = at + GCM_IV
            known = EXTENDED(spi, numbers[index]) if esn else view[item[2] : at]
            try:
                pieces.append(decrypt(b"".join((salt, view[at:start])), view[start : item[3]], known))
            except InvalidTag:
                continue
            authentic.append(index)
        return None if len(authentic) == len(items) else authentic, b"".join(pieces)

    def begin_one(self, view: memoryview, item: Item, number: int) -> Pending:
        return self.begin(view, (item,), (number,))

    def begin_columns(self, packets: PacketColumns, numbers: Numbers) -> Pending:
        decrypt, octets = self._decrypt, GCM_SALT + GCM_IV
        nonces = gcm_nonces((self._salt,), packets, (packets.count,))
        if self._esn:
            known, width = extended_headers(self._spi, numbers), ESP_HEADER_LENGTH + 4
        else:
            known, width = packets.fields(0, ESP_HEADER_LENGTH), ESP_HEADER_LENGTH
        pieces: list[bytes] = []
        authentic: list[int] = []
        for index, part in enumerate(packets.parts(ESP_HEADER_LENGTH + GCM_IV, 0)):
            nonce = nonces[octets * index : octets * (index + 1)]
            try:
                pieces.append(decrypt(nonce, part, known[width * index : width * (index + 1)]))
            except InvalidTag:
                continue
            authentic.append(index)
        return None if len(authentic) == packets.count else authentic, b"".join(pieces)

    def begin_all(
        self, packets: PacketColumns, numbers: Numbers, openers: Sequence[EspOpener], counts: Sequence[int]
    ) -> Pending:
        several = cast("Sequence[GcmOpener]", openers)
        nonces = gcm_nonces([own._salt for own in several], packets, counts)
        if self._esn:
            spis = np.repeat([own._spi for own in several], counts)
            known, width = extended_headers(spis, numbers), ESP_HEADER_LENGTH + 4
        else:
            known, width = packets.fields(0, ESP_HEADER_LENGTH), ESP_HEADER_LENGTH
        decrypts = chain.from_iterable(
            [(own._decrypt,) * count for own, count in zip(several, counts, strict=True)]
        )
        pieces: list[bytes] = []
        authentic: list[int] = []
        parts = packets.parts(ESP_HEADER_LENGTH + GCM_IV, 0)
        octets = GCM_SALT + GCM_IV
        for index, (decrypt, part) in enumerate(zip(decrypts, parts, strict=True)):
            nonce = nonces[octets * index : octets * (index + 1)]
            try:
                pieces.append(decrypt(nonce, part, known[width * index : width * (index + 1)]))
            except InvalidTag:
                pieces.append(bytes(len(part) - GCM_ICV))
                continue
            authentic.append(index)
        return None if len(authentic) == packets.count else authentic, b"".join(pieces)

    def finish(self, pending: Pending) -> Opened:
        return cast(Opened, pending)

    finish_all = finish


class CryptographyEngine:
    """Seals and opens with `cryptography`, each call at once."""

    name = "cryptography"
    job_words = 0

    def sealer(self, esp: Esp, esn: bool) -> EspSealer:
        return GcmSealer(esp, esn) if esp.cipher_algorithm.combined else CbcSealer(esp, esn)

    def opener(self, esp: Esp, esn: bool) -> EspOpener:
        return GcmOpener(esp, esn) if esp.cipher_algorithm.combined else CbcOpener(esp, esn)

    def flush(self) -> None:
        """No-op: each call is complete when it returns."""


CRYPTOGRAPHY: Final = CryptographyEngine()
