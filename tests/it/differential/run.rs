//! Runs a sequence on both servers and compares the replies.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::intended;
use super::plan::{CALLERS, Shown, Step, plan};
use super::reply::{Link, Reply, Rule, Words, words};
use super::words::keys;
use crate::support::random::Random;
use crate::support::until;

/// The requests that a caller sends before it reads the replies.
const PIPELINED_MAX: usize = 50;

/// The connections of a sequence to one server.
struct Side {
    callers: Vec<Link>,
    waiter: Link,
    waiter_id: Reply,
    subscriber: Link,
    messages: Vec<Reply>,
    control: Link,
}

impl Side {
    /// An empty server, and new connections to it.
    fn new(addr: SocketAddr) -> Side {
        let mut control = Link::connect(addr);
        for line in ["FLUSHALL", "SCRIPT FLUSH"] {
            assert_eq!(control.call(line), Reply::Line("+OK".to_owned()));
        }
        let mut callers: Vec<_> = (0..CALLERS).map(|_| Link::connect(addr)).collect();
        assert!(callers[1].call("HELLO 3").error().is_none());
        let mut waiter = Link::connect(addr);
        let waiter_id = waiter.call("CLIENT ID");
        Side { callers, waiter, waiter_id, subscriber: Link::connect(addr), messages: Vec::new(), control }
    }

    fn is_blocked(&mut self) -> bool {
        self.control.call("INFO clients").to_string().contains("blocked_clients:1")
    }

    /// Sends a pop. Returns whether it waits.
    fn send_pop(&mut self, pop: &Words) -> bool {
        self.waiter.send(&[pop]);
        let (side, waits) = (RefCell::new(&mut *self), Cell::new(false));
        until(|| {
            let mut side = side.borrow_mut();
            waits.set(side.is_blocked());
            waits.get() || side.waiter.is_readable()
        });
        waits.get()
    }

    /// Ends the wait as a time-out would, if it has not ended.
    fn unblock(&mut self) {
        let Reply::Line(id) = &self.waiter_id else { panic!("an id: {}", self.waiter_id) };
        self.control.call(&format!("CLIENT UNBLOCK {}", id.trim_start_matches(':')));
    }

    fn call(&mut self, words: &Words) -> Reply {
        self.callers[0].send(&[words]);
        self.callers[0].reply()
    }

    /// Sends a request of the subscriber and returns the replies to it. Keeps the messages that come
    /// meanwhile.
    fn subscribe(&mut self, request: &Words) -> Vec<Reply> {
        self.subscriber.send(&[request, &words("PING marker")]);
        let marker = Reply::Bulk(b"marker".to_vec());
        let pong = Reply::Many('*', vec![Reply::Bulk(b"pong".to_vec()), marker.clone()]);
        let mut replies = Vec::new();
        loop {
            match self.subscriber.reply() {
                reply if reply == marker || reply == pong => return replies,
                reply if is_message(&reply) => self.receive(reply),
                Reply::Closed => panic!("a subscriber that was cut off: {replies:?}"),
                reply => replies.push(reply),
            }
        }
    }

    fn receive(&mut self, message: Reply) {
        // Patterns also match the channels of lock events, which Redis does not have.
        if !message.to_string().contains("\"__lock") {
            self.messages.push(message);
        }
    }

    /// All messages of the sequence, which are at least `count`. They may come after the replies
    /// of their publishers. Copies of one message are sorted: Redis has the patterns in no order.
    fn messages(&mut self, count: usize) -> &[Reply] {
        while self.messages.len() < count {
            match self.subscriber.reply() {
                reply if is_message(&reply) => self.receive(reply),
                _ => break,
            }
        }
        let copies = self.messages.chunk_by_mut(|a, b| content(a) == content(b));
        copies.for_each(<[Reply]>::sort);
        &self.messages
    }
}

/// The channel and the text of a message.
fn content(message: &Reply) -> &[Reply] {
    match message {
        Reply::Many(_, parts) => &parts[parts.len().saturating_sub(2)..],
        _ => &[],
    }
}

