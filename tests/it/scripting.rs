//! Scripts: the requests of lock libraries, hostile scripts, restarts.
//!
//! Guarantees: no script takes the server with it, outlives its limits or leaves anything for the
//! next one.
//! Not here: what scripts compute, which transcripts and the comparison with Redis show.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::server::TestServer;
use crate::support::until;

fn eval(client: &mut Client, script: &str) -> String {
    client.call(&["EVAL", script, "0"])
}

/// Scripts that would run forever, whatever they catch.
const ENDLESS: &[&str] = &[
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "while true do pcall(error) end",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "local function f() while true do coroutine.resume(coroutine.create(f)) end end f()",
    "local f = coroutine.wrap(function() while true do coroutine.yield() end end) while true do f() end",
    "while true do redis.pcall('PING') end",
    "while true do pcall(redis.call, 'NOSUCH') end",
    "return string.find(string.rep('a', 100000), string.rep('.-', 50) .. 'b')",
    "return string.rep('a', 1000000):gsub('.-b', '')",
    "return load(function() return ' ' end)",
    "local t = {} for i = 1, 1e5 do t[i] = '' end while true do table.insert(t, 1, '') table.remove(t) end",
    "local t = {} for i = 1, 1e5 do t[i] = '' end while true do table.concat(t) table.maxn(t) end",
    "local s = ('x'):rep(1e6) while true do redis.sha1hex(s:upper()) end",
    "local x = {'x'} for i = 1, 60 do x = {x, x} end return x",
    "local x = {'x'} for i = 1, 60 do x = {x, x} end return cjson.encode(x)",
];

/// Scripts with one call that takes much longer than they may.
const LONG_CALLS: &[&str] = &[
    "cjson.decode('{' .. ('\"a\":1,'):rep(5e5) .. '\"a\":1}')",
    "cjson.decode('[' .. ('[],'):rep(1e6) .. '1]')",
    "cmsgpack.unpack('\\223\\0\\7\\161\\32' .. ('\\161a\\1'):rep(5e5))",
    "pcall(cmsgpack.unpack, '\\221\\0\\7\\161\\32' .. ('\\144'):rep(5e5))",
];

/// Scripts that would take any amount of memory or stack.
const GREEDY: &[&str] = &[
    "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end",
    "local s = 'x' while true do s = s .. s end",
    "local t = {} while true do pcall(function() local s = 'x' while true do s = s .. s t[#t + 1] = s end end) end",
    "return ('x'):rep(1e9)",
    "return (string.rep('a', 1e5):gsub('a', string.rep('b', 1e5)))",
    "local function f() return f() + 1 end return f()",
    "local function f() return pcall(f) end f() error('done')",
    "local t = setmetatable({}, {__index = function(t, k) return t[k] end}) return t.x",
    "local t = {} t[1] = t return t",
    "local t = {} t[1] = t return cjson.encode(t)",
    "return cjson.decode(string.rep('[', 100000))",
    "return cmsgpack.unpack(string.rep('\\145', 100000))",
    "return string.find('x', string.rep('.-', 100000))",
    "local s = string.rep('x', 100000) local t = {} for i = 1, 7000 do t[i] = s end redis.call('MGET', unpack(t))",
    "return {unpack({}, 1, 1e8)}",
];

/// Scripts that change what others would see.
const LITTERING: &[&str] = &[
    "table.insert(string, 'litter') table.insert(_G, 'litter') table.insert(redis, 'litter')",
    // Each way to look up what a read-only table shows.
    "local insert = rawget(table, 'insert') insert(string, 'litter')",
    "for name, f in pairs(table) do if name == 'insert' then f(string, 'litter') end end",
    "local name, f = next(table) while name ~= 'insert' do name, f = next(table, name) end f(string, 'litter')",
    "local found = pairs(math) local name, f = found(table) while name ~= 'insert' do name, f = found(table, name) end f(math, 1)",
    "local t = setmetatable({}, {__index = table}) t.insert(string, 'litter') t.insert(table, 'litter')",
    "coroutine.wrap(function() table.insert(string, 'litter') end)()",
    "pcall(function() table.insert(string, 'litter') error('x') end)",
    "for _, t in pairs(_G) do if type(t) == 'table' then table.insert(t, 'litter') end end",
    "math.randomseed(7)",
    "cjson.encode_max_depth(1) cjson.encode_invalid_numbers(true) cjson.encode_sparse_array(true)",
    "redis.setresp(3)",
    "collectgarbage('stop') collectgarbage('setpause', 1e9)",
    "redis.call('SELECT', 3)",
    "KEYS[1] = 'litter' ARGV[1] = 'litter'",
    "rawset(_G, 'litter', 1)",
    "string.rep = nil",
    "getmetatable('').__index = {}",
];

