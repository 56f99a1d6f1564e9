//! Examples and exit codes at the end of the help of each question.

pub(in crate::cli) const EVENTS: &str = "Examples:
  sg-query events --db db --user alice --type LOGIN_FAILED
  sg-query events --db db --ip 203.0.113.7 --since 24h | jq -r .event_id
  sg-query events --db host1/db --db host2/db --limit 1000 --oldest-first

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const EVENT: &str = "Examples:
  sg-query event evt_1738247260748_0011757 --db db

Exit codes:
  0  done
  1  there is no such event
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const ANOMALIES: &str = "Examples:
  sg-query anomalies --db db --sort score --limit 10
  sg-query anomalies --db db --since 24h --severity high | jq -r '.anomaly.reasons[0]'
  sg-query anomalies --peer https://siem.example:8443 --peer-key-file key

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const ANALYSES: &str = "Examples:
  sg-query analyses --db db --since 24h --severity high

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const INCIDENTS: &str = "Examples:
  sg-query incidents --db db --since 7d
  sg-query incidents --db db --user alice --format csv > incidents.csv

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const SIMILAR: &str = "Examples:
  sg-query similar evt_1738247260748_0011757 --db db
  sg-query similar 'password guessing from 203.0.113.7 country:RO' --db db --since 90d

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const TAIL: &str = "Examples:
  sg-query tail --db db --severity high
  sg-query tail --db db --what events --user alice --count 10

Exit codes:
  0  done: stopped, or all of --count have come
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const USER: &str = "Examples:
  sg-query user alice --db db
  sg-query user alice --db db --format ndjson | jq .types

Exit codes:
  0  done
  1  there is no event of this user
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const FEEDBACK: &str = "Examples:
  sg-query feedback --db db --since 7d
  sg-query feedback --db db --user alice --limit 1000 | jq -r .note

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const STATS: &str = "Examples:
  sg-query stats --db db
  sg-query stats --db host1/db --db host2/db | jq .events

Exit codes:
  0  done
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const EXPORT: &str = "Examples:
  sg-query export --db db > events.ndjson
  sg-query export --db db --what anomalies --format csv > anomalies.csv

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

pub(in crate::cli) const SERVE: &str = "Examples:
  sg-query serve --db db
  sg-query serve --db db --listen 0.0.0.0:8443 --keys keys --tls-cert cert.pem --tls-key key.pem

Exit codes:
  0  done: stopped by a signal
  2  trouble: wrong usage, a database, key or certificate that cannot be used, a failure
";

pub(in crate::cli) const KEYS: &str = "Examples:
  sg-query keys add alice --keys keys
  sg-query keys list --keys keys

Exit codes:
  0  done
  1  there are no keys to list
  2  trouble: wrong usage, no such key, a failure
";

pub(in crate::cli) const KEYS_ADD: &str = "Examples:
  sg-query keys add alice --keys keys > alice.key
  sg-query keys add ci --role admin --keys keys

Exit codes:
  0  done
  2  trouble: wrong usage, a name that has a key, a failure
";

pub(in crate::cli) const KEYS_LIST: &str = "Examples:
  sg-query keys list --keys keys

Exit codes:
  0  done
  1  there are none
  2  trouble: wrong usage, a failure
";

pub(in crate::cli) const KEYS_REVOKE: &str = "Examples:
  sg-query keys revoke alice --keys keys

Exit codes:
  0  done
  2  trouble: wrong usage, no such key, a failure
";
