"""What of an installation, a machine and its data works, and what to do about what does not.

`examine` asks a number of questions that do not depend on each other; each answers with findings, and a question
whose own subject is broken answers with a fault instead of failing.
"""

from mer_bench.doctor.examination import examine
from mer_bench.doctor.finding import Finding, State, worst

__all__ = ["Finding", "State", "examine", "worst"]
