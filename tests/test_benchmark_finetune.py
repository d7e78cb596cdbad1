"""The table of the finetuning benchmark: which round of a trainer is shown."""

from __future__ import annotations

import pytest

from benchmarks.finetune import table


@pytest.mark.parametrize(
    ("rates", "shown"), [([90.0, 70.0, 80.0], "80"), ([77.0, 95.0], "77"), ([95.0, 77.0], "77"), ([60.0], "60")]
)
def test_the_median_round_is_shown(rates: list[float], shown: str) -> None:
    """Of an odd number of rounds the middle one, of an even number the slower of the two: never the faster."""
    rows = [
        {
            "tokens_per_second": rate,
            "losses": [3.0, 2.0],
            "seconds": [2.0, 1.0],
            "mfu": 0.5,
            "peak_bytes": 2**20,
            "precision": "fp32",
            "mean_tokens": 100.0,
        }
        for rate in rates
    ]
    row = next(line for line in table({"leanlm": rows, "peer": rows}) if line.startswith("| peer"))
    assert row.split("|")[2].strip() == shown
    assert row.split("|")[3].strip() == ", ".join(f"{rate:.0f}" for rate in rates)
