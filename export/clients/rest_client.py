"""Asks any exported model over TensorFlow Serving's REST API; needs nothing but Python, and no other file of this project.

python rest_client.py MODEL "your query" [--server http://HOST:PORT] [--k 20] [--exclude ID]... [--filter "brand=Acme|brand=Zeta"]...
"""

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

_PADDING = {"DT_STRING": "", "DT_BOOL": False}
_NO_FIELD = "signature `{}` has no input `{}`; it has {}"


class RestClient:
    """One model of one server.

    Args:
        server: `http://HOST:PORT` of the REST port.
        model: the model's name on the server.
        timeout: seconds for one call.
    """

    def __init__(self, server, model, timeout=5.0):
        self._url = f"{server}/v1/models/{urllib.parse.quote(model)}"
        self._timeout = timeout
        self._signatures = None

    def available(self):
        """The versions that answer requests; urllib.error.HTTPError when the server does not know the model."""
        found = self._call("")["model_version_status"]
        return [int(status["version"]) for status in found if status["state"] == "AVAILABLE"]

    def signatures(self):
        """By signature, dtype and sizes of each input (-1 is any size) and the names of its outputs; kept while requests fit them."""
        if self._signatures is None:
            described = self._call("/metadata")["metadata"]["signature_def"]["signature_def"]
            self._signatures = {
                name: ({key: (spec["dtype"], _sizes(spec)) for key, spec in signature["inputs"].items()}, list(signature["outputs"]))
                for name, signature in described.items()
                if not name.startswith("__")
            }
        return self._signatures

    def predict(self, signature, rows):
        """Every row's outputs by name.

        Args:
            rows: dicts of inputs; those left out are padding. Lists get one place of padding in front: a server that merges requests into
                batches fills shorter lists up with the first element of each request's own.
        """
        known = self._signatures
        try:
            return self._predict(signature, rows)
        except (KeyError, ValueError, urllib.error.HTTPError):
            # A version with other inputs may have been published since they were read.
            self._signatures = None
            if known is None or self.signatures() == known:
                raise
        return self._predict(signature, rows)

    def _predict(self, signature, rows):
        inputs, outputs = self.signatures()[signature]
        for name in {name for row in rows for name in row}:
            if name not in inputs:
                raise ValueError(_NO_FIELD.format(signature, name, ", ".join(sorted(inputs))))
        body = {"signature_name": signature, "instances": [{key: _value(row.get(key), *inputs[key]) for key in inputs} for row in rows]}
        # Lists of one request have to be of one length, too.
        for key, (dtype, sizes) in inputs.items():
            if len(sizes) == 2:
                longest = max(len(row[key]) for row in body["instances"])
                for row in body["instances"]:
                    row[key] += [_PADDING.get(dtype, 0)] * (longest - len(row[key]))
        predictions = self._call(":predict", body)["predictions"]
        # The values of a signature with one output come without its name.
        return [found if isinstance(found, dict) else {outputs[0]: found} for found in predictions]

    def search(self, query, k=0, exclude=(), filters=(), **inputs):
        """The best (item id, score) pairs, best first.

        Args:
            k: how many; 0 is as many as the model was exported with.
            exclude: item ids that are not to be found.
            filters: clauses that every result matches: `brand=Acme|brand=Zeta`, `price=10..50`; `%` and `|` inside of a name or a value
                are written %25 and %7C, `=` inside of a name %3D.
            inputs: further inputs of the signature `search`, such as `history_items` (newest first) or `user_age`; `signatures` and
                `tfebr inspect` say how they are called.
        """
        row = {"query": query, "k": k, "exclude": list(exclude), **inputs}
        if filters:
            row["filter"] = list(filters)
        (found,) = self.predict("search", [row])
        return list(zip(found["ids"], found["scores"], strict=True))[: found["num_results"]]

    def _call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=self._timeout) as response:
            return json.load(response)


def _sizes(spec):
    # Metadata may leave out what is zero or empty.
    return [int(size.get("size", 0)) for size in spec["tensor_shape"].get("dim", [])]


def _value(value, dtype, sizes):
    padding = _PADDING.get(dtype, 0)
    if len(sizes) == 1:
        return padding if value is None else value
    return [padding, *(value or [])] if sizes[1] < 0 else value or [padding] * sizes[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("query")
    parser.add_argument("--server", default="http://127.0.0.1:8501")
    parser.add_argument("--k", type=int, default=0)
    parser.add_argument("--exclude", action="append", default=[], metavar="ID")
    parser.add_argument("--filter", action="append", default=[], metavar="CLAUSE")
    chosen = parser.parse_args()
    client = RestClient(chosen.server, chosen.model)
    try:
        for item_id, score in client.search(chosen.query, chosen.k, chosen.exclude, chosen.filter):
            print(f"{score:9.4f}  {item_id}")
    except urllib.error.HTTPError as error:
        sys.exit(f"{error}: {error.read().decode(errors='replace')}")
    except (OSError, ValueError) as error:
        sys.exit(f"no answer: {error}")


if __name__ == "__main__":
    main()
