"""SAs and SPD entries from records (manual keys) and from IKE's messages.

The result for one SPD entry is an SA pair, one SA in each direction (RFC 4301 4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chassis.ase.entry_numbers import entry_number
from chassis.ase.ike_messages import SaInstall
from chassis.ase.ipsec.ipcomp import CPI_DEFLATE
from chassis.ase.ipsec.sa import (
    MAX_SEQUENCE,
    Ah,
    ByteLifetime,
    DfPolicy,
    Esp,
    InboundSa,
    OutboundSa,
    SaError,
    SequenceLease,
    UdpPorts,
)
from chassis.ase.ipsec.spd import Rule, SpdEntry
from chassis.bus.messages import SaReport
from chassis.bus.records import LeaseRecord, TunnelRecord
from chassis.model.acl import Acl, AclRule
from chassis.model.ipsec import ManualSa, SaKeys, TunnelEntry

SEQUENCE_END = MAX_SEQUENCE + 1

NEGOTIATED = frozenset({"static", "on-demand"})
"""Kinds of tunnels whose SAs IKE makes."""
"""Kind of a tunnel whose SAs IKE negotiates; the word is the guide's."""

KILOBYTE = 1024

Acls = Mapping[tuple[int, str], Acl]


class Incomplete(Exception):
    """A tunnel cannot have its SAs. The text is the reason that the operator reads."""


@dataclass(frozen=True, slots=True)
class SaPair:
    """The SAs of one SPD entry. An entry of a negotiated tunnel may have several pairs."""

    outbound: OutboundSa
    inbound: InboundSa
    lease: SequenceLease | None
    """None: only the stored state of the router's ASPs knows which sequence numbers are left."""
    spd_entry: SpdEntry


def manual_pair(record: TunnelRecord, entry: TunnelEntry, sas: Mapping[str, ManualSa], acls: Acls) -> SaPair:
    """Return the SA pair of an entry with manual keys. Its serial is the number of the entry.

    Raises:
        Incomplete: the entry's manual SA or access list is missing or not valid, or the controller holds it back.
    """
    if not entry.sa:
        raise Incomplete(f"seq {entry.seq} names no security association")
    lease = record.lease(entry.seq)
    if lease.hold:
        raise Incomplete(lease.hold)
    sa = sas.get(entry.sa)
    if sa is None:
        raise Incomplete(f"security association {entry.sa} does not exist")
    # On a manual tunnel only the first rule filters (guide 8.4).
    rules = entry_rules(record, entry, acls, 1)
    outbound, inbound = sa.keys("out"), sa.keys("in")
    try:
        return SaPair(
            OutboundSa(
                tunnel=record.number,
                serial=entry.seq,
                source=record.local,
                destination=record.remote,
                entry=entry.seq,
                context=record.outer_context,
                esp=_esp(outbound),
                ah=_ah(outbound),
                df=df_policy(record),
                ip_comp=sa.ip_comp,
                assignment=lease.assignment,
            ),
            InboundSa(
                tunnel=record.number,
                serial=entry.seq,
                source=record.remote,
                destination=record.local,
                context=record.outer_context,
                esp=_esp(inbound),
                ah=_ah(inbound),
                window=sa.replay_window,
                selectors=tuple([rule.mirrored() for rule in rules]),
                ip_comp=sa.ip_comp,
                assignment=lease.assignment,
                closed=lease.closed,
            ),
            _lease(lease),
            SpdEntry(entry.seq, rules),
        )
    except SaError as error:
        raise Incomplete(f"security association {entry.sa}: {error}") from None


def negotiated_pair(record: TunnelRecord, install: SaInstall) -> SaPair:
    """Return the SA pair that IKE negotiated.

    Raises:
        SaError: an algorithm, key or selector is not valid.
        Incomplete: the tunnel's record has no valid DF policy.
    """
    limits = _limits(install)
    encapsulation = install.encapsulation[0] if install.encapsulation else None
    try:
        rules = tuple([rule_of(rule) for rule in install.rules])
    except ValueError as error:
        raise SaError(str(error)) from None
    outbound = OutboundSa(
        tunnel=record.number,
        serial=install.serial,
        source=install.local,
        destination=encapsulation.remote if encapsulation else install.remote,
        entry=install.entry,
        context=record.outer_context,
        esp=_esp(install.outbound),
        ah=_ah(install.outbound),
        df=df_policy(record),
        ip_comp=install.cpi_out != 0,
        cpi=install.cpi_out or CPI_DEFLATE,
        esn=install.esn,
        negotiated=True,
        udp=UdpPorts(encapsulation.local_port, encapsulation.remote_port) if encapsulation else None,
        lifetime=limits,
        selectors=rules,
    )
    inbound = InboundSa(
        tunnel=record.number,
        serial=install.serial,
        source=install.remote,
        destination=install.local,
        context=record.outer_context,
        esp=_esp(install.inbound),
        ah=_ah(install.inbound),
        window=install.window,
        selectors=tuple([rule.mirrored() for rule in rules]),
        ip_comp=install.cpi_in != 0,
        cpi=install.cpi_in or CPI_DEFLATE,
        esn=install.esn,
        negotiated=True,
        udp=encapsulation is not None,
        lifetime=limits,
        entry=install.entry,
    )
    lease = SequenceLease(limit=outbound.max_sequence + 1)
    return SaPair(outbound, inbound, lease, SpdEntry(install.entry, rules))


