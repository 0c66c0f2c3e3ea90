"""Work side by side: results in order, the same with any number of threads, and torch's own threads kept."""

import pytest
import torch
from torch import nn

from cuttlefish import factorize
from cuttlefish.lowrank.rank import stable_rank, stable_ranks
from cuttlefish.lowrank.threads import side_by_side


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_torch_keeps_its_threads(threads):
    inside = list(side_by_side(lambda x: (x, torch.get_num_threads()), ((x,) for x in range(20))))
    assert inside == [(x, 1) for x in range(20)]
    assert torch.get_num_threads() == threads


def test_few_tasks_are_drawn_ahead(threads):
    drawn = []
    results = side_by_side(lambda x: x, ((drawn.append(x) or x,) for x in range(50)))
    assert next(results) == 0
    assert len(drawn) <= 2 * threads
    results.close()
    assert torch.get_num_threads() == threads


def test_an_error_comes_through(threads):
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda x: 1 // x, ((x,) for x in (1, 0, 1))))
    assert torch.get_num_threads() == threads


def test_factors_are_the_same_with_any_number_of_threads(threads):
    def factors():
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(60, 60) for _ in range(6)))
        return factorize(model, {str(i): 4 + i for i in range(6)}).state_dict()

    found = factors()
    torch.set_num_threads(1)
    torch.testing.assert_close(found, factors(), rtol=0, atol=0)


def test_stable_ranks_are_the_same_with_any_number_of_threads(threads):
    torch.manual_seed(0)
    weights = [torch.randn(150 + i, 400) for i in range(6)] + [torch.randn(20, 30)]
    found = stable_ranks(weights)
    torch.set_num_threads(1)
    assert found == stable_ranks(weights) == [stable_rank(weight) for weight in weights]
