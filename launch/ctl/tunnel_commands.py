"""The commands of `chassisctl` about tunnels' SAs: clear them, make them anew, see them and their queues, and
IKE's keys on request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from chassis.bus import regular_files
from chassis.bus.operator import OperatorError
from launch.client import status_view
from launch.client.running_lab import RunningLab
from launch.ctl.base import lab_command, print_answer

_ALL_OF = ("all",)


def _tunnel(words: tuple[str, ...], command: str) -> tuple[str, tuple[str, ...]]:
    """The tunnel that the words name (empty for all), and the words after it."""
    if words[:1] == _ALL_OF:
        return "", words[1:]
    if len(words) >= 2 and words[0] == "tunnel":
        return words[1], words[2:]
    raise click.UsageError(f"say which: chassisctl {command} NODE tunnel NAME, or NODE all")


def _done(answer: Mapping[str, Any], key: str, text: str) -> str:
    """One line for what all ASPs did together, with IKE and by hand, and one for each that did not."""
    number = sum(int(reply.get(key, 0)) + int(reply.get("manual", 0)) for reply in answer["cards"].values())
    return "\n".join([f"{number} {text}", *(f"{card}: {error}" for card, error in answer["errors"].items())])


def _end(answer: Mapping[str, Any]) -> None:
    raise SystemExit(1 if answer["errors"] else 0)


@lab_command()
@click.argument("node")
@click.argument("which", nargs=-1, required=True)
def clear(lab: RunningLab, node: str, which: tuple[str, ...], as_json: bool) -> None:
    """Delete SAs and have them made anew, as in `clear a tunnel t1`, `clear a tunnel t1 ike` or `clear a all`.

    After the tunnel `ike` or `ipsec` may follow: what the router's two clear commands are about; else it is both.
    With one of them each new SA stands before its old one goes, but that in IKEv2 the IPsec SAs end with their
    IKE SA.
    """
    tunnel, rest = _tunnel(which, "clear")
    answer = lab.node(node, "clear", tunnel=tunnel, what=_one(rest, "all"))
    print_answer(as_json, answer, _done(answer, "cleared", "tunnels cleared"))
    _end(answer)


@lab_command()
@click.argument("node")
@click.argument("which", nargs=-1, required=True)
def rekey(lab: RunningLab, node: str, which: tuple[str, ...], as_json: bool) -> None:
    """Make a tunnel's SAs anew before their time, as in `rekey a tunnel t1`; with `ike` its IKE SA."""
    tunnel, rest = _tunnel(which, "rekey")
    if not tunnel:
        raise click.UsageError("one tunnel at a time: chassisctl rekey NODE tunnel NAME")
    answer = lab.node(node, "rekey", tunnel=tunnel, what=_one(rest, "ipsec"))
    print_answer(as_json, answer, _done(answer, "begun", "negotiations begun"))
    _end(answer)


def _one(words: tuple[str, ...], otherwise: str) -> str:
    if len(words) > 1:
        raise click.UsageError(f"too many words: {' '.join(words[1:])}")
    return words[0] if words else otherwise


@lab_command()
@click.argument("node")
@click.option("--tunnel", default="", metavar="NAME", help="Of this tunnel alone.")
def ike(lab: RunningLab, node: str, tunnel: str, as_json: bool) -> None:
    """The IKE SAs of a router and what was counted about their negotiations."""
    sas = lab.node(node, "ike", tunnel=tunnel, what="sas")
    counted = lab.node(node, "ike", tunnel=tunnel, what="statistics")
    answer = {
        "tunnels": [row for reply in sas["cards"].values() for row in reply.get("tunnels", [])],
        "statistics": counted["cards"],
        "errors": {**sas["errors"], **counted["errors"]},
    }
    lines = [line for row in answer["tunnels"] for line in _ike_lines(row)]
    for card, counts in counted["cards"].items():
        said = ", ".join(f"{name} {count}" for name, count in sorted(counts.get("total", {}).items()))
        lines.append(f"{card}: {said or 'nothing counted yet'}")
    lines += [f"{card}: {error}" for card, error in answer["errors"].items()]
    print_answer(as_json, answer, "\n".join(lines) or "no tunnel of this router is negotiated")
    _end(answer)


def _ike_lines(row: Mapping[str, Any]) -> Iterable[str]:
    """A tunnel, then each of its IKE SAs by the values that are no mapping themselves."""
    yield f"tunnel {row.get('name', row.get('tunnel'))}: {'up' if row.get('up') else 'down'}{_because(row)}"
    for missing in row.get("missing", []) if row.get("up") else []:
        why = f": {missing['reason']}" if missing["reason"] else ""
        yield f"    line {_line(missing)} has no SAs{why}"
    for session in row.get("ike", []):
        plain = [f"{name} {value}" for name, value in session.items() if not isinstance(value, (dict, list))]
        yield f"    {', '.join(plain)}"
        for name, value in session.items():
            if isinstance(value, dict) and value:
                yield f"        {name}: {', '.join(f'{key} {one}' for key, one in value.items())}"
            elif isinstance(value, list):
                yield from (f"        {name}: {status_view.pairs(one)}" for one in value)


def _line(row: Mapping[str, Any]) -> str:
    """A line of a tunnel, or one of its rules that has SAs of its own."""
    return f"{row['entry']} rule {row['rule']}" if "rule" in row else str(row["entry"])


def _because(row: Mapping[str, Any]) -> str:
    return f" ({row['reason']})" if row.get("reason") and not row.get("up") else ""


