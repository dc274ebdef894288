"""The page of a leaderboard in Chromium: it sorts, filters, draws, has two themes, fits a phone, asks no host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import pytest

from mer_bench.leaderboard.page import index_of, page_of
from mer_bench.leaderboard.table import Boards
from tests.browsing import Visit, Visitor
from tests.leaderboard.tables import HOSTILE, make_boards, make_row, make_table

Scheme = Literal["light", "dark"]

SHOWN = "[...document.querySelectorAll('#scores tbody tr')].filter((row) => !row.hidden)"
LABELS = f"{SHOWN}.map((row) => row.querySelector('.c-label').textContent.split(' ')[0])"


@pytest.fixture
def page(visitor: Visitor) -> Iterator[Visit]:
    """The page of a table with every part, wide enough to show all of it."""
    with visitor.visit(page_of(make_table()), width=1600) as found:
        yield found
        assert found.said == []
        assert found.asked == []


def labels(visit: Visit) -> list[str]:
    found: list[str] = visit.ask(LABELS)
    return found


RANKING = ["mmdfn", "cmath", "mmgcn", "logistic", "my", "majority"]


# --- sorting ---


def test_a_click_sorts_by_a_column_best_first_and_another_turns_it(page: Visit) -> None:
    assert labels(page) == RANKING
    button = page.page.get_by_role("button", name="Accuracy", exact=True)
    header = page.page.locator("th.c-accuracy")
    button.click()
    assert labels(page) == RANKING[::-1]
    assert header.get_attribute("aria-sort") == "descending"
    assert page.page.locator("[aria-sort]").count() == 1
    assert page.page.locator("#shown").text_content() == "6 rows, sorted by Accuracy, descending"
    button.click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert labels(page) == RANKING


def test_rows_without_a_value_stand_last_in_either_order(page: Visit) -> None:
    button = page.page.get_by_role("button", name="Parameters", exact=True)
    button.click()
    assert labels(page) == ["majority", "logistic", "cmath", "mmgcn", "mmdfn", "my"]
    button.click()
    assert labels(page) == ["mmdfn", "mmgcn", "cmath", "logistic", "majority", "my"]


def test_words_sort_as_words_and_equals_keep_the_ranking(page: Visit) -> None:
    page.page.get_by_role("button", name="Model", exact=True).click()
    assert labels(page) == ["cmath", "logistic", "majority", "mmdfn", "mmgcn", "my"]
    page.page.get_by_role("button", name="Seeds", exact=True).click()
    assert labels(page) == ["mmdfn", "cmath", "mmgcn", "logistic", "majority", "my"]


def test_the_keyboard_alone_sorts_and_the_focus_is_seen(page: Visit) -> None:
    page.page.locator("#reset").focus()
    for _ in range(30):
        page.page.keyboard.press("Tab")
        if page.ask("document.activeElement.closest('th')?.dataset.column") == "macro_f1":
            break
    assert page.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.ask("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    page.page.keyboard.press("Enter")
    assert page.page.locator("th.c-macro_f1").get_attribute("aria-sort") == "descending"
    page.page.keyboard.press("Space")
    assert page.page.locator("th.c-macro_f1").get_attribute("aria-sort") == "ascending"
    assert labels(page) == RANKING[::-1]


def test_rank_groups_are_seen_in_the_order_of_the_ranking_alone(page: Visit) -> None:
    starts = "[...document.querySelectorAll('tr.group-start')].map((row) => row.dataset.rank)"
    assert page.ask(starts) == ["3", "6"]
    assert "by-rank" in (page.page.locator("#scores").get_attribute("class") or "")
    page.page.get_by_role("button", name="Macro F1", exact=True).click()
    assert "by-rank" not in (page.page.locator("#scores").get_attribute("class") or "")
    page.page.get_by_role("button", name="Rank", exact=True).click()
    assert "by-rank" in (page.page.locator("#scores").get_attribute("class") or "")


# --- filtering ---


def test_rows_are_hidden_by_name_by_settings_and_by_rank(page: Visit) -> None:
    page.page.get_by_label("Model", exact=True).fill("MM")
    assert labels(page) == ["mmdfn", "mmgcn"]
    assert page.page.locator("#shown").text_content() == "2 of 6 rows"
    page.page.get_by_label("Rank", exact=True).select_option("1")
    assert labels(page) == ["mmdfn"]
    page.page.get_by_role("button", name="Reset").click()
    assert labels(page) == RANKING
    page.page.locator("#filter-setting").select_option("tuned")
    assert labels(page) == ["cmath"]
    page.page.get_by_label("Model", exact=True).fill("nothing of that name")
    assert labels(page) == []
    assert page.page.locator("#shown").text_content() == "0 of 6 rows"


def test_drawings_and_the_heat_map_follow_the_filter(page: Visit) -> None:
    dots = "document.querySelectorAll('#draw-parameters [aria-label=dot] > *').length"
    heat = "[...document.querySelectorAll('table.heat:not(.confusion) tbody tr')].filter((row) => !row.hidden).length"
    assert (page.ask(dots), page.ask(heat)) == (5, 6)
    page.page.get_by_label("Model", exact=True).fill("mm")
    page.settle()
    assert (page.ask(dots), page.ask(heat)) == (2, 2)
    page.page.get_by_label("Model", exact=True).fill("nothing of that name")
    page.settle()
    assert (page.ask(dots), page.ask(heat)) == (0, 0)
    page.page.get_by_role("button", name="Reset").click()
    page.settle()
    assert page.ask(dots) == 5


def test_columns_are_chosen(page: Visit) -> None:
    seen = (
        "[...document.querySelectorAll('#scores thead th')].filter((each) => !each.hidden)"
        ".map((each) => each.dataset.column)"
    )
    before = page.ask(seen)
    assert "accuracy" in before
    assert not {"dev", "class-0", "threads"} & set(before)
    page.page.locator("details.columns summary").click()
    page.page.get_by_label("All classes").check()
    page.page.get_by_label("Accuracy").uncheck()
    after = page.ask(seen)
    assert set(after) - set(before) == {"class-0", "class-1", "class-2"}
    assert set(before) - set(after) == {"accuracy"}
    widths = f"{SHOWN}.map((row) => [...row.cells].filter((cell) => !cell.hidden).length)"
    assert set(page.ask(widths)) == {len(after)}


# --- drawings ---


def test_every_drawing_is_drawn(page: Visit) -> None:
    drawn = "[...document.querySelectorAll('.drawing')].map((each) => [each.id, each.querySelectorAll('svg').length])"
    assert dict(page.ask(drawn)) == {
        "draw-parameters": 1,
        "draw-train_seconds": 1,
        "draw-seeds": 1,
        "draw-dev": 1,
        "draw-loss": 1,
        "draw-gap": 1,
        "draw-missing": 1,
    }
    assert page.ask("document.querySelectorAll('#draw-seeds [aria-label=dot] > *').length") == 13  # not of majority
    assert "← 31.00" in (page.page.locator("#draw-seeds").text_content() or "")


def test_another_row_has_another_confusion_matrix_and_other_curves(visitor: Visitor) -> None:
    table = make_table(
        make_row("a", 0.6, 1), make_row("b", 0.5, 2, confusion=((10, 0, 0), (0, 10, 0), (5, 0, 5)), epochs=30)
    )
    with visitor.visit(page_of(table)) as visit:
        rows = "[...document.querySelectorAll('.confusion tbody tr')]"
        cells = f"{rows}.map((row) => [...row.cells].map((cell) => cell.textContent))"
        assert visit.ask(cells)[0] == ["neutral", "80.0", "15.0", "5.0", "100"]
        before = visit.page.locator("#draw-dev").inner_html()
        visit.page.locator("#confusion-row").select_option(label="b")
        visit.page.locator("#training-row").select_option(label="b")
        assert visit.ask(cells)[2] == ["fear", "50.0", "0.0", "50.0", "10"]
        assert visit.page.locator("#draw-dev").inner_html() != before
        assert "b:" in (visit.page.locator(".confusion caption").text_content() or "")
        assert visit.said == []


def test_a_class_that_is_never_right_is_framed(page: Visit) -> None:
    frames = page.ask(
        "[...document.querySelectorAll('.heat td.never')]"
        ".map((each) => [each.textContent, getComputedStyle(each).outlineStyle])"
    )
    assert frames == [["0.0", "solid"]] * 6


# --- themes, widths, paper ---

GROUND = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(15, 18, 22)"


@pytest.mark.parametrize(("scheme", "ground"), [("light", LIGHT), ("dark", DARK)])
@pytest.mark.parametrize("width", [390, 1280])
def test_both_themes_at_both_widths(visitor: Visitor, width: int, scheme: Scheme, ground: str) -> None:
    boards = make_boards()
    for text in (page_of(boards.tables[1], boards.tables), index_of(boards)):
        with visitor.visit(text, width, scheme) as visit:
            assert visit.ask(GROUND) == ground
            assert visit.width <= width
            clipped = (
                "[...document.querySelectorAll('h1, h2, p, dl, figure, .drawing, .scroll, .controls > *')]"
                ".filter((each) => each.getBoundingClientRect().right > innerWidth + 1).length"
            )
            assert visit.ask(clipped) == 0
            assert (visit.said, visit.asked) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_switch_outweighs_what_the_system_prefers_and_is_remembered(visitor: Visitor, scheme: Scheme) -> None:
    with visitor.visit(page_of(make_table()), scheme=scheme) as visit:
        own = {"light": LIGHT, "dark": DARK}
        visit.page.get_by_label("Dark", exact=True).check(force=True)
        assert visit.ask(GROUND) == DARK
        tick = "getComputedStyle(document.querySelector('#draw-seeds [aria-label=tick] line')).stroke"
        assert visit.ask(tick) == "rgb(233, 235, 239)"
        visit.page.reload()
        assert visit.ask(GROUND) == DARK
        assert visit.page.get_by_label("Dark", exact=True).is_checked()
        visit.page.get_by_label("Light", exact=True).check(force=True)
        assert visit.ask(GROUND) == LIGHT
        visit.page.get_by_label("Auto", exact=True).check(force=True)
        assert visit.ask(GROUND) == own[scheme]
        assert visit.said == []


CONTRAST = """() => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const numbers = (colour) => known.get(colour) ?? known.set(colour, read(colour)).get(colour);
  const read = (colour) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => rgb.slice(0, 3).map((each) => each / 255)
    .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = numbers(getComputedStyle(each).backgroundColor);
      if (found[3] === 255) return found;
    }
  };
  const weak = [];
  const words = "p, dt, dd, th, td, a, h1, h2, summary, caption, li, .sd, .interval, label, .legend span";
  for (const each of document.querySelectorAll(words)) {
    if (!each.checkVisibility() || !each.textContent.trim()) continue;
    const [ink, under] = [light(numbers(getComputedStyle(each).color)), light(ground(each))];
    const ratio = (Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05);
    if (ratio < 4.5) weak.push([each.tagName, each.className, each.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return weak;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_words_stand_out_from_their_ground(visitor: Visitor, scheme: Scheme) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks for (success criterion 1.4.3); the heat map's cells at every strength."""
    rows = [make_row(f"m{place}", place / 100, place + 1, seeds=1, epochs=0) for place in range(101)]
    spread = [
        row.model_copy(update={"classes": {name: found.model_copy(update={"f1": row.weighted_f1.mean})
                                           for name, found in row.classes.items()}})
        for row in rows[::-1]
    ]  # fmt: skip
    for table in (make_table(), make_table(*spread)):
        with visitor.visit(page_of(table), scheme=scheme) as visit:
            assert visit.ask(CONTRAST) == []


@pytest.mark.parametrize("theme", ["Auto", "Dark"])
def test_on_paper_it_is_light_open_and_without_controls(visitor: Visitor, theme: str) -> None:
    with visitor.visit(page_of(make_table()), scheme="dark") as visit:
        visit.page.get_by_label(theme, exact=True).check(force=True)
        visit.page.emulate_media(media="print")
        assert visit.ask(GROUND) == LIGHT
        assert not visit.page.locator(".controls").is_visible()
        assert visit.ask("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
        visit.ask("window.dispatchEvent(new Event('beforeprint'))")
        assert visit.ask("[...document.querySelectorAll('main details:not(.columns)')].every((each) => each.open)")
        visit.ask("window.dispatchEvent(new Event('afterprint'))")
        assert visit.ask("![...document.querySelectorAll('main details')].some((each) => each.open)")
        assert visit.page.pdf()[:5] == b"%PDF-"
        assert visit.said == []


# --- closed, safe, large ---


def test_hostile_names_are_shown_and_not_run(visitor: Visitor) -> None:
    row = make_row(HOSTILE, 0.6, 1, audited=True, overrides=(HOSTILE,), failed={7: HOSTILE}, device=HOSTILE)
    curve = make_table().missing[0].model_copy(update={"label": HOSTILE})
    table = make_table(row, make_row("b", 0.5, 2), missing=(curve,), classes=("neutral", "joy", HOSTILE))
    for text in (page_of(table, (table,)), index_of(Boards(tables=(table,), across=None))):
        with visitor.visit(text, width=390) as visit:
            assert visit.ask("document.images.length") == 0
            assert visit.ask("[...document.scripts].length") == 5
            assert "</script><script>alert('x')" in (visit.page.locator("#scores").text_content() or "")
            assert visit.width <= 390
            assert (visit.said, visit.asked) == ([], [])
    with visitor.visit(page_of(table)) as visit:
        assert "</script>" in (visit.page.locator(".confusion").text_content() or "")
        visit.page.get_by_label("Model", exact=True).fill("<img src=x")
        assert len(labels(visit)) == 1


def test_the_page_would_refuse_a_request_and_a_foreign_script(visitor: Visitor) -> None:
    """What the tests above rest on: a request would be seen where it is allowed, and is refused where it isn't."""
    foreign = '<img src="other.png"><script>document.title = "taken"</script></main>'
    text = page_of(make_table())
    allowed = re.sub(r"<meta http-equiv=.*\n", "", text).replace("</main>", foreign)
    with visitor.visit(allowed) as visit:
        assert any(address.endswith("other.png") for address in visit.asked)
        assert [reason for _, reason in visit.refused if reason == "csp"] == []
        assert visit.page.title() == "taken"
    with visitor.visit(text.replace("</main>", foreign)) as visit:
        assert visit.page.title() != "taken"
        assert sum("Content Security Policy" in line for line in visit.said) == 2
        assert [reason for address, reason in visit.refused if address.endswith("other.png")] == ["csp"]


def test_links_between_pages_work_from_disk(visitor: Visitor) -> None:
    boards = make_boards()
    for table in boards.tables:
        with visitor.visit(page_of(table, boards.tables), file=f"{table.key.dataset}/{table.name}.html"):
            pass
    with visitor.visit(index_of(boards), file="index.html") as visit:
        visit.page.get_by_role("link", name="meld · emotion").first.click()
        assert visit.page.title().startswith("meld emotion")
        visit.page.get_by_role("link", name="only-text").click()
        assert "only-text" in visit.page.title()
        visit.page.get_by_role("link", name="All leaderboards").click()
        assert visit.page.title().startswith("Leaderboards")


def test_the_index_sorts_filters_and_draws(visitor: Visitor) -> None:
    with visitor.visit(index_of(make_boards())) as visit:
        visit.page.get_by_role("button", name="Weighted F1").click()
        scores = f"{SHOWN}.map((row) => row.querySelector('.c-score .mean').textContent)"
        assert visit.ask(scores) == ["70.00", "60.00", "50.00"]
        visit.page.get_by_label("Leaderboard", exact=True).fill("iemocap cmath")
        assert visit.ask(scores) == ["70.00"]
        assert "critical difference 2.10" in (visit.page.locator("#draw-across").text_content() or "")
        assert "1.50 " not in visit.page.locator("#draw-across").inner_html().replace("mmdfn 1.50", "")
        assert (visit.said, visit.asked) == ([], [])


def test_two_hundred_rows_sort_and_filter_at_once(visitor: Visitor) -> None:
    rows = [make_row(f"model-{place}", 0.6 - 0.001 * place, place // 10 * 10 + 1, epochs=30) for place in range(200)]
    with visitor.visit(page_of(make_table(*rows)), width=390) as visit:
        assert visit.width <= 390
        spent = visit.ask(
            """() => {
              const start = performance.now();
              const name = document.getElementById("filter-name");
              document.querySelector("th.c-accuracy button").click();
              name.value = "model-19";
              name.dispatchEvent(new Event("input"));
              return performance.now() - start;
            }"""
        )
        assert labels(visit) == [f"model-{place}" for place in (*range(199, 189, -1), 19)]
        assert spent < 2_000
        assert visit.ask("getComputedStyle(document.querySelector('#scores thead th')).position") == "sticky"
        assert visit.said == []


def test_the_first_columns_stay_while_the_table_scrolls(visitor: Visitor) -> None:
    with visitor.visit(page_of(make_table()), width=390) as visit:
        left = "document.querySelector('#scores tbody .c-label').getBoundingClientRect().left"
        before = visit.ask(left)
        visit.ask("document.querySelector('#scores').parentElement.scrollLeft = 300")
        assert visit.ask("document.querySelector('#scores').parentElement.scrollLeft") == 300
        assert visit.ask(left) == pytest.approx(before, abs=1)
        assert visit.ask("document.querySelector('#scores tbody .c-weighted_f1').getBoundingClientRect().right") < 200


def test_without_scripts_the_numbers_are_there(visitor: Visitor) -> None:
    with visitor.visit(page_of(make_table()), scripts=False) as visit:
        text = visit.page.locator("main").inner_text()
        assert "no test separates it from cmath (tuned)" in text
        assert "Pareto front" in text
        assert "On the front, than which no row is both better and cheaper" in text
        assert "need JavaScript" in text
        assert visit.page.locator("#scores tbody tr").count() == 6


UNTOLD = """() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const named = (each) =>
    each.ariaLabel || each.textContent.trim() || each.labels?.length || each.ariaLabelledByElements;
  return {
    unnamed: all("button, input, select, .scroll, section, nav").filter((each) => !named(each)).length,
    tables: all("table").filter((each) => !each.caption?.textContent.trim()).length,
    headers: all("thead th").filter((each) => each.scope !== "col").length,
    rows: all("tbody tr").filter((each) => each.querySelectorAll("th[scope=row]").length !== 1).length,
    language: document.documentElement.lang,
    headings: all("h1, h2").map((each) => each.tagName).slice(0, 3),
  };
}"""


def test_a_screen_reader_is_told_what_the_eye_sees(page: Visit) -> None:
    assert page.ask(UNTOLD) == {
        "unnamed": 0,
        "tables": 0,
        "headers": 0,
        "rows": 0,
        "language": "en",
        "headings": ["H1", "H2", "H2"],
    }
    identifiers = page.ask("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(identifiers) == len(set(identifiers))
