"""Whether two ways to run a model give the same vectors, and why not: `check_parity`.

| module | decides |
|---|---|
| `probe` | which texts are compared |
| `published` | what is known of a model's numbers |
| `check` | asking both sides, and naming the cause of a difference |
| `variants` | the reference with another pooling, or without its Dense layers, for those causes |
| `kept` | vectors of the texts by space, for the members of a fallback |
| `report` | what came out, and what to do |
"""

from embrief.parity.check import check_parity
from embrief.parity.report import Finding, ParityReport

__all__ = ["Finding", "ParityReport", "check_parity"]
