"""What a servable can be called, that ports are open only when it answers, and what commands say to type next."""

import re
import shlex
import socket
import threading

import pytest
from tiny_servable import joined, write_tiny
from typer.testing import CliRunner

from tfebr import cli
from tfebr.client.client import Client
from tfebr.client.sharded_client import ShardedClient
from tfebr.command_line import say_next
from tfebr.errors import ConfigError, RequestError
from tfebr.publishing.publish import export, export_shards, refresh
from tfebr.servable.folders import check_name, only_servable
from tfebr.server import versions as versions_module
from tfebr.server.loaded import Model
from tfebr.server.server import Server

BAD = ["", "a/b", "..", ".", ".hidden", "a:b", "a b", "-x", "a\n", "a\0", "x" * 201, "é" * 101, "a'b", "$(a)", "a%2Fb"]
GOOD = ["dpsr", "5", "a.b-c_d", "Größe", "靴", "_x", "x" * 200]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("names") / "shop"
    write_tiny(base / "3", mark=3)
    return base


def command(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_is_refused_wherever_one_is_given(tiny_run, base, name, tmp_path):
    asks = [
        lambda: check_name(name),
        lambda: export(tiny_run.path, name),
        lambda: export_shards(tiny_run.path, 2, name),
        lambda: refresh(tiny_run.path, tmp_path, name),
        lambda: Server(base, name, rest_port=0, grpc_port=0),
    ]
    for ask in asks:
        with pytest.raises(ConfigError, match="`name` must be made of letters"):
            ask()
    (tmp_path / "servable" / "one").mkdir(parents=True)
    for arguments in (
        ["export", tiny_run.path, "--name", name],
        ["refresh", tiny_run.path, tmp_path, "--name", name],
        ["serve", tmp_path, "--name", name],
        ["versions", tmp_path, "--name", name],
        ["versions", base, "--name", name],
        ["query", "lamp", "--name", name],
    ):
        found = command(*arguments)
        assert isinstance(found.exception, ConfigError), (arguments, found.output)
        assert "`name` must be made of letters" in str(found.exception)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_taken_as_it_is(name):
    assert check_name(name) == name


def test_a_name_says_which_servable_of_a_run(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "servable" / name).mkdir(parents=True)
    assert only_servable(tmp_path, "serve", "two") == tmp_path / "servable" / "two"
    found = command("versions", tmp_path, "--name", "three")
    assert "holds no servable `three`. There are: one, two." in str(found.exception)


def test_requests_call_the_model_what_the_server_was_told(base):
    with Server(base, "靴", rest_port=0, grpc_port=0) as server:
        for target, protocol in ((server.rest_url, "rest"), (server.grpc_target, "grpc")):
            with Client(target, "靴", protocol) as client:
                assert client.query("lamp")[0].ids[0] == joined("lamp")


def test_the_only_model_is_asked_whatever_its_name(base):
    with Server(base, rest_port=0, grpc_port=0) as server:
        for target, protocol in ((server.rest_url, "rest"), (server.grpc_target, "grpc")):
            with Client(target, protocol=protocol) as client:
                assert client.query("lamp")[0].ids[0] == joined("lamp")
            with ShardedClient([target, target], protocol=protocol) as client:
                assert client.query("lamp")[0].ids[0] == joined("lamp")
        for arguments in (["--server", server.rest_url], ["--server", server.grpc_target, "--grpc"]):
            found = command("query", "lamp", *arguments)
            assert found.exit_code == 0, found.output
            assert joined("lamp") in found.output


def test_a_server_that_does_not_tell_its_models(base, monkeypatch):
    """TensorFlow Serving answers 400 to a status without a name, and INVALID_ARGUMENT to metadata without one."""
    from tfebr.server import grpc_service, rest

    monkeypatch.setattr(rest, "_LIST", re.compile("never"))
    real = grpc_service._spec
    monkeypatch.setattr(grpc_service, "_spec", lambda spec, unnamed=None: real(spec))
    with Server(base, rest_port=0, grpc_port=0) as server:
        for target, protocol in ((server.rest_url, "rest"), (server.grpc_target, "grpc")):
            with (
                Client(target, protocol=protocol) as client,
                pytest.raises(RequestError, match="Give the model's name"),
            ):
                client.query("lamp")


def test_an_empty_name_is_none():
    for make in (lambda: Client("a:1", ""), lambda: ShardedClient(["a:1"], "")):
        with pytest.raises(ConfigError, match="`name` must be"):
            make()


def test_ports_are_open_only_when_the_model_answers(base, monkeypatch):
    loading, go_on = threading.Event(), threading.Event()

    def slow(folder, version):
        loading.set()
        go_on.wait(60)
        return Model(folder, version)

    monkeypatch.setattr(versions_module, "Model", slow)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"rest_port": one.getsockname()[1], "grpc_port": other.getsockname()[1]}
    servers = []
    thread = threading.Thread(target=lambda: servers.append(Server(base, **ports)))
    thread.start()
    try:
        assert loading.wait(60)
        for port in ports.values():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
    finally:
        go_on.set()
        thread.join()
    (server,) = servers
    with server:
        for port in ports.values():
            socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.parametrize("path", ["a b/run", "it's", "run[bold]", "a\\b", "$HOME", "ünï", "plain", 'two "quotes"'])
def test_the_next_command_can_be_typed(path, capsys):
    say_next("tfebr", "train", path, "run")
    printed = capsys.readouterr().out
    assert printed.startswith("next: ")
    assert shlex.split(printed.removeprefix("next: ")) == ["tfebr", "train", path, "run"]
