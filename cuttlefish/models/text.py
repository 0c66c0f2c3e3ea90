"""The tokenizer of a text model, and what the model says about its input."""

import hashlib
from dataclasses import dataclass
from string import ascii_lowercase, digits, punctuation
from typing import Any

import torch

from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.models.checkpoints import files_of
from cuttlefish.models.encoders import TextClassifier, encoder_config, imported

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and the model it is for.

    Attributes:
        tokenizer: A `tokenizers.Tokenizer` without padding and truncation.
        digest: Hash of its content.
        vocabulary: Number of its tokens.
        model_vocabulary: Rows of the model's embeddings.
        pad_id: The model's padding token.
        max_positions: The model's longest input, special tokens included.
        uses_token_types: Whether the model takes `token_type_ids`.
    """

    tokenizer: Any
    digest: str
    vocabulary: int
    model_vocabulary: int
    pad_id: int
    max_positions: int
    uses_token_types: bool


def tokenizer_for(config: ModelConfig) -> TextTokenizer:
    """Return the tokenizer of a config of `source=transformers`. The model's weights are not read.

    Raises:
        CuttlefishError: The model reads no text, or its tokenizer is missing.
    """
    if config.source != "transformers":
        raise CuttlefishError(
            f"{config.name} takes images and the data set has sentences: choose model=minilm or another text "
            "model, or a data set of images"
        )
    own = config.checkpoint is None and config.folder is None
    tokenizer = of_characters() if own else _read(config)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    facts = _facts(config)
    if facts.pad_id is None:
        raise CuttlefishError(f"{config.name} has no padding token, which batches of sentences need")
    return TextTokenizer(
        tokenizer,
        hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        tokenizer.get_vocab_size(),
        facts.vocabulary,
        facts.pad_id,
        facts.max_positions,
        facts.uses_token_types,
    )


def of_characters() -> Any:
    """Return a WordPiece tokenizer that knows lower-case ASCII characters only, for models without one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = ascii_lowercase + digits
    tokens = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *punctuation]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return tokenizer


def _read(config: ModelConfig) -> Any:
    tokenizers, folder = imported("tokenizers", config), files_of(config, weights=False)
    try:
        if (folder / "tokenizer.json").is_file():
            return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        auto = imported("transformers", config).AutoTokenizer
        return auto.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
    except Exception as error:  # tokenizers raises bare exceptions
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise CuttlefishError(f"{folder} has no tokenizer that can be used: {reason}") from error


def _facts(config: ModelConfig) -> TextClassifier:
    """Return the model without any numbers in it."""
    folder = None if config.checkpoint is None and config.folder is None else files_of(config, weights=False)
    description = encoder_config(config, folder if config.pretrained else None)
    auto = imported("transformers", config).AutoModelForSequenceClassification
    with torch.device("meta"):
        return TextClassifier(auto.from_config(description))
