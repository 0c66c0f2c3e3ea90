from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.display.format import bar, count, duration, memory, short_count, times
from cuttlefish.display.summary import as_text, comparison_summary, run_summary


def ranks(made_up):
    return [row for epoch in range(made_up.E + 1) for row in made_up.rank_rows(epoch)]


def compared(made_up, full=None, **epochs):
    """The comparison of full rank (with these changes) and Cuttlefish as text."""
    return as_text(comparison_summary(made_up.full_rank_record(**(full or {})), made_up.record(), **epochs))


def test_a_run_fits_one_screen_and_says_what_happened(made_up):
    text = as_text(run_summary(made_up.record(), made_up.profile(), ranks(made_up)))
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) <= 30
    first, last = made_up.rank_rows(made_up.E)[0], made_up.rank_rows(made_up.E)[-1]
    for row in (first, last):
        assert f"{row['scaled_rank']} / {row['full_rank']}" in text
    for words in (
        "E = 5 of 12: every rank settled",
        "11,173,962 → 3,389,514 (3.30× smaller)",
        "555 M → 303 M (1.83× fewer)",
        "final 78.93 % · best 79.21 %",
        "compute 13 min 32 s",
        "1.00 GiB",
        "α = 0.25, τ = 1.5, timed, K = 5",
    ):
        assert words in text
    assert "…" not in text  # nothing cut off


def test_every_layer_of_the_profile_has_its_line(made_up):
    lines = as_text(run_summary(made_up.record(), made_up.profile(), ranks(made_up))).splitlines()
    starts = [line.split()[0] for line in lines if line.startswith("layer") and "." in line.split()[0]]
    assert starts == [layer for layers in made_up.STACKS.values() for layer in layers]
    assert [line for line in lines if line.startswith("layer1.1.conv2")][0].split()[1] == "dense"


def test_comparison_shows_both_runs_and_their_differences(made_up):
    both = made_up.full_rank_record(), made_up.record()
    text = as_text(comparison_summary(*both, made_up.profile(), ranks(made_up), ["plots/a.png"]))
    assert max(map(len, text.splitlines())) <= 100 and len(text.splitlines()) <= 34
    for words in ("79.43 %", "78.93 %", "-0.50 points", "3.30× smaller", "1.83× smaller"):
        assert words in text
    for words in ("1.27× faster", "plots/a.png", "E = 5 of 12"):
        assert words in text
    assert "like-for-like" not in text and "…" not in text


@pytest.mark.parametrize(
    "field, value", [("epochs", 30), ("seed", 4), ("device", "another CPU"), ("data_digest", "other")]
)
def test_comparison_warns_of_runs_that_differ_otherwise(made_up, field, value):
    assert f"Not a like-for-like comparison: {field} " in compared(made_up, {field: value})


def test_a_slower_run_is_called_slower(made_up):
    assert "2.03× slower" in compared(made_up, {"compute_seconds": 400.0})


def trained(*seconds):
    return [{"epoch": epoch, "seconds": {"train": took}} for epoch, took in enumerate(seconds, start=1)]


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        (trained(9, 3, 4, 2, 5, 8, 2, 2, 2), "3.50 s → 2.00 s: 1.75× faster (2.50× faster than"),
        (trained(1, 1, 1, 1, 1, 8), "1.00 s → 8.00 s: 8.00× slower (1.60× slower than"),
        (trained(1, 1, 1, 1, 1), "no epoch was trained low-rank"),
    ],
)
def test_a_comparison_ends_with_the_measured_speed_of_an_epoch(made_up, epochs, words):
    last = compared(made_up, full_epochs=trained(9, 5, 5, 5), epochs=epochs).splitlines()[-1]
    assert last.startswith("speed  ") and words in last
    assert len(epochs) == 5 or last.endswith(" than full rank's 5.00 s)")


def test_a_run_that_never_switched_got_no_faster(made_up):
    runs = made_up.full_rank_record(), made_up.record(switch_epoch=None, switch_reason="declined")
    text = as_text(comparison_summary(*runs, full_epochs=trained(1, 1), epochs=trained(1, 1)))
    assert text.endswith("speed  no epoch was trained low-rank")


