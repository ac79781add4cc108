//! Domains, which is what libvirt calls servers: defined by XML, started, changed, stopped.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    connection::Connection,
    fault::Fault,
    message::Program,
    xdr::{Reader, Writer},
};

const CREATE_XML: i32 = 10;
const GET_XML: i32 = 14;
const LOOKUP_BY_UUID: i32 = 24;
const REBOOT: i32 = 27;
const RESUME: i32 = 28;
const SUSPEND: i32 = 34;
const ATTACH_DEVICE: i32 = 160;
const DETACH_DEVICE: i32 = 161;
const ABORT_JOB: i32 = 164;
const UPDATE_DEVICE: i32 = 174;
const CREATE: i32 = 196;
const SET_VCPUS: i32 = 199;
const SET_MEMORY: i32 = 204;
const GET_STATE: i32 = 212;
const PIN_VCPU: i32 = 225;
const UNDEFINE: i32 = 231;
const DESTROY: i32 = 234;
const BLOCK_RESIZE: i32 = 251;
const SET_BLOCK_IO_TUNE: i32 = 252;
const GET_BLOCK_IO_TUNE: i32 = 253;
const SHUTDOWN: i32 = 258;
const LIST: i32 = 273;
const PIN_EMULATOR: i32 = 279;
const DEFINE: i32 = 350;
const QEMU_MONITOR: i32 = 1;
const QEMU_AGENT: i32 = 3;

/// A domain as libvirt names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Unique on the host.
    pub name: String,
    /// Unique everywhere, and kept across hosts.
    pub uuid: Uuid,
    /// While it runs, otherwise none.
    pub id: Option<u32>,
}

impl Domain {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (name, uuid) = (reader.text()?, reader.uuid()?);
        Ok(Self { name, uuid, id: u32::try_from(reader.int()?).ok() })
    }
}

impl Writer {
    pub(crate) fn domain(self, domain: &Domain) -> Self {
        let id = domain.id.map_or(-1, |id| i32::try_from(id).unwrap_or(-1));
        self.text("the domain's name", &domain.name).uuid(domain.uuid).int(id)
    }
}

/// Whether a domain runs: `virDomainState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody knows.
    None,
    /// It runs.
    Running,
    /// It waits for a resource.
    Blocked,
    /// Its processors are held.
    Paused,
    /// The guest is shutting down.
    ShuttingDown,
    /// It is off.
    Off,
    /// It crashed, and is kept for a look.
    Crashed,
    /// The guest has put itself to sleep.
    Asleep,
    /// A state that came after this was written.
    Other(i32),
}

impl From<i32> for State {
    fn from(number: i32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Running,
            2 => Self::Blocked,
            3 => Self::Paused,
            4 => Self::ShuttingDown,
            5 => Self::Off,
            6 => Self::Crashed,
            7 => Self::Asleep,
            other => Self::Other(other),
        }
    }
}

impl State {
    /// Whether there is a process.
    pub fn is_active(self) -> bool {
        !matches!(self, Self::None | Self::Off)
    }
}

/// Why a domain is in its state: a number that means something together with the state.
pub type Reason = i32;

/// Which of a domain's two descriptions a change is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affects {
    /// What runs when it runs, otherwise what is started next.
    Current,
    /// What runs.
    Live,
    /// What is started next.
    Config,
    /// Both.
    Both,
}

impl Affects {
    fn flags(self) -> u32 {
        match self {
            Self::Current => 0,
            Self::Live => 1,
            Self::Config => 2,
            Self::Both => 3,
        }
    }
}

/// CPUs as libvirt takes them: one bit each, from the lowest of the first byte on.
fn map(cpus: &[u32]) -> Vec<u8> {
    let bytes = cpus.iter().max().map_or(0, |most| *most as usize / 8 + 1);
    let mut map = vec![0_u8; bytes];
    for cpu in cpus {
        map[*cpu as usize / 8] |= 1 << (cpu % 8);
    }
    map
}

/// How a guest is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// As the driver likes best.
    Any,
    /// By the power button.
    PowerButton,
    /// By its agent.
    Agent,
}

impl Shutdown {
    fn flags(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::PowerButton => 1,
            Self::Agent => 2,
        }
    }
}

/// What goes with a definition that is removed. Whatever is not named keeps it from being removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// The memory that was saved of it goes.
    pub saved_memory: bool,
    /// What libvirt knows of its snapshots goes; the snapshots stay.
    pub snapshots: bool,
    /// The firmware's variables go.
    pub firmware: bool,
    /// What libvirt knows of its checkpoints goes.
    pub checkpoints: bool,
}

