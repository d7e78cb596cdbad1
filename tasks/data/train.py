"""A byte-level BPE tokenizer trained on the training documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.core.schema import Technique

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Train(Technique):
    """Byte-level BPE trained on the training documents (arXiv:1508.07909)."""

    vocab_size: int = Field(default=4096, ge=300, le=262144)
    """Number of tokens, special ones included."""
    max_bytes: int = Field(default=16_000_000, ge=1)
    """Train on at most this many bytes of text."""

    def make(self, texts: Iterable[str], init: Path) -> Any:
        """A `PreTrainedTokenizerFast` trained on `texts`; `init` isn't read."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[END_OF_TEXT, START, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_up_to(texts, self.max_bytes), trainer)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=END_OF_TEXT,
            eos_token=END_OF_TEXT,
            pad_token=END_OF_TEXT,
            additional_special_tokens=[START, END],
            clean_up_tokenization_spaces=False,
        )
        fast.chat_template = CHATML
        return fast


def _up_to(texts: Iterable[str], max_bytes: int) -> Iterator[str]:
    used = 0
    for text in texts:
        if used >= max_bytes:
            return
        used += len(text.encode())
        yield text
