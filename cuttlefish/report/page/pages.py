"""Templates and the content security policy: untrusted text is escaped, and no foreign script can run."""

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cuttlefish.display.format import UNKNOWN, number, stated

HERE = Path(__file__).resolve().parent
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Terminals' escape codes, and what turns the direction of the text around it."""


def render(template: str, **values: Any) -> str:
    """Return a whole HTML page; values are escaped unless they are Markup, and lose control characters."""
    return CONTROL.sub("", _environment().get_template(template).render(values))


def as_json(value: Any) -> Markup:
    """Return JSON for a data block of a page, escaped so that no text can end the block."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def asset(name: str) -> Markup:
    """Return one of our style sheets or scripts for inlining."""
    return Markup((HERE / "assets" / name).read_text(encoding="utf-8"))


def policy(*scripts: str) -> str:
    """Return the content security policy: our style sheet, these scripts, pictures from the disk."""
    allowed = " ".join(f"'{_digest(name)}'" for name in scripts) or "'none'"
    # A page opened from the disk has no origin, so `file:` replaces the 'self' of a server there.
    style = _digest("page.css")
    own = f"style-src '{style}'; script-src {allowed}; img-src 'self' file:"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


@cache
def _digest(name: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(asset(name).encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: UNKNOWN if value is None else value,
    )  # fmt: skip
    environment.globals |= {"asset": cache(asset), "policy": policy, "number": number, "stated": stated}
    return environment
