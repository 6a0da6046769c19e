"""Commands of `chassisctl` for SAs of tunnels: clear and rekey them, print SAs, queues and remote
peers, and export IKE keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from chassis.bus import regular_files
from chassis.bus.operator import OperatorError
from chassis.cli.views import security, tunnels
from chassis.cli.views.layout import Scope, line_of, pairs
from launch.client import status_view
from launch.client.running_lab import RunningLab
from launch.ctl.base import lab_command, option, print_answer

_ALL_OF = ("all",)


def _tunnel(words: tuple[str, ...], command: str) -> tuple[str, tuple[str, ...]]:
    """Return the tunnel that the words name (empty for all), and the words after it."""
    if words[:1] == _ALL_OF:
        return "", words[1:]
    if len(words) >= 2 and words[0] == "tunnel":
        return words[1], words[2:]
    raise click.UsageError(f"no tunnel given; expected: chassisctl {command} NODE tunnel NAME, or NODE all")


def _done(answer: Mapping[str, Any], key: str, text: str) -> str:
    """Print one line for what all ASPs and IKE did, and one for each error."""
    number = sum(int(reply.get(key, 0)) + int(reply.get("manual", 0)) for reply in answer["cards"].values())
    return "\n".join([f"{number} {text}", *(f"{card}: {error}" for card, error in answer["errors"].items())])


def _end(answer: Mapping[str, Any]) -> None:
    raise SystemExit(1 if answer["errors"] else 0)


@lab_command()
@click.argument("node")
@click.argument("which", nargs=-1, required=True)
def clear(lab: RunningLab, node: str, which: tuple[str, ...], as_json: bool) -> None:
    """Delete SAs and negotiate new ones, as in `clear a tunnel t1`, `clear a tunnel t1 ike` or `clear a all`.

    `ike` or `ipsec` after the tunnel clears only these SAs, as the router's two clear commands do; the default is
    both. With one of them each new SA is established before its old one is deleted; but in IKEv2 the IPsec SAs end
    with their IKE SA.
    """
    tunnel, rest = _tunnel(which, "clear")
    answer = lab.node(node, "clear", tunnel=tunnel, what=_one(rest, "all"))
    print_answer(as_json, answer, _done(answer, "cleared", "tunnels cleared"))
    _end(answer)


@lab_command()
@click.argument("node")
@click.argument("which", nargs=-1, required=True)
def rekey(lab: RunningLab, node: str, which: tuple[str, ...], as_json: bool) -> None:
    """Rekey a tunnel's SAs before their lifetime ends, as in `rekey a tunnel t1`; with `ike`, its IKE SA."""
    tunnel, rest = _tunnel(which, "rekey")
    if not tunnel:
        raise click.UsageError("several tunnels given; expected: chassisctl rekey NODE tunnel NAME")
    answer = lab.node(node, "rekey", tunnel=tunnel, what=_one(rest, "ipsec"))
    print_answer(as_json, answer, _done(answer, "begun", "negotiations begun"))
    _end(answer)


def _one(words: tuple[str, ...], otherwise: str) -> str:
    if len(words) > 1:
        raise click.UsageError(f"too many words: {' '.join(words[1:])}")
    return words[0] if words else otherwise


@lab_command()
@click.argument("node")
@click.option("--tunnel", default="", metavar="NAME", help="Only this tunnel.")
def ike(lab: RunningLab, node: str, tunnel: str, as_json: bool) -> None:
    """Print the IKE SAs of a router and what IKE counted.

    Counters are those of each ASP and version, as `show ike card SLOT/ASP statistics global` prints them; with
    --tunnel those of the tunnel, as `show tunnel ipsec NAME statistics ike` does.
    """
    sas = lab.node(node, "ike", tunnel=tunnel, what="sas")
    counted = lab.node(node, "ike", tunnel=tunnel, what="statistics")
    answer = {
        "tunnels": [row for reply in sas["cards"].values() for row in reply.get("tunnels", [])],
        "statistics": counted["cards"],
        "errors": {**sas["errors"], **counted["errors"]},
    }
    lines = [line for row in answer["tunnels"] for line in _ike_lines(row)]
    if tunnel and counted["cards"]:
        scope = Scope({"name": tunnel}, node=node)
        answered = tunnels.ike_statistics.select({"cards": counted["cards"], "errors": {}}, scope)
        lines += tunnels.ike_statistics.lines(answered, scope)
    elif not as_json:
        lines += [line for card in counted["cards"] for line in _of_asp(lab, node, card.removeprefix("asp "))]
    lines += [f"{card}: {error}" for card, error in answer["errors"].items()]
    print_answer(as_json, answer, "\n".join(lines) or "this router has no negotiated tunnels")
    _end(answer)


