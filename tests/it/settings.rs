//! What programs promise of variables and of the file of --config: which value counts, which mistakes are
//! found, and that --print-config tells all of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, Command};
use streamguard::cli::commands;

use crate::tools::{Ran, event, program, run, testdata};

/// A file, variables and arguments.
struct Site(tempfile::TempDir);

impl Site {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sg.toml"), config).unwrap();
        fs::set_permissions(
            folder.path().join("sg.toml"),
            PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        Self(folder)
    }

    /// Runs a program with the file; `variables` are `NAME=VALUE`.
    fn run(&self, line: &str, variables: &[&str]) -> Ran {
        let mut words = line.split(' ');
        let mut command = program(words.next().unwrap());
        command.args(words).current_dir(self.0.path());
        command
            .env_remove("SG_DETECTOR")
            .env("SG_CONFIG", "sg.toml");
        for variable in variables {
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
        }
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The line on an option that --print-config prints.
    #[track_caller]
    fn line(&self, line: &str, variables: &[&str], key: &str) -> String {
        let ran = self.run(&format!("{line} --print-config"), variables);
        let ran = ran.expect_code(0);
        assert_eq!(ran.stderr, "");
        let is_it = |line: &&str| {
            line.trim_start_matches("# ")
                .starts_with(&format!("{key} = "))
        };
        let found = ran.text().lines().find(is_it);
        found.unwrap_or_default().to_owned()
    }
}

#[track_caller]
fn check_line(config: &str, line: &str, variables: &[&str], expected: &str) {
    let key = expected.trim_start_matches("# ").split(' ').next().unwrap();
    let found = Site::new(config).line(line, variables, key);
    assert_eq!(found, expected, "{line} {variables:?}\n{config}");
}

#[test]
fn what_is_typed_comes_before_variables_before_the_file() {
    let run = "sg-run --db d";
    for (config, line, variables, expected) in [
        ("", run, &[][..], "memory-limit = \"2GiB\"  # default"),
        (
            "memory-limit = \"1GiB\"",
            run,
            &[],
            "memory-limit = \"1GiB\"  # sg.toml:1",
        ),
        (
            "memory-limit = \"1GiB\"\n[sg-run]\nmemory-limit = \"3GiB\"",
            run,
            &[],
            "memory-limit = \"3GiB\"  # sg.toml:3",
        ),
        (
            "[sg-run]\nmemory-limit = \"3GiB\"",
            run,
            &["SG_MEMORY_LIMIT=4GiB"],
            "memory-limit = \"4GiB\"  # SG_MEMORY_LIMIT",
        ),
        (
            "[sg-run]\nmemory-limit = \"3GiB\"",
            "sg-run --db d --memory-limit=5GiB",
            &["SG_MEMORY_LIMIT=4GiB"],
            "memory-limit = \"5GiB\"  # flag",
        ),
        // A variable without anything in it is none.
        (
            "db = \"x\"",
            "sg-run",
            &["SG_DB="],
            "db = \"x\"  # sg.toml:1",
        ),
        ("[sg-score]\njobs = 3", run, &[], ""),
        // Flags can be turned off again.
        ("quiet = true", run, &[], "quiet = true  # sg.toml:1"),
        (
            "quiet = true\n[sg-run]\nquiet = false",
            run,
            &[],
            "quiet = false  # sg.toml:3",
        ),
        (
            "quiet = true",
            run,
            &["SG_QUIET=0"],
            "quiet = false  # SG_QUIET",
        ),
        ("", run, &["SG_QUIET=yes"], "quiet = true  # SG_QUIET"),
        (
            "quiet = false",
            "sg-run --db d -q",
            &[],
            "quiet = true  # flag",
        ),
    ] {
        if expected.is_empty() {
            assert_eq!(Site::new(config).line(line, variables, "jobs"), "");
        } else {
            check_line(config, line, variables, expected);
        }
    }
}

#[test]
fn lists_tables_and_kinds_of_values() {
    let run = "sg-run --db d";
    for (config, line, variables, expected) in [
        // Lists replace each other.
        (
            "db = [\"a\", \"b\"]",
            "sg-query stats",
            &[][..],
            "db = [\"a\", \"b\"]  # sg.toml:1",
        ),
        (
            "db = [\"a\", \"b\"]",
            "sg-query --db c stats",
            &[],
            "db = [\"c\"]  # flag",
        ),
        (
            "db = [\"a\"]",
            "sg-query stats --db c --db d",
            &[],
            "db = [\"c\", \"d\"]  # flag",
        ),
        (
            "db = \"a\"",
            "sg-query stats",
            &["SG_DB=v"],
            "db = [\"v\"]  # SG_DB",
        ),
        // Tables of subcommands, and of what they are below.
        (
            "[sg-query]\nlimit = 5\n[sg-query.events]\nlimit = 6",
            "sg-query events",
            &[],
            "limit = 6  # sg.toml:4",
        ),
        (
            "[sg-query]\nlimit = 5\n[sg-query.events]\nlimit = 6",
            "sg-query incidents",
            &[],
            "limit = 5  # sg.toml:2",
        ),
        (
            "[sg-query.keys.add]\nrole = \"admin\"",
            "sg-query keys add x --keys k",
            &[],
            "role = \"admin\"  # sg.toml:2",
        ),
        (
            "[sg-store.prune]\nretain = \"90d\"",
            "sg-store prune --db d",
            &[],
            "retain = \"90d\"  # sg.toml:2",
        ),
        // An option whose value may be left out.
        (
            "[sg-run]\nembed = true",
            run,
            &[],
            "embed = true  # sg.toml:2",
        ),
        (
            "[sg-run]\nembed = \"all\"",
            run,
            &[],
            "embed = \"all\"  # sg.toml:2",
        ),
        (
            "severities = \"0.5,0.6,0.7\"",
            run,
            &[],
            "severities = \"0.5,0.6,0.7\"  # sg.toml:1",
        ),
        (
            "threshold = 0.75",
            run,
            &[],
            "threshold = 0.75  # sg.toml:1",
        ),
        (
            "since = 2026-01-01",
            "sg-query events",
            &[],
            "since = \"2026-01-01\"  # sg.toml:1",
        ),
    ] {
        check_line(config, line, variables, expected);
    }
}

/// What is typed must not be refused, or worse overruled, for what stands in a file for other runs.
#[test]
fn what_is_lower_gives_way() {
    let config = "topic = \"events\"\nbrokers = \"b:9092\"\ngroup = \"g\"\nchangelog = \"c\"\n\
                  follow = true\nalerts = \"anomalies\"\nwebhook-secret-file = \"s\"";
    let files = "sg-run --db d events.ndjson";
    for (config, line, variables, expected) in [
        (
            config,
            files,
            &[][..],
            "# topic = [\"events\"]  # sg.toml:1, not used: FILE is given",
        ),
        (
            config,
            files,
            &[],
            "# group = \"g\"  # sg.toml:3, not used: it needs --topic",
        ),
        (config, files, &[], "brokers = \"b:9092\"  # sg.toml:2"),
        (
            config,
            "sg-run --db d -t other",
            &[],
            "group = \"g\"  # sg.toml:3",
        ),
        (
            config,
            "sg-run --db d -t other",
            &[],
            "# follow = true  # sg.toml:5, not used: --topic is given",
        ),
        (
            config,
            "sg-run --db d",
            &["SG_REPLAY=dead"],
            "# topic = [\"events\"]  # sg.toml:1, not used: --replay is given",
        ),
        (
            config,
            files,
            &["SG_TOPIC=v"],
            "# topic = [\"v\"]  # SG_TOPIC, not used: FILE is given",
        ),
        (
            "db = \"a\"",
            "sg-query stats --peer http://h",
            &[],
            "# db = [\"a\"]  # sg.toml:1, not used: --peer is given",
        ),
        (
            "[sg-store.prune]\nretain = \"90d\"",
            "sg-store prune --db d --before 2026-01-01",
            &[],
            "# retain = \"90d\"  # sg.toml:2, not used: --before is given",
        ),
        // What only modifies another option.
        (
            "checkpoint-mib = 9",
            "sg-consume x",
            &[],
            "# checkpoint-mib = 9  # sg.toml:1, not used: it needs --resume-from",
        ),
        (
            "checkpoint-mib = 9",
            "sg-consume x --resume-from d",
            &[],
            "checkpoint-mib = 9  # sg.toml:1",
        ),
        (
            "alerts = \"anomalies\"",
            "sg-run --db d",
            &[],
            "# alerts = \"anomalies\"  # sg.toml:1, not used: it needs --alerts-to",
        ),
    ] {
        check_line(config, line, variables, expected);
    }
}

#[track_caller]
fn check_refused(config: &str, line: &str, variables: &[&str], expected: &str) {
    let ran = Site::new(config).run(line, variables);
    assert_eq!((ran.code, ran.text()), (2, ""), "{config}: {}", ran.stderr);
    let name = line.split(' ').next().unwrap();
    assert_eq!(ran.stderr, format!("{name}: {expected}\n"));
}

#[test]
fn keys_are_refused_with_file_line_and_name() {
    let run = "sg-run --db d x";
    for (config, line, variables, expected) in [
        (
            "\nmemory-limt = \"1GiB\"",
            run,
            &[][..],
            "sg.toml:2: unknown key \"memory-limt\": did you mean \"memory-limit\"?",
        ),
        (
            "memory_limit = \"1GiB\"",
            run,
            &[],
            "sg.toml:1: unknown key \"memory_limit\": did you mean \"memory-limit\"?",
        ),
        (
            "zzz = 1",
            run,
            &[],
            "sg.toml:1: unknown key \"zzz\": any program has no such option",
        ),
        (
            "[sg-rum]\n",
            run,
            &[],
            "sg.toml:1: unknown table \"sg-rum\": did you mean \"sg-run\"?",
        ),
        (
            "[sg-query.evnts]\n",
            run,
            &[],
            "sg.toml:1: unknown table \"evnts\": did you mean \"events\"?",
        ),
        (
            "[sg-gen]\nthreshold = 0.5",
            run,
            &[],
            "sg.toml:2: unknown key \"threshold\": sg-gen has no such option",
        ),
        (
            "config = \"x\"",
            run,
            &[],
            "sg.toml:1: unknown key \"config\": did you mean \"count\"?",
        ),
        (
            "batch = 1",
            run,
            &[],
            "sg.toml:1: batch means different things in different programs: put it into a table, such as \
             [sg-analyze]",
        ),
    ] {
        check_refused(config, line, variables, expected);
    }
}

#[test]
fn values_are_refused_with_file_line_and_key() {
    let run = "sg-run --db d x";
    for (config, line, variables, expected) in [
        (
            "jobs = ",
            run,
            &[][..],
            "sg.toml:1: string values must be quoted, expected literal string",
        ),
        (
            "\n[sg-run]\njobs = 9999",
            run,
            &[],
            "sg.toml:3: jobs: invalid value '9999' for '--jobs <N>': 9999 is not in 1..=256",
        ),
        (
            "detector = \"clasic\"",
            run,
            &[],
            "sg.toml:1: detector: invalid value 'clasic' for '--detector <DETECTOR>' [possible values: \
             adaptive, classic] tip: a similar value exists: 'classic'",
        ),
        (
            "quiet = \"yes\"",
            run,
            &[],
            "sg.toml:1: quiet: expected true or false, not a single value",
        ),
        (
            "jobs = true",
            run,
            &[],
            "sg.toml:1: jobs: expected a string or a number, not true or false",
        ),
        (
            "jobs = [1]",
            run,
            &[],
            "sg.toml:1: jobs: expected a string or a number, not a list",
        ),
        (
            "alerts-to = [[\"x\"]]",
            run,
            &[],
            "sg.toml:1: alerts-to: expected a list of strings or numbers",
        ),
        // Even if something else counts.
        (
            "jobs = 0",
            "sg-run --db d x --jobs 2",
            &[],
            "sg.toml:1: jobs: invalid value '0' for '--jobs <N>': 0 is not in 1..=256",
        ),
        (
            "",
            run,
            &["SG_JOBS=many"],
            "SG_JOBS: invalid value 'many' for '--jobs <N>': invalid digit found in string",
        ),
        (
            "",
            run,
            &["SG_QUIET=maybe"],
            "SG_QUIET: invalid value 'maybe' for '--quiet': expected true or false",
        ),
        (
            "property = [\"a=b\", \"sasl.password=x\"]",
            run,
            &[],
            "sg.toml:1: sasl.password is a secret: put it into a file of its own that kafka-config names",
        ),
        (
            "",
            run,
            &["SG_CONFIG=none.toml"],
            "cannot read none.toml: No such file or directory (os error 2)",
        ),
        (
            "[sg-run]\ntls-cert = \"c\"\nserve = \"127.0.0.1:0\"",
            run,
            &[],
            "--tls-cert and --tls-key go together: name both",
        ),
    ] {
        check_refused(config, line, variables, expected);
    }
    // Other programs do not mind what is not theirs.
    Site::new("[sg-run]\njobs = 9999\n[sg-gen]\nevents = 1")
        .run("sg-gen", &[])
        .expect_code(0);
    // Clap speaks of what was never typed.
    let ran = Site::new("topic = \"t\"\nfollow = true").run(&run.replace(" x", ""), &[]);
    let ran = ran.expect_code(2);
    assert!(
        ran.stderr
            .contains("error: the argument '--follow' cannot be used with '--topic <TOPIC>'")
            && ran.stderr.ends_with(
                "sg-run: --follow is set by sg.toml:2\nsg-run: --topic is set by sg.toml:1\n"
            ),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_run_does_what_the_file_says() {
    let site =
        Site::new("events = 7\n[sg-gen]\nusers = 1\n[sg-consume]\nstrict = true\nquiet = true\n");
    let ran = site.run("sg-gen", &[]).expect_code(0);
    assert_eq!(ran.json_lines().len(), 7);
    let ran = site.run("sg-gen", &["SG_EVENTS=3"]).expect_code(0);
    assert_eq!(ran.json_lines().len(), 3);
    fs::write(
        site.0.path().join("in"),
        format!("{}\nx\n", event("e", "u", 1)),
    )
    .unwrap();
    let ran = site.run("sg-consume in", &[]);
    assert_eq!((ran.code, ran.json_lines().len()), (2, 1), "{}", ran.stderr);
    let ran = site
        .run("sg-consume in", &["SG_STRICT=false"])
        .expect_code(1);
    assert_eq!(ran.json_lines().len(), 1);
    // A typed file comes before that of the variable, also before a subcommand.
    fs::write(site.0.path().join("other.toml"), "db = \"nowhere\"\n").unwrap();
    for line in [
        "sg-query --config other.toml stats",
        "sg-query stats --config=other.toml",
        "sg-store --config other.toml verify",
    ] {
        let ran = site.run(line, &[]).expect_code(2);
        assert!(
            ran.stderr.contains("there is no database at nowhere"),
            "{}",
            ran.stderr
        );
    }
}

/// All commands that do something, by their path.
fn leaves() -> Vec<(Vec<String>, Command)> {
    fn add(path: &[String], command: &Command, leaves: &mut Vec<(Vec<String>, Command)>) {
        let mut path = path.to_vec();
        path.push(command.get_name().to_owned());
        if !command.is_subcommand_required_set() {
            leaves.push((path.clone(), command.clone()));
        }
        for subcommand in command
            .get_subcommands()
            .filter(|it| it.get_name() != "help")
        {
            add(&path, subcommand, leaves);
        }
    }
    let mut leaves = Vec::new();
    for mut command in commands() {
        command.build();
        add(&[], &command, &mut leaves);
    }
    assert!(leaves.len() > 25);
    leaves
}

/// Options that can be set, all but those about the command line itself.
fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    const RESERVED: [&str; 5] = ["config", "print-config", "generate", "help", "version"];
    let args = command.get_arguments();
    args.filter(|arg| arg.get_long().is_some_and(|long| !RESERVED.contains(&long)))
}

/// Options that mean another thing than in other programs have variables of their own.
fn variable(path: &[String], arg: &Arg) -> String {
    let long = arg.get_long().unwrap();
    let embedder = "provider base-url model api-key-file dimensions batch timeout retries";
    let prefix = match (&*path[0], long) {
        (_, "by") => return "SG_AUTHOR".to_owned(),
        (_, "brokers") => return "SG_KAFKA_BROKERS".to_owned(),
        ("sg-analyze", "batch" | "db") => "SG_ANALYZE_",
        ("sg-embed" | "sg-query", _) if embedder.split(' ').any(|it| it == long) => "SG_EMBED_",
        ("sg-gen", "labels") => "SG_GEN_",
        ("sg-store", "keep" | "to") => "SG_STORE_",
        _ => "SG_",
    };
    format!("{prefix}{}", long.replace('-', "_").to_uppercase())
}

/// What makes a command complete, but for one option.
fn needed<'a>(path: &[String], but: &str) -> (String, Vec<&'a str>) {
    let by_place = match path.last().unwrap().as_str() {
        "event" | "user" | "similar" | "feedback" if path[0] == "sg-store" || path.len() == 2 => {
            " x"
        }
        "add" | "revoke" => " x",
        _ => "",
    };
    // It has nothing there.
    let by_place = if path == ["sg-query", "feedback"] {
        ""
    } else {
        by_place
    };
    let variables = [
        "SG_DB=d",
        "SG_FROM=f",
        "SG_KEYS=k",
        "SG_STATE=s",
        "SG_STORE_TO=t",
        "SG_VERDICT=benign",
    ];
    let is_other = |it: &&str| *it != but && !it.starts_with(&format!("{but}="));
    let variables = variables.into_iter().filter(is_other);
    (format!("{}{by_place}", path.join(" ")), variables.collect())
}

/// A value that an option takes.
fn sample(command: &Command, arg: &Arg) -> String {
    let possible = arg.get_possible_values();
    if let Some(last) = possible.last().filter(|_| arg.get_action().takes_values()) {
        return last.get_name().to_owned();
    }
    let relaxed = command
        .clone()
        .mut_args(|arg| arg.required(false))
        .subcommand_required(false);
    let candidates = [
        "7",
        "k=v",
        "2GiB",
        "1h",
        "0.5",
        "0.5,0.6,0.7",
        "127.0.0.1:1",
        "192.0.2.1",
        "kafka:t",
        "UTC",
    ];
    let takes = |value: &&str| {
        let argv = [
            "x".to_owned(),
            format!("--{}={value}", arg.get_long().unwrap()),
        ];
        match relaxed.clone().try_get_matches_from(argv) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::MissingRequiredArgument,
        }
    };
    let found = candidates.into_iter().find(takes);
    found
        .unwrap_or_else(|| panic!("no value for {arg}"))
        .to_owned()
}

