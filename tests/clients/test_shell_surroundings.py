"""bus.sh in odd surroundings: what it leaves alone, where it runs, and what strangers can't make it do."""

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bus import Bus, liveness
from tests.clients.conftest import FUNCTIONS, Shell
from tests.conformance.test_digests import damage
from tests.conftest import Process
from tests.namespaces import after, read_only_but_for, unshared

FILE = Path(".milestones/coordination.db")
FLOCK = shutil.which("flock")
only_sqlite3 = pytest.mark.parametrize("shell", ["sqlite3"], indirect=True)


EVERY_FUNCTION = """
    initialize_agent_coordination
    register_agent three milestone-executor m s '[]' $$
    update_agent_status three paused
    save_agent_state three k $'a\\r\\n'
    load_agent_state three k
    send_agent_message boss three task_assignment '{"phase": "one"}' 9
    send_agent_message boss three task_assignment '{}'
    receipt=$(receive_agent_message three 5m | jq -r .receipt)
    release_agent_message "$receipt"
    receipt=$(receive_agent_message three 5m | jq -r .receipt)
    ack_agent_message "$receipt"
    get_agent_messages three
    get_agent_messages three true
    create_agent_checkpoint three manual '{}' .milestones
""".replace(" .milestones\n", ' "$0"\n')


def test_nothing_of_the_caller_is_changed(shell: Shell, tmp_path: Path) -> None:
    """Neither variables nor functions without the prefix, nor options, IFS, REPLY or locale."""
    (tmp_path / "test").write_text("")
    script = f"""
    source "{FUNCTIONS}"
    facts() {{ compgen -v | grep -Ev '^(_bus_.*|BUS_.*|BASH.*|_|PIPESTATUS|FUNCNAME)$'; set +o; shopt; trap; umask; }}
    IFS=: REPLY=mine LC_ALL=C.UTF-8 receipt=
    set -C
    facts >before
    {{ {EVERY_FUNCTION} get_session_status s; list_session_agents s; update_agent_status three completed; }} >output
    facts >after
    [[ $IFS == : && $REPLY == mine && $LC_ALL == C.UTF-8 ]]
    diff before after
    """
    assert shell(script) == ""


def test_the_callers_read_only_variables_are_in_nobodys_way(shell: Shell, tmp_path: Path) -> None:
    """Whatever word of the functions' source has the name of one."""
    (tmp_path / "test").write_text("")
    sources = "".join(path.read_text("utf-8") for path in FUNCTIONS.parent.glob("*.sh"))
    words = sorted(set(re.findall(r"\b[a-z][a-z_]*\b", sources)) - {"receipt"})
    shell(f"readonly {'=mine '.join(words)}=mine\n{{ {EVERY_FUNCTION} }} >output")


def test_what_a_caller_has_matched_outlives_the_receipt_in_it(shell: Shell) -> None:
    script = """
    send_agent_message boss one task_assignment '{}' >/dev/null
    for call in 'release_agent_message "${BASH_REMATCH[2]}"' 'ack_agent_message "${BASH_REMATCH[2]}"'; do
      receive_agent_message one >message
      [[ $(<message) =~ \\"id\\":([0-9]+).*\\"receipt\\":\\"([^\\"]+) ]]
      eval "$call"
      echo "${BASH_REMATCH[1]}"
    done
    """
    assert shell(script) == "1\n1\n"


@pytest.mark.parametrize("receipt", ["1", "1.", ".1", "1.1.1", "1.1 ", "1.x", "1" * 19 + ".1", "1." + "1" * 19, "-1.1"])
def test_what_can_be_no_receipt_is_refused(shell: Shell, receipt: str) -> None:
    shell('ack_agent_message "$1"', receipt, status=64)


