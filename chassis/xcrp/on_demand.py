"""On-demand tunnels at the controller: what ASPs ask about peers, and what becomes of peers that go (guide 9.3).

An ASP asks with a `PeerQuestion` when it has authenticated a peer. The controller finds the profile, makes the
instance, and answers after the instance's record is on its way: the connection keeps their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from chassis.bus.engine import Output, ToCard
from chassis.bus.messages import PeerAnswer, PeerDropped, PeerQuestion, Value
from chassis.bus.records import Instance
from chassis.net.address import format_address
from chassis.xcrp import instance_plans, instances
from chassis.xcrp.cards import CardEntry
from chassis.xcrp.id_allocator import TUNNEL
from chassis.xcrp.plan import TunnelPlan
from chassis.xcrp.reports import Receiver
from chassis.xcrp.state import ControllerState

MAX_EARLY_QUESTIONS: Final = 1_000
"""Questions that are kept until the first plan is made (count); ASPs repeat the others' peers."""

FACILITY: Final = "ipsec"

REPLACED: Final = "its peer came anew"


class OnDemand:
    """Answers what ASPs ask about peers, and ends the instances of peers that are gone."""

    def __init__(self, state: ControllerState) -> None:
        self._state, self._node = state, state.node
        self._early: list[tuple[str, PeerQuestion]] = []
        """Questions of ASPs before there was a plan."""
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
        template = self._node.plan.on_demand.get(question.on_demand)
        if template is None or template.asp != entry.card:
            return [_refuse(entry, question, "no such on-demand tunnel")]
        if template.config_error:
            return [_refuse(entry, question, template.config_error)]
        return self._admit(entry, question, template, now)

    def _on_dropped(self, entry: CardEntry, message: PeerDropped, now: float) -> list[Output]:
        held = self._node.plan.tunnels.get(message.tunnel)
        if held is None or held.instance is None or held.asp != entry.card:
            return []
        return self._end([held], message.reason or "peer gone", now)

    # peers come and go

    def _admit(self, entry: CardEntry, question: PeerQuestion, template: TunnelPlan, now: float) -> list[Output]:
        node, plan = self._node, self._node.plan
        context = plan.config.contexts[template.config.interface_context]
        name = template.config.name
        profile = context.profiles.get(name)
        if profile is None:
            # B-101
            return self._refused(
                entry, question, template, f"no IPsec profile {name} in context {context.name}", now
            )
        known = node.instances.of(template.outer, question.identity)
        before = plan.tunnels[known] if known is not None else None
        if before is not None and before.instance is not None and _same(before, template, question, name):
            answer = PeerAnswer(question.number, tunnel=before.number, address=before.instance.address)
            return [ToCard(entry.card, answer)]
        why = instances.refusal(plan, node.instances, template, name, before)
        if why:
            return self._refused(entry, question, template, why, now)
        instance = Instance(
            on_demand=template.number,
            identity=question.identity,
            profile=name,
            since=now + self._state.history.wall_offset,
        )
        number = node.numbers.temporary(TUNNEL)
        made = instance_plans.instance_plan(template, profile, number, instance, question.peer)
        fault = instance_plans.fault(plan.config, made)
        if fault:
            return self._refused(entry, question, template, fault, now)
        outputs = self._end([before], REPLACED, now) if before is not None else []
        lines = node.add_instance(made, now)
        outputs += self._state.publish()
        outputs.append(ToCard(entry.card, PeerAnswer(question.number, tunnel=number)))
        return outputs + self._state.events(lines, now)

    def _end(self, ended: Iterable[TunnelPlan], reason: str, now: float) -> list[Output]:
        """End some instances, for one reason."""
        gone = list(ended)
        lines = self._node.end_instances([one.number for one in gone], reason, now)
        return self._state.publish() + self._state.events(lines, now)

    def _refused(
        self, entry: CardEntry, question: PeerQuestion, template: TunnelPlan, why: str, now: float
    ) -> list[Output]:
        """Refuse a peer that was authenticated: the log says why."""
        peer, name = format_address(question.peer), template.config.name
        about: dict[str, Value] = {"card": entry.card, "tunnel": name, "identity": question.identity, "peer": peer}
        text = f"tunnel {name}: peer {question.identity} at {peer} refused: {why}"
        self._state.log("error", FACILITY, text, now, **about)
        return [_refuse(entry, question, why)]


def _same(held: TunnelPlan, template: TunnelPlan, question: PeerQuestion, profile: str) -> bool:
    """Return whether a peer that comes again is where it was, so that its instance goes on."""
    instance = held.instance
    assert instance is not None
    return (instance.on_demand, held.remote, instance.profile) == (template.number, question.peer, profile)


def _refuse(entry: CardEntry, question: PeerQuestion, why: str) -> Output:
    return ToCard(entry.card, PeerAnswer(question.number, error=why))
