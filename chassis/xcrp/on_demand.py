"""On-demand tunnels at the controller: what ASPs ask about peers, and what becomes of peers that go (guide 9.3).

An ASP asks with a `PeerQuestion`: for the preshared key of the identity that a peer claims, and for the tunnel of
a peer that it has authenticated. AAA may have to be asked first. What AAA said with the key counts for the
admission too. The answer to an admission follows the instance's record: the connection keeps their order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Final, NamedTuple

from chassis.aaa.actions import AccessQuestion, Authorized
from chassis.aaa.answers import AccessAnswer
from chassis.bus.engine import Output, ToCard
from chassis.bus.messages import PeerAnswer, PeerDropped, PeerQuestion, Value
from chassis.bus.records import Instance
from chassis.net.address import MASKS, format_address, parse_address
from chassis.xcrp import ike_config, instance_plans, instances
from chassis.xcrp.aaa import Result
from chassis.xcrp.capacity import CAPACITY
from chassis.xcrp.cards import CardEntry
from chassis.xcrp.id_allocator import TUNNEL
from chassis.xcrp.kept_answers import KeptAnswers
from chassis.xcrp.peer_addresses import AddressError
from chassis.xcrp.peer_services import PeerServices
from chassis.xcrp.plan import TunnelPlan
from chassis.xcrp.reports import Receiver
from chassis.xcrp.state import ControllerState

MAX_EARLY_QUESTIONS: Final = 1_000
"""Questions that are kept until the first plan is made (count); ASPs repeat the others' peers."""

FACILITY: Final = "ipsec"

REPLACED: Final = "its peer came anew"


class Token(NamedTuple):
    """A question of one process of an ASP."""

    card: str
    boot: int
    number: int