@lab_command()
@click.argument("node")
@click.option("--tunnel", default="", metavar="NAME", help="Of this tunnel alone.")
def queues(lab: RunningLab, node: str, tunnel: str, as_json: bool) -> None:
    """The priority queues of a router's ASPs: depths, drops and waiting times, of all SAs and of each.

    Packets wait only at an ASP that has a rate, which is the setting asp-rate of a lab.
    """
    answer = lab.node(node, "queues", tunnel=tunnel)
    right = ("depth", "peak_depth", "dequeued", "dropped", "average", "99 %", "longest")
    grid = status_view.table("ASP", "tunnel", "entry", "queue", *right, right=("entry", *right))
    for card, reply in answer["cards"].items():
        for name, line, of in [("", "", reply), *((sa["name"], _line(sa), sa) for sa in reply["sas"])]:
            for queue, row in of["queues"].items():
                times = [f"{row['latency'][key]:.1f} ms" for key in ("avg_ms", "p99_ms", "max_ms")]
                counts = [str(row[key]) for key in right[:4]]
                grid.add_row(card, name or "all", line, queue, *counts, *times)
    print_answer(as_json, answer, grid)
    for card, reply in answer["cards"].items():
        if not as_json and not reply["rate"]:
            click.echo(f"{card} has no rate: nothing waits there")
    for card, error in answer["errors"].items():
        click.echo(f"{card}: {error}", err=True)
    _end(answer)


@lab_command()
@click.argument("node")
@click.option("--tunnel", default="", metavar="NAME", help="Of this tunnel alone.")
def sas(lab: RunningLab, node: str, tunnel: str, as_json: bool) -> None:
    """The IPsec SAs of a router: packets and octets of each and of their tunnels, and drops by cause.

    Outer packets of SAs, inner packets of tunnels. A tunnel's packets are those of its SAs, those of SAs that are
    gone, and what was counted before its ASP was started again.
    """
    answer = lab.node(node, "sas", tunnel=tunnel)
    grid = status_view.table(
        "ASP", "tunnel", "way", "SA", "packets", "octets", "drops", right=("packets", "octets")
    )
    for card, reply in answer["cards"].items():
        for row in reply["tunnels"]:
            for way, counted in (("out", row["encapsulated"]), ("in", row["decapsulated"])):
                grid.add_row(
                    card, row["name"], way, "all", *_counted(counted), status_view.pairs(row["drops"][way])
                )
                for sa in row["sas"]:
                    if sa["direction"] == way:
                        name = f"line {_line(sa)} {sa['protocol']} {sa['spi']:#010x}"
                        grid.add_row("", "", "", name, *_counted(sa), status_view.pairs(sa["drops"]))
        grid.add_row(card, "", "", "", "", "", status_view.pairs(reply["drops"]))
    print_answer(as_json, answer, grid)
    for card, error in answer["errors"].items():
        click.echo(f"{card}: {error}", err=True)
    _end(answer)


def _counted(counts: Mapping[str, int]) -> tuple[str, str]:
    return f"{counts['packets']:,}", f"{counts['octets']:,}"


TABLES: Mapping[str, tuple[str, ...]] = {
    "ikev1": ("cookie_i", "key"),
    "ikev2": ("spi_i", "spi_r", "sk_ei", "sk_er", "encryption", "sk_ai", "sk_ar", "integrity"),
}
"""Columns of Wireshark's decryption tables of both versions."""

_QUOTED = ("encryption", "integrity")


def rows(keys: Iterable[Mapping[str, str]], kind: str) -> list[str]:
    """Rows of Wireshark's `ikev1_decryption_table` or `ikev2_decryption_table`."""
    made = []
    for key in keys:
        if key["kind"] == kind:
            cells = [f'"{key[name]}"' if name in _QUOTED else key[name] for name in TABLES[kind]]
            made.append(",".join(cells))
    return made


@lab_command()
@click.argument("node")
@click.option("--file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="What is written.")
@click.option("--tunnel", default="", metavar="NAME", help="Of this tunnel alone.")
@click.option("--version", type=click.IntRange(1, 2), help="Of this version, where both are in use.")
def keys(lab: RunningLab, node: str, file: Path, tunnel: str, version: int | None, as_json: bool) -> None:
    """Write the keys of the IKE SAs into a file that Wireshark reads, for its owner's eyes only.

    The file is a decryption table of Wireshark's profile: its name there is ikev1_decryption_table or
    ikev2_decryption_table. A file of yours of that name is replaced by a new one. With these keys whoever has a
    capture can read the negotiations in it.
    """
    answer = lab.node(node, "keys", tunnel=tunnel)
    found = [key for reply in answer["cards"].values() for key in reply.get("keys", [])]
    kinds = sorted({key["kind"] for key in found})
    if version is not None:
        kinds = [kind for kind in kinds if kind == f"ikev{version}"]
    if len(kinds) > 1:
        raise OperatorError("there are IKE SAs of both versions: say --version 1 or --version 2")
    table = rows(found, kinds[0]) if kinds else []
    try:
        regular_files.write(file, "".join(f"{row}\n" for row in table).encode())
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}") from None
    told = {"file": str(file), "table": f"{kinds[0]}_decryption_table" if kinds else "", "rows": len(table)}
    lines = [f"{len(table)} rows of {told['table']} in {file}" if table else f"no IKE SA stands: {file} is empty"]
    lines += [f"{card}: {error}" for card, error in answer["errors"].items()]
    print_answer(as_json, told, "\n".join(lines))
    _end(answer)
