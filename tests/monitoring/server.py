"""A real Prometheus, which scrapes servers each second and judges the alerts that come with lockring."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lockring.testing.ports import ReservedPorts
from tests.processes import PATIENCE_S, eventually
from tests.unit.house.rules import ROOT

ALERTS: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "lockring.json"

_CONFIG: Final = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: ["{rules}"]
scrape_configs:
  - job_name: lockring
    scheme: {scheme}
{more}
    static_configs:
      - targets: {targets}
"""


def names_of_alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", ALERTS.read_text(), re.MULTILINE)


class Prometheus:
    """The server of one test.

    Args:
        directory: for its files.
        targets: HOST:PORT of each server's HTTP.
        tls: the paths of ca, cert and key, None without TLS.
        token: shown with each scrape, "" for none.
    """

    def __init__(
        self, directory: Path, targets: Sequence[str], *, tls: dict[str, str] | None = None, token: str = ""
    ) -> None:
        directory.mkdir()
        rules, config = directory / "alerts.yml", directory / "prometheus.yml"
        # Without the time for which a condition must hold: that is Prometheus' own work.
        rules.write_text(re.sub(r"^ +for: \w+\n", "", ALERTS.read_text(), flags=re.MULTILINE))
        more = ""
        if tls is not None:
            paths = {"ca_file": tls["ca"], "cert_file": tls.get("cert", ""), "key_file": tls.get("key", "")}
            more += f"    tls_config: {json.dumps({key: path for key, path in paths.items() if path})}\n"
        if token:
            more += f"    authorization: {json.dumps({'credentials': token})}\n"
        scheme = "http" if tls is None else "https"
        config.write_text(
            _CONFIG.format(rules=rules, scheme=scheme, more=more, targets=json.dumps(list(targets)))
        )
        self._ports = ReservedPorts()
        self._address = f"127.0.0.1:{self._ports.take()[0]}"
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={self._address}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._count = len(targets)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        self._ports.close()

    def __enter__(self) -> Prometheus:
        try:
            eventually(lambda: len(self.value("up == 1")) == self._count, self._log.read_text)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(
                f"http://{self._address}/api/v1/{path}", timeout=PATIENCE_S
            ) as answer:
                return json.load(answer)["data"]
        except OSError:
            assert self._process.poll() is None, self._log.read_text()
            return None

    def value(self, expression: str) -> list[float]:
        """Return the values of an expression, none while there is nothing."""
        found = self._get("query?" + urllib.parse.urlencode({"query": expression}))
        return [] if found is None else [float(each["value"][1]) for each in found["result"]]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = self._get("alerts")
        return set() if found is None else {each["labels"]["alertname"] for each in found["alerts"]}

    def fires(self, alert: str) -> None:
        """Wait until an alert fires."""
        assert alert in names_of_alerts()
        eventually(lambda: alert in self.firing(), lambda: f"{alert}; there are {self.firing()}")

    def is_calm_about(self, *alerts: str) -> None:
        """Wait until none of these fires."""
        eventually(lambda: not self.firing() & set(alerts), lambda: f"an end of {self.firing()}")
