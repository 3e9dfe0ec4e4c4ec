"""Asks a model with this package's client, which fills what is left out, retries within a deadline, and merges shards.

python tfebr_client.py NAME "your query" HOST:PORT              one server
python tfebr_client.py NAME "your query" HOST:PORT HOST:PORT    shards, in their order
Add --grpc when the addresses are gRPC ports. `tfebr query` does the same with titles and filters.
"""

import sys

from tfebr.client.client import Client
from tfebr.client.sharded_client import ShardedClient
from tfebr.errors import TfebrError


def main(arguments: list[str]) -> int:
    protocol = "grpc" if "--grpc" in arguments else "rest"
    name, query, *addresses = [argument for argument in arguments if argument != "--grpc"] if len(arguments) > 2 else ["", ""]
    if not addresses:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with Client(addresses[0], name, protocol) if len(addresses) == 1 else ShardedClient(addresses, name, protocol) as client:
            # Also: user={"age": "25-34"}, history=[...], filter={"brand": ["Acme", "Zeta"], "price": (10, 50)}, automatic=True.
            result = client.query(query, k=10, exclude=["no such item"])[0]
    except TfebrError as error:
        print(error, file=sys.stderr)
        return 1
    for item_id, score in zip(result.ids, result.scores, strict=True):
        print(f"{score:9.4f}  {item_id}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
