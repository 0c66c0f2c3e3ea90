"""What a scale is, against the experiments that run it."""

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.config.validate import to_dict
from cuttlefish.evidence.admission import not_admitted, own_batches, why_not_evidence
from cuttlefish.record.fields import Record
from tests.helpers.planned_runs import ran
from tests.helpers.runs import CONF


def recorded(*words):
    """A record with the config of these words."""
    config = to_dict(compose_config(CONF, words))
    named = {name: config[name]["name"] for name in ("data", "method", "model")}
    return Record(scale=config["scale"], seed=config["seed"], config=config, **named)


@pytest.mark.parametrize("words", [
    "experiment=reduced/cell model=vgg19 method=imp",
    "experiment=table1 method=full_rank model=resnet18 data=cifar10",
    "experiment=table1 method=cuttlefish preset=reference method.k=paper model=vgg19 data=cifar100",
    "experiment=table1 method=full_rank model=resnet18 data=svhn",
    "experiment=figure1 method=pufferfish preset=reference model=resnet18 data=cifar10",
    "experiment=table2 model=resnet50 data=imagenet method=cuttlefish preset=reference",
    "experiment=table3 model=resmlp_s36 data=imagenet method=pufferfish",
    "experiment=table4 model=bert_base data=glue/mrpc method=cuttlefish preset=reference",
    "experiment=table4 model=minilm data=glue/rte method=full_rank scale=reduced",
    *(
        f"experiment={table} model=reduced/{model} data=cifar10 recipe={recipe} data.images_per_class=1000 scale=reduced method=pufferfish"
        for table, model, recipe in [
            ("table2", "resnet50", "reduced"), ("table3", "deit", "reduced_adamw"), ("table3", "resmlp", "reduced_adamw"),
        ]
    ),
    *(
        f"experiment=table1 method={method} preset=reference recipe.batch_size={batch} model=resnet18 data=cifar10"
        for method, batch in {"lc": 128, "imp": 128, "grasp": 128, "eb": 256, "xnor": 1024, "si_fd": 1024}.items()
    ),
])  # fmt: skip
def test_what_the_experiments_run_counts(words):
    record = recorded(*words.split())
    config = record.config
    assert why_not_evidence(record) == ""
    config["recipe"]["epochs"] += 1
    assert f"recipe.epochs={config['recipe']['epochs']}" in why_not_evidence(record)


def test_a_network_of_another_size_counts_for_no_claim():
    words = "experiment=table3 model=reduced/deit data=cifar10 recipe=reduced_adamw data.images_per_class=1000 scale=reduced"
    record = recorded(*words.split(), "model.arguments.depth=4", "method=full_rank")
    assert "model.arguments={" in why_not_evidence(record) and "'depth': 4" in why_not_evidence(record)


def test_the_batches_of_methods_with_their_own_are_those_of_the_rows():
    assert own_batches() == {"lc": [128], "imp": [128], "grasp": [128], "eb": [256]}
    config = {"recipe": {"epochs": 300, "batch_size": 128}, "model": {"width": 64}}
    paper = {"scale": "paper", "data": "cifar10", "config": config}
    assert why_not_evidence(Record(**paper, method="lc")) == ""
    assert "recipe.batch_size=128" in why_not_evidence(Record(**paper, method="xnor"))


@pytest.mark.parametrize("setting, told", [
    ({"data": {"kind": "cifar100"}}, "data.kind=cifar100"), ({"data": {"name": "svhn"}}, "data.name=svhn"),
    ({"model": {"name": "vgg19"}}, "model.name=vgg19"),
    ({"method": {"name": "full_rank"}}, "method.name=full_rank"), ({}, ""),
])  # fmt: skip
def test_a_run_that_is_not_what_it_is_called_counts_for_no_claim(setting, told):
    reason = why_not_evidence(ran("low", setting=setting).record)
    assert reason == (f"its config is not of what it is called: {told}" if told else "")


def test_what_counts_for_no_claim_is_told_with_its_reason():
    odd = {"setting": {"model": {"width": 32}}}
    runs = [ran("low"), ran("low", 1, **odd), ran("low", 2, status="failed", **odd)]
    (told,) = not_admitted(runs)
    assert told.path == runs[1].path
    assert told.reason == "counts for no claim: not what the reduced scale is: model.width=32"


def test_no_run_of_data_without_a_recipe_counts():
    own = Record(scale="paper", data="folder", method="full_rank", config={"recipe": {"epochs": 90}})
    assert "recipe.epochs=90" in why_not_evidence(own)
    assert why_not_evidence(Record(scale="free", data="digits", method="full_rank", config={})) == ""
