"""Which runs an ablation consists of, and what is said of those that there cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mer_bench.ablation.variants import modality_variants, proper_subsets, setting_variants
from mer_bench.request import RunRequest, plan


def test_proper_subsets_have_the_order_of_the_run() -> None:
    assert list(proper_subsets(("text", "audio", "visual"))) == [
        ("text", "audio"),
        ("text", "visual"),
        ("audio", "visual"),
        ("text",),
        ("audio",),
        ("visual",),
    ]
    assert list(proper_subsets(("text",))) == []


@pytest.mark.usefixtures("place")
class TestModalities:
    def test_each_subset_is_a_run_of_its_own(self, whole: RunRequest) -> None:
        found = modality_variants(plan(replace(whole, modalities=("visual", "text"))))
        assert [(each.name, each.plan.modalities) for each in found.variants] == [
            ("text", ("text",)),
            ("visual", ("visual",)),
        ]
        assert found.notes == ()

    def test_a_model_that_needs_a_modality_is_not_run_without_it(self, whole: RunRequest) -> None:
        found = modality_variants(plan(replace(whole, model="needy")))
        assert [each.name for each in found.variants] == ["text+audio", "text+visual", "text"]
        assert found.notes == (
            "audio+visual was left out: needy needs text.",
            "audio was left out: needy needs text.",
            "visual was left out: needy needs text.",
        )

    def test_a_single_modality_has_no_subset(self, whole: RunRequest) -> None:
        found = modality_variants(plan(replace(whole, modalities=("audio",))))
        assert found.variants == ()
        assert found.notes == ("reader reads audio alone here, of which there is no subset.",)


@pytest.mark.usefixtures("place")
class TestSettings:
    def test_the_ablations_of_the_card_on_top_of_the_request(self, whole: RunRequest) -> None:
        found = setting_variants(plan(replace(whole, settings={"batch_size": 4})))
        assert [(each.name, each.question) for each in found.variants] == [
            ("wrong", "What if it is wrong on purpose?"),
            ("broken", "What if it breaks?"),
        ]
        wrong = found.variants[0].plan
        assert (wrong.settings.model_dump()["shift"], wrong.training.batch_size) == (1, 4)
        assert found.notes == ("same was left out: it is what the whole model's settings say already.",)

    def test_what_is_the_whole_model_depends_on_the_request(self, whole: RunRequest) -> None:
        found = setting_variants(plan(replace(whole, settings={"shift": 1})))
        assert [each.name for each in found.variants] == ["same", "broken"]

    def test_a_card_without_ablations(self, whole: RunRequest) -> None:
        found = setting_variants(plan(replace(whole, model="majority")))
        assert (found.variants, found.notes) == ((), ("the card of majority lists no ablations.",))
