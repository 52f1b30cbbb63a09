//! Which scripts keep the other tasks of their thread waiting.

use super::*;
use crate::command::OwnedArgs;
use crate::domain::Timestamp;

/// Answers each command with as many bytes as its last argument says, or has.
struct Echo;

impl Host for Echo {
    fn call(&mut self, args: &OwnedArgs) -> Result<Reply, CommandError> {
        let args = args.as_args();
        let last = args.at(args.len() - 1);
        let bytes = std::str::from_utf8(last).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Reply::bulk("x".repeat(bytes)))
    }

    fn may_call(&mut self, _: &OwnedArgs) -> Option<bool> {
        None
    }
}

/// Whether the other tasks were left before the script did its work, which takes no time here.
fn leaves_other_tasks(script: &str, argument: &str) -> bool {
    let running = Arc::new(RunningScript::default());
    let mut interpreter = Interpreter::new(&Clock::manual(), &running, 8 << 20).unwrap();
    let mut args = OwnedArgs::default();
    args.push(argument.as_bytes());
    running.begin(Timestamp::from_nanos(u64::MAX / 2), Timestamp::NEVER);
    let id = ScriptId::of(script.as_bytes());
    let none = OwnedArgs::default();
    let script = Invocation { id: &id, text: script.as_bytes(), keys: none.as_args(), args: args.as_args() };
    let reply = interpreter.run(&script, &mut Echo);
    assert!(!matches!(reply, Err(_) | Ok(Reply::Error(_))), "{reply:?}");
    !running.become_long()
}

#[test]
fn a_step_on_much_data_begins_without_the_other_tasks() {
    for work in [
        "local s = ('x'):rep(N)",
        "local s = S:upper()",
        "local s = S:lower()",
        "local s = S:reverse()",
        "local s = S:find('y', 1, true)",
        "local s = S:find('^y')",
        "local s = S:match('^y')",
        "local s = S:gsub('^y', 'z')",
        "for s in S:gmatch('y') do end",
        "local s = redis.sha1hex(S)",
        "local s = loadstring(S)",
        "local s = load(function() local s = S S = nil return s end)",
        "local s = cjson.encode(S)",
        "local s = cjson.encode({S})",
        "local s = cjson.encode({[S] = 1})",
        "local s = cjson.decode('\"' .. S .. '\"')",
        "local s = cmsgpack.pack({S})",
        "local s = cmsgpack.unpack('\\219\\0\\2\\128\\0' .. S)",
        "local s = struct.pack('s', S)",
        "local s = struct.size(S)",
        "local s = redis.call('ECHO', S)",
        "local s = redis.pcall('ECHO', N)",
        "collectgarbage()",
    ] {
        // 163 840 bytes, or 10, that no function has made in one step.
        let script = |doublings: usize| {
            format!(
                "local S = 'xxxxxxxxxx' for i = 1, {doublings} do S = S .. S end local N = #S {work} return 1"
            )
        };
        assert!(leaves_other_tasks(&script(14), ""), "{work}");
        if work != "collectgarbage()" {
            let short = script(0).replace("\\219\\0\\2\\128\\0", "\\170");
            assert!(!leaves_other_tasks(&short, ""), "{work}");
        }
    }
}

#[test]
fn a_script_with_much_to_read_begins_without_the_other_tasks() {
    let long = "x".repeat(STEP_BYTES_MAX + 1);
    assert!(leaves_other_tasks("return #ARGV[1]", &long));
    assert!(!leaves_other_tasks("return #ARGV[1]", "x"));
}
