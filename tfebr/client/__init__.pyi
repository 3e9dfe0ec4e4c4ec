from .client import Client as Client
from .client import Result as Result
from .sharded_client import ShardedClient as ShardedClient
