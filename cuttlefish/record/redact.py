"""Keeps secrets, and paths of the machine, out of what is written down for others to read."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

HIDDEN = "REDACTED"
SECRET_WORD = r"secret|passw(?:or)?d|passphrase|credential|api[_-]?key|(?:access|private|auth)[_-]?key"
TOKEN_WORD = r"(?<![a-z])token(?![a-z])"
SECRET_KEY, TOKEN_KEY = re.compile(SECRET_WORD, re.IGNORECASE), re.compile(TOKEN_WORD, re.IGNORECASE)
TOKEN_SHAPE = re.compile(
    r"\b(hf_|gh[pousr]_|github_pat_|glpat-|sk-|wandb_v1_)[\w-]{16,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
ASSIGNMENT = re.compile(
    rf"(?P<key>[\w.+~-]*(?:{SECRET_WORD}|{TOKEN_WORD})[\w.+~-]*)"
    r"(?P<equals>[\"']?\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s,{}\[\]\"']+)",
    re.IGNORECASE,
)
ABSOLUTE = re.compile(r"(?<![\w./:~)}\]>-])~?/[^\s'\",:;()\[\]]+")
"""A path from the root or from somebody's home, in running text."""
HARMLESS = {"", "true", "false", "none", "null", "???"}
SHORTEST = 6
"""Shorter values of secret environment variables are left: blanked in running text, they would take words with them."""


def is_secret(key: str, value: str) -> bool:
    """True for the value of names such as `api_key`, `hf_token`, `db.password`; not for `tokenizer`, `max_tokens` or
    `token_dim=64`, nor where nothing is set."""
    if value.lower() in HARMLESS:
        return False
    return bool(SECRET_KEY.search(key) or (TOKEN_KEY.search(key) and not value.isdigit()))


def redact_text(text: str) -> str:
    """Free text with the value of each `secret=value` or `secret: value`, well-known shapes of tokens, and the values of
    environment variables with a secret's name (an exception may quote one bare) blanked."""
    for value in sorted(_secret_values(), key=len, reverse=True):  # one may be a part of another
        text = text.replace(value, HIDDEN)
    return TOKEN_SHAPE.sub(HIDDEN, ASSIGNMENT.sub(_blank_assignment, text))


def redact_log(text: str) -> str:
    """A log for others to read: without secrets, and absolute paths shortened wherever they stand."""
    return ABSOLUTE.sub(lambda match: shorten_path(match[0]), redact_text(text))


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments without secrets (`key=value`, `--key=value`, `--key value`) and with absolute paths shortened."""
    cleaned, option = [], ""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        cleaned.append(f"{key}={redact_value(value, key)}" if equals else redact_value(argument, option))
        option = argument if argument.startswith("-") and not equals else ""
    return cleaned


def redact_config(config: Any, key: str = "") -> Any:
    """A copy of a nested mapping in which values under secret keys are blanked and absolute paths are shortened."""
    if isinstance(config, Mapping):
        return {name: redact_config(value, str(name)) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [redact_config(value, key) for value in config]
    if isinstance(config, str):
        return redact_value(config, key)
    return HIDDEN if is_secret(key, str(config)) else config


def redact_value(value: str, key: str = "") -> str:
    """One string that stood under `key`."""
    return HIDDEN if is_secret(key, value) else shorten_path(redact_text(value))


def shorten_path(text: str) -> str:
    """`.../name` for an absolute path: where the data lay says nothing about a result, and often names its owner."""
    path = PurePath(text)
    return f".../{path.name}" if path.is_absolute() or text.startswith("~") else text


def _secret_values() -> set[str]:
    return {value for name, value in os.environ.items() if len(value) >= SHORTEST and is_secret(name, value)}


def _blank_assignment(match: re.Match[str]) -> str:
    if not is_secret(match["key"], match["value"].strip("\"'")):
        return match[0]
    return f"{match['key']}{match['equals']}{HIDDEN}"
