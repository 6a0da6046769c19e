"""Messages that are too long for one datagram (RFC 7383): cut on the way out, put together on the way in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import EncryptedFragment
from chassis.ase.ike.v2.keyring import IkeSaKeymat

MAX_OCTETS = 65_536
"""Plaintext of one message that is put together; a longer one is given up."""


def seal(
    keyring: IkeSaKeymat,
    header: Header,
    payloads: tuple[PayloadV2, ...],
    room: int,
    random: Callable[[int], bytes],
    *,
    fragment: bool,
) -> tuple[bytes, ...]:
    """The datagrams of a message: one, or fragments of at most `room` octets where the peer takes them."""
    guard = keyring.sending

    def ivs(count: int) -> bytes:
        return keyring.next_ivs(count) if guard.cipher.aead else random(count * guard.iv_octets)

    whole = guard.seal(header, payloads, ivs(1))
    if len(whole) <= room or not fragment:
        return (whole,)
    return guard.seal_fragments(header, payloads, room, ivs(guard.fragments_needed(payloads, room)))


@dataclass(slots=True)
class Assembly:
    """Fragments of one message, each authentic already. Only one message is in the making for each direction."""

    message_id: int = -1
    total: int = 0
    first: int = 0
    parts: dict[int, bytes] = field(default_factory=dict)

    def wants(self, message_id: int, fragment: EncryptedFragment) -> bool:
        """Whether it is worth opening: not there yet, and not of an older cut (RFC 7383 2.6)."""
        if message_id != self.message_id or fragment.total > self.total:
            return True
        return fragment.total == self.total and fragment.number not in self.parts

    def add(self, message_id: int, fragment: EncryptedFragment, plain: bytes) -> tuple[int, bytes] | None:
        """(first payload type, plaintext) once all parts are there."""
        if message_id != self.message_id or fragment.total > self.total:
            self.clear()
            self.message_id, self.total = message_id, fragment.total
        self.parts[fragment.number] = plain
        if fragment.number == 1:
            self.first = fragment.first
        if sum(map(len, self.parts.values())) > MAX_OCTETS:
            self.clear()
            return None
        if len(self.parts) < self.total:
            return None
        whole = b"".join(self.parts[number] for number in range(1, self.total + 1))
        first = self.first
        self.clear()
        return first, whole

    def clear(self) -> None:
        self.message_id, self.total, self.first = -1, 0, 0
        self.parts.clear()
