//! A machine that others run, on its way to a host of ours, while it runs; with a way back until the last step.
//!
//! ```text
//!         begin         confirm-prepared    confirm-copied       cut-over       confirm-stopped
//! absent ─────► preparing ─────────► copying ──────────► ready ──────────► stopping ─────┐
//!                   ▲ copy-again                          │ copy-again                    ▼
//!                   └─────────────────────────────────────┘              closing ◄────────┘
//!                                                                           │ confirm-closed
//!           finish            arrive                                        ▼
//! finished ◄─────── moved ◄─────────────────────────────────────────── starting
//!
//! go-back from where its server was never started:   releasing ─────► clearing ─────► gone-back
//!              confirm-released ──────────────────────────┘   target-gone ──┘
//! go-back from starting and moved:   giving-up ─────► releasing ─────► gone-back
//!                       target-gone ─────┘
//! ```
//!
//! It is begun by the append that launches its server, which has its place, its addresses and its disks from then
//! on, and waits. Then each step is an order, of the host that it comes to (*prepare*, *close*) or of the place
//! that it is in (*copy*, *stop*, *release*), and each is confirmed before the next: so at every moment it is
//! known which of the two may run. The server is started only after its place has said that the machine is off and
//! all of it is here; the machine is started again only after nothing of the server is left.

pub mod machine;

use core::net::IpAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use self::machine::SourceMachine;
use super::{
    placement::HostId,
    server::{home::Launch, parts::part_id},
};
use crate::kernel::{
    Companion, Decider, Facets, OnHost, Orders, Outstanding, Refusal, Stamp, Verb, codes,
};

/// What a move can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "MoveInOrder")]
pub enum Order {
    /// Take nothing more in: all of it is here.
    Close {},
    /// Have the machine write its disks to the host that it goes to, until that has all of them.
    Copy {
        /// Where to.
        landing: Landing,
    },
    /// Have empty disks on the host that it goes to, which the machine can write.
    Prepare {},
    /// Let the machine be as it was.
    Release {
        /// Whether it is to run.
        start: bool,
    },
    /// Stop the machine when all of it is here, and keep it stopped.
    Stop {
        /// Whether its system is asked to stop; it is cut off otherwise.
        shut_down: bool,
        /// The numbers of its disks.
        disks: Vec<u32>,
        /// Where the last of it goes; none where nobody said so then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        landing: Option<Landing>,
    },
}

/// Where a machine's disks are written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MoveInLanding")]
pub struct Landing {
    /// The host's address.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// Names these disks: others are made each time that they are made anew. None where the host does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filling: Option<Uuid>,
    /// What each disk is called there.
    pub disks: Vec<LandingDisk>,
}

/// A disk that is written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MoveInLandingDisk")]
pub struct LandingDisk {
    /// Its number in the machine.
    pub index: u32,
    /// What it is called on the host.
    pub name: String,
}

/// What a launch says of the machine that its server is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MoveInAsk")]
pub struct Ask {
    /// The cloud account that has the machine.
    pub account: Uuid,
    /// The machine, by its id there.
    pub machine: String,
    /// As it was looked at: one that is another by now is not moved.
    #[serde(default)]
    pub digest: Option<String>,
    /// What it is: found out by Skyledger, and of no use to callers.
    #[serde(default)]
    pub found: Option<Box<Source>>,
}

/// A machine that is moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MoveInSource")]
pub struct Source {
    /// The move's own id.
    pub id: Uuid,
    /// Who has the machine, for instance `cloudpods`.
    pub provider: String,
    /// The machine.
    pub machine: SourceMachine,
}

/// What a move is begun with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MoveInBeginning")]
pub struct Beginning {
    /// What its server is called.
    pub name: String,
    /// Whose it is; none is the estate's.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// The account that has the machine.
    pub account: Uuid,
    /// The machine.
    pub source: Source,
    /// Its server here.
    pub server: Uuid,
    /// The host that it goes to.
    pub host: HostId,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "MoveInStage")]
