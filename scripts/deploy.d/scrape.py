"""scrape.py --bin DIR --broker ADDRESS: has a real Prometheus watch programs of ours at work.

One sg-run follows a file and does all that it can beside that, another one reads a topic. Prometheus reads their
metrics, with the alert rules of deploy/. Then: it counts what was sent; promtool finds nothing to say of the
metrics; each metric that a rule or a dashboard names is there; each panel shows something; no rule has failed; and
a bad line makes the alert of dead letters fire. It ends with 1 if anything is not as it should be.
"""
import argparse
import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from deployed import RULES, alerts, dashboards, expressions, names, panels, plain, selectors

EVENTS = RULES.parents[2] / "testdata" / "demo.ndjson.zst"
N_EVENTS = 3_000
SECONDS_MAX = 60
TOPIC = "events"

# Two programs are one job, as in deploy/prometheus/prometheus.yml, read far more often.
CONFIGURATION = """
global: {{scrape_interval: 500ms, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: streamguard
    static_configs: [{{targets: [{targets}]}}]
"""


def wait_for(what, found):
    """Asks until there is an answer, and returns it."""
    deadline = time.monotonic() + SECONDS_MAX
    while not (answer := found()):
        if time.monotonic() > deadline:
            sys.exit(f"after {SECONDS_MAX} s there is still no {what}")
        time.sleep(0.1)
    return answer


def start(stack, folder, name, *args):
    """Starts a program that is ended with the stack, and returns what it says as it says it."""
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        child = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=folder)

    def end():
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        child.kill()

    stack.callback(end)

    def said():
        text = log.read_text(errors="replace")
        if child.poll() is not None:
            sys.exit(f"{name} has ended with {child.returncode}: {text[-2000:]}")
        return text

    return said


def run(stack, folder, name, *args):
    """Starts an sg-run and returns where its metrics are."""
    said = start(stack, folder, name, BIN / "sg-run", "-q", "--metrics-listen", "127.0.0.1:0", *args)
    return wait_for(f"address of {name}", lambda: re.search(r"metrics at http://([\d.:]+)", said()))[1]


class Prometheus:
    """A server that can be asked."""

    def __init__(self, stack, folder, targets):
        configuration = CONFIGURATION.format(rules=RULES, targets=", ".join(f'"{it}"' for it in targets))
        (folder / "prometheus.yml").write_text(configuration)
        words = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"]
        said = start(stack, folder, "prometheus", "prometheus", *words)
        found = wait_for("Prometheus", lambda: re.search(r"Listening on.*address=(127\.0\.0\.1:\d+)", said()))
        # It listens before it answers.
        wait_for("Prometheus that is ready", lambda: "Server is ready" in said())
        self.url = f"http://{found[1]}/api/v1"

    def get(self, path, **query):
        with urllib.request.urlopen(f"{self.url}/{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def ask(self, expression):
        return self.get("query", query=expression)["result"]

    def value(self, expression):
        found = self.ask(expression)
        return float(found[0]["value"][1]) if found else None


def empty_panels(prometheus):
    """Panels that show nothing, though all that they could show has happened or is 0."""
    for file, dashboard in dashboards():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                # What is shown only if it is more than 0 has to be there at all.
                expression = re.sub(r" > 0\b", " >= 0", plain(target["expr"]))
                if not prometheus.ask(expression):
                    yield f"{file}, {panel['title']}: nothing for {expression}"


def empty_alerts(prometheus):
    """Series that alerts look at, and that nobody has: it would never fire."""
    for name, rule in alerts().items():
        for selector in selectors(rule["expr"]):
            if not prometheus.ask(selector):
                yield f"alert {name}: there is no {selector}"


def unsound_metrics(addresses):
    """What promtool says of what the programs answer."""
    for address in addresses:
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            text = answer.read()
        ran = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
        if ran.returncode:
            yield ran.stderr.decode()


def faults(prometheus, addresses):
    """What is wrong once all events are counted."""
    known = set(prometheus.get("label/__name__/values"))
    for where, expression in expressions():
        for name in sorted(names(expression) - known):
            yield f"{where}: nobody exports {name}"
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                yield f"alert {rule['name']}: {rule['health']} {rule.get('lastError', '')}"
    yield from empty_alerts(prometheus)
    yield from empty_panels(prometheus)
    yield from unsound_metrics(addresses)


def main():
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = folder / "events.ndjson"
        lines = subprocess.run(["zstd", "-dcq", EVENTS], stdout=subprocess.PIPE, check=True).stdout.splitlines(True)
        sent = b"".join(lines[:N_EVENTS])
        log.touch()
        # Nobody answers at this port: analyses fail, and are counted.
        all_of_it = ["--dead-letter", "dead.ndjson", "--alerts-to", "alerts.ndjson", "--serve", "127.0.0.1:0"]
        all_of_it += ["--analyze", "--base-url", "http://127.0.0.1:1", "--api-key-file", "key", "--budget-usd", "2"]
        all_of_it += ["--metrics-users", "10", "--threshold", "0.9"]
        (folder / "key").write_text("key")
        (folder / "key").chmod(0o600)
        addresses = [run(stack, folder, "files", "--follow", log, "--db", "files", *all_of_it)]
        addresses += [run(stack, folder, "topic", "-b", BROKER, "-t", TOPIC, "--db", "topic")]
        prometheus = Prometheus(stack, folder, addresses)
        wait_for("answer of both programs", lambda: prometheus.value("count(up == 1)") == 2)
        # From here on all is seen to change.
        with log.open("ab") as file:
            file.write(sent)
        produced = subprocess.run(
            [BIN / "sg-gen", "--events", str(N_EVENTS), "--to", f"kafka:{TOPIC}", "-b", BROKER], stderr=subprocess.PIPE
        )
        if produced.returncode:
            sys.exit(f"sg-gen: {produced.stderr.decode()}")
        wait_for(
            f"count of {N_EVENTS} events by both",
            lambda: prometheus.value(f"count(streamguard_events_processed_total == {N_EVENTS})") == 2,
        )
        with log.open("ab") as file:
            file.write(b"no event\n")
        wait_for("alert", lambda: prometheus.ask('ALERTS{alertname="StreamguardDeadLetters", alertstate="firing"}'))
        wait_for("failed analysis", lambda: prometheus.value("sum(streamguard_ai_analysis_failed_total)"))
        found = [*faults(prometheus, addresses)]
        told = {it["labels"]["alertname"]: it["annotations"]["summary"] for it in prometheus.get("alerts")["alerts"]}
        if addresses[0] not in told["StreamguardDeadLetters"]:
            found.append(f"the alert says: {told['StreamguardDeadLetters']}")
    for fault in found:
        print(fault)
    if not found:
        n_metrics = len({name for _, expression in expressions() for name in names(expression)})
        print(f"scrape: Prometheus has counted {N_EVENTS} events of each program; {n_metrics} metrics are there")
    sys.exit(1 if found else 0)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bin", type=pathlib.Path, required=True)
parser.add_argument("--broker", required=True)
args = parser.parse_args()
BIN, BROKER = args.bin.resolve(), args.broker
main()
