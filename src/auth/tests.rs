//! Rules, users and the table of users, without commands and connections.

use super::*;
use crate::domain::Timestamp;

fn catalog() -> &'static Catalog {
    let commands = [
        ("get", vec!["@read", "@fast"]),
        ("set", vec!["@write"]),
        ("keys", vec!["@read", "@dangerous"]),
        ("client", vec![]),
        ("client|id", vec!["@connection"]),
        ("client|kill", vec!["@connection", "@dangerous"]),
        ("publish", vec!["@pubsub"]),
    ];
    let categories = ["@read", "@write", "@fast", "@dangerous", "@connection", "@pubsub"];
    Box::leak(Box::new(Catalog::new(commands, categories)))
}

fn user(rules: &str) -> User {
    let catalog = catalog();
    let mut user = User::new(b"alice").unwrap();
    let rules = join_selectors(rules.split_whitespace().map(str::as_bytes)).unwrap();
    user.apply_all(catalog, rules.iter().map(Vec::as_slice)).unwrap_or_else(|error| panic!("{error:?}"));
    user
}

fn line(rules: &str) -> String {
    String::from_utf8(user(rules).line()).unwrap()
}

fn check(
    user: &User,
    command: &str,
    keys: &[(&str, KeyRights)],
    channels: &[(&str, bool)],
) -> Result<(), Denied> {
    user.check(catalog().find(command).unwrap(), &Request { keys, channels })
}

struct Request<'a> {
    keys: &'a [(&'a str, KeyRights)],
    channels: &'a [(&'a str, bool)],
}

impl Uses for Request<'_> {
    fn visit_keys(&self, visit: &mut dyn FnMut(&[u8], KeyRights)) {
        self.keys.iter().for_each(|(key, access)| visit(key.as_bytes(), *access));
    }

    fn visit_channels(&self, visit: &mut dyn FnMut(&[u8], bool)) {
        self.channels.iter().for_each(|(channel, is_pattern)| visit(channel.as_bytes(), *is_pattern));
    }
}

#[test]
fn a_user_is_described_as_redis_does() {
    let hash = "30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4";
    for (rules, expected) in [
        ("", "off resetchannels -@all"),
        ("on nopass ~* &* +@all", "on nopass ~* &* +@all"),
        ("ON NOPASS ALLKEYS allchannels allcommands", "on nopass ~* &* +@all"),
        ("on nopass >pw", &format!("on #{hash} resetchannels -@all")),
        ("on >pw >pw", &format!("on #{hash} resetchannels -@all")),
        (&format!("#{hash} <pw"), "off resetchannels -@all"),
        (&format!(">pw !{hash}"), "off resetchannels -@all"),
        (">pw resetpass", "off resetchannels -@all"),
        (">pw nopass", "off nopass resetchannels -@all"),
        ("~team:* %R~ro:* %w~wo:* %WR~both", "off ~team:* %R~ro:* %W~wo:* ~both resetchannels -@all"),
        ("%R~a %W~a", "off ~a resetchannels -@all"),
        ("~a ~a &c &c", "off ~a resetchannels &c -@all"),
        ("~a resetkeys &b resetchannels", "off resetchannels -@all"),
        ("+GET -Keys +@READ", "off resetchannels -@all +get -keys +@read"),
        ("+get -get +get", "off resetchannels -@all +get"),
        ("+client|id -client", "off resetchannels -@all -client"),
        ("+@all -@dangerous", "off resetchannels +@all -@dangerous"),
        ("+get +@all", "off resetchannels +@all"),
        ("+get nocommands", "off resetchannels -@all"),
        ("+get (+set ~x:* &y)", "off resetchannels -@all +get (~x:* resetchannels &y -@all +set)"),
        ("+get (+set) clearselectors", "off resetchannels -@all +get"),
        ("on nopass ~* (+set) reset", "off resetchannels -@all"),
        ("on sanitize-payload", "on resetchannels -@all"),
    ] {
        assert_eq!(line(rules), format!("user alice {expected}"), "{rules}");
    }
}

