"""What a sweep runs: every combination once, and a sentence for whatever is wrong in options or plan."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench.errors import RequestError, SettingError, UnknownNameError
from mer_bench.request import RunRequest
from mer_bench.sweep.planning import Part, SweepRequest, parse_part, plan_sweep, read_plan_file

BASE = {"models": ["majority", "logistic"], "datasets": ["meld-synthetic"]}


def planned(*parts: dict[str, Any], **options: Any) -> list[tuple[Any, ...]]:
    request = SweepRequest(tuple(parse_part({**BASE, **part}, "test") for part in parts), **options)
    return [(each.model, each.dataset, each.modalities, each.request.seed) for each in plan_sweep(request).plans]


def write(folder: Path, text: str) -> Path:
    (folder / "plan.toml").write_text(text, encoding="utf-8")
    return folder / "plan.toml"


@settings(deadline=None, max_examples=30)
@given(
    models=st.lists(st.sampled_from(["majority", "logistic", "latefusion", "bclstm"]), min_size=1, unique=True),
    datasets=st.lists(st.sampled_from(["meld-synthetic", "meld", "iemocap"]), min_size=1, unique=True),
    modalities=st.lists(st.sampled_from(["text", "audio", "text,audio"]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
)
def test_every_combination_is_run_once(
    models: list[str], datasets: list[str], modalities: list[str], seeds: list[int]
) -> None:
    runs = planned({"models": models, "datasets": datasets, "modalities": modalities, "seeds": seeds})
    wanted = product(models, datasets, [tuple(each.split(",")) for each in modalities], seeds)
    assert len(runs) == len(set(runs))
    assert set(runs) == set(wanted)
    assert [run[3] for run in runs] == [seed for seed in seeds for _ in range(len(runs) // len(seeds))]


def test_a_number_of_seeds_counts_from_zero_and_a_list_is_taken_as_it_is() -> None:
    assert [run[3] for run in planned({"models": ["majority"], "seeds": 3})] == [0, 1, 2]
    assert [run[3] for run in planned({"models": ["majority"], "seeds": [7, 3]})] == [7, 3]


def test_a_full_id_is_for_its_dataset_alone_and_a_short_one_for_each() -> None:
    part = parse_part(
        {
            "models": ["majority"],
            "datasets": ["meld", "emorynlp"],
            "features": ["transcripts", "meld/mmgcn"],
            "labels": ["meld/sentiment"],
        },
        "test",
    )
    plans = plan_sweep(SweepRequest((part,))).plans
    assert [(each.features, each.labels) for each in plans] == [
        ("meld/transcripts", "meld/sentiment"),
        ("meld/mmgcn", "meld/sentiment"),
        ("emorynlp/transcripts", "emorynlp/emotion"),
    ]


def test_settings_of_one_model_stand_over_those_of_all() -> None:
    part = parse_part(
        {**BASE, "models": ["bclstm", "latefusion"], "settings": {"epochs": 5, "bclstm": {"epochs": 7}}}, ""
    )
    plans = plan_sweep(SweepRequest((part,))).plans
    assert [each.training.epochs for each in plans] == [7, 5]


@pytest.mark.parametrize(
    ("part", "error", "words"),
    [
        ({"models": ["logistc"]}, UnknownNameError, "no model is called 'logistc'. Did you mean 'logistic'?"),
        ({"datasets": ["mled"]}, UnknownNameError, "Did you mean 'meld'"),
        ({"modls": ["logistic"]}, UnknownNameError, "no key of the test is called 'modls'. Did you mean 'models'"),
        ({"models": []}, RequestError, "models in the test should be a list of names, but is []"),
        ({"models": "logistic"}, RequestError, "models in the test should be a list of names, but is 'logistic'"),
        ({"models": ["majority", "majority"]}, RequestError, "models in the test holds majority twice"),
        ({"modalities": ["text", "text"]}, RequestError, "modalities in the test holds text twice"),
        ({"modalities": ["text,text"]}, RequestError, "modalities in the test holds text twice"),
        ({"modalities": "text"}, RequestError, 'a list of combinations, such as ["text", "text,audio"]'),
        ({"seeds": 0}, RequestError, "seeds in the test should be 1 or more, but is 0"),
        ({"seeds": [1, 1]}, RequestError, "seeds in the test holds 1 twice"),
        ({"seeds": [-1]}, RequestError, "seeds in the test should be how many, or a list of numbers from 0"),
        ({"seeds": True}, RequestError, "seeds in the test should be how many"),
        ({"settings": 3}, RequestError, "settings in the test should be a table"),
        ({"settings": {"epoch": 3}}, UnknownNameError, "Did you mean 'epochs'"),
        ({"settings": {"majority": 3}}, SettingError, "the settings of majority should be a table"),
        ({"settings": {"bclstm": {"epochs": 3}}}, RequestError, "bclstm, which is not among the models"),
        ({"features": ["meld/mmgcn"]}, RequestError, "the feature set meld/mmgcn is that of meld, which is not among"),
        ({"features": ["defualt"]}, UnknownNameError, "Did you mean 'default'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(part: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        planned(part)
    assert words in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(RequestError, match=r"a sweep needs datasets: none is named in the plan"):
        parse_part({"models": ["majority"]}, "plan p.toml")


def test_impossible_combinations_are_refused_or_left_out_and_told() -> None:
    part = {"models": ["textonly", "majority"], "modalities": ["audio", "text"]}
    with pytest.raises(RequestError, match=r"textonly takes text, but audio was asked for; --skip-impossible leaves"):
        planned(part)
    request = SweepRequest((parse_part({**BASE, **part}, "test"),), skip_impossible=True)
    found = plan_sweep(request)
    assert [(each.model, *each.modalities) for each in found.plans] == [
        ("majority", "audio"),
        ("textonly", "text"),
        ("majority", "text"),
    ]
    assert found.impossible == ("textonly takes text, but audio was asked for.",)
    of_texts = parse_part(
        {**BASE, "models": ["majority"], "datasets": ["meld", "emorynlp"], "modalities": ["audio"]}, ""
    )
    assert len(plan_sweep(SweepRequest((of_texts,), skip_impossible=True)).plans) == 1
    with pytest.raises(RequestError, match=r"no run is left"):
        planned({"models": ["textonly"], "modalities": ["audio"]}, skip_impossible=True)
    with pytest.raises(UnknownNameError, match=r"smell"):  # a wrong name is wrong in any combination
        planned({"modalities": ["smell"]}, skip_impossible=True)


def test_options_that_the_runs_share_are_theirs(tmp_path: Path) -> None:
    run = RunRequest("", "", out=tmp_path, device="cpu", threads=3, keep_predictions=True)
    (each,) = plan_sweep(SweepRequest((Part(models=("majority",), datasets=("meld",)),), run)).plans
    assert (each.request.out, each.request.device, each.request.threads) == (tmp_path, "cpu", 3)
    assert each.request.keep_predictions


def test_a_plan_holds_several_parts_with_what_they_share_at_the_top(tmp_path: Path) -> None:
    parts = read_plan_file(
        write(
            tmp_path,
            """
            datasets = ["meld"]
            seeds = 2
            settings = { epochs = 5, bclstm = { dropout = 0.1, hidden_dim = 50 } }
            [[parts]]
            models = ["bclstm"]
            settings = { bclstm = { dropout = 0.2 } }
            [[parts]]
            models = ["cmath"]
            seeds = [4]
            """,
        )
    )
    assert [(part.models, part.seeds) for part in parts] == [(("bclstm",), (0, 1)), (("cmath",), (4,))]
    assert parts[0].settings_of("bclstm") == {"epochs": 5, "dropout": 0.2, "hidden_dim": 50}


def test_a_plan_without_parts_is_one_part(tmp_path: Path) -> None:
    (part,) = read_plan_file(write(tmp_path, 'models = ["cmath"]\ndatasets = ["meld"]\nmodalities = [["text"]]'))
    assert part.modalities == (("text",),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = ['cmath']", "no key of the plan {file} is called 'model'. Did you mean 'models'"),
        ("[[parts]]\nmodel = ['cmath']", "is called 'model'. Did you mean 'models'"),
        ("[[part]]\nmodels = ['cmath']", "is called 'part'. Did you mean 'parts'"),
        ("parts = 3", "parts of the plan {file} should be tables, each under [[parts]]"),
        ("parts = []", "should be tables"),
        ("models = [", "the plan {file} is not valid TOML"),
        ("models = ['cmath']", "a sweep needs datasets: none is named in the plan {file}"),
        ("models = ['cmath']\ndatasets = ['meld']\nseeds = '3'", "seeds in the plan {file} should be how many"),
        ("models = ['cmath']\ndatasets = ['meld']\nsettings = 3", "settings in the plan {file} should be a table"),
    ],
)
def test_a_wrong_plan_is_answered_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(RequestError) as caught:
        read_plan_file(file)
    assert words.format(file=file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"the plan .*absent.toml cannot be read: No such file"):
        read_plan_file(tmp_path / "absent.toml")
    (tmp_path / "plan.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match=r"it is not UTF-8 text"):
        read_plan_file(tmp_path / "plan.toml")
