"""Engine llama.cpp, through the server that `xllamacpp` carries; it listens on the loopback interface only."""

from __future__ import annotations

import http.client
import json
import time
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import xllamacpp

from tasks.core.errors import UserError
from tasks.deploy_profile.engines import Engine, Request, Stamp


class _LlamaCpp:
    def __init__(self, request: Request) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = request.model
        params.n_ctx = len(request.prompt) + request.max_new_tokens + 8
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request.threads
        params.hostnames, params.port = ["127.0.0.1"], 0
        params.n_parallel = 1
        params.cache_ram_mib = 0
        params.n_ctx_checkpoints = 0
        params.fit_params = False
        params.warmup = False
        params.offline = True
        params.ui = False
        params.verbosity = 1
        try:
            self.server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{request.model}: llama.cpp cannot load it ({error})", "`dvc repro -f deploy_profile` writes it anew"
            ) from None
        address = urlsplit(self.server.listening_address)
        self.host, self.port = str(address.hostname), int(address.port or 0)
        self.forbidden = [[token, False] for token in request.forbidden]
        self.device = _device()
        self.version = f"xllamacpp {version('xllamacpp')}"

    def _ask(self, prompt: list[int], count: int) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "n_predict": count,
            "max_tokens": count,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "logit_bias": self.forbidden,
            "ignore_eos": True,
            "cache_prompt": False,
        }

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise RuntimeError(f"llama.cpp's {path} answered {response.status}: {answer}")
        return answer

    def tokens(self, prompt: list[int], count: int) -> list[int]:
        made: list[int] = self._post("/completion", {**self._ask(prompt, count), "return_tokens": True})["tokens"]
        return made

    def generate(self, prompt: list[int], count: int) -> list[Stamp]:
        arrived: list[tuple[float, dict[str, Any]]] = []
        ask = {**self._ask(prompt, count), "stream": True, "timings_per_token": True}
        start = time.perf_counter()
        self.server.handle_completions(ask, lambda event: arrived.append((time.perf_counter() - start, event)))
        return stamps([(seconds, event["timings"]) for seconds, event in arrived if "timings" in event])

    def tokenize(self, text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": True}
        ids: list[int] = self._post("/tokenize", body)["tokens"]
        return ids

    def device_bytes(self) -> int | None:
        return None


def stamps(events: list[tuple[float, dict[str, Any]]]) -> list[Stamp]:
    """Stamps of a stream of (arrival in seconds, the server's `timings`).

    The server holds back tokens that end within a UTF-8 character, so an event may bring several; the first token's
    time is then the event's arrival less what the server says it has been generating since (0 for a single token).
    """
    found: list[Stamp] = []
    for seconds, timings in events:
        count = timings["predicted_n"]
        if not found:
            since = timings["predicted_ms"] / 1000 if count > 1 else 0.0
            found.append(Stamp(seconds - since, 1))
        if count > found[-1].tokens:
            found.append(Stamp(seconds, count))
    return found


def _device() -> str:
    names = [device["name"] for device in xllamacpp.get_device_info()]
    return ", ".join(names) or "CPU"


def load(request: Request) -> Engine:
    """Load the GGUF file `request.model`.

    Raises:
        UserError: llama.cpp doesn't read the file.
    """
    return _LlamaCpp(request)
