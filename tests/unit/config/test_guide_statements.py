"""Statements of the guide about configuration: defaults, limits, what is refused, what a name finds."""

from __future__ import annotations

import pytest

from chassis.config.parser import Parsed, parse
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, Key, Spi
from chassis.model.router import Tunnel

NUMBERED = pytest.mark.behaviour

SERVED = """\
card ase 1
asp pool pool service security
 asp 1/1
asp group group
 pool pool
context inside
 interface t1
  ip address 10.9.1.1/30
 interface t2
  ip address 10.9.2.1/30
context outside
 interface lo loopback
  ip address 10.0.0.1/32
 asp-group group service security
"""


def read(*lines: str) -> Parsed:
    return parse("\n".join(lines) + "\n")


def right(*lines: str) -> Parsed:
    """What is read of lines that have nothing wrong."""
    parsed = read(*lines)
    assert refused(parsed) == [], lines
    return parsed


def refused(parsed: Parsed) -> list[int]:
    """The lines, from 1, that were refused."""
    return [d.line for d in parsed.diagnostics if d.severity == "error"]


def warned(parsed: Parsed) -> list[tuple[str, str]]:
    return [(d.code, d.name) for d in parsed.diagnostics if d.severity == "warning"]


def ike_proposal(*lines: str, version: str = "ike") -> IkeProposal:
    return right(f"{version} proposal p", *lines).config.ike_proposals["p"]


def ike_policy(*lines: str, version: str = "ike") -> IkePolicy:
    return right("context c", f"{version} policy p", *lines).config.contexts["c"].ike_policies["p"]


def ipsec_proposal(*lines: str) -> IpsecProposal:
    return right("ipsec proposal p", *lines).config.ipsec_proposals["p"]


def ipsec_policy(*lines: str) -> IpsecPolicy:
    return right("ipsec policy p", *lines).config.ipsec_policies["p"]


def tunnel(*lines: str, kind: str = "") -> Tunnel:
    return right(f"tunnel ipsec t {kind}".strip(), *lines).config.tunnels["t"]


# --- IKE proposals (6.2) ---


@NUMBERED("B-063")
@pytest.mark.parametrize("version", ["ike", "ike2"])
def test_a_new_ike_proposal(version: str) -> None:
    proposal = ike_proposal(version=version)
    assert proposal.dh_group == 1
    assert proposal.authentication_algorithm == "hmac-sha1-96"
    assert proposal.encryption_algorithm == "aes-128-cbc"


@NUMBERED("B-064")
def test_a_new_proposal_of_version_1() -> None:
    proposal = ike_proposal()
    assert (proposal.version, proposal.authentication, proposal.lifetime) == (1, "pre-shared-key", 86400)


@NUMBERED("B-065")
def test_a_new_proposal_of_version_2() -> None:
    proposal = ike_proposal(version="ike2")
    assert (proposal.version, proposal.prf) == (2, "hmac-sha1")


