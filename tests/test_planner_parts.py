"""The planner's parts: amounts, quality, context, network, roofline, and what it refuses to plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import accounting
from tasks.core.errors import UserError
from tasks.planner import Constraints, search
from tasks.planner.binding import reach
from tasks.planner.constraints import amount
from tasks.planner.network import traffic
from tasks.planner.quality import Quality
from tasks.planner.roofline import phases
from tasks.planner.search import SLACK
from tests.test_planner import HOURS, LAW, MACHINE, limit, params, planned


@pytest.fixture(autouse=True)
def _no_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a folder without earlier runs: no fitted law, no scores."""
    monkeypatch.chdir(tmp_path)


def test_a_wanted_quality_takes_a_law() -> None:
    """Without a law of one's own no quality is promised; with one the prediction has bounds."""
    with pytest.raises(UserError, match="has been fitted to your text"):
        planned(limit("bits_per_byte", 1.2))
    published, own = Quality(None, 3.4, 1e8), Quality(LAW, 3.4, 1e8)
    assert published.judged(1e7, 1e9).method == "assumed"
    value = own.judged(1e7, 1e8)
    assert value.low is not None
    assert value.high is not None
    assert value.low < (value.value or 0) < value.high
    nats = 1.8172 + 482.01 / 1e7**0.3478 + 2085.43 / 2e7**0.3658
    assert published.value(1e7, 6.8e7) == pytest.approx(nats / 0.693147 / 3.4, rel=1e-5)
    assert published.value(1e7, 4e8) > Quality(None, 3.4, 4e8).value(1e7, 4e8)


def test_a_longer_context_is_trained_for_and_paid_for() -> None:
    """The context asked for is what positions and training allow; its cache takes memory and time of every token."""
    short, long = planned(HOURS), planned(HOURS, context=4096)
    values = long.values
    assert values["design.llama.max_position_embeddings"] == values["pretrain.context_length"] == 4096
    assert values["pretrain.batch_size"] == 1
    assert "pretrain.context_length" not in short.values
    shape = next(one.shape for one in long.considered if one.shape.parameters == short.chosen.shape.parameters)
    cache = accounting.cache_bytes(shape.config, 4096) - accounting.cache_bytes(shape.config, 112)
    other = next(
        one.shape
        for one in short.considered
        if (one.shape.kind, one.shape.parameters) == (shape.kind, shape.parameters)
    )
    assert (shape.base["memory_bytes"] or 0) - (other.base["memory_bytes"] or 0) == pytest.approx(cache)
    assert (shape.base["seconds_per_token"] or 0) > (other.base["seconds_per_token"] or 0)
    assert any(gain.figure == "context" for gain in long.gains)


def test_a_reach_is_reached() -> None:
    """The least of a figure within a limit is that of a candidate, and within a tighter limit no lower."""
    plan = planned(HOURS)
    shapes = plan.field.shapes(plan.constraints, SLACK)
    loose, tight = (reach(shapes, "bits_per_byte", [limit("seconds", most)]) for most in (7200, 900))
    assert loose is not None
    assert tight is not None
    assert loose < tight
    assert reach(shapes, "seconds", [limit("model_bytes", 1.0)]) is None


@pytest.mark.parametrize(
    ("text", "kind", "unit", "value"),
    [
        ("512MB", "bytes", "", 512e6),
        ("8GiB", "bytes", "", 8 * 2**30),
        ("1.5 GB", "bytes", "", 1.5e9),
        ("4096", "bytes", "", 4096),
        ("2", "time", "h", 7200),
        ("90min", "time", "h", 5400),
        ("20ms", "time", "s", 0.02),
        ("2e15", "flops", "", 2e15),
        ("3PFLOP", "flops", "", 3e15),
        ("0.1kWh", "energy", "", 3.6e5),
        ("$2.50", "money", "", 2.5),
        ("8k", "tokens", "", 8000),
    ],
)
def test_amounts(text: str, kind: str, unit: str, value: float) -> None:
    """An amount is a number and a unit; a bare number is in the option's own."""
    assert amount(text, "--x", kind, unit) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "MB", "512 M", "512mb", "-3MB", "0MB", "1e999GB", "1.2.3GB", "nan", "12 apples"])