impl Leave {
    fn flags(self) -> u32 {
        let bits = [(self.saved_memory, 1), (self.snapshots, 2), (self.firmware, 4)];
        let bits = bits.into_iter().chain([(self.checkpoints, 16)]);
        bits.filter(|(is, _)| *is).map(|(_, bit)| bit).sum()
    }
}

/// A value of libvirt's typed parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `int`.
    Int(i32),
    /// `unsigned int`.
    Uint(u32),
    /// `long long`.
    Long(i64),
    /// `unsigned long long`.
    Ulong(u64),
    /// `double`.
    Double(f64),
    /// `boolean`.
    Boolean(bool),
    /// `string`.
    Text(String),
}

/// Most limits of a disk that can be asked for at once: `REMOTE_DOMAIN_BLOCK_IO_TUNE_PARAMETERS_MAX`.
const LIMITS_MAX: i32 = 32;

type Parameters = Vec<(String, Value)>;

fn read_parameters(reader: &mut Reader<'_>) -> Result<Parameters, Fault> {
    reader.list(|reader| {
        let name = reader.text()?;
        let value = match reader.int()? {
            1 => Value::Int(reader.int()?),
            2 => Value::Uint(reader.uint()?),
            3 => Value::Long(reader.signed_hyper()?),
            4 => Value::Ulong(reader.hyper()?),
            5 => Value::Double(reader.double()?),
            6 => Value::Boolean(reader.int()? != 0),
            7 => Value::Text(reader.text()?),
            _ => return Err(Fault::Malformed("a parameter has an unknown type")),
        };
        Ok((name, value))
    })
}

/// What of a disk's traffic is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Bytes a second read.
    ReadBytes,
    /// Bytes a second written.
    WriteBytes,
    /// Operations a second that read.
    ReadOperations,
    /// Operations a second that write.
    WriteOperations,
    /// Bytes a second read, for as long as [`Limit::ReadBytesBurstSeconds`].
    ReadBytesBurst,
    /// Bytes a second written, in a burst.
    WriteBytesBurst,
    /// Operations a second that read, in a burst.
    ReadOperationsBurst,
    /// Operations a second that write, in a burst.
    WriteOperationsBurst,
    /// How long such a burst lasts, in seconds.
    ReadBytesBurstSeconds,
    /// How long such a burst lasts, in seconds.
    WriteBytesBurstSeconds,
    /// How long such a burst lasts, in seconds.
    ReadOperationsBurstSeconds,
    /// How long such a burst lasts, in seconds.
    WriteOperationsBurstSeconds,
}

impl Limit {
    /// Every limit, with libvirt's name for it.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::ReadBytes, "read_bytes_sec"),
        (Self::WriteBytes, "write_bytes_sec"),
        (Self::ReadOperations, "read_iops_sec"),
        (Self::WriteOperations, "write_iops_sec"),
        (Self::ReadBytesBurst, "read_bytes_sec_max"),
        (Self::WriteBytesBurst, "write_bytes_sec_max"),
        (Self::ReadOperationsBurst, "read_iops_sec_max"),
        (Self::WriteOperationsBurst, "write_iops_sec_max"),
        (Self::ReadBytesBurstSeconds, "read_bytes_sec_max_length"),
        (Self::WriteBytesBurstSeconds, "write_bytes_sec_max_length"),
        (Self::ReadOperationsBurstSeconds, "read_iops_sec_max_length"),
        (Self::WriteOperationsBurstSeconds, "write_iops_sec_max_length"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, name)| name)
    }
}

/// A disk's limits; one that is not named is none.
pub type Limits = std::collections::BTreeMap<Limit, u64>;

/// What happened to a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// To which.
    pub domain: Domain,
    /// What: `virDomainEventType`; 0 defined, 1 undefined, 2 started, 3 suspended, 4 resumed,
    /// 5 stopped, 6 shut down, 7 asleep, 8 crashed.
    pub event: i32,
    /// How it came to it, a number that means something together with the event.
    pub detail: i32,
}

impl Lifecycle {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let domain = Domain::read(reader)?;
        Ok(Self { domain, event: reader.int()?, detail: reader.int()? })
    }
}

/// What an agent answered, as JSON; none when it answers nothing.
pub type Ran = Option<String>;

