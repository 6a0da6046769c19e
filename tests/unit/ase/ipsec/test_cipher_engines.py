"""Every suite of ESP makes the octets that its RFCs prescribe, whichever engine seals it."""

from __future__ import annotations

import hmac
import random
import struct
from collections.abc import Callable
from functools import cache

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from chassis.ase.ipsec import ipsec_mb_library, known_answers
from chassis.ase.ipsec.algorithms import INTEGRITY
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY, CbcOpener, CbcSealer
from chassis.ase.ipsec.ipsec_mb import MultiBufferEngine, MultiBufferOpener, MultiBufferSealer
from chassis.ase.ipsec.known_answers import ANSWERS, CLEAR, FIRST, LENGTHS, SPI, SUITES, Suite, esp_of
from chassis.ase.ipsec.received import Item
from chassis.net.ethernet import MAX_BATCHED_IPV4_LENGTH
from tests.support.cipher_engines import engine_of
from tests.unit.ase.ipsec.test_known_packets import trailer, xcbc

HASHES = {
    "hmac-md5-96": "md5", "hmac-sha1-96": "sha1", "hmac-sha-256-128": "sha256", "hmac-sha-384-192": "sha384",
    "hmac-sha-512-256": "sha512",
}  # fmt: skip

BLOCK_CIPHERS: dict[str, Callable[[bytes], BlockCipherAlgorithm]] = {
    "des-cbc": lambda key: TripleDES(key * 3),
    "3des-cbc": TripleDES,
}


@cache
def prescribed(suite: Suite, esn: bool, ivs: tuple[bytes, ...]) -> list[bytes]:
    """The packets of the known answers, one by one, with these IVs; those of AES-GCM are the numbers."""
    esp = esp_of(suite)
    packets = []
    at = 0
    for index, length in enumerate(LENGTHS):
        number = (FIRST if esn else FIRST & 0xFFFFFFFF) + index
        clear = CLEAR[at : at + length]
        plain = clear + trailer(clear, esp.cipher_algorithm.block_octets, 4)
        at += length
        head = struct.pack("!II", SPI, number & 0xFFFFFFFF)
        if esp.cipher_algorithm.combined:
            iv = struct.pack("!Q", number)
            known = struct.pack("!IQ", SPI, number) if esn else head
            packets.append(head + iv + AESGCM(esp.cipher_key[:-4]).encrypt(esp.cipher_key[-4:] + iv, plain, known))
            continue
        if ivs[index]:
            algorithm = BLOCK_CIPHERS.get(esp.cipher, AES)(esp.cipher_key)
            plain = Cipher(algorithm, modes.CBC(ivs[index])).encryptor().update(plain)
        packet = head + ivs[index] + plain
        if esp.integrity is not None:
            covered = packet + (struct.pack("!I", number >> 32) if esn else b"")
            if esp.integrity in HASHES:
                icv = hmac.digest(esp.integrity_key, covered, HASHES[esp.integrity])
            else:
                icv = xcbc(esp.integrity_key, covered)
            packet += icv[: INTEGRITY[esp.integrity].icv_octets]
        packets.append(packet)
    return packets


def ivs_of(suite: Suite) -> tuple[bytes, ...]:
    size = esp_of(suite).cipher_algorithm.iv_octets
    octets = known_answers.octets(size * len(LENGTHS))
    return tuple(octets[size * index : size * (index + 1)] for index in range(len(LENGTHS)))


def test_the_known_answers_are_those_of_the_rfcs() -> None:
    assert set(ANSWERS) == set(SUITES)
    for suite in SUITES:
        parts = [packet for esn in (False, True) for packet in prescribed(suite, esn, ivs_of(suite))]
        assert ANSWERS[suite] == known_answers.digest(parts), suite


def cut(wire: bytes, items: list[Item]) -> list[bytes]:
    return [wire[item[2] : item[3]] for item in items]


def test_cryptography_makes_the_prescribed_octets_of_its_ivs() -> None:
    for suite in SUITES:
        size = esp_of(suite).cipher_algorithm.iv_octets
        for esn in (False, True):
            wire, items, numbers = known_answers.sealed(CRYPTOGRAPHY, suite, esn)
            packets = cut(wire, items)
            assert packets == prescribed(suite, esn, tuple(packet[8 : 8 + size] for packet in packets)), suite
            opened = known_answers.opened(CRYPTOGRAPHY, suite, esn, wire, items, numbers)
            assert opened == (list(range(len(items))), CLEAR)


def test_both_engines_make_and_open_the_same_octets() -> None:
    engine = engine_of("ipsec-mb")
    assert isinstance(engine, MultiBufferEngine)
    assert engine.failed == ()
    for suite in SUITES:
        assert isinstance(engine.sealer(esp_of(suite), False), MultiBufferSealer), suite
        assert isinstance(engine.opener(esp_of(suite), False), MultiBufferOpener), suite
        for esn in (False, True):
            wire, items, numbers = known_answers.sealed(engine, suite, esn)
            assert cut(wire, items) == prescribed(suite, esn, ivs_of(suite)), suite
            for one, other in ((engine, CRYPTOGRAPHY), (CRYPTOGRAPHY, engine)):
                wire, items, numbers = known_answers.sealed(one, suite, esn)
                opened = known_answers.opened(other, suite, esn, wire, items, numbers)
                assert opened == (list(range(len(items))), CLEAR), suite