def test_what_is_no_amount(text: str) -> None:
    """Anything else is refused with the option, what was found, and the units there are."""
    with pytest.raises(UserError, match="--memory: found") as found:
        amount(text, "--memory", "bytes")
    assert "GiB" in found.value.hint


def test_what_cannot_be_planned() -> None:
    """An unknown family, an existing model, a text that isn't there: each says so."""
    with pytest.raises(UserError, match="'lama' is no architecture family") as found:
        search(params(), MACHINE, Constraints((), None, ("lama",)))
    assert "llama" in found.value.hint
    with pytest.raises(UserError, match="'existing' takes a model as it is"):
        search(params(design__method="existing"), MACHINE, Constraints())
    with pytest.raises(UserError, match="not there yet"):
        search(params(data__source="nowhere"), MACHINE, Constraints())


def test_network() -> None:
    """Four workers: two passes of 3/4 of the gradients, or three of the parameters; seconds where the link is known."""
    plan = planned(HOURS)
    size = plan.chosen.shape.parameters
    sent = traffic(plan.stages, plan.params, 4, 1e9)
    ddp, fsdp = (one for one in sent if one.stage == "pretrain")
    assert ddp.step_bytes.value == pytest.approx(2 * 3 / 4 * 4 * size)
    assert fsdp.step_bytes.value == pytest.approx(3 * 3 / 4 * 4 * size)
    assert ddp.total_bytes.value == pytest.approx((ddp.step_bytes.value or 0) * plan.chosen.steps)
    assert ddp.seconds.value == pytest.approx((ddp.total_bytes.value or 0) / 1e9)
    unknown = traffic(plan.stages, plan.params, 4, 0.0)[0].seconds
    assert unknown.value is None
    assert "--on" in unknown.note
    with pytest.raises(UserError, match="--workers: found 1"):
        traffic(plan.stages, plan.params, 1, 0.0)


def test_rooflines_count_what_accounting_counts() -> None:
    """FLOPs of each phase are accounting's; a token moves every weight once, so that decoding is bound by memory."""
    plan = planned(HOURS)
    chosen = plan.chosen
    config, profile = chosen.shape.config, plan.params.deploy_profile
    training, prefill, decode = phases(chosen, 2)
    pretrain = plan.params.pretrain
    tokens = pretrain.batch_size * pretrain.context_length
    products = sum(work.flops for work in training.works if work.kind != "AdamW")
    assert products == pytest.approx(tokens * accounting.training_flops_per_token(config, pretrain.context_length))
    told = profile.prompt_tokens + profile.max_new_tokens
    assert sum(work.flops for work in decode.works) == accounting.decode_flops_per_token(config, told)
    logits = (profile.prompt_tokens - 1) * accounting.read(config).head_matrix.flops
    whole = profile.prompt_tokens * accounting.forward_flops_per_token(config, profile.prompt_tokens)
    assert sum(work.flops for work in prefill.works) == pytest.approx(whole - logits)
    moved = sum(work.bytes for work in decode.works)
    assert moved == pytest.approx((chosen.figures["model_bytes"] or 0), rel=0.35)
    peak, bandwidth = MACHINE.gemm_flops_per_second["float32"], MACHINE.bandwidth_bytes_per_second
    assert all(work.bytes / bandwidth > work.flops / peak for work in decode.works)
    assert training.works[0].intensity > prefill.works[0].intensity > decode.works[0].intensity


def test_what_the_lifecycle_cannot_carry_is_left_out() -> None:
    """A family that a configured stage refuses is counted with the reason; where it is alone, that is the answer."""
    plan = search(params(), MACHINE, Constraints((HOURS,), None, ("llama", "mistral")))
    assert {one.shape.family for one in plan.considered} == {"llama"}
    assert sum(plan.left_out.values()) > 0
    assert all("deploy_profile.gguf" in reason and "MistralForCausalLM" in reason for reason in plan.left_out)
    with pytest.raises(UserError, match=r"no candidate can be carried.*set deploy_profile\.gguf"):
        search(params(), MACHINE, Constraints((HOURS,), None, ("mistral",)))
    plain = params(
        deploy_profile__gguf=[], deploy_profile__serve="safetensors", deploy_profile__engines=["transformers"]
    )
    carried = search(plain, MACHINE, Constraints((HOURS,), None, ("mistral",)))
    assert {one.shape.kind for one in carried.considered} >= {"safetensors", "int8"}
    assert carried.values["design.method"] == "mistral"
