"""What shows without a GPU: torch's fake tensors raise where devices mix or where the host asks for a value."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.batches import Batches
from cuttlefish.engine.epoch import EpochRunner
from cuttlefish.engine.evaluate import evaluate
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.step import StepRunner
from cuttlefish.engine.training import Training
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


def epochs_of(method):
    """An `EpochRunner` with what the steps of an epoch need, on a GPU that is none."""
    with GPU:  # fake parameters cannot be moved, nor their layout changed
        model = ResNet(4, width=8)
    if isinstance(method, Decayed):
        model.layer4[1].conv1 = LowRankConv2d(64, 64, 3, 9, padding=1, bias=False, device=GPU)
    pixels, labels = torch.zeros(40, 12, 12, 3, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64)
    images = ResidentImages(
        pixels, labels, mean=[0.5] * 3, std=[0.5] * 3, crop_padding=1, flip=True, device=GPU
    )
    task = ImageTask("toy", "", 4, images, images)
    config, recipe = (
        TrainerConfig(channels_last=False),
        RecipeConfig(batch_size=16, clip_norm=1.0, accumulate=3),
    )
    training = Training(
        SimpleNamespace(folder=None, model=model, device=GPU, autocast=nullcontext, recipe=recipe),
        method, Batches(task, recipe, config, 0, World()), config,
        SimpleNamespace(is_first=True, sum=whole, gather=None), Loggers(),
        SimpleNamespace(section=lambda name: nullcontext()), None,
        runner=StepRunner(model, task, method, recipe, 0.1, config, World(), GPU),
    )  # fmt: skip
    training.progress.begin_epoch({})
    training.context.schedule = SimpleNamespace(by_step=False)
    saver = SimpleNamespace(handle_requests=lambda sums: None)
    return EpochRunner(training, saver, lambda phase, epoch: None)


@pytest.mark.parametrize("method", [Method, Decayed, Masked])
def test_an_epoch_s_steps_mix_no_devices_and_wait_for_none(method, monkeypatch):
    with FakeTensorMode(allow_non_fake_inputs=True):
        epochs = epochs_of(method(None))
        training = epochs.training

        def backward(loss):  # the engine of the real one asks the driver
            for parameter in training.context.model.parameters():
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)  # the fused one has no fake form
        with pytest.raises(EpochOver):
            epochs._train(Phase("train", range(1)), 0)
        assert training.progress.step == 3, "two batches of 16 and one of 8"
        with pytest.raises(EpochOver):
            evaluate(
                training.context,
                method(None),
                training.batches.task,
                training.batches.evaluate,
                training.world,
            )
