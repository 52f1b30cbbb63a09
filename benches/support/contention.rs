//! Many clients that want one key, and how they fare.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::{Idiom, encode, key, owner};

/// What the waiting of many clients for one key comes to.
pub struct Contention {
    pub per_s: f64,
    /// Jain's index of the grants of each client: 1 is perfectly even.
    pub fairness: f64,
    pub p99_over_mean: f64,
}

/// Clients on one key.
const CONTENDERS: usize = 50;

/// 50 clients take turns with one key for `time`.
pub fn contend(addr: SocketAddr, idiom: &Idiom, time: Duration) -> Contention {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let are_ready = Arc::new(Barrier::new(CONTENDERS + 1));
        let contend = |n| contender(addr, idiom.clone(), n as u64, Arc::clone(&are_ready), time);
        let tasks: Vec<_> = (0..CONTENDERS).map(|n| tokio::spawn(contend(n))).collect();
        are_ready.wait().await;
        let started = Instant::now();
        let mut waits: Vec<Vec<f64>> = Vec::new();
        for task in tasks {
            waits.push(task.await.unwrap());
        }
        let elapsed = started.elapsed().as_secs_f64();
        let counts: Vec<f64> = waits.iter().map(|waits| waits.len() as f64).collect();
        let (sum, squares) =
            (counts.iter().sum::<f64>(), counts.iter().map(|count| count * count).sum::<f64>());
        let mut all: Vec<f64> = waits.into_iter().flatten().collect();
        all.sort_by(f64::total_cmp);
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        Contention {
            per_s: sum / elapsed,
            fairness: sum * sum / (CONTENDERS as f64 * squares),
            p99_over_mean: all[all.len() * 99 / 100] / mean,
        }
    })
}

/// Returns how long each wait for the key took, in seconds.
async fn contender(
    addr: SocketAddr,
    idiom: Idiom,
    n: u64,
    are_ready: Arc<Barrier>,
    time: Duration,
) -> Vec<f64> {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    let (key, owner) = (key(0), owner(n));
    let take = match idiom {
        Idiom::Native => encode(&["LOCK", &key, &owner, "PX", "30000", "WAIT", "60000"]),
        _ => idiom.take(&key, &owner),
    };
    let give_back = idiom.give_back(&key, &owner);
    // The first turn is not measured: the server has to accept the connection.
    take_turn(&mut stream, &take, &give_back, None).await;
    are_ready.wait().await;
    let end = Instant::now() + time;
    let mut waits = Vec::new();
    while Instant::now() < end {
        waits.extend(take_turn(&mut stream, &take, &give_back, Some(end)).await);
    }
    waits
}

/// Takes the key and gives it back. Returns how long the wait for it took; `None`: longer than until
/// `end`.
async fn take_turn(
    stream: &mut BufReader<TcpStream>,
    take: &[u8],
    give_back: &[u8],
    end: Option<Instant>,
) -> Option<f64> {
    let mut line = String::new();
    let asked = Instant::now();
    loop {
        stream.get_mut().write_all(take).await.unwrap();
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        if !line.starts_with("$-1") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        if end.is_some_and(|end| Instant::now() > end) {
            return None;
        }
    }
    let wait = asked.elapsed().as_secs_f64();
    stream.get_mut().write_all(give_back).await.unwrap();
    line.clear();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with(":1"), "{line}");
    Some(wait)
}
