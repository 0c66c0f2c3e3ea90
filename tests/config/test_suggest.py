import pytest

from cuttlefish.config.suggest import choose_from, did_you_mean


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("epoch", "epochs"),
        ("EPOCHS", "epochs"),
        ("warmup", "warmup_epochs"),
        ("warmpu_epochs", "warmup_epochs"),
        ("lr", None),
        ("", None),
    ],
)
def test_the_nearest_word_if_any_is_near(word, meant):
    assert did_you_mean(word, ["warmup_epochs", "epochs"]) == (f"; did you mean {meant}?" if meant else "")


def test_choices_need_not_be_strings_and_keep_their_spelling():
    assert did_you_mean("resnet", ["ResNet18", 5, None]) == "; did you mean ResNet18?"
    assert choose_from("x", (str(n) for n in (1, 2))) == " (choose from 1, 2)"