pub enum Stage {
    /// It was not begun.
    #[default]
    Absent,
    /// The host that it goes to makes ready.
    Preparing,
    /// Its disks are copied while it runs.
    Copying,
    /// All of it is here, and what it writes comes as well.
    Ready,
    /// It is stopped.
    Stopping,
    /// The host takes nothing more in.
    Closing,
    /// Its server is started here.
    Starting,
    /// Its server has been started here; the machine is kept, stopped.
    Moved,
    /// It is here for good.
    Finished,
    /// Its server is to be gone, and then the machine is to run again.
    GivingUp,
    /// The machine is to be as it was.
    Releasing,
    /// What is here of it is to be gone.
    Clearing,
    /// The machine is as it was, and nothing of it is here.
    GoneBack,
}

/// A command of a move.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "MoveInCommand")]
pub enum Command {
    /// Its server was started.
    Arrive {},
    /// Its server was launched.
    Begin(Box<Beginning>),
    /// The host takes nothing more in.
    ConfirmClosed {
        /// The order's number.
        number: u64,
    },
    /// All of it is here.
    ConfirmCopied {
        /// The order's number.
        number: u64,
    },
    /// The host is ready.
    ConfirmPrepared {
        /// The order's number.
        number: u64,
        /// Where its disks are written to.
        landing: Landing,
    },
    /// The machine is as it was.
    ConfirmReleased {
        /// The order's number.
        number: u64,
    },
    /// The machine is off, and all of it was here before.
    ConfirmStopped {
        /// The order's number.
        number: u64,
    },
    /// Copy all of it again: what was copied is behind, or the host has lost it.
    CopyAgain {},
    /// Stop the machine, and start its server here.
    CutOver {
        /// Cut it off in place of asking its system to stop: what that had not written is lost, as with a
        /// power cut.
        #[serde(default)]
        cut_off: bool,
    },
    /// Be done with it: there is no way back from then on. The machine stays as it is, stopped.
    Finish {},
    /// Have the machine run as it did, and nothing of it here.
    GoBack {},
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Go on with the order that is parked.
    Retry {},
    /// Nothing of its server is left.
    TargetGone {},
}

/// A fact about a move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "MoveInEvent")]
pub enum Event {
    /// Its server was started.
    Arrived {},
    /// Its server was launched, and waits.
    Begun {
        /// What it is.
        beginning: Box<Beginning>,
    },
    /// The host takes nothing more in.
    Closed {
        /// The order's number.
        number: u64,
    },
    /// All of it is here.
    Copied {
        /// The order's number.
        number: u64,
    },
    /// The machine is to be stopped, and its server started.
    CutOverOrdered {
        /// Whether its system is asked to stop.
        shut_down: bool,
    },
    /// There is no way back.
    Finished {},
    /// The machine is as it was, and nothing of it is here.
    GoneBack {},
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// The host is to make ready, again.
    PreparationOrdered {},
    /// The host is ready.
    Prepared {
        /// The order's number.
        number: u64,
        /// Where its disks are written to.
        landing: Landing,
    },
    /// The machine is to be as it was.
    ReleaseOrdered {
        /// Whether it is to run.
        start: bool,
    },
    /// A parked order goes on.
    RetryOrdered {},
    /// The machine is as it was.
    SourceReleased {
        /// The order's number.
        number: u64,
    },
    /// The machine is off, and all of it was here before.
    SourceStopped {
        /// The order's number.
        number: u64,
    },
    /// Its server is to be gone before the machine runs again.
    TargetGivenUp {},
    /// Nothing of its server is left.
    TargetGone {},
}

