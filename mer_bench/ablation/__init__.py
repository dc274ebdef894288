"""What a model's parts and its modalities are worth: three tables of runs that are never ranked together.

`modalities` trains from scratch on every subset of the run's modalities, `missing` scores the test split of
models that were trained on all of them under conditions fixed in advance, and `settings` trains each ablation
that the model's card lists. Every number is a record.
"""

from mer_bench.ablation.experiment import Ablation, AblationListener, AblationRequest, Failed, ablate
from mer_bench.ablation.tables import Mean, Row, Table
from mer_bench.ablation.variants import TABLES, Variant

__all__ = [
    "TABLES",
    "Ablation",
    "AblationListener",
    "AblationRequest",
    "Failed",
    "Mean",
    "Row",
    "Table",
    "Variant",
    "ablate",
]