/// Shows what a script sees of the state of the interpreter.
const LOOK: &str = "local n = 0 for _ in pairs(_G) do n = n + 1 end \
    return {n, tostring(rawget(_G, 1)), tostring(string[1]), tostring(redis[1]), tostring(math.random()), \
    cjson.encode({{1}}), tostring(pcall(cjson.encode, 1 / 0)), #KEYS, #ARGV, ('x'):rep(2), \
    tostring(redis.call('GET', 'nosuch')), type(redis.call)}";

/// Runs [`LOOK`], again if this process did not run for longer than the time limit.
fn look(client: &mut Client) -> String {
    loop {
        let reply = eval(client, LOOK);
        if !reply.starts_with("-ERR script time limit") {
            return reply;
        }
    }
}

#[test]
fn a_hostile_script_is_stopped_and_the_next_one_sees_nothing_of_it() {
    let server = TestServer::real(&["--script-ms-max", "30", "--script-bytes-max", "8388608"]);
    let mut client = server.connect();
    let before = look(&mut client);
    assert!(before.contains("\"xx\""), "{before}");
    for script in ENDLESS {
        let reply = eval(&mut client, script);
        let is_stopped = ["-ERR script time limit", "-ERR script memory limit"];
        assert!(is_stopped.iter().any(|text| reply.starts_with(text)), "{script}: {reply}");
        assert_eq!(look(&mut client), before, "after {script}");
    }
    for script in LONG_CALLS {
        let reply = eval(&mut client, &format!("{script} return 'done'"));
        assert!(reply.starts_with("-ERR script "), "{script}: {reply}");
        assert_eq!(look(&mut client), before, "after {script}");
    }
    for script in GREEDY {
        let reply = eval(&mut client, script);
        assert!(reply.starts_with('-'), "{script}: {reply}");
        assert_eq!(look(&mut client), before, "after {script}");
    }
    for script in LITTERING {
        eval(&mut client, script);
        assert_eq!(look(&mut client), before, "after {script}");
    }
    assert_eq!(client.line("PING"), "+PONG");
}

#[test]
fn replies_that_a_script_keeps_count_toward_its_memory() {
    let server = TestServer::real(&["--script-ms-max", "60000", "--script-bytes-max", "1048576"]);
    let mut client = server.connect();
    let reply = eval(
        &mut client,
        "for i = 1, 1000 do redis.call('RPUSH', 'l', 'x') end \
        local kept = {} for i = 1, 1000 do kept[i] = redis.call('LRANGE', 'l', 0, -1) end",
    );
    assert!(reply.starts_with("-ERR script memory limit"), "{reply}");
    assert_eq!(client.line("LLEN l"), ":1000");
}

#[test]
fn what_a_stopped_script_has_written_stays() {
    let server = TestServer::real(&["--script-ms-max", "30"]);
    let mut client = server.connect();
    let reply = eval(&mut client, "redis.call('SET', 'k', 'v') while true do end");
    assert!(reply.starts_with("-ERR script time limit"), "{reply}");
    assert_eq!(client.line("GET k"), "\"v\"");
}

#[test]
fn a_script_that_has_written_nothing_can_be_killed() {
    let server = TestServer::real(&["--script-ms-max", "60000"]);
    let mut victim = server.connect();
    victim.send(&["EVAL", "while true do end", "0"]);
    let mut client = server.connect();
    while client.line("SCRIPT KILL") != "+OK" {}
    assert_eq!(victim.reply(), "-ERR Script killed by user with SCRIPT KILL.");
    assert_eq!(eval(&mut victim, "return 1"), ":1");
}

