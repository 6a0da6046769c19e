"""Retransmission of messages, repeated replies, and dead peer detection of version 1.

A session holds one `Retransmission` for the message that waits for its answer, a reply cache for what it answered
last (RFC 7296 2.1; RFC 2408 5.1), and with version 1 a `DpdState` (RFC 3706). None of them has a timer of its own:
`due` is a time (s) of the session's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from typing import Final, Self

from chassis.ase.ike.host import IkeHost, IkeSettings, NetworkPath

MAX_RETRANSMITS_UNVERIFIED: Final = 1
"""Retransmissions to a peer that has not proved that it receives at its address (count): a forged source must not
be flooded. An honest peer asks again, and is answered each time."""

MAX_REPLY_RESENDS: Final = 12
"""Repetitions of one reply of version 1 (count): more than an honest peer asks for, too few for an amplifier."""


@dataclass(slots=True)
class Retransmission:
    """One message, in one datagram or in fragments, that is sent again until its answer comes.

    `wait` is the pause (s) before `due`. It doubles each time, up to `longest`. `left` counts the retransmissions
    that remain.
    """

    datagrams: tuple[bytes, ...] = field(repr=False)
    due: float
    wait: float
    longest: float
    left: int

    @classmethod
    def start(
        cls, settings: IkeSettings, datagrams: tuple[bytes, ...], now: float, *, verified: bool = True
    ) -> Self:
        """Call it when the message is sent first. `verified`: the peer has proved that it receives."""
        left = (
            settings.retransmit_tries if verified else min(settings.retransmit_tries, MAX_RETRANSMITS_UNVERIFIED)
        )
        return cls(
            datagrams, now + settings.retransmit_timeout, settings.retransmit_timeout, settings.longest, left
        )

    def set_fixed_interval(self, interval: float, tries: int, now: float) -> None:
        """From the message just sent on, send `tries` times in all, `interval` seconds apart."""
        self.wait = self.longest = interval
        self.due = now + interval
        self.left = tries - 1

    def advance(self, now: float) -> bool:
        """Set the time after a retransmission at `now`; False if the message was sent often enough."""
        if self.left <= 0:
            return False
        self.left -= 1
        self.wait = min(2 * self.wait, self.longest)
        self.due = now + self.wait
        return True

    def retransmit(self, host: IkeHost, path: NetworkPath, now: float) -> bool:
        """Send the message again by `path`; False if it was sent often enough."""
        if not self.advance(now):
            return False
        host.count("retransmissions")
        for data in self.datagrams:
            host.send(path, data)
        return True


def message_digest(data: bytes) -> bytes:
    """Return 16 octets by which a message is recognised."""
    return blake2b(data, digest_size=16).digest()


@dataclass(slots=True)
class ReplyCacheV1:
    """The last four messages of one exchange that were handled, and the reply to the last of them.

    A reply goes to the source of the message that repeats the question: behind a NAT its port may change.
    """

    handled: list[bytes] = field(default_factory=list)
    """Digests, oldest first."""
    reply: bytes | None = field(default=None, repr=False)
    resends: int = 0

    def remember(self, data: bytes) -> None:
        """Call it before a message is handled: what is sent next is the reply to it."""
        self.handled = [*self.handled[-3:], message_digest(data)]
        self.reply = None
        self.resends = 0

    def is_duplicate(self, host: IkeHost, data: bytes, path: NetworkPath) -> bool:
        """Whether this message was handled before. If it was the last one, send its reply again."""
        known = message_digest(data)
        if known not in self.handled:
            return False
        if known == self.handled[-1]:
            self.resend_reply(host, path)
        return True

    def resend_reply(self, host: IkeHost, path: NetworkPath) -> None:
        """Send the last reply again, at most MAX_REPLY_RESENDS times."""
        if self.reply is not None:
            self.resends += 1
            if self.resends <= MAX_REPLY_RESENDS:
                host.count("responses resent")
                host.send(path, self.reply)


@dataclass(slots=True)
class ReplyCacheV2:
    """The last response: a repeated request gets it again, octet for octet (RFC 7296 2.1).

    An encrypted request is recognised by its message ID, once its integrity is verified. `clear` is the request
    if it was received in clear, which only its octets identify; else it is empty.
    """

    message_id: int
    clear: bytes = field(repr=False)
    datagrams: tuple[bytes, ...] = field(repr=False)


def is_newer_sequence(number: int, before: int | None) -> bool:
    """Whether the number of an R-U-THERE is above the one before, modulo 2^32 (RFC 3706 5.4)."""
    return before is None or 0 < (number - before) & 0xFFFFFFFF < 1 << 31


@dataclass(slots=True)
class DpdState:
    """Dead peer detection of one end (RFC 3706): probes (R-U-THERE) sent, and when the next one is due.

    A probe follows a silence of about `interval` seconds, and again each `interval`. After `tries` probes and
    another `interval` the peer is dead. Only a message that the peer made just now is a sign of life, as sequence
    numbers show (section 7): an answer has the number of an unanswered probe, a probe of the peer has a number
    above its last.
    """

    interval: float
    tries: int
    sequence: int
    """Number of the next probe; the first one is random (RFC 3706 5.4)."""
    due: float = inf
    sent: int = 0
    """Probes since the last sign of life (count)."""

    def reset(self, due: float) -> None:
        """Call it on a sign of life: the next probe is sent at `due` (s)."""
        self.sent = 0
        self.due = due

    def matches_pending(self, number: int) -> bool:
        """Whether one of the probes since the last sign of life has this number."""
        return 0 < (self.sequence - number) & 0xFFFFFFFF <= self.sent

    def next_probe(self, now: float) -> int | None:
        """Return the number of the probe to send; None if the peer counts as dead."""
        if self.sent >= self.tries:
            return None
        number = self.sequence
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        self.sent += 1
        self.due = now + self.interval
        return number