impl Connection {
    /// A call about a domain, with flags behind it.
    pub(crate) async fn flagged(
        &self,
        procedure: i32,
        of: &Domain,
        flags: u32,
    ) -> Result<Vec<u8>, Fault> {
        let arguments = Writer::default().domain(of).uint(flags);
        self.call(Program::REMOTE, procedure, arguments).await
    }

    /// All domains, defined or running.
    pub async fn domains(&self) -> Result<Vec<Domain>, Fault> {
        let arguments = Writer::default().int(1).uint(0);
        let answer = self.call(Program::REMOTE, LIST, arguments).await?;
        Reader::new(&answer).list(Domain::read)
    }

    /// The domain of this UUID.
    pub async fn domain(&self, uuid: Uuid) -> Result<Domain, Fault> {
        let arguments = Writer::default().uuid(uuid);
        let answer = self.call(Program::REMOTE, LOOKUP_BY_UUID, arguments).await?;
        Domain::read(&mut Reader::new(&answer))
    }

    /// Defines a domain, or changes what is started next. The XML is checked against libvirt's
    /// schema.
    ///
    /// The first goes alone: several checks that are a daemon's first ones, at one moment, find its XML
    /// library's types half made, and some are refused for it (libvirt 9.0 with libxml2 2.9).
    pub async fn define(&self, xml: &str) -> Result<Domain, Fault> {
        /// `VIR_DOMAIN_DEFINE_VALIDATE`.
        const VALIDATE: u32 = 1;
        let ask = || {
            let arguments = Writer::default().text("the domain's XML", xml).uint(VALIDATE);
            self.call(Program::REMOTE, DEFINE, arguments)
        };
        let mut first = None;
        let alone = async {
            first = Some(ask().await?);
            Ok::<_, Fault>(())
        };
        self.has_schema.get_or_try_init(|| alone).await?;
        let answer = match first {
            Some(answer) => answer,
            None => ask().await?,
        };
        Domain::read(&mut Reader::new(&answer))
    }

    /// Removes a definition; what runs goes on without one.
    pub async fn undefine(&self, domain: &Domain, leave: Leave) -> Result<(), Fault> {
        self.flagged(UNDEFINE, domain, leave.flags()).await.map(drop)
    }

    /// Starts what is defined, at once or with its processors held. What a driver says of one that
    /// runs already differs: its state tells.
    pub async fn start(&self, domain: &Domain, paused: bool) -> Result<Domain, Fault> {
        let arguments = Writer::default().domain(domain).uint(u32::from(paused));
        let answer = self.call_slow(CREATE, arguments).await?;
        Domain::read(&mut Reader::new(&answer))
    }

    /// Runs a description that is kept for this one time: what is defined under its UUID stays.
    pub async fn run(&self, xml: &str) -> Result<Domain, Fault> {
        self.run_as(xml, false).await
    }

    /// The same; held from its first instruction on where it is to be.
    pub async fn run_as(&self, xml: &str, paused: bool) -> Result<Domain, Fault> {
        let arguments = Writer::default().text("the domain's XML", xml).uint(u32::from(paused));
        let answer = self.call_slow(CREATE_XML, arguments).await?;
        Domain::read(&mut Reader::new(&answer))
    }

    /// Asks the guest to stop; it may take its time, or not care.
    pub async fn shutdown(&self, domain: &Domain, how: Shutdown) -> Result<(), Fault> {
        self.flagged(SHUTDOWN, domain, how.flags()).await.map(drop)
    }

    /// Asks the guest to start anew.
    pub async fn reboot(&self, domain: &Domain, how: Shutdown) -> Result<(), Fault> {
        self.flagged(REBOOT, domain, how.flags()).await.map(drop)
    }

    /// Takes the power away.
    pub async fn destroy(&self, domain: &Domain) -> Result<(), Fault> {
        self.flagged(DESTROY, domain, 0).await.map(drop)
    }

    /// Holds its processors.
    pub async fn suspend(&self, domain: &Domain) -> Result<(), Fault> {
        self.call(Program::REMOTE, SUSPEND, Writer::default().domain(domain)).await.map(drop)
    }

    /// Lets its processors go on.
    pub async fn resume(&self, domain: &Domain) -> Result<(), Fault> {
        self.call(Program::REMOTE, RESUME, Writer::default().domain(domain)).await.map(drop)
    }

