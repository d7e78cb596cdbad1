"""How the report says figures, and how it thins curves."""

from __future__ import annotations

import pytest

from flows.report import plots, words
from flows.report.courses import courses
from tasks.ledger.vocabulary import VOCABULARY


def test_curves_are_thinned() -> None:
    """Of a long history at most 600 points are drawn, the first and last among them."""
    rows = [{"step": float(step), "loss": 1.0} for step in range(100_001)]
    thin = plots.decimated(rows)
    assert len(thin) == plots.MOST
    assert (thin[0], thin[-1]) == (rows[0], rows[-1])


def test_running_mean_is_centred_and_stays_in_range() -> None:
    """A constant stays constant, a line stays a line inside, and the ends average what there is."""
    line = [{"step": float(step), "loss": float(step)} for step in range(9)]
    means = [row["loss"] for row in plots.smoothed(line, 3)]
    assert means == pytest.approx([0.5, 1, 2, 3, 4, 5, 6, 7, 7.5])
    assert [row["loss"] for row in plots.smoothed(line, 1)] == pytest.approx(range(9))


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (5_312_345, "B", "5.31 MB"), (512, "B", "512 B"), (999_999, "B", "1.00 MB"), (3072, "B/token", "3.07 kB/token"),
        (9.13e13, "FLOP", "91.3 TFLOP"), (1.2e12, "FLOP/s", "1.20 TFLOP/s"), (0.000913, "s", "913 µs"), (0.0391, "s", "39.1 ms"),
        (74.2, "s", "74.2 s"), (412.6, "s", "6 min 53 s"), (8100, "s", "2 h 15 min"), (5941.4, "J", "5.94 kJ"),
        (0.0123, "J/token", "12.3 mJ/token"), (0.01234, "$", "$0.0123"), (12.3, "$", "$12.30"), (1.2e-10, "$", "$1.2 × 10⁻¹⁰"),
        (0.00078, "kg", "780 mg"), (5_326_592, "", "5.33 M"), (3421, "", "3,421"), (0.4312, "", "0.431"), (2_457_600, "token", "2.46 M tokens"),
        (88.91, "token/s", "88.9 tokens/s"), (2.3905, "x", "2.39×"), (1.9312, "bit/B", "1.931 bit/B"), (0, "J", "0 J"), (None, "J", "n/a"),
    ],
)  # fmt: skip
def test_figures_are_said_as_people_say_them(value: float | None, unit: str, said: str) -> None:
    """Three digits that matter, a prefix that fits, and the unit."""
    assert words.human(value, unit) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wall_seconds", ("Wall time", "")),
        ("time_to_first_token_seconds/llama_cpp", ("Time to first token", "llama_cpp")),
        ("kv_cache_bytes_per_token", ("KV cache bytes per token", "")),
        ("energy_per_token_joules/transformers", ("Energy per token", "transformers")),
        ("peak_memory_bytes", ("Peak memory", "")),
        ("carbon_kg_co2e", ("Carbon CO₂e", "")),
        ("xz_bits_per_byte", ("xz bits per byte", "")),
    ],
)
def test_metrics_are_named_in_words(name: str, said: tuple[str, str]) -> None:
    """The unit that ends a name goes, the qualifier stands apart."""
    assert words.label(name) == said


def test_no_two_metrics_share_a_label() -> None:
    """Two rows of the ledger never read the same."""
    labels = [words.label(name)[0] for name in VOCABULARY]
    assert len(labels) == len(set(labels))


def test_the_course_of_training_is_drawn_where_it_is_known() -> None:
    """The gradient's norm, and MFU; without the machine's rate tokens per second; of an old history nothing."""
    rows = [{"step": float(step), "loss": 1.0, "grad_norm": 0.5, "tokens_per_second": 900.0} for step in range(4)]
    told = [plot[plot.index("aria-label=") :][:60] for plot in courses("pretrain", rows)]
    assert ["Gradient norm" in told[0], "Tokens per second" in told[1]] == [True, True]
    assert "MFU" in courses("pretrain", [row | {"mfu": 0.4} for row in rows])[1]
    assert courses("pretrain", [{"step": 0.0, "loss": 1.0}]) == []
