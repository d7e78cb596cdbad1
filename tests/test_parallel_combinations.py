"""Every optimizer under every way of sharing and every precision: refused in words, or it trains."""

from __future__ import annotations

import json

import pytest

from tasks.pretrain.conflicts import conflicts
from tests.parallel_combinations import combinations, parameters
from tests.torchrun import torchrun

REFUSED = {name for name, params in combinations().items() if list(conflicts(params))}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two workers have gone through everything that is accepted; what they could not do."""
    folder = tmp_path_factory.mktemp("combinations")
    done = torchrun(2, "tests.parallel_combinations", str(folder))
    assert done.returncode == 0, done.stderr[-5000:]
    made = {place.name for place in folder.iterdir() if place.is_dir()}
    assert made == set(combinations()) - REFUSED
    return {
        name: why for rank in (1, 0) for name, why in json.loads((folder / f"wrong-{rank}.json").read_text()).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(combinations()) - REFUSED))
def test_what_is_accepted_trains(wrong: dict[str, str], name: str) -> None:
    """Two steps; in float32 the second from the checkpoint after the first."""
    assert wrong.get(name, "") == ""


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_is_told_with_a_way_out(name: str) -> None:
    """Every sentence begins with the parameter and says what to set."""
    for sentence in conflicts(combinations()[name]):
        assert sentence.startswith("pretrain.")
        assert "found" in sentence or "updates before" in sentence or "exchanges no gradients" in sentence
        assert any(word in sentence for word in ("set ", "use ")), sentence


def test_elementwise_rules_share_their_state_and_averages_do_not() -> None:
    """ZeRO 1 takes AdamW, Lion and SGD; what one worker can't round or swap alone is refused by name."""
    for optimizer in ("adamw", "lion", "sgd"):
        assert not list(conflicts(parameters(optimizer, "zero1", "bf16")))
        for way in ("zero1", "zero2", "zero3"):
            (sentence,) = conflicts(parameters(optimizer, way, "bf16_pure"))
            assert sentence.startswith("pretrain.precision: found bf16_pure")
    (sentence,) = conflicts(parameters("schedule_free", "zero1", "bf16"))
    assert sentence.startswith("pretrain.parallel.strategy: found zero1")