    /// Whether it runs, and why.
    pub async fn state(&self, domain: &Domain) -> Result<(State, Reason), Fault> {
        let answer = self.flagged(GET_STATE, domain, 0).await?;
        let mut reader = Reader::new(&answer);
        Ok((reader.int()?.into(), reader.int()?))
    }

    /// Its XML: of what is started next, or of what runs.
    pub async fn xml(&self, domain: &Domain, of: Affects) -> Result<String, Fault> {
        /// `VIR_DOMAIN_XML_INACTIVE`.
        const INACTIVE: u32 = 2;
        let flags = if of == Affects::Config { INACTIVE } else { 0 };
        Reader::new(&self.flagged(GET_XML, domain, flags).await?).text()
    }

    async fn device(
        &self,
        procedure: i32,
        domain: &Domain,
        xml: &str,
        affects: Affects,
    ) -> Result<(), Fault> {
        let arguments = Writer::default().domain(domain).text("the device's XML", xml);
        let arguments = arguments.uint(affects.flags());
        self.call(Program::REMOTE, procedure, arguments).await.map(drop)
    }

    /// Adds a device.
    pub async fn attach(&self, to: &Domain, xml: &str, affects: Affects) -> Result<(), Fault> {
        self.device(ATTACH_DEVICE, to, xml, affects).await
    }

    /// Takes a device away. Of a domain that runs the guest is asked to let it go, and whether it did
    /// is told by the XML alone.
    pub async fn detach(&self, from: &Domain, xml: &str, affects: Affects) -> Result<(), Fault> {
        self.device(DETACH_DEVICE, from, xml, affects).await
    }

    /// Changes a device.
    pub async fn update(&self, of: &Domain, xml: &str, affects: Affects) -> Result<(), Fault> {
        self.device(UPDATE_DEVICE, of, xml, affects).await
    }

    /// Sets how many processors it has.
    pub async fn set_vcpus(
        &self,
        domain: &Domain,
        count: u32,
        affects: Affects,
    ) -> Result<(), Fault> {
        let arguments = Writer::default().domain(domain).uint(count).uint(affects.flags());
        self.call(Program::REMOTE, SET_VCPUS, arguments).await.map(drop)
    }

    /// Sets how much memory it has, in KiB.
    pub async fn set_memory(
        &self,
        domain: &Domain,
        kib: u64,
        affects: Affects,
    ) -> Result<(), Fault> {
        let arguments = Writer::default().domain(domain).hyper(kib).uint(affects.flags());
        self.call(Program::REMOTE, SET_MEMORY, arguments).await.map(drop)
    }

    /// Lets one of its processors run on these of the host alone.
    pub async fn pin(
        &self,
        domain: &Domain,
        vcpu: u32,
        cpus: &[u32],
        affects: Affects,
    ) -> Result<(), Fault> {
        let map = map(cpus);
        let arguments = Writer::default().domain(domain).uint(vcpu).opaque("the map", &map);
        let arguments = arguments.uint(affects.flags());
        self.call(Program::REMOTE, PIN_VCPU, arguments).await.map(drop)
    }

    /// Lets everything that it does beside its processors' work run on these of the host alone.
    pub async fn pin_emulator(
        &self,
        domain: &Domain,
        cpus: &[u32],
        affects: Affects,
    ) -> Result<(), Fault> {
        let arguments = Writer::default().domain(domain).opaque("the map", &map(cpus));
        let arguments = arguments.uint(affects.flags());
        self.call(Program::REMOTE, PIN_EMULATOR, arguments).await.map(drop)
    }

    /// Tells a domain that a disk of it has become larger, or makes it so, in bytes.
    pub async fn resize_disk(&self, domain: &Domain, disk: &str, bytes: u64) -> Result<(), Fault> {
        /// `VIR_DOMAIN_BLOCK_RESIZE_BYTES`.
        const BYTES: u32 = 1;
        let arguments = Writer::default().domain(domain).text("the disk", disk);
        let arguments = arguments.hyper(bytes).uint(BYTES);
        self.call(Program::REMOTE, BLOCK_RESIZE, arguments).await.map(drop)
    }

    /// Sets a disk's limits: all that are not named go.
    pub async fn set_limits(
        &self,
        domain: &Domain,
        disk: &str,
        limits: &Limits,
        affects: Affects,
    ) -> Result<(), Fault> {
        let now = match affects {
            // Both are not told in one answer.
            Affects::Both => {
                let mut now = self.limits(domain, disk, Affects::Live).await?;
                now.extend(self.limits(domain, disk, Affects::Config).await?);
                now
            }
            _ => self.limits(domain, disk, affects).await?,
        };
        self.change_limits(domain, disk, &now, limits, affects).await
    }

