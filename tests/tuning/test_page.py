"""The page about a study: everything in one file, shown by a real browser, and nothing asked of any host."""

from __future__ import annotations

import builtins
import json
import re
import warnings
from pathlib import Path
from typing import Any, Literal

import pytest

from mer_bench.errors import RequestError
from mer_bench.tuning.page import page_text, write_page
from tests.browsing import Visitor
from tests.studies import EVIL, make_study


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def figures(text: str, heading: str) -> list[dict[str, Any]]:
    section = text.partition(f"<h2>{heading}</h2>")[2].partition("</section>")[0]
    return [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', section)]


def test_the_page_has_all_its_figures() -> None:
    text = page_text(make_study())
    drawn = {heading: len(figures(text, heading)) for heading in headings(text)}
    assert drawn == {
        "What was searched": 0,
        "Best trials": 0,
        "Best settings": 0,
        "History": 1,
        "Importances": 1,
        "Slices": 4,
        "Parallel coordinates": 1,
        "Pruning": 1,
        "Cost": 1,
        "Given up and failed": 0,
        "All trials": 0,
    }


def test_the_line_of_cost_holds_the_trials_that_none_beats_in_both() -> None:
    kept = make_study()
    (figure,) = figures(page_text(kept), "Cost")
    front = figure["data"][1]
    complete = [(each.user_attrs["seconds"], each.values[0]) for each in kept.ranked]
    expected = [
        (seconds, score)
        for seconds, score in complete
        if not any(other != (seconds, score) and other[0] <= seconds and other[1] >= score for other in complete)
    ]
    assert list(zip(front["x"], front["y"], strict=True)) == sorted(expected)
    assert len(figure["data"][0]["x"]) + len(expected) == len(complete)


def test_pruned_trials_have_a_colour_of_their_own() -> None:
    (figure,) = figures(page_text(make_study()), "Pruning")
    given_up = [trace["name"] for trace in figure["data"] if trace["meta"]["tone"] == "--second"]
    assert given_up == ["Trial4"]


def test_score_against_cost_has_a_page_too() -> None:
    text = page_text(make_study(costly=True))
    assert [len(figures(text, name)) for name in ("History", "Importances", "Slices", "Cost")] == [1, 1, 4, 1]
    assert figures(text, "Pruning") == []


@pytest.mark.parametrize("trials", [0, 1, 2])
def test_a_study_that_has_hardly_begun_has_a_page(trials: int) -> None:
    text = page_text(make_study(trials=trials))
    assert f"{trials} trials</summary>" in text
    assert "No importances: " in text


def test_what_a_study_says_is_text_and_no_markup() -> None:
    text = page_text(make_study(name=EVIL))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &lt;/script&gt;" in text
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert len(blocks) == 9
    assert [block for block in blocks if "<" in block] == []


def test_without_plotly_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "plotly":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RequestError, match=r"a page needs plotly, .*pip install 'mer-bench\[plot\]'"):
        write_page(make_study(), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_drawing_warns_of_nothing() -> None:
    kept = make_study()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page_text(kept)


TOLD = """() => {
  const first = document.querySelector(".plot svg.main-svg");
  return {
    width: document.documentElement.scrollWidth,
    plots: document.querySelectorAll(".plot").length,
    drawn: document.querySelectorAll(".plot > .plot-container").length,
    dots: document.querySelectorAll(".plot .point").length,
    paper: getComputedStyle(document.body).backgroundColor,
    inFigure: first && first.style.background,
    grounds: [...new Set([...document.querySelectorAll(".bglayer .bg")].map((each) => each.style.fill))],
    clipped: [...document.querySelectorAll("h1, h2, p, dl, figure")].filter(
      (each) => each.getBoundingClientRect().right > innerWidth + 1).length,
  };
}"""


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 22, 29)")])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_in_both_themes_on_a_phone_too(
    visitor: Visitor, width: int, scheme: Literal["light", "dark"], paper: str
) -> None:
    with visitor.visit(page_text(make_study()), width, scheme) as visit:
        visit.page.wait_for_function("document.querySelectorAll('.plot > .plot-container').length === 9")
        visit.settle()
        told = visit.ask(TOLD)
    assert (visit.said, visit.asked) == ([], [])
    assert told["width"] <= width
    assert told["clipped"] == 0
    assert told["plots"] == told["drawn"] == 9
    assert told["dots"] > 50
    assert told["paper"] == told["inFigure"] == paper
    assert set(told["grounds"]) <= {paper}


def test_the_browser_would_see_a_request(visitor: Visitor) -> None:
    """What the test above rests on: without the page's own prohibition a picture from elsewhere is asked for."""
    text = page_text(make_study(trials=1)).replace("</main>", '<img src="other.png"></main>')
    with visitor.visit(re.sub(r"<meta http-equiv=.*\n", "", text)) as visit:
        assert [reason for _, reason in visit.refused] == ["net::ERR_FILE_NOT_FOUND"]
    with visitor.visit(text) as visit:
        assert [reason for _, reason in visit.refused] == ["csp"]
        assert any("Content Security Policy" in line for line in visit.said)
