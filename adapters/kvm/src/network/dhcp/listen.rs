//! Listens on bridges, and answers.
//!
//! A socket of each family hears what comes up a bridge; the kernel hands on nothing but questions of that
//! bridge. An answer goes out where the question came in.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketType, netdevice},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::Told;

/// What is told on each bridge.
pub type Answers = BTreeMap<String, Vec<Told>>;

/// The protocols whose frames are heard.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// The longest question that is read, in bytes.
const QUESTION_MAX: usize = 2_048;

/// Who listens on bridges.
#[derive(Debug, Default)]
pub struct Listeners(BTreeMap<String, Listener>);

#[derive(Debug)]
struct Listener {
    /// The bridge's number: one that was made again has another.
    number: u32,
    /// For each family.
    sockets: [Socket; 2],
    told: Vec<Told>,
}

impl Listeners {
    /// Tells this from now on, and nothing else. A bridge that is not there is tried again the next time.
    ///
    /// # Errors
    /// No socket can be had: that needs `CAP_NET_RAW`.
    pub fn tell(&mut self, answers: &Answers) -> io::Result<()> {
        self.0.retain(|bridge, _| answers.contains_key(bridge));
        for (bridge, told) in answers {
            let Some(number) = number(bridge)? else {
                self.0.remove(bridge);
                continue;
            };
            match self.0.get_mut(bridge).filter(|listener| listener.number == number) {
                Some(listener) if listener.told == *told => {}
                Some(listener) => listener.told.clone_from(told),
                None => {
                    let listener = Listener::new(number, told.clone())?;
                    self.0.insert(bridge.clone(), listener);
                }
            }
        }
        Ok(())
    }

    /// Answers what is asked within this time. It waits as long, and does nothing else meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hear(&self, during: Duration) -> io::Result<()> {
        let all = self.0.values();
        let all = all.flat_map(|one| one.sockets.iter().map(move |socket| (socket, &one.told)));
        let all: Vec<_> = all.collect();
        let mut ready: Vec<_> =
            all.iter().map(|(socket, _)| PollFd::new(*socket, PollFlags::IN)).collect();
        let limit = Timespec {
            tv_sec: i64::try_from(during.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: during.subsec_nanos().into(),
        };
        match poll(&mut ready, Some(&limit)) {
            // A signal that does not end this process.
            Err(rustix::io::Errno::INTR) => return Ok(()),
            polled => polled?,
        };
        for ((socket, told), ready) in all.iter().zip(&ready) {
            if ready.revents().is_empty() {
                continue;
            }
            if let Err(fault) = answer(socket, told) {
                // A bridge that is going, or is full: what is asked again is heard again.
                tracing::warn!(%fault, "a question is not answered");
            }
        }
        Ok(())
    }
}

/// The kernel's number of an interface; none when there is no such.
fn number(interface: &str) -> io::Result<Option<u32>> {
    let any = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(&any, interface).ok())
}

impl Listener {
    fn new(number: u32, told: Vec<Told>) -> io::Result<Self> {
        let listen = |protocol: u16, filter: Vec<SockFilter>| {
            let wire = i32::from(protocol.to_be());
            let kind = Type::RAW.nonblocking().cloexec();
            let socket = Socket::new_raw(Domain::PACKET, kind, Some(Protocol::from(wire)))?;
            socket.attach_filter(&filter)?;
            Ok::<_, io::Error>(socket)
        };
        let v4 = listen(IPV4, questions_v4(number))?;
        let v6 = listen(IPV6, questions_v6(number))?;
        Ok(Self { number, sockets: [v4, v6], told })
    }
}

/// Answers one question.
fn answer(socket: &Socket, told: &[Told]) -> io::Result<()> {
    // Who sent it says by which interface it came, and goes with the answer as it is.
    let sender = socket.peek_sender()?;
    let mut question = [0; QUESTION_MAX];
    let length = (&mut &*socket).read(&mut question)?;
    let question = question.get(..length).unwrap_or_default();
    // At most a few hundred.
    if let Some(reply) = told.iter().find_map(|told| told.answer(question)) {
        socket.send_to(&reply, &sender)?;
    }
    Ok(())
}

/// The kernel's filters of packets (classic BPF): instructions, and what they look at besides the packet.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_BEYOND: u16 = 0x48;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const IS: u16 = 0x15;
const HAS: u16 = 0x45;
const TAKE: u16 = 0x06;
/// Where the number of the interface is to be had.
const INTERFACE: u32 = 0xffff_f000 + 8;

/// Whole UDP packets for port 67, from one interface. Each of the steps says how many to go on when it holds
/// and when not; the last but one takes a frame, the last leaves it.
fn questions_v4(interface: u32) -> Vec<SockFilter> {
    let step = SockFilter::new;
    vec![
        step(LOAD_WORD, 0, 0, INTERFACE),
        step(IS, 0, 8, interface),
        step(LOAD_BYTE, 0, 0, 23),
        step(IS, 0, 6, 17),
        step(LOAD_HALF, 0, 0, 20),
        step(HAS, 4, 0, 0x1fff),
        step(LOAD_HEADER_LENGTH, 0, 0, 14),
        step(LOAD_HALF_BEYOND, 0, 0, 16),
        step(IS, 0, 1, 67),
        step(TAKE, 0, 0, QUESTION_MAX as u32),
        step(TAKE, 0, 0, 0),
    ]
}

/// UDP packets for port 547, and who asks for routers, from one interface.
fn questions_v6(interface: u32) -> Vec<SockFilter> {
    let step = SockFilter::new;
    vec![
        step(LOAD_WORD, 0, 0, INTERFACE),
        step(IS, 0, 8, interface),
        step(LOAD_BYTE, 0, 0, 20),
        step(IS, 3, 0, 17),
        step(IS, 0, 5, 58),
        step(LOAD_BYTE, 0, 0, 54),
        step(IS, 2, 3, 133),
        step(LOAD_HALF, 0, 0, 56),
        step(IS, 0, 1, 547),
        step(TAKE, 0, 0, QUESTION_MAX as u32),
        step(TAKE, 0, 0, 0),
    ]
}
