"""dashboards.py: whether the dashboards are such as Grafana and Prometheus understand.

Grafana's own types read each dashboard and write it again; a field that is misspelt is lost on the way. promtool
parses all expressions. It ends with 1 if anything is not as it should be.
"""
import json
import subprocess
import sys
import tempfile

import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deployed import dashboards, expressions, panels

N_COLUMNS = 24
# Grafana writes these into every dashboard, but its types do not have them.
UNKNOWN = ("builtIn", "titleFormat", "textFormat", "definition", "mode", "showColorScale")


def lost(before, after, path=""):
    """Where something of the one is not in the other."""
    if isinstance(before, dict):
        for key, value in before.items():
            if isinstance(after, dict) and key in after:
                yield from lost(value, after[key], f"{path}/{key}")
            elif value not in (None, {}, []) and key not in UNKNOWN:
                yield f"{path}/{key}"
    elif isinstance(before, list):
        if len(before) != len(after):
            yield path
        for number, pair in enumerate(zip(before, after)):
            yield from lost(*pair, f"{path}/{number}")
    elif before != after:
        yield path


def overlaps(dashboard):
    """Panels that lie over others, or over the edge."""
    taken = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        for cell in ((x, place["y"] + dy) for x in columns for dy in range(place["h"])):
            if cell in taken or cell[0] >= N_COLUMNS:
                yield f"{panel['title']} lies over {taken.get(cell, 'the edge')}"
                break
            taken[cell] = panel["title"]


def faults(dashboard):
    """What is wrong with a dashboard."""
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    for path in lost(dashboard, again):
        yield f"Grafana does not know {path}"
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    if variables != ["datasource", "job", "instance"]:
        yield f"its variables are {variables}"
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        yield "two panels have one id"
    yield from overlaps(dashboard)
    for panel in panels(dashboard):
        title = panel["title"]
        if not panel.get("description", "").endswith("."):
            yield f"{title}: its description is no sentence"
        defaults = panel["fieldConfig"]["defaults"]
        if not defaults.get("unit"):
            yield f"{title}: it has no unit"
        if panel["type"] == "stat" and not defaults["thresholds"]["steps"]:
            yield f"{title}: it has no thresholds"
        for target in panel["targets"]:
            if target["datasource"]["uid"] != "${datasource}":
                yield f"{title}: its data are from {target['datasource']['uid']}"
            if '{job=~"$job", instance=~"$instance"' not in target["expr"]:
                yield f"{title}: it is of all jobs and instances, whatever is chosen"


def unparsed():
    """What promtool says of expressions that it does not understand."""
    rules = [{"record": f"expression:{number}", "expr": it} for number, (_, it) in enumerate(expressions())]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}, file)
        file.flush()
        words = ["promtool", "check", "rules", file.name]
        ran = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return ran.stdout.decode() if ran.returncode else ""


def main():
    plugins.register_default_plugins()
    said = unparsed()
    n_faults = 0
    if said:
        print(said)
        n_faults += 1
    for file, dashboard in dashboards():
        for fault in faults(dashboard):
            print(f"{file}: {fault}")
            n_faults += 1
        print(f"dashboard {file}: {len(panels(dashboard))} panels")
    sys.exit(1 if n_faults else 0)


main()
