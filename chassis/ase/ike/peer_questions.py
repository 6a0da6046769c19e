"""Questions to the controller about peers of on-demand tunnels, and the sessions that wait for the answers.

A session asks at most one question at a time: for the preshared key of the identity that the peer claims, where
AAA has it, and once the peer is authenticated for its tunnel. It waits until the answer comes or its own deadline
ends it; repeated messages of the peer ask nothing more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from chassis.ase.ike.connections import Connection, Peer
from chassis.ase.ike.host import IkeHost, NetworkPath, Session
from chassis.ase.ike.on_demand import peer_name
from chassis.ase.ike_messages import FromIke
from chassis.bus.messages import PeerAnswer, PeerDropped, PeerQuestion

MAX_KEY_QUESTIONS: Final = 256
"""Open questions about keys (count): whoever claims an identity can make us ask, so a flood must not fill AAA."""
MAX_KEY_QUESTIONS_PER_ADDRESS: Final = 32
"""Of these, the ones about peers at one address, of which a NAT may have many (count)."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A question without an answer."""

    session: Session
    key_from: int | None
    """The peer's address if the question is about its key; None for one about its admission."""


class PeerQuestions:
    """The open questions of one ASP."""

    def __init__(self, output: Callable[[FromIke], None]) -> None:
        """`output` sends a message to the data engine, which passes it to the controller."""
        self._output = output
        self._number = 0
        self._open: dict[int, _Open] = {}
        self._number_of: dict[bytes, int] = {}
        """The open question of a session, by our SPI."""
        self._key_questions: Counter[int] = Counter()
        """Questions about keys by the peer's address."""

    def __len__(self) -> int:
        return len(self._open)

    def is_open(self, session: Session) -> bool:
        """Return whether a session waits for an answer."""
        return session.spi in self._number_of

    def ask_key(self, session: Session, candidate: Connection, path: NetworkPath) -> int:
        """Ask for the preshared key of the peer that `candidate` expects; return the number of the question, 0 if
        too many are open."""
        asked = self._key_questions
        if asked.total() >= MAX_KEY_QUESTIONS or asked[path.remote] >= MAX_KEY_QUESTIONS_PER_ADDRESS:
            return 0
        asked[path.remote] += 1
        return self._ask(session, PeerQuestion(self._next(), "key", *_about(candidate, path)), path.remote)

    def ask_admission(
        self, session: Session, candidate: Connection, path: NetworkPath, after: int, wants_address: bool
    ) -> int:
        """Ask for the tunnel of an authenticated peer. `after` is the number of the question about its key."""
        about = _about(candidate, path)
        return self._ask(session, PeerQuestion(self._next(), "admit", *about, after, wants_address), None)

    def close(self, number: int) -> Session | None:
        """Return the session that waits for the answer to a question, which is closed; None if there is none."""
        found = self._open.pop(number, None)
        if found is None:
            return None
        del self._number_of[found.session.spi]
        if found.key_from is not None:
            self._key_questions[found.key_from] -= 1
            if not self._key_questions[found.key_from]:
                del self._key_questions[found.key_from]
        return found.session

    def drop(self, session: Session, reason: str) -> None:
        """Tell the controller that the peer of an open question is gone; no effect without one."""
        number = self._number_of.get(session.spi, 0)
        if number:
            self.close(number)
            self._output(PeerDropped(number, 0, reason))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _ask(self, session: Session, question: PeerQuestion, key_from: int | None) -> int:
        self._open[question.number] = _Open(session, key_from)
        self._number_of[session.spi] = question.number
        self._output(question)
        return question.number


def _about(candidate: Connection, path: NetworkPath) -> tuple[int, str, int, int, int]:
    return candidate.on_demand, peer_name(candidate.expected), path.local, path.remote, path.remote_port


class PeerRefusedError(Exception):
    """A peer may not go on. The text is the reason, for the log."""


def with_key(candidate: Connection, answer: PeerAnswer) -> Connection:
    """Return the candidate with the preshared key of its peer.

    Raises:
        PeerRefusedError: AAA has none.
    """
    _check(candidate, answer.error or ("" if answer.key else "AAA has no preshared key"))
    return replace(candidate, psk=answer.key)


def instance_of(host: IkeHost, candidate: Connection, answer: PeerAnswer) -> Connection:
    """Return the connection of the instance that the controller named for an authenticated peer.

    Raises:
        PeerRefusedError: the controller refuses the peer, or the instance cannot be negotiated.
    """
    _check(candidate, answer.error)
    found = host.instance(answer.tunnel)
    ours = candidate.on_demand, candidate.version
    if found is None or (found.on_demand, found.version) != ours:
        raise PeerRefusedError(f"tunnel {answer.tunnel} of {candidate.expected} is not one of {candidate.name}")
    _check(candidate, found.config_error or ("" if found.enabled else "its configuration is not complete"))
    psk = candidate.psk if candidate.key_from_aaa else None
    return host.admit(answer.tunnel, Peer(candidate.expected, psk))


def _check(candidate: Connection, error: str) -> None:
    """Raises PeerRefusedError for an error."""
    if error:
        raise PeerRefusedError(f"on-demand tunnel {candidate.name} refuses {candidate.expected}: {error}")
