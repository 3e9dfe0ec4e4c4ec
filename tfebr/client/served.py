"""What one version of a model can be asked: its signatures, columns for their inputs, and their outputs as arrays."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfebr.client.transports import Described
from tfebr.data.names import find_input
from tfebr.errors import RequestError
from tfebr.servable.input_arrays import SAME_ROWS, Tensor, from_answer, is_list, tensors_of, to_array


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Served:
    """A version that a server answers with.

    Attributes:
        version: as the server describes it.
        signatures: that it can be asked, by name.
    """

    def __init__(self, version: Described):
        self.version = version
        self.signatures = {
            key: Signature(tensors_of(value.get("inputs", {})), tensors_of(value.get("outputs", {})))
            for key, value in version.signatures.items()
            # Every SavedModel lists its initialisation too, which nobody can ask for.
            if not key.startswith("__")
        }

    def filter_columns(self) -> dict[str, str]:
        """What a filter can name, "category" or "number" by column; raises RequestError when it was exported without filters."""
        if "attributes" not in self.signatures:
            raise RequestError(
                f"Model `{self.version.name}` takes no filter: its catalogue had no column besides ids and titles when it was exported."
            )
        outputs = self.signatures["attributes"].outputs
        return {name: "category" if spec.dtype == "DT_STRING" else "number" for name, spec in outputs.items()}

    def arrays(self, signature: str, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """All inputs of a signature, those that are left out as padding; raises RequestError naming the field that does not fit."""
        known = self._signature(signature)
        columns = {_input(signature, name, known): value for name, value in columns.items()}
        lists = {name: value for name, value in columns.items() if is_list(value) and known.inputs[name].shape[:1] == (-1,)}
        rows = len(next(iter(lists.values()))) if lists else 1
        for name, value in lists.items():
            if len(value) != rows:
                raise RequestError(f"Field `{name}` has {len(value)} rows, but `{next(iter(lists))}` has {rows}. {SAME_ROWS}")
        return {name: to_array(name, columns.get(name), spec, rows) for name, spec in known.inputs.items()}

    def outputs(self, signature: str) -> list[str]:
        """Names of the outputs of a signature."""
        return list(self._signature(signature).outputs)

    def answer(self, signature: str, found: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Outputs as they came, as arrays of their dtypes."""
        return {name: from_answer(name, found[name], spec) for name, spec in self._signature(signature).outputs.items()}

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            raise RequestError(f"Model `{self.version.name}` has no signature `{name}`. It has: {', '.join(sorted(self.signatures))}.")
        return self.signatures[name]


def _input(signature: str, name: str, known: Signature) -> str:
    found = find_input(name, known.inputs)
    if found is None:
        raise RequestError(f"Signature `{signature}` has no field `{name}`. It has: {', '.join(sorted(known.inputs))}.")
    return found
