"""The page in a real browser: opened, clicked, typed into, printed. `make test-browser` installs what this needs."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace

import pytest
from demo_run import DIGITS, POWER, archive, demo_report, entries, trajectory

from retool.reporting import CurveRow, Entry, Origin, Report, System, write_report
from retool.types import CallStatus

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: run `make test-browser`")

CHROMIUM = os.environ.get("RETOOL_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
ATTACK = '</script><script>window.attacked = 1</script><img src=x onerror="window.attacked = 2">'
MANY = 3000


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("needs Chromium: run `make test-browser`, or name it in RETOOL_CHROMIUM")
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def many() -> list[Entry]:
    """Enough for a list that cannot all be drawn; number 1234 is the only one with a snippet of its own."""
    found = []
    for i in range(MANY):
        code = "print(sum(int(d) for d in str(29**9)))" if i != 1234 else "needle_in_the_hay = 65; print(65)"
        told = trajectory(
            DIGITS, f"Attempt {i}. ", (code, "65", CallStatus.OK), arm="a", step=i % 5, answer="65", sample=i
        )
        found.append(Entry(run="many", origin=Origin.HELD_OUT, step=i % 5, trajectory=told))
    return found


def named() -> Report:
    name = "/a/folder/with/long_names_without_any_spaces/in_another_one/rl"
    rows = [CurveRow(arm=name, step=step, metric="accuracy", value=step / 2, low=0.0, high=1.0) for step in (0, 1)]
    system = System(label=f"{name}/eval", accuracy=0.5, ci95=(0.4, 0.6), problems=3, samples=1)
    return Report(title=name, curves=rows, systems=[system], facts={name: name})


def hostile() -> Report:
    told = trajectory(
        replace(POWER, text=ATTACK),
        ATTACK,
        (f"print('{ATTACK}')", ATTACK, CallStatus.ERROR),
        arm="a",
        step=0,
        answer=ATTACK,
    )
    pieces = dict.fromkeys(told.response_ids, ATTACK)
    entry = Entry(run=ATTACK, origin=Origin.EVALUATION, trajectory=told, prompt=ATTACK, pieces=pieces)
    return Report(title=ATTACK, facts={ATTACK: ATTACK}, archive=archive([entry]), notes=[ATTACK])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_report(folder / "demo.html", demo_report())
    write_report(folder / "many.html", Report(title="many", archive=archive(many())))
    write_report(folder / "hostile.html", hostile())
    write_report(folder / "named.html", named())
    return folder


@pytest.fixture
def opened(browser, folder):
    """A function that opens a page; afterwards, nothing may have gone wrong in it, and nothing asked the network."""
    pages, troubles = [], []

    def open_page(name: str, **settings):
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}} | settings)
        page.on(
            "console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request", lambda r: troubles.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None
        )
        page.goto((folder / f"{name}.html").as_uri())
        page.wait_for_selector("html[data-ready]")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not troubles


def test_all_charts_are_drawn(opened):
    page = opened("demo")
    page.wait_for_selector("html[data-charts=drawn]")
    places = page.locator("[data-chart]")
    assert places.count() == len(page.query_selector_all("[data-chart] svg")) > 10


def test_hovering_over_a_curve_shows_values_with_intervals(opened):
    page = opened("demo")
    page.wait_for_selector("html[data-charts=drawn]")
    chart = page.locator("[data-chart=panel-accuracy] svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2 + 5, box["y"] + box["height"] / 2)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "–" in page.inner_text("#vg-tooltip-element")


def test_hovering_over_a_group_says_whose_it_is_and_how_long_it_took(opened):
    page = opened("demo")
    page.wait_for_selector("html[data-charts=drawn]")
    chart = page.locator("[data-chart=step-ReTool] svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3)
    page.mouse.move(box["x"] + box["width"] / 3 + 1, box["y"] + box["height"] / 3)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert re.search(r"who\s+sampler \d\s+what\s+rollout of step \d+", page.inner_text("#vg-tooltip-element"))


def test_a_click_in_the_list_opens_a_trajectory_with_code_result_and_verdict(opened):
    page = opened("demo")
    page.locator(".item", has_text="sum of the digits").nth(1).click()
    reader = page.locator("#reader")
    playwright.expect(reader.locator(".question")).to_have_text(DIGITS.text)
    assert reader.locator("pre.code").count() == 2
    assert reader.locator("pre.code .name").first.inner_text() == "print"
    assert reader.locator(".block.interpreter .status").all_inner_texts() == ["error", "ok"]
    assert "mended by call 2" in reader.inner_text()
    assert "#t=" in page.url


def test_filters_and_order_choose_what_is_listed(opened):
    page = opened("demo")
    count = page.locator("#count")
    playwright.expect(count).to_have_text("9 of 9")
    page.select_option("#verdict", "wrong")
    playwright.expect(count).to_have_text(f"{sum(not e.trajectory.correct for e in entries())} of 9")
    assert page.locator(".item .dot.correct").count() == 0
    page.select_option("#verdict", "")
    page.select_option("#code", "corrected")
    playwright.expect(count).to_have_text("1 of 9")
    page.select_option("#code", "failed")
    playwright.expect(count).to_have_text("3 of 9")
    page.select_option("#code", "")
    page.select_option("#step", "8")
    playwright.expect(count).to_have_text("2 of 9")
    page.select_option("#step", "")
    page.select_option("#run", label="ReTool: rollouts")
    playwright.expect(count).to_have_text("1 of 9")
    page.select_option("#run", "")
    page.select_option("#order", "length")
    longest = max(entries(), key=lambda e: e.trajectory.tokens()).trajectory
    assert longest.problem.text in page.locator(".item").first.inner_text()
    page.click("#direction")
    shortest = min(entries(), key=lambda e: e.trajectory.tokens()).trajectory
    assert shortest.problem.text in page.locator(".item").first.inner_text()


def test_the_search_finds_code_among_thousands_while_few_rows_exist(opened):
    page = opened("many")
    assert page.locator(".item").count() < 60
    page.fill("#query", "NEEDLE_in_the")
    playwright.expect(page.locator("#count")).to_have_text("1 of 3,000")
    page.locator(".item").click()
    playwright.expect(page.locator("#reader pre.code")).to_contain_text("needle_in_the_hay")
    page.fill("#query", "no such text anywhere")
    playwright.expect(page.locator("#count")).to_have_text("0 of 3,000")
    assert "Nothing fits" in page.inner_text("#list")


def test_a_long_list_scrolls_to_its_end(opened):
    page = opened("many")
    page.evaluate("document.getElementById('list').scrollTop = 1e9")
    page.locator("[aria-posinset='3000']").click()
    playwright.expect(page.locator("#reader .meta")).to_contain_text("step 4")


def test_keys_move_search_compare_and_explain(opened):
    page = opened("demo")
    reader = page.locator("#reader")
    first = reader.locator(".meta code").inner_text()
    page.keyboard.press("j")
    playwright.expect(reader.locator(".meta code")).not_to_have_text(first)
    page.keyboard.press("k")
    playwright.expect(reader.locator(".meta code")).to_have_text(first)
    page.keyboard.press("/")
    page.keyboard.type("lamps")
    playwright.expect(page.locator("#count")).to_have_text("3 of 9")
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#count")).to_have_text("9 of 9")
    page.keyboard.press("ArrowDown")
    playwright.expect(reader.locator(".meta code")).not_to_have_text(first)
    page.keyboard.press("?")
    playwright.expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("c")
    playwright.expect(reader.locator("article")).to_have_count(2)
    questions = reader.locator(".question").all_inner_texts()
    assert questions[0] == questions[1]
    page.keyboard.press("Escape")
    playwright.expect(reader.locator("article")).to_have_count(1)


def test_the_same_problem_is_read_at_two_checkpoints_and_in_two_arms(opened):
    page = opened("demo")
    page.locator(".item", has_text="17 to the power 23").first.click()
    page.select_option("#beside", label="ReTool · held-out · step 8 · sample 0 · correct")
    playwright.expect(page.locator("#reader article")).to_have_count(2)
    assert "step 0" in page.locator(".meta").nth(0).inner_text()
    assert "step 8" in page.locator(".meta").nth(1).inner_text()
    page.select_option("#beside", label="text-only RL · held-out · step 40 · sample 0 · wrong")
    playwright.expect(page.locator(".meta").nth(1)).to_contain_text("text-only RL")


def test_tokens_show_mask_log_prob_gap_and_advantage(opened):
    page = opened("demo")
    page.select_option("#run", label="ReTool: rollouts")
    page.locator(".item").first.click()
    told = next(e for e in entries() if e.learner).trajectory
    page.get_by_role("button", name="Mask", exact=True).click()
    playwright.expect(page.locator(".token")).to_have_count(len(told.response_ids))
    assert page.locator(".token.trained").count() == sum(told.model_mask)
    page.get_by_role("button", name="Gap", exact=True).click()
    playwright.expect(page.locator(".tokens.gap")).to_have_count(3)
    assert (
        page.locator(".token").nth(1).get_attribute("title").startswith('"t2 " · log-prob -0.10 (90 %) · gap −0.0020')
    )
    colours = page.evaluate("[...document.querySelectorAll('.token')].map(t => getComputedStyle(t).backgroundColor)")
    assert len(set(colours)) > 4
    page.keyboard.press("t")
    playwright.expect(page.locator(".tokens.advantages")).to_have_count(3)
    page.keyboard.press("t")
    playwright.expect(page.locator(".tokens")).to_have_count(0)


def test_a_view_that_cannot_be_had_says_why(opened):
    page = opened("demo")
    gap = page.get_by_role("button", name="Gap", exact=True)
    assert gap.is_disabled()
    assert "learned from" in gap.get_attribute("title")


def test_a_link_to_a_trajectory_opens_it(opened):
    page = opened("demo")
    page.locator(".item").nth(3).click()
    playwright.expect(page.locator(".meta code")).to_have_text("ReTool-8-p17-0")
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("html[data-ready]")
    playwright.expect(page.locator(".meta code")).to_have_text("ReTool-8-p17-0")
    playwright.expect(page.locator(".item.picked")).to_be_visible()


def test_hostile_text_is_shown_and_does_nothing(opened):
    page = opened("hostile")
    page.get_by_role("button", name="Mask", exact=True).click()
    page.get_by_role("button", name="Text", exact=True).click()
    page.fill("#query", ATTACK[:30])
    playwright.expect(page.locator("#count")).to_have_text("1 of 1")
    playwright.expect(page.locator("#reader pre.code")).to_contain_text(ATTACK)
    assert page.evaluate("window.attacked") is None
    assert page.locator("img").count() == 0


def test_the_theme_follows_the_system(opened):
    light, dark = (
        opened("demo", color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    )
    assert light == "rgb(255, 255, 255)"
    assert dark != light


def test_on_a_phone_nothing_overflows_and_the_list_gives_way_to_the_reader(opened):
    page = opened("demo", viewport={"width": 390, "height": 800})
    page.wait_for_selector("html[data-charts=drawn]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#reader").is_hidden()
    page.locator(".item").nth(2).click()
    playwright.expect(page.locator("#reader")).to_be_visible()
    assert page.locator("#list").is_hidden()
    page.get_by_role("button", name="‹ List").click()
    assert page.locator("#list").is_visible()


def test_long_names_overflow_nothing(opened):
    for width in (390, 1280):
        page = opened("named", viewport={"width": width, "height": 800})
        page.wait_for_selector("html[data-charts=drawn]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cards = page.evaluate(
            "[...document.querySelectorAll('.headline li')].map((li) => li.scrollWidth - li.clientWidth)"
        )
        assert cards and max(cards) <= 0


def test_it_prints_with_charts_and_the_trajectory_that_is_read(opened, tmp_path):
    page = opened("demo")
    page.wait_for_selector("html[data-charts=drawn]")
    page.emulate_media(media="print")
    assert page.locator("#list").is_hidden()
    assert page.locator("#reader article").is_visible()
    assert page.pdf(path=tmp_path / "page.pdf").startswith(b"%PDF")
