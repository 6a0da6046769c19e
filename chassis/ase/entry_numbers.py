"""Numbers of policy lines, as the data engine and IKE know them.

A line of a tunnel has the number that `seq` gives it. IKEv1 negotiates one pair of selectors at a time (RFC 2409
5.5), so there each rule of the line's access list has SAs of its own and counts as a line: its number names the
line and the rule, by the sequence numbers that the configuration gives both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from chassis.bus.records import AclRuleRecord
from chassis.model.acl import MOST_RULES

_SHIFT: Final = 16
"""Sequence numbers of lines and rules are below 65,536."""


def entry_number(seq: int, rule: int = 0) -> int:
    """The number of a line, or of one of its rules; of a whole line it is its sequence number."""
    return rule << _SHIFT | seq


def entry_and_rule(number: int) -> tuple[int, int]:
    """Sequence numbers of the line and of the rule, 0 for all rules; what is lower comes first."""
    return number & (1 << _SHIFT) - 1, number >> _SHIFT


def describe_entry(number: int) -> dict[str, int]:
    """For `show` and `--json`: `line`, and `rule` where it is one."""
    line, rule = entry_and_rule(number)
    return {"entry": line, "rule": rule} if rule else {"entry": line}


def rules_with_own_sas(rules: Iterable[AclRuleRecord]) -> list[AclRuleRecord]:
    """The rules of a list that have SAs of their own: each selection once, `MOST_RULES` at most."""
    found: dict[AclRuleRecord, AclRuleRecord] = {}
    for rule in rules:
        mine, far = _mask(rule.source_length), _mask(rule.destination_length)
        same = replace(rule, seq=0, source=rule.source & mine, destination=rule.destination & far)
        found.setdefault(same, rule)
    return list(found.values())[:MOST_RULES]


def _mask(length: int) -> int:
    return 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF
