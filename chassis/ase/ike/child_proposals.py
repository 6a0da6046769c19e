"""SA payloads for CHILD SAs: what is offered in quick mode (IKEv1) or CREATE_CHILD_SA (IKEv2), and what is chosen.

A bundle of AH and ESP is two proposals of one number in both versions (RFC 2408 4.2, RFC 4306 2.7). IPComp is a
third one in IKEv1; in IKEv2 it is a notification outside the SA payload. PFS groups have to be equal; of IPsec
lifetimes the shorter one is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from chassis.ase.ike.crypto.algorithms import CIPHERS, CIPHERS_V1_ESP, INTEGRITY, INTEGRITY_V1_AUTH
from chassis.ase.ike.ike_proposals import (
    DH,
    ESN,
    INTEG,
    Mismatch,
    NoMatch,
    closest,
    compare_v2,
    encr_transform,
    seconds,
)
from chassis.ase.ike.payloads import v1_sa, v2_sa
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ipsec.sa import MIN_SPI
from chassis.model.ipsec import IpsecProposal

LIFE_TYPE: Final = 1
LIFE_DURATION: Final = 2
GROUP: Final = 3
ENCAPSULATION: Final = 4
AUTH_ALGORITHM: Final = 5
KEY_LENGTH: Final = 6
EXTENDED_SEQUENCE: Final = 11

TUNNEL: Final = 1
UDP_TUNNEL: Final = 3
UDP_TUNNEL_DRAFT: Final = 61443
DEFLATE: Final = 2

_KNOWN: Final = frozenset((1, 2, 3, 4, 5, 6, 11))


@dataclass(frozen=True, slots=True)
class Suite:
    """An IPsec proposal with the values of its policy. `group` is that of PFS, None without PFS."""

    proposal: IpsecProposal
    group: int | None = None
    esn: bool = False

    @property
    def ah(self) -> str | None:
        """Integrity algorithm of AH, None without AH."""
        return self.proposal.ah

    @property
    def cipher(self) -> str | None:
        """Cipher of ESP ("null" counts), None without ESP."""
        return self.proposal.esp_cipher

    @property
    def esp_integrity(self) -> str | None:
        """Integrity algorithm of ESP, None without one."""
        return self.proposal.esp_integrity

    @property
    def ip_comp(self) -> bool:
        return self.proposal.ip_comp

    @property
    def seconds(self) -> int:
        """Lifetime (s)."""
        return self.proposal.lifetime_seconds

    @property
    def kbytes(self) -> int | None:
        """Lifetime (kB), None without a limit."""
        return self.proposal.lifetime_kbytes

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """AH and ESP, those that are configured, the outer one first."""
        ah = (Protocol.AH,) if self.ah else ()
        return (*ah, Protocol.ESP) if self.cipher else ah

    @property
    def without_protection(self) -> bool:
        """Whether it has neither cipher nor integrity, which no SA may have (RFC 4303 1)."""
        return not self.ah and not self.esp_integrity and self.cipher in (None, "null")


# --- version 1 ---


def offer_v1(ours: Sequence[Suite], spis: Mapping[int, bytes], encapsulation: int = TUNNEL) -> v1_sa.SaV1:
    """Return the SA payload of quick mode, with one proposal number for each suite.

    `spis` are ours by protocol: 4 octets, IPComp's CPI 2. `encapsulation` is the mode's number (RFC 2407 4.5).

    Raises:
        ValueError: a cipher has no number in IKEv1.
    """
    proposals: list[v1_sa.ProposalV1] = []
    for number, suite in enumerate(ours, 1):
        proposals.extend(_proposals_v1(number, suite, spis, encapsulation))
    return v1_sa.SaV1(tuple(proposals))


def _proposals_v1(
    number: int, suite: Suite, spis: Mapping[int, bytes], encapsulation: int
) -> tuple[v1_sa.ProposalV1, ...]:
    common = [v1_sa.AttributeV1(LIFE_TYPE, 1), v1_sa.AttributeV1(LIFE_DURATION, seconds(suite.seconds))]
    if suite.kbytes is not None:
        common += [v1_sa.AttributeV1(LIFE_TYPE, 2), v1_sa.AttributeV1(LIFE_DURATION, seconds(suite.kbytes))]
    common.append(v1_sa.AttributeV1(ENCAPSULATION, encapsulation))
    if suite.group is not None:
        common.append(v1_sa.AttributeV1(GROUP, suite.group))
    transforms: list[tuple[Protocol, v1_sa.TransformV1]] = []
    sequence = [v1_sa.AttributeV1(EXTENDED_SEQUENCE, 1)] if suite.esn else []
    if suite.ah:
        spec = INTEGRITY[suite.ah]
        attributes = (*common, v1_sa.AttributeV1(AUTH_ALGORITHM, spec.v1_auth), *sequence)
        transforms.append((Protocol.AH, v1_sa.TransformV1(1, spec.v1_ah, attributes)))
    if suite.cipher:
        cipher = CIPHERS[suite.cipher]
        own = list(common)
        if suite.esp_integrity and not cipher.aead:
            own.append(v1_sa.AttributeV1(AUTH_ALGORITHM, INTEGRITY[suite.esp_integrity].v1_auth))
        if cipher.key_bits is not None:
            own.append(v1_sa.AttributeV1(KEY_LENGTH, cipher.key_bits))
        if cipher.v1_esp is None:
            raise ValueError(f"{cipher.name} has no number in IKEv1")
        transforms.append((Protocol.ESP, v1_sa.TransformV1(1, cipher.v1_esp, (*own, *sequence))))
    if suite.ip_comp:
        transforms.append((Protocol.IPCOMP, v1_sa.TransformV1(1, DEFLATE, tuple(common))))
    return tuple(v1_sa.ProposalV1(number, protocol, spis[protocol], (one,)) for protocol, one in transforms)


@dataclass(frozen=True, slots=True)
class ChildChoiceV1:
    """The suite chosen. `answer` is the SA payload with our SPIs, `peer_spis` the peer's by protocol.

    Lifetimes are as the peer offered them (None: it offered none); `encapsulation` is its number for the mode.
    """

    suite: Suite
    answer: v1_sa.SaV1
    peer_spis: Mapping[int, bytes]
    peer_seconds: int | None
    peer_kbytes: int | None
    encapsulation: int


def choose_v1(offered: v1_sa.SaV1, ours: Sequence[Suite], spis: Mapping[int, bytes]) -> ChildChoiceV1 | NoMatch:
    """Choose the first bundle that matches one of our suites. Both or neither must have IPComp.

    Return the mismatches of the closest bundle if none matches.
    """
    refusals: list[list[Mismatch]] = []
    for _, group in groupby(offered.proposals, key=lambda proposal: proposal.number):
        bundle = tuple(group)
        for suite in ours:
            differences, chosen = _compare_bundle(bundle, suite)
            if differences:
                refusals.append(differences)
                continue
            answer = tuple(
                v1_sa.ProposalV1(proposal.number, proposal.protocol, spis[proposal.protocol], (transform,))
                for proposal, transform in zip(bundle, chosen, strict=True)
            )
            lives = _lifetimes(chosen[0])
            peers = {proposal.protocol: proposal.spi for proposal in bundle}
            mode = _numbers(chosen[0]).get(ENCAPSULATION, TUNNEL)
            return ChildChoiceV1(suite, v1_sa.SaV1(answer), peers, lives.get(1), lives.get(2), mode)
    return closest(refusals)


def _compare_bundle(
    bundle: Sequence[v1_sa.ProposalV1], suite: Suite
) -> tuple[list[Mismatch], list[v1_sa.TransformV1]]:
    """Return (mismatches, the best transform of each proposal)."""
    counted = [proposal.protocol for proposal in bundle]
    differences = [
        Mismatch(f"{name} count", counted.count(protocol), configured, log)
        for protocol, name, configured, log in (
            (Protocol.AH, "ah", int(suite.ah is not None), "ikev1-p2-ah-count-mismatch"),
            (Protocol.ESP, "esp", int(suite.cipher is not None), "ikev1-p2-esp-count-mismatch"),
            (Protocol.IPCOMP, "ipcomp", int(suite.ip_comp), ""),
        )
        if counted.count(protocol) != configured
    ]
    if differences or len(set(counted)) != len(counted):
        return differences or [Mismatch("protocols", len(counted), len(set(counted)))], []
    chosen: list[v1_sa.TransformV1] = []
    for proposal in bundle:
        spi = int.from_bytes(proposal.spi, "big")
        if spi < MIN_SPI and proposal.protocol != Protocol.IPCOMP:
            differences.append(Mismatch("smallest SPI", spi, MIN_SPI))
        candidates = [(_compare_v1(proposal.protocol, one, suite), one) for one in proposal.transforms]
        best, transform = min(candidates, key=lambda pair: len(pair[0]))
        differences += best
        chosen.append(transform)
    return differences, chosen


def _numbers(transform: v1_sa.TransformV1) -> dict[int, int]:
    return {one.type: one.number for one in transform.attributes if one.type not in (LIFE_TYPE, LIFE_DURATION)}


def _lifetimes(transform: v1_sa.TransformV1) -> dict[int, int]:
    """Return durations by unit: 1 seconds, 2 kilobytes (RFC 2407 4.5)."""
    lives: dict[int, int] = {}
    unit = 0
    for attribute in transform.attributes:
        if attribute.type == LIFE_TYPE:
            unit = attribute.number
        elif attribute.type == LIFE_DURATION:
            lives[unit] = attribute.number
    return lives


def _compare_v1(protocol: int, transform: v1_sa.TransformV1, suite: Suite) -> list[Mismatch]:
    differences: list[Mismatch] = []
    values = _numbers(transform)
    for kind in values.keys() - _KNOWN:
        differences.append(Mismatch("attribute", kind, 0))
    mode = values.get(ENCAPSULATION, TUNNEL)
    if mode not in (TUNNEL, UDP_TUNNEL, UDP_TUNNEL_DRAFT):
        differences.append(Mismatch("encapsulation", mode, TUNNEL))
    group = values.get(GROUP)
    if group != suite.group:
        differences.append(Mismatch("group", group or 0, suite.group or 0, "ikev1-p2-dh-group-mismatch"))
    if protocol == Protocol.IPCOMP:
        if transform.id != DEFLATE:
            differences.append(Mismatch("compression", transform.id, DEFLATE))
        return differences
    esn = values.get(EXTENDED_SEQUENCE, 0) == 1
    if esn != suite.esn:
        differences.append(Mismatch("esn", int(esn), int(suite.esn)))
    wanted = suite.ah if protocol == Protocol.AH else suite.esp_integrity
    if protocol == Protocol.ESP and suite.cipher is not None:
        cipher = CIPHERS[suite.cipher]
        bits = values.get(KEY_LENGTH)
        if (transform.id, bits) != (cipher.v1_esp, cipher.key_bits):
            found = CIPHERS_V1_ESP.get((transform.id, bits)) or CIPHERS_V1_ESP.get((transform.id, 128))
            received, configured = found.log_esp if found else str(transform.id), cipher.log_esp
            if received == configured:
                received, configured = f"{received}_{bits}", f"{configured}_{cipher.key_bits}"
            differences.append(Mismatch("cipher", received, configured, "ikev1-p2-encr-alg-mismatch"))
        if cipher.aead:
            wanted = None
    number = values.get(AUTH_ALGORITHM)
    spec = None if wanted is None else INTEGRITY[wanted]
    identifier_fits = protocol != Protocol.AH or spec is None or transform.id == spec.v1_ah
    if number != (None if spec is None else spec.v1_auth) or not identifier_fits:
        peer = INTEGRITY_V1_AUTH.get(number or 0)
        name = peer.log_phase_2 if peer else "NONE" if number is None else str(number)
        own = "NONE" if spec is None else spec.log_phase_2
        differences.append(Mismatch("integrity", name, own, "ikev1-p2-auth-alg-mismatch"))
    return differences


# --- version 2 ---


def offer_v2(ours: Sequence[Suite], spis: Mapping[int, bytes], *, with_group: bool) -> v2_sa.SaV2:
    """Return the SA payload of CREATE_CHILD_SA, or without `with_group` of IKE_AUTH, which has no KE."""
    return v2_sa.SaV2(
        tuple(
            v2_sa.ProposalV2(number, protocol, spis[protocol], _transforms_v2(suite, protocol, with_group))
            for number, suite in enumerate(ours, 1)
            for protocol in suite.protocols
        )
    )


def _transforms_v2(suite: Suite, protocol: int, with_group: bool) -> tuple[v2_sa.TransformV2, ...]:
    transforms: list[v2_sa.TransformV2] = []
    integrity = suite.ah
    if protocol == Protocol.ESP and suite.cipher is not None:
        cipher = CIPHERS[suite.cipher]
        transforms.append(encr_transform(cipher))
        integrity = None if cipher.aead else suite.esp_integrity
    if integrity is not None:
        transforms.append(v2_sa.TransformV2(INTEG, INTEGRITY[integrity].v2))
    if with_group and suite.group is not None:
        transforms.append(v2_sa.TransformV2(DH, suite.group))
    transforms.append(v2_sa.TransformV2(ESN, int(suite.esn)))
    return tuple(transforms)


@dataclass(frozen=True, slots=True)
class ChildChoiceV2:
    """The suite chosen. `answer` is the SA payload with our SPIs, `peer_spis` the peer's by protocol."""

    suite: Suite
    answer: v2_sa.SaV2
    peer_spis: Mapping[int, bytes]


