#!/usr/bin/env python3
"""duckdb_classic.py INPUT OUTPUT [MIN_EVENTS=100] - the classic score in DuckDB, NDJSON in and out, 2 threads.

Every count "before this event" is a row_number() over (user, value) in line order, minus one. What made it
fast: explicit columns (metadata is never parsed), dictionary codes as window keys, the score computed in a
narrow table of its own, and a positional join back to the wide one for the output.
"""
import sys

import duckdb

src, dst = (path.replace("'", "''") for path in sys.argv[1:3])
min_events = int(sys.argv[3]) if len(sys.argv) > 3 else 100

con = duckdb.connect()
con.execute("SET threads = 2")
con.execute("SET preserve_insertion_order = true")  # the default: rowid is the line number, from 0
con.execute(f"""
CREATE TEMP TABLE e AS FROM read_ndjson('{src}', columns = {{
    event_id: 'VARCHAR', user: 'VARCHAR', timestamp: 'BIGINT', type: 'VARCHAR', source_ip: 'VARCHAR',
    geo_location: 'VARCHAR', threat_score: 'DOUBLE', status: 'VARCHAR'}})""")

keys = ("user", "source_ip", "geo_location", "type")
for key in keys:
    con.execute(f"CREATE TYPE {key}_code AS ENUM (SELECT DISTINCT {key} FROM e WHERE {key} IS NOT NULL)")
codes = ", ".join(f"enum_code({key}::{key}_code) AS {key}" for key in keys)
con.execute(f"""
CREATE TEMP TABLE k AS SELECT {codes}, timestamp // 3600000 % 24 AS hour,
    coalesce(status IN ('failed', 'blocked'), false)
    OR coalesce(suffix(type, '_FAILED') OR suffix(type, '_DENIED') OR suffix(type, '_FAILURE'), false) AS failed
FROM e""")

# base_failed is right only on failed rows (the earlier rows with the same flag), and is used only there.
con.execute(f"""
CREATE TEMP TABLE s AS
WITH w AS (
    SELECT rowid AS line, source_ip, geo_location, failed,
        row_number() OVER (PARTITION BY user ORDER BY rowid) - 1 AS n,
        row_number() OVER (PARTITION BY user, hour ORDER BY rowid) - 1 AS same_hour,
        row_number() OVER (PARTITION BY user, source_ip ORDER BY rowid) - 1 AS same_ip,
        row_number() OVER (PARTITION BY user, geo_location ORDER BY rowid) - 1 AS same_geo,
        row_number() OVER (PARTITION BY user, type ORDER BY rowid) - 1 AS same_type,
        row_number() OVER (PARTITION BY user, failed ORDER BY rowid) - 1 AS base_failed,
        count_if(failed) OVER (PARTITION BY user ORDER BY rowid ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING)
            AS last_failed
    FROM k)
SELECT CASE WHEN n >= {min_events} AND n > 0 THEN
    0.25::DOUBLE * (1 - same_hour / n)
    + 0.30::DOUBLE * CASE WHEN source_ip IS NULL THEN 0.5 ELSE 1 - same_ip / n END
    + 0.20::DOUBLE * CASE WHEN geo_location IS NULL THEN 0.5 ELSE 1 - same_geo / n END
    + 0.15::DOUBLE * (1 - same_type / n)
    + 0.10::DOUBLE * CASE WHEN NOT failed OR base_failed = n THEN 0
        ELSE greatest(0, (last_failed / least(n, 20) - base_failed / n) / (1 - base_failed / n)) END
    END AS anomaly_score
FROM w ORDER BY line""")

con.execute(f"COPY (SELECT e.*, s.anomaly_score FROM e POSITIONAL JOIN s) TO '{dst}' (FORMAT json)")
