"""query.py [--events N] [--users N] [--questions N] [--detectors a,b] [--fresh] [--rival]: how long questions to a
database take, within a process, over HTTP from sg-query serve (one connection that is kept), and put to SQLite.

Questions are about users, events and times by chance, a different one each time; what they read is in the
page cache. Databases are kept for the next run, outside of the checkout; --fresh makes them anew. SQLite has the same
lines and what is asked for in columns of their own, with the indexes that fit these questions. It holds no
statistics, so it is not asked for them.
"""
import argparse
import http.client
import json
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

N_ANSWERS = 100
HOUR_MS = 3_600_000
# Questions that read the whole database are put less often.
N_WHOLE = 20
INDEXES = (
    "CREATE INDEX by_time ON events (timestamp)",
    "CREATE INDEX by_id ON events (event_id)",
    "CREATE INDEX by_user ON events (user, timestamp)",
    "CREATE INDEX by_score ON events (timestamp, score) WHERE score IS NOT NULL",
)


def shell(command):
    start = time.perf_counter()
    subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], check=True)
    return time.perf_counter() - start


def percentiles(times_ms):
    times_ms = sorted(times_ms)
    at = lambda p: times_ms[min(len(times_ms) * p // 100, len(times_ms) - 1)]
    return {"p50": at(50), "p95": at(95), "p99": at(99)}


def timed(ask, questions):
    times_ms = []
    for question in questions:
        start = time.perf_counter()
        ask(question)
        times_ms.append((time.perf_counter() - start) * 1e3)
    return percentiles(times_ms)


def database(folder, args, detector):
    """The database of a detector, made if it is not there."""
    db = folder / f"{args.events}-{args.users}-{detector}"
    if args.fresh or not (db / "done").exists():
        shutil.rmtree(db, ignore_errors=True)
        db.mkdir(parents=True)
        seconds = shell(f"sg-gen --events {args.events} --users {args.users}"
                        f" | sg-run -q --detector {detector} --db {db}/db")
        (db / "done").write_text(f"{seconds:.0f}\n")
    return db


def within(db, n_questions):
    """Percentiles by question, and the questions, from the library itself."""
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", "query", "--", db / "db", str(n_questions)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def paths(asked):
    """What each question is to the server, by its name: a path for each event asked about."""
    times = lambda since, until: f"since={since}&until={until}"
    return {
        **{f"high-score {min_score}": [f"/api/anomalies?min_score={min_score}&until={it['timestamp']}&limit={N_ANSWERS}"
                                       for it in asked] for min_score in (0.7, 0.99)},
        "events of a user": [f"/api/events?user={quote(it['user'])}&limit={N_ANSWERS}" for it in asked],
        "event by its id": [f"/api/events/{quote(it['event_id'])}" for it in asked],
        "events of an hour": [f"/api/events?{times(it['timestamp'], it['timestamp'] + HOUR_MS)}&limit={N_ANSWERS}"
                              for it in asked],
        "timeline": ["/api/stats/timeline?buckets=100"] * N_WHOLE,
        "stats": ["/api/stats/summary"] * N_WHOLE,
    }


def served(db, asked):
    """Percentiles by question over one connection to the server, or none if this build has no server."""
    command = ["sg-query", "serve", "--quiet", "--rate", "1000000", "--listen", "127.0.0.1:0", "--db", db / "db"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = server.stderr.readline()
            if "listening on http://" not in line:
                print(f"no server: {line.strip()}")
                return None
            connection = http.client.HTTPConnection(line.strip().rsplit("http://", 1)[1], timeout=60)

            def ask(path):
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 200, (path, answer.status, body[:200])

            found = {}
            for name, questions in paths(asked).items():
                ask(questions[0])
                found[name] = timed(ask, questions)
            return found
        finally:
            server.send_signal(signal.SIGTERM)


def rival(db, asked):
    """The same questions to SQLite: percentiles by question, and its size."""
    path = db / "events.sqlite"
    if not path.exists():
        load(db, path)
    sqlite = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    sqlite.execute("PRAGMA mmap_size = 17179869184")
    before = [(it["timestamp"],) for it in asked]
    questions = {
        "high-score 0.7": ("WHERE score >= 0.7 AND timestamp <= ? ORDER BY timestamp DESC", before),
        "high-score 0.99": ("WHERE score >= 0.99 AND timestamp <= ? ORDER BY timestamp DESC", before),
        "events of a user": ("WHERE user = ? ORDER BY timestamp DESC", [(it["user"],) for it in asked]),
        "event by its id": ("WHERE event_id = ?", [(it["event_id"],) for it in asked]),
        "events of an hour": ("WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp DESC",
                              [(it["timestamp"], it["timestamp"] + HOUR_MS) for it in asked]),
    }
    found = {}
    for name, (where, values) in questions.items():
        ask = lambda it, where=where: sqlite.execute(
            f"SELECT line FROM events {where} LIMIT {N_ANSWERS}", it).fetchall()
        ask(values[0])
        found[name] = timed(ask, values)
    return found


def load(db, path):
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    sqlite = sqlite3.connect(part)
    sqlite.execute("PRAGMA journal_mode = OFF")
    sqlite.execute("PRAGMA synchronous = OFF")
    sqlite.execute("CREATE TABLE events (event_id TEXT, user TEXT, timestamp INTEGER, score REAL, line TEXT)")
    export = ["sg-query", "export", "--db", db / "db"]
    with subprocess.Popen(export, stdout=subprocess.PIPE) as lines:
        def rows():
            for line in lines.stdout:
                event = json.loads(line)
                score = event.get("anomaly", {}).get("anomaly_score")
                yield event["event_id"], event["user"], event["timestamp"], score, line.decode()

        sqlite.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows())
    for index in INDEXES:
        sqlite.execute(index)
    sqlite.commit()
    sqlite.execute("ANALYZE")
    sqlite.close()
    part.rename(path)


def size_mib(path):
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / (1 << 20)


def report(args, detector, db, measured):
    names = list(measured["within a process"])
    mib = f"{size_mib(db / 'db'):,.0f} MiB"
    print(f"\n{args.events:,} events of {args.users:,} users, {detector}, {mib}, {os.cpu_count()} cores,"
          f" {platform.machine()}, load {os.getloadavg()[0]:.1f}; milliseconds:\n")
    print(f"| {'limit ' + str(N_ANSWERS):18} |" + "".join(f" {where}: p50 | p95 | p99 |" for where in measured))
    print(f"|{'-' * 20}|" + "--:|--:|--:|" * len(measured))
    for name in names:
        cells = ""
        for found in measured.values():
            of = found.get(name)
            cells += "".join(f" {of[p]:.2f} |" if of else " |" for p in ("p50", "p95", "p99"))
        print(f"| {name:18} |{cells}")
    if (db / "events.sqlite").exists():
        print(f"\nSQLite's file: {size_mib(db / 'events.sqlite'):,.0f} MiB")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench query")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--detectors", default="adaptive,classic")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--rival", action="store_true", help="ask SQLite, too, for the first detector")
    args = parser.parse_args()
    folder = Path(os.environ["STREAMGUARD_BENCH"])
    for i, detector in enumerate(args.detectors.split(",")):
        db = database(folder, args, detector)
        report_of = within(db, args.questions)
        asked = report_of.pop("asked")
        measured = {"within a process": report_of}
        over_http = served(db, asked)
        if over_http:
            measured["over HTTP"] = over_http
        if args.rival and i == 0:
            measured["SQLite, within a process"] = rival(db, asked)
        report(args, detector, db, measured)


if __name__ == "__main__":
    main()
