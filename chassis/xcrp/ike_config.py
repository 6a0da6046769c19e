"""Negotiated tunnels: what their configuration must have before IKE can begin, and what of it their ASP gets.

Names are looked up where S-062 says: the IKE policy in the context of the peer end point, access lists in that of
the bound interface, all else for the whole router.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chassis.bus import records as bus
from chassis.bus.records import Key, Record
from chassis.model.ike import IkePolicy, IkeProposal, ProposalRef
from chassis.model.ipsec import IpsecPolicy, IpsecProposal
from chassis.model.router import Config, Tunnel
from chassis.xcrp.flash import TRUSTED, Item, Store

IKE_POLICY = "IKE policy"
IKE_PROPOSAL = "IKE proposal"
IPSEC_POLICY = "IPsec policy"
IPSEC_PROPOSAL = "IPsec proposal"
ACL = "access list"
KEY = "pre-shared key"
AAA = "AAA"
CERTIFICATE = "certificate"


def policy_of(config: Config, tunnel: Tunnel) -> IkePolicy | None:
    """The IKE policy of a tunnel, where it is defined."""
    context = config.contexts.get(tunnel.context)
    return context.ike_policies.get(tunnel.ike_policy) if context is not None and tunnel.ike_policy else None


def proposals_of(config: Config, policy: IkePolicy) -> list[IkeProposal]:
    """The proposals that a policy can use: those that are defined, of its version, and possible in it."""
    found = [config.ike_proposals.get(line.name) for line in policy.proposals]
    return [one for one in found if one is not None and one.version == policy.version and one.exists]


def methods(config: Config, policy: IkePolicy) -> set[str]:
    """How this end may have to prove its identity: version 1 says it in the proposals, version 2 in the policy."""
    if policy.version == 2:
        return {policy.authentication}
    return {proposal.authentication for proposal in proposals_of(config, policy)}


def fault(config: Config, tunnel: Tunnel, flash: Store) -> str:
    """The first condition of a negotiated tunnel that its configuration leaves unmet, or empty (B-024, S-039)."""
    if not tunnel.ike_policy:
        return IKE_POLICY
    policy = policy_of(config, tunnel)
    if policy is None:
        return f"{IKE_POLICY}: no {tunnel.ike_policy} in context {tunnel.context}"
    return _policy_fault(config, policy, tunnel.context, flash) or _lines_fault(config, tunnel)


def _policy_fault(config: Config, policy: IkePolicy, context: str, flash: Store) -> str:
    if not proposals_of(config, policy):
        return f"{IKE_PROPOSAL}: {_none(policy.name, policy.proposals)}"
    key = policy.pre_shared_key
    if key is not None and key.form == "aaa":
        # B-092: AAA knows the keys of on-demand peers only.
        return f"{AAA}: policy {policy.name} has its pre-shared key from AAA"
    wanted = methods(config, policy)
    if "pre-shared-key" in wanted and key is None:
        return f"{KEY}: policy {policy.name} has none"
    if "rsa-signature" in wanted:
        lacks = flash.flaw(context)
        if lacks:
            return f"{CERTIFICATE}: {lacks}"
    return ""


def _lines_fault(config: Config, tunnel: Tunnel) -> str:
    if not tunnel.entries:
        return IPSEC_POLICY
    acls = config.contexts[tunnel.interface_context].acls
    for entry in tunnel.entries:
        policy = config.ipsec_policies.get(entry.policy) if entry.policy else None
        if policy is None:
            return f"{IPSEC_POLICY}: {entry.policy}" if entry.policy else IPSEC_POLICY
        if not any(line.name in config.ipsec_proposals for line in policy.proposals):
            return f"{IPSEC_PROPOSAL}: {_none(policy.name, policy.proposals)}"
        if entry.acl and entry.acl not in acls:
            return f"{ACL}: {entry.acl}"
    return ""


def _none(policy: str, lines: Sequence[ProposalRef]) -> str:
    """Of a policy without a proposal that can be used."""
    if not lines:
        return f"policy {policy} names none"
    return f"none of policy {policy} is there ({', '.join(line.name for line in lines)})"


def needed(config: Config, tunnel: Tunnel, numbers: dict[str, int], flash: Store) -> Iterator[Key]:
    """Keys of the records that the ASP of a negotiated tunnel gets, and no other ASP that has no use for them."""
    policy = policy_of(config, tunnel)
    outer = numbers.get(tunnel.context, 0)
    if policy is not None:
        yield (bus.IkePolicyRecord.TYPE, outer, policy.name)
        for proposal in proposals_of(config, policy):
            yield (bus.IkeProposalRecord.TYPE, proposal.name)
        own = "rsa-signature" in methods(config, policy)
        for item in flash.items.get(tunnel.context, ()):
            # In version 2 the peer may prove itself by a certificate where we do not.
            if own or (policy.version == 2 and item.kind == TRUSTED):
                yield (bus.CertificateRecord.TYPE, outer, item.kind, item.name)
    inner = numbers.get(tunnel.interface_context, 0)
    for entry in tunnel.entries:
        ipsec = config.ipsec_policies.get(entry.policy) if entry.policy else None
        if ipsec is not None:
            yield (bus.IpsecPolicyRecord.TYPE, ipsec.name)
            for line in ipsec.proposals:
                yield (bus.IpsecProposalRecord.TYPE, line.name)
        if entry.acl:
            yield (bus.AclRecord.TYPE, inner, entry.acl)


def records(
    config: Config, numbers: dict[str, int], flash: Store, wanted: frozenset[Key], *, esn: bool
) -> Iterator[Record]:
    """The records of IKE and of its stores that some ASP needs."""
    made: Record
    for proposal in config.ike_proposals.values():
        if (bus.IkeProposalRecord.TYPE, proposal.name) in wanted:
            yield ike_proposal(proposal)
    for ipsec_proposal in config.ipsec_proposals.values():
        if (bus.IpsecProposalRecord.TYPE, ipsec_proposal.name) in wanted:
            yield _ipsec_proposal(ipsec_proposal)
    for ipsec_policy in config.ipsec_policies.values():
        if (bus.IpsecPolicyRecord.TYPE, ipsec_policy.name) in wanted:
            yield _ipsec_policy(config, ipsec_policy, esn)
    for name, context in config.contexts.items():
        number = numbers[name]
        for policy in context.ike_policies.values():
            made = ike_policy(config, number, policy)
            if made.key in wanted:
                yield made
        for item in flash.items.get(name, ()):
            made = _certificate(number, item)
            if made.key in wanted:
                yield made


def ike_proposal(proposal: IkeProposal) -> bus.IkeProposalRecord:
    """An IKE proposal, its defaults filled in."""
    return bus.IkeProposalRecord(
        name=proposal.name,
        version=proposal.version,
        dh_group=proposal.dh_group,
        integrity=proposal.authentication_algorithm,
        cipher=proposal.encryption_algorithm,
        authentication=proposal.authentication,
        lifetime=proposal.lifetime,
        prf=proposal.prf,
    )


def ike_policy(config: Config, context: int, policy: IkePolicy) -> bus.IkePolicyRecord:
    """An IKE policy with the proposals that it can use, in sequence order."""
    key = policy.pre_shared_key
    usable = {proposal.name for proposal in proposals_of(config, policy)}
    return bus.IkePolicyRecord(
        context=context,
        name=policy.name,
        version=policy.version,
        connection=policy.connection_type,
        identity_local=policy.identity_local.value if policy.identity_local is not None else "",
        identity_remote=policy.identity_remote.value if policy.identity_remote is not None else "",
        mode=policy.mode,
        authentication=policy.authentication,
        validate_identity=policy.validate_certificate_identity,
        lifetime=policy.lifetime,
        proposals=tuple(line.name for line in policy.proposals if line.name in usable),
        has_key=key is not None and key.form != "aaa",
        pre_shared_key=key.value if key is not None else b"",
    )


def _ipsec_proposal(proposal: IpsecProposal) -> bus.IpsecProposalRecord:
    return bus.IpsecProposalRecord(
        name=proposal.name,
        ip_comp=proposal.ip_comp,
        ah=proposal.ah or "",
        esp_cipher=proposal.esp_cipher or "",
        esp_integrity=proposal.esp_integrity or "",
        seconds=proposal.lifetime_seconds,
        kbytes=proposal.lifetime_kbytes or 0,
    )


def _ipsec_policy(config: Config, policy: IpsecPolicy, esn: bool) -> bus.IpsecPolicyRecord:
    return bus.IpsecPolicyRecord(
        name=policy.name,
        window=policy.window,
        pfs_group=policy.pfs_group or 0,
        proposals=tuple(line.name for line in policy.proposals if line.name in config.ipsec_proposals),
        esn=esn,
    )


def _certificate(context: int, item: Item) -> bus.CertificateRecord:
    return bus.CertificateRecord(context, item.name, item.kind, item.pem)
