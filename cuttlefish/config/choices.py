"""What conf/ offers: its groups, their files, and the sentence each file begins with. Also the help text made of them."""

from pathlib import Path
from string import Template

import yaml

GROUPS = ("model", "data", "method", "recipe", "trainer", "logger", "experiment", "debug")
OPTIONAL = ("experiment", "debug")
"""Groups of which a run need not choose anything."""
SEVERAL = ("logger",)
"""Groups of which it may choose several, as in logger=[csv,tensorboard]."""


def list_choices(conf: Path, group: str) -> dict[str, str]:
    """Choice -> its file's first comment, sorted; a choice in a subfolder is named with it (reduced/cell)."""
    files = sorted((conf / group).rglob("*.yaml"))
    return {path.relative_to(conf / group).with_suffix("").as_posix(): _first_comment(path) for path in files}


def help_text(conf: Path) -> str:
    """`hydra.help.template` of conf/config.yaml with all choices filled in.

    Hydra fills it in too, but composes everything and walks through its own groups for it, which takes seconds.
    """
    template = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["hydra"]["help"]["template"]
    listed = "\n\n".join(_described(conf, group) for group in GROUPS)
    return Template(template).safe_substitute(APP_CONFIG_GROUPS=listed)


def _described(conf: Path, group: str) -> str:
    choices = list_choices(conf, group)
    width = max((len(choice) for choice in choices), default=0)
    return "\n".join(f"{group}={choice:<{width}}  {comment}".rstrip() for choice, comment in choices.items())


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return ""
        if not line.startswith("# @"):
            return line.lstrip("# ")
    return ""
