"""The process that runs llama.cpp: reads frames, answers each, and ends when nobody can ask any more."""

from __future__ import annotations

import os
import queue
import sys
import threading
from array import array
from typing import Any, BinaryIO

from embrief.llama.library import Llama, LlamaError, Wanted, can_offload
from embrief.llama.protocol import EndedError, receive, send


def main() -> None:
    """Answer requests until the pipe is closed: the process that asks closes it, or has ended."""
    # What C code prints to standard output must not get among the frames.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    waiting: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, waiting), daemon=True).start()
    model: Llama | None = None
    while True:
        words, payload = waiting.get()
        try:
            told, values, model = _answer(words, payload, model)
        except MemoryError as error:
            told, values = {"failed": "memory", "message": str(error)}, b""
        except ImportError as error:
            told, values = {"failed": "import", "message": str(error)}, b""
        except (LlamaError, OSError) as error:
            told, values = {"failed": "llama", "message": str(error)}, b""
        try:
            send(answers, told, values)
        except OSError:
            _end()


def _read(requests: BinaryIO, waiting: queue.SimpleQueue[tuple[dict[str, Any], bytes]]) -> None:
    """Hand requests on. A thread of its own, so that the end of the other process ends this one in the middle too."""
    try:
        while True:
            waiting.put(receive(requests))
    except (EndedError, OSError):
        _end()


def _end() -> None:
    # Not sys.exit: the other thread may be inside the library.
    os._exit(0)


def _answer(words: dict[str, Any], payload: bytes, model: Llama | None) -> tuple[dict[str, Any], bytes, Llama | None]:
    if words["ask"] == "load":
        wanted = words["wanted"]
        model = Llama(Wanted(**{**wanted, "answers": tuple(wanted["answers"])}))
        return {"loaded": True}, b"", model
    if words["ask"] == "can_offload":
        return {"can": can_offload()}, b"", model
    if words["ask"] == "modules":
        return {"modules": sorted(sys.modules)}, b"", model
    if model is None:
        raise LlamaError("nothing is loaded")
    ids = array("i")
    ids.frombytes(payload)
    rows, at = [], 0
    for length in words["lengths"]:
        rows.append(ids[at : at + length])
        at += length
    return {"rows": len(rows)}, model.run(rows), model


if __name__ == "__main__":
    main()