fn is_message(reply: &Reply) -> bool {
    let kinds: [&[u8]; 3] = [b"message", b"pmessage", b"smessage"];
    matches!(reply, Reply::Many(_, parts) if matches!(parts.first(), Some(Reply::Bulk(kind)) if kinds.contains(&&kind[..])))
}

/// A reply that differs.
#[derive(Debug)]
pub(super) struct Difference {
    /// The index of the step, or the length of the sequence for the state at its end.
    pub(super) step: usize,
    pub(super) request: String,
    pub(super) ours: String,
    pub(super) theirs: String,
}

/// How a sequence ended.
pub(super) enum Outcome {
    /// All replies agree.
    Same,
    /// From this step on, the states differ, as intended.
    Diverged(usize),
    Different(Difference),
}

/// The addresses of the servers that are compared.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) ours: SocketAddr,
    pub(super) theirs: SocketAddr,
}

/// The rules of the replies in a transaction of each caller.
type Queues = [Vec<(Words, Rule)>; CALLERS];

impl Pair {
    pub(super) fn run(self, steps: &[Step]) -> Outcome {
        let (mut ours, mut theirs) = (Side::new(self.ours), Side::new(self.theirs));
        let mut queues = Queues::default();
        let mut at = 0;
        while at < steps.len() {
            let judged = match &steps[at] {
                Step::Call(caller, ..) => {
                    let same_caller = |step: &&Step| matches!(step, Step::Call(other, ..) if other == caller);
                    let batch: Vec<_> =
                        steps[at..].iter().take_while(same_caller).take(PIPELINED_MAX).collect();
                    let requests: Vec<&Words> = batch.iter().filter_map(|step| request(step)).collect();
                    ours.callers[*caller].send(&requests);
                    theirs.callers[*caller].send(&requests);
                    let replies: Vec<_> = requests
                        .iter()
                        .map(|_| (ours.callers[*caller].reply(), theirs.callers[*caller].reply()))
                        .collect();
                    let mut judgement = Judgement::Same;
                    for (step, (ours, theirs)) in batch.iter().zip(&replies) {
                        let Step::Call(_, words, rule) = step else { continue };
                        judgement = judge(words, *rule, ours, theirs, &mut queues[*caller]);
                        if !matches!(judgement, Judgement::Same) {
                            break;
                        }
                        at += 1;
                    }
                    judgement
                }
                Step::Wait(pop, meanwhile) => {
                    let replies = wait(&mut ours, &mut theirs, pop, meanwhile);
                    let mut judgements = replies
                        .iter()
                        .map(|(words, ours, theirs)| judge(words, Rule::Exact, ours, theirs, &mut queues[0]));
                    let judgement = judgements.find(|judgement| !matches!(judgement, Judgement::Same));
                    let judgement = judgement.unwrap_or(Judgement::Same);
                    at += usize::from(matches!(judgement, Judgement::Same));
                    judgement
                }
                Step::Subscribe(words) => {
                    let (ours, theirs) = (ours.subscribe(words), theirs.subscribe(words));
                    let judgement = judge_all(words, &ours, &theirs);
                    at += usize::from(matches!(judgement, Judgement::Same));
                    judgement
                }
            };
            match judged {
                Judgement::Same => {}
                Judgement::Intended => return Outcome::Diverged(at),
                Judgement::Different(request, ours, theirs) => {
                    return Outcome::Different(Difference { step: at, request, ours, theirs });
                }
            }
        }
        theirs.subscribe(&words("PING last"));
        let expected = theirs.messages(0);
        let messages = judge_all(&words("all messages"), ours.messages(expected.len()), expected);
        if let Judgement::Different(request, ours, theirs) = messages {
            return Outcome::Different(Difference { step: steps.len(), request, ours, theirs });
        }
        compare_states(&mut ours.control, &mut theirs.control, steps.len())
    }

    /// The shortest sequence that shows a difference, by leaving out steps of this one.
    pub(super) fn shrink(self, steps: &[Step], found: Difference) -> (Vec<Step>, Difference) {
        let (mut steps, mut found) = (steps.to_vec(), found);
        let mut size = steps.len().div_ceil(2);
        loop {
            let mut at = 0;
            while at < steps.len() {
                let mut fewer = steps.clone();
                fewer.drain(at..(at + size).min(steps.len()));
                match self.run(&fewer) {
                    Outcome::Different(difference) => (steps, found) = (fewer, difference),
                    Outcome::Same | Outcome::Diverged(_) => at += size,
                }
            }
            if size == 1 {
                return (steps, found);
            }
            size = size.div_ceil(2);
        }
    }
}

