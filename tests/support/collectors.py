"""What programs that collect configurations read in what a router prints, each by its own rules.

Oxidized (model `ipos`), RANCID (type `redback`), Netshot (driver "SmartEdgeOS"), the NAPALM driver `ipos` for
Netmiko, and Ansible's terminal `eric_eccli`. Their rules are written again here from what these programs send and
look for; the programs themselves need Ruby, Perl, Java or a machine of their own. All of them read what a terminal
gets: echo, output, prompt, CRLF at the end of lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


class Unreadable(Exception):
    """The program would not get what it came for; the text says why."""


def lines_of(text: str) -> list[str]:
    """The lines of what a terminal got."""
    return text.replace("\r\n", "\n").replace("\r", "").split("\n")


# Oxidized

OXIDIZED_COMMANDS: Final = ("show chassis", "show hardware", "show release", "show configuration")
OXIDIZED_PROMPT: Final = re.compile(r"^[\[\]\w.@-]+[#:>]\s?$", re.ASCII)

_CHANGED_BY_NOBODY: Final = re.compile(
    r"Configuration last changed by (system user|user '(%LICM%|<NO USER>|)' at)", re.ASCII
)


def oxidized_answer(text: str, command: str) -> list[str]:
    """The lines of one command's answer, which goes from its echo to the next prompt.

    Oxidized stops reading at the first line that looks like a prompt.

    Raises:
        Unreadable: the echo is missing, or reading stops before the end.
    """
    echo, *lines = lines_of(text)
    if echo.strip() != command:
        raise Unreadable(f"{command!r} is not echoed: {echo!r}")
    prompts = [number for number, line in enumerate(lines) if OXIDIZED_PROMPT.match(line)]
    if prompts != [len(lines) - 1]:
        seen = [lines[number] for number in prompts]
        raise Unreadable(f"{command}: of {len(lines)} lines these look like prompts: {seen}")
    return lines[:-1]


def oxidized(answers: Mapping[str, str]) -> str:
    """The configuration as it is kept, with the other commands' answers before it as comments.

    Raises:
        Unreadable: see `oxidized_answer`; or what is cut off is not what stands before the configuration.
    """
    kept = [
        f"! {line}" for command in OXIDIZED_COMMANDS[:-1] for line in oxidized_answer(answers[command], command)
    ]
    configuration = oxidized_answer(answers[OXIDIZED_COMMANDS[-1]], OXIDIZED_COMMANDS[-1])
    cut, rest = configuration[:3], configuration[3:]
    if cut[0] != "Building configuration..." or cut[2] != "Current configuration:":
        raise Unreadable(f"the three lines that are cut off are {cut}")
    return "".join(f"{line}\n" for line in [*kept, *rest] if not _CHANGED_BY_NOBODY.search(line))


# RANCID

RANCID_COMMANDS: Final = (
    "show version",
    "dir /flash",
    "dir /pcmcia0",
    "dir /pcmcia1",
    "show hardware",
    "show chassis",
    "show slot table",
    "show config",
)

_DROPPED: Final[Mapping[str, re.Pattern[str]]] = {
    "show version": re.compile(r"Copyright|uptime|restarted|^\s*$|Up Time|Boot Time"),
    "dir": re.compile(r"^\s*$"),
    "show hardware": re.compile(r"^Temperature:|^Voltage|^\s*$"),
    "show chassis": re.compile(r"^\s*$|^\s+\^$"),
    "show slot table": re.compile(r"Slot Table|^\s*$|^\s+\^"),
    "show config": re.compile(
        r"^\s*$|^! last updated: |^Building configuration|^Current configuration"
        r"|^!  Configuration last changed by user |^ length |^ width "
    ),
}
_GIVES_UP: Final = re.compile(
    r"^invalid input at|Can't open|No such device|is not a valid path on a local file system"
    r"|Can not retrieve information|Invalid input at"
)


@dataclass
class Rancid:
    """What one run kept: lines by command. `complete` is whether RANCID takes the run for whole."""

    kept: dict[str, list[str]] = field(default_factory=dict)
    ended: bool = False
    """Whether the configuration's last line is `end`."""
    clean: bool = False
    """Whether the logout was seen behind a prompt."""

    @property
    def missed(self) -> list[str]:
        return [command for command in RANCID_COMMANDS if command not in self.kept]

    @property
    def complete(self) -> bool:
        return self.clean and self.ended and not self.missed


def rancid(transcript: str) -> Rancid:
    """Read a session that typed `RANCID_COMMANDS` at prompts with `#`, then `exit`.

    Raises:
        Unreadable: a command is answered twice, or `Error:` begins a line.
    """
    run = Rancid()
    typed = re.compile(rf"#\s*({'|'.join(map(re.escape, RANCID_COMMANDS))})\s*$")
    prompt = ""
    reads = ""
    for line in lines_of(transcript):
        if prompt and line.startswith(prompt):
            reads = ""
        if line.endswith("#exit"):
            run.clean = True
            break
        if line.startswith("Error:"):
            raise Unreadable(line)
        found = typed.search(line)
        if found and not reads:
            prompt = prompt or line[: line.index("#") + 1]
            reads = found[1]
            if reads in run.kept:
                raise Unreadable(f"{reads} is seen twice")
            run.kept[reads] = []
        elif reads and _GIVES_UP.search(line):
            reads = ""
        elif reads and not _DROPPED[reads if reads in _DROPPED else "dir"].search(line):
            run.kept[reads].append(line)
            if reads == "show config" and line == "end":
                run.ended, reads = True, ""
    return run


