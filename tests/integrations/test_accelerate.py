"""The loop under accelerate's own wrappers, on one process."""

import pytest
import torch
from torch.nn.functional import cross_entropy

accelerate = pytest.importorskip("accelerate")

from cuttlefish import Cuttlefish, LowRankConv2d  # noqa: E402
from tests.helpers.little_networks import IMAGES, LABELS, network  # noqa: E402


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_prepared_optimizer_and_scheduler_follow(accumulate, caplog):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    bare = network()
    cf = Cuttlefish(bare, IMAGES, k=1, switch_epoch=1, rank_ratio=0.25, frobenius_decay=1e-3)
    optimizer = torch.optim.AdamW(cf.param_groups(0.01), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    model, optimizer, scheduler = accelerator.prepare(bare, optimizer, scheduler)
    for _ in range(3):
        for _ in range(accumulate):
            with accelerator.accumulate(model):
                accelerator.backward(cross_entropy(model(IMAGES), LABELS))
                if accelerator.sync_gradients:
                    cf.before_step()
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        if cf.epoch_end():
            cf.optimizer(optimizer)
    assert isinstance(bare[3], LowRankConv2d) and optimizer.param_groups[0]["lr"] == 1e-2 * 0.5**3
    state = optimizer.state[bare[3].first.weight]
    assert state["step"] == 2 and optimizer.state[bare[0].weight]["step"] == 3
    assert not [record for record in caplog.records if record.name == "cuttlefish"]