#[test]
fn a_described_user_is_read_back() {
    for rules in [
        "on >a >b ~team:* %R~ro:* &c +@read -keys +client|id (+set %W~x &y)",
        "off nopass allkeys allchannels +@all -@dangerous (allkeys +get) ()",
    ] {
        let text = line(rules);
        let read = parse_users(catalog(), &text).unwrap();
        assert_eq!(String::from_utf8(read[0].line()).unwrap(), text);
    }
}

#[test]
fn a_rule_that_is_not_valid_is_refused_with_the_reason() {
    for (rule, expected) in [
        ("foo", RuleError::Syntax),
        ("+nosuch", RuleError::Unknown),
        ("+@nosuch", RuleError::Unknown),
        ("-@", RuleError::Unknown),
        ("+", RuleError::Unknown),
        ("+client|nosuch", RuleError::Unknown),
        ("-get|x", RuleError::Unknown),
        ("+get|x", RuleError::FirstArgument),
        ("+client|id|x", RuleError::SubcommandArgument),
        ("#12", RuleError::Hash),
        ("#30C952FAB122C3F9759F02A6D95C3758B246B4FEE239957B2D4FEE46E26170C4", RuleError::Hash),
        ("!x", RuleError::Hash),
        ("<x", RuleError::NoSuchPassword),
        ("%X~a", RuleError::Syntax),
        ("%RR~a", RuleError::Syntax),
        ("%~a", RuleError::Syntax),
        ("%R", RuleError::Syntax),
        ("~a b", RuleError::Syntax),
        ("(+get on)", RuleError::Syntax),
        ("(", RuleError::Syntax),
        ("skip-sanitize-payload", RuleError::Unsupported),
    ] {
        let found = User::new(b"a").unwrap().apply(catalog(), rule.as_bytes());
        assert_eq!(found, Err(expected), "{rule}");
    }
    let too_long = format!("~{}", "a".repeat(1025));
    let found = User::new(b"a").unwrap().apply(catalog(), too_long.as_bytes());
    assert_eq!(found, Err(RuleError::PatternTooLong));
    let mut everything = user("allkeys allchannels");
    assert_eq!(everything.apply(catalog(), b"~a"), Err(RuleError::AfterAllKeys));
    assert_eq!(everything.apply(catalog(), b"%R~a"), Err(RuleError::AfterAllKeys));
    // Every key by other rules, too, or the line could not be read.
    assert_eq!(line("%R~* ~c %W~*"), line("~*"));
    assert_eq!(line("~c %RW~*"), line("~*"));
    assert_eq!(everything.apply(catalog(), b"&a"), Err(RuleError::AfterAllChannels));
}

#[test]
fn an_unclosed_parenthesis_is_found() {
    let join = |text: &str| join_selectors(text.split(' ').map(str::as_bytes));
    assert_eq!(join("on (+get ~a) off"), Ok(vec![b"on".to_vec(), b"(+get ~a)".to_vec(), b"off".to_vec()]));
    assert_eq!(join("on (+get ~a"), Err(b"(+get".to_vec()));
    assert_eq!(join("("), Err(b"(".to_vec()));
}

