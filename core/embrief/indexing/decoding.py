"""From bytes to characters: which encoding a file is in, if it is text at all."""

from __future__ import annotations

import codecs

# UTF-32 before UTF-16: the mark of the one begins like that of the other.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MOST_HIGH = 0.3
"""Share of bytes above 127 up to which a text can be in a Latin alphabet: others, such as Cyrillic, have far more."""
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b") | {127})


def is_binary(head: bytes) -> bool:
    """Return whether a file that begins like this is no text: as in git, a zero byte says so."""
    return b"\0" in head and _marked(head) is None


def plausible_start(head: bytes, *, whole: bool) -> bool:
    """Return whether a file that begins like this can be text; a character may be cut off at the end.

    Args:
        head: The first bytes.
        whole: Whether that is all of it.
    """
    try:
        decode(head, final=whole)
    except ValueError:
        return False
    return True


def decode(data: bytes, *, declared: str | None = None, final: bool = True) -> str:
    """Return the text of a file: every character of it but the byte order mark, line ends as they are.

    UTF-8, or what a byte order mark says, or what the file declares; otherwise Windows-1252, which is Latin-1 with
    quotation marks, if the bytes look like it.

    Args:
        data: The bytes.
        declared: The encoding that the file itself names, if it does.
        final: Whether the data is all there is; otherwise the last character may be incomplete.

    Raises:
        ValueError: It is in no encoding that can be told, or no text.
    """
    mark = _marked(data)
    if mark is not None:
        sign, encoding = mark
        return _without_zeros(_decoded(data[len(sign) :], encoding, final))
    try:
        return _without_zeros(_decoded(data, "utf-8", final))
    except UnicodeDecodeError:
        pass
    if declared is not None:
        try:
            return _without_zeros(_decoded(data, declared, final))
        except (LookupError, TypeError, UnicodeError):  # unknown, none of characters, or another one
            pass
    high = sum(byte > 127 for byte in data)
    if high > _MOST_HIGH * len(data) or data.translate(None, _CONTROLS) != data:
        raise ValueError("it is in no encoding that can be told; save it as UTF-8")
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError as error:
        raise ValueError("it is in no encoding that can be told; save it as UTF-8") from error


def _marked(data: bytes) -> tuple[bytes, str] | None:
    return next(((sign, encoding) for sign, encoding in _MARKS if data.startswith(sign)), None)


def _decoded(data: bytes, encoding: str, final: bool) -> str:
    text: object = codecs.getincrementaldecoder(encoding)("strict").decode(data, final)
    if not isinstance(text, str):
        raise TypeError(f"{encoding} makes no text")
    return text


def _without_zeros(text: str) -> str:
    if "\0" in text:
        raise ValueError("it has zero characters, so it is no text")
    return text
