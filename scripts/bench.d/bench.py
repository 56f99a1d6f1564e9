"""bench.py [EVENTS] [USERS] [ROUNDS]: every program on the same file, in turns; best round counts.

Wall time includes starting the program. Peak memory is the largest process of the command (Linux VmHWM by
wait4), so for a pipe it is its largest member.
"""
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
N_EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
N_USERS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
N_ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
N_CORES = len(os.sched_getaffinity(0))
# jq needs minutes for a million events; its rate does not grow with the file.
N_JQ_EVENTS = min(N_EVENTS, 100_000)


def run(command, n_events, leftovers):
    """Runs a shell command; events/s, CPU seconds and the peak memory of its largest process in MiB.

    What an earlier command has left is taken away first, and brought to the disk, so that nobody waits for
    it within another's time.
    """
    subprocess.run(["rm", "-rf", *leftovers], check=True)
    os.sync()
    start = time.perf_counter()
    child = subprocess.Popen(["bash", "-c", f"set -o pipefail; {command}"], stderr=subprocess.PIPE)
    message = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{command}: exit code {os.waitstatus_to_exitcode(status)}\n{message.decode()}")
    return {"rate": n_events / seconds, "cpu": usage.ru_utime + usage.ru_stime, "mib": usage.ru_maxrss / 1024}


def scores(path, pick):
    with open(path, encoding="utf-8") as lines:
        return [pick(json.loads(line)) for line in lines]


def check_same_arithmetic(folder):
    """All programs must give the same scores, or the comparison means nothing."""
    sample = f"{folder}/sample.ndjson"
    subprocess.run(f"sg-gen --events {N_JQ_EVENTS} --users {N_JQ_EVENTS // 10} > {sample}", shell=True, check=True)
    ours = f"{folder}/ours.out"
    minimum = 5  # users have ten events each
    subprocess.run(f"sg-score -q --detector classic --threshold 0 --min-events {minimum} < {sample} > {ours}",
                   shell=True, check=True)
    expected = scores(ours, lambda event: event.get("anomaly", {}).get("anomaly_score"))
    assert sum(score is not None for score in expected) > N_JQ_EVENTS // 10, "too few scored events"
    for name, command in rivals(sample, f"{folder}/rival.out", minimum).items():
        subprocess.run(command, shell=True, check=True)
        found = scores(f"{folder}/rival.out", lambda event: event["anomaly_score"])
        assert len(found) == len(expected), name
        for mine, theirs in zip(expected, found):
            assert (mine is None) == (theirs is None), (name, mine, theirs)
            assert mine is None or abs(mine - theirs) < 1e-5, (name, mine, theirs)
    print(f"same scores from all programs on {N_JQ_EVENTS:,} events: yes\n")


def rivals(events, output, minimum=100):
    return {
        "DuckDB": f"{sys.executable} {HERE}/duckdb_classic.py {events} {output} {minimum}",
        "polars": f"{sys.executable} {HERE}/polars_classic.py {events} {output} {minimum}",
        "jq, same score": f"jq -c -n --argjson min {minimum} -f {HERE}/jq_classic.jq {events} > {output}",
    }


def main():
    """Files are in memory, where there is room, so that nobody waits for a disk but who writes a database."""
    in_memory = "/dev/shm" if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > N_EVENTS * 1_500 else None
    with (tempfile.TemporaryDirectory(prefix="streamguard-bench-", dir=in_memory) as folder,
          tempfile.TemporaryDirectory(prefix="streamguard-bench-") as on_disk):
        measure(folder, on_disk)


