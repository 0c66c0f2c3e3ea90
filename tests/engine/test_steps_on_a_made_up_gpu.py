"""What shows without a GPU: torch's fake tensors raise where devices mix or where the host asks for a value."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.batches import Batches
from cuttlefish.engine.evaluate import evaluate
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.progress import Progress
from cuttlefish.engine.step import StepRunner
from cuttlefish.engine.trainer import Trainer
from cuttlefish.loggers.base import Loggers
from cuttlefish.lowrank.decay import FrobeniusDecay
from cuttlefish.lowrank.layers import LowRankConv2d
from cuttlefish.methods.base import Method, Phase
from cuttlefish.methods.masks import Masks, prunable
from cuttlefish.models.resnet_cifar import ResNet
from cuttlefish.tasks.images import ImageTask
from cuttlefish.tasks.resident import ResidentImages

GPU = torch.device("cuda", 0)


class EpochOver(Exception):
    """Raised at an epoch's only transfer to the host, that of its sums."""


class Decayed(Method):
    def on_gradients(self, model):
        FrobeniusDecay(model, 1e-4).add_gradients()


class Masked(Method):
    def on_step_end(self, model):
        Masks({name: torch.ones_like(weight).bool() for name, weight in prunable(model).items()}).apply(model)


def whole(sums):
    assert sums.device == GPU
    raise EpochOver


def trainer_of(method):
    """The parts of a trainer that the steps of an epoch need, on a GPU that is none."""
    with GPU:  # fake parameters cannot be moved, nor their layout changed
        model = ResNet(4, width=8)
    if isinstance(method, Decayed):
        model.layer4[1].conv1 = LowRankConv2d(64, 64, 3, 9, padding=1, bias=False, device=GPU)
    pixels, labels = torch.zeros(40, 12, 12, 3, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64)
    images = ResidentImages(
        pixels, labels, mean=[0.5] * 3, std=[0.5] * 3, crop_padding=1, flip=True, device=GPU
    )
    task = ImageTask("toy", "", 4, images, images)
    world, config, recipe = (World(), TrainerConfig(channels_last=False), RecipeConfig(batch_size=16))
    progress = Progress()
    progress.begin_epoch({})
    return SimpleNamespace(
        device=GPU, config=config, recipe=recipe, average=None, world=SimpleNamespace(is_first=True, sum=whole, gather=None), progress=progress,
        context=SimpleNamespace(folder=None, model=model, device=GPU, autocast=nullcontext), loggers=Loggers(),
        timer=SimpleNamespace(section=lambda name: nullcontext()), _handle_requests=lambda sums: None, _ask_between_steps=lambda phase, epoch: None, _follow_schedule=lambda epoch: None,
        batches=Batches(task, recipe, config, 0, world),
        runner=StepRunner(model, task, method, OptimizerConfig(), 0.1, config, world, GPU, clip_norm=1.0, accumulate=3),
    )  # fmt: skip


@pytest.mark.parametrize("method", [Method, Decayed, Masked])
def test_an_epoch_s_steps_mix_no_devices_and_wait_for_none(method, monkeypatch):
    with FakeTensorMode(allow_non_fake_inputs=True):
        trainer = trainer_of(method(None))

        def backward(loss):  # the engine of the real one asks the driver
            for parameter in trainer.context.model.parameters():
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)  # the fused one has no fake form
        with pytest.raises(EpochOver):
            Trainer._train(trainer, Phase("train", range(1)), 0)
        assert trainer.progress.step == 3, "two batches of 16 and one of 8"
        with pytest.raises(EpochOver):
            evaluate(
                trainer.context, method(None), trainer.batches.task, trainer.batches.evaluate, trainer.world
            )
