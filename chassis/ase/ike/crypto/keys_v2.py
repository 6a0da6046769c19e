"""Key derivation of version 2 (RFC 7296 2.13 to 2.18): prf+, SKEYSEED, the seven SK keys, KEYMAT."""

from __future__ import annotations

from dataclasses import dataclass, field

from chassis.ase.ike.crypto.ciphers import CipherSpec
from chassis.ase.ike.crypto.macs import IntegritySpec, PrfSpec


def prf_plus(prf: PrfSpec, key: bytes, seed: bytes, octets: int) -> bytes:
    """The first `octets` of prf+(key, seed); ValueError beyond 255 blocks (section 2.13)."""
    if octets > 255 * prf.octets:
        raise ValueError(f"prf+ of {prf.name} ends at {255 * prf.octets} octets")
    compute = prf.compute
    block = b""
    blocks: list[bytes] = []
    for counter in range(1, -(-octets // prf.octets) + 1):
        block = compute(key, block + seed + bytes((counter,)))
        blocks.append(block)
    return b"".join(blocks)[:octets]


@dataclass(frozen=True, slots=True)
class IkeKeys:
    """SK_d and the pairs of SK_a, SK_e and SK_p; SK_a is empty with an AEAD. None of them is in `repr`."""

    d: bytes = field(repr=False)
    ai: bytes = field(repr=False)
    ar: bytes = field(repr=False)
    ei: bytes = field(repr=False)
    er: bytes = field(repr=False)
    pi: bytes = field(repr=False)
    pr: bytes = field(repr=False)


def skeyseed(prf: PrfSpec, ni: bytes, nr: bytes, g_ir: bytes) -> bytes:
    """SKEYSEED of a first IKE SA. A PRF with a fixed key takes eight octets of each nonce (section 2.14)."""
    if prf.fixed_key:
        half = prf.octets // 2
        return prf.compute(ni[:half] + nr[:half], g_ir)
    return prf.compute(ni + nr, g_ir)


def skeyseed_rekey(old_prf: PrfSpec, old_sk_d: bytes, g_ir: bytes, ni: bytes, nr: bytes) -> bytes:
    """SKEYSEED of an IKE SA that replaces another: by the old one's PRF and SK_d (section 2.18)."""
    return old_prf.compute(old_sk_d, g_ir + ni + nr)


def ike_keys(
    prf: PrfSpec,
    cipher: CipherSpec,
    integrity: IntegritySpec | None,
    seed: bytes,
    ni: bytes,
    nr: bytes,
    spi_i: bytes,
    spi_r: bytes,
) -> IkeKeys:
    """The seven keys from SKEYSEED `seed`, cut from prf+ in the RFC's order."""
    a = 0 if integrity is None else integrity.key_octets
    e = cipher.key_octets
    p = prf.octets
    stream = prf_plus(prf, seed, ni + nr + spi_i + spi_r, 3 * p + 2 * a + 2 * e)
    keys: list[bytes] = []
    at = 0
    for octets in (p, a, a, e, e, p, p):
        keys.append(stream[at : at + octets])
        at += octets
    return IkeKeys(*keys)


def keymat(prf: PrfSpec, sk_d: bytes, ni: bytes, nr: bytes, octets: int, g_ir: bytes = b"") -> bytes:
    """Keys of a CHILD SA (section 2.17); `g_ir` only when it had a Diffie-Hellman exchange of its own."""
    return prf_plus(prf, sk_d, g_ir + ni + nr, octets)


def split_keymat(material: bytes, sizes: tuple[int, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """(initiator to responder, responder to initiator), each cut to `sizes`.

    `sizes` are the keys of one direction in the order of the packet's protection, for a bundle those of
    the outermost protocol first (RFC 7296 2.17, RFC 4306 2.17): encryption, then integrity.
    """
    cut: list[bytes] = []
    at = 0
    for octets in sizes + sizes:
        cut.append(material[at : at + octets])
        at += octets
    if at != len(material):
        raise ValueError(f"{len(material)} octets of keys for {at}")
    return tuple(cut[: len(sizes)]), tuple(cut[len(sizes) :])
