"""The pages of a PDF file as pictures, within limits: a page may be as large as a house, or never be done."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from embrief.errors import MissingDependencyError, UnreadableFileError
from embrief.images.image import Image
from embrief.images.limits import LIMITS
from embrief.indexing.pdf_files import PAGE_LIMIT, plain_title
from embrief.indexing.titles import shortened
from embrief.system.installed import install_command

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DPI = 150
"""Pixels per inch: an A4 page has 1,240 x 1,754, about what the largest limits of the models are for."""
MOST_PIXELS = 16_000_000
"""Of a page; a larger one is drawn smaller. No model sees more than a tenth of it."""
SECONDS = 30.0
"""After which the drawing of a page is given up."""
_POINTS = 72
"""Units of a PDF per inch."""
_LOCKED = 4
"""PDFium's FPDF_ERR_PASSWORD: https://pdfium.googlesource.com/pdfium/+/refs/heads/main/public/fpdfview.h."""

_one_at_a_time = threading.Lock()
"""PDFium must not be called by two threads at once, also not for two files."""


class PdfPages:
    """An open PDF file whose pages are drawn one by one. Use it in a `with` block."""

    def __init__(self, data: bytes, name: str) -> None:
        """Open it.

        Args:
            data: The file.
            name: Its name, for messages.

        Raises:
            UnreadableFileError: It is encrypted, damaged, has no pages or too many.
            MissingDependencyError: pypdfium2 is not installed.
        """
        try:
            # Inside the function: it is an extra, and loads a library.
            import pypdfium2
        except ImportError as error:
            raise MissingDependencyError(
                f"drawing the pages of PDF files needs the package pypdfium2, which is not installed; run "
                f"{install_command('index')}"
            ) from error
        self._name = name
        self._problem = pypdfium2.PdfiumError
        with _one_at_a_time:
            try:
                self._file = pypdfium2.PdfDocument(data)
            except pypdfium2.PdfiumError as error:
                if getattr(error, "err_code", None) == _LOCKED:
                    raise UnreadableFileError(f"{name!r} is encrypted; save it without a password").because(
                        "encrypted"
                    ) from None
                raise self._damaged() from None
            self.count = len(self._file)
            """Pages."""
            self.title = _title(self._file)
            """What the file calls itself."""
        if not 0 < self.count <= PAGE_LIMIT:
            self.close()
            if not self.count:
                raise UnreadableFileError(f"{name!r} has no pages").because("damaged")
            raise UnreadableFileError(
                f"{name!r} has {self.count} pages, more than {PAGE_LIMIT}; split it, or leave it out"
            ).because("too large")

    def draw(self, number: int) -> Image:
        """Return a page as a picture: on white, with its annotations.

        Args:
            number: Counted from 1.

        Raises:
            UnreadableFileError: It is damaged, too long for its width, or takes too long.
        """
        with _one_at_a_time:
            try:
                page = self._file[number - 1]
                try:
                    pixels = self._drawn(page, number)
                finally:
                    page.close()
            except (self._problem, ValueError, MemoryError):
                raise self._damaged(number) from None
        return Image(pixels)

    def _drawn(self, page: Any, number: int) -> NDArray[np.uint8]:
        from pypdfium2 import PdfBitmap, raw

        wide, high = (side * DPI / _POINTS for side in page.get_size())
        if not min(wide, high) > 0:
            raise self._damaged(number)
        shrink = min(1.0, math.sqrt(MOST_PIXELS / (wide * high)))
        width, height = (max(round(side * shrink), 1) for side in (wide, high))
        if max(width, height) / min(width, height) > LIMITS.max_aspect:
            raise UnreadableFileError(
                f"page {number} of {self._name!r} has {width} x {height} pixels, and one side may be "
                f"{LIMITS.max_aspect:g} times the other at most; leave the file out"
            ).because("too large")
        bitmap = PdfBitmap.new_native(width, height, raw.FPDFBitmap_BGR, rev_byteorder=True)
        try:
            bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
            _draw(bitmap, page, until=time.monotonic() + SECONDS, late=lambda: self._late(number))
            # Rows of the bitmap may be padded; the copy is not.
            found: NDArray[np.uint8] = bitmap.to_numpy()[:, :, :3].copy()
        finally:
            bitmap.close()
        return found

    def close(self) -> None:
        """Let go of the file."""
        with _one_at_a_time:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, number: int | None = None) -> UnreadableFileError:
        # Not the cause: what PDFium says helps nobody.
        if number is None:
            told = f"{self._name!r} is no PDF that can be read: it is damaged; save it again"
        else:
            told = f"page {number} of {self._name!r} cannot be drawn: it is damaged; save the file again"
        return UnreadableFileError(told).because("damaged")

    def _late(self, number: int) -> UnreadableFileError:
        return UnreadableFileError(
            f"page {number} of {self._name!r} takes more than {SECONDS:.0f} seconds to draw; leave the file out"
        ).because("too large")


def _title(file: Any) -> str | None:
    """Return the title of an open file, not longer than other titles; `None` where it is damaged: pages need none."""
    try:
        found = plain_title(file.get_metadata_value("Title"))
    except UnicodeDecodeError:
        return None
    return found if found is None else shortened(found)


def _draw(bitmap: Any, page: Any, *, until: float, late: Callable[[], Exception]) -> None:
    """Draw a page, and give up when it takes too long: PDFium asks now and then whether it shall pause."""
    from pypdfium2 import PdfiumError, raw

    pause = raw.IFSDK_PAUSE(version=1)
    # PDFium is given the address only: the name keeps the function alive meanwhile.
    asked = type(pause.NeedToPauseNow)(lambda _: time.monotonic() > until)
    pause.NeedToPauseNow = asked
    flags = raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER
    try:
        status = raw.FPDF_RenderPageBitmap_Start(bitmap, page, 0, 0, bitmap.width, bitmap.height, 0, flags, pause)
    finally:
        raw.FPDF_RenderPage_Close(page)
    if status == raw.FPDF_RENDER_TOBECONTINUED:
        raise late()
    if status != raw.FPDF_RENDER_DONE:
        raise PdfiumError("no page was drawn")
