"""The clients and shell lines run as a user would run them, against the local server."""

import base64
import importlib
import json
import os
import runpy
import shutil
import stat
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
from toy_servable import COLUMNS, QUESTIONS, ToyIntent, toy_servable

from tfebr.client.client import Client
from tfebr.servable import kit
from tfebr.servable.write import write
from tfebr.server.server import Server

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

CLIENTS = Path(__file__).parents[2] / "export" / "clients"
# grpcurl as far as the script uses it: the request is built by the protoset and sent by a real client.
GRPCURL = """#!{python}
import json, sys
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
arguments = sys.argv[1:]
value = lambda flag: arguments[arguments.index(flag) + 1]
assert "-plaintext" in arguments
pool = descriptor_pool.DescriptorPool()
for file in descriptor_pb2.FileDescriptorSet.FromString(open(value("-protoset"), "rb").read()).file:
    pool.Add(file)
service, method = arguments[-1].split("/")
call = pool.FindServiceByName(service).FindMethodByName(method)
request = json_format.Parse(value("-d"), message_factory.GetMessageClass(call.input_type)())
with grpc.insecure_channel(arguments[-2]) as channel:
    answer = channel.unary_unary("/" + arguments[-1])(request.SerializeToString(), timeout=float(value("-max-time")))
response = message_factory.GetMessageClass(call.output_type).FromString(answer)
print(json.dumps(json_format.MessageToDict(response, preserving_proto_field_name=True)))
"""
REST = '"user_age": "", "history_items": [""], "prices": [0, 0, 0]'


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {})
        servable = toy_servable(columns=COLUMNS, intent=ToyIntent())
        return write(servable, tmp_path_factory.mktemp("clients") / "toy", {}, [*QUESTIONS, {"query": ["a"], "filter": [["brand=LG"]]}])


@pytest.fixture(scope="module")
def server(version):
    with Server(version.parent, rest_port=0, grpc_port=0) as server:
        yield server


@pytest.fixture(scope="module")
def expected(server):
    """What this package's client, tested elsewhere, finds."""
    with Client(server.rest_url, "toy") as client:
        found = client.query("led lamp", k=9)[0]
        rest = client.query("led lamp", k=5, exclude=found.ids[:2], filter=["brand=LG|brand=Sony"])[0]
        assert (len(found.ids), len(rest.ids)) == (9, 5)
        yield found, rest


@pytest.fixture(scope="module")
def rest_client():
    return runpy.run_path(str(CLIENTS / "rest_client.py"))["RestClient"]


def test_the_plain_client_searches(server, expected, rest_client):
    client = rest_client(server.rest_url, "toy")
    assert client.available() == [1]
    found, rest = expected
    assert [i for i, _ in client.search("led lamp", k=9)] == found.ids
    assert [s for _, s in client.search("led lamp", k=9)] == pytest.approx(found.scores)
    assert [i for i, _ in client.search("led lamp", k=5, exclude=found.ids[:2], filters=["brand=LG|brand=Sony"])] == rest.ids
    with Client(server.rest_url, "toy") as other:
        liked = other.query("led lamp", k=9, history=["sku-4"])[0].ids
    assert liked != found.ids
    assert [i for i, _ in client.search("led lamp", k=9, history_items=["sku-4"])] == liked


def test_the_plain_client_asks_every_signature(server, rest_client):
    client = rest_client(server.rest_url, "toy")
    assert set(client.signatures()) == {"serving_default", "search", "embed_query", "embed_items", "attributes"}
    with Client(server.rest_url, "toy") as other:
        # Lists of different lengths in one request.
        rows = [{"query": "a"}, {"query": "b", "history_items": ["sku-4", "sku-5"]}]
        for signature in ("serving_default", "embed_query"):
            theirs = other.predict(signature, query=["a", "b"], history_items=[[], ["sku-4", "sku-5"]])
            ours = client.predict(signature, rows)
            for name, values in theirs.items():
                for row, value in zip(ours, values.tolist(), strict=True):
                    assert row[name] == (pytest.approx(value, rel=1e-5) if name == "scores" else _near(value))
        (found,) = client.predict("embed_items", [{"title": "lamp"}])
        assert found["embedding"] == pytest.approx(other.predict("embed_items", title=["lamp"])["embedding"][0].tolist())
        assert client.predict("attributes", [{"item_ids": "sku-1"}])[0]["brand"] == "LG"
    with pytest.raises(ValueError, match="signature `search` has no input `colour`; it has automatic, exclude"):
        client.search("a", colour="red")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        rest_client(server.rest_url, "another").available()


