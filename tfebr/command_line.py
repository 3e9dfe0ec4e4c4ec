"""How sub-commands read `name=value`, and how they say what to type next."""

import shlex

from tfebr.data.names import split_atom
from tfebr.errors import ConfigError
from tfebr.show import console


def say_next(*words: object) -> None:
    """Prints a command, quoted for a shell."""
    console.print(f"next: {shlex.join(map(str, words))}", style="dim", soft_wrap=True, highlight=False, markup=False)


def pair(text: str) -> tuple[str, str]:
    """Name and value of "name=value"; raises ConfigError for anything else."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"must be written `name=value`. Received: {text!r}.")
    return name.strip(), value.strip()


def profile_value(text: str) -> tuple[str, str]:
    """Column and value of "column=value", to the letter: a column's name may hold anything. Raises ConfigError where there is no "="."""
    found = split_atom(text)
    if found is None:
        raise ConfigError(f"must be written `column=value`. Received: {text!r}.")
    return found
