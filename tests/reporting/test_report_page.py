"""The page is one file, holds everything that it was given, and does nothing that text in it asks for."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import vl_convert
from demo_run import DIGITS, curves, demo_report, systems, trajectory

from retool.errors import RetoolError, UsageError
from retool.reporting import CurveRow, Example, Report, System, write_report
from retool.types import CallStatus, Problem

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u2028\u2029\x1b[31m&amp;{{ 7*7 }}\ud800'
SHOWN = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u2028\u2029&amp;{{ 7*7 }}\ufffd'


class Page(HTMLParser):
    """The parsed page: its elements, the text of each script, and all text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self._raw: list[str] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._raw = {"script": self.scripts, "style": self.styles}.get(tag)
        if self._raw is not None:
            self._raw.append("")

    def handle_endtag(self, tag):
        self._raw = None

    def handle_data(self, data):
        if self._raw is None:
            self.text += data
        else:
            self._raw[-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def classes(self, tag: str) -> list[str]:
        return [attributes.get("class") or "" for attributes in self.named(tag)]

    @property
    def drawings(self) -> dict:
        return json.loads(self.scripts[0])


def page_of(report: Report, folder) -> Page:
    write_report(folder / "report.html", report)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return page_of(demo_report(), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory) -> Page:
    """Everything that is text is hostile."""
    problem = Problem(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    call = (f"print('{HOSTILE}')", HOSTILE, CallStatus.ERROR)
    told = trajectory(problem, HOSTILE, call, HOSTILE, arm=HOSTILE, step=0, answer=HOSTILE)
    told.reward = {"total": 1.0, HOSTILE: 0.5}
    system = System(
        label=HOSTILE,
        note=HOSTILE,
        accuracy=0.5,
        ci95=None,
        problems=2,
        samples=1,
        families={HOSTILE: 0.5, HOSTILE + "2": 0.4},
    )
    rows = [CurveRow(arm=HOSTILE, step=s, metric=m, value=0.1) for s in (0, 1) for m in (HOSTILE, "code_ratio")]
    report = Report(
        title=HOSTILE,
        summary=HOSTILE,
        facts={HOSTILE: HOSTILE},
        systems=[system, replace(system, label=HOSTILE + "2")],
        curves=rows,
        examples=[Example(HOSTILE, told, HOSTILE)],
    )
    return page_of(report, tmp_path_factory.mktemp("hostile"))


def test_nothing_is_loaded_from_anywhere(page):
    loading = {"src", "srcset", "poster", "action", "background", "formaction", "object", "xlink:href"}
    assert not [name for _, attributes in page.elements for name in attributes if name in loading]
    assert all(link["href"].startswith(("#", "data:")) for link in page.named("a") + page.named("link"))
    assert not re.search(r"@import|url\(", "".join(page.styles))
    without_bundle = page.html.replace(page.scripts[1], "")
    assert not re.search(r"https?://", without_bundle)


def test_the_policy_allows_the_pages_own_two_scripts_and_nothing_else(page):
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    hashes = ["sha256-" + base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts[1:]]
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"'(sha256-[^']+)'", policy) == hashes
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_hostile_text_opens_no_element_and_runs_nothing(page, hostile_page):
    assert len(hostile_page.scripts) == len(page.scripts) == 3
    assert hostile_page.scripts[1:] == page.scripts[1:]
    assert not hostile_page.named("img")
    assert not [name for _, attributes in hostile_page.elements for name in attributes if name.startswith("on")]


def test_hostile_text_is_shown_as_it_is_without_control_codes(hostile_page):
    assert hostile_page.text.count(SHOWN) >= 15
    assert "49" not in hostile_page.text
    outside = hostile_page.html.replace(hostile_page.scripts[1], "")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", outside)


def test_embedded_data_cannot_end_its_element_and_parses_back(hostile_page):
    data = hostile_page.scripts[0]
    assert not re.search("[<>&\u2028\u2029]", data)
    assert SHOWN in {row["system"] for row in hostile_page.drawings["charts"]["accuracy"]["data"]["values"]}
    assert f"panel-{SHOWN}" in hostile_page.drawings["charts"]


def test_each_chart_has_its_place_and_is_a_valid_drawing(page, hostile_page):
    for one in page, hostile_page:
        places = [attributes["data-chart"] for attributes in one.named("div") if "data-chart" in attributes]
        assert sorted(places) == sorted(one.drawings["charts"])
        for spec in one.drawings["charts"].values():
            assert vl_convert.vegalite_to_vega(spec | {"config": one.drawings["config"]})["marks"]


def test_the_six_curves_and_the_learning_curves_are_drawn(page):
    titles = ["Accuracy", "Reward", "Response length", "Code ratio", "Code lines", "Correct code count"]
    titles += ["Code pass rate", "Invocation timing", "entropy", "sampler-to-learner KL"]
    panels = [spec["description"].split(" over ")[0] for n, spec in page.drawings["charts"].items() if "panel" in n]
    assert sorted(panels) == sorted(titles)


def test_every_point_of_every_curve_is_in_the_data(page):
    drawn = [row for name, spec in page.drawings["charts"].items() if "panel" in name for row in spec["data"]["values"]]
    assert sorted(map(json.dumps, drawn)) == sorted(map(json.dumps, curves()))


def test_all_trajectories_are_there_with_all_that_was_written(page):
    examples = demo_report().examples
    assert page.classes("details").count("trajectory") == len(examples)
    written = re.sub(r"\s+", "", page.text)
    for example in examples:
        t = example.trajectory
        assert t.id in page.text
        assert t.problem.text in page.text
        assert re.sub(r"\s+", "", example.prompt) in written
        assert re.sub(r"\s+", "", "".join(c.code for c in t.calls)) in written or len(t.calls) > 1
        for span in t.spans:
            for line in span.text.splitlines():
                assert line.strip() in page.text


def test_each_interpreter_span_is_marked_as_not_trained_on(page):
    spans = [span for example in demo_report().examples for span in example.trajectory.spans]
    results = sum(span.author == "interpreter" for span in spans)
    assert page.classes("div").count("block interpreter") == results
    assert page.classes("div").count("block model") == len(spans) - results
    prompts = len(demo_report().examples)
    assert page.text.count("not trained on") == results + prompts + 1  # the last in the legend


def test_code_is_set_apart_and_each_call_tells_how_it_ended(page):
    calls = [call for example in demo_report().examples for call in example.trajectory.calls]
    assert page.classes("pre").count("code") == len(calls)
    verdicts = [name for name in page.classes("span") if name.startswith("status")]
    assert verdicts.count("status good") == sum(call.status is CallStatus.OK for call in calls)
    assert len(verdicts) == len(calls)


def test_code_that_the_span_holds_only_escaped_is_shown_after_it(tmp_path):
    t = trajectory(DIGITS, ("print('a')\nprint('b')", "a", CallStatus.OK), arm="a", step=0, answer="65")
    t.spans[0].text = "<tool_call>{\"code\": \"print('a')\\nprint('b')\"}</tool_call>"
    text = page_of(Report(title="t", examples=[Example("s", t)]), tmp_path).text
    assert t.spans[0].text in text
    assert t.calls[0].code in text


def test_a_call_that_was_never_answered_tells_its_status(tmp_path):
    t = trajectory(DIGITS, ("1", "", CallStatus.OVERLOAD), arm="a", step=0, answer=None)
    del t.spans[1]
    assert "overload" in page_of(Report(title="t", examples=[Example("s", t)]), tmp_path).text


def test_the_table_has_a_row_a_system_and_only_columns_with_content(page, tmp_path):
    assert "code pass, wrong" in page.text
    bare = System(label="a model", accuracy=0.25, ci95=(0.2, 0.3), problems=50, samples=1)
    single = page_of(Report(title="One evaluation", systems=[bare]), tmp_path)
    assert "0.20–0.30" in single.text
    assert "code ratio" not in single.text
    assert set(single.drawings["charts"]) == {"accuracy"}


def test_a_report_of_one_run_needs_no_systems(tmp_path):
    one = [row for row in curves() if row["arm"] == "ReTool"]
    single = page_of(Report(title="One run", curves=one), tmp_path)
    assert len(single.drawings["charts"]) == 10
    assert not single.named("ul")


def test_an_empty_report_is_still_a_page(tmp_path):
    assert "Nothing yet" in page_of(Report(title="Nothing yet"), tmp_path).text


def test_a_curve_of_one_point_and_values_that_are_not_numbers_are_drawn_as_gaps(tmp_path):
    values = [0.5, None, float("nan"), float("inf")]
    rows = [CurveRow(arm="a", step=i, metric="loss", value=value) for i, value in enumerate(values)]
    rows.append(CurveRow(arm="a", step=0, metric="never", value=None))
    charts = page_of(Report(title="t", curves=rows), tmp_path).drawings["charts"]
    assert [row["value"] for row in charts["panel-loss"]["data"]["values"]] == [0.5, None, None, None]
    assert "panel-never" not in charts


def test_two_systems_of_one_name_are_an_error():
    with pytest.raises(UsageError, match="two systems called 'ReTool'"):
        Report(title="t", systems=[systems()[1], systems()[1]])


def test_systems_are_read_from_the_entries_of_a_summary():
    row = {
        "accuracy": 0.5,
        "ci95": [0.4, 0.6],
        "problems": 10,
        "samples": 4,
        "truncated": 0.1,
        "code_ratio": 0.9,
        "code_pass_rate": {"correct": 1.0, "incorrect": None},
        "families": {"sums": 0.5},
        "pass_at": {"1": 0.5},
    }
    system = System.from_json("ReTool", row, note="n")
    assert system == System(
        label="ReTool",
        note="n",
        accuracy=0.5,
        ci95=(0.4, 0.6),
        problems=10,
        samples=4,
        truncated=0.1,
        code_ratio=0.9,
        code_pass_rate={"correct": 1.0, "incorrect": None},
        families={"sums": 0.5},
    )


def test_the_same_report_gives_the_same_bytes(tmp_path):
    write_report(tmp_path / "a.html", demo_report())
    write_report(tmp_path / "b.html", demo_report())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_report_that_cannot_be_written_is_one_clear_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RetoolError, match=r"could not write .*report\.html"):
        write_report(tmp_path / "file" / "report.html", Report(title="t", systems=systems()))
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(RetoolError, match="could not write"):
        write_report(tmp_path / "folder.html", Report(title="t"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]
