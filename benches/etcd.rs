//! Locks on one etcd, of one server and of three: durable cycles of a leader in front of it, and locks made of an etcd
//! lease and a transaction each, in turn on the same servers.
//!
//! `cargo bench --features etcd --bench etcd`; `BENCH_SECONDS` (2) is the length of one measurement, `BENCH_ROUNDS` (3) how
//! many the median is of. Needs etcd.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod support;

#[path = "../tests/it/support/port.rs"]
mod port;
#[path = "../tests/it/support/etcd.rs"]
#[allow(dead_code, unreachable_pub, reason = "the bench uses a part of it")]
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use octostore::clock::Clock;
use octostore::config::Config;
use octostore::journal::StoreAddress;
use octostore::journal::etcd::{EtcdBackend, connect};
use octostore::server::Server;
use support::{Idiom, Load, cycles, median, number, seconds};
use tokio::runtime::Runtime;

const CONNECTIONS: u64 = 50;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .on_thread_park(octostore::journal::commit_before_park)
        .enable_all()
        .build()
        .unwrap();
    println!("| locks on one etcd, {CONNECTIONS} connections | cycles per s |");
    println!("|---|---|");
    for members in [1, 3] {
        let Some(etcd) = server::Etcd::start_with(members, |_| Vec::new()) else { return };
        measure(&runtime, &StoreAddress::parse(&etcd.store("locks")).unwrap(), members);
    }
}

/// Prints the rates on an etcd of this number of servers.
fn measure(runtime: &Runtime, store: &StoreAddress, members: usize) {
    let addr = runtime.block_on(serve(store));
    let pipelines = [1, 16];
    let (mut own, mut plain) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..number("BENCH_ROUNDS").unwrap_or(3) {
        for (measured, pipeline) in own.iter_mut().zip(pipelines) {
            let load = Load { connections: CONNECTIONS, pipeline, time: seconds(2.0) };
            measured.push(cycles(addr, &Idiom::Native, load).cycles_per_s);
        }
        plain.push(runtime.block_on(plain_cycles(store, seconds(2.0))));
    }
    let (plain, servers) = (median(plain), if members == 1 { "1 server" } else { "3 servers" });
    for (measured, pipeline) in own.into_iter().zip(pipelines) {
        let rate = median(measured);
        println!("| octostore, pipelines of {pipeline}, {servers} | {rate:.0} ({:.1} times) |", rate / plain);
    }
    println!("| etcd lease and transaction for each lock, {servers} | {plain:.0} |");
}

/// Starts a leader. Returns where its clients connect.
async fn serve(store: &StoreAddress) -> SocketAddr {
    let mut client = connect(store).await.unwrap();
    let elected = client.put(store.key("leader"), "{}", None).await.unwrap();
    let epoch = elected.header().unwrap().revision();
    let config = Config::with(&["--listen", "127.0.0.1:0", "--http", "off"]).unwrap();
    let open = || EtcdBackend::open(store, epoch).map(|backend| Box::new(backend) as _);
    let server = Server::start_with(&config, Clock::system(), open).await.unwrap();
    let addr = server.address();
    tokio::spawn(server.run(std::future::pending()));
    addr
}

/// Cycles per second of clients that each grant a lease, take a lock with it, and revoke it.
async fn plain_cycles(store: &StoreAddress, time: Duration) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (store, done) = (store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut client = connect(&store).await.unwrap();
                while started.elapsed() < time {
                    plain_cycle(&mut client, &format!("/plain/{number}")).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

async fn plain_cycle(client: &mut Client, key: &str) {
    let lease = client.lease_grant(30, None).await.unwrap().id();
    let put = TxnOp::put(key, "me", Some(PutOptions::new().with_lease(lease)));
    let is_free = Compare::create_revision(key, CompareOp::Equal, 0);
    let taken = client.txn(Txn::new().when([is_free]).and_then([put])).await.unwrap();
    assert!(taken.succeeded(), "{key} is free");
    client.lease_revoke(lease).await.unwrap();
}
