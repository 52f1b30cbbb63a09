//! Suggestions for unknown settings.
//!
//! Guarantees: the options of Redis that its users type by habit lead to the setting that replaces
//! them, or to the reason why there is none; anything else leads to the setting with the most
//! similar name. Not here: values.

use super::OPTIONS;

/// What octostore has in place of an option of Redis.
enum Instead {
    /// The setting of this name.
    Setting(&'static str),
    /// No setting, for this reason.
    Nothing(&'static str),
}

use Instead::{Nothing, Setting};

/// Options of Redis, by purpose.
const REDIS: &[(&[&str], Instead)] = &[
    (&["port", "bind", "host", "p"], Setting("listen")),
    (&["dir", "dbfilename", "appendfilename", "appenddirname"], Setting("data")),
    (&["appendonly", "appendfsync", "save"], Setting("durability")),
    (&["maxclients"], Setting("connections-max")),
    (&["timeout"], Setting("idle-timeout-s")),
    (&["loglevel", "verbose"], Setting("log")),
    (&["protected-mode"], Setting("allow-no-password")),
    (&["password", "pass", "masterauth"], Setting("requirepass-file")),
    (&["user", "aclfile"], Setting("users")),
    (&["maxmemory", "maxmemory-policy"], Setting("values-bytes-max")),
    (&["io-threads"], Setting("threads")),
    (&["client-output-buffer-limit"], Setting("subscriber-bytes-max")),
    (&["client-query-buffer-limit"], Setting("request-bytes-max")),
    (&["proto-max-bulk-len"], Setting("arg-bytes-max")),
    (&["databases"], Nothing("there are always 16 databases")),
    (&["daemonize", "supervised", "pidfile"], Nothing("it runs in the foreground; use a supervisor")),
    (&["logfile", "syslog-enabled"], Nothing("it logs to stderr")),
    (&["tls-port", "tls"], Setting("tls-listen")),
    (&["tls-cert-file"], Setting("tls-cert")),
    (&["tls-key-file"], Setting("tls-key")),
    (&["tls-ca-cert-file", "tls-ca-cert-dir"], Setting("tls-client-ca")),
    (&["tls-auth-clients"], Setting("tls-client-auth")),
    (&["tls-protocols", "tls-ciphers", "tls-ciphersuites"], Nothing("TLS 1.2 and 1.3 are always on")),
    (&["cluster-enabled", "cluster-config-file"], Setting("shard")),
    (&["replicaof", "slaveof"], Setting("store")),
    (&["sentinel"], Setting("sentinel-listen")),
    (&["unixsocket", "unixsocketperm"], Nothing("only TCP is supported, see --listen")),
    (&["tcp-keepalive", "tcp-backlog"], Nothing("the server chooses this itself")),
    (&["include"], Nothing("only one file is supported, see --config")),
    (&["loadmodule", "rename-command"], Nothing("the set of commands is fixed")),
];

/// How the name of a setting is written where the wrong one was found.
pub(super) enum Form {
    Flag,
    Variable,
    Key,
}

impl Form {
    fn of(&self, name: &str) -> String {
        match self {
            Form::Flag => format!("--{name}"),
            Form::Variable => format!("OCTOSTORE_{}", name.to_ascii_uppercase().replace('-', "_")),
            Form::Key => name.to_owned(),
        }
    }
}

/// The setting to use instead of `wrong`, as the rest of a sentence.
pub(super) fn hint(wrong: &str, form: &Form) -> String {
    let wrong = wrong.to_ascii_lowercase().replace('_', "-");
    if let Some(hint) = redis_hint(&wrong, form) {
        return hint;
    }
    match nearest(&wrong, OPTIONS.iter().map(|option| option.name).chain(["config"])) {
        Some(name) => format!("did you mean {}?", form.of(name)),
        None => "see octostore --help".to_owned(),
    }
}

/// The same for options of Redis only.
fn redis_hint(name: &str, form: &Form) -> Option<String> {
    let (_, instead) = REDIS.iter().find(|(names, _)| names.contains(&name))?;
    Some(match instead {
        Nothing(reason) => reason.to_string(),
        Setting(setting) => {
            let value =
                OPTIONS.iter().find(|option| option.name == *setting).map_or("", |option| option.value);
            let form = form.of(setting);
            format!("use {form} {value}").trim_end().to_owned()
        }
    })
}

/// The name with the smallest edit distance, if it is small.
pub(super) fn nearest(wrong: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let (distance, name) = names.map(|name| (distance(wrong, name), name)).min()?;
    (distance <= name.len() / 3).then_some(name)
}

/// Letters to insert, remove or replace until `a` is `b`.
fn distance(a: &str, b: &str) -> usize {
    // Names are short; longer input is similar to none.
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hint_leads_to_a_setting_that_exists() {
        let is_own = |name: &str| OPTIONS.iter().any(|option| option.name == name);
        for (names, instead) in REDIS {
            for name in *names {
                assert!(!is_own(name), "--{name} exists");
            }
            if let Setting(setting) = instead {
                assert!(is_own(setting), "there is no --{setting}");
            }
        }
    }

    #[test]
    fn similar_names_are_found_and_others_are_not() {
        for (a, b, letters) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("listen", "lisen", 1), ("abc", "axd", 2)]
        {
            assert_eq!(distance(a, b), letters, "{a:?} {b:?}");
        }
        let nearest_option = |wrong: &str| nearest(wrong, OPTIONS.iter().map(|option| option.name));
        assert_eq!(nearest_option("requirepas"), Some("requirepass"));
        assert_eq!(nearest_option("lock-max"), Some("locks-max"));
        assert_eq!(nearest_option("colour"), None);
        assert_eq!(nearest_option(&"x".repeat(1 << 20)), None);
        assert_eq!(hint("REQUIREPASSS", &Form::Variable), "did you mean OCTOSTORE_REQUIREPASS?");
        assert_eq!(hint("port", &Form::Key), "use listen ADDR:PORT");
    }
}