def _near(value):
    return value if not isinstance(value, list) or isinstance(value[0], str) else [pytest.approx(row, rel=1e-5) for row in value]


def _run(*command, **environment):
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_the_plain_client_is_a_program_that_needs_only_python(server, expected):
    # -I -S: no installed package can be found.
    ask = [sys.executable, "-I", "-S", str(CLIENTS / "rest_client.py"), "toy", "led lamp"]
    excluded = [word for item_id in expected[0].ids[:2] for word in ("--exclude", item_id)]
    ended = _run(*ask, "--server", server.rest_url, "--k", "5", *excluded, "--filter", "brand=LG|brand=Sony")
    assert [line.split()[1] for line in ended.stdout.splitlines()] == expected[1].ids, ended.stderr
    for address, said in ((server.rest_url + "/nowhere", "HTTP Error 404"), ("http://127.0.0.1:9", "no answer")):
        ended = _run(*ask, "--server", address)
        assert ended.returncode == 1
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_this_packages_client(server, expected, protocol, capsys):
    main = runpy.run_path(str(CLIENTS / "tfebr_client.py"))["main"]
    address = server.grpc_target if protocol == "grpc" else server.rest_url
    assert main(["toy", "led lamp", address, *(["--grpc"] if protocol == "grpc" else [])]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()][:9] == expected[0].ids
    assert main(["another", "led lamp", address]) == 1
    assert main(["toy"]) == 2


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_curl_lines(server, expected):
    settings = {"MODEL": "toy", "SERVER": server.rest_url, "REST": REST, "ITEM": '"title": "lamp"', "QUERY": "led lamp", "K": "5"}
    settings["EXCLUDE"] = ", ".join(f'"{item_id}"' for item_id in expected[0].ids[:2])
    settings["FILTER"] = '"filter": ["", "brand=LG|brand=Sony"], "automatic": false'
    ask = ["sh", str(CLIENTS / "curl.sh")]
    (found,) = json.loads(_run(*ask, "search", **settings).stdout)["predictions"]
    assert found["ids"][: found["num_results"]] == expected[1].ids
    (found,) = json.loads(_run(*ask, "default", **settings).stdout)["predictions"]
    assert found["ids"][:9] == expected[0].ids
    ended = _run(*ask, **settings)
    assert ended.returncode == 0, ended.stderr
    for said in ('"AVAILABLE"', '"signature_def"', '"brand"', ":tensorflow:serving:request_count"):
        assert said in ended.stdout
    assert ended.stdout.count('"predictions"') == 4, "serving_default, search, embed_query and embed_items"
    ended = _run(*ask, "search", **settings | {"FILTER": ""})
    assert ended.returncode != 0
    assert "filter" in ended.stdout, "the server's own words: an input is missing"


def test_the_grpcurl_lines(server, version, expected, tmp_path):
    program = tmp_path / "grpcurl"
    program.write_text(GRPCURL.replace("{python}", sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    settings = {"MODEL": "toy", "SERVER": server.grpc_target, "PROTOSET": str(version / kit.PROTOSET), "QUERY": "led lamp", "K": "5"}
    settings |= {"TEXTS": "user_age", "LISTS": "history_items", "ITEM_TEXTS": "", "FILTER": "brand=LG|brand=Sony"}
    settings["OTHERS"] = ', "prices": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": 1}, {"size": 3}]}, "float_val": [0, 0, 0]}'
    settings |= {"EXCLUDE": " ".join(expected[0].ids[:2]), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = _run("sh", str(CLIENTS / "grpcurl.sh"), **settings)
    assert ended.returncode == 0, ended.stderr
    default, search, query, items = [json.loads(line)["outputs"] for line in ended.stdout.splitlines()]
    assert default["ids"]["string_val"][:9] == [_coded(item_id) for item_id in expected[0].ids]
    assert search["ids"]["string_val"] == [_coded(item_id) for item_id in expected[1].ids]
    assert query.keys() == items.keys() == {"embedding"}


def _coded(text):
    return base64.b64encode(text.encode()).decode()
