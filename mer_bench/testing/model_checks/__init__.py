"""The checks of a model. Each builds what it needs from a seed and looks at one promise of `api.Model`.

Invariances are looked at in float64 and away from the initial weights: rounding can then be told
apart from a leak, and a path that starts at zero counts too.

| room | what |
| --- | --- |
| `subject` | a model as the checks see it, and the list of all checks |
| `outputs` | what several checks compute and compare |
| `card`, `invariance`, `variants`, `learning`, `cost` | the checks, in the order in which they run |
"""

# The order of these imports is that of the report.
from mer_bench.testing.model_checks import card, invariance, variants, learning, cost  # noqa: F401, I001
from mer_bench.testing.model_checks.outputs import training_loss
from mer_bench.testing.model_checks.subject import MODEL_CHECKS, ModelSubject

__all__ = ["MODEL_CHECKS", "ModelSubject", "training_loss"]
