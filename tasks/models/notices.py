"""What libraries say that nobody who uses this project needs to hear."""

from __future__ import annotations

import logging


def drop_notices_of_missing_kernels() -> None:
    """Drop the lines in which libraries regret optional packages, and a cast in every layer; what is computed is the same."""
    libraries = (
        "bitsandbytes.backends.cpu.ops",
        "bitsandbytes.autograd._functions",
        "transformers.integrations.hub_kernels",
    )
    for name in libraries:
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    said = str(record.msg)
    old = (
        "Failed to load CPU gemm_4bit_forward",
        "is falling back to its reference",
        "MatMul8bitLt: inputs will be cast",
    )
    return not any(part in said for part in old)