/// Each option of each program can be set by a variable and by the file.
#[test]
fn every_option_has_a_variable_and_a_key() {
    let mut n_options = 0;
    for (path, command) in leaves() {
        for arg in options(&command) {
            let long = arg.get_long().unwrap();
            let takes_value = arg.get_action().takes_values();
            let value = if takes_value {
                sample(&command, arg)
            } else {
                "true".to_owned()
            };
            let name = variable(&path, arg);
            let (line, mut variables) = needed(&path, &name);
            let table = format!("\n[{}]\n{long} = ", path.join("."));
            let config = if takes_value {
                format!("{table}\"{value}\"\n")
            } else {
                format!("{table}{value}\n")
            };
            let site = Site::new(&config);
            let of_file = site.line(&line, &variables, long);
            assert!(
                of_file.contains("  # sg.toml:3"),
                "{line}: {of_file:?}\n{config}"
            );
            let set = format!("{name}={value}");
            variables.push(&set);
            let of_variable = site.line(&line, &variables, long);
            assert!(
                of_variable.contains(&format!("  # {name}")),
                "{line}: {of_variable:?}"
            );
            n_options += 1;
        }
    }
    assert!(n_options > 300, "{n_options}");
}

/// A key at the top and a variable reach all programs that have the option, so it has to be the same one.
#[test]
fn one_name_means_one_thing() {
    let mut known: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (path, command) in leaves() {
        for arg in options(&command) {
            let mut possible: Vec<String> = arg
                .get_possible_values()
                .iter()
                .map(|it| it.get_name().to_owned())
                .collect();
            possible.sort();
            let kind = format!("{:?} {possible:?}", arg.get_value_names());
            let name = variable(&path, arg);
            let path = path.join(" ");
            let (other, kind_of_other) = known
                .entry(name.clone())
                .or_insert((path.clone(), kind.clone()));
            assert_eq!(kind, *kind_of_other, "{name} of {path} and of {other}");
        }
    }
}

