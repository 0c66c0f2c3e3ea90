"""Look up a model's name in the source files of timm and torchvision, whose import takes seconds."""

import re
from importlib.util import find_spec
from pathlib import Path

from cuttlefish.config.schema import ModelConfig
from cuttlefish.config.suggest import did_you_mean
from cuttlefish.errors import CuttlefishError

OWN = Path(__file__).resolve().parents[1] / "models"
"""Where the suite registers names with timm."""
REGISTERED = re.compile(r"^@register_model\b.*\n(?:[@ )].*\n)*def (\w+)", re.MULTILINE)


def check_library_name(model: ModelConfig) -> None:
    """Raise CuttlefishError for a classifier that no file of its library's models defines or quotes.

    Another name is not accepted by this: the library decides when it is imported.
    """
    found = find_spec(model.source) if model.source in ("timm", "torchvision") else None
    if found is None or found.origin is None:
        return
    name = model.name.partition(".")[0]
    places = [Path(found.origin).parent / "models", OWN]
    text = "\n".join(path.read_text(encoding="utf-8") for place in places for path in place.rglob("*.py"))
    defined_or_quoted = rf"\bdef {re.escape(name)}\(|['\"]{re.escape(name)}['\".]"
    if re.search(defined_or_quoted, text) is None:
        raise unknown_name(model, REGISTERED.findall(text))


def unknown_name(model: ModelConfig, names: list[str]) -> CuttlefishError:
    """Return the error of a name that the library does not have."""
    return CuttlefishError(
        f"model.name={model.name} is not a classifier of {model.source}{did_you_mean(model.name, names)}"
    )