ALL_VALUES = {
    "B-066": ("ike2", "dh-group {}", ("1", "2", "5", "14"), ("0", "3", "4", "15", "16", "19")),
    "B-067": ("ike", "authentication algorithm {}", ("hmac-md5-96", "hmac-sha1-96"), ("hmac-md4-96", "sha2-256")),
    "B-068": ("ike", "encryption algorithm {}", ("aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-cbc",
        "3des-cbc"), ("aes-512-cbc", "aes-128-gcm", "null", "blowfish-cbc")),
    "B-069": ("ike2", "pseudo-random-function {}", ("hmac-md5", "hmac-sha1", "aes-128-xcbc"),
        ("hmac-sha1-96", "hmac-sha2-256", "aes-256-xcbc")),
    "B-070": ("ike", "lifetime seconds {}", ("300", "99999999"), ("299", "100000000")),
    "B-132": (None, "num-queues {}", ("1", "4"), ("0", "2", "3", "5", "8")),
}  # fmt: skip
"""Statement: object, line, values that are accepted, values that are refused."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=NUMBERED(name)) for name in ALL_VALUES])
def test_values_of_a_line(name: str) -> None:
    version, line, known, unknown = ALL_VALUES[name]
    opening = f"{version} proposal p" if version else "ipsec qos policy p pq"
    for value in known:
        assert refused(read(opening, line.format(value))) == []
    for value in unknown:
        assert refused(read(opening, line.format(value))) == [2], value


@NUMBERED("B-073")
def test_a_proposal_serves_policies_of_any_context() -> None:
    policy = ("ike policy p", "seq 1 proposal x")
    parsed = right("context a", *policy, "context b", *policy, "ike proposal x")
    assert warned(parsed) == []
    assert set(parsed.config.ike_proposals) == {"x"}


def of_version(lines: str, refusing: str, accepting: str, *words: str) -> list[tuple[str, str]]:
    """Lines with each of these words last: those of one version, that refuse it, and those of the other."""
    return [(f"{lines.format(refusing)}; {word}", f"{lines.format(accepting)}; {word}") for word in words]


def limited(opening: str, line: str, limit: int) -> list[tuple[str, str]]:
    """One numbered line more than are accepted, and as many as are."""
    lines = [opening, *(f"seq {number} {line}".format(number) for number in range(1, limit + 2))]
    return [("; ".join(lines), "; ".join(lines[:-1]))]


IKE_POLICY = "context c; {} policy p"
REFUSED = {
    "B-071": of_version("{} proposal p", "ike2", "ike", "authentication pre-shared-key",
        "authentication rsa-signature", "lifetime seconds 86400"),
    "B-072": of_version("{} proposal p", "ike", "ike2", "pseudo-random-function hmac-sha1"),
    "B-081": [
        *of_version("{} proposal x; context c; ike policy p", "ike2", "ike", "seq 1 proposal x"),
        *of_version("{} proposal x; context c; ike2 policy p", "ike", "ike2", "seq 1 proposal x"),
    ],
    "B-083": [
        *limited("context c; ike policy p", "proposal x{}", 16),
        *limited("context c; ike2 policy p", "proposal x{}", 16),
    ],
    "B-085": of_version(IKE_POLICY, "ike2", "ike", "mode main", "mode aggressive"),
    "B-086": of_version(IKE_POLICY, "ike", "ike2", "lifetime seconds 86400", "authentication rsa-signature",
        "address-allocation aaa"),
    "B-115": limited("ipsec policy p", "proposal x{}", 16),
    "B-044": limited("context c; ipsec profile p", "ipsec-policy x access-group a{}", 8),
    "B-143": [
        *limited("tunnel ipsec t", "ipsec-policy x{}", 8),
        *limited("tunnel ipsec t manual", "security-association x{}", 8),
    ],
    "B-174": [("context c; interface m ipsec multibind; ip address 10.0.0.1/24",
        "context c; interface a; ip address 10.0.0.1/24; interface m ipsec multibind; ip unnumbered a")],
    "B-185": of_version("tunnel ipsec t{}", " manual", "", "ike-policy p", "ip route traffic-selector-guided"),
    "B-116": of_version("tunnel ipsec t{}", "", " manual", "seq 1 security-association s"),
    "B-117": of_version("tunnel ipsec t{}", " manual", "", "seq 1 ipsec-policy p"),
}  # fmt: skip
"""Statement: lines of which the last is refused, and lines that are all accepted."""


@pytest.mark.parametrize(("wrong", "accepted"), [
    pytest.param(*pair, marks=NUMBERED(name)) for name, pairs in REFUSED.items() for pair in pairs
])  # fmt: skip
def test_lines_that_are_refused_where_they_stand(wrong: str, accepted: str) -> None:
    assert refused(read(*wrong.split("; "))) == [wrong.count("; ") + 1]
    assert refused(read(*accepted.split("; "))) == []


# --- IKE policies (6.4) ---


@NUMBERED("B-078", "B-079")
def test_a_new_policy_of_version_1() -> None:
    policy = ike_policy()
    assert (policy.connection_type, policy.mode) == ("both", "main")
    assert ike_policy("mode aggressive").mode == "aggressive"


@NUMBERED("B-078", "B-080")
def test_a_new_policy_of_version_2() -> None:
    policy = ike_policy(version="ike2")
    assert (policy.connection_type, policy.authentication, policy.lifetime) == ("both", "pre-shared-key", 86400)


@NUMBERED("B-084", "B-115")
@pytest.mark.parametrize("opening", ["ike policy p", "ike2 policy p", "ipsec policy p"])
def test_a_sequence_number_stands_once(opening: str) -> None:
    config = right("context c", opening, "seq 20 proposal a", "seq 10 proposal b", "seq 20 proposal d").config
    policy = config.ipsec_policies.get("p") or config.contexts["c"].ike_policies["p"]
    assert [(each.seq, each.name) for each in policy.proposals] == [(10, "b"), (20, "d")]


@NUMBERED("B-087")
def test_a_tunnel_finds_no_policy_of_another_context() -> None:
    lines = [SERVED, "ike proposal x", "context {}", "ike policy p", "seq 1 proposal x", "pre-shared-key k",
             "tunnel ipsec t", "bind interface t1 inside", "ike-policy p", "remote-id 2.2.2.2",
             "peer-end-point local 10.0.0.1 remote 2.2.2.2 context outside"]  # fmt: skip
    assert warned(read(*(line.format("outside") for line in lines))) == []
    assert ("S-048", "p") in warned(read(*(line.format("inside") for line in lines)))


@NUMBERED("B-089")
def test_the_key_that_was_entered_last_counts() -> None:
    forms = {"pre-shared-key abc": ("ascii", b"abc"), "pre-shared-key hex 0x6162": ("hex", b"ab"),
             "pre-shared-key use-aaa": ("aaa", b"")}  # fmt: skip
    for first in forms:
        for last, (form, value) in forms.items():
            key = ike_policy(first, last).pre_shared_key
            assert key is not None
            assert (key.form, key.value) == (form, value)


@NUMBERED("B-091")
def test_a_policy_serves_several_tunnels() -> None:
    lines = [SERVED, "ike proposal x", "context outside", "ike policy p", "seq 1 proposal x", "pre-shared-key k"]
    for number in (1, 2):
        lines += [f"tunnel ipsec x{number}", f"bind interface t{number} inside", "ike-policy p",
                  f"peer-end-point local 10.0.0.1 remote 2.2.2.{number} context outside",
                  f"remote-id 2.2.2.{number}"]  # fmt: skip
    assert warned(right(*lines)) == []


# --- IPsec proposals and policies (8.1, 8.2) ---


DEFAULT = (None, "hmac-sha1-96", "aes-128-cbc")


def of_proposal(*lines: str) -> tuple[str | None, str | None, str | None]:
    """AH's algorithm, ESP's integrity and cipher in force."""
    proposal = ipsec_proposal(*lines)
    return proposal.ah, proposal.esp_integrity, proposal.esp_cipher


@NUMBERED("B-103")
def test_a_new_ipsec_proposal() -> None:
    proposal = ipsec_proposal()
    assert of_proposal() == DEFAULT
    assert not proposal.ip_comp
    assert (proposal.lifetime_seconds, proposal.lifetime_kbytes) == (86400, None)


AH, AUTH, CIPHER = "ah hmac-md5-96", "esp authentication hmac-md5-96", "esp encryption 3des-cbc"


@pytest.mark.parametrize(("lines", "in_force"), [
    pytest.param((AUTH,), (None, "hmac-md5-96", "null"), marks=NUMBERED("B-105")),
    pytest.param((AUTH, CIPHER, "no esp authentication"), (None, None, "3des-cbc"), marks=NUMBERED("B-106")),
    pytest.param((AH, AUTH, "no esp authentication"), ("hmac-md5-96", None, None), marks=NUMBERED("B-106")),
    pytest.param((AUTH, "no esp authentication"), DEFAULT, marks=NUMBERED("B-106")),
    pytest.param((AH, CIPHER, "no esp encryption"), ("hmac-md5-96", None, None), marks=NUMBERED("B-107")),
    pytest.param((CIPHER, "no esp encryption"), DEFAULT, marks=NUMBERED("B-108")),
    pytest.param((AH, AUTH, CIPHER), ("hmac-md5-96", "hmac-md5-96", "3des-cbc"), marks=NUMBERED("B-109")),
    pytest.param((AH, AUTH, CIPHER, "no ah"), (None, "hmac-md5-96", "3des-cbc"), marks=NUMBERED("B-109")),
])  # fmt: skip
def test_algorithms_of_an_ipsec_proposal(lines: tuple[str, ...], in_force: tuple[str | None, ...]) -> None:
    assert of_proposal(*lines) == in_force


@NUMBERED("B-110")
def test_ip_compression_is_turned_on_and_off() -> None:
    assert ipsec_proposal("ip-comp").ip_comp
    assert not ipsec_proposal("ip-comp", "no ip-comp").ip_comp


@NUMBERED("B-112")
def test_a_new_ipsec_policy_has_a_window_of_64_packets() -> None:
    assert ipsec_policy().window == 64
    assert ipsec_policy("anti-replay-window 128").window == 128


# --- manual SAs (8.3) ---

BOTH = ["both", "esp spi 300", "esp authentication key 01234567890123456789"]


@NUMBERED("B-119")
@pytest.mark.parametrize("first", ["in", "out", "both"])
@pytest.mark.parametrize("second", ["in", "out", "both"])
def test_both_excludes_in_and_out(first: str, second: str) -> None:
    parsed = read("ipsec security-association s", first, "ah spi 300", second, "ah spi 301")
    assert (refused(parsed)[:1] == [4]) is (first != second and "both" in (first, second))


@NUMBERED("B-120")
def test_in_and_out_come_as_a_pair_of_one_protocol() -> None:
    half = ["ipsec security-association s", "in", "ah spi 300", "ah key 01234567890123456789"]
    other = ["out", "ah spi 301", "ah key 01234567890123456789"]
    esp = ["out", "esp spi 301", "esp authentication key 01234567890123456789"]
    assert warned(right(*half)) == [("S-109", "in")]
    assert warned(right(*half, *esp)) == [("S-109", "out")]
    assert warned(right(*half, *other)) == []


@NUMBERED("B-121")
def test_both_directions_are_equal() -> None:
    sa = right("ipsec security-association s", *BOTH).config.manual_sas["s"]
    assert sa.complete
    assert isinstance(sa.both, Spi)
    assert sa.receive == sa.send == sa.both


@NUMBERED("B-122")
def test_algorithms_may_be_left_out_and_keys_may_not() -> None:
    lines = ["ipsec security-association s", "both", "ah spi 300", "ah key 01234567890123456789", "esp spi 301",
             "esp authentication key 01234567890123456789", "esp encryption key 0123456789abcdef"]  # fmt: skip
    sa = right(*lines).config.manual_sas["s"]
    assert sa.complete
    for line in ("ah hmac-sha1-96", "esp authentication hmac-sha1-96", "esp encryption aes-128-cbc"):
        assert refused(read("ipsec security-association s", "both", line)) == [3]


@NUMBERED("B-123")
def test_cipher_null_takes_the_place_of_a_keyed_one() -> None:
    sa = right("ipsec security-association s", *BOTH, "esp encryption key 0123456789abcdef", "esp encryption null")
    both = sa.config.manual_sas["s"].both
    assert both is not None
    assert both.esp_cipher == "null"
    assert both.esp_encryption is not None
    assert both.esp_encryption.key == Key(b"")


# --- tunnels (9) ---


@NUMBERED("B-009")
@pytest.mark.parametrize("kind", ["", "manual", "on-demand"])
def test_a_tunnel_is_circuit_based_unless_it_says_economical(kind: str) -> None:
    assert not tunnel(kind=kind).economical
    assert tunnel(kind=f"{kind} economical".strip()).economical


@NUMBERED("B-141")
@pytest.mark.parametrize("kind", ["", "manual"])
def test_the_df_bit_of_a_tunnel(kind: str) -> None:
    assert tunnel(kind=kind).df_bit == "propagate"
    for word in ("propagate", "set", "clear"):
        assert tunnel(f"df-bit {word}", kind=kind).df_bit == word


@NUMBERED("B-142")
def test_an_end_point_without_a_context_is_in_local() -> None:
    assert tunnel("peer-end-point local 1.1.1.1 remote 2.2.2.2").context == "local"
    assert tunnel("peer-end-point local 1.1.1.1", kind="on-demand").context == "local"


@NUMBERED("B-146")
def test_traffic_selector_routes_are_off_unless_configured() -> None:
    assert not tunnel().traffic_selector_routes
    assert tunnel("ip route traffic-selector-guided").traffic_selector_routes


@NUMBERED("B-163")
def test_an_identity_is_not_in_a_static_and_an_on_demand_tunnel_of_one_context() -> None:
    def lines(context: str) -> list[str]:
        return [SERVED, "context other", "ike policy p", "context outside", "ike policy p", "mode aggressive",
                "tunnel ipsec a", "peer-end-point local 10.0.0.1 remote 2.2.2.2 context outside",
                "ike-policy p", "remote-id 2.2.2.2",
                "tunnel ipsec b on-demand", f"peer-end-point local 10.0.0.1 context {context}",
                "ike-policy p", "remote-id 2.2.2.2"]  # fmt: skip

    def codes(context: str) -> list[str]:
        return [d.code for d in read(*lines(context)).diagnostics if d.severity == "error"]

    assert codes("outside") == ["S-094"]
    assert codes("other") == []


@NUMBERED("B-019")
def test_each_tunnel_has_an_interface_of_its_own() -> None:
    def of(second: str) -> list[tuple[str, str]]:
        lines = [SERVED]
        for name, interface in (("a", "t1"), ("b", second)):
            lines += [f"tunnel ipsec {name} manual", f"bind interface {interface} inside",
                      "peer-end-point local 10.0.0.1 remote 2.2.2.2 context outside"]  # fmt: skip
        return [each for each in warned(read(*lines)) if each[0] == "binding"]

    assert of("t2") == []
    assert of("t1") == [("binding", "t1")]


@NUMBERED("B-051")
def test_one_keyword_names_policies_of_both_versions() -> None:
    for version in ("ike", "ike2"):
        lines = [SERVED, f"{version} proposal x", "context outside", f"{version} policy p", "seq 1 proposal x",
                 "pre-shared-key k", "tunnel ipsec t", "bind interface t1 inside", "ike-policy p",
                 "peer-end-point local 10.0.0.1 remote 2.2.2.2 context outside", "remote-id 2.2.2.2"]  # fmt: skip
        parsed = right(*lines)
        assert warned(parsed) == []
        assert parsed.config.tunnels["t"].ike_policy == "p"


# --- on-demand tunnels (9.3) ---

DEMANDING = """\
context inside
 interface mb ipsec multibind
  ip unnumbered t1
 ipsec access-list in-list
  seq 10 any any
 ipsec profile d1
  seq 10 ipsec-policy e access-group in-list
 ipsec profile d2
  seq 10 ipsec-policy e
