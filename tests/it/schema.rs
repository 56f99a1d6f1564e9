//! Databases of every schema version that a release has written must open, and hold what they held.

use crate::tools::{run, testdata};

#[test]
fn a_database_of_schema_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("v1");
    std::fs::create_dir(&db).unwrap();
    for entry in std::fs::read_dir(testdata("schema/v1")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), db.join(entry.file_name())).unwrap();
    }
    let db = db.to_str().unwrap();
    let expected = std::fs::read(testdata("schema/v1.json")).unwrap();
    let verified = run("sg-store", &["verify", "--digest", "--db", db], b"").expect_code(0);
    assert_eq!(verified.text(), String::from_utf8(expected).unwrap());
    // And it can be written to: what it holds is known, what is new is added.
    let known = run("sg-query", &["export", "--db", db], b"").expect_code(0);
    let again = run("sg-store", &["--db", db], &known.stdout).expect_code(0);
    assert!(
        again
            .stderr
            .contains("in 800 = out 0 + rejected 0 + filtered 800"),
        "{}",
        again.stderr
    );
    let user = run("sg-query", &["user", "user00009", "--db", db], b"").expect_code(0);
    assert_eq!(user.json_lines()[0]["source"], "baseline");
}