fn request(step: &Step) -> Option<&Words> {
    match step {
        Step::Call(_, words, _) => Some(words),
        Step::Wait(..) | Step::Subscribe(_) => None,
    }
}

/// What the comparison of two replies says.
enum Judgement {
    Same,
    Intended,
    Different(String, String, String),
}

fn judge(
    words: &Words,
    rule: Rule,
    ours: &Reply,
    theirs: &Reply,
    queue: &mut Vec<(Words, Rule)>,
) -> Judgement {
    let different = || Judgement::Different(Shown(words).to_string(), ours.to_string(), theirs.to_string());
    let is_queued = |reply: &Reply| matches!(reply, Reply::Line(line) if line == "+QUEUED");
    if is_queued(ours) && is_queued(theirs) {
        queue.push((words.clone(), rule));
        return Judgement::Same;
    }
    let name = words.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    if name == b"EXEC"
        && ours.error().is_none()
        && let (Reply::Many(_, a), Reply::Many(_, b)) = (ours, theirs)
    {
        let queued = std::mem::take(queue);
        if a.len() != b.len() || a.len() != queued.len() {
            return different();
        }
        let judgements = queued.iter().zip(a.iter().zip(b));
        let mut judgements =
            judgements.map(|((words, rule), (a, b))| judge(words, *rule, a, b, &mut Vec::new()));
        return judgements.find(|judgement| !matches!(judgement, Judgement::Same)).unwrap_or(Judgement::Same);
    }
    // MULTI inside a transaction is an error, and the transaction goes on.
    if name == b"EXEC" || name == b"DISCARD" || name == b"RESET" || name == b"MULTI" && ours.error().is_none()
    {
        queue.clear();
    }
    if rule.accepts(ours, theirs) {
        Judgement::Same
    } else if let Some(difference) = intended::find(words, ours, theirs) {
        if difference.keeps_state { Judgement::Same } else { Judgement::Intended }
    } else {
        different()
    }
}

/// Sends a pop and, if it waits, commands that may serve it. Returns all requests and replies.
fn wait<'s>(
    ours: &mut Side,
    theirs: &mut Side,
    pop: &'s Words,
    meanwhile: &'s [Words],
) -> Vec<(&'s Words, Reply, Reply)> {
    let waits = [ours.send_pop(pop), theirs.send_pop(pop)];
    let mut replies = Vec::new();
    let mut popped = None;
    if waits == [true, true] {
        for words in meanwhile {
            replies.push((words, ours.call(words), theirs.call(words)));
            // Ours may serve it shortly after the reply.
            if popped.is_none() && !theirs.is_blocked() {
                popped = Some((ours.waiter.reply(), theirs.waiter.reply()));
            }
        }
    }
    let (a, b) = popped.unwrap_or_else(|| {
        ours.unblock();
        theirs.unblock();
        (ours.waiter.reply(), theirs.waiter.reply())
    });
    replies.push((pop, a, b));
    replies
}

fn judge_all(words: &Words, ours: &[Reply], theirs: &[Reply]) -> Judgement {
    // Without arguments, a subscriber leaves all its channels, in no order.
    let (leaves_all, is_hello) = (words.len() == 1, words[0].eq_ignore_ascii_case(b"HELLO"));
    let accepts = |(ours, theirs)| if is_hello { Rule::Kind.accepts(ours, theirs) } else { ours == theirs };
    let same = if leaves_all {
        without_names(ours) == without_names(theirs)
    } else {
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(accepts)
    };
    if same {
        return Judgement::Same;
    }
    let text = |replies: &[Reply]| replies.iter().map(Reply::to_string).collect::<Vec<_>>().join("; ");
    Judgement::Different(Shown(words).to_string(), text(ours), text(theirs))
}