def _without_group(proposal: v2_sa.ProposalV2) -> v2_sa.ProposalV2:
    return replace(proposal, transforms=tuple(one for one in proposal.transforms if one.type != DH))


_LOGS_V2: Final = {"group": "ikev2-mismatch-pfs-group", "esn": "ikev2-mismatch-esn"}


def choose_v2(
    offered: v2_sa.SaV2, ours: Sequence[Suite], spis: Mapping[int, bytes], *, with_group: bool
) -> ChildChoiceV2 | NoMatch:
    """Choose the first proposal (or bundle of one number) that has all transforms of one of our suites.

    With `with_group` False, in IKE_AUTH, groups that the peer offers are ignored (RFC 7296 1.2). Return the
    mismatches of the closest proposal if none matches.
    """
    refusals: list[list[Mismatch]] = []
    heeded = offered.proposals if with_group else map(_without_group, offered.proposals)
    for number, group in groupby(heeded, key=lambda proposal: proposal.number):
        proposals = tuple(group)
        bundle: dict[int, v2_sa.ProposalV2] = {proposal.protocol: proposal for proposal in proposals}
        place = (("proposal", number),)
        if len(bundle) != len(proposals):
            # Two proposals of one number and protocol: the peer's SPI would be ambiguous.
            refusals.append([Mismatch("protocols", len(proposals), len(bundle), "", place)])
            continue
        for suite in ours:
            if set(bundle) != set(suite.protocols):
                counts = (len(bundle), len(suite.protocols))
                log = "ikev2-mismatch-protocol-count" if counts[0] != counts[1] else ""
                refusals.append([Mismatch("count", *counts, log, place)])
                continue
            wanted: dict[int, tuple[v2_sa.TransformV2, ...]] = {
                protocol: _transforms_v2(suite, protocol, with_group) for protocol in suite.protocols
            }
            differences: list[Mismatch] = []
            for protocol, transforms in wanted.items():
                for one in compare_v2(bundle[protocol], transforms):
                    log = _LOGS_V2.get(one.field, "")
                    if protocol == Protocol.AH and one.field == "integrity":
                        log = "ikev2-mismatch-ah-auth"
                    elif one.field == "cipher":
                        log = "ikev2-mismatch-esp-encr"
                    differences.append(Mismatch(one.field, one.received, one.configured, log, place))
            if differences:
                refusals.append(differences)
                continue
            answer = tuple(v2_sa.ProposalV2(number, p, spis[p], wanted[p]) for p in bundle if p in wanted)
            return ChildChoiceV2(suite, v2_sa.SaV2(answer), {p: bundle[p].spi for p in bundle})
    return closest(refusals)
