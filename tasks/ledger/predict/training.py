"""What the stages pretrain and finetune will cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from tasks import accounting
from tasks.core.measure import Metrics, modelled
from tasks.ledger.predict import constants
from tasks.ledger.predict.chats import Batches, batches
from tasks.ledger.predict.communication import communication
from tasks.ledger.predict.cost import disk
from tasks.ledger.predict.durations import training_cost, validation_cost
from tasks.ledger.predict.loss import expected_loss
from tasks.ledger.predict.objective import Beside, beside, preferring
from tasks.ledger.predict.quality import Kept, running, samples, scoring, tasks
from tasks.ledger.predict.resident import memory_parts, peak
from tasks.ledger.predict.steps import Steps
from tasks.ledger.predict.subject import Subject
from tasks.ledger.predict.together import together
from tasks.pretrain.training import VALIDATION_SEQUENCES

NOTHING = Beside()
"""Of next-token training."""

KEPT = {
    "none": "tensors autograd keeps, counted layer by layer",
    "selective": "blocks' inputs, results of matrix products and attention, and one block's inside",
    "full": "blocks' inputs and one block's inside",
}
"""Way of gradient checkpointing -> what is counted."""


def pretrain(about: Subject) -> Metrics:
    """Training of every weight under the chosen objective, and one evaluation of the result."""
    params, extra = about.params.pretrain, beside(about)
    size = accounting.parameters(about.config)
    optimizer, shapes = params.optimizer.technique, [*accounting.parameter_shapes(about.config), *extra.shapes]
    pure = params.precision == "bf16_pure"
    steps = Steps(
        count=params.steps,
        tokens=params.batch_size * params.context_length,
        context=params.context_length,
        labelled=1.0,
        flops=_flops(about) + extra.flops * (2 / 3 if optimizer.zeroth_order else 1),
        elements=0.0,
        trained=size + extra.parameters,
        dtype=about.precision(params.precision),
        checkpoints=params.steps // params.checkpoint_every,
        state=optimizer.rounded_state_bytes(shapes) if pure else optimizer.state_bytes(shapes),
        gradients=optimizer.gradient_bytes(shapes),
        saved=size + extra.parameters,
        head=True,
        backward=not optimizer.zeroth_order,
        parts=params.gradient_accumulation_steps,
        checkpointing=params.gradient_checkpointing,
        pure=pure,
    )
    held = min(VALIDATION_SEQUENCES * params.context_length, about.validation_tokens)
    validations = params.steps // params.eval_every + 1 if params.steps else 0
    base = (2 if steps.pure else 4) * size
    metrics = _trained(about, "pretrain", steps, held * validations, base, extra=extra)
    metrics |= {"parameters": modelled(size, "exact, from the config"), **_kept(about)}
    if extra.cache is not None:
        metrics["teacher_cache_bytes"] = modelled(extra.cache, f"log-probabilities and ids; {extra.note}")
    passes = -(-int(held // params.context_length) // params.batch_size) * validations
    return communication(about, metrics, passes) | expected_loss(about, steps.count * steps.tokens)


def _flops(about: Subject) -> float:
    """Of a token: forward and backward, with one more forward pass of all but the head where blocks are computed again."""
    params = about.params.pretrain
    if params.optimizer.technique.zeroth_order:
        return 2 * accounting.forward_flops_per_token(about.config, params.context_length)
    whole = accounting.training_flops_per_token(about.config, params.context_length)
    again = whole / 3 - about.anatomy.head_matrix.flops if params.gradient_checkpointing == "full" else 0.0
    return whole + again


def finetune(about: Subject) -> Metrics:
    """Training on chats, of an adapter or of every weight; one evaluation of the result."""
    params, technique = about.params.finetune, about.params.finetune.technique
    made = batches(about)
    steps = _tuning(about, made)
    held = (2 + params.steps // params.eval_every) * made.held if params.steps else 0
    base = technique.base_bytes(about.config, about.stored, about.machine.native_bf16)
    extra = preferring(about, steps, base)
    extra = replace(extra, held=extra.held + technique.beside_bytes(about.config))
    metrics = _trained(about, "finetune", steps, held, base, extra)
    after = replace(about, config=technique.config_after(about.config)) if params.steps else about
    size = accounting.parameters(after.config)
    metrics |= {"parameters": modelled(size, "exact, from the config"), **_kept(after)}
    if about.weight_bytes > size * about.stored:
        metrics["model_bytes"] = modelled(about.weight_bytes, f"parameters x {about.stored} bytes, and the adapter")
    metrics["flops"] = replace(metrics["flops"], note=f"{metrics['flops'].note}; lengths of batches: {made.note}")
    return metrics | _adapter(about)


def _tuning(about: Subject, made: Batches) -> Steps:
    """The steps of a finetuning, of batches as they are `made`."""
    params, technique = about.params.finetune, about.params.finetune.technique
    shapes, optimizer = technique.trained_shapes(about.config), params.optimizer.technique
    trained, layers = sum(map(prod, shapes)), technique.adapted_layers(about.config)
    return Steps(
        count=params.steps,
        tokens=made.tokens,
        context=max(1, round(made.row)),
        labelled=made.labelled,
        flops=_tuning_flops(about, made, trained),
        elements=sum(
            constants.LORA_ELEMENTS_IN * layer.inputs + constants.LORA_ELEMENTS_OUT * layer.outputs for layer in layers
        ),
        trained=trained,
        dtype=about.precision(params.precision),
        checkpoints=params.steps // params.checkpoint_every,
        state=optimizer.state_bytes(shapes),
        gradients=optimizer.gradient_bytes(shapes),
        saved=sum(map(prod, technique.kept_shapes(about.config))),
        learning=technique.learning(about.config),
        head=(about.anatomy.vocab, about.anatomy.width) in shapes,
        backward=not optimizer.zeroth_order,
        lengths=len({length for _, length in made.shapes}),
        longest=max(made.documents),
        most=made.largest(params.gradient_accumulation_steps),
        parts=params.gradient_accumulation_steps,
        checkpointing=params.gradient_checkpointing,
    )


def _adapter(about: Subject) -> Metrics:
    """Bytes of what is delivered beside the base; nothing where the model itself is."""
    if not (adapter := about.adapter_bytes):
        return {}
    note = "tensors of the adapter x their bytes + header"
    return {
        "adapter_bytes": modelled(adapter, note),
        "delivery_bytes": modelled(adapter, f"adapter alone: {note}"),
    }


def _tuning_flops(about: Subject, made: Batches, trained: int) -> float:
    """Of a token, on average over the steps; what is computed once a pass and again for checkpointing included."""
    params, technique = about.params.finetune, about.params.finetune.technique
    flops: float = made.mean(lambda length: _row_flops(about, length, made.labelled))
    flops += technique.flops_per_pass(about.config) * params.gradient_accumulation_steps / made.tokens
    if params.gradient_checkpointing == "full":
        flops += made.mean(_body(about, 2 * trained * technique.frozen))
    return flops


def _row_flops(about: Subject, length: int, labelled: float) -> float:
    """Of a token of a row of `length`, on average over the steps."""
    params, technique = about.params.finetune, about.params.finetune.technique
    objective = params.objective.technique
    if params.optimizer.technique.zeroth_order:
        return 2.0 * float(technique.forward_flops_per_token(about.config, length, labelled))
    if not objective.of_chats:
        return float(objective.flops_per_token(technique, about.config, length, labelled))
    return float(technique.mean_flops_per_token(about.config, length, labelled, params.steps, about.params.seed))


def _body(about: Subject, adapter: int) -> Callable[[int], float]:
    """FLOPs of one more forward pass of a token through the blocks, by context; `adapter`: those of what lies beside them."""
    head = about.anatomy.head_matrix.flops
    return lambda context: accounting.training_flops_per_token(about.config, context) / 3 - head + adapter


def _kept(about: Subject) -> Metrics:
    size = accounting.parameters(about.config) * about.stored
    note = f"parameters x {about.stored} bytes"
    return {"model_bytes": modelled(size, note), "delivery_bytes": modelled(size, note)}


def _copied(about: Subject, steps: Steps, seconds: float) -> float:
    """Bytes of a checkpoint's copy that are still there when the next step needs the most; 0 where they are written by then.

    Args:
        about: the lifecycle.
        steps: of the training.
        seconds: of all steps.
    """
    copy = steps.checkpoint_bytes
    if not steps.checkpoints or steps.count == 1:
        return 0
    forward = seconds / steps.count / constants.BACKWARD
    return copy if disk(about.machine, copy).wall > forward else 0


def _trained(
    about: Subject, stage: str, steps: Steps, validated: float, base_bytes: int, extra: Beside = NOTHING
) -> Metrics:
    size = accounting.parameters(about.config)
    kept = size * about.stored
    judged = running(about, Kept(kept, about.stored_dtype))
    flops = steps.flops * steps.tokens * steps.count + extra.teacher_flops
    training = training_cost(about, steps) + extra.asking(about)
    validation = validation_cost(about, steps, validated)
    evaluation = scoring(about, judged, about.heldout_tokens) + samples(about, judged) + tasks(about, judged)
    files = disk(about.machine, kept * 3 + steps.checkpoints * steps.checkpoint_bytes)
    note = (
        f"{training.wall:.3g} s training + {evaluation.wall:.3g} s evaluation + "
        f"{validation.wall + files.wall:.3g} s validation and files"
    )
    cost = training + validation + evaluation + files
    held = base_bytes + 4 * extra.parameters + extra.held
    parts = memory_parts(about, steps, held)
    parts = replace(parts, passing=parts.passing + extra.passing, copied=_copied(about, steps, training.wall))
    if stage == "pretrain" and steps.count and about.params.pretrain.parallel.workers > 1:
        memory = together(about, steps, held, extra.passing, judged.bytes)
    else:
        memory = peak(about, parts, judged.bytes)
    counted = f"{steps.count} steps x {steps.tokens:g} tokens x {steps.flops:.4g} FLOP{f'; {extra.note}' if extra.note else ''}; evaluation not counted"
    metrics = cost.metrics(stage, about.machine, memory, note)
    metrics |= {"flops": modelled(flops, counted), "tokens": modelled(int(steps.tokens * steps.count), "steps x batch")}
    if steps.count:
        metrics |= {
            "trainable_parameters": modelled(steps.trained, "exact, from the config"),
            "optimizer_bytes": modelled(steps.state, "the optimizer's state, from the shapes of what is trained"),
            "checkpoint_bytes": modelled(
                steps.checkpoint_bytes,
                f"everything trained at some time, {'bfloat16' if steps.pure else 'float32'}, and optimizer state",
            ),
            **{f"activation_bytes/{way}": modelled(kept, KEPT[way]) for way, kept in parts.ways.items()},
            "training_seconds": modelled(training.wall, "products at the GEMM rate + elements at the bandwidth"),
            "tokens_per_second": modelled(steps.tokens * steps.count / training.wall, "tokens / training_seconds"),
        }
    return metrics
