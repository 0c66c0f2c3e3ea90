import pytest

from cuttlefish.config.choices import GROUPS, help_text, list_choices


@pytest.fixture
def small(tmp_path):
    (tmp_path / "model" / "big").mkdir(parents=True)
    (tmp_path / "model" / "b.yaml").write_text(
        "# @package _global_\n# Second line says it.\n# More.\nname: b\n"
    )
    (tmp_path / "model" / "a.yaml").write_text("name: a\n# too late\n")
    (tmp_path / "model" / "big" / "c.yaml").write_text("# Nested.\n")
    (tmp_path / "config.yaml").write_text(
        "hydra:\n  help:\n    template: |\n      Choices:\n      $APP_CONFIG_GROUPS\n      costs $5\n"
    )
    return tmp_path


def test_choices_are_the_files_with_their_first_comment(small):
    assert list_choices([small], "model") == {"a": "", "b": "Second line says it.", "big/c": "Nested."}
    assert list_choices([small], "nothing") == {}


def test_help_lists_the_choices_in_the_template(small):
    text = help_text([small])
    assert text.startswith("Choices:\nmodel=a\nmodel=b      Second line says it.\nmodel=big/c  Nested.\n")
    assert text.rstrip().endswith("costs $5")


def test_the_real_help_explains_every_choice(conf):
    text = help_text([conf])
    for group in GROUPS:
        for choice, comment in list_choices([conf], group).items():
            assert comment and len(comment) <= 90, (
                f"{group}/{choice}.yaml should begin with a comment of one short sentence"
            )
            assert f"{group}={choice} " in text and comment in text
