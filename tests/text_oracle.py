"""What numbers are, in plain Python."""

import re


def without_separators(run: re.Match) -> str:
    """A run of digits, points and commas; one well-formed number with thousands apart loses its commas."""
    number = re.fullmatch(r"([1-9][0-9]{0,2}(?:,[0-9]{3}){1,5})((?:\.[0-9]+)?[.,]*)", run[0])
    return number[1].replace(",", "") + number[2] if number else run[0]
