import pytest

from cuttlefish.config.schema import DataConfig
from cuttlefish.data.files import data_digest
from cuttlefish.data.registry import DataSet, data_set, data_sets
from cuttlefish.errors import CuttlefishError


def test_an_unknown_kind_is_told_the_nearest():
    with pytest.raises(CuttlefishError) as caught:
        data_digest(DataConfig(kind="cifar1O"))
    assert f"(choose from {', '.join(data_sets())})" in str(caught.value)
    assert {"cifar10", "cifar100", "digits", "svhn", "synthetic"} <= set(data_sets())
    assert str(caught.value).endswith("did you mean cifar10?")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"classes": 5}, "only data=synthetic"),
        ({"kind": "digits", "train_images": 5}, "only data=synthetic"),
        ({"kind": "svhn", "image_size": 16}, "only data=digits and data=synthetic"),
    ],
)
def test_a_setting_that_a_set_does_not_take_is_refused(settings, word):
    with pytest.raises(CuttlefishError) as caught:
        data_set(DataConfig(**settings))
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_a_set_without_a_digest_cannot_be_defined():
    with pytest.raises(ValueError, match="Toys must have either files or content"):
        DataSet("Toys", classes=lambda config: 2, load=lambda config, split: None)
