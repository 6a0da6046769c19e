"""Questions about peers: which are asked, which wait, which are refused, and what the replies mean.

Strangers cause questions: anybody can begin an IKE exchange under any identity. So questions are bounded by the
peer's address, by the router's own address and in all; of one identity only one is asked at a time; the same
question of one exchange is asked once; and a reject is remembered for some seconds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from pyrad.packet import AccessAccept, AccessReject, Packet

from chassis.aaa.actions import AccessQuestion, Authorized, Rejected, Subject, Unreachable
from chassis.aaa.answers import AccessAnswer, AnswerError, read_accept, reject_reason
from chassis.aaa.packets import LONGEST_TEXT, SentRequest, access_request
from chassis.aaa.servers import Server
from chassis.aaa.transport import GaveUp, Outcome, RadiusRequest, RadiusTransport, Random, Replied


@dataclass(frozen=True, slots=True)
class QuestionLimits:
    """Most questions that are open at once: of one peer's address, at one address of ours, in all; exchanges that
    wait for their turn at one identity, and tokens that share a question. `remembered` rejects are kept for
    `seconds`."""

    peer: int = 64
    local: int = 1024
    total: int = 2048
    identity: int = 4
    shared: int = 8
    remembered: int = 4096
    seconds: float = 5.0


@dataclass(eq=False, slots=True)
class OpenQuestion:
    """A question that is asked, or waits until its identity's is answered."""

    first: AccessQuestion
    tokens: dict[Hashable, bool]
    """Who wants the answer, and whether with a key."""
    hostname: str
    random: Random = field(repr=False)
    request: RadiusRequest | None = None

    def encode(self, identifier: int, server: Server[RadiusRequest], now: float) -> SentRequest:
        return access_request(
            identifier,
            self.random(16),
            server.address,
            hostname=self.hostname,
            identity=self.first.identity,
            password=server.settings.password,
            peer=self.first.peer,
            local=self.first.local,
        )

    def has_changed(self, sent: SentRequest, now: float) -> bool:
        return False


