"""Messages that are sent again until they are answered, and answers that are repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from chassis.ase.ike.host import Host, IkeSettings, Path

MAX_REPEATS = 12
"""How often one answer is repeated: more than an honest peer asks, few enough to be no amplifier."""

UNPROVED = 1
"""How often a message goes again by itself to a peer that has not shown that it receives: who forges an address
must not have it flooded. An honest peer asks again, and each time it asks it is answered."""


@dataclass(slots=True)
class Resend:
    """The message that waits for an answer: waits double up to `settings.longest`, `settings.retries` times."""

    data: bytes = field(repr=False)
    due: float
    wait: float
    left: int

    @classmethod
    def begin(cls, settings: IkeSettings, data: bytes, now: float, *, proved: bool = True) -> Resend:
        left = settings.retries if proved else min(settings.retries, UNPROVED)
        return cls(data, now + settings.retransmit, settings.retransmit, left)

    def fire(self, host: Host, settings: IkeSettings, path: Path) -> bool:
        """Send once more, to where the peer is now; False when it was sent often enough."""
        if not self.left:
            return False
        self.left -= 1
        self.wait = min(self.wait * 2, settings.longest)
        self.due += self.wait
        host.count("retransmissions")
        host.send(path, self.data)
        return True


def digest(data: bytes) -> bytes:
    """By what a message is known again."""
    return blake2b(data, digest_size=16).digest()


@dataclass(slots=True)
class Answered:
    """Messages of one exchange that were taken already: at most four, and the answer to the last of them.

    An answer is repeated to where the message came from that asks for it: behind a NAT that may be another port
    each time.
    """

    seen: list[bytes] = field(default_factory=list)
    reply: bytes | None = field(default=None, repr=False)
    repeats: int = 0

    def took(self, data: bytes) -> None:
        """A message was taken; what is sent next is the answer to it."""
        self.seen = [*self.seen[-3:], digest(data)]
        self.reply = None
        self.repeats = 0

    def sent(self, data: bytes) -> None:
        self.reply = data

    def again(self, host: Host, data: bytes, path: Path) -> bool:
        """Whether this message was taken before; the answer to the last one is repeated."""
        known = digest(data)
        if known not in self.seen:
            return False
        if known == self.seen[-1]:
            self.repeat(host, path)
        return True

    def repeat(self, host: Host, path: Path) -> None:
        """Give the last answer again."""
        if self.reply is not None:
            self.repeats += 1
            if self.repeats <= MAX_REPEATS:
                host.count("responses resent")
                host.send(path, self.reply)
