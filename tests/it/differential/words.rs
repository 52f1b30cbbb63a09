//! Fills the holes of calls with random words.

use sha1::{Digest, Sha1};

use super::commands::Row;
use super::reply::Words;
use crate::support::random::Random;

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "10",
    "-7",
    "007",
    "+5",
    "-0",
    " 1",
    "1 ",
    "",
    "1.0",
    "1e2",
    "0x1",
    "abc",
    "nan",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999999",
];
const FLOATS: &[&str] = &[
    "0",
    "1",
    "-1",
    "1.5",
    "2.25",
    "-0.5",
    "3e2",
    "1e-3",
    "inf",
    "-inf",
    "+inf",
    "Infinity",
    "nan",
    "-nan",
    "-0",
    "1e400",
    "-1e400",
    "1e-400",
    "1e308",
    "1e17",
    "123456789.125",
    " 1",
    "1 ",
    "",
    "abc",
    "1e",
    ".5",
    "5.",
    "+2",
    "1_000",
    "0.1",
    "1e21",
    "1e-7",
];
/// Decimals, and words that are none.
const DECIMALS: &[&str] = &[
    "0.1",
    "1.1",
    "123456789.123456789",
    "1e-17",
    "7e-18",
    "1e20",
    "18446744073709551615",
    "1e400",
    "-1e4932",
    "1e4933",
    "1e-400",
    "1e-4952",
    "3.7e-4951",
    "0e99999999999999999999",
    "1e17",
    "0",
    "1",
    "-1",
    "1.5",
    "0.25",
    "-0.5",
    "3e2",
    "1e3",
    "inf",
    "-inf",
    "nan",
    "-0",
    " 1",
    "1 ",
    "",
    "abc",
    "1e",
    "5.",
    ".5",
    "+2",
];
const VALUES: &[&str] = &[
    "",
    "a",
    "hello",
    "10",
    "-1",
    "007",
    "3.5",
    "1e3",
    "inf",
    "9223372036854775807",
    "a\r\nb",
    "with space",
    "\u{e9}",
];
const MEMBERS: &[&str] = &["a", "b", "c", "d", "1", "2", "10", "-3", "", "B", "aa", "x y", "1.5"];
const GLOBS: &[&str] = &[
    "*", "v*", "?1", "[a-h]*", "[^v]1", "h[12]", "", "\\*", "v**1", "a", "[", "[a", "\\", "*1", "c?",
    "[z-a]1", "n*", "[\\v]*",
];
const CHANNELS: &[&str] = &["c1", "c2", "news", "c 3"];
const CURSORS: &[&str] = &[
    "0",
    "",
    "-1",
    "+0",
    "-",
    "abc",
    "1.5",
    " 0",
    "0 ",
    "18446744073709551615",
    "18446744073709551616",
    "-18446744073709551615",
];
const TTLS: &[&str] =
    &["0", "-1", "abc", "1.5", "", "9223372036854775807", "-9223372036854775808", "9223372036854775808"];
const COUNTS: &[&str] = &["1", "2", "3", "0", "-1", "-2", "100", "abc", "1.5", "", "9223372036854775808"];
const INDICES: &[&str] = &[
    "0",
    "1",
    "2",
    "-1",
    "-2",
    "3",
    "-100",
    "100",
    "abc",
    "1.5",
    "",
    "9223372036854775807",
    "-9223372036854775808",
];
const BOUNDS: &[&str] = &[
    "-inf", "+inf", "inf", "0", "1", "(1", "(-1", "2.25", "(inf", "(", "", "abc", "nan", "(1.5", "1e400",
    "((1",
];
const LEXES: &[&str] = &["-", "+", "[a", "(a", "[b", "(c", "[", "(", "a", "", "[aa", "-a", "++"];
/// Words in the place of another, or behind all: none is a number, which could be a short time.
const STRAYS: &[&str] =
    &["", "abc", "nan", "XX", "NX", "LIMIT", "WITHSCORES", "COUNT", "GET", "a\r\nb", "\u{1}", "MATCH", "inf"];