/// A machine on its way to a host of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MoveIn {
    /// What it is; none before it was begun.
    pub beginning: Option<Box<Beginning>>,
    /// How far it is.
    pub stage: Stage,
    /// Whether nothing of its server is left.
    #[serde(default)]
    pub target_gone: bool,
    /// Where its disks are written to; none before the host was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landing: Option<Landing>,
    /// What is wanted of it.
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::system("arrive", "Reports that its server was started."),
    Verb::system("begin", "Reports that its server was launched, and waits.").creating(),
    Verb::system("confirm-closed", "Reports that the host takes nothing more in."),
    Verb::system("confirm-copied", "Reports that all of it is here."),
    Verb::system("confirm-prepared", "Reports that the host is ready."),
    Verb::system("confirm-released", "Reports that the machine is as it was."),
    Verb::system("confirm-stopped", "Reports that the machine is off, and all of it here."),
    Verb::operator("copy-again", "Copies all of it again; the machine runs on."),
    Verb::operator("cut-over", "Stops the machine, and starts its server here."),
    Verb::operator("finish", "Is done with it: there is no way back from then on."),
    Verb::operator("go-back", "Has the machine run as it did, and nothing of it here."),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::operator("retry", "Goes on with the parked order."),
    Verb::system("target-gone", "Reports that nothing of its server is left."),
];

/// The move that a server is launched by.
pub fn id_of(server: Uuid) -> Uuid {
    part_id(server, "move-in", 0)
}

impl Launch {
    /// Whether what is moved here fits what is launched for it.
    ///
    /// # Errors
    /// `invalid-field`, `not-movable-in`.
    pub(in crate::compute) fn check_move_in(&self) -> Result<(), Refusal> {
        let Some(ask) = &self.move_in else { return Ok(()) };
        let no = |detail: &str| Refusal::new(&codes::INVALID_FIELD, format!("move_in: {detail}"));
        let found = ask.found.as_ref().ok_or_else(|| no("nobody looked at the machine"))?;
        let machine = &found.machine;
        if let Some(first) = machine.obstacles().first() {
            return Err(Refusal::new(&codes::NOT_MOVABLE_IN, first.detail.clone()));
        }
        let (here, there) = (&self.disks, &machine.disks);
        if self.image.is_some() || here.iter().any(|disk| disk.from.is_some()) {
            return Err(no("its disks are the machine's: leave image and backups out"));
        }
        if here.iter().any(|disk| disk.storage.is_some()) {
            return Err(no("its disks come to the host alone: leave storages out"));
        }
        let fits = here.len() == there.len()
            && here.iter().zip(there).all(|(here, there)| here.size_gib << 30 >= there.size_bytes);
        if !fits {
            return Err(no("it has as many disks as the machine, each at least as large"));
        }
        Ok(())
    }

    /// What is said of its move when it is launched, on this host.
    pub(in crate::compute) fn begin_move_in(
        &self,
        server: Uuid,
        host: HostId,
    ) -> Option<Companion> {
        let ask = self.move_in.as_ref()?;
        let source = ask.found.as_deref()?.clone();
        let beginning = Beginning {
            name: self.name.clone(),
            project: self.project,
            account: ask.account,
            source,
            server,
            host,
        };
        let (id, body) = (beginning.source.id, json!(beginning));
        Some(Companion { kind: MoveIn::KIND, id, verb: "begin", body })
    }
}

impl MoveIn {
    /// The machine.
    pub fn machine(&self) -> Option<&SourceMachine> {
        self.beginning.as_ref().map(|beginning| &beginning.source.machine)
    }

    fn order_is(&self, is: impl Fn(&Order) -> bool) -> bool {
        self.orders.out.as_ref().is_some_and(|out| is(&out.order))
    }

    /// Whether the order that is out has this number and is of this sort.
    fn is_out(&self, number: u64, is: impl Fn(&Order) -> bool) -> bool {
        self.orders.is_out(number) && self.order_is(is)
    }

    fn is_parked(&self) -> bool {
        self.orders.out.as_ref().is_some_and(|out| out.parked.is_some())
    }

    fn no(&self, verb: &str) -> Refusal {
        Refusal::wrong_state(verb, Decider::status(self))
    }

    fn copy_again(&self) -> Result<Vec<Event>, Refusal> {
        match self.stage {
            Stage::Ready => {}
            // What stood in the way of stopping it may be that not all of it is here.
            Stage::Preparing | Stage::Copying | Stage::Stopping if self.is_parked() => {}
            _ => return Err(self.no("copy-again")),
        }
        Ok(vec![Event::PreparationOrdered {}])
    }

