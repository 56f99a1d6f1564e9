//! Clocks that jump while programs run.

use std::path::Path;

use crate::database::admin;
use crate::tools::{generated, n_lines, shell};

/// Moves the clock that a program sees by the seconds in a file; time that passes is left alone.
const CLOCK: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long moved(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("CLOCK"), "r");
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += moved();
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The clock of the machine goes back by a year, forward by ten, and stands: what is stored is the same, nothing
/// waits, and nothing is given up.
#[test]
fn a_clock_that_jumps_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let lines = generated(40_000, 30, 71);
    std::fs::write(f.join("in"), &lines).unwrap();
    let quarter = n_lines(&lines) / 4;
    let feed = |between: &str| {
        format!(
            "(for i in 0 1 2 3; do tail -n +$((i * {quarter} + 1)) in | head -n {quarter}; {between}; done)"
        )
    };
    let sg_run = "sg-run -q --threshold=0.5 --memtable-mib=1 --checkpoint-mib=1 --alerts-to";
    let f_shown = f.display();
    shell(&format!(
        "cd {f_shown}; {} | {sg_run} quiet.alerts --db quiet",
        feed(":")
    ))
    .expect_code(0);
    std::fs::write(f.join("clock.c"), CLOCK).unwrap();
    shell(&format!(
        "cd {f_shown}; cc -shared -fPIC -o clock.so clock.c"
    ))
    .expect_code(0);
    let jump = "set -- -31622400 315360000 -1000000000; shift $((i % 3)); sleep 0.7; echo \"$1\" >clock.s; sleep 0.7";
    let faked = format!("LD_PRELOAD={f_shown}/clock.so CLOCK={f_shown}/clock.s");
    // Programs do see it.
    let moved = shell(&format!(
        "cd {f_shown}; echo -1000000000 >clock.s; {faked} date +%Y"
    ));
    assert!(moved.expect_code(0).text() < "2010");
    let ran = shell(&format!(
        "cd {f_shown}; echo 0 >clock.s; {} | timeout 60 env {faked} {sg_run} jumped.alerts --db jumped",
        feed(jump)
    ))
    .expect_code(0);
    assert_eq!(ran.stderr, "");
    let full = |db: &Path| admin("verify", db, &["--digest"]).expect_code(0).stdout;
    assert_eq!(full(&f.join("jumped")), full(&f.join("quiet")));
    let alerts = |name: &str| std::fs::read(f.join(name)).unwrap();
    assert!(!alerts("quiet.alerts").is_empty());
    assert!(alerts("jumped.alerts") == alerts("quiet.alerts"));
}
