//! The grammar: every command, flag and help text.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use adapters_console::format::Format;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::subject::{Subject, SubjectParser};
use crate::{config::LogFormat, connection::Connection};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the world failed: server unreachable, disk full, order parked
  2  the command line, the configuration or the body does not read
  3  a rule, or the token's role or reach, said no
  4  there is no such thing
  5  something got in between: stale plan, other revision, conflict
  6  a digest, a signature or a proof does not hold
  7  logged, but its order was not done within --wait";

const EXAMPLES: &str = "\
Examples:
  skyledger demo                                  a tour in under a minute
  skyledger serve --data /var/lib/skyledger       a server on 127.0.0.1:7878
  skyledger get servers --filter 'status = running'
  skyledger get sg web --at 10m -o yaml           as it was ten minutes ago
  skyledger declare sg -f web.yaml --dry-run      what would happen
  skyledger why sg web state.seen.rules           who changed that, and when
  skyledger audit verify ledger.jsonl --key witness.pub";

/// An event-sourced ledger for private and public clouds.
///
/// Every change is an event in one append-only log; everything you read is a projection of it, now
/// or at any past moment; nothing changes without a plan.
#[derive(Debug, Parser)]
#[command(name = "skyledger", version, propagate_version = true, max_term_width = 100)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give up an order that is parked
    Abandon(Target),
    /// Take what is seen in the cloud as what is wanted: ends the drift here
    Accept(Target),
    /// Take over something discovered: wanted as it is seen
    Adopt(Target),
    /// Work for a host: carry out the orders of its servers; runs on that host, for ever
    #[command(after_help = "Examples:\n  skyledger create host --set name=kvm-1\n  \
        skyledger token create kvm-1 --host kvm-1             a token for that agent alone\n  \
        skyledger agent --server https://ledger:7878 --token-file /etc/skyledger/token \\\n      \
        --data /var/lib/skyledger-agent\n  \
        skyledger agent --check                               whether this machine has all it needs\n  \
        skyledger agent --simulated                           a host in memory, for trials")]
    Agent(AgentOptions),
    /// Whose costs are: every line placed by a rule set, what is shared spread
    #[command(after_help = "Examples:\n  skyledger create rule-set -f rules.yaml\n  \
        skyledger allocate costs --draft               what the draft would change\n  \
        skyledger do rule-set publish costs\n  skyledger allocate costs --month 2026-10")]
    Allocate(Allocate),
    /// Recognise what was paid in advance day by day: makes the bills' lines of these months
    #[command(after_help = "Examples:\n  skyledger create commitment -f reservation.yaml\n  \
        skyledger amortise 2026-10 --dry-run\n  skyledger amortise 2026-01 2026-12\n  \
        skyledger amortise 2026-03 --reason 'the plan was upgraded'      a month that is closed")]
    Amortise(RunMonths),
    /// Heads, proofs, and the offline verifier
    Audit {
        #[command(subcommand)]
        command: Audit,
    },
    /// Bills: files in; `get bills` lists them, `do bill close ID` closes a month
    Bill {
        #[command(subcommand)]
        command: Bill,
    },
    /// Places where bills lie as files; `get bill-sources` lists them
    BillSource {
        #[command(subcommand)]
        command: BillSources,
    },
    /// Where budgets stand: spent, forecast, alerts
    #[command(
        after_help = "Examples:\n  skyledger create budget -f shop.yaml\n  skyledger budgets\n  \
        skyledger budgets --evaluate\n\nExample (shop.yaml):\n  name: shop\n  allowance:\n    \
        period: month\n    amount: \"1000\"\n    currency: EUR\n    from: 2026-01\n    \
        conditions: [{dimension: tags.team, values: [shop]}]\n    alerts:\n    - {on: actual, percent: \
        80}\n    - {on: forecast, percent: 100}"
    )]
    Budgets(Budgets),
    /// Read and compare every record of a store
    Check(Place),
    /// Shell completions: `skyledger completions bash > /etc/bash_completion.d/skyledger`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Look at a server of ours: its serial line here, its screen or remote desktop for a viewer
    #[command(after_help = "Examples:\n  skyledger console web            Ctrl-] leaves\n  \
        skyledger console web --vnc      then: vncviewer 127.0.0.1:5900\n  \
        skyledger console web --vnc --open   in a browser\n  \
        skyledger console web --type rdp     then: xfreerdp /v:127.0.0.1:13389\n\n\
        Nobody else on the server's way needs a port or a password: a ticket for one use opens it.")]
    Console(Console),
    /// What bills come to, by group; or, with --explain, where a number comes from
    #[command(after_help = "Examples:\n  skyledger costs --by service\n  \
        skyledger costs --month 2026-10 --by sub_account,tags.env --basis effective\n  \
        skyledger costs --filter 'service = \"Amazon EC2\"' --explain\n  \
        skyledger costs --by node,project,month --allocated\n  \
        skyledger costs --by project --currency EUR --repriced\n  \
        skyledger costs --filter 'project = shop' --explain\n\n\
        Dimensions: billing_account, billing_mode, charge_category, commitment, \
        commitment_status, currency, day, invoice, issuer, month, quarter, region, resource, \
        resource_name, resource_type, service, service_category, sku, sub_account, unit, year, \
        tags.<key>; by rules and estate: domain, node, level.<name>, placed_by, project, rule, \
        effective_tags.<key>, resource_tags.<key>, project_tags.<key>, inventory.<column>")]
    Costs(Costs),
    /// Create a resource: the kind's own first command (connect, create, declare, issue)
    #[command(after_help = "Examples:\n  skyledger create project --set name=shop\n  \
        skyledger create account -f account.yaml --wait\n\n\
        Example (account.yaml, an AWS account):\n  name: prod\n  provider: aws\n  credential:\n    \
        access_key_id: AKIA…\n    secret_access_key: …\n    \
        role_arn: arn:aws:iam::123456789012:role/skyledger    # optional, as are external_id,\n    \
        # session_token, and region (one of the account's partition)")]
    Create(Create),
    /// Say what a mapped resource is to be; creates or changes its counterpart
    #[command(
        after_help = "Example (web.yaml):\n  account: prod\n  region: eu-central-1\n  spec:\n    \
        name: web\n    rules:\n    - {direction: ingress, protocol: tcp, ports: \"443\", \
        peer: {cidr: 0.0.0.0/0}}\n\n  skyledger declare sg -f web.yaml --dry-run\n  \
        skyledger declare sg -f web.yaml --wait"
    )]
    Declare(Declare),
    /// A tour: a simulated cloud, drift, a plan, time travel, a crash, an audit
    #[command(after_help = "Examples:\n  skyledger demo\n  skyledger demo --no-serve\n  \
        skyledger demo --aws-endpoint http://127.0.0.1:5000")]
    Demo(Demo),
    /// Everything worth knowing about one resource
    Describe(Describe),
    /// Look at costs by the rules that watch them, and tell what is not as it should be
    #[command(after_help = "Examples:\n  skyledger create anomaly-rule -f services.yaml\n  \
        skyledger detect\n  skyledger get anomalies --filter 'status = open'\n  \
        skyledger do anomaly explain ID --set 'text=the autumn sale'\n\n\
        Example (services.yaml):\n  name: services\n  watch:\n    group_by: [service]\n    \
        detector: {statistical: {sensitivity: medium, minimum: \"20\"}}\n    \
        calendar: {days_of_month: [1]}")]
    Detect(Output),
    /// Devices of a host that servers can have: free, reserved, attached or lost, and how many are left
    #[command(
        after_help = "A server asks for them by kind and model, in `spec.devices`.\n\nExamples:\n  \
        skyledger devices kvm-1\n  skyledger devices kvm-1 -o json"
    )]
    Devices(Devices),
    /// What differs between two moments
    #[command(after_help = "Examples:\n  skyledger diff --from 1h\n  \
        skyledger diff --from 1200 --to 1300 security-groups")]
    Diff(Diff),
    /// Send any command to any resource
    #[command(
        name = "do",
        after_help = "Examples:\n  skyledger do server tag web-1 --set tags.env=prod\n  \
        skyledger do account sync prod --set 'regions=[eu-central-1]' --wait\n  \
        skyledger do sg declare -f web.yaml --dry-run"
    )]
    Do(Do),
    /// Which servers of a host can go elsewhere, where to, and what is in the way of the others
    #[command(
        after_help = "Nothing is ordered by it: `do host drain` lets them go. Obstacles: bound, \
        deleted, devices, local-disks, may-have-grown, moving, no-room, order, rescued.\n\nExamples:\n  \
        skyledger drain kvm-1\n  skyledger do host drain kvm-1\n  skyledger drain kvm-1 -o json"
    )]
    Drain(Drain),
    /// Records of the log
    #[command(after_help = "Examples:\n  skyledger events --limit 20\n  \
        skyledger events --actor token:ci --follow")]
    Events(Events),
    /// Write the whole log as JSON lines with its signed tree head
    Export(Export),
    /// What comes next: costs by group, with limits, and how models did on the past
    #[command(after_help = "Examples:\n  skyledger forecast --by service\n  \
        skyledger forecast --by sub_account,region --horizon 12\n  \
        skyledger forecast --total --look-back 6        how wrong the last six were\n  \
        skyledger forecast --step day --filter 'service = \"Amazon EC2\"'\n  \
        skyledger forecast --total --driver servers     only this one; --no-drivers for none\n\n\
        What a cost depends on (planned counts, known prices, one-offs) is a driver:\n  \
        skyledger create driver -f servers.yaml\n\n\
        Example (servers.yaml):\n  name: servers\n  unit: servers\n  gaps: last\n  values:\n    \
        2026-01: 40\n    2026-09: 44\n    2026-12: 60            # planned\n  \
        scope:\n    service: [Amazon EC2]\n  \
        # price: {amount: 35.5, currency: EUR}     when it is known; else it is estimated")]
    Forecast(Forecast),
    /// List resources of a kind, rows of a view, or one resource
    #[command(
        after_help = "Examples:\n  skyledger get servers --filter 'status = running AND tags.env = prod'\n  \
        skyledger get server web-1 -o yaml\n  skyledger get disks --at 2026-01-31T12:00:00Z -o csv\n  \
        skyledger get freshness"
    )]
    Get(Get),
    /// Where money can be saved: what costs and is not used, what it rests on, and what to do
    #[command(
        after_help = "Examples:\n  skyledger hints\n  skyledger hints --unattached-days 30 -o csv\n  \
        skyledger hints --at 2026-10-01 -o json\n\nHints: commitment-ending, commitment-unused, \
        idle-server, old-snapshot, oversized-server, stopped-server, unattached-disk, unused-address"
    )]
    Hints(Hints),
    /// A resource's events, oldest first
    History(History),
    /// Images that servers are made from; `get images` lists them, `retire image NAME` removes one
    Image {
        #[command(subcommand)]
        command: Image,
    },
    /// Take an export over into an empty store, verified before the first record is written
    Import(Import),
    /// Numbers by which costs are judged: commitments, tags, unit cost, what is unallocated
    #[command(after_help = "Examples:\n  skyledger kpis --month 2026-10 --tag-keys env,team\n  \
        skyledger kpis --month 2026-10 --driver orders --quantity 120000 --rules costs")]
    Kpis(Kpis),
    /// Machines of a host that are no servers of ours, and what is in the way of adopting each
    #[command(
        after_help = "Nothing is adopted by it. Obstacles: architecture, bound, devices, differs, disk, \
        name, nic, not-defined, too-many.\n\nExamples:\n  skyledger machines kvm-1\n  \
        skyledger do host adopt kvm-1 --set machine=4b1d… --set digest=9f2c…\n  \
        skyledger do server release db"
    )]
    Machines(Machines),
    /// Everything mapped one to one, with its drift
    Mappings(List),
    /// Let the present drift stand, with a reason
    Mute(Mute),
    /// Orders that are out: pending, running, parked
    Orders(List),
    /// Where a server would go, why not on other hosts, and how many more of it there is room for
    #[command(
        after_help = "The body is what `create server` takes; nothing is launched by it. Who reaches single projects is \
        told how many hosts have no place and why, and not which.\n\nExamples:\n  \
        skyledger placements -f web.yaml\n  skyledger placements -f web.yaml --host kvm-1\n  \
        skyledger placements --set spec.vcpus=8 --set spec.memory_mib=65536 -o json"
    )]
    Placements(Placements),
    /// Price what was used by our own rates: makes the bills' lines of these months
    #[command(
        after_help = "Examples:\n  skyledger create rate-set --set settings.name=own \\\n      \
        --set settings.currency=EUR\n  \
        skyledger do rate-set set-rate own -f vcpu.yaml\n  \
        skyledger rate 2026-10 --dry-run\n  skyledger rate 2026-10\n\n\
        A day is priced when it is over. The server does it once a day for the running month."
    )]
    Rate(RunMonths),
    /// Reach a port of a guest on this host, for the bytes of standard input and output: its agent runs it
    #[command(hide = true)]
    Reach(ReachOptions),
    /// Make what is seen in the cloud what is wanted
    Reapply(Reapply),
    /// Restart a server
    Reboot(OneServer),
    /// Build a view anew from the log, beside the live one
    Rebuild(Rebuild),
    /// Fold the log again and compare with the live views
    Replay(Replay),
    /// Saved questions of costs: asked as of a moment, run and kept, fetched again
    Report {
        #[command(subcommand)]
        command: Report,
    },
    /// Tell servers of this host their addresses when they ask: its agent runs it
    #[command(hide = true)]
    Responder(ResponderOptions),
    /// Delete the counterpart and end the mapping
    Retire(Target),
    /// Go on with an order that is parked
    Retry(Target),
    /// Run a server
    #[command(
        after_help = "Examples:\n  skyledger serve\n  skyledger serve --config /etc/skyledger.toml\n  \
        SKYLEDGER_STORE_PASSWORD=… skyledger serve --store postgres://ledger@db/ledger\n  \
        skyledger serve --local-host                           this machine is a host as well\n  \
        skyledger serve --print-config > skyledger.toml"
    )]
    Serve(Serve),
    /// Machines that others run and that can be moved to hosts of ours, and what is in the way of each
    #[command(
        after_help = "Nothing is moved by it. Obstacles: architecture, bus, devices, disk, encrypted, frozen, \
        host, moving, name, nic, not-running, size, standby, too-many.\n\nExamples:\n  \
        skyledger source-machines old-cluster\n  \
        skyledger source-machines old-cluster -o json"
    )]
    SourceMachines(SourceMachines),
    /// Start a server of the cloud
    Start(OneServer),
    /// Stop a server of the cloud
    Stop(OneServer),
    /// Look at everything in a cloud account
    Sync(Sync),
    /// API tokens
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// Take in what was used, as Prometheus writes it: price that of containers, keep that of servers
    #[command(after_help = "Examples:\n  skyledger create cluster --set name=edge\n  \
        skyledger usage --cluster edge october.json\n  \
        skyledger usage --servers nodes.json\n  \
        skyledger usage --servers --label hostname nodes.prom --dry-run\n\n\
        A file is the text exposition with times, or answers of range queries in JSON.")]
    Usage(ImportUsage),
    /// The program's version
    Version,
    /// The event that last set a field of a resource: who, when, what it was before
    Why(Why),
}

