"""Views of what an ASP counted, for all of its tunnels or those of a context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.cli.views.layout import Data, Scope, View, ViewError, columns, line_of, pairs

VERSIONS: Final = {"ike1": "v1", "ike2": "v2"}
"""How a version begins the names of its counters."""


def _of_version(data: Data, scope: Scope) -> Data:
    """The counters of one version of IKE, and the number of its IKE SAs."""
    version = scope.values["version"]
    begin = VERSIONS[version]
    return {
        "asp": scope.values["asp"],
        "version": version,
        "ike_sas": data["ike_sas"][begin],
        "statistics": {
            name.removeprefix(f"{begin} "): count
            for name, count in sorted(data["total"].items())
            if name.startswith(f"{begin} ")
        },
    }


def _ike(data: Data, scope: Scope) -> list[str]:
    title = f"{data['version'].upper().replace('IKE', 'IKEv')} statistics of ASP {data['asp']}"
    return [title, *pairs({"IKE SAs": data["ike_sas"], **data["statistics"]}, "  ")]


ike_statistics = View(_ike, _of_version)


def _by_asp(data: Data, scope: Scope) -> Data:
    for card, error in data["errors"].items():
        raise ViewError(f"{card}: {error}")
    return [{"asp": card.removeprefix("asp "), **reply} for card, reply in data["cards"].items()]


def _queues(data: Data, scope: Scope) -> list[str]:
    """For each ASP its rate, then its queues, of all SAs and of each line of a tunnel, the most urgent first."""
    lines = []
    for reply in data:
        lines += [f"ASP {reply['asp']}, rate: {reply['rate'] or 'none, packets do not wait'}"]
        rows = [
            (
                f"  {name}",
                line,
                number,
                *(queue[key] for key in ("depth", "peak_depth", "dequeued", "dropped")),
                *(f"{queue['latency'][key]:.1f}" for key in ("avg_ms", "p99_ms", "max_ms")),
            )
            for name, line, of in [("all", "", reply), *((sa["name"], line_of(sa), sa) for sa in reply["sas"])]
            for number, queue in of["queues"].items()
        ]
        counts = ("Waiting", "Peak", "Passed", "Dropped", "Average ms", "99 % ms", "Longest ms")
        if rows:
            lines += columns(("  Tunnel", "Line", "Queue", *counts), rows, right=counts)
    return lines


queues = View(_queues, _by_asp)


def _with_place(data: Data, scope: Scope) -> Data:
    return {"asp": scope.values["asp"], "context": scope.values["context"], **data}


def _ipsec(data: Data, scope: Scope) -> list[str]:
    drops: Mapping[str, Mapping[str, Any]] = data["drops"]
    rows = [
        (title, data[name]["packets"], data[name]["octets"], sum(drops[title].values()))
        for title, name in (("out", "encapsulated"), ("in", "decapsulated"))
    ]
    lines = [
        f"IPsec statistics of ASP {data['asp']}, context {data['context']}",
        f"  Tunnels: {data['tunnels']}, up: {data['up']}, SAs: {data['sas']}",
        *columns(("Way", "Packets", "Octets", "Drops"), rows, right=("Packets", "Octets", "Drops")),
    ]
    return lines + [
        f"  dropped {way}: {count} {cause}"
        for way, causes in drops.items()
        for cause, count in sorted(causes.items())
        if count
    ]


ipsec_statistics = View(_ipsec, _with_place)


def _certificates(data: Data, scope: Scope) -> list[str]:
    lines = []
    for row in data:
        place = "" if not row["place"] else f" (certificate {row['place'] + 1} of its file)"
        values = {
            "Name": f"{row['name']}{place}",
            "Subject": row["subject"],
            "Issuer": row["issuer"],
            "Serial number": row["serial"],
            "Valid from": f"{row['not_before']} UTC",
            "Valid to": f"{row['not_after']} UTC",
            "Identities": ", ".join(row["identities"]) or "none",
            "Key": f"rsa {row['bits']} bits" if row["bits"] else "of another kind than rsa",
            "Key pair": row["key_pair"] or "none",
            "SHA-256": row["fingerprint"],
        }
        lines += [f"Certificate handle {row['handle']}", *pairs(values, "  "), ""]
    return lines[:-1] or ["No certificates"]


certificates = View(_certificates, lambda data, scope: data["certificates"])


def _key_pairs(data: Data, scope: Scope) -> list[str]:
    rows = [(row["name"], row["kind"], row["bits"], "Yes" if row["certificate"] else "No") for row in data]
    titles = ("Key pair", "Type", "Bits", "Certificate")
    return columns(titles, rows, right=("Bits",)) if rows else ["No key pairs"]


key_pairs = View(_key_pairs, lambda data, scope: data["key_pairs"])


def _requests(data: Data, scope: Scope) -> list[str]:
    rows = [(row["name"], row["context"], row["subject"], row["file"]) for row in data]
    return columns(("Request", "Context", "Subject", "File"), rows) if rows else ["No certificate requests"]


certificate_requests = View(_requests, lambda data, scope: data["certificate_requests"])