#[test]
fn a_selector_allows_its_commands_on_its_keys_and_channels() {
    let alice = user("+get +publish ~team:* %W~out:* &news.* (+set ~own:*)");
    let key = |key| vec![(key, KeyRights::READ)];
    assert_eq!(check(&alice, "get", &key("team:a"), &[]), Ok(()));
    assert_eq!(check(&alice, "get", &key("out:a"), &[]), Err(Denied::Key(b"out:a".to_vec())));
    assert_eq!(check(&alice, "get", &key("own:a"), &[]), Err(Denied::Key(b"own:a".to_vec())));
    assert_eq!(check(&alice, "set", &[("own:a", KeyRights::BOTH)], &[]), Ok(()));
    assert_eq!(
        check(&alice, "set", &[("team:a", KeyRights::BOTH)], &[]),
        Err(Denied::Key(b"team:a".to_vec()))
    );
    assert_eq!(check(&alice, "keys", &[], &[]), Err(Denied::Command));
    assert_eq!(check(&alice, "publish", &[], &[("news.a", false)]), Ok(()));
    assert_eq!(check(&alice, "publish", &[], &[("a", false)]), Err(Denied::Channel(b"a".to_vec())));
    assert_eq!(check(&alice, "publish", &[], &[("news.*", true)]), Ok(()));
    assert_eq!(check(&alice, "publish", &[], &[("news.a", true)]), Err(Denied::Channel(b"news.a".to_vec())));
    assert!(alice.may_read(b"team:a") && alice.may_read(b"own:a") && !alice.may_read(b"out:a"));
    assert!(alice.may_hear(b"news.a", Some(b"team:a")) && !alice.may_hear(b"news.a", Some(b"x")));
    assert!(!alice.allows_everything() && user("allkeys allchannels +@all").allows_everything());
    assert!(!user("allkeys allchannels +@all -get").allows_everything());
    assert!(!user("allkeys +@all").allows_everything());
}

#[test]
fn patterns_with_different_rights_add_up() {
    let alice = user("+get %R~a* %W~*b");
    assert_eq!(check(&alice, "get", &[("ab", KeyRights::BOTH)], &[]), Ok(()));
    assert!(check(&alice, "get", &[("a", KeyRights::BOTH)], &[]).is_err());
}

#[test]
fn a_container_stands_for_its_subcommands() {
    let may = |rules: &str, command: &str| user(rules).may_run(catalog().find(command).unwrap());
    assert!(may("+client", "client|kill") && may("+client", "client"));
    assert!(!may("+client -client|kill", "client|kill") && may("+client -client|kill", "client|id"));
    assert!(may("+client|id", "client|id") && !may("+client|id", "client"));
    assert!(may("+@all -@dangerous", "client|id") && !may("+@all -@dangerous", "client|kill"));
}

