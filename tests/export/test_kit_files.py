"""The files for Docker and Kubernetes: they parse, fit each other and the kit beside a version, and say what was not run."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from tfebr.servable import kit
from tfebr.server import prometheus as metrics

EXPORT = Path(__file__).parents[2] / "export"
YAML = ["docker/docker-compose.yml", "kubernetes/model.yaml", "kubernetes/shards.yaml"]
_KEY = re.compile(r'([\w./-]+|"[^"]+"):(?: (.*))?$')


def _documents(text):
    """The documents of the YAML that these files are written in: blocks by indentation, and one-line flow lists and mappings."""
    for document in re.split(r"^---$", text, flags=re.MULTILINE):
        lines = [re.sub(r"(^|\s{6})#.*", "", line).rstrip() for line in document.splitlines() if not line.lstrip().startswith("#")]
        lines = [line for line in lines if line]
        assert not any("\t" in line for line in lines)
        value, rest = _block(lines, 0)
        assert not rest, f"not read: {rest[0]!r}"
        yield value


def _depth(line):
    return len(line) - len(line.lstrip())


def _block(lines, depth):
    if lines[0].lstrip().startswith("- "):
        items = []
        while lines and _depth(lines[0]) == depth and lines[0].lstrip().startswith("- "):
            first = lines[0].lstrip()[2:]
            if _KEY.match(first):
                item, lines = _block([" " * (depth + 2) + first, *lines[1:]], depth + 2)
            else:
                item, lines = _scalar(first), lines[1:]
            items.append(item)
        return items, lines
    found = {}
    while lines and _depth(lines[0]) == depth:
        match = _KEY.match(lines[0].lstrip())
        assert match, f"no key: {lines[0]!r}"
        key, value, lines = match[1].strip('"'), match[2], lines[1:]
        assert key not in found, f"twice: {key}"
        if value is not None:
            found[key] = _scalar(value)
        else:
            deeper = _depth(lines[0]) > depth or lines[0].lstrip().startswith("- ")
            assert deeper, f"nothing below {key}"
            found[key], lines = _block(lines, _depth(lines[0]))
    return found, lines


def _scalar(text):
    if text[0] not in "[{":
        return json.loads(_as_json(text))
    tokens = re.findall(r'"[^"]*"|[\[\]{},]|: |[^\[\]{},":]+', text)
    return json.loads("".join(token if token in "[]{},: " else _as_json(token.strip()) if token.strip() else "" for token in tokens))


def _as_json(word):
    return word if word[0] == '"' or word in ("true", "false") or word.isdecimal() else json.dumps(word)


def read(name):
    return list(_documents((EXPORT / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", YAML)
def test_the_yaml_is_read_the_same_by_others(name):
    documents = read(name)
    if importlib.util.find_spec("yaml"):
        yaml = importlib.import_module("yaml")
        assert documents == list(yaml.safe_load_all((EXPORT / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [*YAML, "docker/Dockerfile.scann", "README.md"])
def test_it_says_what_was_not_run(name):
    assert re.search("not run", (EXPORT / name).read_text(encoding="utf-8"), re.IGNORECASE)


def test_the_two_services_serve_what_they_mount():
    (compose,) = read("docker/docker-compose.yml")
    ports = []
    for name, service in compose["services"].items():
        model = service["environment"]["MODEL_NAME"]
        folder, config = service["volumes"]
        assert folder.endswith(f"/{model}:/models/{model}:ro")
        assert config == "./monitoring.config:/etc/tfebr/monitoring.config:ro"
        assert "--monitoring_config_file=/etc/tfebr/monitoring.config" in service["command"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "nobody but this machine, as `tfebr serve`"
        assert sorted(port.rsplit(":", 1)[1] for port in service["ports"]) == ["8500", "8501"]
        ports += [port.rsplit(":", 1)[0] for port in service["ports"]]
        assert ("scann" in service["image"].lower()) == (name == "scann")
    assert len(set(ports)) == 4


def test_the_monitoring_config_is_one_and_has_the_local_servers_path():
    text = (EXPORT / "docker" / "monitoring.config").read_text(encoding="utf-8")
    # No generated module of this message is published.
    assert re.fullmatch(rf'(#.*\n)*prometheus_config {{\n  enable: true\n  path: "{metrics.PATH}"\n}}\n', text)


def test_the_kit_that_the_files_name_is_written():
    for name in (*YAML, "README.md", "clients/grpcurl.sh"):
        for file in re.findall(r"assets\.extra/[\w.]+", (EXPORT / name).read_text(encoding="utf-8")):
            assert file in (kit.MODELS, kit.BATCHING, kit.PROTOSET, kit.CLIENT, "assets.extra/manifest.json", "assets.extra/recall.png")


def _containers(documents):
    return [doc["spec"]["template"]["spec"]["containers"][0] for doc in documents if doc["kind"] != "Service"]


@pytest.mark.parametrize("name", YAML[1:])
def test_a_workload_fits_its_service(name):
    service, workload = read(name)
    template = workload["spec"]["template"]
    assert service["kind"] == "Service"
    assert service["spec"]["selector"] == workload["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert all(mount["readOnly"] is True for mount in container["volumeMounts"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe].keys() & {"httpGet", "grpc"}
    uses_grpc = any("grpc" in container[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe"))
    assert ("--enable_grpc_healthcheck_service=true" in container["args"]) == uses_grpc


def test_the_probe_asks_for_the_model_that_is_served():
    (container,) = _containers(read("kubernetes/model.yaml"))
    (model,) = [variable["value"] for variable in container["env"] if variable["name"] == "MODEL_NAME"]
    assert container["readinessProbe"]["httpGet"] == {"path": f"/v1/models/{model}/metadata", "port": "rest"}


def test_the_pods_of_the_shards_have_the_models_names():
    service, workload = read("kubernetes/shards.yaml")
    assert workload["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    (container,) = _containers([workload])
    (variable,) = container["env"]
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    text = (EXPORT / "kubernetes" / "shards.yaml").read_text(encoding="utf-8")
    model = workload["metadata"]["name"].removesuffix("-shard")
    # The client asks NAME-shard-I, which is what the pod is called that its I-th address is for.
    assert f'f"{model}-shard-{{i}}.{service["metadata"]["name"]}:8500" for i in range({workload["spec"]["replicas"]})' in text
    assert f'ShardedClient(shards, "{model}"' in text
    assert f"--name {model} --shards {workload['spec']['replicas']}" in text


def test_the_image_links_both_op_libraries_of_the_models():
    text = (EXPORT / "docker" / "Dockerfile.scann").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    steps = [line.split(None, 1) for line in lines if line.strip()]
    assert {step for step, _ in steps} <= {"ARG", "FROM", "WORKDIR", "RUN", "COPY"}
    for step, rest in steps:
        if step == "RUN":
            shlex.split(rest)
    edit = re.search(r"s\|(\^[^|]+)\|([^|]+)\|' +tensorflow_serving/model_servers/BUILD", " ".join(lines))
    pattern, replacement = edit[1].replace(r"\(", "(").replace(r"\)", ")"), edit[2].replace("&", r"\g<0>")
    linked = re.sub(pattern, replacement, '    "@org_tensorflow_text//tensorflow_text:ops_lib",')
    assert linked.splitlines()[0].endswith('tensorflow_text:ops_lib",')
    assert linked.splitlines()[1] == '    "@com_google_scann//scann/scann_ops/cc:scann_ops_static",'
    stages = [rest for step, rest in steps if step == "FROM"]
    (compose,) = read("docker/docker-compose.yml")
    assert stages[-1] == compose["services"]["stock"]["image"], "the rest of the image is the stock one's"
