//! The server as its users see it: over sockets, as a process, on files.

mod clients;
mod crash;
mod hostile;
mod http;
mod process;
mod scripts;
mod tidy;
mod waiting;
mod wire;
