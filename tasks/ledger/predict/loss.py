"""What a pretrained model is expected to reach, where a scaling law has been fitted on this text and family."""

from __future__ import annotations

from pathlib import Path

from tasks import accounting
from tasks.core.errors import UserError
from tasks.core.measure import Metrics, missing, modelled
from tasks.ledger.predict.subject import Subject
from tasks.scaling import law as scaling

DATA = Path("artifacts/data")


def expected_loss(about: Subject, tokens: float) -> Metrics:
    """`bits_per_byte` with its interval after training from scratch on `tokens` tokens; nothing where no law applies.

    A law speaks about the family, the text and the tokenizer it was fitted to, and about no other.
    """
    try:
        law = scaling.load()
    except UserError as error:
        return {"bits_per_byte": missing(error.message)}
    if law is None or not tokens or about.params.design.method == "existing":
        return {}
    if not law.speaks_of(DATA, about.params.design.method):
        return {}
    size = accounting.active_parameters(about.config) - accounting.embedding_parameters(about.config)
    trained, distinct = tokens * about.bytes_per_token, about.train_tokens * about.bytes_per_token
    found = law.bits_per_byte(size, trained, distinct)
    note = f"{law.source}: {size:,} parameters without embeddings, {trained:.3g} bytes of text"
    return {"bits_per_byte": modelled(found.value, note, found.low, found.high)}
