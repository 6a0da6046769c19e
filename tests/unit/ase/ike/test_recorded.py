"""Known answers from exchanges of two strongSwan daemons, recorded with their keys by `tests/interop`.

From the messages, the preshared key and the Diffie-Hellman secrets everything else is derived here again and
compared with what the peer logged; every message is then opened with the keys derived, and its proof checked.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, TypeVar

import pytest

from chassis.ase.ike.crypto import ikev1, ikev2, signatures
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY, PRFS, CipherSpec, IntegritySpec
from chassis.ase.ike.crypto.ikev1 import IvChain, after_hash, decrypt_payloads
from chassis.ase.ike.crypto.ikev2 import SkCipher
from chassis.ase.ike.payloads import v1, v1_sa, v2_payloads, v2_sa
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, PayloadTypeV2, Protocol
from chassis.ase.ike.payloads.v1 import MessageV1, PayloadV1
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2
from chassis.ase.ike.payloads.v2_payloads import Encrypted

FOLDER = Path(__file__).parent / "recorded"
FILES = sorted(FOLDER.glob("*.json"))
Payload = TypeVar("Payload")


def read(file: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(file.read_text())
    recorded["messages"] = [(one["from"], bytes.fromhex(one["data"])) for one in recorded["messages"]]
    for kind in ("ike", "children"):
        recorded[kind] = [{name: bytes.fromhex(octets) for name, octets in one.items()} for one in recorded[kind]]
    return recorded


def only(payloads: tuple[Any, ...], kind: type[Payload]) -> Payload:
    """The first payload of a class."""
    return next(payload for payload in payloads if isinstance(payload, kind))


def of_version(version: int) -> list[Any]:
    return [
        pytest.param(file, id=file.stem) for file in FILES if json.loads(file.read_text())["version"] == version
    ]


def child_keys(cipher: CipherSpec, integrity: IntegritySpec | None) -> tuple[int, ...]:
    return (cipher.key_octets, 0 if integrity is None else integrity.key_octets)


def of_child(logged: dict[str, bytes]) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """(initiator to responder, responder to initiator) of a CHILD SA as logged: encryption, integrity."""
    return (logged["ei"], logged.get("ai", b"")), (logged["er"], logged.get("ar", b""))


class Version1:
    """A recorded exchange of version 1, read from its first message to its last."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.recorded = recorded
        self.prf = PRFS[recorded["prf"]]
        self.cipher = CIPHERS[recorded["cipher"]]
        self.logged = recorded["ike"][0]
        self.clear: list[PayloadV1] = []
        self.phase_1: dict[str, list[PayloadV1]] = {"i": [], "r": []}
        self.children: list[tuple[tuple[bytes, bytes], tuple[bytes, bytes]]] = []
        self.opened = 0

    def derive(self) -> ikev1.SkeyId:
        """The SKEYID family, from what is in clear."""
        first = self.recorded["messages"][0][1]
        self.sa_body = first[32 : 28 + int.from_bytes(first[30:32], "big")]
        for side, data in self.recorded["messages"]:
            header = Header.parse(data)
            if header.encrypted:
                break
            self.cookies = (header.spi_i, header.spi_r)
            self.phase_1[side] += MessageV1.parse(data).payloads
        one, other = (tuple(self.phase_1[side]) for side in "ir")
        self.publics = (only(one, v1.KeV1).public, only(other, v1.KeV1).public)
        nonces = (only(one, v1.NonceV1).value, only(other, v1.NonceV1).value)
        g_xy = self.logged["g_xy"]
        if self.recorded["method"] == "psk":
            skeyid = ikev1.skeyid_psk(self.prf, bytes.fromhex(self.recorded["psk"]), *nonces)
        else:
            skeyid = ikev1.skeyid_signature(self.prf, *nonces, g_xy)
        return ikev1.derive(self.prf, skeyid, g_xy, *self.cookies)

    def read(self, keys: ikev1.SkeyId) -> None:
        """Open every message that is sealed, checking the hashes of phase 2."""
        hash_name = str(self.prf.hash_name)
        iv = ikev1.first_iv(hash_name, self.cipher, *self.publics)
        phase_1 = IvChain(self.cipher, ikev1.encryption_key(keys, self.cipher), iv)
        chains: dict[int, IvChain] = {}
        quick: dict[int, list[tuple[PayloadV1, ...]]] = {}
        for side, data in self.recorded["messages"]:
            header = Header.parse(data)
            if not header.encrypted:
                continue
            number = header.message_id
            if number == 0:
                payloads, _, phase_1 = decrypt_payloads(phase_1, data, header)
                self.phase_1[side] += payloads
                self.opened += 1
                continue
            iv = ikev1.message_iv(hash_name, self.cipher, phase_1.iv, number)
            chain = chains.get(number, IvChain(self.cipher, phase_1.key, iv))
            payloads, plain, chains[number] = decrypt_payloads(chain, data, header)
            self.opened += 1
            before = quick.setdefault(number, [])
            before.append(payloads)
            nonces = [
                only(one, v1.NonceV1).value for one in before[:2] if header.exchange == ExchangeType.QUICK_MODE
            ]
            if len(before) == 1:
                proof = ikev1.quick_hash_1(keys, number, after_hash(plain))
            elif len(before) == 2:
                proof = ikev1.quick_hash_2(keys, number, nonces[0], after_hash(plain))
            else:
                proof = ikev1.quick_hash_3(keys, number, *nonces)
            assert only(payloads, v1.Hash).value == proof
            if len(before) == 2:
                self._child(keys, before, (nonces[0], nonces[1]))

    def _child(self, keys: ikev1.SkeyId, before: list[tuple[PayloadV1, ...]], nonces: tuple[bytes, bytes]) -> None:
        g_xy = self.recorded["children"][len(self.children)].get("g_xy", b"")
        sizes = child_keys(CIPHERS[self.recorded["esp-cipher"]], INTEGRITY[self.recorded["esp-integrity"]])
        directions = []
        for payloads in (before[1], before[0]):
            # Keys are those of the SPI's owner, who receives by it.
            spi = only(payloads, v1_sa.SaV1).proposals[0].spi
            material = ikev1.keymat(keys, Protocol.ESP, spi, *nonces, sum(sizes), g_xy)
            directions.append((material[: sizes[0]], material[sizes[0] :]))
        self.children.append((directions[0], directions[1]))


