//! What the subset makes of a script is compared with what Lua makes of it.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::Program;
use crate::clock::Clock;
use crate::command::script::lua::{Compiled, Host, Interpreter, Invocation};
use crate::command::script::running::RunningScript;
use crate::command::{CommandError, OwnedArgs};
use crate::domain::Timestamp;
use crate::engine::ScriptId;
use crate::reply::Reply;

const BYTES_MAX: usize = 64 << 10;

/// Replies by the name of the command, and notes what was called.
#[derive(Default)]
struct Replies {
    calls: Vec<Vec<Vec<u8>>>,
}

impl Host for Replies {
    fn call(&mut self, args: &OwnedArgs) -> Result<Reply, CommandError> {
        let args: Vec<Vec<u8>> = args.as_args().from(0).map(<[u8]>::to_vec).collect();
        let arg = args.get(1).cloned().unwrap_or_default();
        let reply = match &args[0][..] {
            b"integer" => Reply::count(arg.len()),
            b"large" => Reply::Integer((1 << 53) + 1),
            b"negative" => Reply::Integer(-2),
            b"null" => Reply::Null,
            b"nulls" => Reply::NullArray,
            b"status" => Reply::Status("FINE\nOK".to_owned()),
            b"simple" => Reply::Simple("OK"),
            b"double" => Reply::Double(1.25),
            b"boolean" => Reply::Boolean(true),
            b"error" => Reply::Error("ERR no\r\nway".into()),
            b"refused" => return Err(CommandError::fixed("WRONGTYPE no")),
            b"text" => Reply::Text("text".to_owned()),
            b"verbatim" => Reply::Verbatim(*b"mkd", b"# title".to_vec()),
            b"map" => Reply::Map(vec![(Reply::Bulk(arg), Reply::Double(0.5))]),
            b"set" => Reply::Set(vec![Reply::Null, Reply::Bulk(arg), Reply::BigNumber("12".to_owned())]),
            b"list" => Reply::Array(vec![
                Reply::Integer(1),
                Reply::NullArray,
                Reply::Error("ERR in\nside".into()),
                Reply::Simple("OK"),
                Reply::Array(vec![]),
            ]),
            b"half" => Reply::Bulk(vec![b'h'; BYTES_MAX / 2]),
            b"huge" => Reply::Bulk(vec![b'h'; BYTES_MAX + 1]),
            _ => Reply::Bulk(arg),
        };
        self.calls.push(args);
        Ok(reply)
    }

    fn may_call(&mut self, _: &OwnedArgs) -> Option<bool> {
        None
    }
}

fn interpreter() -> Interpreter {
    Interpreter::new(&Clock::manual(), &Arc::<RunningScript>::default(), BYTES_MAX).expect("an interpreter")
}

/// The reply of a script, and what it called.
fn run(interpreter: &mut Interpreter, text: &str, compiled: Compiled) -> (Result<Reply, String>, Replies) {
    let id = ScriptId::of(text.as_bytes());
    interpreter.compiled.insert(id, compiled);
    let keys = OwnedArgs::of(["first", "second"]);
    let args = OwnedArgs::of([&b"a"[..], b"first", b"\xff\x00", b"10"]);
    let script = Invocation { id: &id, text: text.as_bytes(), keys: keys.as_args(), args: args.as_args() };
    let mut replies = Replies::default();
    let reply = interpreter.run(&script, &mut replies);
    assert!(interpreter.reset());
    interpreter.compiled.clear();
    let reply = match reply {
        // On the wire they are the same.
        Ok(Reply::Simple(text)) => Ok(Reply::Status(text.to_owned())),
        Ok(Reply::Array(parts)) => Ok(Reply::Array(parts.into_iter().map(as_status).collect())),
        reply => reply.map_err(|error| error.text().to_owned()),
    };
    (reply, replies)
}

fn as_status(reply: Reply) -> Reply {
    match reply {
        Reply::Simple(text) => Reply::Status(text.to_owned()),
        reply => reply,
    }
}

/// Checks that Lua does with a script what the subset does, if the script is in the subset. Returns
/// what the script replies.
fn check(interpreter: &mut Interpreter, text: &str) -> Option<Result<Reply, String>> {
    let program = Program::parse(text.as_bytes())?;
    let function = interpreter.compile_lua(text.as_bytes());
    let function = function.unwrap_or_else(|error| panic!("{text:?} is not Lua: {}", error.text()));
    let expected = run(interpreter, text, Compiled::Lua(function));
    let found = run(interpreter, text, Compiled::Subset(program.into()));
    assert_eq!(found.0, expected.0, "{text}");
    assert_eq!(found.1.calls, expected.1.calls, "{text}");
    Some(found.0)
}

