//! Networks of servers, in network namespaces of this machine: a bridge, and behind each of its ports
//! a namespace that stands for a server. They need root and the tools; without them each test says
//! loudly that it was left out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod dhcp;
mod firewall;
mod golden;
mod lab;
mod quota;
mod rates;
