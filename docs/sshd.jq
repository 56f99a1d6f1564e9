# Events from the logs of sshd and sudo, such as /var/log/auth.log or /var/log/secure:
#
#     jq -nRc -f sshd.jq auth.log
#
# Times are those of RFC 3164 (`Nov  9 08:01:02`) or of RFC 3339, as newer rsyslogs write them. The former lack
# year and zone: the year is the latest in which the line is not in the future, as seen from `--argjson until`
# (seconds since 1970; now, if it is not given), the zone is `--arg zone` (such as +01:00; UTC).
# A user name can be anything, ` from 192.0.2.1 port 22` too, to make a line look like another one: what counts is
# the last place that looks so, which is sshd's own.

($ARGS.named.until // now) as $until |
($ARGS.named.zone // "+00:00") as $zone |

# Seconds that a zone is ahead of UTC.
def ahead: if . == "Z" then 0 else
    capture("^(?<sign>[+-])(?<hours>[0-9]{2}):?(?<minutes>[0-9]{2})$") |
    (.hours | tonumber * 3600) as $hours | (.minutes | tonumber * 60) as $minutes |
    if .sign == "-" then -($hours + $minutes) else $hours + $minutes end
end;

# Milliseconds since 1970 of a time without a year. A 29th of February is one of a leap year only.
def of_some_year:
    gsub(" +"; " ") as $text | ($zone | ahead) as $ahead |
    ($until + 86400 | gmtime[0]) as $last |
    first(range($last; $last - 9; -1) | "\(.) \($text)" | strptime("%Y %b %d %H:%M:%S") |
        select((mktime | gmtime[1:3]) == .[1:3]) | mktime - $ahead | select(. <= $until + 86400)) * 1000;

def of_rfc_3339:
    capture("^(?<time>[^.Z+]+T[^.Z+-]+)(?<fraction>\\.[0-9]+)?(?<zone>.*)$") |
    (.time | strptime("%Y-%m-%dT%H:%M:%S") | mktime) - (.zone | ahead) + ("0\(.fraction // "")" | tonumber) |
    . * 1000 | floor;

# The parts of a line, or nothing.
def line:
    capture("^(?<time>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[^ ]+) (?<host>[^ ]+) (?<program>sshd|sshd-session|sudo)(?:\\[(?<pid>[0-9]+)\\])?: +(?<message>.*)$");

# `message repeated 3 times: [ Failed password for ... ]` is rsyslog's way to say it three times.
def repeated:
    (capture("^message repeated (?<n>[0-9]{1,4}) times: \\[ ?(?<message>.*)\\]$") // {n: "1", message: .}) |
    range(.n | tonumber) as $_ | .message;

# What a message tells, or nothing.
def told:
    (capture("^(?<what>Accepted|Failed) (?<method>[^ ]+) for (?<invalid>invalid user )?(?<user>.*) from (?<ip>[^ ]+) port (?<port>[0-9]+)(?: ssh2)?(?:: [^ ]+ (?<key>(?:SHA256|MD5):[^ ]+))?.*$") |
        # A client's first question, which methods there are, is no attempt.
        select(.method != "none") | {
            user,
            type: (if .what == "Accepted" then "LOGIN_SUCCESS" else "LOGIN_FAILED" end),
            status: (if .what == "Accepted" then "success" else "failed" end),
            source_ip: .ip,
            metadata: ({method, port: (.port | tonumber), unknown_user: (if .invalid then true else null end),
                device: .key} | with_entries(select(.value != null)))
        }),
    (capture("^(?<user>[^ ]+) : (?:(?<trouble>[^;=]*) ; )?TTY=(?<tty>[^ ]+) ; PWD=.* ; USER=(?<target>[^ ]+) ; (?:[A-Z]+=[^;]* ; )*COMMAND=(?<command>.*)$") | {
        user,
        type: (if .trouble then "SUDO_DENIED" else "SUDO" end),
        status: (if .trouble then "blocked" else "success" end),
        metadata: ({target_user: .target, endpoint: (.command | split(" ")[0]), command, trouble} |
            with_entries(select(.value != null)))
    });

# A line that is read again has to be the same event, so ids are made of what it says; lines that say the same
# within a second are numbered.
foreach (inputs | line | (.message | repeated) as $message | . + ($message | told) |
    .timestamp = (.time | if test("^[0-9]") then of_rfc_3339 else of_some_year end) |
    .id = ("\(.program)-\(.host)-\(.timestamp)-\(.pid)-\(.type)-\(.user)"[0:200] | gsub(" "; "_"))) as $line
    ({};
    (if .timestamp == $line.timestamp then .counts else {} end) as $counts |
    {timestamp: $line.timestamp, counts: ($counts | .[$line.id] += 1), $line};
    .counts[.line.id] as $n | .line |
    {event_id: "\(.id)-\($n)", user: (if .user == "" then "unknown" else .user end), timestamp, type} +
    (if .source_ip then {source_ip} else {} end) +
    {status, metadata: ({host, program} + .metadata)})
