"""The page about a study: everything in one file, shown by a real browser, and nothing asked of any host."""

from __future__ import annotations

import builtins
import json
import re
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mer_bench.errors import RequestError
from mer_bench.tuning.page import page_text, write_page
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


FRAME = """<!doctype html><body style="margin:0">
<iframe id=page src="page.html" style="width:WIDTHpx;height:800px;border:0"></iframe><pre id=told></pre><script>
window.onload = () => setTimeout(() => {
  const inside = document.getElementById("page").contentWindow, page = inside.document;
  const first = page.querySelector(".plot svg.main-svg");
  document.getElementById("told").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth,
    plots: page.querySelectorAll(".plot").length,
    drawn: page.querySelectorAll(".plot > .plot-container").length,
    dots: page.querySelectorAll(".plot .point").length,
    paper: inside.getComputedStyle(page.body).backgroundColor,
    inFigure: first && first.style.background,
    grounds: [...new Set([...page.querySelectorAll(".bglayer .bg")].map((each) => each.style.fill))],
    asked: inside.performance.getEntriesByType("resource").map((each) => each.name),
    clipped: [...page.querySelectorAll("h1, h2, p, dl, figure")].filter(
      (each) => each.getBoundingClientRect().right > inside.innerWidth + 1).length,
  });
}, 1500);
</script></body>"""


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Shows `page.html` in a frame of some width, in Chromium, and tells what is there."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed; Debian's package is called chromium")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def show(text: str, width: int, dark: bool = False) -> dict[str, Any]:
        (tmp_path / "site").mkdir(exist_ok=True)
        (tmp_path / "site" / "page.html").write_text(text, encoding="utf-8")
        (tmp_path / "site" / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
        answer = subprocess.run(
            [
                chromium,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"),
                *("--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,900"),
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                *("--virtual-time-budget=8000", "--dump-dom"),
                f"http://127.0.0.1:{server.server_address[1]}/frame.html",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        found = re.search(r'<pre id="told">(.+?)</pre>', answer.stdout, re.DOTALL)
        assert found, answer.stderr[-2000:]
        said = [line for line in answer.stderr.splitlines() if "CONSOLE" in line and "favicon" not in line]
        told: dict[str, Any] = json.loads(found[1])
        return told | {"said": said}

    yield show
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("dark", "paper"), [(False, "rgb(255, 255, 255)"), (True, "rgb(18, 22, 29)")])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_in_both_themes_on_a_phone_too(
    browse: Callable[..., dict[str, Any]], width: int, dark: bool, paper: str
) -> None:
    told = browse(page_text(make_study()), width, dark)
    assert told["said"] == []
    assert told["asked"] == []
    assert told["width"] <= width
    assert told["clipped"] == 0
    assert told["plots"] == told["drawn"] == 9
    assert told["dots"] > 50
    assert told["paper"] == told["inFigure"] == paper
    assert set(told["grounds"]) <= {paper}


def test_the_browser_would_see_a_request(browse: Callable[..., dict[str, Any]]) -> None:
    """What the test above rests on: without the page's own prohibition a picture from elsewhere is seen."""
    picture = '<img src="other.png"></main>'
    allowed = re.sub(r"<meta http-equiv=.*\n", "", page_text(make_study(trials=1)))
    assert len(browse(allowed.replace("</main>", picture), 1200)["asked"]) == 1
    refused = browse(page_text(make_study(trials=1)).replace("</main>", picture), 1200)
    assert any("Content Security Policy" in line for line in refused["said"])
