"""Settings of the logistic regression."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Settings, Tune


class LogisticConfig(Settings):
    """Settings of the logistic regression; it is fitted at one go, so the trainer's play no part.

    Attributes:
        inverse_regularisation: C of scikit-learn: the smaller, the nearer to 0 the weights are held.
        class_balance: `balanced` weighs each class by the inverse of its train frequency.
        max_iterations: Steps of the solver at most; if they do not suffice the run fails.
        tolerance: The solver stops where no part of the gradient is larger.
    """

    inverse_regularisation: Annotated[float, Field(gt=0, le=1000), Tune(low=1e-4, high=10, log=True)] = 0.01
    class_balance: Annotated[Literal["none", "balanced"], Tune()] = "none"
    max_iterations: Annotated[int, Field(ge=100, le=100_000)] = 1000
    tolerance: Annotated[float, Field(gt=0, le=0.1)] = 1e-4