#[test]
fn a_long_call_can_be_killed_on_the_only_thread() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Process::start(&folder.path().join("db"), &["--threads", "1", "--script-ms-max", "60000"]);
    let (mut victim, mut client) = (server.connect(), server.connect());
    victim.send(&["EVAL", "cjson.decode('{' .. ('\"a\":1,'):rep(8e6) .. '\"a\":1}')", "0"]);
    until(|| client.line("SCRIPT KILL") == "+OK");
    assert_eq!(victim.reply(), "-ERR Script killed by user with SCRIPT KILL.");
}

#[test]
fn a_long_script_leaves_the_only_thread_to_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--threads", "1", "--script-ms-max", "60000", "--durability", "always"];
    let server = Process::start(&folder.path().join("db"), &flags);
    let mut victim = server.connect();
    let mut others: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for round in 0..3 {
        victim.send(&["EVAL", "while true do end", "0"]);
        let began = Instant::now();
        while !others[0].line("GET k").starts_with("-BUSY") {}
        for other in &mut others {
            other.send(&["SET", "k", "v"]);
        }
        let mut client = server.connect();
        assert_eq!(client.line("PING"), "+PONG");
        assert!(client.line("SCRIPT LOAD return(1)").starts_with("-BUSY"));
        assert!(client.line("INFO server").contains("octostore"));
        assert_eq!(client.line("SCRIPT KILL"), "+OK");
        let took = began.elapsed();
        // Otherwise the script would have kept its thread for a minute.
        assert!(took < Duration::from_secs(20), "round {round}: {took:?}");
        assert_eq!(victim.reply(), "-ERR Script killed by user with SCRIPT KILL.");
        for other in &mut others {
            let reply = other.reply();
            assert!(reply.starts_with("-BUSY") || reply == "+OK", "{reply}");
        }
    }
    // What is written at the end of a long script is committed, too, as is what others write.
    let slow = "local n = 0 while n < 3e6 do n = n + 1 end return redis.call('SET', 'slow', n)";
    for _ in 0..3 {
        victim.send(&["EVAL", slow, "0"]);
        assert_eq!(others[1].line("LPUSH list i").replace(|c: char| c.is_ascii_digit(), ""), ":");
        assert_eq!(victim.reply(), "+OK");
    }
}

#[test]
fn scripts_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("db");
    let flags = ["--data", file.to_str().expect("a name"), "--durability", "always"];
    let server = TestServer::real(&flags);
    let mut client = server.connect();
    let loaded = client.call(&["SCRIPT", "LOAD", "return 'loaded'"]).trim_matches('"').to_owned();
    assert_eq!(eval(&mut client, "return 'evaluated'"), "\"evaluated\"");
    let evaluated = sha_of(&mut client, "return 'evaluated'");
    let (commits, _) = server.engine.commits();
    for _ in 0..10 {
        eval(&mut client, "return 'evaluated'");
    }
    assert_eq!(server.engine.commits().0, commits, "a known script costs no commit");
    server.stop();

    let server = TestServer::real(&flags);
    let mut client = server.connect();
    assert_eq!(client.call(&["EVALSHA", &loaded, "0"]), "\"loaded\"");
    assert_eq!(client.call(&["EVALSHA", &evaluated, "0"]), "\"evaluated\"");
    assert_eq!(client.line("SCRIPT FLUSH"), "+OK");
    server.stop();

    let server = TestServer::real(&flags);
    let reply = server.connect().call(&["EVALSHA", &loaded, "0"]);
    assert_eq!(reply, "-NOSCRIPT No matching script. Please use EVAL.");
}