class OnDemand:
    """Answers what ASPs ask about peers, and ends the instances of peers that are gone."""

    def __init__(
        self,
        state: ControllerState,
        services: PeerServices,
        publish: Callable[[Collection[str], float], list[Output]],
    ) -> None:
        """`publish` publishes to some cards at once, and to others soon: `Reports.publish`."""
        self._state, self._node, self._services = state, state.node, services
        self._publish = publish
        services.on_result = self._on_result
        self._early: list[tuple[str, PeerQuestion]] = []
        """Questions of ASPs before there was a plan."""
        self._asked: dict[Hashable, PeerQuestion] = {}
        """Questions for which AAA is asked. AAA bounds them."""
        self._answers = KeptAnswers()
        self.receivers: dict[type, Receiver] = {
            PeerQuestion: self._on_question,
            PeerDropped: self._on_dropped,
        }

    def process_early(self, now: float) -> list[Output]:
        """Answer what was asked before there was a plan."""
        early, self._early = self._early, []
        outputs: list[Output] = []
        for card, question in early:
            entry = self._node.cards.get(card)
            if entry is not None:
                outputs += self._on_question(entry, question, now)
        return outputs

    # what ASPs say

    def _on_question(self, entry: CardEntry, question: PeerQuestion, now: float) -> list[Output]:
        if not self._state.reconciled:
            if len(self._early) < MAX_EARLY_QUESTIONS:
                self._early.append((entry.card, question))
            return []
        if not entry.expects_heartbeats:
            self._state.count_ignored("question of a card that is not admitted")
            return []
        template, why = self._template(entry, question)
        if template is None:
            return [_refuse(entry, question, why)]
        policy = ike_config.policy_of(self._node.plan.config, template.config)
        if policy is None:
            return [_refuse(entry, question, f"no IKE policy {template.config.ike_policy}")]
        if question.step == "key":
            return self._ask_aaa(entry, question, template, now)
        token = Token(entry.card, entry.admitted_boot, question.after)
        answer = self._answers.take(token, now) if question.after else None
        if answer is None and question.after:
            return self._refused(entry, question, template, "what AAA said of its key is gone", now)
        if answer is None and (policy.address_allocation or ike_config.key_from_aaa(policy)):
            # A peer with a certificate was authenticated without AAA, which still says its profile and terms.
            return self._ask_aaa(entry, question, template, now)
        return self._admit(entry, question, template, answer, now)

    def _template(self, entry: CardEntry, question: PeerQuestion) -> tuple[TunnelPlan | None, str]:
        """Return the on-demand tunnel of a question; None and why it takes no peer."""
        template = self._node.plan.on_demand.get(question.on_demand)
        if template is None or template.asp != entry.card:
            return None, "no such on-demand tunnel"
        return (None, template.config_error) if template.config_error else (template, "")

    def _on_dropped(self, entry: CardEntry, message: PeerDropped, now: float) -> list[Output]:
        token = Token(entry.card, entry.admitted_boot, message.question)
        outputs: list[Output] = []
        if message.question and self._asked.pop(token, None) is not None:
            outputs += self._services.aaa.cancel(token, now)
        held = self._node.plan.tunnels.get(message.tunnel)
        if held is None or held.instance is None or held.asp != entry.card:
            return outputs
        return outputs + self._end(held, message.reason or "peer gone", now)

    # AAA

    def _ask_aaa(self, entry: CardEntry, question: PeerQuestion, template: TunnelPlan, now: float) -> list[Output]:
        """Ask AAA in the context of the bound interface (B-097)."""
        token = Token(entry.card, entry.admitted_boot, question.number)
        self._asked[token] = question
        asked = AccessQuestion(
            token,
            template.config.interface_context,
            question.identity,
            format_address(question.peer),
            format_address(question.local),
            exchange=token,
            key_wanted=question.step == "key",
        )
        return self._services.aaa.authorize(asked, now)

    def _on_result(self, token: Hashable, result: Result, now: float) -> list[Output]:
        question = self._asked.pop(token, None)
        entry = self._node.cards.get(token.card) if isinstance(token, Token) else None
        if question is None or entry is None or not isinstance(token, Token):
            return []
        if entry.admitted_boot != token.boot or not entry.expects_heartbeats:
            return []
        template, why = self._template(entry, question)
        if template is None:
            return [_refuse(entry, question, why)]
        if not isinstance(result, Authorized):
            # B-093, B-099
            return self._refused(entry, question, template, f"AAA: {result.reason}", now)
        if question.step == "key":
            self._answers.keep(token, result.answer, now)
            return [ToCard(entry.card, PeerAnswer(question.number, key=result.answer.key or b""))]
        return self._admit(entry, question, template, result.answer, now)

    # peers come and go

    def _admit(
        self,
        entry: CardEntry,
        question: PeerQuestion,
        template: TunnelPlan,
        answer: AccessAnswer | None,
        now: float,
    ) -> list[Output]:
        """Admit an authenticated peer, with what AAA said of it; or refuse it, and the log says why."""
        node, plan = self._node, self._node.plan
        context = plan.config.contexts[template.config.interface_context]
        named = answer.profile if answer is not None else None
        name = named or template.config.name
        profile = context.profiles.get(name)
        if profile is None:
            # B-101; B-102: what RADIUS names is not replaced by another one.
            whose = ", which RADIUS names," if named else ""
            why = f"no IPsec profile {name}{whose} in context {context.name}"
            return self._refused(entry, question, template, why, now)
        known = node.instances.of(template.outer, question.identity)
        before = plan.tunnels[known] if known is not None else None
        dns = tuple(map(parse_address, answer.dns)) if answer is not None else ()
        policy = ike_config.policy_of(plan.config, template.config)
        # AAA was asked, where its addresses are wanted at all.
        wants = answer if question.wants_address and policy is not None and policy.address_allocation else None
        if (
            before is not None
            and before.instance is not None
            and _same(before, template, question, name)
            and (wants is None or before.instance.address)
        ):
            return [ToCard(entry.card, _granted(question, before.number, before.instance, dns))]
        why = instances.refusal(plan, node.instances, template, name, before, self._state.settings.capacity)
        number = node.numbers.temporary(TUNNEL)
        wall = now + self._state.history.wall_offset
        instance = Instance(
            on_demand=template.number,
            identity=question.identity,
            profile=name,
            session=self._services.new_session(context.name),
            since=wall,
        )
        if answer is not None:
            instance = self._services.with_terms(instance, answer, wall)
        made = instance_plans.instance_plan(template, profile, number, instance, question.peer)
        why = why or instance_plans.fault(plan.config, made)
        if why:
            return self._refused(entry, question, template, why, now)
        if wants is not None:
            try:
                made = self._services.with_address(made, wants, before)
            except AddressError as error:
                return self._refused(entry, question, template, str(error), now)
        outputs = self._end(before, REPLACED, now) if before is not None else []
        lines = node.add_instance(made, now)
        outputs += self._publish({made.asp, node.tunnels[number].home}, now)
        assert made.instance is not None
        outputs.append(ToCard(entry.card, _granted(question, number, made.instance, dns)))
        outputs += self._state.events(lines, now)
        return outputs + self._services.begin(made, now)

    def _end(self, ended: TunnelPlan, reason: str, now: float) -> list[Output]:
        """End an instance. Its ASP and the line card of its circuit know at once."""
        home = self._node.tunnels[ended.number].home
        lines = self._node.end_instances([ended.number], reason, now)
        outputs = self._publish({ended.asp, home}, now) + self._services.process_ended(now)
        return outputs + self._state.events(lines, now)

    def _refused(
        self, entry: CardEntry, question: PeerQuestion, template: TunnelPlan, why: str, now: float
    ) -> list[Output]:
        """Refuse a peer: the log says why. Who is not authenticated can cause few lines."""
        if why.startswith(CAPACITY):
            self._state.alarms.capacity.on_refused(entry.card)
        if question.step == "key" and not self._services.may_log(now):
            return [_refuse(entry, question, why)]
        peer, name = format_address(question.peer), template.config.name
        about: dict[str, Value] = {
            "card": entry.card,
            "tunnel": name,
            "identity": question.identity,
            "peer": peer,
            "context": template.config.context,
        }
        text = f"tunnel {name}: peer {question.identity} at {peer} refused: {why}"
        self._state.log("error", FACILITY, text, now, **about)
        return [_refuse(entry, question, why)]


def _same(held: TunnelPlan, template: TunnelPlan, question: PeerQuestion, profile: str) -> bool:
    """Return whether a peer that comes again is where it was, so that its instance goes on."""
    instance = held.instance
    assert instance is not None
    return (instance.on_demand, held.remote, instance.profile) == (template.number, question.peer, profile)


def _granted(question: PeerQuestion, number: int, instance: Instance, dns: tuple[int, ...]) -> PeerAnswer:
    if not instance.address or not question.wants_address:
        return PeerAnswer(question.number, tunnel=number)
    netmask = MASKS[instance.prefix_length]
    return PeerAnswer(question.number, tunnel=number, address=instance.address, netmask=netmask, dns=dns)


def _refuse(entry: CardEntry, question: PeerQuestion, why: str) -> Output:
    return ToCard(entry.card, PeerAnswer(question.number, error=why))
