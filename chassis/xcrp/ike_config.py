"""Negotiated tunnels: the configuration that IKE needs before it starts, and the records that their ASP needs.

Names are looked up by S-062: the IKE policy in the context of the peer end point, access lists in the context of
the bound interface, all other names in the whole router.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from chassis.bus.records import CertificateRecord, Key, policy_key
from chassis.model.acl import Acl
from chassis.model.ike import IkePolicy, IkeProposal, ProposalRef
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, Profile, TunnelEntry
from chassis.model.router import Config, Tunnel
from chassis.xcrp.flash import TRUSTED, PkiStore

IKE_POLICY = "IKE policy"
IKE_PROPOSAL = "IKE proposal"
IPSEC_POLICY = "IPsec policy"
IPSEC_PROPOSAL = "IPsec proposal"
ACL = "access list"
KEY = "pre-shared key"
AAA = "AAA"
CERTIFICATE = "certificate"


def policy_of(config: Config, tunnel: Tunnel) -> IkePolicy | None:
    """Return the IKE policy of a tunnel; None if it is not defined."""
    context = config.contexts.get(tunnel.context)
    return context.ike_policies.get(tunnel.ike_policy) if context is not None and tunnel.ike_policy else None


def proposals_of(config: Config, policy: IkePolicy) -> list[IkeProposal]:
    """Return the proposals that a policy can use: defined, of its version, and valid for it."""
    found = [config.ike_proposals.get(line.name) for line in policy.proposals]
    return [one for one in found if one is not None and one.version == policy.version and one.exists]


def methods(config: Config, policy: IkePolicy) -> set[str]:
    """Return the authentication methods of this end: from the proposals in IKEv1, from the policy in IKEv2."""
    if policy.version == 2:
        return {policy.authentication}
    return {proposal.authentication for proposal in proposals_of(config, policy)}


def config_error(config: Config, tunnel: Tunnel, flash: PkiStore) -> str:
    """Return the first unmet condition of a negotiated tunnel, or empty (B-024, S-039)."""
    if not tunnel.ike_policy:
        return IKE_POLICY
    policy = policy_of(config, tunnel)
    if policy is None:
        return f"{IKE_POLICY}: no {tunnel.ike_policy} in context {tunnel.context}"
    fault = _policy_error(config, policy, tunnel, flash)
    # The entries of an on-demand tunnel are those of a profile, which is found when a peer comes (S-044).
    return fault if fault or tunnel.kind == "on-demand" else entries_error(config, tunnel)


def _policy_error(config: Config, policy: IkePolicy, tunnel: Tunnel, flash: PkiStore) -> str:
    if not proposals_of(config, policy):
        return f"{IKE_PROPOSAL}: {_none(policy.name, policy.proposals)}"
    key = policy.pre_shared_key
    if key is not None and key.form == "aaa" and tunnel.kind != "on-demand":
        # B-092: AAA has the keys of on-demand peers only.
        return f"{AAA}: policy {policy.name} has its pre-shared key from AAA"
    wanted = methods(config, policy)
    if "pre-shared-key" in wanted and key is None:
        return f"{KEY}: policy {policy.name} has none"
    if "rsa-signature" in wanted:
        lacks = flash.first_missing(tunnel.context)
        if lacks:
            return f"{CERTIFICATE}: {lacks}"
    return ""


def entries_error(config: Config, tunnel: Tunnel) -> str:
    """Return what the `seq` lines of a negotiated tunnel, or those that it has of a profile, lack first."""
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
    """Return the reason for a policy without a usable proposal."""
    if not lines:
        return f"policy {policy} names none"
    return f"none of policy {policy} is there ({', '.join(line.name for line in lines)})"


def key_from_aaa(policy: IkePolicy) -> bool:
    """Return whether AAA has the preshared keys of the peers of an on-demand tunnel with this policy."""
    key = policy.pre_shared_key
    return key is not None and key.form == "aaa"


def asks_aaa(policy: IkePolicy) -> bool:
    """Return whether AAA is asked about the peers of an on-demand tunnel with this policy."""
    return policy.address_allocation or key_from_aaa(policy)


def profiles_of(config: Config, tunnel: Tunnel) -> list[Profile]:
    """Return the profiles that peers of an on-demand tunnel may get: that of its name, and where AAA is asked
    every one of the context of its interface."""
    context = config.contexts.get(tunnel.interface_context)
    policy = policy_of(config, tunnel)
    if context is None:
        return []
    if policy is not None and asks_aaa(policy):
        return list(context.profiles.values())
    own = context.profiles.get(tunnel.name)
    return [] if own is None else [own]


def needed(config: Config, tunnel: Tunnel, numbers: dict[str, int], flash: PkiStore) -> Iterator[Key]:
    """Return the keys of the records that only ASPs with this negotiated or on-demand tunnel get."""
    policy = policy_of(config, tunnel)
    outer = numbers.get(tunnel.context, 0)
    if policy is not None:
        yield policy_key(IkePolicy, policy.name, outer)
        for proposal in proposals_of(config, policy):
            yield policy_key(IkeProposal, proposal.name)
        own = "rsa-signature" in methods(config, policy)
        for item in flash.items.get(tunnel.context, ()):
            # In IKEv2 the peer may use a certificate even if this end does not.
            if own or (policy.version == 2 and item.kind == TRUSTED):
                yield (CertificateRecord.TYPE, outer, item.kind, item.name)
    inner = numbers.get(tunnel.interface_context, 0)
    if tunnel.kind == "on-demand":
        for profile in profiles_of(config, tunnel):
            yield from of_entries(config, profile.entries, inner)
    else:
        yield from of_entries(config, tunnel.entries, inner)


def of_entries(config: Config, entries: Iterable[TunnelEntry], inner: int) -> Iterator[Key]:
    """Return the keys of the records that these `seq` lines need; access lists are those of context `inner`."""
    for entry in entries:
        ipsec = config.ipsec_policies.get(entry.policy) if entry.policy else None
        if ipsec is not None:
            yield policy_key(IpsecPolicy, ipsec.name)
            for line in ipsec.proposals:
                yield policy_key(IpsecProposal, line.name)
        if entry.acl:
            yield policy_key(Acl, entry.acl, inner)
