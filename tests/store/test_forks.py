"""Processes that fork while they have a bus open."""

import subprocess
import sys
from pathlib import Path

import pytest

from bus import Bus


def output(code: str, *arguments: object, warn: str = "ignore") -> str:
    command = [sys.executable, "-W", warn, "-c", code, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def test_a_child_whose_parent_has_ended_loses_nothing(url: str) -> None:
    code = """
import os, subprocess, sys
from bus import Bus
url = sys.argv[1]
bus = Bus.open(url)
bus.register("a", type="validation", session="s")
ended, parent = os.pipe()
if os.fork():
    os._exit(0)
os.close(parent)
os.read(ended, 1)
another = "import sys; from bus import Bus"
another += "\\nwith Bus.open(sys.argv[1]) as bus: print(bus.send('a', 'a', 'task_assignment', {}), flush=True)"
for _ in range(2):
    print(bus.send("a", "a", "task_assignment", {}), flush=True)
    subprocess.run([sys.executable, "-c", another, url], check=True)
"""
    assert output(code, url).split() == ["1", "2", "3", "4"]
    with Bus.open(url) as bus:
        assert bus.status()["messages"] == {"ready": 4}


def test_a_fork_waits_for_the_transaction_of_another_thread(url: str) -> None:
    code = """
import os, sys, threading
from bus import Bus
from bus.operation import Operation
from bus.store import sqlite
sqlite.TIMEOUT = 1.0
inside, end = threading.Event(), threading.Event()

def steps():
    inside.set()
    end.wait()
    return None
    yield

bus = Bus.open(sys.argv[1])
bus.register("a", type="validation", session="s")
at_work = threading.Thread(target=bus.store.run, args=(Operation(steps, True),))
at_work.start()
inside.wait()
os.register_at_fork(before=end.set)
if not (child := os.fork()):
    bus.send("a", "a", "task_assignment", {})
    os._exit(0)
print(os.waitpid(child, 0)[1], bus.send("a", "a", "task_assignment", {}))
"""
    assert output(code, url) == "0 2\n"


def test_a_bus_in_memory_is_copied_though_other_threads_are_at_work() -> None:
    """Their locks would stay locked in the child."""
    code = """
import os, signal, threading
from bus import Bus
bus = Bus.open(":memory:", create=True)
bus.register("a", type="validation", session="s")
end = threading.Event()

def send():
    while not end.is_set():
        bus.send("a", "b", "task_assignment", {})

def receive():
    while not end.is_set():
        bus.receive("a", wait=0.001)

threads = [threading.Thread(target=at) for at in (send, receive, receive)]
for thread in threads:
    thread.start()
ends = []
for _ in range(20):
    if not (child := os.fork()):
        signal.alarm(10)
        bus.send("a", "a", "task_assignment", {})
        os._exit(len(bus.receive("a", wait=5)))
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
end.set()
print(ends == [1] * 20)
"""
    assert output(code) == "True\n"


def test_a_fork_waits_for_who_closes(url: str) -> None:
    """A thread that ends closes what it had, and may be in the middle of SQLite."""
    code = """
import os, sys, threading
closing, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)  # the first to be registered is the last to be called
from bus import Bus
from bus.store.sqlite import Connection
close = Connection._close
done = []

def slowly(connection):
    closing.set()
    forking.wait(0.2)
    close(connection)
    done.append("closed")

bus = Bus.open(sys.argv[1])
bus.register("a", type="validation", session="s")
Connection._close = slowly
threading.Thread(target=bus.state_load, args=("a", "k")).start()
closing.wait()
Connection._close = close
if not (child := os.fork()):
    print(done, bus.send("a", "a", "task_assignment", {}), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert output(code, url) == "['closed'] 1\n"


def test_a_parent_goes_on_and_what_was_closed_stays_closed(url: str, tmp_path: Path) -> None:
    code = """
import os, sys
from bus import Bus, BusError
bus = Bus.open(sys.argv[1])

def fork():
    if not (child := os.fork()):
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

fork()
bus.backup(sys.argv[2])
fork()
bus.prune()
fork()
connection = bus.store.connection()
connection.close()
fork()
try:
    bus.agents()
except BusError as problem:
    print(problem.code)
"""
    assert output(code, url, tmp_path / "copy.db") == "closed\n"
    assert (tmp_path / "copy.db").stat().st_size > 0


def test_a_thread_that_waits_while_another_forks_still_hears_of_what_other_programs_write(url: str) -> None:
    code = """
import os, subprocess, sys, threading, time
from bus import Bus
bus = Bus.open(sys.argv[1])
bus.register("a", type="validation", session="s")
waiting = threading.Thread(target=lambda: print(len(bus.receive("a", wait=15)), time.monotonic() < end), daemon=True)
end = time.monotonic() + 14
waiting.start()
while not bus.store.asleep:
    time.sleep(0.01)
if not (child := os.fork()):
    os._exit(0)
os.waitpid(child, 0)
hand = "import sqlite3, sys; hand = sqlite3.connect(sys.argv[1]); hand.execute(sys.argv[2]); hand.commit()"
columns = "session_id, from_agent, to_agent, message_type, payload"
insert = f"insert into agent_messages ({columns}) values ('s', 'hand', 'a', 'task_assignment', '{{}}')"
subprocess.run([sys.executable, "-c", hand, sys.argv[1], insert], check=True)
waiting.join()
"""
    assert output(code, url) == "1 True\n"


def test_a_child_is_not_warned_of_its_parents_connection(postgres: str) -> None:
    code = """
import gc, os, sys
from bus import Bus
with Bus.open(sys.argv[1], create=True) as bus:
    bus.state_save("a", "k", "v")
    if not (child := os.fork()):
        os.dup2(1, 2)
        print(bus.state_load("a", "k"), flush=True)
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    print(bus.state_load("a", "k"))
"""
    assert output(code, postgres, warn="default") == "v\nv\n"


def test_a_fork_in_a_signal_handler_in_the_middle_of_a_call_leaves_that_alone(url: str) -> None:
    code = """
import os, signal, sys
from bus import Bus
from bus.operation import Operation, Query

def fork(*_):
    if not (child := os.fork()):
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

def steps():
    os.kill(os.getpid(), signal.SIGUSR1)
    return (yield Query("recovery/check", {}))

signal.signal(signal.SIGUSR1, fork)
bus = Bus.open(sys.argv[1])
for how in (Operation(steps, False), Operation(steps, False, single=True), Operation(steps, True)):
    print(*bus.store.run(how)[0])
"""
    assert output(code, url) == "ok\nok\nok\n"


@pytest.mark.parametrize("place", ["url", "postgres"])
def test_a_child_is_refused_the_async_bus_of_its_parent(request: pytest.FixtureRequest, place: str) -> None:
    """It has not the threads on which that works, and two processes can't use one connection to a server."""
    code = """
import asyncio, os, sys
from bus import AsyncBus, Bus

def told(call):
    try:
        return asyncio.run(asyncio.wait_for(call(), 5))
    except Exception as problem:
        return getattr(problem, "code", problem)

Bus.open(sys.argv[1], create=True).close()
bus = asyncio.run(AsyncBus.open(sys.argv[1]))
if not (child := os.fork()):
    print(told(bus.agents), told(bus.agents), told(lambda: bus.receive("a", wait=1)), told(bus.close), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(told(bus.agents), told(bus.agents), told(bus.close))
"""
    assert output(code, request.getfixturevalue(place)) == "closed closed closed None\n[] [] None\n"
