//! The server as its users see it: over sockets, as a process, on files.

mod clients;
mod corpus;
mod crash;
mod docs;
mod faults;
mod hostile;
mod http;
mod linearizability;
mod power_loss;
mod process;
mod random;
mod redis_itself;
mod replies;
mod scripts;
mod simulation;
mod steps;
mod storage;
mod subscribers;
mod tidy;
mod turns;
mod waiting;
mod wire;