const SCRIPTS: &[&str] = &[
    "return redis.call('GET', KEYS[1])",
    "return redis.call('SET', KEYS[1], ARGV[1])",
    "return redis.pcall('INCRBY', KEYS[1], ARGV[2])",
    "return redis.call('HGET', KEYS[1], ARGV[1])",
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end",
    "redis.call('RPUSH', KEYS[1], unpack(ARGV)) return redis.call('LRANGE', KEYS[1], 0, -1)",
    "redis.setresp(3) return redis.call('ZADD', KEYS[1], 'INCR', ARGV[2], ARGV[1])",
    "return {redis.call('EXISTS', KEYS[1]), KEYS, ARGV, #KEYS}",
    "local r = redis.pcall('LPUSH', KEYS[1], 'x') if type(r) == 'table' then return r.err end return r",
    "redis.call('SADD', KEYS[1], ARGV[1]) return redis.call('SCARD', KEYS[1])",
    "return redis.call('SINTERSTORE', KEYS[1], KEYS[1], KEYS[2])",
    "return redis.call('BLPOP', KEYS[1], 0)",
    "return tonumber(redis.call('INCR', KEYS[1])) + 0.5",
    "return redis.call('RENAME', KEYS[1], KEYS[2])",
    "redis.call('SELECT', 1) return redis.call('EXISTS', KEYS[1])",
    "redis.call('SET', KEYS[1], 'before') return redis.call('HSET', KEYS[1])",
];
const LUA: &[&str] = &[
    "return 1",
    "return 1.9",
    "return -0.5",
    "return 'text'",
    "return true",
    "return false",
    "return nil",
    "return",
    "return {1, 2, nil, 4}",
    "return {1, {2, {3}}, 'a', false}",
    "return {ok='fine'}",
    "return {err='ERR bad'}",
    "return {err='bad'}",
    "return redis.error_reply('My Err')",
    "return redis.status_reply('S')",
    "return {double=1.5}",
    "redis.setresp(3) return {double=1.5}",
    "redis.setresp(3) return {map={a=1}}",
    "redis.setresp(3) return {set={a=true}}",
    "redis.setresp(3) return true",
    "return redis.call('nosuch')",
    "return redis.pcall('nosuch')",
    "return redis.call()",
    "return redis.call('GET')",
    "return redis.call('EVAL', 'return 1', 0)",
    "x = 1",
    "return x",
    "error('boom')",
    "error({err='ERR table'})",
    "return redis.sha1hex('a')",
    "return cjson.encode({1, 'a', true})",
    "return cjson.decode('[1, null, {\"a\": 2}]')[1]",
    "return tostring(1e15) .. tostring(0.1)",
    "return 'a' + 1",
    "syntax error",
    "return redis.call('SET', 'v1', 1.5)",
    "return redis.call('SET', 'v1', {})",
    "return bit.band(7, 3)",
    "return redis.call('PING')",
    "return redis.call('MULTI')",
    "return 2^53",
    "return 1e300",
    "return string.format('%.3f', 2/3)",
    "return redis.call('SUBSCRIBE', 'c')",
    "return #redis.call('KEYS', '*')",
    "#!lua flags=no-writes\nreturn redis.call('SET', 'v1', 'x')",
    "#!lua\nreturn 7",
    "#!js\nreturn 7",
    "#!lua flags=nosuch\nreturn 7",
];

/// Commands with a number that must not change: a time to wait for, or how many random elements go.
const FIXED: &[&str] =
    &["blpop", "brpop", "blmove", "brpoplpush", "blmpop", "bzpopmin", "bzpopmax", "bzmpop", "wait", "spop"];