def entry_rules(record: TunnelRecord, entry: TunnelEntry, acls: Acls, most: int | None = None) -> tuple[Rule, ...]:
    """Return the rules (the first `most`) that select the traffic of an entry; `()` matches everything.

    Raises:
        Incomplete: the access list is missing, empty or not valid.
    """
    if not entry.acl:
        return ()
    acl = acls.get((record.context, entry.acl))
    if acl is None:
        raise Incomplete(f"access list {entry.acl} does not exist")
    if not acl.rules:
        raise Incomplete(f"access list {entry.acl} has no rule")
    try:
        return tuple([rule_of(rule) for rule in acl.rules[:most]])
    except ValueError as error:
        raise Incomplete(f"access list {entry.acl}: {error}") from None


def spd_entries(record: TunnelRecord, acls: Acls, per_rule: bool) -> tuple[SpdEntry, ...]:
    """Return the SPD entries of a negotiated tunnel: every rule of its access lists counts (guide 8.4).

    `per_rule`: each rule is an entry of its own, as IKEv1 negotiates it.

    Raises:
        Incomplete: the tunnel has no entry, or an access list is missing, empty or not valid.
    """
    if not record.config.entries:
        raise Incomplete("no policy entry")
    result: list[SpdEntry] = []
    for entry in record.config.entries:
        rules = entry_rules(record, entry, acls)
        if per_rule and rules:
            seqs = [rule.seq for rule in acls[record.context, entry.acl or ""].rules]
            result += [
                SpdEntry(entry_number(entry.seq, seq), (rule,)) for seq, rule in zip(seqs, rules, strict=True)
            ]
        else:
            result.append(SpdEntry(entry.seq, rules))
    return tuple(result)


def df_policy(record: TunnelRecord) -> DfPolicy:
    """Return the DF policy of a tunnel's outer headers.

    Raises:
        Incomplete: the record's value is not a DF policy.
    """
    try:
        return DfPolicy(record.config.df_bit)
    except ValueError:
        raise Incomplete(f"df-bit {record.config.df_bit} is not valid; expected propagate, set or clear") from None


def rule_of(rule: AclRule) -> Rule:
    """Return the rule of a record.

    Raises:
        ValueError: a prefix or port is not valid.
    """
    return Rule(rule.protocol, rule.source, rule.source_port, rule.destination, rule.destination_port)


def sa_reports(pairs: Iterable[SaPair]) -> tuple[SaReport, ...]:
    """Return what is reported of SAs: one report for each protocol and direction."""
    states = []
    for pair in pairs:
        for sa, direction, peer, window in (
            (pair.outbound, "out", pair.outbound.destination, 0),
            (pair.inbound, "in", pair.inbound.source, pair.inbound.window),
        ):
            if sa.ah is not None:
                states.append(
                    SaReport(sa.tunnel, sa.serial, direction, "ah", sa.ah.spi, peer, sa.ah.integrity, window)
                )
            if sa.esp is not None:
                integrity = sa.esp.integrity
                names = f"{sa.esp.cipher} {integrity}" if integrity else sa.esp.cipher
                # Without an ICV there is no window (RFC 4303 3.4.3).
                kept = window if sa.esp.icv_octets else 0
                states.append(SaReport(sa.tunnel, sa.serial, direction, "esp", sa.esp.spi, peer, names, kept))
    return tuple(states)


def _limits(install: SaInstall) -> ByteLifetime:
    """Return the octets of a pair's lifetime. The soft limit is at least a kilobyte below the hard one, for the
    traffic during the rekey; a pair with a smaller lifetime is rekeyed from its first packet on."""
    hard = install.kbytes * KILOBYTE
    if not hard:
        return ByteLifetime()
    return ByteLifetime(max(min(install.soft_kbytes * KILOBYTE, hard - KILOBYTE), 1), hard)


def _esp(keys: SaKeys) -> Esp | None:
    if not keys.esp_spi:
        return None
    return Esp(
        keys.esp_spi,
        keys.esp_cipher,
        keys.esp_cipher_key,
        keys.esp_integrity or None,
        keys.esp_integrity_key,
    )


def _ah(keys: SaKeys) -> Ah | None:
    return Ah(keys.ah_spi, keys.ah_integrity, keys.ah_key) if keys.ah_spi else None


def _lease(lease: LeaseRecord) -> SequenceLease | None:
    if lease.start < 1:
        return None
    first = min(max(lease.start, 1), SEQUENCE_END)
    return SequenceLease(first, min(max(lease.end, first), SEQUENCE_END))
