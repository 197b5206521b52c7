"""The files under `deploy/`: each expression is one that Prometheus takes, and each metric in it exists."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from lockring.server.metrics.names import METRICS
from tests.monitoring.server import ALERTS, DASHBOARD, names_of_alerts
from tests.unit.house.rules import ROOT

SUFFIXES = ("", "_bucket", "_count", "_sum")
OF_THE_LIBRARY = {"process_resident_memory_bytes"}


def expressions() -> list[str]:
    """Return the expressions of the dashboard, with values in place of its variables."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [each.replace("$__rate_interval", "1m").replace("$job", ".*") for each in found]


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:lockring|process)_\w+", text))


def check(rules: Path) -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(rules)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_alerts_and_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    check(ALERTS)
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    check(file)


def test_the_files_name_metrics_that_exist_and_no_others() -> None:
    there = {f"{name}{suffix}" for name in METRICS for suffix in SUFFIXES} | OF_THE_LIBRARY
    of_alerts = set().union(*(metrics_in(each) for each in re.findall(r"expr: (.*)", ALERTS.read_text())))
    assert of_alerts - there == set()
    assert metrics_in(" ".join(expressions())) - there == set()
    shown = metrics_in(" ".join(expressions()))
    unseen = {name for name in METRICS if not {f"{name}{suffix}" for suffix in SUFFIXES} & shown}
    assert unseen == {"lockring_node_info"}, "each metric has a place in the dashboard"


def test_the_page_has_the_alerts_with_their_severity() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    severities = re.findall(r"^ +severity: (\w+)$", ALERTS.read_text(), re.MULTILINE)
    rows = re.findall(r"^\| `(Lockring\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert rows == list(zip(names_of_alerts(), severities, strict=True))


def test_each_alert_says_how_bad_it_is_what_has_happened_and_what_to_do() -> None:
    for alert in ALERTS.read_text().split("- alert: ")[1:]:
        assert re.search(r"^ +severity: (critical|warning|info)$", alert, re.MULTILINE), alert
        assert "summary: " in alert
        assert "description: " in alert
    assert len(set(names_of_alerts())) == len(names_of_alerts())
