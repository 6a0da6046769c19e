"""Decoders of IKE under wrong input: by the thousand, and any bytes that Hypothesis finds."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.ase.ike.credentials import CertificateError, Credentials
from chassis.ase.ike.log import text
from chassis.ase.ike.payloads import v1, v2
from chassis.ase.ike.payloads.chain import Payload, PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.v1 import VendorV1
from tests.support.ike import mutation, pki

Parse = Callable[[memoryview], Payload]


def _of(typed: Callable[[memoryview, int], Payload], kind: int) -> Parse:
    return lambda body: typed(body, kind)


def codecs() -> dict[str, Parse]:
    """Every decoder of a payload, as a function of its octets alone."""
    found: dict[str, Parse] = {}
    for module in (v1, v2):
        name = module.__name__.rsplit(".", 1)[-1]
        for kind, parse in module._PARSERS.items():
            found[f"{name} {kind}"] = parse
        for kind, typed in (module._TYPED_PARSERS | getattr(module, "_ENCRYPTED_PARSERS", {})).items():
            found[f"{name} {kind}"] = _of(typed, kind)
    return found


CODECS = codecs()


def fills_its_line(error: PayloadError) -> None:
    assert not error.log or text(error.log, error.values)


def judge(parse: Parse, body: bytes) -> None:
    """What parses comes back as it is; a refusal is the one error, and fills its line."""
    try:
        payload = parse(memoryview(body))
    except PayloadError as error:
        fills_its_line(error)
    else:
        assert parse(memoryview(payload.emit())) == payload


@pytest.mark.parametrize("name", CODECS)
def test_any_bytes_for_every_decoder(name: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.binary(max_size=120))
    def any_bytes(body: bytes) -> None:
        judge(CODECS[name], body)

    any_bytes()


def test_wrong_bodies_for_every_decoder() -> None:
    bodies: dict[str, list[bytes]] = {}
    for version, chains in (("v1", mutation.V1_CHAINS), ("v2", mutation.V2_CHAINS)):
        for chain in chains:
            for payload in chain:
                bodies.setdefault(f"{version} {payload.type}", []).append(payload.emit())
    for name, parse in CODECS.items():
        for body in mutation.mutations(7, bodies.get(name, [bytes(range(40))]), 150, header=False):
            judge(parse, body)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_as_a_header(data: bytes) -> None:
    try:
        header = Header.parse(data)
        header.check()
    except PayloadError as error:
        fills_its_line(error)
    else:
        assert header.emit() == data[:28]


def test_fifty_thousand_wrong_messages() -> None:
    tallies = mutation.hammer(20_260_601, 50_000)
    assert sum(tally.parsed + tally.refused for tally in tallies.values()) == 50_000
    for name in ("clear 1", "clear 2", "inside 1", "inside 2"):
        assert tallies[name].parsed > 500, name
        assert tallies[name].refused > 2000, name
    assert len(tallies["clear 2"].lines) > 40
    assert len(tallies["inside 2"].lines) > 30


def test_no_wrong_message_leaves_anything_behind() -> None:
    mutation.hammer(1, 600)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for seed in range(5):
            mutation.hammer(seed, 1200)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()


def test_a_seed_gives_the_same_messages() -> None:
    one = list(mutation.mutations(5, mutation.CLEAR_2, 50))
    assert one == list(mutation.mutations(5, mutation.CLEAR_2, 50))
    assert one != list(mutation.mutations(6, mutation.CLEAR_2, 50))


def test_a_bug_in_a_decoder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(body: memoryview) -> Payload:
        return VendorV1(bytes((body[8],)))

    monkeypatch.setitem(v1._PARSERS, 13, careless)
    with pytest.raises(IndexError):
        mutation.hammer(3, 6000)


def test_wrong_certificates() -> None:
    root = pki.root("fuzzed root")
    below = root.authority("fuzzed between")
    leaf = below.issue(
        "fuzzed",
        dns=["gw.example"],
        mail=["gw@example"],
        addresses=["10.0.0.1", "2001:db8::1"],
        ca=False,
        usages=["digital_signature"],
        extended=["1.3.6.1.5.5.7.3.17"],
    )
    trust = Credentials((root.certificate,))
    ders = [pki.der(leaf), pki.der(below.certificate)]
    assert trust.verify(ders, pki.NOW).certificate == leaf
    rng = random.Random(9)
    refused = 0
    originals = [leaf, below.certificate, root.certificate]
    right = [pki.der(one) for one in originals]
    for wrong in mutation.mutations(9, right, 3000, header=False):
        chain = [wrong, ders[1]] if rng.random() < 0.7 else [ders[0], wrong]
        if wrong in right:
            continue
        try:
            accepted = trust.verify(chain, pki.NOW)
        except CertificateError:
            refused += 1
        else:
            # The octet that counts unused bits is not signed: another value leaves the certificate what it is.
            read = x509.load_der_x509_certificate(wrong)
            same = [one for one in originals if one.tbs_certificate_bytes == read.tbs_certificate_bytes]
            if not same or same[0].signature != read.signature:
                pytest.fail(f"accepted {accepted.certificate} by {wrong.hex()}")
    assert refused > 2500
