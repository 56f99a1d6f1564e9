"""Events at a steady rate from Kafka into sg-run for hours, with questions all the while: what memory, lag and answers
do over time, and whether the database is right in the end."""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

SAMPLE_S = 5
REST_S = 1.0
N_PARTITIONS = 4
N_ROWS = 12
MEMORY_LIMIT_MIB = 1024
# The reader may be so many seconds of events behind, but for the first minutes.
LAG_MAX_S = 5
WARM_UP_S = 60


class Asker(threading.Thread):
    """Asks one question after the other, by processes of their own and over HTTP."""

    def __init__(self, db: Path, address: str, n_users: int):
        super().__init__(daemon=True)
        self.db, self.address, self.n_users = db, address, n_users
        self.random = random.Random(1)
        self.is_over = threading.Event()
        self.times, self.failures = [], []
        self.known = None

    def run(self):
        questions = [self.anomalies, self.user, self.events, self.event, self.high, self.summary]
        while not self.is_over.wait(REST_S):
            for question in questions:
                start = time.monotonic()
                try:
                    question()
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                    self.failures.append(f"{question.__name__}: {error!r}")
                self.times.append((start, time.monotonic() - start))

    def ask(self, *args: str) -> list[dict]:
        done = subprocess.run(["sg-query", *args, "--db", self.db], capture_output=True, check=False)
        if done.returncode > 1:
            raise RuntimeError(done.stderr.decode())
        return [json.loads(line) for line in done.stdout.splitlines()]

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=20) as answer:
            return json.load(answer)

    def newest_first(self, items: list[dict]):
        times = [item["timestamp"] for item in items]
        assert items and times == sorted(times, reverse=True), f"not in order: {times}"
        item = self.random.choice(items)
        self.known = item["event_id"], item["user"]

    def anomalies(self):
        self.newest_first(self.ask("anomalies", "-n", "50"))

    def events(self):
        self.newest_first(self.get("/api/events?limit=50")["items"])

    def user(self):
        if self.known:
            found = self.ask("user", self.known[1])
            assert found, f"{self.known[1]} is not known"

    def event(self):
        if self.known:
            found = self.ask("event", self.known[0])
            assert found and found[0]["event_id"] == self.known[0], f"{self.known[0]} is not found"

    def high(self):
        self.get("/api/anomalies/high-score?threshold=0.7&limit=100")

    def summary(self):
        self.get("/api/stats/summary")


def metrics(address: str) -> dict[str, float]:
    """Sums of all series of a name."""
    sums = {}
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        for line in answer.read().decode().splitlines():
            if not line.startswith("#"):
                name, value = re.match(r"([^{\s]+)(?:\{.*\})? (\S+)", line).groups()
                sums[name] = sums.get(name, 0) + float(value)
    return sums


