//! What programs tell of themselves: help, manual pages, and completions in real shells.

use std::fs;
use std::process::{Command as Process, Stdio};

use clap::Command;
use streamguard::cli::commands;

use crate::tools::{run, shell};

/// Calls `check` with each command and its path.
fn each_command(check: impl Fn(&[String], &Command)) {
    fn descend(path: &[String], command: &Command, check: &dyn Fn(&[String], &Command)) {
        let path = [path, &[command.get_name().to_owned()]].concat();
        check(&path, command);
        for subcommand in command.get_subcommands() {
            descend(&path, subcommand, check);
        }
    }
    let commands = commands();
    assert_eq!(commands.len(), 8);
    for command in commands {
        descend(&[], &command, &check);
    }
}

#[test]
fn every_help_has_a_description_examples_and_exit_codes() {
    each_command(|path, command| {
        let shown = path.join(" ");
        assert!(
            command.get_about().is_some(),
            "{shown} does not say what it does"
        );
        let args: Vec<&str> = path[1..]
            .iter()
            .map(String::as_str)
            .chain(["--help"])
            .collect();
        let ran = run(&path[0], &args, b"").expect_code(0);
        let (_, after) = ran
            .text()
            .split_once("\nExamples:\n")
            .unwrap_or_else(|| panic!("{shown} has no examples"));
        let (examples, codes) = after
            .split_once("\nExit codes:\n")
            .unwrap_or_else(|| panic!("{shown} has no codes"));
        let examples: Vec<&str> = examples.lines().filter(|line| !line.is_empty()).collect();
        assert!(
            examples.iter().any(|line| line.contains(&shown)),
            "{shown}: {examples:?}"
        );
        assert!(
            codes.starts_with("  0  ") && codes.contains("\n  2  "),
            "{shown}: {codes}"
        );
        for arg in command.get_arguments() {
            assert!(
                arg.get_help().is_some() || arg.get_id() == "help",
                "{shown} {arg} is not explained"
            );
        }
    });
}

#[test]
fn manual_pages_are_whole_and_render_without_warnings() {
    for command in commands() {
        let name = command.get_name();
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join(format!("{name}.1"));
        let ran = run(name, &["--generate", "man"], b"").expect_code(0);
        fs::write(&page, &ran.stdout).unwrap();
        let page = page.display();
        let rendered = shell(&format!(
            "MANWIDTH=100 LC_ALL=C.UTF-8 man --warnings=w -P cat -l {page} | col -b"
        ));
        assert_eq!((rendered.code, &*rendered.stderr), (0, ""), "{name}");
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXAMPLES",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "SEE ALSO",
        ] {
            assert!(
                rendered.text().contains(&format!("\n{section}\n")),
                "{name} has no {section}\n{}",
                rendered.text()
            );
        }
        for subcommand in command.get_subcommands() {
            let heading = format!("\n   {name} {}\n", subcommand.get_name());
            assert!(
                rendered.text().contains(&heading),
                "{name}: {heading}\n{}",
                rendered.text()
            );
        }
        // Nothing on an option is lost.
        for arg in command.get_arguments() {
            if let Some(long) = arg.get_long() {
                assert!(
                    rendered.text().contains(&format!("--{long}")),
                    "{name} --{long}"
                );
            }
        }
        let lint = shell(&format!("mandoc -T lint -W error {page}"));
        assert_eq!((lint.code, lint.text()), (0, ""), "{name}");
    }
}

/// Completions of a word at the end of a line, as bash would offer them.
fn in_bash(line: &str) -> String {
    let name = line.split(' ').next().unwrap();
    let script = format!(
        r#"source <({name} --generate complete-bash)
           complete -p {name} > /dev/null || exit 3
           words=({line}); [[ '{line}' == *' ' ]] && words+=('')
           COMP_WORDS=("${{words[@]}}"); COMP_CWORD=$((${{#words[@]}} - 1))
           COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}
           function=$(complete -p {name} | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
           "$function" {name} "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}" 2>/dev/null
           printf '%s\n' "${{COMPREPLY[@]}}""#
    );
    let ran = shell(&script).expect_code(0);
    assert_eq!(ran.stderr, "");
    ran.text().to_owned()
}

#[test]
fn bash_completes() {
    for (line, expected) in [
        ("sg-run --memory-l", "--memory-limit"),
        ("sg-run --detector ", "classic"),
        ("sg-query anom", "anomalies"),
        ("sg-query anomalies --sev", "--severity"),
        ("sg-query keys re", "revoke"),
        ("sg-store --generate complete-z", "complete-zsh"),
    ] {
        let found = in_bash(line);
        assert!(found.lines().any(|it| it == expected), "{line}: {found}");
    }
    for command in commands() {
        let name = command.get_name();
        assert!(
            in_bash(&format!("{name} --print-c")).contains("--print-config"),
            "{name}"
        );
    }
}

#[test]
fn fish_completes() {
    for (line, expected) in [
        ("sg-run --memory-l", "--memory-limit"),
        ("sg-run --detector cl", "classic"),
        ("sg-query anom", "anomalies"),
        ("sg-query anomalies --sev", "--severity"),
    ] {
        let name = line.split(' ').next().unwrap();
        let home = tempfile::tempdir().unwrap();
        let script = format!("{name} --generate complete-fish | source; complete -C '{line}'");
        let ran = shell(&format!(
            "HOME={} fish --no-config -c \"{script}\"",
            home.path().display()
        ));
        let ran = ran.expect_code(0);
        let mut found = ran
            .text()
            .lines()
            .map(|line| line.split('\t').next().unwrap());
        assert!(
            found.any(|it| it.ends_with(expected)),
            "{line}: {} {}",
            ran.text(),
            ran.stderr
        );
    }
}

/// Zsh tells what it offers to nobody but a terminal, so it is given one.
#[test]
fn zsh_completes() {
    for (line, expected) in [
        ("sg-run --memory-l", "--memory-limit"),
        ("sg-query anom", "anomalies"),
    ] {
        let name = line.split(' ').next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().display();
        // The line as it stands after Tab.
        let script = format!(
            "zmodload zsh/zpty; zpty z zsh -f -i; \
             zpty -w z 'PS1=; fpath=({shown} $fpath); autoload -U compinit; compinit -u -d {shown}/dump'; \
             zpty -w z 'show() {{ print -r -- \"$BUFFER\" > {shown}/line; exit }}; zle -N show; bindkey ^X show; : > {shown}/ready'; \
             while [[ ! -e {shown}/ready ]]; do zpty -r -t z out; done; \
             zpty -w -n z $'{line}\\t\\x18'; while zpty -r z out; do :; done; true"
        );
        let ran = shell(&format!(
            "{name} --generate complete-zsh > {shown}/_{name} && timeout 60 zsh -f -c {}",
            quoted(&script)
        ));
        let found = fs::read_to_string(folder.path().join("line"));
        let found = found.unwrap_or_else(|_| panic!("{line}: {} {}", ran.text(), ran.stderr));
        assert!(found.contains(expected), "{line}: {found}");
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn what_cannot_be_made_is_refused() {
    let ran = run("sg-run", &["--generate", "pdf"], b"").expect_code(2);
    assert!(
        ran.stderr
            .contains("--generate makes man, complete-bash, complete-zsh, complete-fish"),
        "{}",
        ran.stderr
    );
    // Its reader may go away.
    let mut child = crate::tools::program("sg-run")
        .args(["--generate", "man"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(Process::new("man").arg("--version").output().is_ok());
}
