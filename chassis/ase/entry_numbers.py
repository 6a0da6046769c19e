"""Numbers of SPD entries, as the data engine and IKE use them.

A policy entry has the number of its `seq`. IKEv1 negotiates one pair of selectors at a time (RFC 2409 5.5), so
there each rule of the entry's access list has SAs of its own and is an entry: its number contains the sequence
numbers of the policy entry and of the rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from chassis.model.acl import MAX_IKEV1_RULES, AclRule
from chassis.net.address import network_of

_SHIFT: Final = 16
"""Sequence numbers of entries and rules are below 65,536."""


def entry_number(seq: int, rule: int = 0) -> int:
    """Return the number of a policy entry, or of one of its rules. Without a rule it is the sequence number."""
    return rule << _SHIFT | seq


def entry_and_rule(number: int) -> tuple[int, int]:
    """Return the sequence numbers of the entry and of the rule (0: all rules). Lower ones are matched first."""
    return number & (1 << _SHIFT) - 1, number >> _SHIFT


def describe_entry(number: int) -> dict[str, int]:
    """Return `entry`, and `rule` if the number is that of one rule, for `show` and `--json`."""
    entry, rule = entry_and_rule(number)
    return {"entry": entry, "rule": rule} if rule else {"entry": entry}


def rules_with_own_sas(rules: Iterable[AclRule]) -> list[AclRule]:
    """Return the rules of an access list that have SAs of their own: no duplicates, MAX_IKEV1_RULES at most."""
    found: dict[AclRule, AclRule] = {}
    for rule in rules:
        same = replace(rule, seq=0, source=network_of(*rule.source), destination=network_of(*rule.destination))
        found.setdefault(same, rule)
    return list(found.values())[:MAX_IKEV1_RULES]