#[test]
fn scripts_of_lock_libraries_are_in_the_subset() {
    for text in [
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
        "if redis.call(\"get\", KEYS[1]) == ARGV[1] then\n  return redis.call(\"pexpire\", KEYS[1], ARGV[2])\nelse\n  return 0\nend\n",
        // redis-py
        "\n        local token = redis.call('get', KEYS[1])\n        if not token or token ~= ARGV[1] then\n            \
         return 0\n        end\n        redis.call('del', KEYS[1])\n        return 1\n    ",
        // Redisson
        "if ((redis.call('exists', KEYS[1]) == 0) or (redis.call('hexists', KEYS[1], ARGV[2]) == 1)) then \
         redis.call('hincrby', KEYS[1], ARGV[2], 1); redis.call('pexpire', KEYS[1], ARGV[1]); return nil; end; \
         return redis.call('pttl', KEYS[1]);",
        "local counter = redis.call('hincrby', KEYS[1], ARGV[3], -1); if (counter > 0) then \
         redis.call('pexpire', KEYS[1], ARGV[2]); return 0; else redis.call('del', KEYS[1]); return 1; end; return nil;",
    ] {
        assert!(check(&mut interpreter(), text).is_some(), "{text}");
    }
}

#[test]
fn what_is_not_in_the_subset_is_left_to_lua() {
    for text in [
        "while true do end",
        "for i = 1, 2 do end",
        "return 1, 2",
        "return 1 + 1",
        "return 'a' .. 'b'",
        "return #KEYS",
        "return KEYS",
        "return KEYS[x]",
        "return KEYS[1 + 1]",
        "return -0",
        "return 1.5",
        "return 0x10",
        "return 1e3",
        "return 1234567890123456",
        "return 'a\\n'",
        "return 'a",
        "return [[a]]",
        "return {}",
        "return x",
        "return redis",
        "return redis.call",
        "return redis.pcall('get', 'a')",
        "return redis.call('get', 'a').ok",
        "return redis.call('get', 'a')[1]",
        "return redis.call'get'",
        "return redis.call\n('get', 'a')",
        "return redis.call('get', 'a')\n('b')",
        "return 1 return 2",
        "return;;",
        ";return",
        "x = 1",
        "KEYS = nil",
        "local redis = 1",
        "local KEYS = 1",
        "local and = 1",
        "local function f() end",
        "local x, y = 1 x, y = 2, 1",
        "do local x = 1 end",
        "--[[ a ]] return 1",
        "#!lua",
        "if 1 then",
        "if 1 then end end",
        "end",
        "return end",
        "local x = 1 return x == ",
        "return (1",
        "return 1)",
        "return 1 == -ARGV[1]",
        "return \u{a0}1",
    ] {
        assert_eq!(Program::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn errors_name_the_line_that_lua_names() {
    let mut interpreter = interpreter();
    let mut error = |text: &str| match check(&mut interpreter, text) {
        Some(Err(text)) => text.split_once(" script: ").map(|(text, place)| {
            (
                text.to_owned(),
                place.split_once(", on ").map(|(_, place)| place.to_owned()).unwrap_or_default(),
            )
        }),
        other => panic!("{text}: {other:?}"),
    };
    let mut check = |text: &str, message: &str, place: &str| {
        assert_eq!(error(text), Some((message.to_owned(), place.to_owned())), "{text}");
    };
    check("redis.call('refused')", "WRONGTYPE no", "@user_script:1.");
    check("\n-- a\r\nredis.call(\n'error'\n)\n", "ERR no  way", "@user_script:3.");
    check(
        "return redis.call('get',\nnil)",
        "ERR Lua redis lib command arguments must be strings or integers",
        "@user_script:1.",
    );
    check(
        "redis.call()",
        "ERR Please specify at least one argument for this redis lib call",
        "@user_script:1.",
    );
    check(
        "return KEYS[9] <\nARGV[9]",
        "ERR user_script:2: attempt to compare two nil values",
        "@user_script:2.",
    );
    check(
        "if 1 >= 'a' then return 1 end",
        "ERR user_script:1: attempt to compare string with number",
        "@user_script:1.",
    );
    check(
        "return redis.call('huge')",
        "ERR reply exceeds 65536 bytes (--script-bytes-max)",
        "@user_script:1.",
    );
    check(
        "local h = redis.call('half') return redis.call('x', h, h)",
        "ERR command arguments exceed 65536 bytes (--script-bytes-max)",
        "@user_script:1.",
    );
}

#[test]
fn variables_hold_no_more_than_a_script_may() {
    let mut interpreter = interpreter();
    let text = "local a, b = redis.call('half'), redis.call('half') return 1";
    let program = Program::parse(text.as_bytes()).expect("a program of the subset");
    let (reply, replies) = run(&mut interpreter, text, Compiled::Subset(program.into()));
    assert!(reply.is_err_and(|error| error.contains("--script-bytes-max")));
    assert_eq!(replies.calls.len(), 2);
    for text in [
        "local a = redis.call('half') a = 1 local b = redis.call('half') return 1",
        "local a = redis.call('half') local b = a local c = b return redis.call('x', 'y') and 1",
        "return redis.call('half') == redis.call('x', 'y') and 1 or redis.call('half') and 1",
    ] {
        assert_eq!(check(&mut interpreter, text), Some(Ok(Reply::Integer(1))), "{text}");
    }
}

#[test]
fn unfinished_expressions_hold_no_more_than_a_script_may() {
    let mut interpreter = interpreter();
    for text in [
        "return redis.call('half') == redis.call('half')",
        "return redis.call('x', redis.call('half'), redis.call('x', redis.call('half')))",
        "return redis.call('half') and redis.call('half') and 1 == 1 and redis.call('half') < redis.call('half')",
    ] {
        let program = Program::parse(text.as_bytes()).expect("a program of the subset");
        let (reply, _) = run(&mut interpreter, text, Compiled::Subset(program.into()));
        assert!(reply.is_err_and(|error| error.contains("--script-bytes-max")), "{text}");
    }
}

#[test]
fn comparisons_of_long_strings_look_at_the_clock() {
    let running = Arc::<RunningScript>::default();
    let mut interpreter = Interpreter::new(&Clock::manual(), &running, BYTES_MAX).expect("an interpreter");
    running.begin(Timestamp::default(), Timestamp::default());
    let text = format!("local x {} return 1", "x = ARGV[1] == ARGV[2] ".repeat(3));
    let long = vec![b'x'; 1 << 19];
    let args = OwnedArgs::of([&long, &long]);
    let id = ScriptId::of(text.as_bytes());
    let script = Invocation { id: &id, text: text.as_bytes(), keys: args.as_args(), args: args.as_args() };
    let reply = interpreter.run(&script, &mut Replies::default());
    assert!(reply.is_err_and(|error| error.text().contains("--script-ms-max")));
}

#[test]
fn deep_and_wide_scripts_are_left_to_lua() {
    let mut interpreter = interpreter();
    for n in [1, 10, 40, 60, 100, 180, 300] {
        let many = |part: &str| vec![part; n].join(", ");
        let variables = (0..n).map(|n| format!("v{n}")).collect::<Vec<_>>().join(", ");
        for text in [
            format!("return {}1{}", "(".repeat(n), ")".repeat(n)),
            format!("{}{}", "if 1 then ".repeat(n), "end ".repeat(n)),
            format!("return {}1", "not ".repeat(n)),
            format!("return {}1", "nil or ".repeat(n)),
            format!("return {}1", "1 and ".repeat(n)),
            format!("return {}1", "1 == ".repeat(n)),
            format!("return redis.call({})", many("1")),
            format!("return redis.call({}, redis.call({}))", many("1"), many("KEYS[1]")),
            format!("return {}'text'{}", "redis.call('x', ".repeat(n), ")".repeat(n)),
            format!("local {variables} return v0"),
            format!("local {variables} = {} return redis.call({variables})", many("'text'")),
        ] {
            let is_small = check(&mut interpreter, &text).is_some();
            assert!(is_small || n > 10, "{text}");
        }
    }
}

/// A program, as words that blanks separate.
fn programs() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "nil",
        "true",
        "false",
        "0",
        "1",
        "12",
        "007",
        "-3",
        "''",
        "'a'",
        "\"first\"",
        "'10'",
        "KEYS[1]",
        "KEYS[2]",
        "KEYS[3]",
        "KEYS[0]",
        "ARGV[1]",
        "ARGV[2]",
        "ARGV[3]",
        "ARGV[4]",
        "ARGV[5]",
        "x",
        "y",
    ])
    .prop_map(str::to_owned);
    let command = select(vec![
        "integer", "large", "negative", "null", "nulls", "status", "simple", "double", "boolean", "error",
        "refused", "text", "verbatim", "map", "set", "list", "get", "set",
    ]);
    let call = move |arg: BoxedStrategy<String>| {
        (command.clone(), prop::collection::vec(arg, 0..3)).prop_map(|(name, args)| {
            let args = args.iter().map(|arg| format!(" , {arg}")).collect::<String>();
            format!("redis.call( '{name}'{args} )")
        })
    };
    let expression = leaf.boxed().prop_recursive(4, 12, 3, move |inner| {
        let operator = select(vec!["==", "~=", "<", "<=", ">", ">=", "and", "or", "==", "and", "or"]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(one, op, two)| format!("{one} {op} {two}")),
            2 => inner.clone().prop_map(|inner| format!("( {inner} )")),
            1 => inner.clone().prop_map(|inner| format!("not {inner}")),
            3 => call(inner.boxed()),
        ]
    });
    let call = expression.clone().prop_map(|arg| format!("redis.call( 'get' , {arg} )"));
    let simple = prop_oneof![
        call,
        expression.clone().prop_map(|value| format!("x = {value}")),
        expression.clone().prop_map(|value| format!("local y = {value}")),
        (expression.clone(), expression.clone())
            .prop_map(|(one, two)| format!("local x , z = {one} , {two}")),
        Just("local x , y".to_owned()),
    ];
    let statements = |statement: BoxedStrategy<String>, value: BoxedStrategy<String>| {
        let end = prop_oneof![
            Just(String::new()),
            Just("return".to_owned()),
            value.prop_map(|value| format!("return {value}")),
            Just("return x ;".to_owned()),
        ];
        let separator = select(vec![" ", " ; "]);
        (prop::collection::vec((statement, separator), 0..4), end).prop_map(|(statements, end)| {
            let all = statements.iter().map(|(statement, separator)| format!("{statement}{separator}"));
            format!("{}{end}", all.collect::<String>())
        })
    };
    let value = expression.clone().boxed();
    let statement = simple.boxed().prop_recursive(3, 16, 4, {
        let value = value.clone();
        move |inner| {
            let block = statements(inner.boxed(), value.clone());
            (value.clone(), block.clone(), value.clone(), block.clone(), block, 0..3).prop_map(
                |(condition, block, second, other, last, form)| match form {
                    0 => format!("if {condition} then {block} end"),
                    1 => format!("if {condition} then {block} else {other} end"),
                    _ => {
                        format!("if {condition} then {block} elseif {second} then {other} else {last} end")
                    }
                },
            )
        }
    });
    statements(statement.boxed(), value)
        .prop_map(|body| format!("local x , y = 'a' , redis.call( 'integer' ) {body}"))
}