    fn go_back(&self) -> Result<Vec<Event>, Refusal> {
        Ok(match self.stage {
            Stage::Preparing | Stage::Copying | Stage::Ready => {
                vec![Event::ReleaseOrdered { start: false }]
            }
            // What is being done to the machine is waited for.
            Stage::Stopping if !self.is_parked() => {
                self.orders.ensure_free()?;
                vec![]
            }
            Stage::Stopping | Stage::Closing => vec![Event::ReleaseOrdered { start: true }],
            Stage::Starting | Stage::Moved if self.target_gone => {
                vec![Event::ReleaseOrdered { start: true }]
            }
            Stage::Starting | Stage::Moved => vec![Event::TargetGivenUp {}],
            Stage::GivingUp | Stage::Releasing | Stage::Clearing | Stage::GoneBack => vec![],
            Stage::Absent | Stage::Finished => return Err(self.no("go-back")),
        })
    }

    fn target_is_gone(&self) -> Vec<Event> {
        match self.stage {
            _ if self.target_gone => vec![],
            Stage::Clearing => vec![Event::TargetGone {}, Event::GoneBack {}],
            Stage::GivingUp => vec![Event::TargetGone {}, Event::ReleaseOrdered { start: true }],
            Stage::Absent | Stage::Finished | Stage::GoneBack => vec![],
            _ => vec![Event::TargetGone {}],
        }
    }

    fn tell_server(&self, verb: &'static str) -> Option<Companion> {
        let server = self.beginning.as_ref()?.server;
        Some(Companion { kind: "server", id: server, verb, body: json!({}) })
    }
}