#[test]
fn a_script_is_one_commit_at_one_instant() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("db");
    let server = TestServer::real(&["--data", file.to_str().expect("a name"), "--durability", "always"]);
    let mut client = server.connect();
    eval(&mut client, "return 1");
    let (commits, _) = server.engine.commits();
    let script = "for n = 1, 100 do redis.call('SET', 'k' .. n, 'v', 'PX', 60000) end \
        return redis.call('PTTL', 'k1') == redis.call('PTTL', 'k100')";
    assert_eq!(eval(&mut client, script), ":1");
    assert_eq!(server.engine.commits().0, commits + 1);
}

/// A request and its reply.
type Exchange = (&'static [&'static str], &'static str);

/// Requests of lock libraries as they send them, with the replies that they expect. `TOKEN` and
/// `OTHER` are owners.
const LIBRARIES: &[(&str, &[Exchange])] = &[
    (
        "redis-py Lock",
        &[
            (&["SET", "lock", "TOKEN", "NX", "PX", "10000"], "+OK"),
            (&["SET", "lock", "OTHER", "NX", "PX", "10000"], "(nil)"),
            (&["EVALSHA", REDIS_PY_EXTEND.0, "1", "lock", "TOKEN", "5000", "0"], NOSCRIPT),
            (&["SCRIPT", "LOAD", REDIS_PY_EXTEND.1], REDIS_PY_EXTEND.0),
            (&["EVALSHA", REDIS_PY_EXTEND.0, "1", "lock", "TOKEN", "5000", "0"], ":1"),
            (&["EVALSHA", REDIS_PY_EXTEND.0, "1", "lock", "OTHER", "5000", "0"], ":0"),
            (&["PTTL", "lock"], ":15000"),
            (&["EVAL", REDIS_PY_REACQUIRE, "1", "lock", "TOKEN", "10000"], ":1"),
            (&["PTTL", "lock"], ":10000"),
            (&["EVAL", REDIS_PY_RELEASE, "1", "lock", "OTHER"], ":0"),
            (&["EVAL", REDIS_PY_RELEASE, "1", "lock", "TOKEN"], ":1"),
            (&["EVAL", REDIS_PY_RELEASE, "1", "lock", "TOKEN"], ":0"),
        ],
    ),
    (
        "node-redlock 4 and 5",
        &[
            (&["EVAL", REDLOCK_ACQUIRE, "2", "a", "b", "TOKEN", "10000"], ":2"),
            (&["EVAL", REDLOCK_ACQUIRE, "2", "b", "c", "OTHER", "10000"], ":0"),
            (&["EVAL", REDLOCK_EXTEND, "2", "a", "b", "TOKEN", "20000"], ":2"),
            (&["PTTL", "b"], ":20000"),
            (&["EVAL", REDLOCK_EXTEND, "2", "a", "b", "OTHER", "20000"], ":0"),
            (&["EVAL", REDLOCK_RELEASE, "2", "a", "b", "OTHER"], ":0"),
            (&["EVAL", REDLOCK_RELEASE, "2", "a", "b", "TOKEN"], ":2"),
        ],
    ),
    (
        "redsync",
        &[
            (&["SET", "m", "TOKEN", "EX", "8", "NX"], "+OK"),
            (&["EVAL", REDSYNC_TOUCH, "1", "m", "TOKEN", "9000"], ":1"),
            (&["EVAL", REDSYNC_TOUCH, "1", "m", "OTHER", "9000"], ":0"),
            (&["EVAL", REDSYNC_DELETE, "1", "m", "OTHER"], ":0"),
            (&["EVAL", REDSYNC_DELETE, "1", "m", "TOKEN"], ":1"),
            (&["EVAL", REDSYNC_DELETE, "1", "m", "TOKEN"], ":-1"),
        ],
    ),
    (
        "bsm/redislock",
        &[
            (&["EVAL", REDISLOCK_OBTAIN, "1", "o", "TOKEN", "5", "10000"], "+OK"),
            (&["EVAL", REDISLOCK_OBTAIN, "1", "o", "OTHER", "5", "10000"], "(nil)"),
            (&["EVAL", REDISLOCK_PTTL, "1", "o", "TOKEN"], ":10000"),
            (&["EVAL", REDISLOCK_PTTL, "1", "o", "OTHER"], ":-3"),
        ],
    ),
];

