"""Several processes decide as one; sharded and wrapped models are refused before anything changes."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from cuttlefish import Cuttlefish, CuttlefishError, LowRankConv2d, factorize
from cuttlefish.lowrank.profiling import timing
from tests.helpers.little_networks import IMAGES, network, step

FIXED = {"k": 1, "switch_epoch": 1, "rank_ratio": 0.25}


@pytest.fixture
def gloo(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_decisions_are_the_first_process_s(monkeypatch):
    """On the second process of two, whose own clock and weights say otherwise."""
    monkeypatch.setattr(timing, "measure", lambda layer, conditions: (1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    first = Cuttlefish(network(), IMAGES, k=1, switch_epoch=1, keep_dense=False)
    profile = {"k": 2, "layers": ["6"], "stacks": [], "ratio": 0.25, "threshold": 1.5}
    sent = [profile, {"6": 5.0}, first.tracker.first, {"6": 2.5}]

    def receive(box, src):
        assert src == 0
        box[0] = sent.pop(0)

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "broadcast_object_list", receive)
    cf = Cuttlefish(network(7), IMAGES, switch_epoch=1, keep_dense=False)
    assert cf.k == 2 and cf.layers == ["6"] and cf.epoch_end() and cf.ranks == {"6": 12} and not sent


def test_the_model_is_wrapped_again_after_the_switch(gloo, caplog):
    model = network()
    cf = Cuttlefish(model, IMAGES, **FIXED)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(cf.param_groups(0.1), lr=0.1)
    step(wrapped, optimizer, cf)
    with pytest.raises(CuttlefishError, match="wrapped in DistributedDataParallel"):
        Cuttlefish(wrapped, IMAGES, **FIXED)
    assert cf.epoch_end()
    cf.optimizer(optimizer)
    step(wrapped, optimizer, cf)
    (told,) = [record.getMessage() for record in caplog.records if record.name == "cuttlefish"]
    assert "a DistributedDataParallel from before the switch is alive" in told
    del wrapped
    again = DistributedDataParallel(model)
    assert isinstance(again.module[3], LowRankConv2d) and step(again, optimizer, cf) > 0


def test_an_old_wrapper_beside_a_new_one_is_no_mistake(gloo, caplog):
    model = network()
    cf = Cuttlefish(model, IMAGES, **FIXED)
    kept = wrapped = DistributedDataParallel(model)  # kept by a checkpoint saver, say
    optimizer = cf.optimizer(torch.optim.SGD(cf.param_groups(0.1), lr=0.1))
    step(wrapped, optimizer, cf)
    assert cf.epoch_end()
    wrapped = DistributedDataParallel(model)
    assert step(wrapped, optimizer, cf) > 0 and kept is not wrapped
    assert not [record for record in caplog.records if record.name == "cuttlefish"]


def test_low_rank_before_sharding_and_not_after(gloo):
    model = factorize(network(), {"3": 5})
    expected = model(IMAGES).detach()
    mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
    fully_shard(model, mesh=mesh)
    torch.testing.assert_close(model(IMAGES).detach(), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(
        CuttlefishError, match="FSDPModule and cannot be changed in place; change the model before"
    ):
        factorize(model, {"6": 5})
    with pytest.raises(CuttlefishError, match="before it is sharded"):
        Cuttlefish(model, IMAGES, **FIXED)


def test_nothing_is_sent_without_a_group():
    assert not distributed.is_initialized()
    assert Cuttlefish(nn.Sequential(*network()), IMAGES, **FIXED).k == 1