#[test]
fn what_is_printed_gives_the_same_run() {
    for (path, command) in leaves() {
        // A default that is repeated must not exclude anything.
        let (line, variables) = needed(&path, "");
        let site = Site::new("");
        let first = site
            .run(&format!("{line} --print-config"), &variables)
            .expect_code(0);
        let again = Site::new(first.text());
        let second = again
            .run(&format!("{line} --print-config"), &[])
            .expect_code(0);
        // What is not used is a comment, and gone.
        let values = |ran: &Ran| -> Vec<String> {
            let lines = ran
                .text()
                .lines()
                .filter(|line| !line.contains("not used"))
                .map(|line| line.split("  # ").next().unwrap().to_owned());
            lines.collect()
        };
        assert_eq!(values(&first), values(&second), "{line}");
        // Nothing is left for the program to decide.
        assert!(!second.text().contains("  # default"), "{}", second.text());
        assert_eq!(first.stderr + &second.stderr, "");
        drop(command);
    }
    let line = "sg-run a.ndjson --db d --dead-letter kafka:dead -q --alerts-to a --alerts-to kafka:b --embed";
    let site = Site::new("jobs = 2\nhost-name = [\"a \\\" b\", 'c\\d']\nserve = \"127.0.0.1:0\"");
    let first = site
        .run(&format!("{line} --print-config"), &["SG_MIN_EVENTS=9"])
        .expect_code(0);
    let again = Site::new(first.text())
        .run("sg-run a.ndjson --print-config", &[])
        .expect_code(0);
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split("  # ").next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(values(first.text()), values(again.text()));
    assert!(
        first.text().contains("# FILE: a.ndjson\n"),
        "{}",
        first.text()
    );
    assert!(
        first
            .text()
            .contains("host-name = ['a \" b', 'c\\d']  # sg.toml:2\n"),
        "{}",
        first.text()
    );
}

