"""The admission of cards: every state has an answer to every event, and the answers that matter are these."""

from __future__ import annotations

from itertools import product
from math import inf

import pytest

from chassis.state_machine import IllegalTransition
from chassis.xcrp import cards
from chassis.xcrp.cards import (
    GREETED_STATES,
    PENDING_STATES,
    AdmissionAction,
    AdmissionEvent,
    AdmissionState,
    CardEntry,
)
from chassis.xcrp.tunnels import ControllerTunnel, TunnelStatus

PAIRS = [
    (state, event)
    for state, event in product(AdmissionState, AdmissionEvent)
    if cards.ADMISSION.allows(state, event)
]


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_card_table(state: AdmissionState, event: AdmissionEvent) -> None:
    entry = CardEntry("asp 1/1", "asp", state)
    expected = entry.expects_heartbeats
    action = entry.transition(event)
    # A card whose heartbeats are no longer expected has lost its epoch.
    fenced = action in (AdmissionAction.FENCE, AdmissionAction.FENCE_AND_UNSUBSCRIBE)
    if expected:
        assert fenced == (not entry.expects_heartbeats)
    if fenced:
        assert entry.state in PENDING_STATES
    # A card becomes usable in two ways only: it reported its snapshot, or it still holds its records.
    if entry.state is AdmissionState.USABLE and state is not AdmissionState.USABLE:
        assert (state, event) in {
            (AdmissionState.SYNCHRONISING, AdmissionEvent.SYNCHRONISED),
            (AdmissionState.RESUMED, AdmissionEvent.RECONCILED),
        }
    if entry.state is AdmissionState.RESUMED and state is not AdmissionState.RESUMED:
        assert event is AdmissionEvent.HELLO_RESUMED
        assert state in (AdmissionState.RESTORED, AdmissionState.USABLE)
    # A new process never continues under the epoch of the one before.
    if event is AdmissionEvent.HELLO_NEW:
        assert (entry.state, action) == (AdmissionState.ADMITTED, AdmissionAction.ADMIT)
    if event is AdmissionEvent.DIED:
        assert entry.state in (AdmissionState.ABSENT, AdmissionState.DEAD)
    # A card is welcomed once for each hello, when the controller has a plan.
    assert (action is AdmissionAction.WELCOME) == (state in GREETED_STATES and event is AdmissionEvent.RECONCILED)


@pytest.mark.parametrize("state", sorted(PENDING_STATES, key=lambda state: state.name))
def test_dependents_of_a_failed_card_are_updated_before_its_next_event(state: AdmissionState) -> None:
    entry = CardEntry("asp 1/1", "asp", state)
    with pytest.raises(IllegalTransition):
        entry.transition(AdmissionEvent.HELLO_NEW)
    assert entry.transition(AdmissionEvent.UPDATED) is AdmissionAction.UPDATE_DEPENDENTS
    entry.transition(AdmissionEvent.HELLO_NEW)
    assert entry.state is AdmissionState.ADMITTED


@pytest.mark.parametrize(("met", "installed"), list(product((False, True), repeat=2)))
def test_a_tunnel_is_up_when_its_conditions_are_met_and_its_sas_installed(met: bool, installed: bool) -> None:
    status = {
        (False, False): TunnelStatus.DOWN,
        (False, True): TunnelStatus.PREPARED,
        (True, False): TunnelStatus.WAITING,
        (True, True): TunnelStatus.UP,
    }
    tunnel = ControllerTunnel()
    assert not tunnel.set_conditions(met, 4.0)
    assert tunnel.set_sas(installed, 5.0) == (met and installed)
    assert tunnel.status is status[met, installed]
    assert tunnel.since == (5.0 if tunnel.up else 0.0)
    assert tunnel.set_conditions(False, 6.0) == (met and installed)


def test_allowance_for_a_late_watcher() -> None:
    watch = cards.HeartbeatMonitor(0.5, 1.0)
    entry = watch.cards["lc 3"] = CardEntry("lc 3", "linecard", AdmissionState.USABLE, last_heartbeat=10.0)
    assert watch.next_timer() == 10.5
    watch.extend_deadlines(3.0, 13.2)
    assert watch.pop_expired(13.2) == []
    assert watch.next_timer() == 13.5
    assert watch.pop_expired(13.5) == [(entry, AdmissionEvent.SILENCE)]
    # It never counts a card as heard later than now.
    watch.extend_deadlines(60.0, 14.0)
    assert entry.last_heartbeat == 14.0


def test_when_a_card_may_be_at_risk() -> None:
    watch = cards.HeartbeatMonitor(0.5, 1.0)
    assert watch.next_risk() == inf
    for number, name in enumerate(("lc 3", "lc 4")):
        heard = 10.0 + 0.1 * number
        watch.cards[name] = CardEntry(name, "linecard", AdmissionState.USABLE, last_heartbeat=heard)
    assert watch.next_risk() == 10.25
    assert watch.at_risk(10.24) == []
    assert watch.at_risk(10.25) == [watch.cards["lc 3"]]
    watch.cards["lc 4"].state = AdmissionState.HUNG
    assert watch.next_risk() == -inf
    assert watch.at_risk(10.0) == [watch.cards["lc 4"]]
