"""The config groups of conf/: their choices with the files' first comments, and the help text."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import yaml

GROUPS = ("model", "data", "method", "preset", "recipe", "trainer", "logger", "experiment", "debug")
OPTIONAL = ("experiment", "debug")
"""Groups that need no choice."""
SEVERAL = ("logger",)
"""Groups that accept several choices, as in logger=[csv,tensorboard]."""


def list_choices(folders: Iterable[Path], group: str) -> dict[str, str]:
    """Return choice -> its file's first comment, sorted; choices in subfolders have names like reduced/cell.

    Of files with the same name in several folders the first counts, as in Hydra.
    """
    found: dict[str, str] = {}
    for folder in folders:
        for path in (folder / group).rglob("*.yaml"):
            found.setdefault(
                path.relative_to(folder / group).with_suffix("").as_posix(), _first_comment(path)
            )
    return {choice: found[choice] for choice in sorted(found, key=lambda choice: (choice.count("/"), choice))}


def help_text(folders: Sequence[Path]) -> str:
    """Return `hydra.help.template` of the last folder's config.yaml, with the choices of all folders.

    Hydra's own help takes seconds, because it composes everything and lists its own groups first.
    """
    main = yaml.safe_load((folders[-1] / "config.yaml").read_text(encoding="utf-8"))
    listed = "\n\n".join(_described(folders, group) for group in GROUPS)
    return Template(main["hydra"]["help"]["template"]).safe_substitute(APP_CONFIG_GROUPS=listed)


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
