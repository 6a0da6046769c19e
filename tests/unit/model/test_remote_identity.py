"""Expected identities of on-demand peers: what each matches, and which one wins."""

from __future__ import annotations

import pytest

from chassis.model.remote_identity import Precision, RemoteIdentity


@pytest.mark.parametrize(
    ("expected", "said", "is_address", "matches"),
    [
        ("10.1.1.1", "10.1.1.1", True, True),
        ("10.1.1.1", "10.1.1.2", True, False),
        ("West.Branch.Example", "west.branch.example", False, True),
        ("*.branch.example", "WEST.branch.example", False, True),
        ("*.branch.example", "a.west.branch.example", False, False),
        ("*.branch.example", ".branch.example", False, False),
        ("*.*.example", "west.branch.example", False, True),
        ("*.*.example", "branch.example", False, False),
        ("*.2.3.4", "1.2.3.4", True, False),
        ("*", "10.1.1.1", True, True),
        ("0.0.0.0", "10.1.1.1", True, True),
        ("*", "west.branch.example", False, False),
        ("", "west.branch.example", False, True),
        ("", "10.1.1.1", True, True),
    ],
)
def test_what_an_identity_matches(expected: str, said: str, is_address: bool, matches: bool) -> None:
    assert RemoteIdentity.of(expected).matches(said, is_address=is_address) is matches


def test_the_most_precise_has_the_lowest_rank() -> None:
    texts = ["", "*", "*.*.example", "*.branch.example", "west.branch.example"]
    ranked = sorted(map(RemoteIdentity.of, texts), key=lambda one: one.rank)
    assert [one.text for one in ranked] == texts[::-1]
    assert [one.precision for one in ranked] == [
        Precision.EXACT, Precision.PARTIAL, Precision.PARTIAL, Precision.WILDCARD, Precision.ANY,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["west.*.example", "*.*", "we*st.example", "*..example", "*west.example"])
def test_a_star_stands_for_first_labels_only(text: str) -> None:
    with pytest.raises(ValueError, match="whole labels"):
        RemoteIdentity.of(text)