context outside
 ipsec access-list out-list
  seq 10 any any
 ike2 policy p
  seq 1 proposal x
ike2 proposal x
ipsec proposal x
ipsec policy e
 seq 1 proposal x
"""


def demanding(*lines: str, bind: str = "mb inside", name: str = "d1") -> list[str]:
    """The lines of an on-demand tunnel, and what it needs, with nothing wrong; and further lines of the tunnel."""
    return [SERVED + DEMANDING, f"tunnel ipsec {name} on-demand", f"bind interface {bind}",
            "peer-end-point local 10.0.0.1 context outside", "ike-policy p", *lines]  # fmt: skip


@NUMBERED("B-160")
def test_forms_of_a_remote_identity() -> None:
    for form in ("20.0.0.1", "b.example", "*.branch.example", "*.*.example", "*", "0.0.0.0"):
        parsed = right(*demanding(f"remote-id {form}"))
        assert parsed.config.tunnels["d1"].remote_id == form
        assert warned(parsed) == []
    for form in ("b.*.example", "b*.example", "*.", "*.*", "20.0.0.*", "*.b..example"):
        wrong = [d for d in read(*demanding(f"remote-id {form}")).diagnostics if d.severity == "error"]
        assert [(d.code, d.column, d.name) for d in wrong] == [("S-021", 11, form)]


@NUMBERED("B-162")
def test_an_identity_stands_in_several_on_demand_tunnels() -> None:
    second = ["tunnel ipsec d2 on-demand", "bind interface mb inside",
              "peer-end-point local 10.0.0.1 context outside", "remote-id *.b.example"]  # fmt: skip
    parsed = right(*demanding("remote-id *.b.example"), *second, "ike-policy p")
    assert warned(parsed) == []
    assert [tunnel.remote_id for tunnel in parsed.config.tunnels.values()] == ["*.b.example"] * 2
    # With another IKE policy that is legal, but not as the guide advises.
    parsed = right(*demanding("remote-id *.b.example"), *second, "ike-policy q", "context outside",
                   "ike2 policy q", "seq 1 proposal x")  # fmt: skip
    assert warned(parsed) == [("S-036", "q")]


@NUMBERED("B-165")
def test_no_static_route_leads_to_a_multibind_interface() -> None:
    lines = [*demanding(), "context inside", "ip route 60.0.0.0/8 t2", "ip route 60.0.0.0/8 mb"]
    parsed = read(*lines)
    assert refused(parsed) == ["\n".join(lines).count("\n") + 1]
    assert [route.interface for route in parsed.config.contexts["inside"].routes] == ["t2"]


@NUMBERED("B-174")
def test_a_multibind_interface_without_a_borrowed_address_is_reported() -> None:
    lines = ["context c", "interface a", "ip address 10.0.0.1/24", "interface m ipsec multibind"]
    assert warned(read(*lines)) == [("multibind", "m")]
    assert warned(read(*lines, "ip unnumbered a")) == []


@NUMBERED("B-175")
def test_a_multibind_interface_takes_many_tunnels_and_another_one_takes_one() -> None:
    second = ["tunnel ipsec d2 on-demand", "peer-end-point local 10.0.0.1 context outside", "ike-policy p"]
    assert warned(read(*demanding(), *second, "bind interface mb inside")) == []
    assert ("binding", "t1") in warned(read(*demanding(), *second, "bind interface t1 inside"))
    assert ("binding", "mb") in warned(read(*demanding(), "tunnel ipsec s", "bind interface mb inside"))


@NUMBERED("B-176")
def test_a_multibind_interface_may_be_in_any_context() -> None:
    for context in ("inside", "outside", "local", "third"):
        lines = [f"context {context}", "interface lo2 loopback", "ip address 10.0.0.9/32",
                 "interface mb2 ipsec multibind", "ip unnumbered lo2",
                 "ipsec profile d1", "seq 10 ipsec-policy e"]  # fmt: skip
        parsed = right(*demanding(bind=f"mb2 {context}"), *lines)
        assert warned(parsed) == []
        assert parsed.config.tunnels["d1"].interface_context == context


@NUMBERED("B-177")
@NUMBERED("B-178")
def test_the_profile_has_the_tunnels_name_and_is_in_the_interfaces_context() -> None:
    def said(*lines: str, name: str) -> list[tuple[str, str]]:
        return warned(right(*demanding(name=name), *lines))

    assert said(name="d2") == []
    assert said(name="d3") == [("S-045", "d3")]
    assert said("context outside", "ipsec profile d3", "seq 10 ipsec-policy e", name="d3") == [("S-045", "d3")]
    assert said("context inside", "ipsec profile d3", "seq 10 ipsec-policy e", name="d3") == []
    # AAA may name one, which is not known before a peer comes.
    said_of_aaa = [d.message for d in read(*demanding(name="d3"), "context outside", "ike2 policy p",
                                           "pre-shared-key use-aaa").diagnostics if d.code == "S-045"]  # fmt: skip
    assert said_of_aaa == ["no IPsec profile d3 in context inside: each peer needs one that AAA names"]


@NUMBERED("B-179")
def test_an_access_list_of_a_profile_is_in_the_profiles_context() -> None:
    def said(acl: str) -> list[tuple[str, str]]:
        return warned(
            right(*demanding(), "context inside", "ipsec profile d1", f"seq 20 ipsec-policy e access-group {acl}")
        )

    assert said("in-list") == []
    assert said("out-list") == [("S-039", "out-list")]
