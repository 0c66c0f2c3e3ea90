"""Remove secrets and the machine's paths from published text.

Every pattern is linear in the length of the text: it begins with a rare character and never backtracks
(possessive quantifiers), so that a log of many megabytes takes seconds.
"""

import os
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

HIDDEN = "REDACTED"
SECRET_WORD = (
    r"secret|passw(?:or)?d|passphrase|credential|authorization|api[_-]?key"
    r"|(?:access|private|auth|account)[_-]?key"
)
TOKEN_WORD = r"(?<![a-z])token(?![a-z])"
SECRET_KEY, TOKEN_KEY = re.compile(SECRET_WORD, re.IGNORECASE), re.compile(TOKEN_WORD, re.IGNORECASE)
WORD = re.compile(f"{SECRET_WORD}|{TOKEN_WORD}", re.IGNORECASE)
KEY_END = re.compile(r"[\w.+~-]*+")
VALUE = re.compile(r"[\"']?\s*+[=:]\s*+(?P<value>\"[^\"]*+\"|'[^']*+'|[^\s,{}\[\]\"']++)")
SHAPES = {
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----(?s:.*?-----END [A-Z ]{0,20}PRIVATE KEY-----|.*)": HIDDEN,
    r"(?:hf_|gh[pousr]_|github_pat_|glpat-|sk-|wandb_v1_|npm_|AIza)(?<![a-z0-9]sk-)[\w-]{16,}+": HIDDEN,
    r"(?<![\w-])(?:xox[a-z]-[\w-]{8,}+|eyJ[\w-]{8,}+\.eyJ[\w-]++(?:\.[\w-]++)?)": HIDDEN,
    r"://[^/\s@]++@": f"://{HIDDEN}@",
    r"([?&](?i:[\w-]{0,40}?signature|sig|hmac|auth|key|code)=)[^&\s\"'<>]++": rf"\1{HIDDEN}",
    r"(?i:(authorization[\"']?+\s*+[=:]\s*+[\"']?+(?:bearer|basic|token)\s++))[^\s\"',]++": rf"\1{HIDDEN}",
    r"(?i:((?:set-)?cookie[\"']?+:\s*+[\"']?+))[^\n\"']++": rf"\1{HIDDEN}",
    r"(?i:(--[\w-]{0,40}?(?:password|secret|token|api[_-]key)\s++))[^\s-]\S*+": rf"\1{HIDDEN}",
    r"(?i:(bearer\s++))[\w.~+/=-]{16,}+": rf"\1{HIDDEN}",
}
"""Private keys; well-known tokens; a URL's user, with or without password; URL signatures; headers."""
SHAPES = {re.compile(shape): blank for shape, blank in SHAPES.items()}
BASIC = re.compile(r"(?i:(basic\s++))([A-Za-z0-9+/]{6,}+={0,2})")
START = r"(?:(?<=~)[\w.-]*+/|(?<=/)(?!/))"
SEGMENT = r"[^\s'\",:;()\[\]/]++"
PATH = re.compile(
    # in quotes it may contain blanks; in running text only if a slash follows within two words
    rf"[~/](?:(?<=['\"].){START}[^'\"\n:]++(?=['\"])"
    rf"|(?<![\w./~)}}\]>-].){START}(?:{SEGMENT}|/)++(?: (?:{SEGMENT} )?{SEGMENT}/(?:{SEGMENT}|/)*+)*+)"
)
"""An absolute path, or one from a home folder, in text."""
HARMLESS = {"", "true", "false", "none", "null", "???"}
SHORTEST = 6
"""Shorter values of secret environment variables are kept, because blanking them would damage words."""


def is_secret(key: str, value: str) -> bool:
    """Return whether the value is a secret, by keys such as `api_key`, `hf_token`, `db.password`.

    False for `tokenizer`, `max_tokens` or `token_dim=64`, and for empty values.
    """
    if value.lower() in HARMLESS:
        return False
    return bool(SECRET_KEY.search(key) or (TOKEN_KEY.search(key) and not value.isdigit()))


def redact_text(text: str) -> str:
    """Blank secrets in free text.

    Secrets are the values of `secret=value` and `secret: value`, well-known forms of tokens, keys and
    credentials, and the values of environment variables with secret names (an exception may quote one).
    """
    for value in sorted(_secret_values(), key=len, reverse=True):  # longest first: one may contain another
        text = text.replace(value, HIDDEN)
    for shape, blank in SHAPES.items():
        text = shape.sub(blank, text)
    return _blank_assignments(BASIC.sub(_blank_basic, text))


def redact_log(text: str) -> str:
    """Blank secrets and shorten absolute paths in a log."""
    return PATH.sub(lambda match: shorten_path(match[0]), redact_text(text))


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Blank secrets and shorten paths in arguments (`key=value`, `--key=value`, `--key value`)."""
    cleaned, option = [], ""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        cleaned.append(f"{key}={redact_value(value, key)}" if equals else redact_value(argument, option))
        option = argument if argument.startswith("-") and not equals else ""
    return cleaned


def redact_config(config: Any, key: str = "") -> Any:
    """Copy a nested mapping with values under secret keys blanked and absolute paths shortened."""
    if isinstance(config, Mapping):
        return {name: redact_config(value, str(name)) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [redact_config(value, key) for value in config]
    if isinstance(config, str):
        return redact_value(config, key)
    return HIDDEN if is_secret(key, str(config)) else config


def redact_value(value: str, key: str = "") -> str:
    """Redact one string value of `key`."""
    return HIDDEN if is_secret(key, value) else shorten_path(redact_text(value))


def shorten_path(text: str) -> str:
    """Return `.../name` for an absolute path, or for each in a list of paths; other text unchanged.

    The location of the data is irrelevant to a result, and often contains a user's name.
    """
    if text.startswith("~") or PurePath(text).is_absolute():
        return ":".join(f".../{PurePath(path).name}" for path in text.split(":"))
    return text


def _secret_values() -> set[str]:
    return {value for name, value in os.environ.items() if len(value) >= SHORTEST and is_secret(name, value)}


def _blank_basic(match: re.Match[str]) -> str:
    """Blank `Basic …` only if it decodes to `user:password`, because "basic" is an ordinary word."""
    try:
        return match[1] + HIDDEN if b":" in b64decode(match[2], validate=True) else match[0]
    except ValueError:
        return match[0]


def _blank_assignments(text: str) -> str:
    parts, done, at = [], 0, 0
    while word := WORD.search(text, at):
        start = word.start()
        while start > at and KEY_END.match(text[start - 1]).end():
            start -= 1
        at = KEY_END.match(text, word.end()).end()
        rest = VALUE.match(text, at)
        if rest and is_secret(text[start:at], rest["value"].strip("\"'")):
            parts += [text[done : rest.start("value")], HIDDEN]
            done = at = rest.end()
    return "".join([*parts, text[done:]])
