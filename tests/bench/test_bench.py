"""`make bench` writes what it measured. How fast that was is not asked here: the machine may be busy."""

import json
import os
import re

import pytest

from tests.bench import __main__ as bench
from tests.bench import api, configdrive, console, discovery, pools, worlds

KEYS = {"genisoimage_over_ours_2k", "genisoimage_over_ours_32k", "ours_over_floor_2k", "ours_over_floor_32k"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(bench, "PARTS", {"configdrive": lambda: configdrive.measure(rounds=2), "other": dict})
    return tmp_path / "results.json"


def test_the_config_drive_part_writes_its_figures_with_commit_and_date(results, capsys):
    bench.main(["configdrive"])

    written = json.loads(results.read_text())
    assert set(written["configdrive"]) >= KEYS
    assert all(figure > 0 for figure in written["configdrive"].values())
    assert re.fullmatch("[0-9a-f]{40}|unknown", written["commit"])
    assert written["measured"]["configdrive"] == {"commit": written["commit"], "date": written["date"]}
    assert "genisoimage_over_ours_2k" in capsys.readouterr().out


def test_one_part_measured_again_keeps_the_figures_of_the_others(results):
    of_others = {"pass_100k_10pct_sqlite_s": 12.5}
    then = {"commit": "0" * 40, "date": "2026-05-04T12:00:00+00:00"}
    results.write_text(json.dumps({**then, "measured": {"discovery": then}, "discovery": of_others}))

    bench.record(results, "configdrive", {"ours_over_floor_2k": 1.98765})

    written = json.loads(results.read_text())
    assert (written["discovery"], written["measured"]["discovery"]) == (of_others, then)
    assert written["configdrive"] == {"ours_over_floor_2k": 1.988}


def test_the_discovery_part_measures_real_processes(monkeypatch):
    monkeypatch.setattr(discovery, "DATABASES", {"sqlite": discovery.DATABASES["sqlite"]})
    monkeypatch.setattr(discovery, "PERCENTS", {"10pct": 10})
    monkeypatch.setattr(discovery, "WORKERS", {"": 2})
    monkeypatch.setattr(discovery, "SETTLING_SECONDS", 1.0)

    figures = discovery.measure(hosts=3, idle_seconds=2)

    assert set(figures) == {"pass_100k_10pct_sqlite_s", "pass_100k_peak_mb", "idle_core_percent"}
    assert all(figure > 0 for figure in figures.values())


@pytest.mark.django_db
def test_a_pass_that_left_wrong_rows_has_no_figure():
    with pytest.raises(SystemExit, match="NICs: 100000 differ"):
        worlds.check("100")


def test_the_api_part_measures_a_real_web_server(monkeypatch):
    monkeypatch.setattr(api, "DATABASES", {"sqlite": api.DATABASES["sqlite"]})

    figures = api.measure(vms=1200, rounds=3, deploys=20)

    ours = {"page_over_sql_sqlite", "page_ms_sqlite", "deploys_per_s_sqlite", "deploys_per_s", "last_over_first"}
    assert set(figures) == ours | {"page_queries", "list_one_queries", "listnics_queries"}
    assert all(figure > 0 for figure in figures.values())


def test_the_console_part_measures_its_pages(monkeypatch):
    monkeypatch.setattr(console, "DATABASES", {"sqlite": console.DATABASES["sqlite"]})

    figures = console.measure(vms=600, rounds=2)

    assert {*console.RATIOS, "dashboard_queries", "first_load_kb"} <= set(figures)
    assert all(figure > 0 for figure in figures.values())


@pytest.mark.parametrize("name", ["vcenter", "xenserver"])
def test_the_pools_parts_measure_a_real_simulator(name):
    figures = pools.measure(name, vms=30, rounds=1)

    if not figures and os.environ.get("CI") != "true":
        pytest.skip("the simulator cannot be built here")
    assert set(figures) >= {"calls_10k", "wall_over_library_10k", "speedup_10k", "second_pass_s"}
    assert all(figure > 0 for figure in figures.values())
    assert figures["calls_10k"] <= 20