#[test]
fn secrets_are_not_printed_and_files_with_them_are_watched() {
    let secrets = "sg-run --db d -X sasl.password=hunter2 --alerts-to webhook:https://h/hunter2 \
                   --base-url https://me:hunter2@h --print-config";
    let ran = Site::new("")
        .run(secrets, &["SG_PEER=http://a:hunter2@h"])
        .expect_code(0);
    assert!(!ran.text().contains("hunter2"), "{}", ran.text());
    for key in ["property", "alerts-to", "base-url"] {
        let line = format!("# {key} is not shown, since it may hold a secret  # flag\n");
        assert!(ran.text().contains(&line), "{}", ran.text());
    }
    // A file that others can read is as good as none.
    let site = Site::new("");
    let secret = site.0.path().join("secret");
    fs::write(&secret, "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw").unwrap();
    let url = site.0.path().join("url");
    fs::write(&url, "http://127.0.0.1:9/hunter2\n").unwrap();
    fs::write(site.0.path().join("in"), "").unwrap();
    let line = "sg-run --db d in --alerts-to webhook:@url --alerts-to webhook:http://127.0.0.1:9/b \
                --webhook-secret-file secret";
    for (mode, n_told) in [(0o644, 1), (0o640, 1), (0o600, 0)] {
        fs::set_permissions(&secret, PermissionsExt::from_mode(mode)).unwrap();
        fs::set_permissions(&url, PermissionsExt::from_mode(mode)).unwrap();
        let ran = site.run(line, &[]).expect_code(0);
        let words = format!(
            ": secret holds a secret, and others can read it (mode {mode:o}): chmod 600 secret\n"
        );
        assert_eq!(ran.stderr.matches(&words).count(), n_told, "{}", ran.stderr);
        assert_eq!(
            ran.stderr
                .matches(
                    &words
                        .replace("secret ", "url ")
                        .replace(" secret\n", " url\n")
                        .replace("a url", "a secret")
                )
                .count(),
            n_told,
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    fs::write(&url, "gopher://x/hunter2").unwrap();
    let ran = site.run(line, &[]).expect_code(2);
    assert_eq!(
        ran.stderr,
        "sg-run: --alerts-to webhook:URL: what is in url cannot be used: it begins neither with https:// nor with http://\n"
    );
}

/// The files that are shipped are right for every program.
#[test]
fn shipped_files_are_right() {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|it| it == "toml") {
                found.push(path);
            }
        }
    }
    let folder = testdata("").join("../deploy");
    let mut found = Vec::new();
    collect(&folder, &mut found);
    assert!(
        found
            .iter()
            .any(|path| path.ends_with("etc/streamguard.toml")),
        "{found:?}"
    );
    for shipped in found {
        let text = fs::read_to_string(&shipped).unwrap();
        // What is only suggested has to be right as well.
        let suggested: Vec<&str> = text
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|it| is_setting(it))
                    .unwrap_or(line)
            })
            .collect();
        for text in [text.clone(), suggested.join("\n")] {
            let site = Site::new(&text);
            for (path, _) in leaves() {
                let (line, variables) = needed(&path, "");
                let line = format!("{line} --print-config");
                let ran = site.run(&line, &variables);
                let is_choice = ran.stderr.contains("cannot be used with");
                assert!(
                    ran.code == 0 || is_choice,
                    "{}: {line}: {}",
                    shipped.display(),
                    ran.stderr
                );
            }
        }
    }
    // No file of the machine is read unless it is named.
    let ran = run("sg-run", &["--db", "d", "--print-config"], b"").expect_code(0);
    assert!(!ran.text().contains(".toml"), "{}", ran.text());
}

/// Whether a line is one of TOML.
fn is_setting(line: &str) -> bool {
    let key = line.split(" = ").next().unwrap_or_default();
    (line.contains(" = ") && !key.contains(' ')) || line.starts_with("[sg-")
}

/// A device has no end, and no line of it is a setting.
#[test]
fn what_has_no_end_is_no_configuration() {
    let args = ["--config=/dev/zero", "--db=d"];
    let ran = run("sg-run", &args, b"").expect_code(2);
    assert!(
        ran.stderr.contains("that is no configuration"),
        "{}",
        ran.stderr
    );
}
