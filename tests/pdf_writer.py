"""PDF files with a coloured sheet per page, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

A4 = (595.276, 841.89)
"""Width and height in points, of 72 to an inch."""


def write_pdf(
    *colours: tuple[float, float, float] | None,
    size: tuple[float, float] = A4,
    title: str | None = None,
    extra: str = "",
    crypt: str = "",
) -> bytes:
    """Return a file with a page in each colour.

    Args:
        colours: Red, green and blue, 0 to 1; `None`: nothing is filled.
        size: Width and height of all pages, in points.
        title: What the file calls itself.
        extra: Further drawing instructions of every page.
        crypt: A further entry of the trailer.
    """
    objects: list[str] = []
    kids = " ".join(f"{4 + 2 * place} 0 R" for place in range(len(colours)))
    objects += ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(colours)} >>"]
    objects.append(f"<< /Title ({title}) >>" if title else "<< >>")
    for place, colour in enumerate(colours):
        box = f"/MediaBox [0 0 {size[0]} {size[1]}]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Contents {5 + 2 * place} 0 R >>")
        filled = "" if colour is None else f"{' '.join(map(str, colour))} rg 0 0 {size[0]} {size[1]} re f"
        drawn = f"{filled} {extra}"
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    return _file(objects, crypt)


def _file(objects: Sequence[str], crypt: str) -> bytes:
    made, places = b"%PDF-1.4\n", []
    for number, told in enumerate(objects, 1):
        places.append(len(made))
        made += f"{number} 0 obj\n{told}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    tail = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    tail += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 3 0 R {crypt} >>\nstartxref\n{len(made)}\n%%EOF\n"
    return made + tail.encode()