@pytest.mark.parametrize("file", of_version(1))
def test_an_exchange_of_version_1_is_derived_again(file: Path) -> None:
    one = Version1(read(file))
    keys = one.derive()
    logged = one.logged
    names = ("skeyid", "skeyid_d", "skeyid_a", "skeyid_e")
    assert [keys.skeyid, keys.d, keys.a, keys.e] == [logged[name] for name in names]
    assert ikev1.encryption_key(keys, one.cipher) == logged["key"]
    assert ikev1.first_iv(str(one.prf.hash_name), one.cipher, *one.publics) == logged["iv"]

    one.read(keys)
    assert one.opened == sum(Header.parse(data).encrypted for _, data in one.recorded["messages"])
    ids = {side: only(tuple(payloads), v1.IdV1).emit() for side, payloads in one.phase_1.items()}
    of_initiator = ikev1.hash_i(keys, *one.publics, *one.cookies, one.sa_body, ids["i"])
    of_responder = ikev1.hash_r(keys, *one.publics, *one.cookies, one.sa_body, ids["r"])
    assert (of_initiator, of_responder) == (logged["hash_i"], logged["hash_r"])
    for side, proof in (("i", of_initiator), ("r", of_responder)):
        payloads = tuple(one.phase_1[side])
        if one.recorded["method"] == "psk":
            assert only(payloads, v1.Hash).value == proof
        else:
            public = load_public(only(payloads, v1.CertV1).data)
            assert signatures.v1_verify(public, proof, only(payloads, v1.Signature).value)
    assert one.children == [of_child(logged) for logged in one.recorded["children"]]
    assert len(one.children) == 2


def load_public(der: bytes) -> Any:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).public_key()


