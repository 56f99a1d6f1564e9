//! Logs of others, whose reader is killed at any instant or whose reader's reader goes away: ids of records that have
//! none come from where those stand, so going on elsewhere than before would show.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::database::stats;
use crate::kills::kill_and_repeat;
use crate::resume::{Pipe, assert_same};
use crate::tools::{digest, program, shell};

const N_LINES: usize = 40_000;
/// One in ten lines of JSON holds three records.
const N_EVENTS: usize = N_LINES * 3 + N_LINES / 10 * 2;

/// Three logs in which no record has an id: lines of syslog without a year, a table whose head is far away from most of
/// its rows, and JSON of which some lines hold several records.
fn logs(folder: &Path) -> [PathBuf; 3] {
    let mut syslog = String::new();
    let mut table = String::from(
        "#separator \\x09\n#path\tssh\n#fields\tts\tid.orig_h\tid.orig_p\tid.resp_h\tauth_success\tclient\n\
         #types\ttime\taddr\tport\taddr\tbool\tstring\n",
    );
    let mut records = String::new();
    for i in 0..N_LINES {
        let (minute, second, host) = (i / 60 % 60, i % 60, i % 50);
        let hour = i / 3_600;
        writeln!(
            syslog,
            "May  6 {hour:02}:{minute:02}:{second:02} web1 sshd[{i}]: Accepted password for user{host} from \
             198.51.100.{host} port 4022 ssh2"
        )
        .unwrap();
        let at = 1_714_979_289 + i;
        writeln!(
            table,
            "{at}.5\t10.1.1.{host}\t50000\t198.51.100.20\tT\tSSH-2.0-Go"
        )
        .unwrap();
        let record = format!(
            r#"{{"eventVersion":"1.09","userIdentity":{{"type":"IAMUser","userName":"user{host}"}},"eventTime":"2024-05-06T{hour:02}:{minute:02}:{second:02}Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-central-1","sourceIPAddress":"192.0.2.{host}"}}"#
        );
        match i % 10 {
            3 => writeln!(records, r#"{{"Records":[{record},{record},{record}]}}"#),
            _ => writeln!(records, "{record}"),
        }
        .unwrap();
    }
    let logs = [
        ("auth.log", syslog),
        ("ssh.log", table),
        ("trail.json", records),
    ];
    logs.map(|(name, text)| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    })
}

const MAPPED: [&str; 3] = ["--format=auto", "--log-end=2025-01-01", "--threshold=0.5"];

#[test]
fn killed_sg_run_of_logs_of_others_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let logs = logs(folder.path());
    let (quiet, killed) = (folder.path().join("quiet"), folder.path().join("killed"));
    let command = |db: &Path| {
        let mut command = program("sg-run");
        command.args(["-q", "--memtable-mib=1", "--checkpoint-mib=1"]);
        command.args(MAPPED);
        command.arg("--db").arg(db).args(&logs);
        command.stdin(Stdio::null());
        command
    };
    assert!(command(&quiet).status().unwrap().success());
    assert_eq!(stats(&quiet)["events"], N_EVENTS);
    let n_killed = kill_and_repeat(&|| command(&killed).spawn().unwrap(), 10, 311);
    assert!(n_killed >= 6, "it was too fast to be killed: {n_killed}");
    assert!(command(&killed).status().unwrap().success());
    assert_eq!(digest(&killed), digest(&quiet));
    assert_eq!(stats(&killed)["events"], N_EVENTS);
}

#[test]
fn a_killed_pipe_of_logs_of_others_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let logs = logs(folder.path());
    let [syslog, table, records] = logs.each_ref().map(|path| path.to_str().unwrap());
    let [format, log_end, _] = MAPPED;
    let input = [format, log_end, syslog, table, records];
    let pipe = |name: &str| Pipe::new(folder.path().join(name), &input, "--detector=adaptive");
    let (quiet, killed) = (pipe("quiet"), pipe("killed"));
    quiet.run();
    assert_eq!(stats(&quiet.db())["events"], N_EVENTS);
    let n_killed = killed.kill_and_repeat(9, 397);
    assert!(n_killed >= 6, "it was too fast to be killed: {n_killed}");
    killed.run();
    assert_same(&quiet, &killed);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for log in logs(folder.path()) {
        let script = format!(
            "set -o pipefail; sg-consume -q --format auto --log-end 2025-01-01 {} | head -n 3",
            log.display()
        );
        let ran = shell(&script).expect_code(0);
        assert_eq!(ran.json_lines().len(), 3);
        assert_eq!(ran.stderr, "");
    }
}
