"""The networks that `scripts.probe` tries: (library, name, function that returns a model and a batch)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from cuttlefish.lowrank.trace import Batch

Build = Callable[[], tuple[nn.Module, Batch]]

FEW, FOUR = {"depth": 2}, {"depths": (1, 1, 1, 1)}
TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "deit_tiny_patch16_224": (224, FEW),
    "vit_tiny_patch16_224": (224, FEW),
    "resmlp_12_224": (224, {}),
    "mixer_s32_224": (224, {}),
    "gmlp_ti16_224": (224, {}),
    "beit_base_patch16_224": (224, FEW),
    "eva02_tiny_patch14_224": (224, FEW),
    "cait_xxs24_224": (224, FEW),
    "xcit_nano_12_p16_224": (224, FEW),
    "swin_tiny_patch4_window7_224": (224, FOUR),
    "swinv2_tiny_window8_256": (256, FOUR),
    "pit_ti_224": (224, {}),
    "levit_128s": (224, {}),
    "twins_svt_small": (224, {"depths": (1, 1, 2, 1)}),
    "davit_tiny": (224, FOUR),
    "coatnet_0_rw_224": (224, {}),
    "maxvit_nano_rw_256": (256, {}),
    "mobilevit_xxs": (128, {}),
    "edgenext_xx_small": (128, {}),
    "fastvit_t8": (128, {}),
    "efficientformer_l1": (224, {}),
    "poolformer_s12": (128, {}),
    "convnext_atto": (128, FOUR),
    "convnextv2_atto": (128, FOUR),
    "mobilenetv3_small_050": (128, {}),
    "efficientnet_b0": (128, {}),
    "ghostnet_050": (128, {}),
    "regnety_002": (128, {}),
    "repvgg_a0": (128, {}),
    "densenet121": (128, {}),
    "resnet26d": (128, {}),
    "nf_resnet26": (128, {}),
}
"""Name → side of the images, and fewer blocks where all are alike."""
TORCHVISION = {
    "resnet18": 96,
    "mnasnet0_5": 96,
    "mobilenet_v2": 96,
    "shufflenet_v2_x0_5": 96,
    "googlenet": 96,
    "squeezenet1_1": 96,
    "vit_b_16": 224,
}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = {
    "bert": ("BertForSequenceClassification", "BertConfig", SIZES),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 2},
    ),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", SIZES),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 2}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", SIZES),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 2},
    ),
}


def _timm(name: str, side: int, blocks: dict[str, Any]) -> tuple[nn.Module, Batch]:
    import timm

    return timm.create_model(name, num_classes=10, **blocks), torch.randn(2, 3, side, side)


def _torchvision(name: str, side: int) -> tuple[nn.Module, Batch]:
    import torchvision

    options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, num_classes=10, **options), torch.randn(2, 3, side, side)


def _text(kind: str, config: str, sizes: dict[str, Any]) -> tuple[nn.Module, Batch]:
    import transformers

    built = getattr(transformers, kind)(getattr(transformers, config)(vocab_size=100, **sizes))
    words = torch.randint(3, 100, (2, 12))
    batch = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    if kind.startswith("T5"):
        batch["decoder_input_ids"] = torch.randint(3, 100, (2, 6))
    return built, batch | ({"use_cache": False} if "LM" in kind or kind.startswith("T5") else {})


def _clip() -> tuple[nn.Module, Batch]:
    from transformers import CLIPConfig, CLIPModel

    vision = SIZES | {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=SIZES | {"vocab_size": 100}, vision_config=vision, projection_dim=32)
    batch = {"input_ids": torch.randint(3, 100, (2, 12)), "pixel_values": torch.randn(2, 3, 32, 32)}
    return CLIPModel(config), batch


def _whisper() -> tuple[nn.Module, Batch]:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {"layers": 2, "ffn_dim": 128, "attention_heads": 2}
    halves = {f"{half}_{name}": size for half in ("encoder", "decoder") for name, size in sizes.items()}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(vocab_size=100, d_model=64, max_source_positions=50, **halves, **tokens)
    batch = {"input_features": torch.randn(2, 80, 100), "decoder_input_ids": torch.randint(3, 100, (2, 6))}
    return WhisperForConditionalGeneration(config), batch | {"use_cache": False}


def _vit() -> tuple[nn.Module, Batch]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=32, patch_size=8, **SIZES)
    return ViTForImageClassification(config), torch.randn(2, 3, 32, 32)


class UNet(nn.Module):
    """A little U-Net: two scales down, two up, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, 2, 1), nn.Conv2d(64, 128, 3, 2, 1)]
        )
        self.up = nn.ModuleList([nn.ConvTranspose2d(128, 64, 2, 2), nn.ConvTranspose2d(64, 32, 2, 2)])
        self.merge = nn.ModuleList([nn.Conv2d(128, 64, 3, padding=1), nn.Conv2d(64, 32, 3, padding=1)])
        self.out = nn.Conv2d(32, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for layer in self.down:
            x = layer(x).relu()
            kept.append(x)
        for up, merge, skip in zip(self.up, self.merge, kept[-2::-1], strict=True):
            x = merge(torch.cat([up(x), skip], 1)).relu()
        return self.out(x)


class TwoHeads(nn.Module):
    """Boxes and classes from one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)
        )
        self.boxes, self.classes = nn.Linear(64, 4), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.trunk(x)
        return {"boxes": self.boxes(x), "classes": self.classes(x)}


def _sound() -> nn.Module:
    """1-d convolutions before linear layers."""
    convs = nn.Conv1d(1, 32, 9, 4), nn.ReLU(), nn.Conv1d(32, 64, 9, 4), nn.ReLU(), nn.AdaptiveAvgPool1d(1)
    linear = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.Linear(64, 10)
    return nn.Sequential(nn.Sequential(*convs), nn.Flatten(), *linear)


NETWORKS: list[tuple[str, str, Build]] = [
    *(("timm", name, partial(_timm, name, *how)) for name, how in TIMM.items()),
    *(("torchvision", name, partial(_torchvision, name, side)) for name, side in TORCHVISION.items()),
    *(("transformers", name, partial(_text, *words)) for name, words in TEXTS.items()),
    ("transformers", "clip", _clip),
    ("transformers", "whisper", _whisper),
    ("transformers", "vit", _vit),
    ("torch", "U-Net", lambda: (UNet(), torch.randn(2, 3, 32, 32))),
    ("torch", "two heads", lambda: (TwoHeads(), torch.randn(4, 32))),
    ("torch", "1-d convolutions", lambda: (_sound(), torch.randn(2, 1, 400))),
]