def _of_asp(lab: RunningLab, node: str, asp: str) -> list[str]:
    """Return what IKE of an ASP counted: of each version that it used, and of none."""
    answer = lab.node(node, "ike-statistics", asp=asp)
    lines: list[str] = []
    total = answer["total"]
    for version, begin in security.VERSIONS.items():
        scope = Scope({"asp": asp, "version": version}, node=node)
        found = security.ike_statistics.select(answer, scope)
        if found["ike_sas"] or found["statistics"]:
            lines += security.ike_statistics.lines(found, scope)
        total = {name: count for name, count in total.items() if not name.startswith(f"{begin} ")}
    if total:
        lines += [f"Other statistics of ASP {asp}", *pairs(dict(sorted(total.items())), "  ")]
    return lines or [f"ASP {asp}: nothing counted yet"]


def _ike_lines(row: Mapping[str, Any]) -> Iterable[str]:
    """Yield a line for a tunnel, then lines for each of its IKE SAs."""
    yield f"tunnel {row.get('name', row.get('tunnel'))}: {'up' if row.get('up') else 'down'}{_because(row)}"
    for missing in row.get("missing", []) if row.get("up") else []:
        why = f": {missing['reason']}" if missing["reason"] else ""
        yield f"    line {line_of(missing)} has no SAs{why}"
    for session in row.get("ike", []):
        plain = [f"{name} {value}" for name, value in session.items() if not isinstance(value, (dict, list))]
        yield f"    {', '.join(plain)}"
        for name, value in session.items():
            if isinstance(value, dict) and value:
                yield f"        {name}: {', '.join(f'{key} {one}' for key, one in value.items())}"
            elif isinstance(value, list):
                yield from (f"        {name}: {status_view.pairs(one)}" for one in value)


def _because(row: Mapping[str, Any]) -> str:
    return f" ({row['reason']})" if row.get("reason") and not row.get("up") else ""


@lab_command()
@click.argument("node")
@click.option("--tunnel", default="", metavar="NAME", help="Only this tunnel.")
def queues(lab: RunningLab, node: str, tunnel: str, as_json: bool) -> None:
    """Print the priority queues of a router's ASPs: depths, drops and waiting times, of all SAs and of each.

    It is what the router's `show ipsec queues` prints.

    Packets wait only at an ASP with a rate, set by `rate` of its pool or asp-rate of a lab.
    """
    answer = lab.node(node, "queues", tunnel=tunnel)
    scope = Scope({"name": tunnel}, node=node)
    answered = security.queues.select({"cards": answer["cards"], "errors": {}}, scope)
    print_answer(as_json, answer, "\n".join(security.queues.lines(answered, scope)) or "no ASP has queues")
    for card, error in answer["errors"].items():
        click.echo(f"{card}: {error}", err=True)
    _end(answer)


@lab_command()
@click.argument("node")
@click.option("--tunnel", default="", metavar="NAME", help="Only this tunnel.")
def sas(lab: RunningLab, node: str, tunnel: str, as_json: bool) -> None:
    """Print the IPsec SAs of a router: packets and octets of each SA and each tunnel, and drops by cause.

    Of each tunnel it is what `show tunnel ipsec NAME statistics detail` prints, from zero at the router's start:
    `clear counters` changes nothing here. SAs count outer packets, tunnels inner packets. A tunnel's count has
    its deleted SAs and what was counted before a restart of its ASP.
    """
    answer = lab.node(node, "sas", tunnel=tunnel)
    lines = []
    for card, reply in answer["cards"].items():
        asp = card.removeprefix("asp ")
        rows = [{"asp": asp, **row} for row in reply["tunnels"]]
        lines += tunnels.statistics.lines(rows, Scope({"detail": True}, node=node))
        if reply["drops"]:
            lines += [
                f"ASP {asp} in all",
                *(f"  dropped: {count} {cause}" for cause, count in reply["drops"].items()),
                "",
            ]
    print_answer(as_json, answer, "\n".join(lines).rstrip("\n") or "no ASP counts for a tunnel")
    for card, error in answer["errors"].items():
        click.echo(f"{card}: {error}", err=True)
    _end(answer)


