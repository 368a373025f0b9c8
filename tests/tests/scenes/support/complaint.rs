//! Errors as people read them.

use anyhow::ensure;
use overlay_tests::lab::Done;

/// Fails unless the program has failed with one line on stderr that has all these words: of the object, the cause and the next
/// step. Upper and lower case are the same.
pub fn complains(done: &Done, words: &[&str]) -> anyhow::Result<()> {
    let Done { line, code, stdout, stderr, .. } = done;
    ensure!(matches!(code, 1 | 2), "`{line}`: exit status {code}: {stdout}{stderr}");
    let said = stderr.trim_end();
    ensure!(!said.is_empty() && !said.contains('\n'), "`{line}`: not one line: {said:?}");
    ensure!(stdout.is_empty(), "`{line}`: it prints on stdout: {stdout:?}");
    let lower = said.to_lowercase();
    let missing: Vec<_> = words.iter().filter(|word| !lower.contains(&word.to_lowercase())).collect();
    ensure!(missing.is_empty(), "`{line}`: nothing about {missing:?} in: {said}");
    Ok(())
}
