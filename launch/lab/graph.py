"""Draw a lab as SVG: nodes in a ring or a row, ports at the ends of their wires."""

from __future__ import annotations

from math import cos, hypot, pi, sin
from xml.etree.ElementTree import Element, SubElement, tostring

from launch.lab.model import Endpoint, Lab

BOX = (120, 46)
"""Width and height of a node (pixels)."""

_KINDS = {"smartedge": "router", "tester": "tester", "peers": "peers", "linux": "Linux"}

_STYLE = """
svg { font-family: sans-serif; font-size: 13px; }
text { text-anchor: middle; }
rect { stroke: #334155; }
rect.smartedge { fill: #dbeafe; } rect.tester { fill: #dcfce7; }
rect.peers { fill: #fce7f3; } rect.linux { fill: #fef3c7; }
path { fill: none; stroke: #64748b; stroke-width: 2; }
.name { font-weight: bold; } .kind { fill: #64748b; font-size: 11px; }
.port { font-size: 11px; stroke: white; stroke-width: 3; paint-order: stroke; }
"""


def svg(lab: Lab) -> str:
    """Return the drawing as SVG text."""
    places, width, height = _places(lab)
    size = {"viewBox": f"0 0 {width} {height}", "width": str(width), "height": str(height)}
    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size})
    SubElement(root, "title").text = lab.name
    SubElement(root, "style").text = _STYLE
    between: dict[frozenset[str], int] = {}
    for link in lab.links:
        one, other = link.ends
        pair = frozenset((one.node, other.node))
        count = between[pair] = between.get(pair, 0) + 1
        # Spread several wires between two nodes to both sides of the straight line.
        bend = (count // 2) * 60 * (-1 if count % 2 else 1)
        _wire(root, one, other, places[one.node], places[other.node], bend)
    for node in lab.nodes.values():
        x, y = places[node.name]
        corner = {"x": f"{x - BOX[0] / 2:.0f}", "y": f"{y - BOX[1] / 2:.0f}", "rx": "8"}
        SubElement(root, "rect", {**corner, "width": str(BOX[0]), "height": str(BOX[1]), "class": node.kind})
        _text(root, x, y - 2, node.name, "name")
        _text(root, x, y + 14, _KINDS[node.kind], "kind")
    return tostring(root, encoding="unicode")


def _text(root: Element, x: float, y: float, text: str, kind: str) -> None:
    SubElement(root, "text", {"x": f"{x:.0f}", "y": f"{y:.0f}", "class": kind}).text = text


def _places(lab: Lab) -> tuple[dict[str, tuple[float, float]], int, int]:
    """Return the center of each node, width and height: a chain is drawn in a row, other labs in a ring."""
    chain = _chain(lab)
    if chain:
        return {name: (100.0 + 240 * at, 110.0) for at, name in enumerate(chain)}, 240 * len(chain) - 40, 220
    count = len(lab.nodes)
    radius = max(150.0, count * 40.0)
    middle = radius + 100
    places = {
        name: (middle + radius * sin(2 * pi * at / count), middle - radius * cos(2 * pi * at / count))
        for at, name in enumerate(lab.nodes)
    }
    return places, round(2 * middle), round(2 * middle)


def _chain(lab: Lab) -> list[str]:
    """Return the nodes in order if each has at most two neighbours and there is no cycle; otherwise `[]`."""
    near: dict[str, set[str]] = {name: set() for name in lab.nodes}
    for link in lab.links:
        one, other = link.ends
        if one.node != other.node:
            near[one.node].add(other.node)
            near[other.node].add(one.node)
    ends = [name for name, others in near.items() if len(others) < 2]
    if not ends or any(len(others) > 2 for others in near.values()):
        return []
    order = [ends[0]]
    while following := [name for name in near[order[-1]] if name not in order]:
        order.append(following[0])
    return order if len(order) == len(near) else []


def _wire(
    root: Element,
    one: Endpoint,
    other: Endpoint,
    start: tuple[float, float],
    end: tuple[float, float],
    bend: int,
) -> None:
    (x1, y1), (x2, y2) = start, end
    length = hypot(x2 - x1, y2 - y1) or 1.0
    across = (-(y2 - y1) / length, (x2 - x1) / length)
    cx, cy = (x1 + x2) / 2 + across[0] * bend, (y1 + y2) / 2 + across[1] * bend
    SubElement(root, "path", d=f"M {x1:.0f} {y1:.0f} Q {cx:.0f} {cy:.0f} {x2:.0f} {y2:.0f}")
    for near, at in ((one, 0.32), (other, 0.68)):
        x = (1 - at) ** 2 * x1 + 2 * at * (1 - at) * cx + at**2 * x2
        y = (1 - at) ** 2 * y1 + 2 * at * (1 - at) * cy + at**2 * y2
        _text(root, x, y - 6, near.port, "port")
