"""What a TensorFlow error says, without the graph and the stack around it."""

import re

_AROUND = re.compile(r'Graph execution error|Detected at node|<stack traces|\[\[|File "')


def first_line(error: Exception) -> str:
    """The sentence of a TensorFlow error that says what is wrong, without its full stop and the dump of the graph around it."""
    lines = [line.strip() for line in str(getattr(error, "message", None) or error).splitlines()]
    wanted = [line for line in lines if line and not _AROUND.match(line)]
    if not wanted:
        return type(error).__name__
    said = re.sub(r"\s*\[Op:\w+\]|\s*\[\[\{\{.*", "", wanted[0])
    return re.sub(r"^assertion failed: \[(.*)\]$", r"\1", said).rstrip(".")
