"""What is in deploy/, for the checks beside this file."""
import json
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "streamguard.rules.yml"
TESTS = DEPLOY / "prometheus" / "streamguard.rules.test.yml"
OPERATING = ROOT / "docs" / "operating.md"

SELECTOR = re.compile(r"\b(?:streamguard_\w+|process_\w+|up)\b(?:\{[^}]*\})?")
NAME = re.compile(r"\b(streamguard_\w+|process_\w+)\b")


def alerts():
    """The rules, by their names."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboards():
    """Names and contents of the dashboards."""
    return [(path.name, json.loads(path.read_text())) for path in sorted((DEPLOY / "grafana").glob("*.json"))]


def panels(dashboard):
    """All panels that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def plain(expression):
    """A panel's expression as Grafana sends it, for all jobs and instances and a step of a minute."""
    for variable, value in [("$job", "streamguard.*"), ("$instance", ".+"), ("$__rate_interval", "1m")]:
        expression = expression.replace(variable, value)
    return expression


def expressions():
    """Where each expression stands, and the expression as Prometheus gets it."""
    found = [(f"alert {name}", rule["expr"]) for name, rule in alerts().items()]
    for file, dashboard in dashboards():
        for panel in panels(dashboard):
            where = f"{file}, {panel['title']}"
            found += [(where, plain(target["expr"])) for target in panel["targets"]]
    return found


def names(expression):
    """Metrics that an expression names."""
    return set(NAME.findall(expression))


def selectors(expression):
    """The series that an expression is made of."""
    return set(SELECTOR.findall(expression))
