"""What conf/ offers: its groups, their files with the comments that they begin with, and the help text."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import yaml

GROUPS = ("model", "data", "method", "preset", "recipe", "trainer", "logger", "experiment", "debug")
OPTIONAL = ("experiment", "debug")
"""Groups of which a run need not choose anything."""
SEVERAL = ("logger",)
"""Groups of which it may choose several, as in logger=[csv,tensorboard]."""


def list_choices(folders: Iterable[Path], group: str) -> dict[str, str]:
    """Choice -> its file's first comment, sorted; a choice in a subfolder is named with it (reduced/cell).

    folders: the config folders; of two files of one name the first counts, as for Hydra.
    """
    found: dict[str, str] = {}
    for folder in folders:
        for path in (folder / group).rglob("*.yaml"):
            found.setdefault(
                path.relative_to(folder / group).with_suffix("").as_posix(), _first_comment(path)
            )
    return {choice: found[choice] for choice in sorted(found, key=lambda choice: (choice.count("/"), choice))}


def help_text(folders: Sequence[Path]) -> str:
    """`hydra.help.template` of the last folder's config.yaml with the choices of all folders filled in.

    Hydra fills it in too, but composes everything and walks through its own groups first: seconds.
    """
    template = yaml.safe_load((folders[-1] / "config.yaml").read_text(encoding="utf-8"))["hydra"]["help"][
        "template"
    ]
    listed = "\n\n".join(_described(folders, group) for group in GROUPS)
    return Template(template).safe_substitute(APP_CONFIG_GROUPS=listed)


def _described(folders: Sequence[Path], group: str) -> str:
    choices = list_choices(folders, group)
    width = max((len(choice) for choice in choices), default=0)
    return "\n".join(f"{group}={choice:<{width}}  {comment}".rstrip() for choice, comment in choices.items())


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return ""
        if not line.startswith("# @"):
            return line.lstrip("# ")
    return ""
