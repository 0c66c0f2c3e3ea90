"""Text encoders of transformers with a classification head, as modules that return logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cuttlefish.config.schema import ModelConfig
from cuttlefish.config.suggest import did_you_mean
from cuttlefish.errors import CuttlefishError
from cuttlefish.models.checkpoints import files_of

OURS = ("num_labels", "id2label", "label2id", "problem_type", "dtype", "torch_dtype", "attn_implementation")
LOADS = ("auto_map", "quantization_config", "name_or_path", "_name_or_path", "trust_remote_code")
"""Entries of a config that the suite sets itself, or that would load code or files."""


class TextClassifier(nn.Module):
    """A sequence classifier of transformers as a module from token ids to logits.

    Attributes:
        network: The model of transformers.
        pad_id, vocabulary, max_positions: Its padding token, rows of its embeddings, and longest input.
        uses_token_types: Whether it tells the first sentence from the second by `token_type_ids`.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.network = network
        self.pad_id = network.config.pad_token_id
        self.vocabulary = network.get_input_embeddings().num_embeddings
        self.max_positions = _positions(network)
        self.uses_token_types = (getattr(network.config, "type_vocab_size", 0) or 0) > 1

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return (B, classes) logits, one column for regression.

        Args:
            input_ids: (B, L) int64 tokens.
            attention_mask: (B, L), 0 where a token is padding; None: there is none.
            token_type_ids: (B, L), 1 in a pair's second sentence; ignored by models without such types.
        """
        if not len(input_ids):  # a process's empty share; transformers' reshaping refuses one
            return self(input_ids.new_full((1, input_ids.shape[1]), self.pad_id))[:0]
        types = {"token_type_ids": token_type_ids} if self.uses_token_types else {}
        return self.network(input_ids=input_ids, attention_mask=attention_mask, **types).logits


def build_transformers(config: ModelConfig, classes: int) -> nn.Module:
    """Return the classifier of a config of `source=transformers`, in train mode on the CPU, in float32.

    Raises:
        CuttlefishError: Its files are missing, or do not fit each other or the arguments.
    """
    folder = files_of(config) if config.pretrained else None
    description = encoder_config(config, folder)
    description.num_labels = classes
    with _quiet():
        network = (
            _initialised(config, description) if folder is None else _loaded(config, description, folder)
        )
    return TextClassifier(network).train()


def encoder_config(config: ModelConfig, folder: Path | None = None) -> Any:
    """Return transformers' config: the arguments, over those of the checkpoint where they are needed.

    Args:
        folder: Where the checkpoint's files are; None looks for them only if the arguments do not suffice.

    Raises:
        CuttlefishError: An argument is unknown or not for the user to set, or the model's kind is another.
    """
    arguments = dict(config.arguments)
    for key in arguments.keys() & {*OURS, *LOADS}:
        raise CuttlefishError(f"model.arguments.{key} is not for a config to set")
    kind = arguments.pop("model_type", None)
    with _quiet():
        if folder is None and kind is None:
            folder = files_of(config, weights=False)
        found = _described(config, kind) if folder is None else _read(config, folder)
    if kind is not None and found.model_type != kind:
        raise CuttlefishError(f"{folder} holds a {found.model_type}, and model={config.name} is a {kind}")
    known = type(found)().to_dict()
    for name, value in arguments.items():
        if name not in known and name not in found.attribute_map:
            raise CuttlefishError(
                f"model.arguments.{name} is no setting of transformers' {found.model_type}"
                f"{did_you_mean(name, known)}"
            )
        setattr(found, name, value)
    return found


def _described(config: ModelConfig, kind: str) -> Any:
    auto = imported("transformers.models.auto.modeling_auto", config)
    known = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if kind not in known:
        raise CuttlefishError(
            f"model.arguments.model_type={kind} is no text classifier of transformers"
            f"{did_you_mean(kind, known)}"
        )
    return imported("transformers", config).AutoConfig.for_model(kind)


def _read(config: ModelConfig, folder: Path) -> Any:
    try:
        return imported("transformers", config).AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise CuttlefishError(f"{folder / 'config.json'} cannot be used: {_first_line(error)}") from error


def _initialised(config: ModelConfig, description: Any) -> Any:
    auto = imported("transformers", config).AutoModelForSequenceClassification
    try:
        return auto.from_config(description, attn_implementation="sdpa", dtype=torch.float32)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CuttlefishError(f"{config.name} cannot be built: {_first_line(error)}") from error


def _loaded(config: ModelConfig, description: Any, folder: Path) -> Any:
    auto = imported("transformers", config).AutoModelForSequenceClassification
    try:
        network, report = auto.from_pretrained(
            folder,
            config=description,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # the head's, which is new; others are refused below
            output_loading_info=True,
        )
    except Exception as error:  # safetensors' and transformers' exceptions depend on the version
        raise CuttlefishError(f"the weights in {folder} cannot be loaded: {_first_line(error)}") from error
    _check_encoder(folder, network, report)
    return network


def _check_encoder(folder: Path, network: Any, report: dict[str, Any]) -> None:
    """Raise CuttlefishError unless all weights but those of the head (and pooler) are the checkpoint's."""
    encoder = f"{network.base_model_prefix}."
    for name, there, here in sorted(report["mismatched_keys"]):
        if name.startswith(encoder):
            raise CuttlefishError(
                f"{name} has the shape {tuple(there)} in {folder} and {tuple(here)} in the model: "
                "check model.arguments"
            )
    missing = [name for name in report["missing_keys"] if name.startswith(encoder)]
    missing = [name for name in missing if ".pooler." not in name]
    if missing:
        raise CuttlefishError(
            f"the weights in {folder} are not those of this {network.config.model_type}: {min(missing)} and "
            f"{len(missing) - 1} more are missing"
        )


def _positions(network: nn.Module) -> int:
    """Return the longest input; some kinds (RoBERTa) begin to count behind the padding's index."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return getattr(network.config, "max_position_embeddings", None) or 512


def imported(library: str, config: ModelConfig) -> Any:
    """Import a library of the extra `text` when it is needed."""
    from importlib import import_module

    try:
        return import_module(library)
    except ImportError as error:
        raise CuttlefishError(
            f"model={config.name} needs {library}, which cannot be imported ({error}): "
            "pip install -e '.[text]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back transformers' progress bars and its notes on heads that are new, as all of ours are."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
