"""Which versions of a model stay loaded, and under which labels: what a models.config of TensorFlow Serving can say of one model."""

import dataclasses
import os
from collections.abc import Collection
from typing import Any

from tfebr.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Policy:
    """`model_version_policy`.

    Attributes:
        latest: so many of the largest numbers.
        every: all of them instead.
        specific: these instead, where there are any.
    """

    latest: int = 1
    every: bool = False
    specific: frozenset[int] = frozenset()

    def wanted(self, there: Collection[int]) -> set[int]:
        """Those of the versions that are there which should be loaded."""
        if self.specific:
            return set(there) & self.specific
        return set(there) if self.every else set(sorted(there)[-self.latest :])


def read_config(config: Any, name: str, base: str | os.PathLike) -> tuple[Policy, dict[str, int]]:
    """Policy and labels of a ModelServerConfig that a running server is to change to.

    Args:
        config: the message.
        name, base: of the one model that the server has; other models and folders are TensorFlow Serving's business.

    Raises:
        RequestError: saying what the server cannot change to.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise RequestError(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported."
        )
    models = config.model_config_list.config
    if [model.name for model in models] != [name]:
        raise RequestError(
            f"This server has one model, `{name}`, for as long as it runs: the list must hold that one and no other. "
            f"Received: {[model.name[:60] for model in models][:5]}."
        )
    (model,) = models
    if os.path.realpath(model.base_path) != os.path.realpath(base):
        raise RequestError(f"`base_path` must stay {base}: start another server for another folder. Received: {model.base_path[:200]}.")
    if model.model_platform not in ("", "tensorflow"):
        raise RequestError(f'`model_platform` must be "tensorflow". Received: {model.model_platform[:60]}.')
    return _policy(model.model_version_policy), dict(model.version_labels)


def _policy(policy: Any) -> Policy:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return Policy(every=True)
    if choice == "specific":
        if not policy.specific.versions:
            raise RequestError("`model_version_policy.specific` must name versions.")
        return Policy(specific=frozenset(policy.specific.versions))
    if choice in (None, "latest"):
        return Policy(latest=max(policy.latest.num_versions, 1))
    raise RequestError(f"`model_version_policy.{choice}` is not known here. Known are latest, all and specific.")
