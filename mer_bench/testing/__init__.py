"""The conformance kit: what every plugin must pass, built-in or a stranger's.

Usable in two ways::

    mer-bench check NAME                                    # a model or dataset; a file, a folder, a package

    from mer_bench.testing import MODEL_CHECKS, run_check   # as pytest cases

    @pytest.mark.parametrize("check", MODEL_CHECKS)
    def test_my_model(check):
        result = run_check("my-model", check)
        assert result.status != "failed", result.reason

A model that is not installed is added first, and is then checked by its name::

    (NAME,) = mer_bench.add_plugin("my_model.py")           # or a plugin folder

`run_checks(NAME)` gives all results at once, `iterate_checks(NAME)` each as it comes. A dataset has the checks of
`DATASET_CHECKS`, and `data_root` says where its data are.

A check that cannot apply to a plugin is excused by its card, with a reason::

    [excused]
    learns = "it predicts the most frequent class and learns nothing else"
"""

from mer_bench.testing.checks import Check, CheckResult, Failed, NotApplicable
from mer_bench.testing.dataset_checks import DATASET_CHECKS, DatasetSubject
from mer_bench.testing.model_checks import MODEL_CHECKS, ModelSubject
from mer_bench.testing.running import check_names, iterate_checks, run_check, run_checks

__all__ = [
    "DATASET_CHECKS",
    "MODEL_CHECKS",
    "Check",
    "CheckResult",
    "DatasetSubject",
    "Failed",
    "ModelSubject",
    "NotApplicable",
    "check_names",
    "iterate_checks",
    "run_check",
    "run_checks",
]