/// Separates the words of a program by other blanks.
fn with_blanks(program: &str, blanks: &[&str]) -> String {
    let words = program.split_whitespace().zip(blanks.iter().cycle());
    words.map(|(word, blank)| format!("{word}{blank}")).collect()
}

fn blanks() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(
        select(vec![" ", " ", " ", "\n", "\t", "\r\n", "\n\r", "\r", " --x\n", "--\r"]),
        1..20,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn programs_do_what_lua_does(program in programs(), blanks in blanks()) {
        let mut interpreter = interpreter();
        prop_assert!(check(&mut interpreter, &with_blanks(&program, &blanks)).is_some(), "{}", program);
    }

    /// Most of these are not Lua: what is taken for a program of the subset must be.
    #[test]
    fn damaged_programs_are_read_as_lua_reads_them(
        program in programs(),
        blanks in blanks(),
        damages in prop::collection::vec((any::<Index>(), any::<Index>(), 0..3), 1..3),
    ) {
        let mut words: Vec<&str> = program.split_whitespace().collect();
        for (place, other, kind) in damages {
            let (place, other) = (place.index(words.len()), other.index(words.len()));
            match kind {
                0 => drop(words.remove(place)),
                1 => words.insert(place, words[other]),
                _ => words.swap(place, other),
            }
        }
        let mut interpreter = interpreter();
        check(&mut interpreter, &with_blanks(&words.join(" "), &blanks));
    }
}
