"""`chassis-launch` and `chassisctl` as programs: checks, drawings, refusals, and the shipped labs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner, Result

from chassis.bus.operator import OperatorError
from launch.client.running_lab import RunningLab
from launch.ctl.base import MODULES
from launch.ctl.main import main as chassisctl
from launch.main import main
from launch.run_folders import Folders, Running
from tests.support import CONFIGS

CONFIGS = CONFIGS
LABS = sorted(CONFIGS.glob("*/lab.yaml"))


@pytest.fixture(autouse=True)
def folders(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "r"))
    monkeypatch.setenv("CHASSIS_STATE", str(short_folder / "s"))


def launch(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.parent.name)
def test_a_shipped_lab_has_nothing_wrong(lab: Path) -> None:
    result = launch("check", lab, "--strict")
    assert (result.exit_code, result.output) == (0, f"{lab}: no errors, no warnings, no notes\n")


def test_check_of_a_configuration_as_json(tmp_path: Path) -> None:
    file = tmp_path / "a.cfg"
    file.write_text("context c\n  interface i\n    ip adress 10.0.0.1/24\n  ip route 10.9.0.0/16 10.5.0.1\n")
    result = launch("check", file, "--json")
    found = json.loads(result.output)
    assert result.exit_code == 0
    assert [(d["severity"], d["line"], d["column"]) for d in found] == [("warning", 3, 8), ("warning", 4, 24)]
    assert set(found[0]) == {"severity", "code", "name", "file", "line", "column", "message", "hint"}
    assert found[0]["file"] == str(file)
    assert found[0]["hint"] == "ip address 10.0.0.1/24"


def test_warnings_are_errors_only_when_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.cfg"
    file.write_text("context c\n  ip route 10.9.0.0/16 10.5.0.1\n")
    assert launch("check", file).exit_code == 0
    strict = launch("check", file, "--strict")
    assert strict.exit_code == 1
    assert strict.output.endswith("a.cfg: 1 error, no warnings, no notes\n")
    refused = launch(file, "--strict")
    assert refused.exit_code == 1
    assert "1 warning, no notes: not started" in refused.output


def test_check_of_a_lab_says_what_is_wrong_in_it_and_in_its_configurations(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text("card ge-4-port 3\nport ethernet 3/9\n")
    lab = tmp_path / "lab.yaml"
    lab.write_text(
        "name: x\ntopology:\n  nodes:\n"
        "    a: {kind: smartedge, config: a.cfg}\n    b: {kind: smartedge, config: a.cfg}\n"
        "  links:\n    - endpoints: [a:3/1, b:5/1]\n"
    )
    result = launch("check", lab, "--json")
    found = [(Path(d["file"]).name, d["line"], d["severity"], d["name"]) for d in json.loads(result.output)]
    # The configuration that two routers share is spoken of once.
    assert found == [
        ("a.cfg", 2, "warning", "3/9"),
        ("lab.yaml", 7, "warning", "a:3/1"),
        ("lab.yaml", 7, "warning", "b:5/1"),
    ]
    lab.write_text(lab.read_text().replace("kind: smartedge", "kind: router", 1))
    result = launch("check", lab)
    assert result.exit_code == 1
    assert "lab.yaml:4:15: error lab-unknown: unknown kind 'router'" in result.output


def test_a_lab_is_drawn_with_every_node_and_every_port(tmp_path: Path) -> None:
    file = tmp_path / "lab.svg"
    assert launch("graph", CONFIGS / "high-availability" / "lab.yaml", "-o", file).exit_code == 0
    texts = [element.text for element in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")]
    assert {"ha", "gateway", "t1", "t2"} <= set(texts)
    assert sorted(text for text in texts if text and text[0].isdigit()) == sorted(
        ["1", "3/1", "3/11", "3/11", "3/12", "3/12", "1", "3/1"]
    )


def test_nothing_runs(tmp_path: Path) -> None:
    assert launch("list").output == "no lab runs\n"
    assert json.loads(launch("list", "--json").output) == []
    assert launch("destroy", "x").exit_code == 1
    result = CliRunner().invoke(chassisctl, ["ps"])
    assert (result.exit_code, result.output) == (1, "Error: no lab runs; start one with chassis-launch FILE\n")
    result = CliRunner().invoke(chassisctl, ["--lab", "x", "ps"])
    assert result.output == "Error: no lab 'x' runs; running: none\n"


def test_destroy_deletes_what_a_lab_left_behind(short_folder: Path) -> None:
    Folders("x", ["a"]).close()
    state = short_folder / "s" / "x" / "a"
    assert state.is_dir()
    assert launch("destroy", "x").output == "x: was not running; its state is deleted\n"
    assert not state.exists()


def test_a_name_must_be_one(tmp_path: Path) -> None:
    file = tmp_path / "a.cfg"
    file.write_text("context c\n")
    result = launch("run", file, "--name", "../x")
    assert (result.exit_code, "is not a lab name" in result.output) == (1, True)


@pytest.mark.parametrize(("fault", "said"), [
    (["--loss", "200%"], "from 0% to 100%"),
    (["--rate", "fast"], "expected 100M, 64k or bits a second"),
    (["--delay", "soon"], "expected 2s, 100ms or 5m"),
])  # fmt: skip
def test_a_wrong_fault_is_refused_before_any_lab_is_asked(fault: list[str], said: str) -> None:
    result = CliRunner().invoke(chassisctl, ["link", "a:3/11", *fault])
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(("arguments", "said"), [
    ("link a:3/11 --rate 0", "'0' is not a rate limit; expected 100M, none for no limit"),
    ("flow start --rate abc", "'abc' is not a rate; expected packets per second"),
    ("flow start --rate 0", "'0' is not a rate"),
    ("flow start --rate -3", "'-3' is not a rate"),
    ("flow start --rate nan", "'nan' is not a rate"),
    ("flow start --rate inf", "'inf' is not a rate"),
    ("flow start --count 0", "0 is not in the range x>=1"),
    ("ping a 1.1.1.1 --count 0", "0 is not in the range 1<=x<=10000"),
    ("ping a 1.1.1.1 --size -1", "-1 is not in the range 0<=x<=65493"),
    ("trace a --count -1", "-1 is not in the range 1<=x<=100"),
    ("link a:3/11 --seed 18446744073709551616", "is not in the range 0<=x<=4294967296"),
    ("log a --since nan", "'nan' is not a number of seconds from 0 to"),
    ("events --since 1e400", "'1e400' is not a number of seconds from 0 to"),
    ("trace a --protocol 256", "256 is not in the range 0<=x<=255"),
    ("capture a port 3/1 x --seconds 0", "0.0 is not in the range x>0"),
    ("bus --count -1", "-1 is not in the range x>=1"),
])  # fmt: skip
def test_a_wrong_number_is_refused_before_any_lab_is_asked(arguments: str, said: str) -> None:
    result = CliRunner().invoke(chassisctl, arguments.split())
    assert (result.exit_code, said in result.output) == (2, True), result.output


@pytest.mark.parametrize("arguments", [("graph", "-o"), ("test", "--junit")])
def test_a_file_that_cannot_be_written_is_an_error_and_no_traceback(
    arguments: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    command, option = arguments
    result = launch(command, CONFIGS / "manual-keys" / "lab.yaml", option, tmp_path / "file" / "x")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {tmp_path}/file/x: ")


def test_far_ends_and_names_of_a_running_lab(tmp_path: Path) -> None:
    facts = {"nodes": {"alpha": {"kind": "smartedge"}, "h": {"kind": "linux"}}, "links": [["alpha:3/1", "h:eth1"]]}
    lab = RunningLab(Running("x", tmp_path, facts))
    assert lab.far_end("h:eth1") == "alpha:3/1"
    assert lab.split("alpha:3/1") == ("alpha", "3/1")
    for call, said in (
        (lambda: lab.far_end("alpha:3/2"), "alpha:3/2 has no link; linked ports: alpha:3/1, h:eth1"),
        (lambda: lab.split("alpha"), "expected NODE:PORT such as a:3/11"),
        (lambda: lab.split("alpa:3/1"), "did you mean 'alpha'"),
        (lambda: lab.node("h", "status"), "run commands in it with chassisctl exec"),
    ):
        with pytest.raises(OperatorError, match=said):
            call()


def test_help_is_enough_to_begin() -> None:
    result = launch("--help")
    assert all(word in result.output for word in ("chassisctl", "run", "check", "destroy", "test", "simulate"))
    result = CliRunner().invoke(chassisctl, ["--help"])
    assert all(word in result.output for word in ("status", "kill", "link", "trace", "ping", "capture", "bus"))


def test_each_command_of_chassisctl_is_in_its_module() -> None:
    """A command's module is imported when it is wanted, so `MODULES` must say where each one is."""
    context = click.Context(chassisctl)
    found: dict[str, set[str]] = {}
    for name in chassisctl.list_commands(context):
        command = chassisctl.get_command(context, name)
        assert command is not None, name
        found.setdefault(inspect.unwrap(command.callback or len).__module__.rpartition(".")[2], set()).add(name)
    assert found == {module: set(names) for module, names in MODULES.items()}
    assert set(chassisctl.commands) == set(chassisctl.list_commands(context))


def test_a_command_of_chassisctl_imports_little() -> None:
    asked = "import sys; from launch.ctl.base import main; main.get_command(None, 'status'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "launch.ctl.card_commands" in modules
    assert {"numpy", "launch.ctl.cli_commands", "chassis.cli.session"}.isdisjoint(modules)