class Version2:
    """A recorded exchange of version 2: IKE SAs by their SPIs, children in the order of their negotiation."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.recorded = recorded
        self.prf = PRFS[recorded["prf"]]
        self.cipher = CIPHERS[recorded["cipher"]]
        self.integrity = INTEGRITY.get(recorded["integrity"])
        self.keys: dict[tuple[bytes, bytes], ikev2.IkeKeys] = {}
        self.seeds: list[bytes] = []
        self.children: list[tuple[tuple[bytes, bytes], tuple[bytes, bytes]]] = []
        self.auths: list[bool] = []
        self.opened = 0

    def _make(self, seed: bytes, nonces: tuple[bytes, bytes], spis: tuple[bytes, bytes]) -> None:
        self.seeds.append(seed)
        self.keys[spis] = ikev2.ike_keys(self.prf, self.cipher, self.integrity, seed, *nonces, *spis)

    def _open(self, data: bytes, header: Header) -> tuple[PayloadV2, ...]:
        keys = self.keys[header.spi_i, header.spi_r]
        sk_e, sk_a = (keys.ei, keys.ai) if header.from_initiator else (keys.er, keys.ar)
        self.opened += 1
        return SkCipher(self.cipher, self.integrity, sk_e, sk_a).decrypt(data, MessageV2.parse(data))

    def read(self) -> None:
        """Pair requests with their responses and act on them as both ends did."""
        messages = [data for _, data in self.recorded["messages"]]
        for at in range(0, len(messages), 2):
            request, response = messages[at : at + 2]
            header, answer = Header.parse(request), Header.parse(response)
            assert header.message_id == answer.message_id
            assert answer.is_response
            if header.exchange == ExchangeType.IKE_SA_INIT:
                self._init(request, response, answer)
                continue
            both = (self._open(request, header), self._open(response, answer))
            keys = self.keys[header.spi_i, header.spi_r]
            if header.exchange == ExchangeType.IKE_AUTH:
                self._auth(keys, both)
                self._child(keys, self.nonces)
            elif header.exchange == ExchangeType.CREATE_CHILD_SA:
                nonces = (only(both[0], v2_payloads.NonceV2).value, only(both[1], v2_payloads.NonceV2).value)
                proposals = [only(payloads, v2_sa.SaV2).proposals[0] for payloads in both]
                if proposals[0].protocol == Protocol.IKE:
                    g_ir = self.recorded["ike"][len(self.seeds)]["g_xy"]
                    seed = ikev2.skeyseed_rekey(self.prf, keys.d, g_ir, *nonces)
                    self._make(seed, nonces, (proposals[0].spi, proposals[1].spi))
                else:
                    self._child(keys, nonces)

    def _init(self, request: bytes, response: bytes, answer: Header) -> None:
        one, other = MessageV2.parse(request).payloads, MessageV2.parse(response).payloads
        self.first = (request, response)
        self.nonces = (only(one, v2_payloads.NonceV2).value, only(other, v2_payloads.NonceV2).value)
        seed = ikev2.skeyseed(self.prf, *self.nonces, self.recorded["ike"][0]["g_xy"])
        self._make(seed, self.nonces, (answer.spi_i, answer.spi_r))

    def _auth(self, keys: ikev2.IkeKeys, both: tuple[tuple[PayloadV2, ...], ...]) -> None:
        psk = bytes.fromhex(self.recorded["psk"])
        for side, payloads, sk_p, kind in (
            (0, both[0], keys.pi, PayloadTypeV2.ID_I),
            (1, both[1], keys.pr, PayloadTypeV2.ID_R),
        ):
            ids = [one for one in payloads if isinstance(one, v2_payloads.IdV2) and one.type == kind]
            nonce = self.nonces[1 - side]
            octets = signatures.signed_octets(self.prf, sk_p, self.first[side], nonce, ids[0].emit())
            self.auths.append(signatures.psk_verify(self.prf, psk, octets, only(payloads, v2_payloads.Auth).data))

    def _child(self, keys: ikev2.IkeKeys, nonces: tuple[bytes, bytes]) -> None:
        g_ir = self.recorded["children"][len(self.children)].get("g_xy", b"")
        sizes = child_keys(CIPHERS[self.recorded["esp-cipher"]], INTEGRITY.get(self.recorded["esp-integrity"]))
        material = ikev2.keymat(self.prf, keys.d, *nonces, 2 * sum(sizes), g_ir)
        one, other = ikev2.split_keymat(material, sizes)
        self.children.append(((one[0], one[1]), (other[0], other[1])))


@pytest.mark.parametrize("file", of_version(2))
def test_an_exchange_of_version_2_is_derived_again(file: Path) -> None:
    one = Version2(read(file))
    one.read()
    names = ("d", "ai", "ar", "ei", "er", "pi", "pr")
    assert one.seeds == [logged["skeyseed"] for logged in one.recorded["ike"]]
    for keys, logged in zip(one.keys.values(), one.recorded["ike"], strict=True):
        assert [getattr(keys, name) for name in names] == [logged.get(name, b"") for name in names]
    assert one.auths == [True, True]
    assert one.children == [of_child(logged) for logged in one.recorded["children"]]
    assert len(one.keys) == len(one.children) == 2
    assert one.opened == len(one.recorded["messages"]) - 2


def test_every_prf_and_both_modes_are_recorded() -> None:
    all_of_them = [read(file) for file in FILES]
    assert {one["prf"] for one in all_of_them if one["version"] == 2} == set(PRFS)
    assert {(one["mode"], one["method"]) for one in all_of_them if one["version"] == 1} == {
        ("main", "psk"),
        ("main", "pubkey"),
        ("aggressive", "psk"),
    }


def capture(recorded: dict[str, Any]) -> bytes:
    """The messages in UDP, in a capture file of bare IPv4 packets (pcap, link type 228)."""
    parts = [struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 228)]
    for at, (side, data) in enumerate(recorded["messages"]):
        ends = [bytes((10, 99, 0, 1)), bytes((10, 99, 0, 2))]
        source, target = ends if side == "i" else ends[::-1]
        size = 28 + len(data)
        packet = struct.pack("!BBHHHBBH", 0x45, 0, size, at, 0, 64, 17, 0) + source + target
        packet += struct.pack("!HHHH", 500, 500, size - 20, 0) + data
        parts.append(struct.pack("<IIII", at, 0, size, size) + packet)
    return b"".join(parts)


UNCHECKED = "ANY 96-bits of Authentication [No Checking]"
"""For an algorithm that tshark does not know; it wants no SK_a with it."""

TSHARK_CIPHERS = {
    "3des-cbc": "3DES [RFC2451]",
    "aes-128-cbc": "AES-CBC-128 [RFC3602]",
    "aes-192-cbc": "AES-CBC-192 [RFC3602]",
    "aes-256-cbc": "AES-CBC-256 [RFC3602]",
    "aes-128-gcm": "AES-GCM-128 with 16 octet ICV [RFC5282]",
}
"""Without single DES, which it cannot open in version 2."""

TSHARK_INTEGRITY = {
    "hmac-sha1-96": "HMAC_SHA1_96 [RFC2404]",
    "hmac-aes-xcbc": UNCHECKED,
    "hmac-sha-256-128": "HMAC_SHA2_256_128 [RFC4868]",
    "hmac-sha-512-256": "HMAC_SHA2_512_256 [RFC4868]",
    "": "NONE [RFC4306]",
}


def rows(recorded: dict[str, Any]) -> list[str]:
    """Preferences for tshark that give it the keys as derived here."""
    if recorded["version"] == 1:
        one = Version1(recorded)
        keys = one.derive()
        key = ikev1.encryption_key(keys, one.cipher)
        return [f"uat:ikev1_decryption_table:{one.cookies[0].hex()},{key.hex()}"]
    two = Version2(recorded)
    two.read()
    cipher, integrity = TSHARK_CIPHERS[recorded["cipher"]], TSHARK_INTEGRITY[recorded["integrity"]]
    made = []
    for (spi_i, spi_r), sk in two.keys.items():
        sk_a = "," if integrity == UNCHECKED else f"{sk.ai.hex()},{sk.ar.hex()}"
        columns = f'{spi_i.hex()},{spi_r.hex()},{sk.ei.hex()},{sk.er.hex()},"{cipher}",{sk_a},"{integrity}"'
        made.append(f"uat:ikev2_decryption_table:{columns}")
    return made


@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem) for file in FILES if file.stem != "v2-hmac-md5"]
)
def test_tshark_opens_the_messages_with_our_keys(file: Path, tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark missing: apt-get install tshark")
    recorded = read(file)
    (tmp_path / "ike.pcap").write_bytes(capture(recorded))
    command = ["tshark", "-r", str(tmp_path / "ike.pcap"), "-T", "fields", "-e", "isakmp.typepayload"]
    for row in rows(recorded):
        command += ["-o", row]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = [set(line.split(",")) for line in done.stdout.splitlines()]
    assert len(found) == len(recorded["messages"]), done.stderr
    for (_, data), types in zip(recorded["messages"], found, strict=True):
        header = Header.parse(data)
        if recorded["version"] == 1:
            # Without the key nothing is seen of a sealed message; with it, its first payload is known.
            assert str(header.next_payload) in types
        elif header.exchange != ExchangeType.IKE_SA_INIT:
            inside = MessageV2.parse(data).payloads[-1]
            assert isinstance(inside, Encrypted)
            assert {str(int(PayloadTypeV2.SK)), *([str(inside.first)] if inside.first else [])} <= types