/// A random request for this row. Some have a word too few, too many, or in a wrong place.
pub(super) fn call(random: &mut Random, row: &Row) -> Words {
    let Row(name, kind, _, calls) = row;
    let call = random.of(calls);
    let mut words = fill(random, *kind, call);
    if random.permille(80) && !FIXED.contains(name) {
        // The name stays, and the keys of ranges of names.
        let first = words.iter().rposition(|word| EVEN.contains(&&**word)).unwrap_or(0) + 1;
        let at = first + random.below((words.len() + 1 - first) as u64) as usize;
        let stray = random.of(STRAYS).as_bytes().to_vec();
        match random.below(4) {
            0 if at < words.len() => drop(words.remove(at)),
            1 if at < words.len() => words[at] = stray,
            2 => words.insert(at, stray),
            _ => words.truncate(at),
        }
    }
    words
}

/// Replaces the alternatives and the holes of a call for keys of this kind.
pub(super) fn fill(random: &mut Random, kind: char, call: &str) -> Words {
    let mut words = Words::new();
    for part in call.split_whitespace() {
        let chosen: Vec<&str> = match part.strip_prefix('[').and_then(|part| part.strip_suffix(']')) {
            Some(choices) => random.of(&choices.split('|').collect::<Vec<_>>()).split('_').collect(),
            None => vec![part],
        };
        for word in chosen.into_iter().filter(|word| !word.is_empty()) {
            match word.strip_prefix('$') {
                Some(hole) => words.extend(hole_words(random, kind, hole)),
                None => words.push(word.as_bytes().to_vec()),
            }
        }
    }
    if random.permille(100) {
        words[0].make_ascii_lowercase();
    }
    words
}

/// What stands in the place of a hole.
fn hole_words(random: &mut Random, kind: char, hole: &str) -> Words {
    let list = match hole {
        "k" => return vec![key(random, kind)],
        "even" => return vec![random.of(EVEN).to_vec()],
        "keys" => return several(random, |random| key(random, kind)),
        "members" => return several(random, member),
        "member" => return vec![member(random)],
        "counted" => return counted(random, kind),
        "combine" => return combine(random),
        "sha" => return vec![sha(random)],
        "v" if random.permille(30) => return vec![b"\0\xff\r\n".to_vec()],
        "v" if random.permille(20) => return vec![vec![b'y'; random.of(&[44, 45, 64, 65, 100, 5000])]],
        "ttl" | "millis" | "at" | "instant" if random.permille(800) => return vec![time(random, hole)],
        "integer" if random.permille(500) => return vec![random.below(20).to_string().into_bytes()],
        "score" if random.permille(500) => return vec![random.below(10).to_string().into_bytes()],
        "v" => VALUES,
        "integer" => INTEGERS,
        "decimal" => DECIMALS,
        "score" => FLOATS,
        "glob" => GLOBS,
        "channel" => CHANNELS,
        // The other words are times that only Redis can hold.
        "instant" => &TTLS[..5],
        "ttl" | "millis" | "at" => TTLS,
        "count" => COUNTS,
        "index" => INDICES,
        "offset" => &["0", "1", "5", "-1", "abc", "", "9223372036854775807"],
        "bound" => BOUNDS,
        "lex" => LEXES,
        "cursor" => CURSORS,
        "type" => &["string", "hash", "list", "set", "zset", "STRING", "stream", ""],
        "timeout" => &["0.001", "0.002", "-1", "abc", "nan", "-0.5", ""],
        "script" => SCRIPTS,
        "lua" => LUA,
        other => panic!("not a hole: {other}"),
    };
    vec![random.of(list).as_bytes().to_vec()]
}

fn key(random: &mut Random, kind: char) -> Vec<u8> {
    match random.below(100) {
        0 => Vec::new(),
        1 => b"\0\xff".to_vec(),
        2 => LONG_KEY.to_vec(),
        n => {
            let kind = if kind == '*' || n < 10 { random.of(&KINDS) } else { kind };
            format!("{kind}{}", 1 + random.below(3)).into_bytes()
        }
    }
}

/// Longer than the key of a lock.
const LONG_KEY: &[u8] = &[b'k'; 1500];

