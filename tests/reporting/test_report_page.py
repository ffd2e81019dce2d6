"""The page is one file, holds everything that it was given, and does nothing that text in it asks for."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import pytest
import vl_convert
from demo_run import archive, curves, demo_report, systems, trajectory

from parsed_page import Page, page_of
from retool.errors import RetoolError, UsageError
from retool.reporting import (
    Alarm,
    Correction,
    CurveRow,
    Entry,
    Origin,
    Purposes,
    Report,
    StepTimes,
    System,
    Work,
    write_report,
)
from retool.types import CallStatus, Problem

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u2028\u2029\x1b[31m&amp;{{ 7*7 }}\ud800'
SHOWN = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u2028\u2029&amp;{{ 7*7 }}\ufffd'


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
    entry = Entry(
        run=HOSTILE,
        origin=Origin.EVALUATION,
        trajectory=told,
        prompt=HOSTILE,
        pieces=dict.fromkeys(told.response_ids, HOSTILE),
        corrections=[Correction(0, 0, HOSTILE, HOSTILE)],
    )
    system = System(
        label=HOSTILE,
        note=HOSTILE,
        accuracy=0.5,
        ci95=None,
        problems=2,
        samples=1,
        families={HOSTILE: 0.5, HOSTILE + "2": 0.4},
        protocol={HOSTILE: HOSTILE},
    )
    rows = [CurveRow(arm=HOSTILE, step=s, metric=m, value=0.1) for s in (0, 1) for m in (HOSTILE, "code_ratio")]
    report = Report(
        title=HOSTILE,
        summary=HOSTILE,
        facts={HOSTILE: HOSTILE},
        systems=[system, replace(system, label=HOSTILE + "2", protocol={HOSTILE: "another"})],
        curves=rows,
        watched=[HOSTILE],
        alarms=[Alarm(HOSTILE, HOSTILE, 1, None, HOSTILE, HOSTILE)],
        purposes=[Purposes(HOSTILE, HOSTILE, {HOSTILE: 3})],
        step_times=[
            StepTimes(
                label=HOSTILE,
                step=1,
                steps=1,
                phases={"rollout": 1.0, "update": 1.0},
                mean={"rollout": 1.0, "update": 1.0},
                samplers=1,
                work=[Work(0, "rollout", 0.0, 1.0, HOSTILE)],
            )
        ],
        archive=archive([entry]),
        notes=[HOSTILE],
    )
    return page_of(report, tmp_path_factory.mktemp("hostile"))


def test_nothing_is_loaded_from_anywhere(page):
    loading = {"src", "srcset", "poster", "action", "background", "formaction", "object", "xlink:href"}
    assert not [name for _, attributes in page.elements for name in attributes if name in loading]
    assert all(link["href"].startswith(("#", "data:")) for link in page.named("a") + page.named("link"))
    assert not re.search(r"@import|url\(", "".join(page.styles))
    without_bundle = page.html.replace(page.scripts[0], "")
    assert not re.search(r"https?://", without_bundle)


def test_the_policy_allows_the_pages_own_two_scripts_and_nothing_else(page):
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    hashes = ["sha256-" + base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts]
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"'(sha256-[^']+)'", policy) == hashes
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_hostile_text_opens_no_element_and_runs_nothing(page, hostile_page):
    assert len(hostile_page.scripts) == 2
    assert hostile_page.scripts == page.scripts
    assert not hostile_page.named("img")
    assert not [name for _, attributes in hostile_page.elements for name in attributes if name.startswith("on")]


def test_the_page_makes_text_of_what_was_written_and_never_html(page):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(", page.scripts[1])


def test_hostile_text_is_shown_as_it_is_without_control_codes(hostile_page):
    assert hostile_page.text.count(SHOWN) >= 20
    assert "49" not in hostile_page.text
    outside = hostile_page.html.replace(hostile_page.scripts[0], "")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", outside)


def test_hostile_text_in_the_packed_trajectories_has_no_control_codes(hostile_page):
    (row,) = hostile_page.rows
    for packed in hostile_page.columns, hostile_page.read(row), hostile_page.tokens(row):
        written = json.dumps(packed, ensure_ascii=False)
        assert json.dumps(SHOWN, ensure_ascii=False)[1:-1] in written
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", written)


def test_embedded_data_cannot_end_its_element_and_parses_back(hostile_page):
    for data in hostile_page.data.values():
        assert not re.search("[<>&\u2028\u2029]", data)
    assert SHOWN in {row["system"] for row in hostile_page.drawings["charts"]["accuracy"]["data"]["values"]}
    assert f"panel-{SHOWN}" in hostile_page.drawings["charts"]


def test_each_chart_has_its_place_and_is_a_valid_drawing(page, hostile_page):
    for one in page, hostile_page:
        places = [attributes["data-chart"] for attributes in one.named("div") if "data-chart" in attributes]
        assert sorted(places) == sorted(one.drawings["charts"])
        for spec in one.drawings["charts"].values():
            assert vl_convert.vegalite_to_vega(spec | {"config": one.drawings["config"]})["marks"]


def test_the_six_curves_self_correction_and_the_learning_curves_are_drawn(page):
    titles = ["Accuracy", "Reward", "Response length", "Code ratio", "Code lines", "Correct code count"]
    titles += ["Code pass rate", "Invocation timing", "Self-correction", "Entropy", "Sampler to learner KL"]
    panels = [spec["description"].split(" over ")[0] for n, spec in page.drawings["charts"].items() if "panel" in n]
    assert sorted(panels) == sorted(titles)


def test_every_point_of_every_curve_is_in_the_data(page):
    drawn = [row for name, spec in page.drawings["charts"].items() if "panel" in name for row in spec["data"]["values"]]
    assert sorted(map(json.dumps, drawn)) == sorted(map(json.dumps, curves()))


def test_the_table_has_a_row_a_system_and_only_columns_with_content(page, tmp_path):
    assert "code pass, wrong" in page.text
    assert "pass@4" in page.text
    assert "maj@4" in page.text
    bare = System(label="a model", accuracy=0.25, ci95=(0.2, 0.3), problems=50, samples=1)
    single = page_of(Report(title="One evaluation", systems=[bare]), tmp_path)
    assert "0.20–0.30" in single.text
    assert "code ratio" not in single.text
    assert set(single.drawings["charts"]) == {"accuracy"}


def test_protocols_that_differ_are_shown_setting_by_setting(page, tmp_path):
    assert "Not like for like" in page.text
    assert demo_report().differing == {"interpreter": ["on", "on", "on", "off"]}
    alike = page_of(Report(title="t", systems=systems()[:3]), tmp_path)
    assert "Not like for like" not in alike.text


def test_a_system_without_a_protocol_is_not_compared():
    first, _, _, last = systems()
    assert Report(title="t", systems=[replace(first, protocol={}), last]).differing == {}
    fewer = replace(first, protocol={"interpreter": "off"})
    assert Report(title="t", systems=[fewer, last]).differing == {
        "sampling.temperature": [None, 1.0],
        "sampling.top_p": [None, 0.7],
    }


def test_alarms_tell_when_they_began_and_whether_they_ended(page, tmp_path):
    assert re.search(r"ReTool · steps 3 to 5\s+truncation responses cut off", page.text)
    assert re.search(r"text-only RL · from step 31 to the end\s+entropy", page.text)
    calm = page_of(Report(title="t", curves=curves(), watched=["ReTool"]), tmp_path)
    assert "Nothing looked wrong while ReTool trained" in calm.text
    assert 'id="alarms"' not in page_of(Report(title="t", curves=curves()), tmp_path).html


def test_purposes_are_shares_of_the_calls_before_and_after(page):
    spec = page.drawings["charts"]["purposes-ReTool"]
    shares = {(row["purpose"], row["moment"]): row["share"] for row in spec["data"]["values"]}
    assert shares["verification", "step 0"] == pytest.approx(8 / 159)
    assert shares["verification", "step 40"] == pytest.approx(64 / 285)
    assert shares["symbolic", "step 0"] == 0
    assert "22% (64)" in page.text


def test_the_overview_says_what_became_of_each_arm(page):
    row = re.search(r"ReTool\s*0 → 40(.*?)text-only RL\s*0 → 40", page.text, re.DOTALL)[1]
    first, last = (
        next(r["value"] for r in curves() if (r["arm"], r["step"], r["metric"]) == ("ReTool", s, "accuracy"))
        for s in (0, 40)
    )
    assert f"{first:.2f} →" in row
    assert f"{last:.2f}" in row


def test_a_system_that_is_also_an_arm_has_one_figure(page):
    assert page.classes("span").count("value") == len(systems())


def test_hovering_over_a_curve_tells_its_interval(page):
    tips = page.drawings["charts"]["panel-accuracy"]["layer"][-1]["data"]["values"]
    assert re.fullmatch(r"0\.\d\d \(0\.\d\d–0\.\d\d\)", tips[0]["ReTool"])


def test_a_report_of_one_run_needs_no_systems(tmp_path):
    one = [row for row in curves() if row["arm"] == "ReTool"]
    single = page_of(Report(title="One run", curves=one), tmp_path)
    assert len(single.drawings["charts"]) == 11
    assert single.classes("ul") == ["headline"]
    assert "watched problems at step 40, 0.61 at step 0" in single.text


def test_an_empty_report_is_still_a_page(tmp_path):
    assert "Nothing yet" in page_of(Report(title="Nothing yet"), tmp_path).text


def test_a_curve_of_one_point_and_values_that_are_not_numbers_are_drawn_as_gaps(tmp_path):
    values = [0.5, None, float("nan"), float("inf")]
    rows = [CurveRow(arm="a", step=i, metric="loss", value=value) for i, value in enumerate(values)]
    rows.append(CurveRow(arm="a", step=0, metric="never", value=None))
    charts = page_of(Report(title="t", curves=rows), tmp_path).drawings["charts"]
    assert [row["value"] for row in charts["panel-loss"]["data"]["values"]] == [0.5, None, None, None]
    assert "panel-never" not in charts


def test_a_curve_that_stays_at_zero_lies_at_the_foot_of_its_chart(tmp_path):
    rows = [CurveRow(arm="a", step=step, metric="loss", value=0.0) for step in range(3)]
    chart = page_of(Report(title="t", curves=rows), tmp_path).drawings["charts"]["panel-loss"]
    (scale,) = [layer["encoding"]["y"]["scale"] for layer in chart["layer"] if layer["mark"].get("type") == "line"]
    assert scale["domain"] == [0, 1]


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
        "maj_at": {"1": 0.5},
        "protocol": {"name": "tags"},
        "environment": {"retool": "1"},
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
        pass_at={"1": 0.5},
        maj_at={"1": 0.5},
        families={"sums": 0.5},
        protocol={"name": "tags"},
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
