"""torchao's nuclear-norm optimizer finds low rank and leaves it dense; we make it small."""

import pytest
import torch
from torch import nn

# Not among the test extras: transformers imports torchao wherever it is installed, which takes time and warns.
pytest.importorskip("torchao", reason="torchao is not installed")

from torchao.prototype.pat.optim import PruneOptimizer  # noqa: E402

from cuttlefish import compress  # noqa: E402


def test_what_its_optimizer_leaves_dense_is_made_small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 4))
    x, teacher = torch.randn(256, 16), nn.Sequential(nn.Linear(16, 3), nn.Tanh(), nn.Linear(3, 4))
    target, pruned = teacher(x).detach(), model[2].weight
    others = [parameter for parameter in model.parameters() if parameter is not pruned]
    kind = {"prox_type": "ProxNuclearNorm", "group_type": "SVDGrouper", "reg_lambda": 0.1}
    sgd = torch.optim.SGD([{"params": others}, {"params": [pruned]} | kind], lr=0.05, momentum=0.9)
    optimizer = PruneOptimizer(sgd)
    for _ in range(120):
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()
    left = int((torch.linalg.svdvals(pruned.detach()) > 1e-5).sum())
    before = model(x).detach()
    assert 1 <= left < 24 and pruned.shape == (48, 48)
    report = compress(model, energy=1 - 1e-9, dense=["0", "4"])
    assert report.ranks == {"2": pytest.approx(left, abs=2)}
    assert report.parameters_after < report.parameters_before
    torch.testing.assert_close(model(x), before, atol=1e-4, rtol=1e-3)