const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.";

const REDIS_PY_RELEASE: &str = "
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        redis.call('del', KEYS[1])
        return 1
    ";
const REDIS_PY_EXTEND: (&str, &str) = (
    "REDIS_PY_EXTEND_SHA",
    "
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        local expiration = redis.call('pttl', KEYS[1])
        if not expiration then
            expiration = 0
        end
        if expiration < 0 then
            return 0
        end

        local newttl = ARGV[2]
        if ARGV[3] == \"0\" then
            newttl = ARGV[2] + expiration
        end
        redis.call('pexpire', KEYS[1], newttl)
        return 1
    ",
);
const REDIS_PY_REACQUIRE: &str = "
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        redis.call('pexpire', KEYS[1], ARGV[2])
        return 1
    ";
const REDLOCK_ACQUIRE: &str = "
  -- Return 0 if an entry already exists.
  for i, key in ipairs(KEYS) do
    if redis.call(\"exists\", key) == 1 then
      return 0
    end
  end

  -- Create an entry for each provided key.
  for i, key in ipairs(KEYS) do
    redis.call(\"set\", key, ARGV[1], \"PX\", ARGV[2])
  end

  -- Return the number of entries added.
  return #KEYS
";
const REDLOCK_EXTEND: &str = "
  -- Return 0 if an entry exists with a *different* lock value.
  for i, key in ipairs(KEYS) do
    if redis.call(\"get\", key) ~= ARGV[1] then
      return 0
    end
  end

  -- Update the entry for each provided key.
  for i, key in ipairs(KEYS) do
    redis.call(\"set\", key, ARGV[1], \"PX\", ARGV[2])
  end

  -- Return the number of entries updated.
  return #KEYS
";
const REDLOCK_RELEASE: &str = "
  local count = 0
  for i, key in ipairs(KEYS) do
    -- Only remove entries for *this* lock value.
    if redis.call(\"get\", key) == ARGV[1] then
      redis.pcall(\"del\", key)
      count = count + 1
    end
  end

  -- Return the number of entries removed.
  return count
";
const REDSYNC_DELETE: &str = "
\tlocal val = redis.call(\"GET\", KEYS[1])
\tif val == ARGV[1] then
\t\treturn redis.call(\"DEL\", KEYS[1])
\telseif val == false then
\t\treturn -1
\telse
\t\treturn 0
\tend
";
const REDSYNC_TOUCH: &str = "
\tif redis.call(\"GET\", KEYS[1]) == ARGV[1] then
\t\treturn redis.call(\"PEXPIRE\", KEYS[1], ARGV[2])
\telse
\t\treturn 0
\tend
";
const REDISLOCK_OBTAIN: &str = "
if redis.call(\"set\", KEYS[1], ARGV[1], \"NX\", \"PX\", ARGV[3]) then return redis.status_reply(\"OK\") end
local offset = tonumber(ARGV[2])
return false";
const REDISLOCK_PTTL: &str = "
if redis.call(\"get\", KEYS[1]) == ARGV[1] then return redis.call(\"pttl\", KEYS[1]) else return -3 end";

#[test]
fn the_scripts_of_lock_libraries_do_what_they_expect() {
    for (library, requests) in LIBRARIES {
        let server = TestServer::manual(&[]);
        let mut client = server.connect();
        let sha = sha_of(&mut client, REDIS_PY_EXTEND.1);
        for (request, expected) in *requests {
            let request: Vec<&str> =
                request.iter().map(|word| if *word == REDIS_PY_EXTEND.0 { &*sha } else { word }).collect();
            let reply = client.call(&request);
            let reply = reply.trim_matches('"');
            let expected = if *expected == REDIS_PY_EXTEND.0 { &*sha } else { expected };
            assert_eq!(reply, expected, "{library}: {request:?}");
        }
    }
}

/// The hash of a script.
fn sha_of(client: &mut Client, script: &str) -> String {
    client.call(&["EVAL", "return redis.sha1hex(ARGV[1])", "0", script]).trim_matches('"').to_owned()
}
