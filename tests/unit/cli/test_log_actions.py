"""What is recommended about log messages: for the messages of tables 5 and 7, and for no other."""

from __future__ import annotations

from chassis.ase.drop_log import TEXTS
from chassis.ase.ike.log import INFORMATIONAL, TEMPLATES
from chassis.cli.views.log_actions import ACTIONS, AT_THE_PEER, recommended

NOTHING = "Nothing needs to be done."


def test_every_message_of_tables_5_and_7_has_an_action_and_no_other() -> None:
    table_5 = {id for id in TEMPLATES if id.startswith("ikev1-")}
    table_7 = {id for id in TEXTS if id != "esp-selector-mismatch"}
    assert table_5 | table_7 == ACTIONS.keys()


def test_informational_messages_need_nothing() -> None:
    informational = INFORMATIONAL | {id for id, text in TEXTS.items() if text.severity == "informational"}
    assert {id for id, action in ACTIONS.items() if action == NOTHING} == informational


def test_a_notification_that_the_guide_is_not_about_sends_the_reader_to_the_peer() -> None:
    for id, about in (
        ("ikev1-received-unprotected-notify", "UNSUPPORTED_EXCHANGE_TYPE"),
        ("ikev1-received-notify", "INVALID_ID_INFORMATION"),
    ):
        assert recommended(id, {"notify": about}) == ACTIONS[id]
        assert recommended(id, {"notify": "NO_PROPOSAL_CHOSEN"}) == AT_THE_PEER
    assert recommended("ike-own", {}) == ""
