"""Settings of the majority class."""

from mer_bench.config import Settings


class MajorityConfig(Settings):
    """There is nothing to set."""
