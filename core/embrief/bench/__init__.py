"""`embrief bench`: embrief against sentence-transformers on the same weights and token ids, in one run.

| module | decides |
|---|---|
| `shapes`, `checkpoint`, `tokenizer` | which model is measured: a folder of random weights at a published shape |
| `texts`, `workloads` | what is embedded: texts of known token lengths, the same ones every time |
| `runners`, `fresh` | how each library is called, in this process and in a new one |
| `beside` | which runtimes stand beside the engine, and the files made for them |
| `timing`, `ceiling`, `accuracy` | how a speed, the machine's own limit and an error are measured |
| `rows`, `execute` | which rows there are, and running them within a budget |
| `results`, `compare`, `report`, `chart` | keeping, comparing and showing what came out |

Importing this package is cheap; torch and the libraries are imported when something is measured.
"""

from embrief.bench.execute import run
from embrief.bench.results import Results
from embrief.bench.settings import Settings

__all__ = ["Results", "Settings", "run"]
