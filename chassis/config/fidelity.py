"""Prints `docs/fidelity.md`: `python -m chassis.config.fidelity FILE`.

In: the grammar, the statements of the guide, and FILE with the name (B-001) of each statement that a test proves,
one on a line, as `pytest --write-statements FILE` writes it. Out: the page on standard output.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Set
from pathlib import Path

from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.foreign import FOREIGN
from chassis.config.grammar import Command
from chassis.config.operations import OPERATIONS
from chassis.config.statements import GROUPS, STATEMENTS, Statement

EMULATED, ACCEPTED, LATER, OURS = "emulated", "accepted only", "not yet", "ours"

STANDING = {"emulated": EMULATED, "accepted": ACCEPTED, "later": LATER, "ours": OURS}

CHOICES: tuple[tuple[str, str], ...] = (
    ("Heartbeats", "every 100 ms, 5 missed make a card unusable; a lab can set both"),
    ("A silent card", "that waits for a core of the machine is not hung: it has five times as long at most"),
    ("Restart of a dead card", "after 1 s; a lab can set it, to 0 or never too"),
    ("A card that stays hung", "is killed 1 s after it was given up"),
    ("Fencing", "a card that stood still nearly long enough to be given up sends nothing until readmitted"),
    ("Self-made numbers", "circuits, tunnels, contexts, epochs: never used again within a node's state folder"),
    ("Sequence numbers", "of manual SAs live in a mapped file, and under the controller's leases of 2^20 numbers"),
    ("Hardware addresses", "made from the names of node and port, locally administered"),
    ("ARP", "3 tries, 1 s apart; entries age after 3,600 s; 64 packets wait for an unresolved neighbour"),
    ("Neighbours of a port",
     "512 asked for: the oldest makes room; 2,048 known: the one sent to longest ago; 1,024 packets that wait"),
    ("Ways of packets", "65,536 flows and 16,384 ways are remembered by a card; more begin anew"),
    ("Flows by access lists", "131,072 are remembered by an ASP, of all its lines and SAs; more begin anew"),
    ("Outer header", "TTL 64; DSCP copied; ECN by RFC 6040"),
    ("Outer identification", "one count for all packets between the same ends by one protocol, whatever their SA"),
    ("Larger than its tunnel's MTU, by a line that names ports",
     "protected whole and its outer packet cut, not before: later fragments have no ports (RFC 4301 7)"),
    ("Fragments for the router",
     "put together: 64 packets at once, of 256 fragments and 65,521 octets each at most, for 60 s"),
    ("Log", "5,000 lines of a node; the kind of line with the most makes room. IKE says a kind 20 times a second"),
    ("Path MTU of a tunnel", "as routers on the way say of its packets, but 576 at least; forgotten after 600 s"),
    ("A router that names no MTU", "the next size of a link below that of the packet (RFC 1191 7.1), or 576"),
    ("Extended sequence numbers", "of negotiated SAs, where a lab asks for them: no command does"),
    ("Datagrams of IKE", "DSCP CS6, DF clear"),
    ("Too many half-open IKE SAs", "IKEv2 asks for a cookie, in IKEv1 the oldest makes room; a lab sets how many"),
    ("Aggressive mode", "a first message has an answer up to 9 times as long; only peers get one"),
    ("An interface of two tunnels", "belongs to the first that is configured; the other is down and says so"),
    ("A change that waits for a clear",
     "in a manual SA: keys, algorithms, window, SPIs; of a tunnel: end points, the manual SA of a line"),
    ("What waits, without a clear",
     "acts when the tunnel goes down, has new SAs, or the controller starts again; what is removed acts at once"),
    ("A tunnel removed and made again in one commit", "is a changed one: its end points wait as any other's"),
    ("What a commit says", "is about what its lines touch, and what refers to that; older warnings stand"),
    ("Priority queues", "hold 512 packets each; SAs take turns, by what they use of their ASP's rate"),
    ("What an ASP can encapsulate in a second",
     "has no limit without `rate` in its pool, or a lab's word; of two pools the first that has the ASP says it"),
    ("`qos policy NAME policing`", "marks what comes in by a port; its rates and classes are kept without effect"),
    ("`mark dscp`, `mark priority`",
     "set the PD, which chooses queues, and leave the packet as it is; priority 0 is CS7, 7 is CS0"),
    ("What comes out of a tunnel", "is not marked: its DSCP chooses the queue of the next tunnel"),
    ("SAs side by side", "of one line, where a peer narrows, share the line's queues: what waits outlives any SA"),
    ("Rules of a line with IKEv1",
     "each have SAs of their own: the first 64, with a warning where a list has more"),
    ("A line of which only some rules have SAs",
     "keeps its tunnel up; what the other rules select is dropped, and they are negotiated again and again"),
    ("A full queue of the fabric", "drops lowest class first, by DSCP, whatever tunnel a packet belongs to"),
    ("A full wire", "2,048 packets wait at the port; of more, the last to come are lost"),
    ("An IKEv1 ISAKMP SA that goes", "leaves its IPsec SAs in place; the next one of the tunnel has them"),
    ("`clear ike sa tunnel` in IKEv1", "has the new ISAKMP SA stand before the old one goes, where we may begin"),
    ("Dead peer detection", "every 10 s, 3 tries; answered without `ike keepalive` too; a lab can set both"),
    ("A certificate where an IKEv2 policy says `pre-shared-key`",
     "counts only if it names the peer that the tunnel expects: `remote-id`, else the policy's, else its address"),
    ("A manual SA that comes to another ASP, context or address",
     "goes on where any SA with its protocol, SPI and key stopped; down until its last holder let go of it"),
    ("An ASP that lost its state of manual SAs", "leaves them down until they have another SPI"),
    ("A commit that does not get to disk", "is refused, with the reason"),
    (
        "A commit of what somebody else changed since `configure`",
        "is refused with the database-lock text, object and user; else it changes what is in force now",
    ),
    (
        "`commit confirmed`",
        "until a second `commit` of this user nobody else commits; what `end` commits meanwhile goes back with it",
    ),
    ("Commits that are kept", "the last 100 at least, unless they hold more than 64 MiB"),
    ("Static routes", "the lower distance goes before the lower cost; null0 comes last of equal ones"),
    ("Traffic-selector routes", "have the cost of a static route without `cost`"),
    ("Modern algorithms", "marked * below: known where a lab node has `extensions: [modern]`"),
    ("Errors of the CLI",
     "`% Invalid input at '^' marker` under a caret, `% Incomplete command:`, `% Ambiguous command:`, `% Error:`"),
    ("Keys of a terminal", "emacs keys; `?` before the cursor, tab; in `---(more)---` space, return and q"),
    ("Filters of the CLI", "include, exclude, begin, count, grep (-i, -v), json; a pattern has no groups"),
    ("Keys in what is printed",
     "`encrypted 1 TEXT`: AES-SIV under a secret of the router, so it loads again where the secret is"),
    ("Password hashes in what is printed", "as they are, and hidden in differences and messages"),
    ("What follows a word such as `key` in an unknown line",
     "prints as `encrypted-rest 1 TEXT`, which loads again in the same way"),
    ("An unknown line in messages and differences", "is shown by its first word: the others may be a key"),
    ("A wrong value in configuration mode",
     "the caret, then `% Error:` with what is expected and the repaired line"),
    ("Lines of other parts of the router", "are kept from a file, and refused at the caret when typed"),
    ("`default LINE`", "what a new object has; for settings, not for lines that open a mode or stand in a list"),
    ("^Z and ^D in configuration mode", "^Z is `end` and leaves the line that was begun, ^D is `exit`"),
    ("`abort`", "back to `(config)`, on what is in force then"),
    ("`show transaction`",
     "TID is the number of a commit, or of the one that a candidate was begun on; Sequence counts its lines"),
    ("`show configuration candidate`, `show transaction history`, `rollback N`", "are ours"),
    ("`configure FILE`", "by the rules of files; an error in one line discards all, an `end` commits"),
    ("`enable` without a level", "15"),
    ("Privileges of the CLI", "10 or more shows `#`; commands that act need 10; 6 after `disable`"),
    ("`enable`",
     "asks above the login's privilege for the password of the context's `enable encrypted`, else the user's own"),
    ("Login over SSH", "by hashes $1$, $5$ and $6$ of 1,000,000 rounds at most; public keys are ours"),
    ("The password hash that the guide prints", "lets nobody in, unless the lab says so"),
    ("Privilege of an administrator", "6 at login, 15 at most; an idle session stays without a timeout"),
    ("A client of SSH",
     "has 30 s and 3 passwords to log in; 16 connections that have not, and 32 sessions, are held for a router"),
    ("Layout of `show`",
     "ours, but for `arp-cache`, the heads of `version`, `chassis` and `configuration`, the rows of `hardware`"),
    ("What programs read in `show`",
     "rows of `port` and `ip local interface`, and `port detail`, as Netshot and a NAPALM driver read them"),
    ("`Configuration last changed by`",
     "two blanks after `!`, as RANCID wants it, where Netshot wants one; `<NO USER>` where a file was read"),
    ("`show version`", "SEOS-12.1.1.11-Release, or IPOS where a lab has `os: ipos`; `show chassis`: an SE1200"),
    ("Serial numbers and dates of hardware", "made from the names of node and slot"),
    ("Internal ids of circuits", "`PLACE:1023:63/TYPE/1/NUMBER`: type 1 is a port, 3 a tunnel"),
    ("Statistics of an ASP and a context", "count the tunnels that have their local end or their interface in it"),
    ("Alarms",
     "named and, for tunnels, caused as the box's MIBs say; major but for an ASP in no pool, and certificates"),
    ("When there is an alarm",
     "a tunnel's only if it was up and is down for a reason of its own; decisions.md has what holds for each"),
    ("Handle of a certificate", "the first 8 digits of its SHA-256 fingerprint"),
    ("A certificate that ends",
     "a warning from 30 days or a third of its life before; minor once it is not valid, major where none is"),
    ("A changed PKI store", "counts at once, without a commit, for the next negotiation; SAs that stand go on"),
    ("Revoked certificates", "are not known: no CRL and no OCSP; remove the authority, or set an identity"),
    ("`file terminal` of the PKI commands", "is ours: the PEM text is pasted; a private key is not echoed"),
    ("Certificate requests", "are those that lie in the flash: `pki/CONTEXT/requests/NAME.pem`"),
    ("`show tunnel`, `context NAME`, words of `ping`", "are not in the guide"),
    ("Start of a router",
     "last commit, else the boot file in `/flash`, else the lab's file; that is the one named, or redback.cfg"),
    ("`reload`", "commits the boot file in place of what is in force, and starts every process again"),
    ("`more`, texts of `save`, `copy`, `delete`, `reload`, `dir`",
     "ours, but for the words that programs look for"),
    ("`dir /pcmcia0`, `/pcmcia1`, `/md`", "No such device; another path is no valid path on a local file system"),
    ("Questions without a terminal", "are answered by their default, which is no"),
    ("A shut card or ASP", "its process runs on and carries nothing; `asp N shutdown` under `card ase` is ours"),
    ("`ping`", "asks in the box's order; one request after another, `!` or `.` for each; round-trip line ours"),
    ("`traceroute`", "echo requests with a growing time to live, three for each hop; its form is ours"),
    ("`reload card`, `reload asp`, `clear arp-cache`, `clear log`", "names suggested for the box; texts are ours"),
    ("`show log` filters, `explain`",
     "ours; `explain` has the recommendations of tables 5 and 7 in our words; times are UTC"),
    ("`clear` of SAs that IKE made",
     "the new SA stands before the old one goes; what either end refuses ends, what is not answered stays"),
    ("Lines about dial-in users in table 5",
     "are said of peers in aggressive mode at a local address with on-demand tunnels"),
    ("Size of the log",
     "2500 lines of warnings and errors, as many of others, or `logging ring-size`; suggested for the box: 1024"),
    ("`logging file`, `logging filter`, `logging ring-size`",
     "ours; the log's file is on without a line, and a controller that is killed loses its last 0.1 s"),
    ("`logging syslog`",
     "RFC 3164 from port 514 to port 514, facility local7 without one; a server of `local` gets the lines of all"),
    ("`terminal monitor`", "lines come within a second, straight after the prompt; the prompt is not drawn again"),
    ("`logging console`", "lines of the context, and in `local` those of none, at `chassisctl console`"),
    ("Circuit and context of a log line", "those of the tunnel that the line is about; a circuit's type is ours"),
    ("`clear counters`",
     "what is shown counts from there until the controller starts again; cards and the accounting count on"),
    ("URLs", "where a lab has `urls: true`: scp and sftp by SFTP, http to read; host keys are not checked"),
    ("`aaa` and `radius` lines of a context",
     "words of the box, times and bounds ours; `encrypted-key 1 TEXT` is the form of keys, `ip pool` is ours"),
    ("Questions to RADIUS servers",
     "one for each identity at a time; a silent server is dead where it replied to nothing else meanwhile"),
    ("Replies of RADIUS servers",
     "an accept needs a Message-Authenticator, but of a server with `message-authenticator optional`"),
    ("Accounting of peers", "starts and stops wait for a server without end, and outlive the controller"),
    ("`monitor tunnel`", "every 2 s; with a name its packets too; ^C ends it"),
    ("Bus", "MessagePack over ZeroMQ; nothing about it is the box's"),
    ("Every row of a diagnostic that is ours", "has the code of the settled row that it follows"),
)  # fmt: skip


_PARAMETER = re.compile(r"<(\w+)([:=])([^>]*)>")


def _readable(parameter: re.Match[str]) -> str:
    """Return a parameter as the guide writes it: its name, or the keywords to choose from."""
    name, sign, kind = parameter.groups()
    kind = re.sub(r"\+([^|]+)", r"\1\*", kind)
    return name.replace("_", "-") if sign == ":" else f"{{{kind}}}" if "|" in kind else kind


def syntax_of(command: Command) -> str:
    """Return a command's syntax as a cell of a page."""
    return _PARAMETER.sub(_readable, command.syntax).replace("|", "\\|")