#[test]
fn a_file_with_an_error_is_refused_with_line_and_reason() {
    let users = parse_users(catalog(), "# people\n\nuser a on >x +get\n  user b off\n").unwrap();
    assert_eq!(users.iter().map(|user| &**user.name()).collect::<Vec<_>>(), ["a", "b"]);
    for (text, expected) in [
        ("user a on\nalice on", "line 2: should start with the word 'user'"),
        ("user", "line 1: the name of the user is missing"),
        ("\nuser a\u{1}b on", "line 2: the name of the user is not valid"),
        ("user a +nosuch", "line 1: rule '+nosuch': Unknown command or category name in ACL"),
        ("user a (>secret", "line 1: a selector has no closing parenthesis"),
        ("user a (~k >secret)", "line 1: rule 1 of user 'a': Syntax error"),
        ("user a on secret", "line 1: rule 2 of user 'a': Syntax error"),
        ("user a on\nuser a off", "line 2: user 'a' is defined twice"),
        ("user a <secret", "line 1: rule 1 of user 'a': The password you are trying to remove"),
        ("user a #secret", "line 1: rule 1 of user 'a': The password hash must be"),
    ] {
        let error = parse_users(catalog(), text).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_password_at_the_end_of_a_line_keeps_all_of_its_characters() {
    for end in ["\u{a0}", "\u{3000}", "\u{b}"] {
        let password = format!("secret{end}");
        for behind in ["", " ", "\t", "\r"] {
            let users = parse_users(catalog(), &format!("user a on >{password}{behind}\n")).unwrap();
            assert!(users[0].has_password(&PasswordHash::of(password.as_bytes())), "{end:?} {behind:?}");
        }
    }
}

#[test]
fn only_the_password_of_a_user_that_is_on_authenticates() {
    let users = Users::open(catalog());
    assert!(users.authenticate(b"default", b"anything").is_some());
    users.set(b"alice", [&b"on"[..], b">one", b">two"]).unwrap();
    users.set(b"bob", [&b"on"[..], b">one"]).unwrap();
    for (name, password, expected) in [
        ("alice", "one", true),
        ("alice", "two", true),
        ("alice", "three", false),
        ("alice", "", false),
        ("nosuch", "one", false),
    ] {
        let found = users.authenticate(name.as_bytes(), password.as_bytes());
        assert_eq!(found.is_some(), expected, "{name} {password}");
    }
    assert_eq!(users.with_password(b"two").map(|user| user.name().to_string()).as_deref(), Some("alice"));
    assert!(users.with_password(b"one").is_none(), "two users have it");
    assert!(users.with_password(b"three").is_none());
    users.set(b"alice", [&b"off"[..]]).unwrap();
    assert!(users.authenticate(b"alice", b"two").is_none() && users.with_password(b"two").is_none());
}

#[test]
fn a_change_names_the_users_whose_connections_it_affects() {
    let names = |names: &[std::sync::Arc<str>]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let users = Users::open(catalog());
    let before = users.generation();
    users.set(b"alice", [&b"on"[..], b"&news", b"~a"]).unwrap();
    assert_ne!(users.generation(), before);
    let alice = users.find(b"alice").unwrap();
    let added = users.set(b"alice", [&b"&more"[..], b"~b"]).unwrap();
    assert!(added.gone.is_empty() && added.reduced.is_empty());
    assert!(!users.current(&alice).unwrap().may_hear(b"other", None));
    assert_eq!(names(&users.set(b"alice", [&b"resetkeys"[..]]).unwrap().reduced), ["alice"]);
    let before = users.generation();
    assert_eq!(users.set(b"alice", [&b"off"[..], b"nosuch"]).unwrap_err().unwrap().0, RuleError::Syntax);
    assert!(users.generation() == before && users.current(&alice).is_some(), "nothing has changed");
    assert_eq!(names(&users.set(b"alice", [&b"off"[..]]).unwrap().gone), ["alice"]);
    assert!(users.current(&alice).is_none());
    let (deleted, _) = users.delete([&b"alice"[..], b"nosuch", b"default"].into_iter());
    assert_eq!(deleted, 1);
    users.set(b"alice", [&b"on"[..]]).unwrap();
    assert!(users.current(&alice).is_none(), "another user of the same name");
}

#[test]
fn a_saved_file_gives_the_same_users() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    let path = path.to_str().unwrap();
    let users = Users::open(catalog());
    users.set(b"alice", [&b"on"[..], b">pw", b"~a", b"+get"]).unwrap();
    users.save(path).unwrap();
    let lines = |users: &Users| users.all().iter().map(|user| user.line()).collect::<Vec<_>>();
    let before = lines(&users);
    users.set(b"bob", [&b"on"[..]]).unwrap();
    let changed = users.load(path).unwrap();
    assert_eq!((lines(&users), changed.gone.len()), (before.clone(), 1));
    std::fs::write(path, "user alice on\nuser bob nosuch\n").unwrap();
    assert!(users.load(path).unwrap_err().contains("line 2: rule 1 of user 'bob': Syntax error"));
    assert_eq!(lines(&users), before);
}

#[test]
fn the_log_of_refusals_is_bounded_and_groups_them() {
    let log = DenialLog::default();
    let denial = |object: &str, millis: u64| Denial {
        count: 1,
        reason: DenialReason::Key,
        context: DenialContext::TopLevel,
        object: object.as_bytes().to_vec(),
        user: "alice".into(),
        at: Timestamp::default().after(crate::domain::Ttl::from_millis(millis).ok()),
        client: String::new(),
    };
    log.add(denial("a", 1));
    log.add(denial("b", 1));
    log.add(denial("a", 2));
    let newest = log.newest(10);
    let found: Vec<_> = newest.iter().map(|entry| (&entry.object[..], entry.count)).collect();
    assert_eq!(found, [(&b"a"[..], 2), (b"b", 1)]);
    log.add(denial("a", 100_000));
    assert_eq!((log.newest(10).len(), log.newest(1)[0].count), (3, 1), "after a minute");
    (0..200).for_each(|n| log.add(denial(&n.to_string(), 100_000)));
    assert_eq!(log.newest(1000).len(), 128);
    log.reset();
    assert!(log.newest(1).is_empty());
}