def jobs_of(folder, database, events, few):
    """Every command with its events, by its name."""
    output = f"{folder}/out"
    one_core = f"taskset -c {min(os.sched_getaffinity(0))} " if N_CORES > 1 else ""
    score, classic = f"< {events} > {output}", "--detector classic"
    rival = rivals(events, output)
    jobs = {
        "sg-score, classic": f"sg-score -q {classic} {score}",
        "sg-score, classic, one job": f"sg-score -q {classic} -j1 {score}",
        "sg-score, classic, on one core": f"{one_core}sg-score -q {classic} -j1 {score}",
        "sg-score, classic, score every event": f"sg-score -q {classic} --threshold 0 {score}",
        "DuckDB": rival["DuckDB"],
        "polars": rival["polars"],
        "jq, same score": rivals(few, output)["jq, same score"],
        "jq -c . (a copy)": f"jq -c . {few} > {output}",
        "sg-score, adaptive": f"sg-score -q {score}",
        "sg-score, adaptive, one job": f"sg-score -q -j1 {score}",
        "sg-score, adaptive, on one core": f"{one_core}sg-score -q -j1 {score}",
        "sg-consume (check only)": f"sg-consume -q {events} > {output}",
        "sg-run into the store, classic": f"sg-run -q {classic} {events} --db {database}",
        "sg-run into the store, adaptive": f"sg-run -q {events} --db {database}",
        "pipe into the store, classic": f"sg-consume -q {events} | sg-score -q {classic} | sg-store -q --db {database}",
        "pipe into the store, adaptive": f"sg-consume -q {events} | sg-score -q | sg-store -q --db {database}",
        "sg-gen": f"sg-gen --events {N_EVENTS} --users {N_USERS} > {output}",
    }
    return {name: (command, N_JQ_EVENTS if name.startswith("jq") else N_EVENTS) for name, command in jobs.items()}


def disk_bytes(database):
    with os.scandir(database) as files:
        return sum(file.stat().st_size for file in files)


def measure(folder, on_disk):
    events, few = f"{folder}/events.ndjson", f"{folder}/few.ndjson"
    output, database = f"{folder}/out", f"{on_disk}/db"
    subprocess.run(f"sg-gen --events {N_EVENTS} --users {N_USERS} > {events}", shell=True, check=True)
    subprocess.run(f"head -n {N_JQ_EVENTS} {events} > {few}", shell=True, check=True)
    n_bytes = os.path.getsize(events) / N_EVENTS
    print(f"{N_EVENTS:,} events of {n_bytes:.0f} bytes, {N_USERS:,} users, {N_CORES} cores, "
          f"{platform.machine()}, best of {N_ROUNDS} rounds in turns\n")
    check_same_arithmetic(folder)
    best = {}
    for _ in range(N_ROUNDS):
        for name, (command, n_events) in jobs_of(folder, database, events, few).items():
            result = run(command, n_events, [output, database])
            if name == "sg-run into the store, adaptive":
                before = disk_bytes(database)
                subprocess.run(f"sg-store compact --db {database} > {output}", shell=True, check=True)
                after = disk_bytes(database)
            if name not in best or result["rate"] > best[name]["rate"]:
                best[name] = result
    tell(best)
    print(f"\nstore on disk after sg-run, adaptive: {before / N_EVENTS:.0f} bytes an event, "
          f"{after / N_EVENTS:.0f} compacted")


def tell(best):
    rate = {name: result["rate"] for name, result in best.items()}
    ours = rate["sg-score, classic"]
    print(f"| {'program':37} | {'events/s':>10} | {'classic is':>11} | {'CPU s':>6} | {'peak MiB':>8} |")
    print(f"|{'-' * 39}|{'-' * 11}:|{'-' * 12}:|{'-' * 7}:|{'-' * 9}:|")
    for name, result in best.items():
        print(f"| {name:37} | {result['rate']:10,.0f} | {ours / result['rate']:10.1f}x | "
              f"{result['cpu']:6.2f} | {result['mib']:8.0f} |")
    of = lambda one, other: f"{rate[one] / rate[other]:.2f}"
    print("\nratios:")
    print(f"  classic to DuckDB {of('sg-score, classic', 'DuckDB')}, to polars {of('sg-score, classic', 'polars')}, "
          f"to jq {of('sg-score, classic', 'jq, same score')}; adaptive to DuckDB {of('sg-score, adaptive', 'DuckDB')}")
    for kind in ("classic", "adaptive"):
        print(f"  {kind}: two jobs to one {of(f'sg-score, {kind}', f'sg-score, {kind}, one job')}, to one core "
              f"{of(f'sg-score, {kind}', f'sg-score, {kind}, on one core')}; sg-run to the pipe "
              f"{of(f'sg-run into the store, {kind}', f'pipe into the store, {kind}')}")


if __name__ == "__main__":
    main()
