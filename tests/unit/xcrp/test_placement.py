"""Cards of a configuration (S-101, S-102) and the ASPs of local ends (S-106, S-108)."""

from __future__ import annotations

import pytest

from chassis.model.router import Config
from chassis.xcrp.configuration import check
from chassis.xcrp.inventory import card_of_port, cards_of
from chassis.xcrp.placement import place, working_asps
from chassis.xcrp.settings import ControllerSettings, seconds

POOLS = """
card ase 1
card ge-10-port 3
asp pool P1 service security
  asp 1/2
asp pool P2 service security
  asp 1/1
  asp 5/1
asp pool EMPTY service security
asp group BOTH
  pool P1
  pool P2
  asp-count {count}
asp group NONE
  pool EMPTY
context C
  asp-group BOTH service security
context D
  asp-group NONE service security
context E
"""


def read(text: str) -> Config:
    checked = check(text, "test")
    assert not checked.refused, checked.diagnostics
    return checked.config


def test_cards() -> None:
    config = read(POOLS.format(count=2))
    assert cards_of(config) == (
        ("asp 1/1", "asp"),
        ("asp 1/2", "asp"),
        ("lc 3", "linecard"),
        ("asp 5/1", "asp"),
        ("asp 5/2", "asp"),
    )
    assert card_of_port(config, "3/7") == "lc 3"
    assert card_of_port(config, "4/1") == ""
    assert card_of_port(config, "1/1") == ""
    assert card_of_port(config, "7/1") == "xcrp"


@pytest.mark.parametrize(
    ("count", "asps"), [(1, ("asp 1/2",)), (2, ("asp 1/2", "asp 1/1")), (9, ("asp 1/2", "asp 1/1", "asp 5/1"))]
)
def test_working_asps_are_the_first_of_the_pools_in_order(count: int, asps: tuple[str, ...]) -> None:
    config = read(POOLS.format(count=count))
    assert working_asps(config, "C") == asps
    assert working_asps(config, "D") == ()
    assert working_asps(config, "E") == ()
    assert working_asps(config, "nowhere") == ()


def ends(*places: str) -> str:
    return "".join(
        f"tunnel ipsec t{i} manual\n  peer-end-point local {where.split()[1]} remote 9.9.9.9"
        f" context {where.split()[0]}\n"
        for i, where in enumerate(places)
    )


@pytest.mark.behaviour("B-172")
def test_new_places_go_where_the_fewest_are_and_old_ones_stay() -> None:
    text = POOLS.format(count=2)
    first = place(read(text + ends("C 1.0.0.1", "C 1.0.0.2", "C 1.0.0.1", "D 1.0.0.1")), {})
    assert first == {("C", "1.0.0.1"): "asp 1/2", ("C", "1.0.0.2"): "asp 1/1"}
    held = {("C", "1.0.0.2"): "asp 1/2"}
    second = place(read(text + ends("C 1.0.0.1", "C 1.0.0.2", "C 1.0.0.3")), held)
    assert second == {("C", "1.0.0.1"): "asp 1/1", ("C", "1.0.0.2"): "asp 1/2", ("C", "1.0.0.3"): "asp 1/2"}
    gone = place(read(POOLS.format(count=1) + ends("C 1.0.0.1")), {("C", "1.0.0.1"): "asp 1/1"})
    assert gone == {("C", "1.0.0.1"): "asp 1/2"}


@pytest.mark.parametrize(
    ("text", "value"), [("100ms", 0.1), ("2s", 2.0), ("1.5 m", 90.0), (3, 3.0), (0.25, 0.25), ("250us", 0.00025)]
)
def test_durations(text: object, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "fast", "-1s", -1, True, None, float("nan"), "1d", []])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


def test_wrong_settings_are_said_and_leave_the_default() -> None:
    settings, problems = ControllerSettings.read(
        {"heartbeat-interval": "0s", "heartbeat-misses": 0, "discard-tunnel-routes": "maybe"}
    )
    assert settings.silence == 0.5
    assert len(problems) == 3
    settings, problems = ControllerSettings.read(
        {"heartbeat-interval": "50ms", "heartbeat-misses": 3, "discard-tunnel-routes": True}
    )
    assert (settings.heartbeat_interval, settings.heartbeat_misses, settings.discard, problems) == (
        0.05,
        3,
        True,
        [],
    )
