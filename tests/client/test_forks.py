"""Clients in processes that were forked or started while they were in use: every answer is the asker's own, and none is late."""

import contextlib
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
import traceback

import pytest
from tiny_servable import joined, write_tiny

from tfebr.client.client import Client
from tfebr.client.forks import CallGate, PerProcess
from tfebr.client.sharded_client import ShardedClient

FORKS, QUESTIONS = 4, 30
SECONDS = 60


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Of a server in a process of its own: a fork must not take a server along."""
    base = tmp_path_factory.mktemp("forks") / "shop"
    write_tiny(base / "3", mark=3)
    command = [sys.executable, "-m", "tfebr.cli", "serve", str(base), "--rest-port", "0", "--grpc-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        said = process.stdout.readline()
        yield {"rest": re.search(r"http://[\d.:]+", said)[0], "grpc": re.search(r"gRPC ([\d.:]+)", said)[1]}
        process.terminate()


def client_of(kind, addresses):
    if kind == "sharded":
        return ShardedClient([Client(addresses["rest"], "shop"), Client(addresses["rest"], "shop")])
    return Client(addresses[kind], "shop", kind)


def ask(client, who):
    """Questions that nobody else asks, each with its own answer."""
    for number in range(QUESTIONS):
        text = f"{who} {number}"
        (result,) = client.query(text)
        assert result.ids[0] == joined(text), f"{text!r} got {result.ids[0]!r}"


def end_of(children):
    """The exit codes, in order; a child that hangs is killed, and its code is the signal."""
    end, codes = time.monotonic() + SECONDS, {}
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    codes[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > end:
                    os.kill(child, 9)
        time.sleep(0.01)
    return [codes[child] for child in children]


def forked(run):
    """Forks, and has the child do nothing but `run`; returns the child's id."""
    child = os.fork()
    if child == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


@pytest.mark.parametrize("kind", ["rest", "grpc", "sharded"])
def test_a_client_that_was_used_before_a_fork(addresses, kind):
    """All ask at the same time: on one connection, one would read what another one was told."""
    with client_of(kind, addresses) as client:
        ask(client, "before")
        children = [forked(lambda number=number: ask(client, f"child {number}")) for number in range(FORKS)]
        ask(client, "parent")
        assert end_of(children) == [0] * FORKS
        ask(client, "after")


@pytest.mark.parametrize("kind", ["rest", "grpc", "sharded"])
def test_forks_while_other_threads_ask(addresses, kind):
    """Locks that another thread holds at the moment of the fork are never let go in the child."""
    stop, faults = threading.Event(), []

    def go_on(number):
        try:
            while not stop.is_set():
                ask(client, f"thread {number}")
        except Exception as error:
            faults.append(error)

    with client_of(kind, addresses) as client:
        threads = [threading.Thread(target=go_on, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            children = []
            for number in range(FORKS):
                ask(client, f"main {number}")
                children.append(forked(lambda number=number: ask(client, f"child {number}")))
            codes = end_of(children)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert codes == [0] * FORKS
    assert not faults


@pytest.mark.parametrize(("start", "kind"), [("fork", "rest"), ("fork", "grpc"), ("fork", "sharded"), ("spawn", "sharded")])
def test_a_client_is_handed_to_processes(addresses, kind, start):
    context = multiprocessing.get_context(start)
    with client_of(kind, addresses) as client:
        ask(client, "before")
        # A new process imports TensorFlow with this file, which takes seconds.
        processes = [context.Process(target=ask, args=(client, f"process {number}")) for number in range(2 if start == "fork" else 1)]
        for process in processes:
            process.start()
        ask(client, "parent")
        for process in processes:
            process.join(SECONDS)
    assert {process.exitcode for process in processes} == {0}


def test_a_child_closes_its_copies_of_the_connections(addresses):
    """Else the server would hold a connection open for as long as any child lives."""
    with Client(addresses["rest"], "shop") as client:
        client.query("lamp")
        (kept,) = client._transport._idle.get()
        number = kept.sock.fileno()

        def run():
            client.query("lamp")
            with contextlib.suppress(OSError):
                assert os.fstat(number).st_ino != inode, "the inherited connection is still open"

        inode = os.fstat(number).st_ino
        assert end_of([forked(run)]) == [0]
        client.query("lamp")
        assert client._transport._idle.get()[0] is kept


def test_a_value_is_one_in_a_process_and_another_in_a_child():
    made = PerProcess(list, list.clear)
    here = made.get()
    here.append("parent")
    assert made.get() is here

    def run():
        assert made.made() is None
        assert made.get() == []
        assert made.get() is made.get()
        assert here == [], "what was inherited is closed"

    assert end_of([forked(run)]) == [0]
    assert here == ["parent"]


def test_a_fork_waits_for_calls_under_way_but_not_for_ever():
    gate, inside, leave = CallGate(seconds=0.2), threading.Event(), threading.Event()

    def call():
        with gate.call():
            inside.set()
            leave.wait(SECONDS)

    def run():
        assert gate.broken
        with gate.call():
            pass

    thread = threading.Thread(target=call)
    thread.start()
    inside.wait(SECONDS)
    child = forked(run)
    leave.set()
    thread.join()
    assert end_of([child]) == [0]
    assert not gate.broken
    assert end_of([forked(lambda: None if not gate.broken else os._exit(2))]) == [0]
