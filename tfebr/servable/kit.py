"""What a TensorFlow Serving team needs beside a version: server and batching configuration, descriptors for gRPC tools, a client.

All of it lies in the version's `assets.extra/`, where TensorFlow Serving reads nothing but warm-up requests: the files travel with the
version that they were made for, its manifest lists their hashes, and the base folder keeps holding nothing but versions.
"""

import string
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfebr.servable.manifest import FOLDER
from tfebr.servable.sample_requests import json_values, service_descriptors

MODELS = f"{FOLDER}/models.config"
BATCHING = f"{FOLDER}/batching.config"
PROTOSET = f"{FOLDER}/prediction_service.protoset"
CLIENT = f"{FOLDER}/client.py"

_MODELS = """\
# tensorflow_model_server --model_config_file=THIS_FILE
# `base_path` is the folder that holds the version numbers, as the server sees it, and has to be absolute: the server refuses others.
# Below is the place that the official image expects, as in `docker run -v "$PWD/NAME:/models/NAME"`. Put in your own.
"""

# No generated module of this message is published, so that it is written as text; the three fields are as old as padding itself.
_BATCHING = """\
# tensorflow_model_server --enable_batching --batching_parameters_file=THIS_FILE
# The server may merge requests that wait at the same time into one batch; leave it off while one request at a time is fast enough.
# Lists of different lengths (histories, filters, exclusions) are then filled up with the request's FIRST element, and a list without
# elements fails the whole batch. So every list that is sent must begin with padding, "" or 0, as in client.py and in the recorded warm-up
# requests; the model skips it. And `search` answers each request of a batch as wide as the largest `k` in it asks for: `num_results` says
# how much of a row is this request's own, the rest is padding.
max_batch_size { value: 128 }  # rows; a request with more rows is refused
batch_timeout_micros { value: 500 }  # how long a request waits for company
pad_variable_length_inputs: true
"""

_CLIENT = '''\
"""Asks this model over TensorFlow Serving's REST API; needs nothing but Python.

python client.py "your query" [http://HOST:PORT]

or, in a program: search("your query", k=20, exclude=["an item id"])
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

NAME = $name
# One row of every other input of `search`. Lists are newest first and begin with padding, "" or 0: a server that merges requests into
# batches fills up shorter lists with the first element. 0 leaves to search are as many as the index was built for.
ROW = $row


def search(query, server="http://127.0.0.1:8501", timeout=5.0, k=$k, exclude=(), **inputs):
    """The k best (item id, score) pairs, best first, without the items to exclude; further inputs by name, as in ROW."""
    row = {**ROW, "query": query, "k": k, "exclude": ["", *exclude], **inputs}
    body = json.dumps({"signature_name": "search", "instances": [row]}).encode()
    url = f"{server}/v1/models/{urllib.parse.quote(NAME)}:predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        (found,) = json.load(response)["predictions"]
    return list(zip(found["ids"], found["scores"]))[: found["num_results"]]


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        for item_id, score in search(*sys.argv[1:]):
            print(f"{score:9.4f}  {item_id}")
    except urllib.error.HTTPError as error:
        sys.exit(f"{error}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"no answer: {error}")
'''


def write_kit(folder: Path, model: str, search_row: Mapping[str, np.ndarray]) -> None:
    """Writes `models.config`, `batching.config`, `prediction_service.protoset` and `client.py` below `folder`.

    Args:
        folder: the version folder; its `assets.extra` exists.
        model: the name of the model on the server.
        search_row: one row of every input of `search`.
    """
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=model, base_path=f"/models/{model}", model_platform="tensorflow")
    (folder / MODELS).write_text(_MODELS + text_format.MessageToString(config, as_utf8=True), encoding="utf-8")
    (folder / BATCHING).write_text(_BATCHING, encoding="utf-8")
    (folder / PROTOSET).write_bytes(service_descriptors())
    (folder / CLIENT).write_text(client_source(model, search_row), encoding="utf-8")


def client_source(model: str, search_row: Mapping[str, np.ndarray]) -> str:
    """A Python program that asks `search` of this model."""
    row = {name: json_values(values)[0] for name, values in sorted(search_row.items())}
    k = row.pop("k")
    del row["exclude"], row["query"]
    lines = [f"    {name!r}: {value!r},\n" for name, value in row.items()]
    return string.Template(_CLIENT).substitute(name=repr(model), k=k, row="{\n" + "".join(lines) + "}")
