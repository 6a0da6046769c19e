"""The commands that do not change the configuration: transactions, PKI, show, clear."""

from __future__ import annotations

from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.foreign import FOREIGN
from chassis.config.grammar import Command, Standing

# A table, kept dense so that a command is read at one glance.
# fmt: off

_ASP = "[card/asp <asp:asp>]"


def _show(name: str, syntax: str, help: str, guide: str = "10", aliases: tuple[str, ...] = (),
          standing: Standing = "later") -> Command:
    return Command(name, ("any",), syntax, help, kind="show", does="none", standing=standing, guide=guide,
                   aliases=aliases)


def _pki(name: str, syntax: str, help: str) -> Command:
    return Command(name, ("exec",), syntax, help, kind="exec", does="none", misplaced="S-012",
                   guide="6.1.1")


def _clear(what: str, help: str) -> Command:
    return Command(f"clear-{what}-sa", ("exec",), f"clear {what} sa tunnel <name:name>", help, kind="clear",
                   does="none", misplaced="S-077", guide="11")


_SCOPE = "[all-contexts] [verbose]"

OPERATIONS: tuple[Command, ...] = (
    Command("config", ("exec",), "configure/config", "enter global configuration mode", does="control",
            enters="global", no=(), guide="12"),
    Command("commit", ("any",), "commit", "check the open transaction and put it into force", does="control",
            aliases=("commit <comment:text>",), no=(), guide="13"),
    Command("exit", ("any",), "exit", "leave this mode", does="control", no=(), guide="13"),
    Command("end", ("any",), "end", "commit and return to exec mode", does="control", no=(), guide="12"),
    _pki("pki-import-trusted", "import pki certificate trusted rsa file <file:word>",
         "read the certificate of a CA from a PEM file"),
    _pki("pki-add-key-pair", "add pki key-pair <name:name> rsa <bits:512-16384>", "make a key pair"),
    _pki("pki-import-key-pair", "import pki key-pair <name:name> rsa file <file:word>",
         "read a key pair from a PEM file"),
    _pki("pki-add-certificate-request", "add pki certificate-request rsa <name:name> file <file:word>",
         "write a certificate request into a PEM file, asking for its fields"),
    _pki("pki-import-self", "import pki certificate self rsa key-pair <name:name> file <file:word>",
         "read the certificate of this router from a PEM file"),
    _show("pki-show-self", "show pki certificate self rsa", "our certificates with their handles", "6.1.1",
          standing="emulated"),
    _pki("pki-remove-certificate", "remove pki certificate <handle:word>", "remove a certificate"),
    _show("show-configuration-ike", f"show configuration ike {_SCOPE}", "IKE configuration",
          standing="emulated"),
    _show("show-configuration-ipsec", f"show configuration ipsec {_SCOPE}", "IPsec configuration",
          standing="emulated"),
    _show("show-configuration-tunnel", f"show configuration tunnel {_SCOPE}", "tunnels as configured",
          standing="emulated"),
    _show("show-ike-policy", f"show ike {_ASP} policy [<name:name>]", "IKE policies of the context",
          standing="emulated"),
    _show("show-ike-proposal", f"show ike {_ASP} proposal [<name:name>]", "IKE proposals",
          standing="emulated"),
    _show("show-ike-statistics", "show ike card/asp <asp:asp> statistics global <version=ike1|ike2>",
          "IKE counters of an ASP", standing="emulated"),
    _show("show-ipsec-statistics",
          "show ipsec card/asp <asp:asp> statistics global context <context:name>",
          "IPsec counters of an ASP and a context", standing="emulated"),
    _show("show-tunnel-ike-statistics", "show tunnel ipsec [name] <name:name> statistics ike [detail]",
          "IKE counters of a tunnel",
          standing="emulated"),
    _show("show-ipsec-access-list", f"show ipsec {_ASP} access-list [<name:name>]",
          "IPsec ACLs of the context",
          standing="emulated"),
    _show("show-ipsec-policy", f"show ipsec {_ASP} policy [<name:name>]", "IPsec policies",
          standing="emulated"),
    _show("show-ipsec-profile", f"show ipsec {_ASP} profile [<name:name>]", "IPsec profiles",
          standing="emulated"),
    _show("show-ipsec-proposal", f"show ipsec {_ASP} proposal [<name:name>]", "IPsec proposals",
          standing="emulated"),
    _show("show-ipsec-sa", f"show ipsec {_ASP} security-association [<name:name>]", "manual SAs",
          standing="emulated"),
    _show("show-tunnel-ipsec",
          "show tunnel ipsec [{name <name:name> | remote <remote:address>}] [{detail | on-demand}]",
          "tunnels", aliases=("show tunnel ipsec <name:name> [{detail | on-demand}]",),
          standing="emulated"),
    _show("show-tunnel-statistics", "show tunnel ipsec [name] <name:name> [on-demand] statistics [detail]",
          "counters of a tunnel",
          standing="emulated"),
    _show("show-pki-certificate",
          "show pki [asp/card <asp:asp>] certificate <whose=trusted|self> rsa "
          "[{identity <identity:word> | handle <handle:word>}]",
          "certificates", standing="emulated"),
    _show("show-pki-key-pair", "show pki key-pair [<name:name>]", "names of the key pairs", standing="emulated"),
    _show("show-pki-certificate-request", "show pki certificate-request rsa [all]",
          "certificate requests of the context", standing="emulated"),
    _clear("ike", "delete the IKE SAs of a tunnel, and negotiate them again"),
    _clear("ipsec", "delete the IPsec SAs of a tunnel, and make them again"),
)
"""Commands that do not change the configuration."""

COMMANDS: tuple[Command, ...] = CONFIG_COMMANDS + OPERATIONS + FOREIGN
"""The whole grammar."""

BY_ID: dict[str, Command] = {command.id: command for command in COMMANDS}
"""The whole grammar by id."""