TABLES: Mapping[str, tuple[str, ...]] = {
    "ikev1": ("cookie_i", "key"),
    "ikev2": ("spi_i", "spi_r", "sk_ei", "sk_er", "encryption", "sk_ai", "sk_ar", "integrity"),
}
"""Columns of Wireshark's decryption tables of both IKE versions."""

_QUOTED = ("encryption", "integrity")


def rows(keys: Iterable[Mapping[str, str]], kind: str) -> list[str]:
    """Return rows of Wireshark's `ikev1_decryption_table` or `ikev2_decryption_table`."""
    made = []
    for key in keys:
        if key["kind"] == kind:
            cells = [f'"{key[name]}"' if name in _QUOTED else key[name] for name in TABLES[kind]]
            made.append(",".join(cells))
    return made


@lab_command()
@click.argument("node")
@click.option("--file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--tunnel", default="", metavar="NAME", help="Only this tunnel.")
@click.option("--version", type=click.IntRange(1, 2), help="Only this version; needed if both are in use.")
def keys(lab: RunningLab, node: str, file: Path, tunnel: str, version: int | None, as_json: bool) -> None:
    """Write the keys of the IKE SAs into a file for Wireshark. Only its owner can read the file.

    The file is a decryption table of a Wireshark profile, named ikev1_decryption_table or ikev2_decryption_table
    there. A file of yours of that name is replaced. These keys decrypt the negotiations in any capture, so protect
    the file.
    """
    answer = lab.node(node, "keys", tunnel=tunnel)
    found = [key for reply in answer["cards"].values() for key in reply.get("keys", [])]
    kinds = sorted({key["kind"] for key in found})
    if version is not None:
        kinds = [kind for kind in kinds if kind == f"ikev{version}"]
    if len(kinds) > 1:
        raise OperatorError("there are IKE SAs of both versions; give --version 1 or --version 2")
    table = rows(found, kinds[0]) if kinds else []
    try:
        regular_files.write(file, "".join(f"{row}\n" for row in table).encode())
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}") from None
    told = {"file": str(file), "table": f"{kinds[0]}_decryption_table" if kinds else "", "rows": len(table)}
    lines = [
        f"{len(table)} rows of {told['table']} in {file}" if table else f"no established IKE SA: {file} is empty"
    ]
    lines += [f"{card}: {error}" for card, error in answer["errors"].items()]
    print_answer(as_json, told, "\n".join(lines))
    _end(answer)


@lab_command()
@click.argument("node", required=False)
@click.argument("action", required=False, type=click.Choice(["start", "churn", "stop", "down"]))
@option("node of peers", "start", "rate", help="Peers that begin, or with churn go, in a second.")
@option("node of peers", "churn", "away", default=None, show_default=False)
def peers(
    lab: RunningLab, node: str | None, action: str | None, rate: float | None, away: float | None, as_json: bool
) -> None:
    """Print how many remote peers are up, how fast they came up, and why others did not.

    `peers NODE start` has those that are down begin, `stop` lets no more begin, `down` has all delete their SAs.
    With `churn` some go each second, and come again.
    """
    if rate is not None and action not in ("start", "churn"):
        raise click.UsageError("--rate belongs to start and churn")
    if action == "churn" and rate is None:
        raise click.UsageError("churn needs --rate")
    if away is not None and action != "churn":
        raise click.UsageError("--away belongs to churn")
    known = [name for name, facts in lab.nodes.items() if facts["kind"] == "peers"]
    if node is not None and node not in known:
        raise OperatorError(f"{node!r} is not a node of peers; nodes of peers: {', '.join(known) or 'none'}")
    arguments = {name: value for name, value in (("rate", rate), ("away", away)) if value is not None}
    reports = {name: lab.node(name, action or "status", **arguments) for name in ([node] if node else known)}
    print_answer(as_json, reports, status_view.peers_view(reports) if reports else "this lab has no node of peers")
