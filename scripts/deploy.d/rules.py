"""rules.py: whether alerts are right, tested and explained.

promtool runs the cases of each alert. That these would notice is seen by breaking the alert: one that never fires
must fail in a case in which it should, and one that always fires, or fires on one of its conditions alone, in one
in which it should not. It ends with 1 if anything is not as it should be.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from deployed import OPERATING, RULES, TESTS, alerts

SEVERITIES = ("info", "warning", "critical")


def promtool(*args):
    """Whether it is content, and what it has said."""
    ran = subprocess.run(["promtool", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return ran.returncode == 0, ran.stdout


def conditions(expression):
    """What stands between the `and`s of an expression, without what they match by."""
    parts, depth, start = [], 0, 0
    for found in re.finditer(r"[()]|\band\b", expression):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if found[0] == "and" and depth == 0:
            parts.append(expression[start : found.start()])
            start = found.end()
    parts.append(expression[start:])
    return [re.sub(r"^\s*on \([^)]*\)", "", part) for part in parts]


def cases(name, fires):
    """The cases of an alert in which it fires, or those in which it does not."""
    tests = yaml.safe_load(TESTS.read_text())["tests"]
    return [it for it in tests if it["name"] == f"{name} {'fires' if fires else 'is quiet'}"]


def notice(name, expression, fires, folder):
    """Whether the cases of an alert fail if its expression is another one."""
    rules = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        if rule["alert"] == name:
            rule["expr"] = expression
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    tests = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": cases(name, fires)}
    (folder / "tests.yml").write_text(yaml.safe_dump(tests))
    return not promtool("test", "rules", folder / "tests.yml")[0]


def faults(name, rule, folder):
    """What is wrong with an alert."""
    anchor = name.lower()
    notes = rule.get("annotations", {})
    if rule.get("labels", {}).get("severity") not in SEVERITIES:
        yield f"its severity is none of {', '.join(SEVERITIES)}"
    for note in ("summary", "description"):
        if not notes.get(note, "").endswith("."):
            yield f"its {note} is no sentence"
    if notes.get("runbook") != f"docs/operating.md#{anchor}":
        yield f"its runbook is not docs/operating.md#{anchor}"
    section = re.search(rf"^### {name}\n(.*?)(?=^#|\Z)", OPERATING.read_text(), re.M | re.S)
    if not section or len(section[1].strip()) < 80:
        yield f"{OPERATING.name} has no section for it that says what to do"
    for fires, what in ((True, "fires"), (False, "is quiet")):
        if not cases(name, fires):
            yield f"there is no case in which it {what}"
            return
    if not notice(name, "vector(0) > 1", True, folder):
        yield "no case fails if it never fires"
    parts = conditions(rule["expr"])
    for broken in ["vector(1)", *(parts if len(parts) > 1 else [])]:
        if not notice(name, broken, False, folder):
            yield f"no case fails if it is only: {' '.join(broken.split())}"


def main():
    is_right = True
    for args in (["check", "rules", "--lint=all", "--lint-fatal", RULES], ["test", "rules", TESTS]):
        done, said = promtool(*args)
        if not done:
            print(said)
            is_right = False
    known = alerts()
    with tempfile.TemporaryDirectory() as folder:
        for name, rule in known.items():
            for fault in faults(name, rule, pathlib.Path(folder)):
                print(f"{name}: {fault}")
                is_right = False
    print(f"alerts: {len(known)}, {'each with cases that would notice' if is_right else 'not as they should be'}")
    sys.exit(0 if is_right else 1)


main()
