//! Comparisons with a real redis-server of what the same users file means.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::redis::Redis;
use crate::support::client::Client;
use crate::support::server::TestServer;

/// Users with every kind of rule.
const USERS: &str = "
user default on nopass ~* &* +@all
user switched_off off >pw ~* &* +@all
user hashed on #5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8 ~a:* +set +get
user two_passwords on >one >two ~* &* -@all +@read -get
user cleared on >pw ~* &* +@all resetpass resetkeys resetchannels nocommands >pw ~r:* +ping +getset
user wiped on >pw ~* &* +@all reset on >pw ~a:* +incr
user halves on >pw %R~in:* %W~out:* +@all
user both on >pw %RW~x:* %R~y:* %W~y:* +@all -@dangerous
user channels on >pw ~* resetchannels &news:* +@pubsub
user every_channel on >pw allchannels +publish +psubscribe
user subcommands on >pw ~* -@all +client|id +config|get +acl|whoami
user without_subcommand on >pw ~* +@all -client|kill -config
user writer on >pw allkeys allcommands -@read -@admin
user selectors on >pw ~base:* +get (~sel:* +set) (%R~in:* +@read &news:*)
user removed on >pw <pw >kept ~a:* +@string
user without_password on nopass ~np:* +get
user patterns on >pw ~a? ~[b-d] ~e\\* +get";

/// Requests that are tried as each user.
const REQUESTS: &str = "get a:1|get a1|get b|get e*|get ef|set a:1 v|get base:1|set base:1 v|get sel:1|set sel:1 v
    get in:1|get out:1|set out:1 v|set out:1 v get|set in:1 v|mget in:a in:b|mget in:a out:a|copy in:a out:b
    copy out:b in:a|rename in:a out:b|del out:a|del in:a|exists in:a|exists out:a|append x:1 v|incr x:1|get y:1
    getset r:1 v|getset y:1 v|incr a:1|get np:1|hget in:h f|hset out:h f v|hincrby out:h f 1|sadd out:s m
    sinterstore out:d in:a in:b|sinterstore in:d in:a in:b|zadd out:z 1 m|zrangestore out:d in:s 0 1|zscore out:z m
    lpush out:l v|lpop out:l|lmove in:a out:b left right|blpop in:l 0|object encoding in:a|ttl out:a|expire out:a 1
    type in:a|keys *|scan 0|dbsize|flushall|publish news:1 m|publish other m|subscribe news:1|subscribe other
    psubscribe news:*|psubscribe news:1|psubscribe *|ping|echo x|client id|client kill id 1|client list|config get x
    config set x y|acl whoami|acl list|acl setuser x|eval s 0|eval s 1 in:a|eval s 1 out:a|multi|exec|watch in:a
    watch out:a|info|monitor|save|command count|select 1";

/// Requests that are refused although Redis allows them: what needs every key, and what tells that a
/// key exists.
const STRICTER: [&str; 4] = ["exists out:a", "flushall", "watch out:a", "monitor"];

/// As octostore demands of such a file.
fn make_private(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("a file");
}

fn names() -> impl Iterator<Item = &'static str> {
    USERS.lines().filter_map(|line| line.split(' ').nth(1))
}

/// What both say about all users, and how they answer: the texts of refusals depend on the version.
fn meaning(client: &mut Client) -> Vec<String> {
    // Redis 7.0 has names of commands in an order that is random.
    let sorted = |text: &str| {
        let mut words: Vec<&str> = text.split([' ', '"', '\n']).collect();
        words.sort_unstable();
        words.join(" ")
    };
    // It shows the opposite of `skip-sanitize-payload` for a user that was reset.
    let list = client.line("ACL LIST").replace(" sanitize-payload", "");
    let mut all: Vec<String> = list.lines().map(sorted).collect();
    let shown = names().filter(|name| *name != "wiped");
    all.extend(shown.map(|name| sorted(&client.line(&format!("ACL GETUSER {name}")))));
    for name in names() {
        for request in REQUESTS.split(['|', '\n']).map(str::trim) {
            let reply = client.line(&format!("ACL DRYRUN {name} {request}"));
            all.push(format!("{name}: {request}: {}", reply.starts_with("+OK")));
        }
        for password in ["pw", "password", "one", "two", "kept", "wrong"] {
            let reply = client.line(&format!("AUTH {name} {password}"));
            all.push(format!("{name}: {password}: {reply}"));
            assert_eq!(client.line("AUTH default any"), "+OK");
        }
    }
    all
}

#[test]
fn a_users_file_means_what_it_means_to_redis() {
    if Redis::is_missing() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
    let differing = |ours: &Path, theirs: &Path| {
        let (ours, theirs) = (ours.to_str().expect("text"), theirs.to_str().expect("text"));
        let (octostore, redis) =
            (TestServer::manual(&["--users", ours]), Redis::start(&["--aclfile", theirs]));
        let (mut octostore, mut redis) = (octostore.connect(), redis.control());
        let (found, expected) = (meaning(&mut octostore), meaning(&mut redis));
        for client in [&mut octostore, &mut redis] {
            assert_eq!(client.line("ACL SAVE"), "+OK");
        }
        let is_stricter = |expected: &str, found: &str| {
            let request = expected.strip_suffix(": true").and_then(|text| text.split_once(": "));
            found.ends_with(": false") && request.is_some_and(|(_, request)| STRICTER.contains(&request))
        };
        assert_eq!(expected.len(), found.len());
        let pairs = expected.iter().zip(&found);
        let pairs = pairs.filter(|(expected, found)| expected != found && !is_stricter(expected, found));
        pairs.map(|(expected, found)| format!("expected {expected}, got {found}")).collect::<Vec<_>>()
    };
    for path in [&ours, &theirs] {
        std::fs::write(path, USERS).expect("a file");
        make_private(path);
    }
    let first = differing(&ours, &theirs);
    assert!(first.is_empty(), "{}", first.join("\n"));
    // Each reads what the other has saved.
    make_private(&theirs);
    let swapped = differing(&theirs, &ours);
    assert!(swapped.is_empty(), "{}", swapped.join("\n"));
}
