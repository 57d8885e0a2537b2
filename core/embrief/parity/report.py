"""What a comparison found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Cause = Literal[
    "unreachable",
    "missing end token",
    "end token twice",
    "wrong pooling",
    "dense layers missing",
    "prompt missing",
    "prompt twice",
    "not normalised",
    "cut silently",
    "stripped",
    "window",
    "special tokens",
    "batch",
    "empty refused",
    "refused",
    "number format",
    "other weights",
]
REMEDIES: dict[Cause, str] = {
    "unreachable": "put that right first",
    "missing end token": "OpenAI(final_token='append') puts it behind each text; or convert the file again, with "
    "add_eos_token",
    "end token twice": "leave final_token='append' out",
    "wrong pooling": "start the server with the model's pooling (llama-server --pooling, TEI --pooling)",
    "dense layers missing": "convert the file again, with the layers behind the pooling (llama.cpp's converter: "
    "--sentence-transformers-dense-modules)",
    "prompt missing": "the server changes texts: switch its own prompts off",
    "prompt twice": "the server adds a prompt by itself: switch it off (TEI --default-prompt, a template)",
    "not normalised": "nothing needs to be done here, where vectors get unit length; other clients of this server must",
    "cut silently": "raise the server's limits of context and batch (llama-server -c -b -ub, Ollama num_ctx), or pass "
    "max_tokens below them",
    "stripped": "send no texts with white space at their edges there, or use another server",
    "window": "the runtime reads the attention window otherwise: keep texts below it, or use another runtime",
    "special tokens": "texts that hold special tokens get other vectors there; take them out",
    "batch": "a text's vector depends on the texts beside it: set batch_rows=1, or update the server",
    "empty refused": "leave empty texts out",
    "refused": "see the server's own words",
    "number format": "the number format there is less exact: take one of at least 8 bits",
    "other weights": "the server runs another model, another revision, or a file that was made wrongly",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    cause: Cause
    detail: str
    serious: bool = True
    """Whether vectors cannot be mixed; otherwise it is put right, or concerns texts that are seldom."""

    @property
    def remedy(self) -> str:
        """Return what to do."""
        return REMEDIES[self.cause]


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What came out."""

    checked: str
    """What was checked: model, runtime and address."""
    against: str
    """What it was compared with; empty if there was nothing."""
    cosines: dict[str, float]
    """By the name of each text: how near the two vectors are, or two published and measured cosines."""
    tolerance: float
    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...]
    """What could not be looked at, and why."""

    @property
    def verdict(self) -> Literal["equal", "differs", "not verified"]:
        """Return what it comes to."""
        if any(finding.serious for finding in self.findings):
            return "differs"
        # Nothing is equal to what was not compared.
        return "equal" if self.against and self.cosines else "not verified"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        found = {**asdict(self), "verdict": self.verdict}
        found["findings"] = [{**asdict(finding), "remedy": finding.remedy} for finding in self.findings]
        return found

    def __str__(self) -> str:
        lines = [f"{self.checked}: {self.verdict}" + (f" (against {self.against})" if self.against else "")]
        if not self.against:
            lines.append("  nothing is known here that its vectors could be compared with")
        elif self.cosines:
            worst = min(self.cosines, key=self.cosines.__getitem__)
            lines.append(f"  lowest agreement {self.cosines[worst]:.5f} ({worst}), {self.tolerance:g} is asked for")
        for finding in self.findings:
            lines += [f"  {finding.cause}: {finding.detail}", f"    {finding.remedy}"]
        lines += [f"  not checked: {what}" for what in self.not_checked]
        return "\n".join(lines)