class Questions:
    """The questions of a router. Answers come as actions, one for each token."""

    def __init__(self, transport: RadiusTransport, random: Random, limits: QuestionLimits) -> None:
        self._transport, self._random, self._limits = transport, random, limits
        self._asked: dict[Subject, OpenQuestion] = {}
        self._behind: dict[Subject, deque[OpenQuestion]] = {}
        self._of_token: dict[Hashable, OpenQuestion] = {}
        self.open = 0
        """Questions that are asked or wait."""
        self._of_peer: Counter[str] = Counter()
        self._at_local: Counter[str] = Counter()
        self._rejects: OrderedDict[Subject, tuple[float, str]] = OrderedDict()
        self.refused: Counter[str] = Counter()
        """Questions that were answered without a server, by the cause."""

    def ask(self, question: AccessQuestion, now: float) -> list[Outcome]:
        """Ask a server, or join the same question, or wait for an identity's turn, or refuse at once."""
        subject = question.subject
        size = len(question.identity.encode("utf-8", "replace"))
        if not 0 < size <= LONGEST_TEXT:
            return self._refuse(
                question, "length of the identity", f"an identity of {size} octets cannot be asked"
            )
        until, reason = self._rejects.get(subject, (now, ""))
        if now < until:
            return self._refuse(question, "remembered reject", reason, "rejected")
        if question.token in self._of_token:
            return []
        same = self._same(question)
        if same is not None:
            if len(same.tokens) >= self._limits.shared:
                return self._refuse(question, "one exchange", "its question has been asked too often")
            same.tokens[question.token] = question.key_wanted
            self._of_token[question.token] = same
            return []
        if (bound := self._bound(question)) is not None:
            return self._refuse(question, f"bound {bound}", f"too many questions are open {bound}")
        asked = OpenQuestion(
            question, {question.token: question.key_wanted}, self._transport.config.hostname, self._random
        )
        self.open += 1
        self._of_token[question.token] = asked
        self._of_peer[question.peer] += 1
        self._at_local[question.local] += 1
        if subject in self._asked:
            self._behind.setdefault(subject, deque()).append(asked)
            return []
        return self._begin(asked, now)

    def _bound(self, question: AccessQuestion) -> str | None:
        """Return which bound a further question would break."""
        limits = self._limits
        counts = (
            ("of one peer", self._of_peer[question.peer], limits.peer),
            ("at one local address", self._at_local[question.local], limits.local),
            ("in all", self.open, limits.total),
            ("of one identity", len(self._behind.get(question.subject, ())), limits.identity),
        )
        return next((what for what, count, most in counts if count >= most), None)

    def _same(self, question: AccessQuestion) -> OpenQuestion | None:
        """Return the open question of the same exchange about the same identity."""
        open_ones = (self._asked.get(question.subject), *self._behind.get(question.subject, ()))
        return next((one for one in open_ones if one and one.first.exchange == question.exchange), None)

    def _refuse(
        self, question: AccessQuestion, cause: str, reason: str, kind: Literal["rejected", "busy"] = "busy"
    ) -> list[Outcome]:
        self.refused[cause] += 1
        return [Rejected(question.token, reason, kind)]

    def _begin(self, asked: OpenQuestion, now: float) -> list[Outcome]:
        self._asked[asked.first.subject] = asked
        asked.request = RadiusRequest("authentication", asked.first.context, asked)
        return self._transport.begin(asked.request, now)

    def cancel(self, token: Hashable, now: float) -> list[Outcome]:
        """Nobody waits for the answer with this token any more."""
        asked = self._of_token.pop(token, None)
        if asked is None:
            return []
        del asked.tokens[token]
        return [] if asked.tokens else self._give_up(asked, now)

    def _give_up(self, asked: OpenQuestion, now: float) -> list[Outcome]:
        if asked.request is None:
            self._behind[asked.first.subject].remove(asked)
            self._forget(asked)
            return []
        outcomes = self._transport.cancel(asked.request, now)
        return [*outcomes, *self._close(asked, now)]

    def on_replied(self, replied: Replied, now: float) -> list[Outcome]:
        """Take a genuine reply: an accept, a reject, or a challenge, which is a reject here (RFC 2865 4.4)."""
        asked, packet = replied.request.content, replied.reply
        assert isinstance(asked, OpenQuestion)
        try:
            answer = self._answer(packet, replied.server)
        except AnswerError as error:
            return self._on_reject(asked, f"{replied.server}: {error}", now)
        actions: list[Outcome] = []
        for token, key_wanted in asked.tokens.items():
            if key_wanted and answer.key is None:
                self._remember(asked, f"{replied.server} gives no preshared key", now)
                actions.append(Rejected(token, f"{replied.server} gives no preshared key"))
            else:
                actions.append(Authorized(token, answer))
        return [*actions, *self._close(asked, now)]

    def _answer(self, packet: Packet, server: str) -> AccessAnswer:
        """Return what an accept says.

        Raises:
            AnswerError: it is a reject, or cannot be used.
        """
        if packet.code == AccessAccept:
            return read_accept(packet, server)
        if packet.code == AccessReject:
            said = reject_reason(packet)
            raise AnswerError(f"rejected{said and f': {said}'}")
        raise AnswerError("it answers with a challenge, which IKE with preshared keys cannot answer")

    def on_gave_up(self, gave_up: GaveUp, now: float) -> list[Outcome]:
        """No server replied; the same goes for the questions about this identity that wait."""
        asked = gave_up.request.content
        assert isinstance(asked, OpenQuestion)
        return [Unreachable(token, gave_up.reason) for token in self._all_tokens(asked)]

    def _on_reject(self, asked: OpenQuestion, reason: str, now: float) -> list[Outcome]:
        """The identity is rejected, also for the questions about it that wait."""
        self._remember(asked, reason, now)
        return [Rejected(token, reason) for token in self._all_tokens(asked)]

    def _all_tokens(self, asked: OpenQuestion) -> list[Hashable]:
        """Close a question and those that wait behind it; return all their tokens."""
        behind = self._behind.pop(asked.first.subject, ())
        del self._asked[asked.first.subject]
        for one in (asked, *behind):
            self._forget(one)
        return [token for one in (asked, *behind) for token in one.tokens]

    def _close(self, asked: OpenQuestion, now: float) -> list[Outcome]:
        """Close a question; the next one about its identity begins."""
        subject = asked.first.subject
        del self._asked[subject]
        self._forget(asked)
        behind = self._behind.get(subject)
        if not behind:
            return []
        following = behind.popleft()
        if not behind:
            del self._behind[subject]
        return self._begin(following, now)

    def _forget(self, asked: OpenQuestion) -> None:
        for token in asked.tokens:
            del self._of_token[token]
        self.open -= 1
        for counter, key in ((self._of_peer, asked.first.peer), (self._at_local, asked.first.local)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        if not self._behind.get(asked.first.subject, True):
            del self._behind[asked.first.subject]

    def _remember(self, asked: OpenQuestion, reason: str, now: float) -> None:
        """Keep a reject for some seconds, and no more of them than the bound."""
        self._rejects[asked.first.subject] = (now + self._limits.seconds, reason)
        self._rejects.move_to_end(asked.first.subject)
        while len(self._rejects) > self._limits.remembered:
            self._rejects.popitem(last=False)