/// Replies to a subscriber that leaves channels: all but the names in order, and the names sorted.
fn without_names(replies: &[Reply]) -> (Vec<Reply>, Vec<Reply>) {
    let mut names = Vec::new();
    let rest = replies.iter().map(|reply| match reply {
        Reply::Many(kind, parts) if parts.len() == 3 => {
            names.push(parts[1].clone());
            Reply::Many(*kind, vec![parts[0].clone(), parts[2].clone()])
        }
        reply => reply.clone(),
    });
    let rest = rest.collect();
    names.sort();
    (rest, names)
}

/// Compares all keys of the databases that sequences use.
fn compare_states(ours: &mut Link, theirs: &mut Link, step: usize) -> Outcome {
    let mut both = |words: Words, rule: Rule| {
        ours.send(&[&words]);
        theirs.send(&[&words]);
        let (ours, theirs) = (ours.reply(), theirs.reply());
        if rule.accepts(&ours, &theirs) || intended::find(&words, &ours, &theirs).is_some() {
            return Ok(ours);
        }
        let request = format!("{} at the end", Shown(&words));
        Err(Difference { step, request, ours: ours.to_string(), theirs: theirs.to_string() })
    };
    let mut compare = || {
        for database in ["SELECT 0", "SELECT 1"] {
            both(words(database), Rule::Exact)?;
            both(words("KEYS *"), Rule::Unordered)?;
            for key in keys() {
                let with_key = |line: &str| {
                    let mut request = words(line);
                    request.insert(1, key.clone());
                    request
                };
                let kind = both(with_key("TYPE"), Rule::Exact)?.to_string();
                let (line, rule) = match kind.as_str() {
                    "+string" => ("GET", Rule::Exact),
                    "+hash" => ("HGETALL", Rule::Pairs),
                    "+list" => ("LRANGE 0 -1", Rule::Exact),
                    "+set" => ("SMEMBERS", Rule::Unordered),
                    "+zset" => ("ZRANGE 0 -1 WITHSCORES", Rule::Exact),
                    _ => continue,
                };
                both(with_key(line), rule)?;
                both(with_key("PTTL"), Rule::Near(5000))?;
            }
        }
        Ok(())
    };
    match compare() {
        Ok(()) => Outcome::Same,
        Err(difference) => Outcome::Different(difference),
    }
}

/// Steps of one sequence.
const SEQUENCE_STEPS: usize = 100;
/// Differences after which a run ends.
const DIFFERENCES_MAX: usize = 20;

/// Runs random sequences until they have this number of steps. Panics with the shortest example of
/// each difference: one for each command.
pub(super) fn run_random(pair: Pair, seed: u64, steps: u64) {
    let mut random = Random::new(seed);
    let mut done = 0;
    let mut differences = BTreeMap::new();
    while done < steps && differences.len() < DIFFERENCES_MAX {
        let seed = random.next();
        let steps = plan(&mut Random::new(seed), SEQUENCE_STEPS);
        done += match pair.run(&steps) {
            Outcome::Same => steps.len() as u64,
            Outcome::Diverged(step) => step as u64 + 1,
            Outcome::Different(found) => {
                let step = found.step as u64 + 1;
                let name = found.request.split(' ').next().unwrap_or_default().to_ascii_uppercase();
                let report = differences.entry(name);
                report.or_insert_with(|| describe(seed, pair.shrink(&steps, found)));
                step
            }
        };
    }
    let reports: Vec<_> = differences.into_values().collect();
    assert!(reports.is_empty(), "{}", reports.join("\n"));
}

/// Runs the sequence of this seed, which may have failed before.
pub(super) fn run_one(pair: Pair, seed: u64) {
    let steps = plan(&mut Random::new(seed), SEQUENCE_STEPS);
    if let Outcome::Different(found) = pair.run(&steps) {
        panic!("{}", describe(seed, pair.shrink(&steps, found)));
    }
}

fn describe(seed: u64, (steps, found): (Vec<Step>, Difference)) -> String {
    let steps: String = steps.iter().map(|step| format!("  {step}\n")).collect();
    let Difference { step, request, ours, theirs } = found;
    format!(
        "OCTOSTORE_TEST_SEED={seed}\n{steps}step {step}: {request}\n  octostore: {ours}\n  redis:     {theirs}\n"
    )
}