/// The kinds of keys: strings, hashes, lists, sets, sorted sets.
const KINDS: [char; 5] = ['v', 'h', 'l', 's', 'z'];

/// Keys of sorted sets whose members all have the score `inf`, the only one among the words in the
/// place of another: ranges of names are defined for them alone. No other command uses these keys.
const EVEN: &[&[u8]] = &[b"even1", b"even2"];

/// All keys that a sequence may use.
pub(super) fn keys() -> impl Iterator<Item = Vec<u8>> {
    let numbered = KINDS.iter().flat_map(|kind| (1..=3).map(move |n| format!("{kind}{n}").into_bytes()));
    let even = EVEN.iter().map(|key| key.to_vec());
    numbered.chain(even).chain([Vec::new(), b"\0\xff".to_vec(), LONG_KEY.to_vec()])
}

fn member(random: &mut Random) -> Vec<u8> {
    match random.below(50) {
        0 => b"\0\xff".to_vec(),
        1 => vec![b'm'; random.of(&[63, 64, 65, 100])],
        _ => random.of(MEMBERS).as_bytes().to_vec(),
    }
}

fn several(random: &mut Random, word: impl Fn(&mut Random) -> Vec<u8>) -> Words {
    (0..1 + random.below(4)).map(|_| word(random)).collect()
}

/// A request that adds enough elements to a value to make Redis store it in another way.
pub(super) fn filling(random: &mut Random, kind: char) -> Words {
    let count = random.of(&[100, 127, 128, 129, 511, 512, 513, 600]);
    let command = match kind {
        'h' => "HSET",
        's' => "SADD",
        'z' => "ZADD",
        _ => random.of(&["RPUSH", "LPUSH"]),
    };
    let prefix = random.of(&["", "m"]);
    let is_even = kind == 'z' && random.permille(300);
    let key = if is_even { random.of(EVEN).to_vec() } else { key(random, kind) };
    let mut words = vec![command.as_bytes().to_vec(), key];
    for n in 0..count {
        let element = format!("{prefix}{n}").into_bytes();
        match kind {
            'h' => words.extend([element, n.to_string().into_bytes()]),
            'z' if is_even => words.extend([b"inf".to_vec(), element]),
            'z' => words.extend([random.below(10).to_string().into_bytes(), element]),
            _ => words.push(element),
        }
    }
    words
}

/// A number of keys and the keys; seldom another number.
fn counted(random: &mut Random, kind: char) -> Words {
    let mut words = several(random, |random| key(random, kind));
    let count = if random.permille(50) { random.of(INTEGERS).to_owned() } else { words.len().to_string() };
    words.insert(0, count.into_bytes());
    words
}

/// The options of a union or intersection of sorted sets.
fn combine(random: &mut Random) -> Words {
    let options = [
        "",
        "",
        "AGGREGATE SUM",
        "AGGREGATE MIN",
        "AGGREGATE MAX",
        "AGGREGATE",
        "WEIGHTS 1",
        "WEIGHTS 2 -1",
        "WEIGHTS 0.5 inf",
        "WEIGHTS abc",
        "WEIGHTS 1 2 3 AGGREGATE MAX",
    ];
    super::reply::words(random.of(&options))
}

/// A time that is far away, each another one, in the unit of the hole.
fn time(random: &mut Random, hole: &str) -> Vec<u8> {
    let seconds = 10_000 + random.below(1_000_000_000);
    let in_2100 = 4_102_444_800;
    let number = match hole {
        "ttl" => seconds,
        "millis" => seconds * 1000,
        "at" => in_2100 + seconds,
        _ => (in_2100 + seconds) * 1000,
    };
    number.to_string().into_bytes()
}

/// The SHA-1 of a script that may have been loaded.
fn sha(random: &mut Random) -> Vec<u8> {
    let script = if random.permille(500) { random.of(SCRIPTS) } else { random.of(LUA) };
    let digest = Sha1::digest(script.as_bytes());
    digest.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")).into_bytes()
}
