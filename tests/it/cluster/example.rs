//! The example `examples/ha`: its README is followed word for word.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::peers::skip;

/// A network and processes of its own: the example has fixed ports, and must not outlive the test.
const ISOLATION: [&str; 5] = ["--map-root-user", "--net", "--pid", "--fork", "--kill-child"];
/// The load runs for this time in the README, and for that one here: one leader is killed.
const SECONDS: (&str, &str) = (" 60\n", " 12\n");

fn has(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The code of the README, one text for each block.
fn blocks(readme: &str) -> Vec<String> {
    let code = readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    code.map(str::to_owned).collect()
}

#[test]
fn the_example_does_what_its_readme_says() {
    let programs = ["unshare", "redis-cli", "curl", "etcd", "python3"];
    if !programs.iter().all(|program| has(program, &["--version"])) || !has("ip", &["-V"]) {
        return skip("unshare, ip, redis-cli, curl, etcd or python3 is missing");
    }
    if !has("unshare", &[&ISOLATION[..], &["ip", "link", "set", "lo", "up"]].concat()) {
        eprintln!("skipped: this machine does not permit networks of one's own");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let release = folder.path().join("target/release");
    std::fs::create_dir_all(&release).expect("a folder");
    symlink(env!("CARGO_BIN_EXE_octostore"), release.join("octostore")).expect("a link");
    symlink(root.join("examples"), folder.path().join("examples")).expect("a link");
    let readme = std::fs::read_to_string(root.join("examples/ha/README.md")).expect("a page");
    let blocks = blocks(&readme);
    let [start, lock, kill, fence, load] = &blocks[..] else { panic!("{blocks:?}") };
    let start = start.strip_prefix("cargo build --release --features etcd\n").expect("how it is built");
    let script = format!(
        "set -eu\nip link set lo up\n\
         ({start}) >out 2>&1 & example=$!\n\
         until grep -q 'Ctrl-C ends' out; do kill -0 $example || {{ cat out; exit 1; }}; sleep 0.1; done\n\
         {lock}{kill}\
         after_kill() {{\n{fence}}}\n\
         until after_kill 2>/dev/null >after && [ \"$(grep -c '^1$' after)\" = 2 ]; do sleep 0.1; done\n\
         echo same token\n\
         {}kill $example\n",
        load.replace(SECONDS.0, SECONDS.1)
    );
    let mut command = Command::new("timeout");
    command.args(["120", "unshare"]).args(ISOLATION).args(["bash", "-c", &script]);
    // Servers refuse the variables that tests are configured with.
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).current_dir(&folder).stdin(Stdio::null());
    let output = command.output().expect("a shell");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("same token\n"), "{text}\n{script}");
    let seconds: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let seconds = seconds.iter().filter(|words| words.len() >= 6 && words[3] == "s");
    let seconds: Vec<_> = seconds.collect();
    assert_eq!(seconds.len(), 12, "{text}");
    assert!(seconds.iter().all(|words| words[4] == "0" && words[5] == "0"), "{text}");
    assert!(text.contains(" led and was killed"), "{text}");
}