@pytest.mark.parametrize(
    "reason, words",
    [
        ("declined", "no layer would get faster or smaller"),
        ("never", "did not settle"),
        ("own words", "own words"),
    ],
)
def test_a_run_that_stayed_dense_says_why(made_up, reason, words):
    text = as_text(run_summary(made_up.full_rank_record(switch_reason=reason), None, []))
    assert "full rank throughout" in text and words in text


def test_a_deep_model_is_grouped_to_fit(made_up):
    layers = [f"blocks.{block}.{part}" for block in range(36) for part in ("attn.qkv", "mlp.fc1")]
    rows = [dict(epoch=0, layer=layer, stable_rank=100.0, scaled_rank=192, full_rank=384) for layer in layers]
    text = as_text(run_summary(made_up.record(ranks={layer: 96 for layer in layers}), None, rows))
    assert len(text.splitlines()) <= 30
    assert "blocks.0 (2)" in text and "blocks.35 (2)" in text and "96 / 384" in text and "0.25" in text


def test_long_names_of_layers_leave_the_rest_its_room(made_up):
    layers = [f"network.bert.encoder.layer.{number}.attention.output.dense" for number in range(3)]
    sizes = {"stable_rank": 9.0, "scaled_rank": 32, "full_rank": 384}
    rows = [{"epoch": 0, "layer": layer, **sizes} for layer in layers]
    lines = as_text(run_summary(made_up.record(ranks=dict.fromkeys(layers, 96)), None, rows)).splitlines()
    assert all(any(line.startswith(layer) for line in lines) for layer in layers)
    assert any(line.startswith("parameters ") for line in lines) and max(map(len, lines)) <= 100


def test_the_cost_model_is_not_called_milliseconds(made_up):
    modelled = made_up.profile() | {"source": "cost model"}
    text = as_text(run_summary(made_up.record(), modelled, ranks(made_up)))
    assert "cost model" in text and "full GF" in text and " ms" not in text and "…" not in text


def test_numbers_as_people_read_them():
    assert [short_count(value) for value in (950, 11173962, 5.55e9, None)] == ["950", "11.2 M", "5.55 G", "–"]
    assert [duration(value) for value in (0.4, 59.9, 59.97, None)] == ["0.40 s", "59.9 s", "1 min 00 s", "–"]
    assert [duration(value) for value in (61, 3599.6, 12000)] == ["1 min 01 s", "1 h 00 min", "3 h 20 min"]
    assert [memory(value) for value in (3 * 2**20, 1.5 * 2**30, None)] == ["3 MiB", "1.50 GiB", "–"]
    assert (times(3.296), times(123.4), times(None), count(1234567.0)) == ("3.30×", "123×", "–", "1,234,567")


@settings(deadline=None)
@given(st.floats(-1, 2), st.integers(1, 30))
def test_a_bar_is_as_wide_as_asked_and_as_long_as_its_share(share, width):
    drawn = bar(share, width)
    eighths = sum(8 if char == "█" else " ▏▎▍▌▋▊▉".index(char) for char in drawn)
    assert len(drawn) == width
    assert abs(eighths / 8 - width * min(max(share, 0), 1)) <= 1 / 16 + 1e-9


def test_zeros_and_bits_are_told_apart_from_parameters(made_up):
    full = made_up.full_rank_record()
    total = full.params_total
    masked = replace(full, params_nonzero=total // 4, params_stored_bits=8 * total)
    text = as_text(run_summary(masked, None, []))
    assert f"{total:,} → {total // 4:,} (4.00× fewer); zeros are computed with all the same" in text
    assert "stored" not in text
    text = as_text(run_summary(replace(full, params_nonzero=total, params_stored_bits=total), None, []))
    assert f"{total / 8 / 2**20:.0f} MiB, 1 bits a parameter" in text and "zeros" not in text


def test_markup_and_escape_codes_in_a_record_are_shown_as_text(made_up):
    record = made_up.record(model="[bold red]m[/]\x1b[31m", device="[link=x]cpu[/link]\x07")
    text = as_text(run_summary(record, None, []))
    assert "[bold red]m[/][31m" in text and "[link=x]cpu[/link]" in text
    assert not set(text) & set("\x1b\x07")
