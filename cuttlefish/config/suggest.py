"""Suggest corrections of mistyped words."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: object, choices: Iterable[object]) -> str:
    """Return the end of an error sentence, "; did you mean x?", or "" if no choice is close."""
    spelt = {str(choice).lower(): str(choice) for choice in choices}
    begun = [choice for choice in spelt if len(str(word)) > 2 and choice.startswith(str(word).lower())]
    near = get_close_matches(str(word).lower(), spelt, n=1, cutoff=0.65) or begun
    return f"; did you mean {spelt[near[0]]}?" if near else ""


def choose_from(word: object, choices: Iterable[object]) -> str:
    """Return the end of an error sentence: all choices and the closest one."""
    choices = list(choices)
    return f" (choose from {', '.join(map(str, choices))}){did_you_mean(word, choices)}"
