//! `separation-worker completions`, read by a shell.

use std::process::Command;

/// Completes the last of these words.
const COMPLETE: &str = r#"
source <("$PROGRAM" completions bash)
COMP_WORDS=(separation-worker "$@")
COMP_CWORD=$#
_separation__worker separation-worker "${!#}" ""
echo "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_commands_and_options() {
    let check = |words: &[&str], expected: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", COMPLETE, "bash"])
            .args(words)
            .env("PROGRAM", env!("CARGO_BIN_EXE_separation-worker"));
        let output = bash.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected);
    };
    check(&["sepa"], "separate");
    check(&["models", "fe"], "fetch");
    check(&["separate", "--recur"], "--recursive");
}