# Netshot

NETSHOT_COMMANDS: Final = (
    "show configuration",
    "show version",
    "show chassis",
    "show hardware",
    "show port detail",
)
NETSHOT_PROMPT: Final = re.compile(r"^\[.*?\][A-Za-z\-_0-9.]+>$", re.ASCII | re.MULTILINE)
NETSHOT_PAGER: Final = re.compile(r"^---\(more\)---$", re.MULTILINE)

_MODULE: Final = re.compile(
    r"^([0-9]+|N/A) +(.*?) +([A-Z0-9]+) +[A-Z0-9]+ +[0-9]+ +[0-9]+-[A-Z]{3}-[0-9]{4}", re.MULTILINE
)
_PORT: Final = re.compile(
    r"ethernet (.+) state is (?:Up|Down)(?:.|\n)*?Admin state +: (Up|Down)(?:.|\n)*?MAC address +: ([0-9a-z:]+)"
)
_INTERFACE: Final = re.compile(r"^ interface (.+)", re.MULTILINE)
_ADDRESS: Final = re.compile(r"^ *ip address (\d+\.\d+\.\d+\.\d+)/(\d+)( secondary)?", re.MULTILINE)


@dataclass(frozen=True)
class Netshot:
    """A device as Netshot keeps it."""

    configuration: str
    version: str
    family: str
    modules: Sequence[tuple[str, str, str]]
    """Slot, type, serial number."""
    ports: Mapping[str, tuple[bool, str]]
    """Port to whether it is switched on, and its MAC address."""
    interfaces: Mapping[str, Sequence[tuple[str, int]]]
    """`CONTEXT INTERFACE` to its addresses, with the length of the prefix."""


def netshot(answers: Mapping[str, str]) -> Netshot:
    """What is read in the answers, each without its echo and prompt.

    Raises:
        Unreadable: version or platform are not found, or a prompt or a page's end stands in an answer.
    """
    texts = {command: "\n".join(lines_of(answers[command])) for command in NETSHOT_COMMANDS}
    for command, text in texts.items():
        if NETSHOT_PROMPT.search(text) or NETSHOT_PAGER.search(text):
            raise Unreadable(f"{command}: a prompt or a page's end stands in the answer")
    configuration = texts["show configuration"]
    for line in ("Building configuration", "Current configuration"):
        configuration = re.sub(rf"^{line}.*$", "", configuration, count=1, flags=re.MULTILINE)
    first = re.search(r"^[a-z]", configuration, re.MULTILINE)
    version = re.search(r"SmartEdge OS Version (.*)$", texts["show version"], re.MULTILINE)
    family = re.search(r"Current platform is (.*)", texts["show chassis"])
    if first is None or version is None or family is None:
        raise Unreadable("no configuration, version or platform is found")
    configuration = configuration[first.start() :]
    interfaces: dict[str, list[tuple[str, int]]] = {}
    for part in re.split(r"^context ", configuration, flags=re.MULTILINE)[1:]:
        context = part.split("\n", 1)[0]
        pieces = _INTERFACE.split(part)
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
            interfaces[f"{context} {name}"] = [
                (found[1], int(found[2])) for found in _ADDRESS.finditer(_block(text))
            ]
    return Netshot(
        configuration,
        version[1],
        family[1],
        [(found[1], found[2], found[3]) for found in _MODULE.finditer(texts["show hardware"])],
        {found[1]: (found[2] == "Up", found[3]) for found in _PORT.finditer(texts["show port detail"])},
        interfaces,
    )


def _block(text: str) -> str:
    """The lines that stand deeper than their heading, which has one blank before it."""
    lines = text.split("\n")[1:]
    end = next((number for number, line in enumerate(lines) if not line.startswith("  ")), len(lines))
    return "\n".join(lines[:end])


# NAPALM

_PORT_ROW: Final = re.compile(r"^\s+(\d+/\d+(?:/\d+)?)\s+(\S+)\s+(\S+)", re.MULTILINE)
_ADDRESS_ROW: Final = re.compile(r"^\s*(\S+)\s+(\d+\.\d+\.\d+\.\d+)/(\d+)", re.MULTILINE)


def napalm_ports(text: str) -> dict[str, tuple[bool, bool]]:
    """Port to whether `show port` says that it is switched on, and that it is up."""
    up = ("up", "enabled", "ena")
    rows = _PORT_ROW.findall("\n".join(lines_of(text)))
    return {port: (admin.lower() in up, state.lower() in ("up", "running")) for port, admin, state in rows}


def napalm_addresses(text: str) -> list[tuple[str, str, int]]:
    """Interface, address and length of its prefix in each row of `show ip local interface`."""
    rows = _ADDRESS_ROW.findall("\n".join(lines_of(text)))
    return [(name, address, int(length)) for name, address, length in rows]


# Ansible

_ANSIBLE_PROMPT: Final = re.compile(r"\[.*\][a-zA-Z0-9_.-]*[>#] ?$|[a-zA-Z0-9_.-]*\([^)]+\)[>#] ?$")
_ANSIBLE_ERROR: Final = re.compile(
    r"[\r\n]+(syntax error: |Error: |% Error:|% Invalid input|% Incomplete command:)|Aborted: "
)


def ansible_failed(text: str) -> bool:
    """Whether the answer to a line, from its echo to the next prompt, is an error.

    Raises:
        Unreadable: it does not end with a prompt.
    """
    if not _ANSIBLE_PROMPT.search(text):
        raise Unreadable(f"no prompt ends {text!r}")
    return _ANSIBLE_ERROR.search(text) is not None
