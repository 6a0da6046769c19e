"""SA payloads for IKE SAs of both versions: what is offered from the configuration, and what is chosen.

The result of a choice is the configured proposal that matches, or the mismatches of the closest two proposals, for
the log texts of the guide's tables 5 and 6. Rules of guide chapter 5: offers are tried in the initiator's order,
each against ours in sequence order; the IKEv1 lifetime has to be equal unless `strict_lifetime` is off. CHILD SAs
are in `child_proposals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from chassis.ase.ike.crypto.algorithms import (
    CIPHERS,
    CIPHERS_V1,
    CIPHERS_V2,
    INTEGRITY,
    INTEGRITY_V1_HASH,
    INTEGRITY_V2,
    PRFS,
    CipherSpec,
    IntegritySpec,
    PrfSpec,
)
from chassis.ase.ike.payloads import v1_sa, v2_sa
from chassis.ase.ike.payloads.numbers import KEY_IKE, Protocol
from chassis.model.ike import IkePolicy, IkeProposal

ENCR: Final = 1
PRF: Final = 2
INTEG: Final = 3
DH: Final = 4
ESN: Final = 5

OAKLEY_CIPHER: Final = 1
OAKLEY_HASH: Final = 2
OAKLEY_METHOD: Final = 3
OAKLEY_GROUP: Final = 4
OAKLEY_LIFE_TYPE: Final = 11
OAKLEY_LIFE_DURATION: Final = 12
OAKLEY_PRF: Final = 13
OAKLEY_KEY_LENGTH: Final = 14
_OAKLEY: Final = frozenset((*range(1, 5), 11, 12, 14))

METHODS_V1: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {"pre-shared-key": (1, "PRE_SHAREDKEY"), "rsa-signature": (3, "RSA_SIGN")}
)
"""Authentication methods of IKEv1: (number, name in log texts)."""
_METHOD_NAMES: Final = dict(METHODS_V1.values())

MAX_SETTLED: Final = 64
"""Choices without an answer that are kept to be shared (count)."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A value that differs. `field` is cipher, integrity, prf, group, method, lifetime, count or another name.

    `log` is an id of `log.TEMPLATES` or "" when the guide has no line for it; `received` and
    `configured` are in the words of that line, `more` holds what else it needs.
    """

    field: str
    received: Any
    configured: Any
    log: str = ""
    more: tuple[tuple[str, Any], ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """Values for the template."""
        return {"received": self.received, "configured": self.configured, **dict(self.more)}


@dataclass(frozen=True, slots=True)
class NoMatch:
    """No proposal matches: the mismatches of the closest two (the first of several equally close)."""

    mismatches: tuple[Mismatch, ...]

    @property
    def only_mismatch(self) -> Mismatch | None:
        """The mismatch if it is the only one, else None."""
        return self.mismatches[0] if len(self.mismatches) == 1 else None


def ordered(policy: IkePolicy, proposals: Mapping[str, IkeProposal]) -> tuple[IkeProposal, ...]:
    """Return the proposals of a policy in sequence order, without missing ones and those of the other version."""
    found = (proposals.get(ref.name) for ref in sorted(policy.proposals, key=lambda ref: ref.seq))
    return tuple(proposal for proposal in found if proposal is not None and proposal.version == policy.version)


def closest(refusals: Iterable[Sequence[Mismatch]]) -> NoMatch:
    """Return the refusal with the fewest mismatches."""
    best: Sequence[Mismatch] = min(refusals, key=len, default=())
    return NoMatch(tuple(best))


def seconds(octets: int) -> int | bytes:
    """Return a duration as an attribute value: a number up to 65535, else 4 octets (RFC 2408 3.3)."""
    return octets if octets <= 0xFFFF else octets.to_bytes(4, "big")


# --- version 1, phase 1 ---


def offer_v1(proposals: Sequence[IkeProposal]) -> v1_sa.SaV1:
    """Return the SA payload of main or aggressive mode: one proposal, with a transform for each of ours.

    Raises:
        ValueError: an algorithm has no number in IKEv1.
    """
    transforms = tuple(_transform_v1(number, proposal) for number, proposal in enumerate(proposals, 1))
    return v1_sa.SaV1((v1_sa.ProposalV1(1, Protocol.IKE, b"", transforms),))


def _transform_v1(number: int, proposal: IkeProposal) -> v1_sa.TransformV1:
    cipher = CIPHERS[proposal.encryption_algorithm]
    integrity = INTEGRITY[proposal.authentication_algorithm]
    if cipher.v1 is None or integrity.v1_hash is None:
        raise ValueError(f"{proposal.name}: {cipher.name} with {integrity.name} has no numbers in IKEv1")
    attributes = [
        v1_sa.AttributeV1(OAKLEY_CIPHER, cipher.v1),
        v1_sa.AttributeV1(OAKLEY_HASH, integrity.v1_hash),
        v1_sa.AttributeV1(OAKLEY_METHOD, METHODS_V1[proposal.authentication][0]),
        v1_sa.AttributeV1(OAKLEY_GROUP, proposal.dh_group),
        v1_sa.AttributeV1(OAKLEY_LIFE_TYPE, 1),
        v1_sa.AttributeV1(OAKLEY_LIFE_DURATION, seconds(proposal.lifetime)),
    ]
    if cipher.key_bits is not None:
        attributes.insert(1, v1_sa.AttributeV1(OAKLEY_KEY_LENGTH, cipher.key_bits))
    return v1_sa.TransformV1(number, KEY_IKE, tuple(attributes))


@dataclass(frozen=True, slots=True)
class ChoiceV1:
    """The proposal chosen for phase 1. `answer` is the SA payload to send; `lifetime` is in seconds."""

    proposal: IkeProposal
    answer: v1_sa.SaV1
    cipher: CipherSpec
    integrity: IntegritySpec
    lifetime: int


@lru_cache(maxsize=MAX_SETTLED)
def settled_v1(proposal: IkeProposal, lifetime: int) -> ChoiceV1:
    """Return the choice of a proposal without its answer. All established ISAKMP SAs of the two share it."""
    integrity = INTEGRITY[proposal.authentication_algorithm]
    return ChoiceV1(proposal, v1_sa.SaV1(()), CIPHERS[proposal.encryption_algorithm], integrity, lifetime)


def choose_v1(
    offered: v1_sa.SaV1, ours: Sequence[IkeProposal], *, strict_lifetime: bool = True
) -> ChoiceV1 | NoMatch:
    """Choose the first transform that matches one of our proposals. The initiator also checks answers with it."""
    refusals: list[list[Mismatch]] = []
    for proposal in offered.proposals:
        if proposal.protocol != Protocol.IKE:
            continue
        for transform in proposal.transforms:
            for own in ours:
                differences, lifetime = _compare_v1(transform, own, strict_lifetime)
                if not differences:
                    answer = v1_sa.SaV1(
                        (v1_sa.ProposalV1(proposal.number, Protocol.IKE, proposal.spi, (transform,)),)
                    )
                    return replace(settled_v1(own, lifetime), answer=answer)
                refusals.append(differences)
    return closest(refusals)


def _compare_v1(transform: v1_sa.TransformV1, own: IkeProposal, strict: bool) -> tuple[list[Mismatch], int]:
    """Return (mismatches, lifetime in seconds if there are none)."""
    if transform.id != KEY_IKE:
        more = (("value", transform.id),)
        return [Mismatch("transform", transform.id, KEY_IKE, "ikev1-invalid-xform-id", more)], 0
    differences: list[Mismatch] = []
    values: dict[int, int] = {}
    unit = 0
    received_life: int | None = None
    for attribute in transform.attributes:
        if attribute.type not in _OAKLEY:
            more = (("value", attribute.type),)
            differences.append(Mismatch("attribute", attribute.type, 0, "ikev1-unsupported-attribute", more))
        elif attribute.type == OAKLEY_LIFE_TYPE:
            unit = attribute.number
        elif attribute.type == OAKLEY_LIFE_DURATION:
            if unit == 1:
                received_life = attribute.number
        else:
            values[attribute.type] = attribute.number
    cipher = CIPHERS[own.encryption_algorithm]
    number, bits = values.get(OAKLEY_CIPHER, 0), values.get(OAKLEY_KEY_LENGTH)
    if (number, bits) != (cipher.v1, cipher.key_bits):
        known = CIPHERS_V1.get((number, bits)) or CIPHERS_V1.get((number, None)) or CIPHERS_V1.get((number, 128))
        received, configured = known.log_v1 if known else str(number), cipher.log_v1
        if received == configured:
            received, configured = f"{received}_{bits}", f"{configured}_{cipher.key_bits}"
        differences.append(Mismatch("cipher", received, configured, "ikev1-p1-encr-alg-mismatch"))
    integrity = INTEGRITY[own.authentication_algorithm]
    hash_number = values.get(OAKLEY_HASH, 0)
    if hash_number != integrity.v1_hash:
        found = INTEGRITY_V1_HASH.get(hash_number)
        name = found.log_v1 if found else str(hash_number)
        differences.append(Mismatch("integrity", name, integrity.log_v1, "ikev1-p1-auth-alg-mismatch"))
    wanted, method_name = METHODS_V1[own.authentication]
    method = values.get(OAKLEY_METHOD, 0)
    if method != wanted:
        name = _METHOD_NAMES.get(method, str(method))
        differences.append(Mismatch("method", name, method_name, "ikev1-p1-auth-method-mismatch"))
    group = values.get(OAKLEY_GROUP, 0)
    if group != own.dh_group:
        differences.append(Mismatch("group", group, own.dh_group, "ikev1-p1-dh-group-mismatch"))
    lifetime = own.lifetime if received_life is None else min(received_life, own.lifetime)
    if strict and received_life != own.lifetime:
        differences.append(Mismatch("lifetime", received_life, own.lifetime))
    return differences, lifetime


# --- version 2, IKE SA ---


def offer_v2(proposals: Sequence[IkeProposal], spi: bytes = b"") -> v2_sa.SaV2:
    """Return the SA payload of IKE_SA_INIT, or with `spi` (8 octets) of a rekey of the IKE SA."""
    return v2_sa.SaV2(
        tuple(
            v2_sa.ProposalV2(number, Protocol.IKE, spi, _transforms_v2(proposal))
            for number, proposal in enumerate(proposals, 1)
        )
    )


def encr_transform(cipher: CipherSpec) -> v2_sa.TransformV2:
    """Return the ENCR transform of a cipher, with its key length if it has one."""
    if cipher.key_bits is None:
        return v2_sa.TransformV2(ENCR, cipher.v2)
    return v2_sa.TransformV2(ENCR, cipher.v2, (v2_sa.AttributeV2(v2_sa.KEY_LENGTH, cipher.key_bits),))


def _transforms_v2(proposal: IkeProposal) -> tuple[v2_sa.TransformV2, ...]:
    cipher = CIPHERS[proposal.encryption_algorithm]
    transforms = [encr_transform(cipher), v2_sa.TransformV2(PRF, PRFS[proposal.prf].v2)]
    if not cipher.aead:
        transforms.append(v2_sa.TransformV2(INTEG, INTEGRITY[proposal.authentication_algorithm].v2))
    transforms.append(v2_sa.TransformV2(DH, proposal.dh_group))
    return tuple(transforms)


@dataclass(frozen=True, slots=True)
class ChoiceV2:
    """The proposal chosen for an IKE SA. `answer` is the SA payload to send; `integrity` is None with an AEAD."""

    proposal: IkeProposal
    answer: v2_sa.SaV2
    cipher: CipherSpec
    prf: PrfSpec
    integrity: IntegritySpec | None
    group: int


@lru_cache(maxsize=MAX_SETTLED)
def settled_v2(proposal: IkeProposal) -> ChoiceV2:
    """Return the choice of a proposal without its answer. All established IKE SAs of the proposal share it."""
    cipher = CIPHERS[proposal.encryption_algorithm]
    integrity = None if cipher.aead else INTEGRITY[proposal.authentication_algorithm]
    return ChoiceV2(proposal, v2_sa.SaV2(()), cipher, PRFS[proposal.prf], integrity, proposal.dh_group)


def choose_v2(offered: v2_sa.SaV2, ours: Sequence[IkeProposal], spi: bytes = b"") -> ChoiceV2 | NoMatch:
    """Choose the first offer that has all transforms of one of our proposals. Lifetimes are not negotiated.

    `spi` goes into the answer of a rekey. The initiator checks the answer with it, too.
    """
    refusals: list[list[Mismatch]] = []
    foreign: list[list[Mismatch]] = []
    for proposal in offered.proposals:
        if proposal.protocol != Protocol.IKE:
            more = (("protocol", proposal.protocol), ("proposal", proposal.number))
            foreign.append(
                [Mismatch("protocol", proposal.protocol, Protocol.IKE, "ikev2-invalid-protocol-id", more)]
            )
            continue
        for own in ours:
            wanted = _transforms_v2(own)
            differences = compare_v2(proposal, wanted)
            if not differences:
                answer = v2_sa.SaV2((v2_sa.ProposalV2(proposal.number, Protocol.IKE, spi, wanted),))
                return replace(settled_v2(own), answer=answer)
            refusals.append(differences)
    return closest(refusals or foreign)


_FIELDS_V2: Final = {ENCR: "cipher", PRF: "prf", INTEG: "integrity", DH: "group", ESN: "esn"}


def compare_v2(proposal: v2_sa.ProposalV2, wanted: Sequence[v2_sa.TransformV2]) -> list[Mismatch]:
    """Return the mismatches of an offer: missing `wanted` transforms, and types that are not wanted.

    A transform with an unknown attribute does not match (RFC 7296 3.3.6). INTEG and DH "none" (0) count as absent.
    """
    differences: list[Mismatch] = []
    types = {transform.type: transform for transform in wanted}
    by_type: dict[int, list[v2_sa.TransformV2]] = {}
    for transform in proposal.transforms:
        by_type.setdefault(transform.type, []).append(transform)
    for kind, transform in types.items():
        received = by_type.pop(kind, [])
        if transform in received or (transform.id == 0 and kind == ESN and not received):
            continue
        first = received[0] if received else None
        differences.append(_mismatch_v2(kind, first, transform))
    for kind, received in by_type.items():
        if not any(transform.id == 0 for transform in received):
            differences.append(_mismatch_v2(kind, received[0], None))
    return differences


def _mismatch_v2(kind: int, received: v2_sa.TransformV2 | None, wanted: v2_sa.TransformV2 | None) -> Mismatch:
    return Mismatch(_FIELDS_V2.get(kind, f"transform {kind}"), name_v2(kind, received), name_v2(kind, wanted))


def name_v2(kind: int, transform: v2_sa.TransformV2 | None) -> str | int:
    """Return a transform as the guide's table 6 names it; a number for groups and ESN."""
    number = 0 if transform is None else transform.id
    if kind == ENCR:
        cipher = CIPHERS_V2.get((number, None if transform is None else transform.key_bits))
        return "NULL" if transform is None else cipher.log_v2 if cipher else f"ENCR-{number}"
    if kind == INTEG:
        integrity = INTEGRITY_V2.get(number)
        return integrity.log_v2 if integrity else "AUTH_NONE" if number == 0 else f"AUTH-{number}"
    return number
