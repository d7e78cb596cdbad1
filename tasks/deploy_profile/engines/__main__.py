"""The fresh process of one engine: `python -m tasks.deploy_profile.engines NAME < request.json`.

The outcome is the last line of standard output, as JSON.
One ruler for all engines: this file holds the clock, the warm-up and the memory gauge, an engine only generates.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tasks.core.errors import UserError
from tasks.deploy_profile.engines import ENGINES, Engine, Generation, Outcome, Request


def profile(name: str, request: Request) -> Outcome:
    """Load, warm up, measure.

    Raises:
        UserError: the engine's package is missing, or the model cannot be loaded.
    """
    entry = ENGINES[name]
    start = time.perf_counter()
    try:
        module = importlib.import_module(entry.module)
    except ImportError as error:
        raise UserError(
            f"deploy_profile.engines: {name} cannot start: {error}",
            f"install the package {entry.package}, or take {name} out of the list",
        ) from None
    imported = time.perf_counter()
    engine: Engine = module.load(request)
    loaded = time.perf_counter()
    tokens = engine.tokens(request.prompt, request.max_new_tokens)
    tokenized = [engine.tokenize(text) for text in request.texts]
    for _ in range(request.warmup):
        engine.generate(request.prompt, request.max_new_tokens)
    generations, busy = _measure(engine, request)
    return Outcome(
        version=engine.version,
        device=engine.device,
        import_seconds=imported - start,
        load_seconds=loaded - imported,
        tokens=tokens,
        tokenized=tokenized,
        generations=generations,
        peak_memory_bytes=_peak_memory_bytes(),
        device_bytes=engine.device_bytes(),
        busy_elsewhere=busy,
    )


def _measure(engine: Engine, request: Request) -> tuple[list[Generation], float | None]:
    generations = []
    start, own_start, all_start = time.perf_counter(), time.process_time(), _machine_cpu_seconds()
    for _ in range(request.repeats):
        cpu = time.process_time()
        stamps = engine.generate(request.prompt, request.max_new_tokens)
        generations.append(Generation(stamps, time.process_time() - cpu))
    wall, own, everyone = time.perf_counter() - start, time.process_time() - own_start, _machine_cpu_seconds()
    if all_start is None or everyone is None:
        return generations, None
    share = (everyone - all_start - own) / (wall * (os.cpu_count() or 1))
    return generations, max(0.0, share)


def _machine_cpu_seconds() -> float | None:
    """Processor seconds of everything on the machine, time stolen by a hypervisor included."""
    import psutil

    times = psutil.cpu_times()._asdict()
    fields = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(times.get(field, 0.0) for field in fields) if "user" in times else None


def _peak_memory_bytes() -> int:
    # Linux hands ru_maxrss down through exec: the child of a large process would report its parent's peak.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    """Answer the request on standard input."""
    try:
        outcome = profile(sys.argv[1], Request(**json.load(sys.stdin)))
    except UserError as error:
        sys.stdout.write(f"\n{json.dumps({'message': error.message, 'hint': error.hint})}\n")
        return error.code
    sys.stdout.write(f"\n{json.dumps(asdict(outcome))}\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