    /// Changes a disk's limits from what is known to be there, without a look: who is wrong about it
    /// leaves limits that nobody wants.
    pub async fn change_limits(
        &self,
        domain: &Domain,
        disk: &str,
        now: &Limits,
        limits: &Limits,
        affects: Affects,
    ) -> Result<(), Fault> {
        // What is not sent stays as it is, and what is none is not sent needlessly: a burst of
        // nothing beside a limit is refused by some drivers, as is a burst's length without one.
        let sent = Limit::ALL.iter().filter_map(|(limit, name)| {
            let (wanted, now) = (limits.get(limit).copied(), now.get(limit).copied());
            (wanted.is_some() || now.is_some()).then(|| (*name, wanted.unwrap_or_default()))
        });
        let sent: Vec<_> = sent.collect();
        if sent.is_empty() {
            return Ok(());
        }
        let arguments = Writer::default().domain(domain).text("the disk", disk);
        let mut arguments = arguments.uint(sent.len() as u32);
        for (name, value) in sent {
            /// `VIR_TYPED_PARAM_ULLONG`.
            const ULONG: i32 = 4;
            arguments = arguments.text("a limit", name).int(ULONG).hyper(value);
        }
        let arguments = arguments.uint(affects.flags());
        self.call(Program::REMOTE, SET_BLOCK_IO_TUNE, arguments).await.map(drop)
    }

    /// A disk's limits as they are in one of its descriptions; both at once are refused.
    pub async fn limits(&self, domain: &Domain, disk: &str, of: Affects) -> Result<Limits, Fault> {
        let arguments = Writer::default().domain(domain);
        let arguments = arguments.optional("the disk", Some(disk)).int(LIMITS_MAX);
        let answer = self.call(Program::REMOTE, GET_BLOCK_IO_TUNE, arguments.uint(of.flags()));
        let parameters = read_parameters(&mut Reader::new(&answer.await?))?;
        let limit = |(name, value): (String, Value)| {
            let limit = Limit::ALL.iter().find(|(limit, _)| limit.name() == name)?.0;
            match value {
                Value::Ulong(value) if value > 0 => Some((limit, value)),
                _ => None,
            }
        };
        let mut limits: Limits = parameters.into_iter().filter_map(limit).collect();
        // Without a burst its length means nothing, and is told as one second all the same.
        for (burst, length) in [
            (Limit::ReadBytesBurst, Limit::ReadBytesBurstSeconds),
            (Limit::WriteBytesBurst, Limit::WriteBytesBurstSeconds),
            (Limit::ReadOperationsBurst, Limit::ReadOperationsBurstSeconds),
            (Limit::WriteOperationsBurst, Limit::WriteOperationsBurstSeconds),
        ] {
            if !limits.contains_key(&burst) {
                limits.remove(&length);
            }
        }
        Ok(limits)
    }

    /// Breaks off what goes on with a domain in the background, such as a migration.
    pub async fn abort_job(&self, domain: &Domain) -> Result<(), Fault> {
        self.call(Program::REMOTE, ABORT_JOB, Writer::default().domain(domain)).await.map(drop)
    }

    /// Hands a command to the guest's agent and waits so long for its answer.
    pub async fn agent(
        &self,
        domain: &Domain,
        command: &str,
        patience: Duration,
    ) -> Result<Ran, Fault> {
        /// The daemon gives up first, so that its reason is known.
        const AHEAD: Duration = Duration::from_secs(5);
        let seconds = i32::try_from(patience.as_secs().max(1)).unwrap_or(i32::MAX);
        let arguments = Writer::default().domain(domain).text("the agent's command", command);
        let arguments = arguments.int(seconds).uint(0);
        let answer =
            self.call_within(patience + AHEAD, Program::QEMU, QEMU_AGENT, arguments).await?;
        Reader::new(&answer).optional()
    }

    /// Hands a command to QEMU's monitor, past libvirt, and gives its answer, both as JSON. For what libvirt
    /// has no procedure of; it marks the domain with that.
    pub async fn monitor(&self, domain: &Domain, command: &str) -> Result<String, Fault> {
        let arguments = Writer::default().domain(domain).text("the monitor's command", command);
        let answer = self.call(Program::QEMU, QEMU_MONITOR, arguments.uint(0)).await?;
        Reader::new(&answer).text()
    }
}