/// How rows and documents are written.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Output {
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// A moment.
#[derive(Args, Clone, Debug)]
pub(crate) struct At {
    /// As it was then: a position, a time, a day, or an age (10m, 2h, 7d)
    #[arg(long, value_name = "MOMENT")]
    pub(crate) at: Option<String>,
}

/// Which bills, and which of their amounts.
#[derive(Args, Clone, Debug)]
pub(crate) struct Months {
    #[command(flatten)]
    pub(crate) span: Span,
    /// Which number: billed, contracted, effective, list, quantity
    #[arg(long, default_value = "billed")]
    pub(crate) basis: String,
}

/// Which bills.
#[derive(Args, Clone, Debug)]
pub(crate) struct Span {
    /// One billing month, such as 2026-10
    #[arg(long, conflicts_with_all = ["from_month", "to_month"])]
    pub(crate) month: Option<String>,
    /// The first billing month
    #[arg(long, value_name = "MONTH")]
    pub(crate) from_month: Option<String>,
    /// The last billing month, itself included
    #[arg(long, value_name = "MONTH")]
    pub(crate) to_month: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Allocate {
    /// The rule set, by id or name
    pub(crate) rules: String,
    /// By the draft, with what differs from the rules that count
    #[arg(long)]
    pub(crate) draft: bool,
    /// Create projects for the centres that have none, where a rule says so
    #[arg(long, conflicts_with = "draft")]
    pub(crate) create_projects: bool,
    #[command(flatten)]
    pub(crate) months: Months,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Files of what a cluster or servers used.
#[derive(Args, Clone, Debug)]
pub(crate) struct ImportUsage {
    /// The files; one of the same name takes the place of what it said before
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
    /// The cluster, by id or name
    #[arg(long, required_unless_present = "servers")]
    pub(crate) cluster: Option<String>,
    /// They are of servers, as node_exporter or libvirt's exporters tell: one summary a day is kept
    #[arg(long, conflicts_with_all = ["cluster", "reason"])]
    pub(crate) servers: bool,
    /// The label that names servers [default: instance, or uuid, instance_id, domain]
    #[arg(long, requires = "servers")]
    pub(crate) label: Option<String>,
    /// For how many seconds a sample holds at most; as far as two are apart when it is left out
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) step_s: Option<u32>,
    /// Why a closed month gets a further version
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Book nothing; show what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Which months a run makes lines of.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunMonths {
    /// The month, such as 2026-10, or the first of them
    pub(crate) month: String,
    /// The last month, itself included
    #[arg(value_name = "LAST")]
    pub(crate) to_month: Option<String>,
    /// Why a closed month gets a further version
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Book nothing; show what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What is done with bills.
#[derive(Debug, Subcommand)]
pub(crate) enum Bill {
    /// Write bills' lines as FOCUS has them, in CSV
    Export(ExportBills),
    /// Take a bill's files in: CSV by FOCUS, AWS CUR or OCI, plain or compressed
    #[command(after_help = "Examples:\n  skyledger bill import october.csv.gz\n  \
        skyledger bill import late.csv --reason 'late lines of the 31st'\n  \
        skyledger bill import october-again.csv --replace --strict\n  \
        skyledger bill import s3://our-bills/focus/ --account prod")]
    Import(ImportBill),
    /// Show bills beside what their issuers say of invoices and months
    Reconcile(ReconcileBills),
}

/// What is done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Make one from what a server's disk has, running or not, or from a backup
    #[command(after_help = "Examples:\n  skyledger image save web --name golden --wait\n  \
        skyledger image save --disk web-1 --name data --store vault\n  \
        skyledger image save --backup tuesday --name tuesday\n\n\
        A disk is backed up for it first, into the store that the image lies in then; the backup goes \
        when the image is there. What a running server has not written out is not in it: stop it first.")]
    Save(SaveImage),
    /// Upload a file: qcow2, raw, iso, vmdk, vhd or vhdx. Said again, it goes on where it was, and takes nothing twice
    #[command(after_help = "Examples:\n  skyledger image upload debian-13.qcow2\n  \
        skyledger image upload debian-13.qcow2 --name debian --store vault --project shop\n  \
        skyledger image upload server-2025.raw --os windows --firmware uefi --min-disk-gib 40\n\n\
        It is kept in a backup store: `skyledger create backup-store` says where one is.")]
    Upload(UploadImage),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SaveImage {
    /// The server whose first disk it is made from, by id or name
    #[arg(value_name = "SERVER", required_unless_present_any = ["disk", "backup"])]
    pub(crate) server: Option<String>,
    /// A disk, by id or name
    #[arg(long, conflicts_with_all = ["server", "backup"])]
    pub(crate) disk: Option<String>,
    /// A backup, by id or name
    #[arg(long, conflicts_with_all = ["server", "store"])]
    pub(crate) backup: Option<String>,
    /// What it is called
    #[arg(long)]
    pub(crate) name: String,
    /// The backup store that keeps it, by id or name; the only one that is ready when it is left out
    #[arg(long)]
    pub(crate) store: Option<String>,
    /// What it runs on; as the server when it is left out
    #[arg(long, value_parser = ["aarch64", "x86_64"])]
    pub(crate) architecture: Option<String>,
    /// What is in it; as what the server was made from when it is left out
    #[arg(long, value_parser = ["linux", "other", "windows"])]
    pub(crate) os: Option<String>,
    /// What it is started by; as the server when it is left out
    #[arg(long, value_parser = ["bios", "uefi"])]
    pub(crate) firmware: Option<String>,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UploadImage {
    /// The file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// What it is called; as the file without its ending when it is left out
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The backup store that keeps it, by id or name; the only one that is ready when it is left out
    #[arg(long)]
    pub(crate) store: Option<String>,
    /// Whose it is, by id or name; everybody's when it is left out
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// What it runs on
    #[arg(long, default_value = "x86_64", value_parser = ["aarch64", "x86_64"])]
    pub(crate) architecture: String,
    /// What is in it
    #[arg(long, default_value = "linux", value_parser = ["linux", "other", "windows"])]
    pub(crate) os: String,
    /// What it is started by; bios on x86_64 when it is left out, and uefi elsewhere
    #[arg(long, value_parser = ["bios", "uefi"])]
    pub(crate) firmware: Option<String>,
    /// The smallest disk for it, in GiB; as large as the disk in it when it is left out
    #[arg(long, value_name = "GIB")]
    pub(crate) min_disk_gib: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum BillSources {
    /// Take in what is new or has changed, and wait until that is done
    #[command(after_help = "Examples:\n  skyledger create bill-source -f aws.yaml\n  \
        skyledger bill-source pull aws\n  \
        skyledger bill-source pull aws --reason 'the issuer corrects October'\n\n\
        Example (aws.yaml):\n  name: aws\n  place:\n    account: 7d0c…        # or a credential \
        beside place, as an account has it\n    bucket: our-bills\n    prefix: focus/\n    \
        schedule: {every: day, hour: 6}")]
    Pull {
        /// Which, by id or name
        source: String,
        /// Why closed months get further versions
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ExportBills {
    /// The file; standard output when it is left out
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// The version of FOCUS: 1.4 or 1.2
    #[arg(long, value_name = "VERSION", default_value = "1.4")]
    pub(crate) focus: String,
    /// Say whose lines are by this rule set, by id or name, and share what its pools have
    #[arg(long, value_name = "RULE_SET")]
    pub(crate) rules: Option<String>,
    /// By the draft of the rules
    #[arg(long, requires = "rules")]
    pub(crate) draft: bool,
    #[command(flatten)]
    pub(crate) months: Months,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ReconcileBills {
    #[command(flatten)]
    pub(crate) span: Span,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ImportBill {
    /// The files; of a folder and those in it all that end in .csv, .csv.gz, .csv.zst or .parquet, by
    /// name; or s3://BUCKET/PREFIX
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
    /// How they are written: focus, aws-cur, aws-cur-2, oci; told by the heading when it is left out
    #[arg(long)]
    pub(crate) mapping: Option<String>,
    /// A mapping of your own, in TOML, YAML or JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "mapping")]
    pub(crate) mapping_file: Option<PathBuf>,
    /// The lines are all there are of their months: those of before count no more
    #[arg(long)]
    pub(crate) replace: bool,
    /// What becomes of lines that the bill has already, word for word: refuse, skip, count
    #[arg(long, value_name = "HOW")]
    pub(crate) repeats: Option<String>,
    /// Refuse a whole file for one line that cannot be booked
    #[arg(long)]
    pub(crate) strict: bool,
    /// Why a closed month gets a further version
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// The cloud account that reads a bucket; the environment's AWS_ACCESS_KEY_ID and its like when
    /// it is left out
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) account: Option<String>,
    /// The bucket's region
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Base URL of a store that speaks as S3 does
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What of a server is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConsoleType {
    /// A remote desktop of its guest, for a client of RDP
    Rdp,
    /// Its serial line
    #[default]
    Serial,
    /// Its screen, for a viewer of VNC
    Vnc,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Console {
    /// The server, by id or name
    #[arg(value_name = "SERVER")]
    pub(crate) of: String,
    /// What of it
    #[arg(long = "type", value_enum, default_value_t, value_name = "TYPE")]
    pub(crate) what: ConsoleType,
    /// The same as --type vnc
    #[arg(long, conflicts_with = "what")]
    pub(crate) vnc: bool,
    /// Where a viewer on this machine connects to: 127.0.0.1:5900 for a screen and 127.0.0.1:13389 for a
    /// remote desktop when it is left out
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// In a browser: says the address of the server's page, good for a minute, and opens it where it can
    #[arg(long, conflicts_with = "listen")]
    pub(crate) open: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Costs {
    /// At most four dimensions, for instance service,tags.env
    #[arg(long, value_name = "DIMENSIONS", conflicts_with = "explain")]
    pub(crate) by: Option<String>,
    #[command(flatten)]
    pub(crate) months: Months,
    /// Conditions on dimensions, for instance 'service = "Amazon*" AND tags.env = prod'
    #[arg(long, value_name = "CONDITIONS")]
    pub(crate) filter: Option<String>,
    /// Beside another period: previous, or year for the same months of the year before
    #[arg(long, value_name = "PERIOD", conflicts_with = "explain")]
    pub(crate) compare: Option<String>,
    /// In this currency, by the exchange rates of each month
    #[arg(long, value_name = "CODE")]
    pub(crate) currency: Option<String>,
    /// At the prices that re-pricings make
    #[arg(long)]
    pub(crate) repriced: bool,
    /// Decimals that rows are rounded to, so that they still come to the total
    #[arg(long, value_name = "N", conflicts_with = "explain")]
    pub(crate) digits: Option<u32>,
    /// Where the number comes from: files, events, rules, and the largest lines
    #[arg(long)]
    pub(crate) explain: bool,
    /// After what is shared is spread by the rules
    #[arg(long)]
    pub(crate) allocated: bool,
    /// Whose costs are by this rule set, by id or name; by the only published one when left out
    #[arg(long, value_name = "RULE_SET")]
    pub(crate) rules: Option<String>,
    /// By the draft of the rules
    #[arg(long, requires = "rules")]
    pub(crate) draft: bool,
    /// Nodes and levels are of this organisation, by id or name
    #[arg(long, value_name = "ORGANISATION")]
    pub(crate) organisation: Option<String>,
    /// Most groups, or most lines with --explain
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Budgets {
    /// Evaluate first, and tell what thresholds are reached
    #[arg(long)]
    pub(crate) evaluate: bool,
    /// Also the periods before
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Devices {
    /// The host, by id or name
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Placements {
    #[command(flatten)]
    pub(crate) body: Body,
    /// Only what this host says, by id or name, and how many go there
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// How many more are counted up to [default: 1000]
    #[arg(long, value_name = "SERVERS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) count_to: Option<u32>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Drain {
    /// The host, by id or name
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Hints {
    /// Days before a commitment's end from which it is told [default: 60]
    #[arg(long, value_name = "DAYS")]
    pub(crate) commitment_days: Option<u32>,
    /// MiB of network a day, in and out, below which a server is idle [default: 100]
    #[arg(long, value_name = "MIB")]
    pub(crate) idle_network_mib: Option<u32>,
    /// Percent of its processors below which a server is idle [default: 5]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) idle_percent: Option<u32>,
    /// Full days back that are looked at of what was measured of servers [default: 14]
    #[arg(long, value_name = "DAYS")]
    pub(crate) measured_days: Option<u32>,
    /// Percent of the time of these days that must be measured [default: 80]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) measured_percent: Option<u32>,
    /// Percent of a smaller shape that a server must stay below [default: 80]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) oversized_percent: Option<u32>,
    /// Days from which a snapshot is old [default: 90]
    #[arg(long, value_name = "DAYS")]
    pub(crate) snapshot_days: Option<u32>,
    /// Days from which a stopped server is told [default: 7]
    #[arg(long, value_name = "DAYS")]
    pub(crate) stopped_days: Option<u32>,
    /// Days from which a disk that is attached to nothing is told [default: 7]
    #[arg(long, value_name = "DAYS")]
    pub(crate) unattached_days: Option<u32>,
    /// Percent of a commitment's month that are not used, from which it is told [default: 10]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) unused_percent: Option<u32>,
    /// Most hints that are shown
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Kpis {
    /// One billing month, such as 2026-10
    #[arg(long, conflicts_with_all = ["from_month", "to_month"])]
    pub(crate) month: Option<String>,
    /// The first billing month
    #[arg(long, value_name = "MONTH")]
    pub(crate) from_month: Option<String>,
    /// The last billing month, itself included
    #[arg(long, value_name = "MONTH")]
    pub(crate) to_month: Option<String>,
    /// Conditions on dimensions
    #[arg(long, value_name = "CONDITIONS")]
    pub(crate) filter: Option<String>,
    /// Keys that every line must have that can have tags, for instance env,team
    #[arg(long, value_name = "KEYS")]
    pub(crate) tag_keys: Option<String>,
    /// A driver, by id or name; with --quantity, what a unit is called
    #[arg(long)]
    pub(crate) driver: Option<String>,
    /// How many units there were
    #[arg(long)]
    pub(crate) quantity: Option<String>,
    /// The rule set that says what is allocated, by id or name
    #[arg(long)]
    pub(crate) rules: Option<String>,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SourceMachines {
    /// The cloud account, by id or name
    pub(crate) account: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Machines {
    /// The host, by id or name
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What is done with reports.
#[derive(Debug, Subcommand)]
pub(crate) enum Report {
    /// Ask a report: the same bytes whenever it is asked as of the same moment
    #[command(after_help = "Examples:\n  skyledger create report -f services.yaml\n  \
        skyledger report answer services\n  \
        skyledger report answer services --at 2026-11-03 --format parquet --to services.parquet\n\n\
        Example (services.yaml):\n  name: services\n  question:\n    group_by: [service]\n    \
        months: {last: {count: 3}}\n    compare: year\n    digits: 2\n  schedule: {every: week, day: 1, \
        hour: 6}")]
    Answer {
        /// Id or name
        report: String,
        /// csv, json or parquet; its own when it is left out
        #[arg(long)]
        format: Option<String>,
        /// Where to; standard output when it is left out
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        to: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// What a run gave: of the last one, or of the one with this digest
    Fetch {
        /// Id or name
        report: String,
        /// SHA-256 of the answer
        digest: Option<String>,
        /// Where to; standard output when it is left out
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        to: Option<PathBuf>,
    },
    /// Ask a report now, and keep the answer
    Run {
        /// Id or name
        report: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Forecast {
    /// At most four dimensions [default: project,sub_account,resource_type,billing_mode]
    #[arg(long, value_name = "DIMENSIONS", conflicts_with = "total")]
    pub(crate) by: Option<String>,
    /// Everything in each currency as one series
    #[arg(long)]
    pub(crate) total: bool,
    /// Steps to forecast [default: 3 months, 30 days]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=92))]
    pub(crate) horizon: Option<u32>,
    /// How far apart values are: month or day
    #[arg(long, default_value = "month", value_parser = ["month", "day"])]
    pub(crate) step: String,
    /// The first billing month of the history; the first there is when it is left out
    #[arg(long, value_name = "MONTH")]
    pub(crate) from_month: Option<String>,
    /// The last billing month of the history; the last complete one when it is left out
    #[arg(long, value_name = "MONTH")]
    pub(crate) to_month: Option<String>,
    /// Also count the newest month, although it still runs
    #[arg(long)]
    pub(crate) running: bool,
    /// Which amount: billed, contracted, effective, list
    #[arg(long, default_value = "effective")]
    pub(crate) basis: String,
    /// Conditions on dimensions, for instance 'service = "Amazon*" AND tags.env = prod'
    #[arg(long, value_name = "CONDITIONS")]
    pub(crate) filter: Option<String>,
    /// In this currency, by the exchange rates of each month
    #[arg(long, value_name = "CODE")]
    pub(crate) currency: Option<String>,
    /// At the prices that re-pricings make
    #[arg(long)]
    pub(crate) repriced: bool,
    /// After what is shared is spread by the rules
    #[arg(long)]
    pub(crate) allocated: bool,
    /// Whose costs are by this rule set, by id or name; by the only published one when left out
    #[arg(long, value_name = "RULE_SET")]
    pub(crate) rules: Option<String>,
    /// By the draft of the rules
    #[arg(long, requires = "rules")]
    pub(crate) draft: bool,
    /// Nodes and levels are of this organisation, by id or name
    #[arg(long, value_name = "ORGANISATION")]
    pub(crate) organisation: Option<String>,
    /// Only this driver, by id or name; may be given several times; every one that fits by default
    #[arg(long, value_name = "DRIVER", conflicts_with = "no_drivers")]
    pub(crate) driver: Vec<String>,
    /// No driver at all
    #[arg(long)]
    pub(crate) no_drivers: bool,
    /// A step of the history from which another level is known to count; may be given several times
    #[arg(long, value_name = "STEP")]
    pub(crate) shift: Vec<String>,
    /// Past steps to forecast as well, each one step before, beside what came
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=24))]
    pub(crate) look_back: Option<u32>,
    /// Most series; what is beyond is forecast as one
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// One kind or view.
#[derive(Args, Clone, Debug)]
pub(crate) struct Get {
    /// Kind or view; KIND/ID also works
    #[arg(value_parser = SubjectParser::all(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Subject,
    /// Id, name or external id of one resource
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) list: List,
}

/// What of a list is shown.
#[derive(Args, Clone, Debug)]
pub(crate) struct List {
    /// Conditions, for instance 'status = running AND tags.env IN (prod, test)'
    #[arg(long, value_name = "CONDITIONS")]
    pub(crate) filter: Option<String>,
    /// At most two columns, for instance 'name desc, updated_at'
    #[arg(long, value_name = "COLUMNS")]
    pub(crate) order_by: Option<String>,
    /// Most rows
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Every row, however many
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Also what is not there any more
    #[arg(long)]
    pub(crate) show_gone: bool,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// One resource.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Kind; KIND/ID also works
    #[arg(value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Subject,
    /// Id, name or external id
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

/// How a command is sent.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Command options")]
pub(crate) struct Manner {
    /// Write nothing; show events, calls and fields, and a plan id
    #[arg(long, conflicts_with_all = ["plan_id", "wait"])]
    pub(crate) dry_run: bool,
    /// Do it only if nothing has moved since this plan
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan_id: Option<String>,
    /// Wait until the order is done or parked [default when given without a value: 60s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "60s", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// The revision the resource must have
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_match: Option<u64>,
    /// Names the command: sent again, it has no second effect
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where a body comes from.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Body")]
pub(crate) struct Body {
    /// YAML or JSON; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Sets a field, over the file: a.b=c
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Create {
    /// Kind
    #[arg(value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Subject,
    #[command(flatten)]
    pub(crate) body: Body,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Declare {
    /// Kind
    #[arg(value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Subject,
    /// Id, name or external id of one that is to change
    pub(crate) id: Option<String>,
    /// The cloud account it is to live in, by id or name
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// The provider's region
    #[arg(long)]
    pub(crate) region: Option<String>,
    #[command(flatten)]
    pub(crate) body: Body,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Do {
    /// Kind; KIND/ID also works
    #[arg(value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Subject,
    /// The kind's command; `skyledger do KIND help` lists them
    pub(crate) verb: String,
    /// Id, name or external id; left out by commands that create
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) body: Body,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Mute {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Why it may stand
    #[arg(long)]
    pub(crate) reason: String,
    /// Until when (RFC 3339); until the drift changes when it is left out
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Reapply {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Parts that are not ours stay
    #[arg(long)]
    pub(crate) keep_foreign: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct OneServer {
    /// Id, name or external id
    #[arg(value_name = "SERVER")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Sync {
    /// Id or name of the account
    #[arg(value_name = "ACCOUNT")]
    pub(crate) id: String,
    /// Only this region; may be given several times
    #[arg(long)]
    pub(crate) region: Vec<String>,
    /// Only this kind; may be given several times
    #[arg(long, value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) kind: Vec<Subject>,
    /// Agree to deletions beyond the guard
    #[arg(long)]
    pub(crate) approve_deletions: bool,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Issue a token; its secret is shown once
    ///
    /// With a store it is issued there, without a server, as admin of everything: for whoever has
    /// lost the last admin token.
    #[command(
        after_help = "Examples:\n  skyledger token create ci --role operator --project shop --expires 30d\n  \
        skyledger token create kvm-1 --host kvm-1                            (for the agent of a host)\n  \
        skyledger token create admin --data ./skyledger-data                 (server stopped, token lost)\n  \
        skyledger token create admin --config /etc/skyledger.toml            (the same, on its own store)"
    )]
    Create(TokenCreate),
    /// List tokens
    List(List),
    /// End a token at once
    Revoke {
        /// Id or name
        id: String,
        #[command(flatten)]
        manner: Manner,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct TokenCreate {
    /// What it is called; events name the actor token:NAME
    pub(crate) name: String,
    /// What it may do
    #[arg(long, value_parser = ["viewer", "operator", "admin"], default_value = "viewer")]
    pub(crate) role: String,
    /// Only this project, by id or name; may be given several times
    #[arg(long, conflicts_with = "Place")]
    pub(crate) project: Vec<String>,
    /// For the agent of this host, by id or name, and for nothing else
    #[arg(long, value_name = "HOST", conflicts_with_all = ["Place", "project", "role"])]
    pub(crate) host: Option<String>,
    /// How long it is good: 12h, 30d; at most and by default 366 days
    #[arg(long, value_name = "TIME", conflicts_with = "Place")]
    pub(crate) expires: Option<String>,
    #[command(flatten)]
    pub(crate) manner: Manner,
    #[command(flatten)]
    pub(crate) place: Option<Place>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Describe {
    /// Kind; KIND/ID also works
    #[arg(value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Subject,
    /// Id, name or external id
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct History {
    /// Kind; KIND/ID also works
    #[arg(value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Subject,
    /// Id, name or external id
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Why {
    /// Kind
    #[arg(value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Subject,
    /// Id, name or external id
    pub(crate) id: String,
    /// Path of the field: name, status, state.wanted.rules
    pub(crate) field: String,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Diff {
    /// Kind or view; everything when it is left out
    #[arg(value_parser = SubjectParser::all(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) subject: Option<Subject>,
    /// The earlier moment: a position, a time, a day, or an age (10m, 2h, 7d)
    #[arg(long, value_name = "MOMENT")]
    pub(crate) from: String,
    /// The later moment; now when it is left out
    #[arg(long, value_name = "MOMENT")]
    pub(crate) to: Option<String>,
    /// Conditions that a row must meet at either moment
    #[arg(long, value_name = "CONDITIONS")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Events {
    /// Stay, and show records as they come
    #[arg(long)]
    pub(crate) follow: bool,
    /// Also how far transfers are; this is in no record
    #[arg(long, requires = "follow")]
    pub(crate) progress: bool,
    /// Only records of this kind
    #[arg(long, value_parser = SubjectParser::kinds(), value_name = "KIND", hide_possible_values = true)]
    pub(crate) kind: Option<Subject>,
    /// Only events of this type
    #[arg(long = "type", value_name = "EVENT")]
    pub(crate) event_type: Option<String>,
    /// Only what this principal did, for instance token:ci
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// Begin after this position
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<u64>,
    /// Most records; the newest ones
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// The signed tree head of the server's log
    Head(Output),
    /// Prove that a record is in the log, or that the log only grew
    Proof {
        /// The record's position
        #[arg(long, required_unless_present = "from", conflicts_with = "from")]
        position: Option<u64>,
        /// Size of the older tree
        #[arg(long)]
        from: Option<u64>,
        /// Size of the newer tree; the head's when it is left out
        #[arg(long)]
        to: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Verify an export: needs neither server nor store
    #[command(
        after_help = "Exit code 6 when something is wrong; the first record that was edited, deleted, \
        reordered\nor cut off is named.\n\nExample:\n  \
        skyledger audit verify ledger.jsonl --key witness.pub --witness /mnt/other/witness"
    )]
    Verify {
        /// What `skyledger export` has written
        #[arg(value_hint = ValueHint::FilePath)]
        export: PathBuf,
        /// The witness file, kept outside the store
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        witness: Option<PathBuf>,
        /// The log's public key: `keys/witness.pub` of the data folder
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        key: Option<PathBuf>,
        /// Format of the output
        #[command(flatten)]
        output: Output,
    },
}

/// A store, without a server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Store (the server must be stopped if it is the embedded one)")]
pub(crate) struct Place {
    /// A server's configuration file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The data folder
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// `sqlite`, or a PostgreSQL URL
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Export {
    /// Where to; standard output when it is left out
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Import {
    /// What `skyledger export` has written
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The log's public key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Replay {
    /// Compare digests with the live views; exit code 6 when they differ
    #[arg(long, required = true)]
    pub(crate) verify: bool,
    /// Threads that fold; the result is the same for any number
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Rebuild {
    /// The view, or `all`
    pub(crate) view: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    /// TOML; see --print-config
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The data folder [default: skyledger-data]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:7878]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// `sqlite`, or a PostgreSQL URL (password in SKYLEDGER_STORE_PASSWORD) [default: sqlite]
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// What is logged: info, skyledger=debug,warn … [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How log lines are written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Add the provider `sim`, a simulated cloud that lives on this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sim: Option<PathBuf>,
    /// Seconds between two looks at every account; 0 leaves it to people [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) sync_interval: Option<u64>,
    /// Where the witness keeps signed tree heads [default: witness in the data folder]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) witness: Option<PathBuf>,
    /// Work for this machine as a host as well, under this name or its own
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    pub(crate) local_host: Option<String>,
    /// The libvirt daemon's socket of --local-host [default: /run/libvirt/libvirt-sock]
    #[arg(long, value_name = "SOCKET", requires = "local_host", value_hint = ValueHint::FilePath)]
    pub(crate) libvirt: Option<PathBuf>,
    /// Let --local-host be a host in memory, for trials
    #[arg(long, requires = "local_host", conflicts_with = "libvirt")]
    pub(crate) simulated: bool,
    /// How many milliseconds each part of an order takes on a simulated host
    #[arg(long, value_name = "MS", default_value_t = 0, hide = true)]
    pub(crate) simulated_pause_ms: u64,
    /// A folder that other hosts have as well, for --local-host; may be given several times
    #[arg(long, value_name = "FOLDER", requires = "local_host", conflicts_with = "simulated", value_hint = ValueHint::DirPath)]
    pub(crate) storage: Vec<PathBuf>,
    /// A volume group of LVM that disks may lie in, for --local-host; may be given several times
    #[arg(long, value_name = "NAME", requires = "local_host", conflicts_with = "simulated")]
    pub(crate) volume_group: Vec<String>,
    /// Print the configuration that would be used, as a file, and stop
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Write the first admin token into this file (mode 0600) in place of standard error
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct AgentOptions {
    /// Say what this machine has of all that servers need, and what to do about the rest; nothing is
    /// changed (a machine without disks runs for two seconds), and neither a server nor a token is needed
    #[arg(long, conflicts_with_all = ["host", "simulated", "token_file"])]
    pub(crate) check: bool,
    /// The host, by id or name; a token of its agent knows it
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// A file with the token, in place of SKYLEDGER_TOKEN
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    /// Where everything of this host's servers lies
    #[arg(long, value_name = "FOLDER", default_value = "skyledger-agent", value_hint = ValueHint::DirPath)]
    pub(crate) data: PathBuf,
    /// What the host reaches besides, a segment for instance; may be given several times
    #[arg(long, conflicts_with = "simulated")]
    pub(crate) label: Vec<String>,
    /// How many GiB images may take: beyond it those that no disk reads from go, the longest unused first
    /// [default: none go]
    #[arg(long, value_name = "GIB", conflicts_with = "simulated")]
    pub(crate) images_max_gib: Option<u32>,
    /// The libvirt daemon's socket [default: /run/libvirt/libvirt-sock]
    #[arg(long, value_name = "SOCKET", conflicts_with = "simulated", value_hint = ValueHint::FilePath)]
    pub(crate) libvirt: Option<PathBuf>,
    /// Work for a host in memory, kept on a file of the data folder: for trials
    #[arg(long)]
    pub(crate) simulated: bool,
    /// How many milliseconds each part of an order takes on a simulated host
    #[arg(long, value_name = "MS", default_value_t = 0, hide = true)]
    pub(crate) simulated_pause_ms: u64,
    /// A folder that other hosts have as well, with its id in a file `skyledger-storage`; may be given
    /// several times
    #[arg(long, value_name = "FOLDER", conflicts_with = "simulated", value_hint = ValueHint::DirPath)]
    pub(crate) storage: Vec<PathBuf>,
    /// A volume group of LVM that disks may lie in, with its id in a tag `skyledger-storage=ID`; may be
    /// given several times
    #[arg(long, value_name = "NAME", conflicts_with = "simulated")]
    pub(crate) volume_group: Vec<String>,
    /// This host's libvirt as other hosts' reach it, such as qemu+tls://kvm-1.example/system: it then
    /// takes servers that run elsewhere
    #[arg(long, value_name = "URI", conflicts_with = "simulated")]
    pub(crate) migration_uri: Option<String>,
    /// Where their memory is sent to, such as tcp://10.0.0.5 [default: as libvirt finds it]
    #[arg(long, value_name = "URI", requires = "migration_uri")]
    pub(crate) migration_address: Option<String>,
    /// What is logged: info, skyledger=debug,warn … [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How log lines are written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ReachOptions {
    /// The guest's port
    pub(crate) port: u16,
    /// The guest's addresses
    #[arg(required = true)]
    pub(crate) addresses: Vec<IpAddr>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ResponderOptions {
    /// Where everything of this host's servers lies
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) data: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Demo {
    /// Use an AWS endpoint, for instance of the stand-in moto, in place of the simulated cloud
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) aws_endpoint: Option<String>,
    /// Keep everything in this folder; a temporary one when it is left out
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// End after the story in place of leaving the server running
    #[arg(long)]
    pub(crate) no_serve: bool,
    /// How many resources the simulated cloud holds
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(50..=100_000))]
    pub(crate) resources: u64,
}

fn duration(text: &str) -> Result<Duration, String> {
    adapters_console::time::span(text)
        .and_then(|span| span.to_std().ok())
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "needs a time such as 30s, 5m or 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound_and_its_commands_are_sorted() {
        Cli::command().debug_assert();
        let command = Cli::command();
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn a_wait_has_a_default_and_needs_an_equals_sign() {
        let wait = |words: &[&str]| match Cli::try_parse_from(words).unwrap().command {
            Command::Start(start) => (start.id, start.manner.wait.map(|wait| wait.as_secs())),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(&["x", "start", "--wait", "web"]), ("web".into(), Some(60)));
        assert_eq!(wait(&["x", "start", "web", "--wait=5s"]), ("web".into(), Some(5)));
        assert_eq!(wait(&["x", "start", "web"]), ("web".into(), None));
    }

    #[test]
    fn the_exit_codes_of_the_help_are_those_of_the_program() {
        for (code, meaning) in adapters_console::exit::Exit::ALL {
            let line = format!("  {}  {meaning}", *code as u8);
            assert!(EXIT_CODES.contains(&line), "{line}");
        }
    }
}