def standing_of(command: Command) -> str:
    """Return how far a command is emulated, as a cell of a page."""
    return STANDING[command.standing]


def _row(command: Command) -> str:
    modes = ", ".join(command.modes)
    return f"| `{syntax_of(command)}` | {modes} | {command.guide} | {standing_of(command)} |"


def _statement(statement: Statement, proven: Set[str]) -> str:
    standing = EMULATED if statement.name in proven else LATER
    return f"| {statement.name} | {statement.guide} | {statement.text} | {standing} | {statement.note} |"


def emulated(page: str) -> frozenset[str]:
    """Return the names of the statements that a page calls emulated."""
    return frozenset(re.findall(rf"^\| (B-\d{{3}}) \|.*\| {EMULATED} \|", page, re.MULTILINE))


def describe(proven: Set[str]) -> str:
    """Return the page. `proven` has the names of the statements that tests prove."""
    statements: list[str] = []
    for subject, group in GROUPS:
        statements += ["", f"### {subject}", "", "| statement | section | what it says | standing | |"]
        statements += ["| --- | --- | --- | --- | --- |", *[_statement(each, proven) for each in group]]
    lines = [
        "# Fidelity",
        "",
        "What of the router is emulated, what has no effect, and what is our own choice. Printed from",
        "the grammar by `make docs`; a test holds the two together. *Emulated*: does what the guide says.",
        "*Accepted only*: checked, kept, printed back, without effect here. *Not yet*: in the grammar, and a",
        "configuration that uses it says so. *Ours*: the guide is silent.",
        "",
        "## Behaviour",
        "",
        f"{len(proven)} of the guide's {len(STATEMENTS)} testable statements are emulated. One is only where a",
        'test carries its number, `behaviour("B-113")`, and passes: the whole suite fails where this page says',
        "otherwise.",
        "`grep -rn B-113 tests` finds the tests of a statement.",
        *statements,
        "",
        "## Our own choices",
        "",
        "| subject | choice |",
        "| --- | --- |",
        *[f"| {subject} | {choice} |" for subject, choice in CHOICES],
        "",
        "## Configuration commands",
        "",
        "| command | mode | section | standing |",
        "| --- | --- | --- | --- |",
        *[_row(command) for command in CONFIG_COMMANDS],
        "",
        "## Lines of other parts of the router",
        "",
        "A line that is not a command here is kept word for word in its place, with the lines inside it, and",
        "printed back. It has no effect, and a warning names its first word once. The lines below are known by",
        "name, so that in a script without indentation the lines of their modes are not taken for lines of the",
        "port or interface before.",
        "",
        "| lines | mode |",
        "| --- | --- |",
        *[f"| `{syntax_of(command)}` | {command.modes[0]} |" for command in FOREIGN if command.enters],
        "",
        "## Exec, show and clear commands",
        "",
        "| command | mode | section | standing |",
        "| --- | --- | --- | --- |",
        *[_row(command) for command in OPERATIONS],
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(describe(frozenset(Path(sys.argv[1]).read_text().split())), end="")
