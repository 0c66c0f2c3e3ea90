"""The callback in Lightning's own Trainer."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

lightning = pytest.importorskip("lightning.pytorch")

from cuttlefish import CuttlefishError, LowRankConv2d  # noqa: E402
from cuttlefish.integrations.lightning import CuttlefishCallback  # noqa: E402
from tests.helpers.little_networks import IMAGES, LABELS, network  # noqa: E402

KNOBS = {"k": 1, "switch_epoch": 2, "rank_ratio": 0.25}


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def training_step(self, batch, index):
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2)}


def fit(folder, callback, module=None, path=None, **options):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, LABELS), batch_size=4)
    module = module or Classifier()
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=callback, **options,
    )  # fmt: skip
    trainer.fit(module, loader, ckpt_path=path)
    return module, trainer


@pytest.mark.parametrize(("interval", "epoch"), [(None, 2), (2, 2)])
def test_it_switches_and_the_optimizer_follows(tmp_path, interval, epoch):
    callback = CuttlefishCallback(IMAGES, "net", interval=interval, frobenius_decay=1e-3, **KNOBS)
    module, trainer = fit(tmp_path, callback, max_epochs=4)
    assert callback.core.switch_epoch == epoch and isinstance(module.net[3], LowRankConv2d)
    (optimizer,) = trainer.optimizers
    assert list(map(id, optimizer.param_groups[0]["params"])) == list(map(id, module.net.parameters()))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0005), "the scheduler is still its own"
    assert "momentum_buffer" in optimizer.state[module.net[3].first.weight]


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_checkpoint_goes_on(tmp_path, epochs):
    checkpoints = lightning.callbacks.ModelCheckpoint(
        tmp_path, filename="at", every_n_epochs=epochs, save_top_k=1
    )
    whole, _ = fit(tmp_path, CuttlefishCallback(IMAGES, "net", **KNOBS), max_epochs=5)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, LABELS), batch_size=4)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        max_epochs=epochs, callbacks=[CuttlefishCallback(IMAGES, "net", epochs=5, **KNOBS), checkpoints],
    )  # fmt: skip
    trainer.fit(Classifier(), loader)
    callback = CuttlefishCallback(IMAGES, "net", resume=tmp_path / "at.ckpt", **KNOBS)
    rest, _ = fit(tmp_path, callback, path=tmp_path / "at.ckpt", max_epochs=5)
    assert callback.core.switch_epoch == 2
    torch.testing.assert_close(rest.state_dict(), whole.state_dict(), rtol=1e-5, atol=1e-6)


def test_a_wrong_name_is_told(tmp_path):
    with pytest.raises(CuttlefishError, match="Classifier has no network 'model': name the attribute"):
        fit(tmp_path, CuttlefishCallback(IMAGES, **KNOBS), max_epochs=1)


def test_several_processes_are_refused():
    callback, module = CuttlefishCallback(IMAGES), Classifier()
    with pytest.raises(CuttlefishError, match="was given 2 processes, whose DDP would go on"):
        callback.setup(SimpleNamespace(world_size=2), module, "fit")
    assert callback.core is None


@pytest.mark.parametrize(
    "average",
    [
        lambda: lightning.callbacks.EMAWeightAveraging(decay=0.5),
        lambda: lightning.callbacks.StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1),
    ],
)
def test_averages_of_lightning_s_callbacks_follow(tmp_path, average):
    callback = CuttlefishCallback(IMAGES, "net", **KNOBS)
    module, _ = fit(tmp_path, [callback, average()], max_epochs=4)
    assert callback.core.switched and isinstance(module.net[3], LowRankConv2d)
    assert module.net(IMAGES).isfinite().all()


class TwoParts(lightning.LightningModule):
    """Two networks, each with an optimizer of its own, as in a GAN."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.one, self.other = network(), network(1)

    def training_step(self, batch, index):
        for part, optimizer in zip((self.one, self.other), self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(cross_entropy(part(batch[0]), batch[1]))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=1e-3) for part in (self.one, self.other)]


def test_each_part_has_its_own_callback_and_optimizer(tmp_path):
    callbacks = [
        CuttlefishCallback(IMAGES, part, **KNOBS | {"switch_epoch": epoch})
        for part, epoch in (("one", 1), ("other", 2))
    ]
    module, trainer = fit(tmp_path, [*callbacks], TwoParts(), max_epochs=3)
    assert [callback.core.switch_epoch for callback in callbacks] == [1, 2]
    for part, optimizer in zip((module.one, module.other), trainer.optimizers, strict=True):
        assert isinstance(part[3], LowRankConv2d) and part[3].first.weight in optimizer.state
