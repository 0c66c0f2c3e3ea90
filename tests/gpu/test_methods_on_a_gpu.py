"""Every method on a GPU: the CPU's result, resumed to the same bits, in every precision, compiled, and without waiting for the device."""

from collections import Counter
from math import isfinite

import pytest
import torch

from cuttlefish.engine.saving import saver as saver_module
from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.folder import read_epochs
from cuttlefish.worker import run_config
from tests.helpers.comparing import assert_alike, differences, final_state
from tests.helpers.runs import EXACT, METHODS, little_config


class Stopped(Exception):
    pass


def trained(folder, method, device, **more):
    return run_config(little_config(folder, method, trainer__device=device, **more))


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_the_cpu_s(tmp_path, device, method):
    """In float64, where only the order of sums differs."""
    here = trained(tmp_path / "cpu", method, "cpu", **EXACT)
    there = trained(tmp_path / "gpu", method, device, **EXACT)
    for field in ("ranks", "switch_epoch", "k", "params_total", "params_nonzero", "epochs_trained"):
        assert getattr(there, field) == getattr(here, field), field
    assert there.loss_final == pytest.approx(here.loss_final, rel=1e-5)
    losses = [[row["train_loss"] for row in read_epochs(tmp_path / where)] for where in ("cpu", "gpu")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_resumes_to_the_same_bits(tmp_path, device, method, monkeypatch):
    whole = trained(tmp_path / "whole", method, device)
    assert whole.peak_memory_bytes > 0 and whole.device
    save = saver_module.save_checkpoint

    def falling(folder, number, state, *step):
        save(folder, number, state, *step)
        if number == 2:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(saver_module, "save_checkpoint", falling)
        with pytest.raises(Stopped):
            trained(tmp_path / "stopped", method, device)
    tensors = [value for value in final_state(tmp_path / "stopped")["model"].values()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}, "a machine without a GPU can read it"
    again = trained(tmp_path / "stopped", method, device)
    assert differences(tmp_path / "stopped", again, tmp_path / "whole", whole) == []


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_lower_precision_comes_near(tmp_path, device, method, precision):
    if precision == "tf32" and device == "cpu":
        pytest.skip("tf32 exists on GPUs only")
    exact = trained(tmp_path / "fp32", method, device)
    rough = trained(tmp_path / precision, method, device, trainer__precision=precision)
    # of the first epoch: on so few images any rounding is another run within a few more
    losses = [read_epochs(tmp_path / where)[0]["train_loss"] for where in (precision, "fp32")]
    assert isfinite(rough.loss_final) and losses[0] == pytest.approx(losses[1], rel=0.03)
    assert rough.params_total == pytest.approx(exact.params_total, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_compiled(tmp_path, device, method):
    quick = {"recipe__epochs": 3, "data__train_images": 32, "trainer__deterministic": False}
    eager = trained(tmp_path / "eager", method, device, **quick)
    fast = trained(tmp_path / "compiled", method, device, trainer__compile=True, **quick)
    assert fast.loss_final == pytest.approx(eager.loss_final, rel=0.01) and fast.seconds["compile"] > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_never_waits_for_the_device(tmp_path, device, method, precision, monkeypatch):
    """torch itself raises at the first synchronisation inside a step; the first two of a stage may set things up."""
    step, steps = StepRunner.step, Counter()

    def watched(self, *arguments, **keywords):
        steps[self] += 1
        if device == "cpu" or steps[self] <= 2:
            return step(self, *arguments, **keywords)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(self, *arguments, **keywords)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(StepRunner, "step", watched)
    trained(tmp_path, method, device, trainer__precision=precision)
    assert max(steps.values()) > 2


def test_out_of_memory_is_one_sentence_and_leaves_the_checkpoint(tmp_path, device, monkeypatch):
    if device == "cpu":
        pytest.skip("fills a GPU")
    step, steps = StepRunner.step, []

    def greedy(self, *arguments, **keywords):
        steps.append(None)
        if len(steps) == 6:
            torch.empty(2**50, dtype=torch.uint8, device=self.device)
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(StepRunner, "step", greedy)
    with pytest.raises(CuttlefishError, match="out of memory .*lower recipe.batch_size=16"):
        trained(tmp_path, "full_rank", device)
    assert final_state(tmp_path)["progress"]["trained"] == 1


@pytest.mark.parametrize("method", ["full_rank", "cuttlefish", "imp"])
def test_two_gpus_match_one(tmp_path, device, method):
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip(f"{torch.cuda.device_count()} GPU here")
    alone = trained(tmp_path / "alone", method, device, **EXACT)
    together = trained(tmp_path / "together", method, device, trainer__devices=2, **EXACT)
    assert together.world_size == 2
    assert_alike(tmp_path / "alone", alone, tmp_path / "together", together)