impl Decider for MoveIn {
    const KIND: &'static str = "move-in";
    const PLURAL: &'static str = "move-ins";
    const SUMMARY: &'static str = "A machine that others run, on its way to a host of ours.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let stage = self.stage;
        Ok(match command {
            Command::Arrive {} if stage == Stage::Starting => vec![Event::Arrived {}],
            Command::Begin(beginning) if stage == Stage::Absent => vec![Event::Begun { beginning }],
            Command::Begin(_) => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the move has begun"));
            }
            Command::ConfirmClosed { number }
                if self.is_out(number, |order| matches!(order, Order::Close {})) =>
            {
                vec![Event::Closed { number }]
            }
            Command::ConfirmCopied { number }
                if self.is_out(number, |order| matches!(order, Order::Copy { .. })) =>
            {
                vec![Event::Copied { number }]
            }
            Command::ConfirmPrepared { number, landing }
                if self.is_out(number, |order| matches!(order, Order::Prepare {})) =>
            {
                vec![Event::Prepared { number, landing }]
            }
            Command::ConfirmReleased { number }
                if self.is_out(number, |order| matches!(order, Order::Release { .. })) =>
            {
                let released = Event::SourceReleased { number };
                if self.target_gone { vec![released, Event::GoneBack {}] } else { vec![released] }
            }
            Command::ConfirmStopped { number }
                if self.is_out(number, |order| matches!(order, Order::Stop { .. })) =>
            {
                vec![Event::SourceStopped { number }]
            }
            Command::CopyAgain {} => self.copy_again()?,
            Command::CutOver { .. } if stage != Stage::Ready => return Err(self.no("cut-over")),
            Command::CutOver { cut_off } => vec![Event::CutOverOrdered { shut_down: !cut_off }],
            Command::Finish {} if stage == Stage::Finished => vec![],
            Command::Finish {} if stage != Stage::Moved => return Err(self.no("finish")),
            Command::Finish {} => vec![Event::Finished {}],
            Command::GoBack {} => self.go_back()?,
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                // The host may have lost what it was made ready with.
                let copies = self.order_is(|order| matches!(order, Order::Copy { .. }));
                vec![if copies { Event::PreparationOrdered {} } else { Event::RetryOrdered {} }]
            }
            Command::TargetGone {} => self.target_is_gone(),
            // A report about an order that is settled already says nothing new.
            Command::Arrive {}
            | Command::ConfirmClosed { .. }
            | Command::ConfirmCopied { .. }
            | Command::ConfirmPrepared { .. }
            | Command::ConfirmReleased { .. }
            | Command::ConfirmStopped { .. }
            | Command::Park { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        let mut to = |stage: Stage, order: Option<Order>| {
            self.stage = stage;
            match order {
                Some(order) => self.orders.issue(order),
                None => self.orders.settle(),
            }
        };
        match event {
            Event::Arrived {} => to(Stage::Moved, None),
            Event::Begun { beginning } => {
                to(Stage::Preparing, Some(Order::Prepare {}));
                self.beginning = Some(beginning);
            }
            Event::Closed { .. } => to(Stage::Starting, None),
            Event::Copied { .. } => to(Stage::Ready, None),
            Event::CutOverOrdered { shut_down } => {
                let machine = self.beginning.as_ref().map(|beginning| &beginning.source.machine);
                let disks = machine.iter().flat_map(|machine| &machine.disks);
                let disks = disks.map(|disk| disk.index).collect();
                self.stage = Stage::Stopping;
                let landing = self.landing.clone();
                self.orders.issue(Order::Stop { shut_down, disks, landing });
            }
            Event::Finished {} => to(Stage::Finished, None),
            Event::GoneBack {} => to(Stage::GoneBack, None),
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::PreparationOrdered {} => to(Stage::Preparing, Some(Order::Prepare {})),
            Event::Prepared { landing, .. } => {
                to(Stage::Copying, Some(Order::Copy { landing: landing.clone() }));
                self.landing = Some(landing);
            }
            Event::ReleaseOrdered { start } => to(Stage::Releasing, Some(Order::Release { start })),
            Event::RetryOrdered {} => self.orders.retry(),
            Event::SourceReleased { .. } => to(Stage::Clearing, None),
            Event::SourceStopped { .. } => to(Stage::Closing, Some(Order::Close {})),
            Event::TargetGivenUp {} => to(Stage::GivingUp, None),
            Event::TargetGone {} => self.target_gone = true,
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        match self.stage {
            _ if self.is_parked() => "parked",
            Stage::Absent => "absent",
            Stage::Preparing => "preparing",
            Stage::Copying => "copying",
            Stage::Ready => "ready",
            Stage::Stopping => "stopping",
            Stage::Closing => "closing",
            Stage::Starting | Stage::Moved if self.target_gone => "target-gone",
            Stage::Starting => "starting",
            Stage::Moved => "moved",
            Stage::Finished => "finished",
            Stage::GivingUp => "giving-up",
            Stage::Releasing => "releasing",
            Stage::Clearing => "clearing",
            Stage::GoneBack => "gone-back",
        }
    }

    fn facets(&self) -> Facets {
        let Some(beginning) = &self.beginning else { return Facets::default() };
        Facets {
            name: Some(beginning.name.clone()),
            project: beginning.project,
            account: Some(beginning.account),
            provider: Some(beginning.source.provider.clone()),
            external_id: Some(beginning.source.machine.id.clone()),
            parent: Some(beginning.server.to_string()),
            gone: matches!(self.stage, Stage::Finished | Stage::GoneBack),
            ..Facets::default()
        }
    }

    fn on_host(&self) -> Option<OnHost> {
        let here = self.order_is(|order| matches!(order, Order::Close {} | Order::Prepare {}));
        let beginning = self.beginning.as_ref().filter(|_| here)?;
        Some(OnHost { host: beginning.host.uuid(), server: Some(beginning.server) })
    }

    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let of = |event: &Event| match event {
            Event::Closed { .. } => self.tell_server("come-in"),
            Event::SourceReleased { .. } if !self.target_gone => self.tell_server("give-up"),
            Event::TargetGivenUp {} => self.tell_server("give-up"),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests;
