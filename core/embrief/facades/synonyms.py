"""What other libraries call the keywords, and what they are called here: one table for the facades and all wrappers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """What people mean by a keyword that is not ours."""

    keyword: str
    """The keyword here; empty where there is none. `"model"` stands for whatever a wrapper calls its model."""
    note: str = ""
    """What else there is to know; without a keyword, what there is instead, as the rest of a sentence."""


_AS_IT_IS: Mapping[str, str] = {}
_TOKENS = Meaning("max_tokens")
_CACHE = Meaning("cache_dir")
_INSTRUCTION = Meaning("instruction", "only the sentence: the model's own template is put around it, on queries alone")
_DOCUMENT = Meaning("", "documents get the model's own prompt; task= chooses another one where the model has several")
_PROMPT = Meaning("", "the side decides: queries and documents have methods of their own; task= chooses another prompt")
_DIM = Meaning("dim")
_MODEL = Meaning("model")
_NORMALIZE = Meaning("normalize")
_BATCH = Meaning("batch_tokens", "in tokens, not texts")
_DTYPE = Meaning("dtype", "such as 'bfloat16', or 'int8' on CPUs")
_PROGRESS = Meaning("", "it is progress=True of Embedder.embed_documents; frameworks have a bar of their own")
_TOP = Meaning("top_n")
_KEYWORDS = Meaning("", "each of them is a keyword: device=, dtype=, trust_remote_code=, backend=, max_tokens=")
_ENCODE = Meaning("", "each of them is a keyword: normalize=, batch_tokens=, dim=, instruction=")
_POOLING = Meaning("", "the model's files and its record decide it; like= takes it from a recorded model")
_TOKEN = Meaning("", "the hub's token comes from the environment variable HF_TOKEN")
_ADDRESS = Meaning("backend", "the options of the server's kind, such as embrief.servers.Tei(base_url=...)")
_THREADS = Meaning("", "the runtime uses the threads of torch: torch.set_num_threads(n), or OMP_NUM_THREADS")
_SIMILARITY = Meaning("", "vectors have unit length: compare them with the dot product, or choose it in the store")

SYNONYMS: Mapping[str, Meaning] = {
    # A text's length.
    "max_length": _TOKENS, "max_seq_length": _TOKENS, "max_seq_len": _TOKENS, "model_max_length": _TOKENS,
    "max_len": _TOKENS, "max_input_length": _TOKENS, "context_length": _TOKENS, "n_ctx": _TOKENS,
    "truncation": Meaning("truncate", "'warn', 'error' or 'silent'"),
    # The model.
    "model": _MODEL, "model_name": _MODEL, "model_name_or_path": _MODEL, "model_id": _MODEL, "model_path": _MODEL,
    "repo_id": _MODEL, "embedding_model": _MODEL, "embed_model": _MODEL, "pretrained_model_name_or_path": _MODEL,
    "cache_folder": _CACHE, "cache_path": _CACHE, "cache": _CACHE, "download_dir": _CACHE, "cache_directory": _CACHE,
    "model_revision": Meaning("revision"), "commit": Meaning("revision"), "local_only": Meaning("local_files_only"),
    "token": _TOKEN, "hf_token": _TOKEN, "use_auth_token": _TOKEN, "api_key": _TOKEN,
    "base_url": _ADDRESS, "api_base": _ADDRESS, "host": _ADDRESS, "url": _ADDRESS, "endpoint": _ADDRESS,
    # Prompts.
    "query_instruction": _INSTRUCTION, "query_prompt": _INSTRUCTION, "query_prefix": _INSTRUCTION,
    "embed_instruction": _INSTRUCTION, "instruct": _INSTRUCTION, "query_instruction_for_retrieval": _INSTRUCTION,
    "prompt": _INSTRUCTION, "task_description": _INSTRUCTION,
    "text_instruction": _DOCUMENT, "document_instruction": _DOCUMENT, "passage_instruction": _DOCUMENT,
    "document_prompt": _DOCUMENT, "passage_prefix": _DOCUMENT, "document_prefix": _DOCUMENT,
    "prompt_name": _PROMPT, "prompts": _PROMPT, "default_prompt_name": _PROMPT, "input_type": _PROMPT,
    "task_type": Meaning("task"), "task_name": Meaning("task"),
    # Vectors.
    "dimensions": _DIM, "dimension": _DIM, "dims": _DIM, "truncate_dim": _DIM, "output_dimensionality": _DIM,
    "mrl_dim": _DIM, "embedding_dim": _DIM, "embed_dim": _DIM, "mrl": _DIM, "output_dimension": _DIM,
    "normalize_embeddings": _NORMALIZE, "normalize_embedding": _NORMALIZE, "normalized": _NORMALIZE,
    "normalise": _NORMALIZE, "pooling": _POOLING, "pooling_mode": _POOLING, "pooling_type": _POOLING,
    "similarity_fn_name": _SIMILARITY, "similarity": _SIMILARITY, "distance": _SIMILARITY,
    # How it runs.
    "batch_size": _BATCH, "embed_batch_size": _BATCH, "chunk_size": _BATCH, "encode_batch_size": _BATCH,
    "torch_dtype": _DTYPE, "precision": _DTYPE, "use_fp16": _DTYPE, "fp16": _DTYPE, "half": _DTYPE,
    "load_in_8bit": _DTYPE, "quantize": _DTYPE,
    "model_kwargs": _KEYWORDS, "tokenizer_kwargs": _KEYWORDS, "config_kwargs": _KEYWORDS, "processor_kwargs": _KEYWORDS,
    "model_args": _KEYWORDS, "automodel_args": _KEYWORDS, "tokenizer_args": _KEYWORDS, "client_args": _KEYWORDS,
    "encode_kwargs": _ENCODE, "query_encode_kwargs": _ENCODE, "encoder_kwargs": _ENCODE,
    "device_map": Meaning("device"), "device_name": Meaning("device"), "target_devices": Meaning("device"),
    "trust_code": Meaning("trust_remote_code"), "runtime": Meaning("backend"), "engine": Meaning("backend"),
    "multi_process": Meaning("", "one process runs a model; calls from any number of threads share its batches"),
    "parallel": _THREADS, "n_threads": _THREADS, "num_threads": _THREADS, "threads": _THREADS,
    "show_progress_bar": _PROGRESS, "show_progress": _PROGRESS, "progress_bar": _PROGRESS, "verbose": _PROGRESS,
    "progress": _PROGRESS,
    # Reranking.
    "top_k": _TOP, "top_n": _TOP, "topk": _TOP, "k": _TOP, "num_results": _TOP,
    "return_documents": Meaning("", "results have the place of each document, or the object itself"),
}  # fmt: skip


def hints(names: Iterable[str], takes: Collection[str], *, called: Mapping[str, str] = _AS_IT_IS) -> list[str]:
    """Say what keywords of other libraries are called where they were given; nothing for one that is in no table.

    Args:
        names: The keywords.
        takes: The keywords there are.
        called: Those of ours that have another name there.
    """
    found = ((name, SYNONYMS.get(name.lower())) for name in names)
    said = [_hint(name, meaning, takes, called) for name, meaning in found if meaning is not None]
    return [sentence for sentence in said if sentence is not None]


def _hint(name: str, meaning: Meaning, takes: Collection[str], called: Mapping[str, str]) -> str | None:
    keyword = called.get(meaning.keyword, meaning.keyword)
    if keyword == "top_n" and keyword not in takes:
        return f"{name}: here it is top_n= of the methods that rerank"
    if keyword in takes and keyword != name:
        return f"{name}: here it is {keyword}={f' ({meaning.note})' if meaning.note else ''}"
    return f"{name}: here {meaning.note}" if meaning.note and not meaning.keyword else None
