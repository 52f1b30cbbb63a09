//! The server as its users see it: over sockets, as a process, on files.

mod backlog;
mod backup;
mod cli;
mod clients;
#[cfg(feature = "etcd")]
mod cluster;
mod corpus;
mod crash;
mod differential;
mod docs;
mod durable_replies;
#[cfg(feature = "etcd")]
mod etcd;
mod examples;
mod faults;
mod health;
mod http;
mod linearizability;
mod malformed_input;
mod power_loss;
mod process;
mod scripting;
mod scripts;
mod secrets;
mod simulation;
mod steps;
mod storage;
mod subscribers;
mod supervisor;
mod support;
mod tidy;
mod tls;
mod tokens;
mod turns;
mod users;
mod waiting;