@pytest.mark.parametrize(
    ("other", "version"),
    [("dash", ""), ("bash", "unset BASH_VERSION;"), ("bash", "BASH_VERSION=3.2.57;"), ("bash", "BASH_VERSION=4.1.2;")],
)
def test_another_shell_is_told_that_bash_is_needed(other: str, version: str) -> None:
    script = f'{version} . "{FUNCTIONS}"; echo $?'
    done = subprocess.run([other, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "64\n"
    assert done.stderr.startswith("bus: these functions need bash")
    assert done.stderr.count("\n") == 1


def test_a_loop_keeps_its_input(shell: Shell) -> None:
    script = 'while read -r word; do save_agent_state one "$word" "$word"; load_agent_state one "$word"; done'
    assert shell(f"printf 'a\\nb\\nc\\n' | {{ {script}; }}") == "a\nb\nc\n"


def test_a_caller_that_checks_goes_on(shell: Shell) -> None:
    script = """
    ack_agent_message 99.1 2>/dev/null || echo "status $?"
    if ! message=$(receive_agent_message one); then echo "none ${message:-}"; fi
    send_agent_message boss one task_assignment '{' 2>/dev/null || echo "status $?"
    """
    assert shell(script) == "status 66\nnone \nstatus 65\n"


def test_urgent_first_then_sent_first(shell: Shell) -> None:
    script = """
    for priority in 5 10 1 5 010; do
      send_agent_message boss one task_assignment "{\\"title\\": \\"$priority\\"}" "$priority" >/dev/null
    done
    send_agent_message boss @milestone-executor task_assignment '{"title": "queue"}' 7 >/dev/null
    get_agent_messages one | jq -r 'map(.id) | join(" ")'
    get_agent_messages one true | jq -r 'map(.id) | join(" ")'
    """
    assert shell(script) == "2 5 6 1 4 3\n" * 2


def test_all_that_is_ready_is_shown_and_taken(shell: Shell, bus: Bus) -> None:
    for _ in range(130):
        bus.send("boss", "one", "task_assignment", {})
    assert shell("get_agent_messages one | jq length; get_agent_messages one true | jq length") == "130\n130\n"


def test_what_was_leased_before_is_not_taken(shell: Shell, bus: Bus) -> None:
    script = """
    send_agent_message boss one task_assignment '{}' >/dev/null
    receive_agent_message one 1h >/dev/null
    send_agent_message boss one task_assignment '{}' >/dev/null
    get_agent_messages one true | jq -c 'map(.id)'
    """
    assert shell(script) == "[2]\n"
    assert [bus.message(id).status for id in (1, 2)] == ["leased", "acknowledged"]


def test_a_payload_that_speaks_of_statuses_stays_as_it_is(shell: Shell) -> None:
    payload = {"status": "leased", "message": 'x","status":"leased","'}
    sent = json.dumps(payload, separators=(",", ":"))
    (message,) = json.loads(
        shell('send_agent_message boss one progress_update "$1" >x; get_agent_messages one true', sent)
    )
    assert message["payload"] == payload
    assert message["status"] == "acknowledged"


def test_words_with_bars_and_slashes_ring_nothing_but_bells(shell: Shell, tmp_path: Path) -> None:
    """Bells are files: what an agent says of itself must not become the path of one."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Path(f"{FILE}.bells").mkdir()
    shell('register_agent three milestone-executor m s "$1"', json.dumps([f"x|../../{victim.name}|", "a|../../victim"]))
    shell("update_agent_status three failed")
    assert victim.read_text() == "precious"


@only_sqlite3
def test_a_callers_environment_is_no_program(shell: Shell, tmp_path: Path) -> None:
    """What bus.sh counts is worked out, and a subscript of that would be run."""
    script = f'source "{FUNCTIONS}"; save_agent_state one k v'
    for name in ("_bus_writes", "_bus_options", "_bus_bell", "_bus_queue"):
        done = subprocess.run(
            ["bash", "-c", script], env={**os.environ, name: "x[$(touch planted)]"}, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert not Path("planted").exists()


@only_sqlite3
def test_a_package_that_was_removed_meanwhile_is_a_fault_and_no_loop(shell: Shell, tmp_path: Path) -> None:
    shutil.copytree(FUNCTIONS.parent, tmp_path / "copy/clients/shell")
    shutil.copytree(FUNCTIONS.parents[2] / "schemas", tmp_path / "copy/schemas")
    script = """
        source copy/clients/shell/bus.sh
        save_agent_state one "a b" v 2>/dev/null && exit 1
        rm -r copy/schemas
        save_agent_state one "a b" v
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stderr.splitlines()[-1].startswith("bus: ")


@pytest.mark.parametrize("folder", [False, True])
def test_a_bell_that_is_a_link_is_not_rung(shell: Shell, tmp_path: Path, folder: bool) -> None:
    """A folder that was unpacked, or that others may write to, brings any link."""
    victims = tmp_path / "victims"
    victims.mkdir()
    names = ["one", "two", "state=one"]
    for name in [*names, "old"]:
        (victims / name).write_text("precious" if name in names else "")
        os.utime(victims / name, (0, 0))
    bells = Path(f"{FILE}.bells")
    if folder:
        bells.symlink_to(victims)
    else:
        bells.mkdir()
        for name in names:
            (bells / name).symlink_to(victims / name)
    shell("save_agent_state one k v; send_agent_message boss one task_assignment '{}'")
    shell("send_agent_message boss '*' task_assignment '{}'")
    with Bus.open(str(FILE)) as bus:
        bus.send("boss", "one", "task_assignment", {})
        assert bus.state_watch("one", "k", after=1, wait=0.01) is None
        bus.monitor_check()
    assert {path.name: path.read_text() for path in victims.iterdir()} == {
        **dict.fromkeys(names, "precious"),
        "old": "",
    }


def test_those_who_wait_are_rung_and_nobody_else(shell: Shell) -> None:
    bells = Path(f"{FILE}.bells")
    bells.mkdir()
    waiting = ["one", "@milestone-executor", "state=one", "message=1", "two"]
    for name in waiting:
        (bells / name).write_text("")

    def rung(script: str) -> set[str]:
        for name in waiting:
            os.utime(bells / name, ns=(0, 0))
        shell(script)
        assert sorted(path.name for path in bells.iterdir()) == sorted(waiting)
        return {path.name for path in bells.iterdir() if path.stat().st_mtime_ns}

    assert rung("send_agent_message boss one task_assignment '{}'") == {"one"}
    assert rung("send_agent_message boss @milestone-executor task_assignment '{}'") == {"@milestone-executor"}
    assert rung("send_agent_message boss '*' task_assignment '{}'") == {"one", "two"}
    assert rung("save_agent_state one k v; save_agent_state boss k v") == {"state=one"}
    assert rung("receive_agent_message one 1h") == set()
    assert rung("release_agent_message 1.1") == {"one"}
    assert rung("receive_agent_message one 1h; ack_agent_message 01.2") == {"message=1"}
    assert rung("get_agent_messages two true; update_agent_status two completed") == set()


@pytest.mark.parametrize(
    "duration", ["500ms", "1ms", "0.001", "08s", "0.5", ".5m", "5m", "2h", "7d", "36500d", "4000000000ms"]
)
def test_durations_are_read_as_everywhere(shell: Shell, duration: str) -> None:
    send = "send_agent_message boss one task_assignment '{}' >sent; receive_agent_message one \"$1\" >got"
    shell(f'{send}; save_agent_state one k v temp_data "$1"; release_agent_message 1.1 "$1"', duration)


@pytest.mark.parametrize(
    "duration",
    [
        "0",
        "0s",
        "0.0ms",
        "0.0004",
        "00.00099s",
        ".5ms",
        "0.0m",
        "-1",
        "1w",
        "1e3",
        "36601d",
        "3162240000001ms",
        "99999999999s",
        ".",
        "ms",
        "5 m",
    ],
)
def test_a_lease_is_some_time_and_not_for_ever(shell: Shell, bus: Bus, duration: str) -> None:
    bus.send("boss", "one", "task_assignment", {})
    shell('receive_agent_message one "$1"', duration, status=64)
    assert bus.message(1).status == "ready"


def test_the_dead_are_found_whatever_they_were_called(shell: Shell, bus: Bus) -> None:
    """Also by the word for what is damaged."""
    bus.register("damaged", type="milestone-executor", session="s", pid=os.getpid())
    bus.send("boss", "@milestone-executor", "task_assignment", {})
    bus.receive("damaged", lease="1h")
    subprocess.run(
        ["sqlite3", FILE, "update agent_registry set process_started_at = 1 where pid is not null"], check=True
    )
    assert shell("receive_agent_message one | jq -r .receipt") == "1.2\n"


def test_registering_again_keeps_what_is_not_said(shell: Shell, bus: Bus) -> None:
    shell("register_agent one milestone-executor m s '[\"bash\"]'; register_agent one milestone-executor m t")
    (agent,) = bus.agents(session="t")
    assert list(agent.capabilities) == ["bash"]


def test_the_host_is_the_kernels_not_the_environments(shell: Shell, bus: Bus) -> None:
    shell(f"HOSTNAME=elsewhere register_agent one milestone-executor m t '[]' {os.getpid()}")
    (agent,) = bus.agents(session="t")
    assert (agent.host, agent.pid) == (socket.gethostname(), os.getpid())


@pytest.mark.parametrize("again", ["", " '[]' $$"])
def test_a_pid_that_was_given_to_another_process_is_a_dead_one(shell: Shell, bus: Bus, again: str) -> None:
    shell(f"register_agent one milestone-executor m s '[]' {os.getpid()}")
    bus.send("boss", "one", "task_assignment", {})
    bus.receive("one", lease="1h")
    shell(f"register_agent one milestone-executor m s '[]' {os.getpid()}")
    assert bus.message(1).status == "leased"
    subprocess.run(
        ["sqlite3", FILE, "update agent_registry set process_started_at = 1 where pid is not null"], check=True
    )
    shell(f"register_agent one milestone-executor m s{again}")
    assert bus.message(1).status == "ready"


def test_a_receiver_takes_over_from_the_dead(shell: Shell, bus: Bus) -> None:
    bus.register("one", type="milestone-executor", session="s", pid=os.getpid())
    bus.send("boss", "@milestone-executor", "task_assignment", {})
    bus.receive("one", lease="1h")
    assert shell("get_agent_messages two true") == "[]\n"
    subprocess.run(
        ["sqlite3", FILE, "update agent_registry set process_started_at = 1 where pid is not null"], check=True
    )
    assert shell("get_agent_messages two true | jq -r '.[].receipt'") == "1.2\n"


@pytest.mark.parametrize("how", ["-p", "-T --boottime 1000"])
def test_a_holder_is_not_judged_by_what_another_namespace_tells(shell: Shell, bus: Bus, how: str) -> None:
    """`unshare -p` alone leaves the /proc of the processes outside; start times are moved by a time namespace."""
    elsewhere = shlex.join(unshared("-f", *how.split()))
    bus.register("one", type="milestone-executor", session="s", pid=os.getpid())
    bus.send("boss", "@milestone-executor", "task_assignment", {})
    bus.receive("one", lease="1h")
    inside = f"""source "{FUNCTIONS}"; receive_agent_message two && exit
    [[ "{how}" != -p ]] || register_agent two milestone-executor m s '[]' $$"""
    shell(f'{elsewhere} bash -c "$1"', inside)
    assert (bus.message(1).status, bus.message(1).leased_by) == ("leased", "one")
    (two,) = [agent for agent in bus.agents() if agent.agent_id == "two"]
    assert two.boot_id is None  # so that nobody takes another process for it


def test_who_waits_for_a_script_that_was_killed_takes_nothing(shell: Shell, bus: Bus) -> None:
    script = f'source "{FUNCTIONS}"; message=$(receive_agent_message one 1h 60s)'
    with subprocess.Popen(["bash", "-c", script], stderr=subprocess.PIPE) as process:
        while not Path(f"{FILE}.bells/one").exists():
            os.sched_yield()
        process.kill()
        assert process.stderr
        assert process.stderr.read().startswith(b"bus: interrupted")  # until the last of them has ended
    bus.send("boss", "one", "task_assignment", {})
    assert shell("receive_agent_message one | jq -r .receipt") == "1.1\n"


def test_a_trace_is_not_taken_for_output(shell: Shell) -> None:
    script = """payload="{\\"title\\": \\"$(head -c 200000 /dev/zero | tr '\\0' x)\\"}"
    { set -x; id=$(send_agent_message boss one task_assignment "$payload"); set +x; } 2>/dev/null
    echo "$id" """
    assert shell(script) == "1\n"


@pytest.mark.parametrize("how", ["receive_agent_message one 1h", "(receive_agent_message one 1h)"])
def test_what_nobody_reads_goes_back(shell: Shell, bus: Bus, how: str) -> None:
    bus.send("boss", "one", "task_assignment", {})
    reader, writer = os.pipe()
    os.close(reader)
    whole = ["bash", "-c", f'source "{FUNCTIONS}"; {how}']
    done = subprocess.run(whole, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr[:20]) == (70, b"bus: standard output")
    assert bus.message(1).status == "ready"


def test_a_holder_that_proc_does_not_show_is_not_dead(shell: Shell, bus: Bus, process: Process, tmp_path: Path) -> None:
    """As where it is mounted with hidepid."""
    bus.register("one", type="milestone-executor", session="s", pid=process.pid)
    bus.send("boss", "@milestone-executor", "task_assignment", {})
    bus.receive("one", lease="1h")
    (tmp_path / "nothing").mkdir()
    container = shlex.join(after(f'mount --bind "{tmp_path}/nothing" /proc/{process.pid}', "-m"))
    inside = f"""source "{FUNCTIONS}"; receive_agent_message two; echo $?"""
    assert shell(f'{container} bash -c "$1"', inside) == "1\n"
    assert bus.message(1).leased_by == "one"
    process.kill()
    process.wait()
    shell("receive_agent_message two")
    assert bus.message(1).leased_by == "two"


@pytest.mark.parametrize("name", ["it's here", 'a "quoted" one', "$(exit 9)", "back\\slash", "é", "semi;colon & more"])
def test_a_bus_may_lie_in_any_folder(shell: Shell, tmp_path: Path, name: str) -> None:
    tree = tmp_path / name
    shutil.copytree(FUNCTIONS.parents[2] / "schemas", tree / "schemas")
    shutil.copytree(FUNCTIONS.parent, tree / "clients/shell")
    script = """
    cd "$1"; source clients/shell/bus.sh; initialize_agent_coordination
    mkdir below; cd below; save_agent_state one k "$1"; load_agent_state one k
    """
    assert shell(script, name) == f"{name}\n"
    assert (tree / FILE).exists()


@pytest.mark.parametrize("url", ["{}", "sqlite:///{}", "sqlite:///{}?synchronous=normal", "{}?synchronous=full"])
@pytest.mark.parametrize("folder", ["", "{tmp}/"])
def test_addresses_are_read_as_everywhere(shell: Shell, bus: Bus, tmp_path: Path, url: str, folder: str) -> None:
    address = url.format(folder.format(tmp=tmp_path) + str(FILE))
    assert shell('BUS_URL=$1; save_agent_state one k "$1"; load_agent_state one k', address) == f"{address}\n"
    assert bus.state_load("one", "k") == address


def test_the_nearest_bus_is_above_where_one_is_not_above_a_link_to_it(shell: Shell) -> None:
    script = """
    mkdir -p project other/folder; ln -s ../other/folder project/link; ln -s other alias
    for place in project other; do (cd "$place"; initialize_agent_coordination); done
    for place in project/link alias/folder; do
      (cd "$place"; save_agent_state any "${place%/*}" v; load_agent_state any "${place%/*}")
    done
    """
    assert shell(script) == "v\nv\n"
    with Bus.open(f"other/{FILE}") as other:
        assert [other.state_load("any", key) for key in ("project", "alias")] == ["v", "v"]


@pytest.mark.parametrize(
    ("folder", "url"),
    [
        (".", "link/../x.db"),
        (".", "{tmp}/link/../x.db"),
        (".", "sqlite:///./link/.//./..//x.db"),
        (".", "real/folder/../../link/../x.db"),
        (".", "{tmp}/none/../link/../real/../x.db"),
        ("link", "../x.db"),
        ("link", "./../../real/./x.db"),
        ("link", "folder/../../../link/../x.db"),
    ],
)
def test_steps_up_in_an_address_are_taken_as_everywhere(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, url: str
) -> None:
    """By the names alone; the kernel would go up from where a link leads."""
    (tmp_path / "real/folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/folder")
    for file in ("x.db", "real/x.db"):
        Bus.open(file, create=True).close()
    address = url.format(tmp=tmp_path)
    shell('cd "$1"; BUS_URL=$2 save_agent_state any k v', folder, address)
    monkeypatch.chdir(folder)
    with Bus.open(address) as opened:
        assert opened.state_load("any", "k") == "v"


@pytest.mark.parametrize("options", ["set -f", "GLOBIGNORE=*"])
def test_the_callers_globbing_is_not_needed(shell: Shell, options: str) -> None:
    assert shell(f'{options}; source "{FUNCTIONS}"; save_agent_state one k v; load_agent_state one k') == "v\n"


def test_the_callers_functions_are_not_called(shell: Shell, bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    names = "sort stat readlink iconv sqlite3 flock kill realpath sha256sum wc cat"
    own = "".join(f"{name}() {{ echo own {name} >&2; return 3; }}; " for name in names.split())
    tour = """
        source "$1"; register_agent one validation m s "[]" $BASHPID
        send_agent_message boss one task_assignment '{"title": "ü"}'; send_agent_message boss one task_assignment {}
        get_agent_messages one true; create_agent_checkpoint one manual {} "$2"; show_recovery_help
    """
    said = shell(own + tour, str(FUNCTIONS), str(tmp_path / "file"))
    assert said.startswith("1\n2\n[{")
    assert [len(found.file_references) for found in bus.checkpoint_list("one")] == [1]
    assert [message.status for message in bus.messages(to="one")] == ["acknowledged"] * 2


def test_a_take_that_is_misspelt_is_none(shell: Shell, bus: Bus) -> None:
    bus.send("boss", "one", "task_assignment", {})
    for word in ("True", "1", "yes"):
        shell('get_agent_messages one "$1"', word, status=64)
    assert shell('get_agent_messages one false; get_agent_messages one ""').count('"status":"ready"') == 2


@pytest.mark.parametrize("link", ["bus.sh", "$PWD/bus.sh"])
def test_the_functions_may_be_read_through_a_link(shell: Shell, tmp_path: Path, link: str) -> None:
    (tmp_path / "bus.sh").symlink_to(FUNCTIONS)
    assert shell(f'source "{link}"; save_agent_state one k v temp_data 1h; load_agent_state one k') == "v\n"


def test_the_functions_know_the_newest_schema(shell: Shell) -> None:
    newest = max(int(path.name.split("_")[0]) for path in (FUNCTIONS.parents[2] / "schemas/sqlite").glob("*.sql"))
    assert shell("echo $_bus_newest") == f"{newest}\n"


@pytest.mark.parametrize(
    ("script", "after"),
    [
        ("receive_agent_message one", "ready"),
        ("receive_agent_message one 5m 1s", "ready"),
        ("get_agent_messages one", "ready"),
        ("get_agent_messages one true", "acknowledged"),
        ("send_agent_message boss one task_assignment '{}'", "ready"),
        ("send_agent_message boss '*' task_assignment '{}'", "ready"),
        ("load_agent_state one k", "ready"),
        ("create_agent_checkpoint one", "ready"),
        ("get_session_status s", "ready"),
        ("list_session_agents s", "ready"),
        ("show_recovery_help", "ready"),
    ],
)
@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_what_nobody_can_take_is_said_and_a_message_goes_back(
    shell: Shell, bus: Bus, script: str, after: str, where: str
) -> None:
    bus.send("boss", "one", "task_assignment", {"title": ',"receipt":"9.9"'}, correlation=',"receipt":"9.9"')
    bus.state_save("one", "k", "v")
    shell(f"{script} {where}", status=70)
    closed = where == ">&-"  # which can be known beforehand
    assert bus.message(1).status == ("ready" if closed else after)
    sent = 0 if closed else script.startswith("send") + ("'*'" in script)
    assert len(bus.messages()) == 1 + sent


@pytest.mark.parametrize("url", ["missing.db", "sqlite:///missing.db", "missing/missing.db"])
def test_no_file_is_made_by_accident(shell: Shell, tmp_path: Path, url: str) -> None:
    shell("BUS_URL=$1 save_agent_state one k v", url, status=66)
    assert not list(tmp_path.glob("missing*"))


@only_sqlite3
def test_ranks_are_sorted_by_their_points_whatever_the_locale(shell: Shell, bus: Bus, tmp_path: Path) -> None:
    """Elsewhere a comma is what a point is here."""
    (tmp_path / "bin").mkdir()
    sort = tmp_path / "bin" / "sort"
    sort.write_text(f'#!/bin/sh\necho "${{LC_ALL-}}" >locale\nexec {shutil.which("sort")} "$@"\n')
    sort.chmod(0o700)
    for _ in range(2):
        bus.send("boss", "one", "task_assignment", {})
    shell("PATH=$PWD/bin:$PATH; unset LC_ALL; get_agent_messages one true >taken")
    assert (tmp_path / "locale").read_text() == "C\n"


@only_sqlite3
def test_a_locale_that_is_not_there_is_not_complained_of_at_each_call(shell: Shell) -> None:
    done = shell(
        """
        LC_ALL=C; { LC_ALL=nowhere.UTF-8; } 2>/dev/null # as a shell that was started with it
        { save_agent_state one k é
          send_agent_message boss one task_assignment '{"phase": "é"}'
          receipt=$(receive_agent_message one | jq -r .receipt)
          ack_agent_message "$receipt"
          get_agent_messages one true
          load_agent_state one missing || :
          ack_agent_message 9.9 || :
        } 2>&1 >/dev/null
        load_agent_state one k
        """
    )
    assert done == "bus: no such message: 9.9; see `bus messages`\né\n"


@only_sqlite3
def test_what_cant_be_sorted_is_handed_out_all_the_same(shell: Shell, bus: Bus, tmp_path: Path) -> None:
    """It is acknowledged: nobody would hear of it again. What is damaged is known in whatever order it comes."""
    _program(tmp_path, "sort", "exit 2")
    for _ in range(3):
        bus.send("boss", "one", "task_assignment", {})
    damage(bus, 2)
    taken = shell("PATH=$PWD/bin:$PATH; get_agent_messages one true | jq -c 'map(.id) | sort'")
    assert taken == "[1,3]\n"
    assert [bus.message(id).status for id in (1, 2, 3)] == ["acknowledged", "dead", "acknowledged"]


@only_sqlite3
def test_an_old_sqlite3_is_passed_over(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    old = tmp_path / "bin" / "sqlite3"
    old.write_text(
        "#!/bin/sh\n[ $1 = -version ] && echo 3.37.2 && exit\necho 'Error: unknown command: dbconfig'\nexit 1\n"
    )
    old.chmod(0o700)
    assert shell("PATH=$PWD/bin:$PATH; save_agent_state one k v; load_agent_state one k") == "v\n"


@pytest.fixture
def queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipe that hears who queues for a turn; `queued.log` has a line for each."""
    pipe = tmp_path / "queued"
    os.mkfifo(pipe)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    _program(tmp_path, "flock", f'echo >"{pipe}"; echo >>"{pipe}.log"; exec {FLOCK} "$@"')
    return pipe


def _program(folder: Path, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


@contextlib.contextmanager
def at_work(until: Path) -> Iterator[None]:
    """Somebody has the turn and writes, until something comes through a pipe; what comes later is not heard."""
    with (
        contextlib.closing(sqlite3.connect(FILE, isolation_level=None, check_same_thread=False)) as other,
        open(f"{FILE}.turn", "w") as turn,
    ):
        fcntl.flock(turn, fcntl.LOCK_EX)
        other.execute("begin immediate")

        def end() -> None:
            until.read_text()
            until.unlink()
            until.symlink_to("/dev/null")
            fcntl.flock(turn, fcntl.LOCK_UN)
            other.execute("commit")

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        yield
        thread.join()


@only_sqlite3
def test_who_finds_others_at_work_queues_and_so_do_its_next_writes(shell: Shell, queued: Path) -> None:
    with at_work(until=queued):
        shell("for n in {1..20}; do save_agent_state one k $n; done")
    assert len(Path(f"{queued}.log").read_text()) == 16
    assert shell("load_agent_state one k") == "20\n"


@only_sqlite3
def test_where_there_is_no_flock_sqlite3_waits(shell: Shell, queued: Path, tmp_path: Path) -> None:
    _program(tmp_path, "flock", f'echo >"{queued}"; exit 127')
    with at_work(until=queued):
        shell("save_agent_state one k v")
    assert shell("load_agent_state one k") == "v\n"


@only_sqlite3
@pytest.mark.parametrize(("queue", "turn"), [(0, "free"), (1, "taken")])
def test_a_turn_is_had_in_the_transaction(shell: Shell, queue: int, turn: str) -> None:
    script = f"""
        export TURN=$PWD/{FILE}.turn
        _bus_queue={queue}
        _bus_sql write '.system flock -n "$TURN" true && echo free || echo taken'
        printf %s "$REPLY"
        flock -n "$TURN" true
    """
    assert shell(script) == f"{turn}\n"


@only_sqlite3
@pytest.mark.parametrize("queue", [0, 1])
def test_a_transaction_that_writes_has_the_write_lock_from_its_beginning(shell: Shell, queue: int) -> None:
    script = f"""
        export FILE=$PWD/{FILE}
        _bus_queue={queue}
        _bus_sql write '.system sqlite3 "$FILE" "begin immediate" 2>&1'
        printf %s "$REPLY"
    """
    assert "database is locked" in shell(script)


@only_sqlite3
def test_who_queues_leaves_the_right_of_way_to_others(shell: Shell) -> None:
    turn = Path(f"{FILE}.turn")
    turn.write_bytes(b"8 bytes.")
    shell("_bus_queue=1; save_agent_state one k v")
    assert turn.read_bytes() == b"8 bytes."


@only_sqlite3
def test_who_is_stopped_with_the_turn_is_in_no_shells_way(shell: Shell) -> None:
    with open(f"{FILE}.turn", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        shell("save_agent_state one k v")


@only_sqlite3
def test_who_waited_long_for_a_turn_does_not_queue_at_once_again(shell: Shell) -> None:
    for seconds, left in ((0, 15), (3, 0)):
        waits = f"_bus_in_turn() {{ _bus_queue=15 SECONDS=$((SECONDS + {seconds})) _begin='begin immediate;'; }}"
        assert shell(f"{waits}; _bus_queue=16; save_agent_state one k v; echo $_bus_queue") == f"{left}\n"


@only_sqlite3
def test_who_is_stopped_in_a_transaction_makes_others_busy(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    impatient = r"s/^\.timeout 5000/.timeout 50/; s/ flock -w 2.5 / flock -w 0.05 /"
    _program(tmp_path, "sqlite3", f"sed '{impatient}' | {shutil.which('sqlite3')} \"$@\"")
    with contextlib.closing(sqlite3.connect(FILE, isolation_level=None)) as other, open(f"{FILE}.turn", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        other.execute("begin immediate")
        shell("save_agent_state one k v", status=75)
        assert shell("load_agent_state one k", status=1) == ""
    shell("save_agent_state one k v")


@only_sqlite3
def test_the_turnstile_is_made_for_its_owner(shell: Shell) -> None:
    turn = Path(f"{FILE}.turn")
    turn.unlink()
    shell("umask 0; _bus_queue=1; save_agent_state one k v")
    assert stat.S_IMODE(turn.stat().st_mode) == 0o600


@only_sqlite3
@pytest.mark.parametrize("option", ["posix", "noclobber"])
def test_a_turnstile_that_cant_be_opened_is_passed_by(shell: Shell, option: str) -> None:
    turn = Path(f"{FILE}.turn")
    turn.unlink()
    turn.mkdir()
    shell(f"set -o {option}; _bus_queue=1; save_agent_state one k v")


def test_posix_mode_of_bash_before_5_1_reads_the_functions() -> None:
    """It knows no process substitution: where one is not in words that are read later, the whole file is refused."""
    for file in FUNCTIONS.parent.glob("*.sh"):
        lines = re.sub(r"(?m)(^|\s)#.*", "", file.read_text()).splitlines()
        assert not [line for line in lines if re.search("[<>][(]", line) and "eval" not in line]


@only_sqlite3
def test_the_doctor_names_a_shells_process_that_is_stopped_with_the_turn(
    shell: Shell, bus: Bus, queued: Path, tmp_path: Path
) -> None:
    _program(tmp_path, "flock", f'{FLOCK} "$@"; echo "$PPID" >"{queued}"; kill -STOP "$PPID"')
    with ThreadPoolExecutor() as pool:
        saved = pool.submit(shell, "_bus_queue=1; save_agent_state one k v")
        pid = int(queued.read_text())
        while "State:\tT" not in Path(f"/proc/{pid}/status").read_text():
            os.sched_yield()
        turn = next(finding for finding in bus.doctor() if finding.subject == "turn")
        os.kill(pid, signal.SIGCONT)
        saved.result()
    assert (turn.verdict, turn.details.partition(";")[0]) == (
        "fault",
        f"process {pid} holds the turn to write and is stopped",
    )


@only_sqlite3
def test_no_lock_of_the_callers_is_taken_for_the_turn(shell: Shell) -> None:
    turn = Path(f"{FILE}.turn")
    turn.unlink()
    turn.mkdir()
    shell("exec 5>mine 6>mine; flock -s 5; _bus_queue=1; save_agent_state one k v; flock -n -s 6")


@only_sqlite3
def test_who_is_interrupted_in_the_queue_writes_nothing(shell: Shell, queued: Path, tmp_path: Path) -> None:
    _program(tmp_path, "flock", 'kill -INT "$PPID"')
    shell("_bus_queue=1; save_agent_state one k v", status=70)
    assert shell("load_agent_state one k", status=1) == ""


@only_sqlite3
def test_what_flock_says_is_no_result(shell: Shell, queued: Path, tmp_path: Path) -> None:
    _program(tmp_path, "flock", "echo waiting; echo tired >&2; exit 1")
    assert shell("_bus_queue=1; send_agent_message boss one task_assignment '{}'") == "1\n"


@only_sqlite3
@pytest.mark.parametrize(
    ("call", "words"), [("save_agent_state one k v", "may or may not"), ("load_agent_state one k", "")]
)
def test_that_sqlite3_was_killed_is_said(shell: Shell, tmp_path: Path, call: str, words: str) -> None:
    """By who ran out of memory, or of the size that a file may have. Nobody knows how far a writer came."""
    (tmp_path / "sqlite3").write_text("#!/bin/sh\nkill -KILL $$\n")
    (tmp_path / "sqlite3").chmod(0o700)
    told = shell(f'export PATH="{tmp_path}:$PATH"; {call} 2>&1 || echo $?')
    assert told.startswith("bus: sqlite3 was ended by SIGKILL")
    assert words in told
    assert told.endswith("\n70\n")


def test_a_file_that_is_mounted_without_its_folder_is_refused(shell: Shell, tmp_path: Path) -> None:
    """As by `docker run -v FILE:FILE`: the -wal file would be another one than that of those outside."""
    other = tmp_path / "a b" / "coordination.db"
    other.parent.mkdir()
    other.touch(0o600)
    container = shlex.join(after(f'mount --bind "{tmp_path / FILE}" "{other}"', "-m"))
    inside = f"""source "{FUNCTIONS}"; send_agent_message boss one task_assignment '{{}}'
    BUS_URL="{other}" send_agent_message boss one task_assignment '{{}}' 2>&1"""
    told = shell(f'{container} bash -c "$1" || echo $?', inside)
    assert re.fullmatch(r"1\nbus: .*/a b/coordination.db is mounted without its folder; .*\n66\n", told), told


def test_a_folder_that_can_not_be_listed_is_no_mount(shell: Shell, tmp_path: Path) -> None:
    weak = "setpriv --bounding-set -dac_override,-dac_read_search" if not os.geteuid() else ""
    folder = (tmp_path / FILE).parent
    folder.chmod(0o300)
    inside = f"""source "{FUNCTIONS}"; send_agent_message boss one task_assignment '{{}}'"""
    try:
        assert shell(f'{weak} bash -c "$1"', inside) == "1\n"
    finally:
        folder.chmod(0o700)


@only_sqlite3
def test_a_readlink_that_takes_one_name_will_do(shell: Shell, bus: Bus, tmp_path: Path) -> None:
    """BusyBox's prints how it is used when it is given two."""
    (tmp_path / "readlink").write_text(f'#!/bin/sh\n[ $# = 1 ] || exit 1\nexec {shutil.which("readlink")} "$1"\n')
    (tmp_path / "readlink").chmod(0o700)
    shell(f'PATH="{tmp_path}:$PATH"; register_agent three validation m s "[]" $$')
    (three,) = [agent for agent in bus.agents() if agent.agent_id == "three"]
    assert three.boot_id == liveness.boot_id()
    assert three.pid_namespace == liveness.pid_namespace()


def test_no_room_outside_the_folder_of_the_bus_is_needed(shell: Shell, tmp_path: Path) -> None:
    """As in a container whose root can only be read, without a /tmp: SQLite and bash would put large things there."""
    container = shlex.join(read_only_but_for(tmp_path))
    inside = f"""unset TMPDIR; source "{FUNCTIONS}"; export BUS_URL="{tmp_path}/{FILE}"
    value=$(printf %0250000d 7)
    save_agent_state one k "$value" && [[ $(load_agent_state one k) == "$value" ]] || exit
    for _ in 1 2 3; do send_agent_message boss one task_assignment "{{\\"title\\": \\"$value\\"}}" || exit; done
    get_agent_messages one true | jq length"""
    assert shell(f'{container} bash -c "$1"', inside) == "1\n2\n3\n3\n"


@only_sqlite3
def test_the_wal_stays_small(shell: Shell) -> None:
    shell(
        """
        value=$(printf '%01000000d' 7)
        for n in {1..16}; do save_agent_state one "k$n" "$value"; done
        """
    )
    assert Path(f"{FILE}-wal").stat().st_size < 7 << 20
    assert FILE.stat().st_size > 8 << 20


@only_sqlite3
def test_the_wal_is_checkpointed_also_where_each_write_is_in_a_subshell(shell: Shell) -> None:
    """What is counted there does not stay. In one of sixteen, more or less: the pids are what they are."""
    script = f"""
        save_agent_state one k "$(printf '%0600000d' 7)"
        for n in {{1..999}}; do
          (save_agent_state one k v)
          (($(stat -c %s {FILE}) < 600000)) || break
        done
    """
    shell(script)
    assert FILE.stat().st_size > 600_000


@only_sqlite3
def test_a_checkpoint_that_cant_be_made_is_no_result(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    failing = "case $* in *wal_checkpoint*) echo no; echo never >&2; kill -KILL $$; esac"
    _program(tmp_path, "sqlite3", f'{failing}; exec {shutil.which("sqlite3")} "$@"')
    script = """
        save_agent_state one k "$(printf '%0600000d' 7)"
        send_agent_message boss one task_assignment "{\\"title\\": \\"$(printf '%070000d' 7)\\"}"
    """
    assert shell(script) == "1\n"
    assert FILE.stat().st_size < 600_000


@only_sqlite3
def test_who_checkpoints_lets_nobody_write(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    real = shutil.which("sqlite3")
    script = f"""
        for word do
          shift
          case $word in *wal_checkpoint*) word=".system {real} \\"$BUS_FILE\\" 'begin immediate' 2>said"; esac
          set -- "$@" "$word"
        done
        cd "{tmp_path}"
        exec {real} "$@"
    """
    _program(tmp_path, "sqlite3", script)
    shell('for n in 600000 70000; do save_agent_state one k "$(printf %0${n}d 7)"; done')
    assert "database is locked" in (tmp_path / "said").read_text()


@only_sqlite3
def test_a_checkpoint_is_made_under_an_odd_name(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a b\"c'd\\n\\\ne\r\nf$g"
    shutil.copytree(FILE.parent, odd)
    monkeypatch.setenv("BUS_URL", str(odd / FILE.name))
    shell('for n in 600000 70000; do save_agent_state one k "$(printf %0${n}d 7)"; done')
    assert (odd / FILE.name).stat().st_size > 600_000


@only_sqlite3
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Runtime error near line 5: database is locked (5)", 75),
        ("Runtime error near line 5: database or disk is full (13)", 75),
        ("Error: stepping, database or disk is full (13)", 75),
        ("Parse error near line 5: database disk image is malformed (11)", 70),
        ("Error: in prepare, file is not a database (26)", 66),
        ('Error: unable to open database "x": unable to open database file', 66),
        ("Runtime error near line 5: attempt to write a readonly database (8)", 66),
        ("Runtime error near line 5: disk I/O error (10)", 70),
        ("x: line 5: cannot create temp file for here-document: No space left on device", 75),
        ("Runtime error near line 5: lease_lost (19)", 76),
        ("Runtime error near line 5: CHECK constraint failed: invalid_priority (19)", 65),
        ("Runtime error near line 5: cannot store TEXT value in INTEGER column agent_messages.priority (19)", 65),
        ("Runtime error near line 5: NOT NULL constraint failed: agent_registry.agent_type (19)", 65),
        ("Error near line 5 of messages/ack.sql: lease_lost", 76),
        ("Error near line 5: database is locked", 75),
        ("Error near line 5: UNIQUE constraint failed: agent_registry.agent_id", 65),
        ("Parse error near line 5: malformed database schema (taking) - near x: syntax error (11)", 70),
        ("Parse error near line 5: no such table: agent_messages (1)", 70),
        ("1|one\nno words of sqlite3 at all", 70),
        ("", 70),
    ],
)
def test_what_sqlite3_says_becomes_a_status(shell: Shell, line: str, status: int) -> None:
    assert shell('_bus_file=x; _bus_explain "$1"', line, status=status) == ""


@only_sqlite3
@pytest.mark.parametrize(
    "said", ["Runtime error near line 5: database is locked (5)", "Error near line 5: database is locked"]
)
def test_who_finds_the_bus_busy_queues(shell: Shell, said: str) -> None:
    script = '_begin=$2 _bus_file=x; if _bus_failed "$1"; then echo "$_bus_queue"; fi 2>&1'
    assert shell(script, said, ".timeout 3") == "16\n"
    assert shell(script, said, "begin;").startswith("bus: the bus is busy")


@pytest.mark.parametrize(("option", "kept"), [("-f", "off\n"), ("+f", "on\n")])
def test_the_globbing_of_a_caller_stays_as_it_is(shell: Shell, option: str, kept: str) -> None:
    script = 'set "$1"; get_agent_messages one >/dev/null; if [[ $- == *f* ]]; then echo off; else echo on; fi'
    assert shell(script, option) == kept


def test_sqlite3_gets_its_sql_behind_the_file() -> None:
    """With -bail, sqlite3 3.53 ends after the SQL of a -cmd."""
    assert [path.name for path in FUNCTIONS.parent.glob("*.sh") if " -cmd " in path.read_text()] == []


@only_sqlite3
def test_what_sqlite3_says_of_a_statement_is_told_not_where_it_points_at(shell: Shell) -> None:
    said = "1|one\nParse error near line 5: no such table: agent_messages\n  select 1\n  ^--- error here"
    assert "no such table: agent_messages;" in shell('_bus_explain "$1" 2>&1 || (($? == 70))', said)