@pytest.mark.parametrize("name", ["cryptography", "ipsec-mb"])
def test_a_changed_octet_is_found_wherever_it_is(name: str) -> None:
    engine = engine_of(name)
    for suite in SUITES:
        if not esp_of(suite).icv_octets:
            continue
        for esn in (False, True):
            wire, items, numbers = known_answers.sealed(engine, suite, esn)
            damaged = bytearray(wire)
            changed = range(0, len(items), 3)
            for index in changed:
                _, _, at, end, _, _ = items[index]
                damaged[at + 8 + index * (end - at - 9) // len(items)] ^= 1 << index % 8
            right = [index for index in range(len(items)) if index not in changed]
            found, clear = known_answers.opened(engine, suite, esn, bytes(damaged), items, numbers)
            assert found == right, suite
            ends = [sum(LENGTHS[: index + 1]) for index in range(len(LENGTHS))]
            assert clear == b"".join([CLEAR[ends[index] - LENGTHS[index] : ends[index]] for index in right])


def test_a_suite_with_a_wrong_answer_stays_with_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_of("ipsec-mb")
    wrong = ("aes-128-cbc", "hmac-sha1-96")
    monkeypatch.setattr(known_answers, "ANSWERS", {**ANSWERS, wrong: "0" * 16})
    engine = MultiBufferEngine(ipsec_mb_library.load())
    assert engine.failed == (wrong,)
    assert isinstance(engine.sealer(esp_of(wrong), False), CbcSealer)
    assert isinstance(engine.opener(esp_of(wrong), False), CbcOpener)
    assert isinstance(engine.sealer(esp_of(("aes-256-cbc", "hmac-sha1-96")), False), MultiBufferSealer)


@pytest.mark.parametrize("longest", [False, True])
def test_the_shortest_and_the_longest_packet_are_taken(longest: bool) -> None:
    """Any peer can have such a packet reassembled, so no engine may stumble over one, whatever is in it."""
    engine = engine_of("ipsec-mb")
    octets = random.Random(1).randbytes(MAX_BATCHED_IPV4_LENGTH)
    for suite in SUITES:
        esp = esp_of(suite)
        block = esp.cipher_algorithm.block_octets
        fixed = 8 + esp.cipher_algorithm.iv_octets + esp.icv_octets
        end = fixed + (len(octets) - 20 - fixed) // block * block if longest else fixed + block
        items: list[Item] = [(0, 0, 0, end, 0, 5)]
        for esn in (False, True):
            found = []
            for each in (engine, CRYPTOGRAPHY):
                opener = each.opener(esp, esn)
                pending = opener.begin(memoryview(octets), items, [5])
                each.flush()
                authentic, clear = opener.finish(pending)
                found.append((authentic, bytes(clear[opener.lead :])))
            assert found[0] == found[1], suite
            assert found[0][0] == (None if not esp.icv_octets else []), suite


def test_jobs_of_many_sas_run_together() -> None:
    """More than a manager holds, of several suites, and one flush."""
    engine = engine_of("ipsec-mb")
    chosen: list[Suite] = [
        suite for suite in SUITES if suite[0] in ("aes-128-cbc", "aes-256-gcm", "null", "3des-cbc")
    ]
    made = []
    kept: list[bytearray] = []
    for suite in chosen:
        sealer = engine.sealer(esp_of(suite), False)
        ivs = sealer.ivs(1, 30, known_answers.octets)
        end = trailer(CLEAR[:1400], esp_of(suite).cipher_algorithm.block_octets, 4)
        size, tail = 1400 + len(end), end + sealer.suffix(1)
        heads = [struct.pack("!II", SPI, 1 + index) + iv for index, iv in enumerate(ivs)]
        out = sealer.seal(memoryview(CLEAR), [(0, 1400)] * 30, heads, [tail] * 30, [size] * 30, ivs, 1)
        kept.append(out)
    engine.flush()
    for suite, out in zip(chosen, kept, strict=True):
        stride = len(out) // 30
        items: list[Item] = [(i, i * stride, i * stride, (i + 1) * stride, 0, 1 + i) for i in range(30)]
        made.append((suite, engine.opener(esp_of(suite), False), items, out))
    begun = [opener.begin(memoryview(out), items, range(1, 31)) for _, opener, items, out in made]
    engine.flush()
    for (suite, opener, _, _), pending in zip(made, begun, strict=True):
        authentic, clear = opener.finish(pending)
        assert authentic is None, suite
        stride = len(clear) // 30
        assert all(clear[i * stride : i * stride + 1400] == CLEAR[:1400] for i in range(30)), suite
