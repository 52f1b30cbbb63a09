//! What is accepted, what is refused, and with which message.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::auth::Secret;

fn refusal(flags: &[&str]) -> String {
    Config::with(flags).expect_err("refused").to_string()
}

#[test]
fn the_defaults_are_sound_and_the_table_makes_a_command_line() {
    sources::command().debug_assert();
    let config = Config::with(&[]).unwrap();
    let listen: Vec<String> = config.listen.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(listen, ["127.0.0.1:7379", "[::1]:7379"]);
    assert!(config.listen.iter().chain(&config.http).all(|listen| !listen.is_required));
    assert_eq!(config.durability, Durability::Always);
    assert_eq!(config.data, PathBuf::from("./octostore.db"));
    assert!(config.users.password.is_none());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.client_limits, ClientLimits::default());
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("octostore.toml");
    std::fs::write(&path, "locks-max = 5\nttl-ms-default = 7\nallow-no-password = true\n").unwrap();
    let path = path.to_str().unwrap();
    let config = Config::with(&["--config", path, "--locks-max", "6", "--listen", "0.0.0.0:1"]).unwrap();
    assert_eq!((config.locks_max, config.limits.ttl_ms_default), (6, 7));
}

#[test]
fn wrong_settings_are_named_with_their_source() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join(format!("{}.toml", text.len()));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for (flags, part) in [
        (vec!["--locks-max", "0"], "--locks-max (from the command line): \"0\" is not a number from 1 to"),
        (vec!["--locks-max", "many"], "\"many\" is not a number"),
        (vec!["--durability", "perhaps"], "is not always, interval or memory"),
        (vec!["--listen", "nonsense"], "is not an address and port"),
        (vec!["--listen", "7379"], "is not an address and port"),
        (vec!["--listen", "localhost:100000"], "is not an address and port"),
        (vec!["--listen", "nohost.invalid:7379"], "the host name \"nohost.invalid\" cannot be resolved"),
        (vec!["--listen", "0.0.0.0:7379"], "no password is set"),
        (vec!["--arg-bytes-max", "1000000", "--request-bytes-max", "999999"], "--request-bytes-max"),
        (vec!["--requirepass-file", "/nonexistent/file"], "cannot read /nonexistent/file"),
        (vec!["--requirepass-file", "x", "--requirepass", "y"], "use only one of them"),
        (vec!["--log", "loud"], "\"loud\" is not error, warn"),
        (vec!["--config", "/nonexistent/file"], "cannot read"),
        (vec!["--config", &file("locks_max = 1")], "did you mean locks-max?"),
        (vec!["--config", &file("colour = 1")], "unknown setting \"colour\""),
        (vec!["--config", &file("locks-max = [1]")], "locks-max must be a string or a number, not array"),
        (vec!["--config", &file("= 1")], "is not TOML in line 1"),
        (vec!["--config", &file("# Redis\nport 6379\n")], "is not TOML in line 2"),
        (vec!["--config", &file("requirepass s3cret\n")], "(redis.conf is not supported)"),
    ] {
        let text = refusal(&flags);
        assert!(text.contains(part), "{flags:?}: {text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn an_empty_setting_is_refused() {
    for option in OPTIONS {
        let text = refusal(&[&format!("--{}=", option.name)]);
        let expected = format!("--{} (from the command line): is empty; set a value", option.name);
        assert!(text.contains(&expected), "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("octostore.toml");
    std::fs::write(&path, "requirepass = \"\"\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = path.to_str().unwrap();
    assert!(refusal(&["--config", path]).contains("is empty"));
}

#[test]
fn a_configuration_file_with_secrets_must_be_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("octostore.toml");
    let config = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Config::with(&["--config", path.to_str().unwrap()])
    };
    assert!(config("threads = 2\n", 0o644).is_ok());
    assert!(config("requirepass = \"s3cret\"\n", 0o600).is_ok());
    let refused = config("requirepass = \"s3cret\"\n", 0o644).unwrap_err().to_string();
    assert!(refused.contains("with requirepass") && refused.contains("chmod 600"), "{refused}");
    assert!(!refused.contains("s3cret"));
}

#[test]
fn users_that_contradict_each_other_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    for (users, expected) in [
        ("alice:t\nbob:t\n", "alice and bob have the same token"),
        ("alice:t\nalice:t\n", "the token of alice is given twice"),
        ("alice:t team\nalice:u other\n", "alice has two namespaces"),
    ] {
        std::fs::write(&path, users).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = refusal(&["--http-tokens", path.to_str().unwrap()]);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn several_addresses_are_listened_on() {
    let listen = |text: &str| Config::with(&["--listen", text]).map(|config| config.listen);
    let required = |text: &str| ListenAddress { address: text.parse().unwrap(), is_required: true };
    let both = listen("127.0.0.1:1, [::1]:2").unwrap();
    assert_eq!(both, [required("127.0.0.1:1"), required("[::1]:2")]);
    let repeated = Config::with(&["--listen", "127.0.0.1:1", "--listen=[::1]:2"]).unwrap();
    assert_eq!(repeated.listen, [required("[::1]:2")], "the last flag counts");
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("octostore.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let array = file("listen = [\"127.0.0.1:1\", \"[::1]:2\"]\n");
    assert_eq!(Config::with(&["--config", &array]).unwrap().listen, both);
    assert!(
        refusal(&["--config", &file("listen = [1]\n")])
            .contains("the array listen must contain only strings")
    );
    assert!(refusal(&["--config", &file("listen = []\n")]).contains("is empty"));
    let named = listen("localhost:1").unwrap();
    assert!(!named.is_empty() && named.iter().all(|listen| !listen.is_required), "{named:?}");
    for (text, part) in [
        ("127.0.0.1:1,127.0.0.1:1", "127.0.0.1:1 is given twice"),
        ("127.0.0.1:1,", "\"\" is not an address and port"),
        ("127.0.0.1:1 [::1]:1", "is not an address and port"),
        ("127.0.0.1:1,192.0.2.1:1", "192.0.2.1:1 is not a loopback address"),
    ] {
        let refused = listen(text).unwrap_err().to_string();
        assert!(refused.contains(part), "{text}: {refused}");
    }
    assert!(refusal(&["--http", "127.0.0.1:1,0.0.0.0:1"]).contains("0.0.0.0:1 is not a loopback address"));
    assert!(Config::with(&["--http", "off"]).unwrap().http.is_empty());
}

#[test]
fn options_of_redis_lead_to_those_of_octostore() {
    for (flags, part) in [
        (vec!["--port", "6379"], "unknown option --port: use --listen ADDR:PORT"),
        (vec!["--port=6379"], "use --listen ADDR:PORT"),
        (vec!["-p", "6379"], "use --listen ADDR:PORT"),
        (vec!["--bind", "127.0.0.1"], "use --listen ADDR:PORT"),
        (vec!["--dir", "/data"], "use --data FILE"),
        (vec!["--appendonly", "yes"], "use --durability MODE"),
        (vec!["--protected-mode", "no"], "use --allow-no-password"),
        (vec!["--databases", "4"], "there are always 16 databases"),
        (vec!["--daemonize", "yes"], "it runs in the foreground"),
        (vec!["/etc/redis/redis.conf"], "is not an option; settings are flags"),
        (vec!["frobnicate"], "octostore --help lists the subcommands"),
        (vec!["lock"], "unknown subcommand \"lock\": did you mean octostore locks?"),
        (vec!["--data", "file", "locks"], "the subcommand comes first: octostore locks"),
        (vec!["--listne", "127.0.0.1:1"], "unknown option --listne: did you mean --listen?"),
        (vec!["--db", "1"], "unknown option --db: see octostore --help"),
        (vec!["-v"], "unknown option -v: see octostore --help"),
        (vec!["--listen"], "a value is required for '--listen"),
    ] {
        let text = refusal(&flags);
        assert!(text.contains(part), "{flags:?}: {text}");
    }
    // What is the value of another flag is no option.
    let config = Config::with(&["--requirepass", "--port"]).unwrap();
    assert_eq!(config.users.password, Secret::new("--port"));
}

#[test]
fn an_unknown_variable_is_refused_unless_it_is_for_other_programs() {
    let check = |name: &str, value: &str| {
        refuse_unknown_variables([(name.into(), value.into())].into_iter()).map_err(|error| error.to_string())
    };
    for (name, part) in [
        ("OCTOSTORE_REQUIREPAS", "did you mean OCTOSTORE_REQUIREPASS?"),
        ("OCTOSTORE_PASSWORD", "use OCTOSTORE_REQUIREPASS_FILE FILE"),
        ("OCTOSTORE_CONFG", "did you mean OCTOSTORE_CONFIG?"),
        ("OCTOSTORE_locks_max", "did you mean OCTOSTORE_LOCKS_MAX?"),
        ("OCTOSTORE_PORT", "use OCTOSTORE_LISTEN ADDR:PORT"),
        ("OCTOSTORE_COLOUR", "see octostore --help"),
        ("OCTOSTORE_", "see octostore --help"),
    ] {
        let refused = check(name, "6379").unwrap_err();
        assert!(refused.contains(name) && refused.contains(part), "{refused}");
        assert!(!refused.contains("6379"), "a value may be a secret: {refused}");
    }
    for (name, value) in [
        ("OCTOSTORE_LOCKS_MAX", "1"),
        ("OCTOSTORE_CONFIG", "file"),
        ("OCTOSTORE_URL", "redis://localhost:7379"),
        ("PATH", "/bin"),
        ("MY_OCTOSTORE_LOCK", "1"),
        // Kubernetes beside services called octostore and octostore-http.
        ("OCTOSTORE_SERVICE_HOST", "10.0.0.1"),
        ("OCTOSTORE_SERVICE_PORT_REDIS", "7379"),
        ("OCTOSTORE_PORT", "tcp://10.0.0.1:7379"),
        ("OCTOSTORE_PORT_7379_TCP_ADDR", "10.0.0.1"),
        ("OCTOSTORE_HTTP_SERVICE_PORT", "7380"),
        ("OCTOSTORE_HTTP_PORT_7380_TCP", "tcp://10.0.0.1:7380"),
    ] {
        assert_eq!(check(name, value), Ok(()), "{name}");
    }
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (password, key) = (file("password", "swordfish\n"), file("key", "opensesame"));
    let (tokens, toml) = (file("tokens", "alice:token\n"), file("toml", "locks-max = 5\n"));
    let config = Config::with(&[
        "--config",
        &toml,
        "--requirepass-file",
        &password,
        "--http-admin-key-file",
        &key,
        "--http-tokens",
        &tokens,
    ])
    .unwrap();
    assert_eq!((config.locks_max, config.users.password), (5, Secret::new("swordfish")));
    assert_eq!(
        (config.users.tokens[0].name.as_str(), config.http_config.access.admin_key),
        ("alice", Secret::new("opensesame"))
    );
    assert!(refusal(&["--requirepass-file", &file("empty", "\n")]).contains("is empty"));
}

#[test]
fn a_namespace_must_be_able_to_begin_a_lock_name() {
    for good in ["team", "team/a", "1"] {
        assert!(Config::with(&["--http-token", &format!("alice:t {good}")]).is_ok(), "{good}");
    }
    for bad in ["a:b", "/a", "a//b", &"a".repeat(63)] {
        let text = refusal(&["--http-token", &format!("alice:t {bad}")]);
        assert!(text.contains("has a namespace that cannot begin"), "{text}");
    }
}

#[test]
fn limits_hold_at_the_boundary_and_one_past_it() {
    assert!(Config::with(&["--key-bytes-max", "65534"]).is_ok());
    assert!(Config::with(&["--key-bytes-max", "65535"]).is_err());
    assert!(Config::with(&["--ttl-ms-default", &LOCK_TTL_MS_MAX.to_string()]).is_ok());
    assert!(Config::with(&["--ttl-ms-default", &(LOCK_TTL_MS_MAX + 1).to_string()]).is_err());
}

#[test]
fn debug_output_has_no_secret() {
    let config = Config::with(&["--requirepass", "swordfish"]).unwrap();
    assert!(!format!("{config:?}").contains("swordfish"));
}