def kafka(folder: Path, *args: str) -> str:
    done = subprocess.run(["scripts/kafka", args[0], "--dir", folder / "kafka", *args[1:]], stdout=subprocess.PIPE,
                          check=True, text=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def percentile(values: list[float], share: float) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def contents(db: Path) -> dict:
    """Counters and a digest of all events with their anomalies. `sg-store verify` asks each index for each event,
    which takes half an hour for 100 million."""
    with subprocess.Popen(["sg-query", "export", "--db", db], stdout=subprocess.PIPE) as export:
        hashed = subprocess.run(["sha256sum"], stdin=export.stdout, capture_output=True, check=True)
    if export.returncode != 0:
        raise SystemExit(f"sg-query export has ended with {export.returncode}")
    stats = subprocess.run(["sg-query", "stats", "--db", db], capture_output=True, check=True)
    found = json.loads(stats.stdout)
    return {name: found[name] for name in ("events", "failures", "anomalies", "types")} | {
        "sha256": hashed.stdout.decode().split()[0]}


def soak(folder: Path, arguments, brokers: str, n_events: int):
    db, serve, told = folder / "db", free_address(), free_address()
    runner = subprocess.Popen(["sg-run", "-q", "-b", brokers, "-t", "events", "--db", db, "--serve", serve,
                               "--metrics-listen", told, f"--memory-limit={MEMORY_LIMIT_MIB}MiB"])
    source = subprocess.Popen(["sg-gen", "--events", str(n_events), "--users", str(arguments.users), "--per-second",
                               str(arguments.rate), "--to", "kafka:events", "-b", brokers, "-X", "compression.type=lz4"])
    try:
        asker = Asker(db, serve, arguments.users)
        samples = []
        start = time.monotonic()
        time.sleep(SAMPLE_S)
        asker.start()
        seconds = arguments.minutes * 60
        while True:
            found = metrics(told)
            at = time.monotonic() - start
            is_sent = source.poll() is not None
            lag = found.get("streamguard_kafka_lag", 0) + found["streamguard_events_in_progress"]
            samples.append((at, found["process_resident_memory_bytes"] / 2**20, lag, found["process_open_fds"],
                            found["streamguard_db_bytes"] / 2**30, found["streamguard_events_processed_total"]))
            if is_sent and found["streamguard_events_processed_total"] >= n_events:
                break
            if runner.poll() is not None or source.poll() not in (None, 0) or at > seconds * 1.5 + 120:
                raise SystemExit(f"sg-run: {runner.poll()}, sg-gen: {source.poll()}, after {at:.0f} s: {found}")
            time.sleep(SAMPLE_S)
        asker.is_over.set()
        asker.join()
        runner.send_signal(signal.SIGTERM)
        if runner.wait(60) != 0:
            raise SystemExit(f"sg-run has ended with {runner.returncode}")
    finally:
        for program in (source, runner):
            program.kill()
            program.wait()
    tell(samples, asker, start)
    return judge(samples, asker, arguments.rate)


def tell(samples, asker: Asker, start: float):
    print("| minutes | events | memory, MiB | lag, events, most | files | database, GiB | questions | p50, ms | p99, ms |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    end = samples[-1][0]
    for row in range(N_ROWS):
        since, until = end * row / N_ROWS, end * (row + 1) / N_ROWS
        part = [sample for sample in samples if since < sample[0] <= until]
        times = [took * 1e3 for at, took in asker.times if since < at - start <= until]
        if part:
            print(f"| {until / 60:.1f} | {part[-1][5]:,.0f} | {max(it[1] for it in part):.0f} | "
                  f"{max(it[2] for it in part):,.0f} | {part[-1][3]:.0f} | {part[-1][4]:.1f} | {len(times)} | "
                  f"{percentile(times, 0.5):.0f} | {percentile(times, 0.99):.0f} |")
    print(f"\n{len(asker.times)} questions, {len(asker.failures)} failed", flush=True)
    for failure in asker.failures[:10]:
        print(f"  {failure[:300]}")


def judge(samples, asker: Asker, rate: int) -> list[str]:
    """What is not as it has to be."""
    end = samples[-1][0]
    middle = max(it[1] for it in samples if end / 3 < it[0] <= end * 2 / 3)
    last = max(it[1] for it in samples if end * 2 / 3 < it[0])
    behind = max(it[2] for it in samples if it[0] > min(WARM_UP_S, end / 2))
    wrong = [f"{len(asker.failures)} questions have failed"] if asker.failures else []
    # Until it is there, baselines and what is remembered of files take more and more of it.
    if last > MEMORY_LIMIT_MIB:
        wrong.append(f"{last:.0f} MiB are more than --memory-limit")
    if behind > rate * LAG_MAX_S:
        wrong.append(f"it was {behind:.0f} events behind")
    print(f"memory: {middle:.0f} MiB at most in the middle third, {last:.0f} in the last; "
          f"at most {behind / rate:.1f} s of events behind", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--rate", type=int, default=20_000, help="events a second")
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--dir", type=Path, help="where to work, if not in the folder for temporary files")
    arguments = parser.parse_args()
    n_events = int(arguments.minutes * 60 * arguments.rate)
    folder = Path(tempfile.mkdtemp(prefix="streamguard-soak-", dir=arguments.dir))
    try:
        brokers = kafka(folder, "up")
        kafka(folder, "topic", "events", str(N_PARTITIONS))
        print(f"{n_events:,} events of {arguments.users:,} users, {arguments.rate:,} a second, {N_PARTITIONS} partitions, "
              f"{os.cpu_count()} cores\n", flush=True)
        wrong = soak(folder, arguments, brokers, n_events)
        found = contents(folder / "db")
        print(f"soaked:      {found}", flush=True)
        shutil.rmtree(folder / "db")
        subprocess.run(["sg-run", "-q", "-b", brokers, "-t", "events", "-e", "--db", folder / "alone"], check=True)
        expected = contents(folder / "alone")
        print(f"undisturbed: {expected}")
        if found != expected:
            wrong.append("the databases differ")
    finally:
        subprocess.run(["scripts/kafka", "down", "--dir", folder / "kafka"], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
    for what in wrong:
        print(f"scripts/soak: {what}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


main()
