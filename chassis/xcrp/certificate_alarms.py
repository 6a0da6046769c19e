"""Alarms of certificates, by the time of day: what a context lacks, what expires, what is not valid yet.

A context that signs raises a major alarm while it has no valid certificate of an authority, or none of its own
with its key. Of each certificate there is a minor alarm while it is not valid, and a warning before it expires.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Final

from cryptography import x509

from chassis.model.router import Config
from chassis.xcrp.alarms import MAJOR, MINOR, WARNING, Alarm
from chassis.xcrp.flash import KEY, SELF, TRUSTED, PkiStore
from chassis.xcrp.ike_config import methods
from chassis.xcrp.node import NodeState
from chassis.xcrp.plan import Plan
from chassis.xcrp.show_pki import handle_of

NEAR_EXPIRY: Final = 30 * 86_400.0
"""Time (s) before its end from which a certificate warns; of a short life its last third."""

SETTLE: Final = 1.0
"""Time (s) between two checks, however many commits there are."""

CLOCK_STEP: Final = 1.0
"""Smallest change (s) of the clock of the day that counts as one."""


@dataclass(frozen=True, slots=True)
class _Validity:
    """When a certificate of a store is valid: from `begins` to `ends` (s since 1970). `usable`: it can do what its
    kind is for; one of this router only with its key."""

    context: str
    kind: str
    handle: str
    subject: str
    begins: float
    ends: float
    usable: bool

    @property
    def turns(self) -> tuple[float, float, float]:
        """Return the times at which its alarm becomes another one."""
        return self.begins, self.ends - min(NEAR_EXPIRY, (self.ends - self.begins) / 3), self.ends

    def alarm(self, wall: float) -> Alarm | None:
        begins, warns, ends = self.turns
        if begins <= wall < warns:
            return None
        place, whose = (
            f"certificate {self.handle} of context {self.context}",
            f"{self.kind} certificate {self.subject}",
        )
        if wall < begins:
            text = f"{whose} is not valid before {_day(begins)}"
            return Alarm(MINOR, place, "certificateNotYetValid", text)
        if wall < ends:
            return Alarm(WARNING, place, "certificateNearExpiry", f"{whose} expires on {_day(ends)}")
        return Alarm(MINOR, place, "certificateExpired", f"{whose} expired on {_day(ends)}")


def _day(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _read(store: PkiStore) -> Iterator[_Validity]:
    """Return every certificate of the stores; without those that have no date or name that can be read."""
    for context, items in store.items.items():
        keys = {item.name for item in items if item.kind == KEY}
        for item in items:
            if item.kind != KEY:
                with suppress(ValueError, TypeError, OverflowError, x509.InvalidVersion):
                    for place, one in enumerate(x509.load_pem_x509_certificates(item.pem)):
                        usable = item.kind == TRUSTED or (not place and item.name in keys)
                        yield _validity(context, item.kind, one, usable)


def _validity(context: str, kind: str, one: x509.Certificate, usable: bool) -> _Validity:
    begins, ends = one.not_valid_before_utc.timestamp(), one.not_valid_after_utc.timestamp()
    return _Validity(context, kind, handle_of(one), one.subject.rfc4514_string(), begins, ends, usable)


def _signs(config: Config, context: str) -> bool:
    """Return whether an IKE policy of a context authenticates by certificates."""
    policies = config.contexts[context].ike_policies.values()
    return any("rsa-signature" in methods(config, policy) for policy in policies)


_OF_CONTEXT: Final = (
    (TRUSTED, "noValidTrustedCertificate", "a trusted certificate"),
    (SELF, "noValidSelfCertificate", "a certificate of its own with its key"),
)


class CertificateAlarms:
    """Finds the alarms of certificates and of the contexts that need them."""

    def __init__(self, node: NodeState, wall_offset: float) -> None:
        """`wall_offset`: what the clock of the day (s since 1970) shows more than the engine's."""
        self._node, self._wall_offset = node, wall_offset
        self._store: PkiStore | None = None
        self._validities: tuple[_Validity, ...] = ()
        self._plan: Plan | None = None
        self._check_after, self._turns_at = -inf, inf

    def _alarms(self, now: float) -> list[Alarm]:
        plan, wall = self._node.plan, now + self._wall_offset
        if plan.flash is not self._store:
            self._store = plan.flash
            self._validities = tuple(_read(plan.flash))
        contexts = plan.config.contexts
        known = [one for one in self._validities if one.context in contexts]
        found = []
        for context in contexts:
            if _signs(plan.config, context):
                own = [one for one in known if one.context == context and one.usable]
                for kind, name, words in _OF_CONTEXT:
                    dated = [one for one in own if one.kind == kind]
                    if not any(one.begins <= wall < one.ends for one in dated):
                        text = f"needs {words}: " + ("none is valid at present" if dated else "there is none")
                        found.append(Alarm(MAJOR, f"context {context}", name, text))
        found += [alarm for one in known if (alarm := one.alarm(wall)) is not None]
        return list({alarm.key: alarm for alarm in found}.values())

    def set_clock(self, wall_offset: float) -> None:
        """The clock of the day shows so much more (s) than the engine's."""
        if abs(wall_offset - self._wall_offset) >= CLOCK_STEP:
            self._wall_offset, self._plan = wall_offset, None

    @property
    def due(self) -> float:
        """When (s) it is time to look."""
        due = self._turns_at if self._node.plan is self._plan else self._check_after
        return max(due, self._check_after)

    def find(self, now: float) -> list[Alarm]:
        """Return the alarms of this moment, and set when it is time to look again."""
        self._plan, self._check_after = self._node.plan, now + SETTLE
        alarms = self._alarms(now)
        wall = now + self._wall_offset
        turns = (at for one in self._validities for at in one.turns if at > wall)
        self._turns_at = min(turns, default=inf) - self._wall_offset
        return alarms
