//! LIST 4: every route.
//!
//! A path with `{kinds}` is mounted once for every kind, one with `{view}` once for every view and
//! lens. What a route takes is written here, so that the document and the check cannot differ.

use domain::compute::placement::HOW_MANY_MAX;
use futures::future::BoxFuture;

use crate::{
    agents, allocations, anomalies, audit, budgets,
    call::{Answer, Call},
    commands, console_page, consoles, costs, exports, forecasts, hints, history, hosts, images,
    kpis,
    params::{Parameter, Place, Shape},
    placements, queries, reconciliations, reports, runs, sources, status, usages, watch,
};

/// A method of HTTP (RFC 9110).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Writes.
    Post,
}

impl Verb {
    /// As in a request.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// Who may come to a route at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has a token, of a host's agent too; the handler asks for more.
    Any,
    /// Anybody, without a token.
    Public,
    /// Whoever has a token, but no host's agent; sees what it reaches. Commands ask for the verb's role as well.
    Token,
    /// Whoever reaches every project.
    Estate,
}

/// How often a route is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Once.
    Once,
    /// For every kind that people create.
    EachCreated,
    /// For every kind.
    EachKind,
    /// For every view and lens.
    EachSource,
}

/// One route.
pub struct Route {
    /// Its method.
    pub method: Verb,
    /// Its path, with `{kinds}` or `{view}` for what it is mounted for.
    pub path: &'static str,
    /// How often it is mounted.
    pub scope: Scope,
    /// Who may come to it.
    pub access: Access,
    /// The operation's id in the document; a suffix names kind, verb or view.
    pub operation: &'static str,
    /// One sentence for documents.
    pub summary: &'static str,
    /// What it takes.
    pub parameters: &'static [&'static Parameter],
    pub(crate) run: fn(Call) -> BoxFuture<'static, Answer>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method.name(), self.path)
    }
}

macro_rules! parameters {
    ($($name:ident = $text:literal $place:ident $shape:expr, $summary:literal;)+) => {
        $(#[doc = $summary] pub static $name: Parameter = Parameter {
            name: $text, place: Place::$place, shape: $shape, summary: $summary,
        };)+
    };
}

// Sorted by constant.
parameters! {
    ACTOR = "actor" Query Shape::Text(200), "Only what this principal did, for instance token:ci.";
    AT = "at" Query Shape::Moment, "The estate as it was then: a time, or a position.";
    ALLOCATED = "allocated" Query Shape::Flag, "After what is shared is spread by the rules: the project is the one that got it, everything else that of the lines it comes from.";
    BASIS = "basis" Query Shape::Text(20), "Which number: billed (when it is left out), contracted, effective, list or quantity.";
    CLUSTER = "cluster" Query Shape::Uuid, "The cluster whose use it is; when it is left out the file is of servers.";
    COMMAND_ID = "command_id" Query Shape::Uuid, "Only what this command wrote.";
    COMMITMENT_DAYS = "commitment_days" Query Shape::Integer(1, 3_660), "Days before a commitment's end from which it is told; 60 when it is left out.";
    COMPARE = "compare" Query Shape::Text(10), "Beside the same number of months before (previous), or the same months of the year before (year).";
    CORRELATION_ID = "correlation_id" Query Shape::Uuid, "Only this chain of commands.";
    COUNT = "count" Query Shape::Flag, "Also count all rows that match.";
    COUNT_TO = "count_to" Query Shape::Integer(1, HOW_MANY_MAX as u64), "How many more are counted up to; 1,000 when it is left out.";
    CURRENCY = "currency" Query Shape::Text(16), "In this currency, by the exchange rates of each month; of a closed bill's, by those known when it was closed.";
    DIGITS = "digits" Query Shape::Integer(0, 12), "Decimals that are shown; rows still come to the total. All of them when it is left out.";
    DRAFT = "draft" Query Shape::Flag, "By the draft, with what differs from the rules that count.";
    DRIVER = "driver" Query Shape::Text(100), "A driver, by id or name; with quantity, what a unit is called, for instance orders.";
    DRIVERS = "drivers" Query Shape::Text(4000), "Ids of drivers, or none; every active one that fits when it is left out.";
    EPOCH = "epoch" Query Shape::Integer(1, i64::MAX as u64), "The epoch that the agent joined in.";
    FIELD = "field" Query Shape::Text(1000), "A path into the resource's row, for instance name or state.wanted.";
    FILTER = "filter" Query Shape::Text(crate::filter::FILTER_BYTES_MAX), "Conditions, for instance status = \"running\" AND tags.env IN (\"prod\", \"test\").";
    FIRST_MONTH = "from_month" Query Shape::Text(7), "The first billing month, for instance 2026-10.";
    FORMAT = "format" Query Shape::Text(10), "csv, json or parquet; the report's own when it is left out.";
    FOCUS_VERSION = "version" Query Shape::Text(10), "The version of FOCUS: 1.4 (when it is left out) or 1.2.";
    FROM = "from" Query Shape::Moment, "The earlier moment: a time, or a position.";
    FROM_MONTH = "from_month" Query Shape::Text(7), "The first billing month, for instance 2026-10; every month when it is left out.";
    FROM_SIZE = "from" Query Shape::Integer(0, i64::MAX as u64), "For a consistency proof: the size of the older tree.";
    GROUP_BY = "group_by" Query Shape::Text(500), "At most four dimensions, for instance service, tags.env, project, node.";
    HORIZON = "horizon" Query Shape::Integer(1, 92), "Steps to forecast: at most 36 months, or 92 days; 3 months or 30 days when it is left out.";
    HOST = "host" Query Shape::Uuid, "Only what this host says, and how many go there.";
    ID = "id" Query Shape::Text(2300), "Only records of the stream with this id.";
    IDEMPOTENCY_KEY = "idempotency-key" Header Shape::Text(1024), "Names the request: sent again, it has no second effect.";
    IDLE_NETWORK_MIB = "idle_network_mib" Query Shape::Integer(0, 1_000_000_000), "MiB of network a day, in and out, below which a server is idle; 100 when it is left out.";
    IDLE_PERCENT = "idle_percent" Query Shape::Integer(0, 100), "Percent of its processors below which a server is idle, by the 95th percentile of every day; 5 when it is left out.";
    IF_MATCH = "if-match" Header Shape::Text(100), "The revision that the resource must have, in quotes.";
    IF_NONE_MATCH = "if-none-match" Header Shape::Text(1000), "Answer 304 when the resource still has this revision.";
    KIND = "kind" Query Shape::Text(100), "Only records of this kind.";
    LABEL = "label" Query Shape::Text(200), "The label that names servers by id, id in the cloud, name or address; without one it is instance of what servers say, and uuid, instance_id or domain of what their hosts say.";
    LAST_EVENT_ID = "last-event-id" Header Shape::Integer(0, i64::MAX as u64), "Go on after this position.";
    LOOK_BACK = "look_back" Query Shape::Integer(0, 24), "Past steps to forecast as well, each one step before, beside what came.";
    MANNER = "manner" Query Shape::Text(10), "add (when it is left out): these are further lines; replace: these are all lines of their months.";
    MAPPING = "mapping" Query Shape::Text(16_000), "How the file is written: focus, aws-cur, aws-cur-2, oci, or a mapping as a JSON object; told by its heading when it is left out.";
    MEASURED_DAYS = "measured_days" Query Shape::Integer(1, 366), "Full days back that are looked at of what was measured of servers; 14 when it is left out.";
    MEASURED_PERCENT = "measured_percent" Query Shape::Integer(1, 100), "Percent of the time of these days that must be measured; 80 when it is left out.";
    MIN_POSITION = "skyledger-min-position" Header Shape::Integer(0, i64::MAX as u64), "Wait until views have seen this position (your last write's).";
    NEWEST_FIRST = "newest_first" Query Shape::Flag, "From the newest back.";
    ORDER_BY = "order_by" Query Shape::Text(200), "At most two columns, for instance name desc, updated_at.";
    ORGANISATION = "organisation" Query Shape::Uuid, "The organisation that nodes and levels are of; the only active one when it is left out.";
    OVERSIZED_PERCENT = "oversized_percent" Query Shape::Integer(1, 100), "Percent of a smaller shape that a server must stay below for it to be suggested; 80 when it is left out.";
    PAGE_SIZE = "page_size" Query Shape::Integer(1, 1000), "Most items on the page; 100 when it is left out.";
    PAGE_TOKEN = "page_token" Query Shape::Text(8192), "The next_page_token of the page before.";
    PLAN_ID = "plan_id" Query Shape::Text(12_000), "Do it only if nothing has moved since this plan.";
    POSITION = "position" Query Shape::Integer(1, i64::MAX as u64), "For an inclusion proof: the record's position.";
    PREFER = "prefer" Header Shape::Text(200), "wait=30: wait up to so many seconds (at most 120) for the order to be done or parked; an agent for an order to come (at most 30).";
    PROGRESS = "progress" Query Shape::Flag, "Also how far transfers are: events called progress, which are no records, have no id, and come about once a second while it changes.";
    PROJECT = "project" Query Shape::Uuid, "Only records of this project.";
    QUANTITY = "quantity" Query Shape::Text(40), "How many units of the driver there were; a decimal.";
    REASON = "reason" Query Shape::Text(2000), "Why a closed month gets a further version.";
    REPEATS = "repeats" Query Shape::Text(10), "What becomes of lines that the bill has already, word for word: refuse the file (when it is left out), skip them, or count them.";
    REPRICED = "repriced" Query Shape::Flag, "At the prices that re-pricings make: the most specific one's factor from its day on.";
    RULE_SET = "rule_set" Query Shape::Uuid, "The rule set that says whose costs are; the only published one when it is left out.";
    RUNNING = "running" Query Shape::Flag, "Also count the newest month, although it still runs.";
    SHIFTS = "shifts" Query Shape::Text(500), "Steps of the history, such as 2026-03, from which another level is known to count.";
    SHOW_GONE = "show_gone" Query Shape::Flag, "Also show what is not there any more.";
    SINCE = "since" Query Shape::Time, "Only records committed at or after this time.";
    SIZE = "size" Query Shape::Integer(1, i64::MAX as u64), "For an inclusion proof: the tree's size; the head's when it is left out.";
    SNAPSHOT_DAYS = "snapshot_days" Query Shape::Integer(0, 3_660), "Days from which a snapshot is old; 90 when it is left out.";
    SOURCE = "source" Query Shape::Text(500), "The file's name, for whoever asks where a number comes from.";
    START = "from" Query Shape::Integer(0, i64::MAX as u64), "Begin after this position (before it, with newest_first).";
    STEP = "step" Query Shape::Text(10), "How far apart values are: month (when it is left out) or day.";
    STEP_S = "step_s" Query Shape::Integer(1, 86_400), "For how many seconds a sample holds at most; as far as two samples are apart when it is left out.";
    STOPPED_DAYS = "stopped_days" Query Shape::Integer(0, 3_660), "Days from which a server that is stopped is told; 7 when it is left out.";
    STRICT = "strict" Query Shape::Flag, "Refuse the whole file for one line that cannot be booked.";
    TAG_KEYS = "tag_keys" Query Shape::Text(1000), "Keys that every line must have that can have tags, for instance env,team.";
    TO = "to" Query Shape::Moment, "The later moment: a time, or a position; now when it is left out.";
    TO_MONTH = "to_month" Query Shape::Text(7), "The last billing month, itself included; from_month when it is left out.";
    TO_SIZE = "to" Query Shape::Integer(0, i64::MAX as u64), "For a consistency proof: the size of the newer tree; the head's when it is left out.";
    TYPE = "type" Query Shape::Text(100), "Only events with this tag.";
    UNATTACHED_DAYS = "unattached_days" Query Shape::Integer(0, 3_660), "Days from which a disk that is attached to nothing is told; 7 when it is left out.";
    UNTIL = "until" Query Shape::Time, "Only records committed before this time.";
    UNUSED_PERCENT = "unused_percent" Query Shape::Integer(1, 100), "Percent of a commitment's month that are not used, from which it is told; 10 when it is left out.";
    VALIDATE_ONLY = "validate_only" Query Shape::Flag, "Write nothing, answer what would be done.";
    VIEW = "view" Query Shape::Text(100), "A view or lens; inventory when it is left out.";
}

static ALLOCATION: &[&Parameter] =
    &[&AT, &BASIS, &DRAFT, &FROM_MONTH, &RULE_SET, &MIN_POSITION, &TO_MONTH];
static FORECASTS: &[&Parameter] = &[
    &ALLOCATED,
    &AT,
    &BASIS,
    &CURRENCY,
    &DRAFT,
    &DRIVERS,
    &FILTER,
    &FROM_MONTH,
    &GROUP_BY,
    &HORIZON,
    &LOOK_BACK,
    &ORGANISATION,
    &PAGE_SIZE,
    &REPRICED,
    &RULE_SET,
    &RUNNING,
    &SHIFTS,
    &MIN_POSITION,
    &STEP,
    &TO_MONTH,
];
static COSTS: &[&Parameter] = &[
    &ALLOCATED,
    &AT,
    &BASIS,
    &COMPARE,
    &CURRENCY,
    &DIGITS,
    &DRAFT,
    &FILTER,
    &FROM_MONTH,
    &GROUP_BY,
    &ORGANISATION,
    &PAGE_SIZE,
    &REPRICED,
    &RULE_SET,
    &MIN_POSITION,
    &TO_MONTH,
];
static EXPLAIN: &[&Parameter] = &[
    &ALLOCATED,
    &AT,
    &BASIS,
    &CURRENCY,
    &DRAFT,
    &FILTER,
    &FROM_MONTH,
    &ORGANISATION,
    &PAGE_SIZE,
    &REPRICED,
    &RULE_SET,
    &MIN_POSITION,
    &TO_MONTH,
];
static COMMAND: &[&Parameter] = &[&IDEMPOTENCY_KEY, &IF_MATCH, &PLAN_ID, &PREFER, &VALIDATE_ONLY];
static LIST: &[&Parameter] =
    &[&AT, &COUNT, &FILTER, &ORDER_BY, &PAGE_SIZE, &PAGE_TOKEN, &SHOW_GONE, &MIN_POSITION];
static SEARCH: &[&Parameter] = &[
    &ACTOR,
    &COMMAND_ID,
    &CORRELATION_ID,
    &START,
    &ID,
    &KIND,
    &NEWEST_FIRST,
    &PAGE_SIZE,
    &PAGE_TOKEN,
    &PROJECT,
    &SINCE,
    &TYPE,
    &UNTIL,
];
static WATCH: &[&Parameter] = &[
    &ACTOR,
    &COMMAND_ID,
    &CORRELATION_ID,
    &START,
    &ID,
    &KIND,
    &LAST_EVENT_ID,
    &PROGRESS,
    &PROJECT,
    &TYPE,
];

macro_rules! routes {
    ($($method:ident $path:literal $scope:ident $access:ident $operation:literal $parameters:expr,
       $module:ident::$run:ident, $summary:literal;)+) => {
        /// Every route, sorted by path.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Verb::$method, path: $path, scope: Scope::$scope, access: Access::$access,
            operation: $operation, summary: $summary, parameters: $parameters,
            run: |call| Box::pin($module::$run(call)),
        }),+];
    };
}

routes! {
    Get "/" Once Public "index" &[], status::index, "Names the main paths.";
    Get "/console" Once Public "console-page" &[], console_page::page, "The page that shows servers' consoles in a browser.";
    Get "/console/{file}" Once Public "console-page-file" &[], console_page::file, "A script or the style of the page of consoles.";
    Get "/livez" Once Public "livez" &[], status::livez, "Whether the server runs.";
    Get "/metrics" Once Estate "metrics" &[], status::metrics, "Counters and gauges in Prometheus' text format.";
    Get "/openapi.json" Once Public "openapi" &[], status::document, "This document.";
    Get "/problems/{code}" Once Public "problem" &[], status::problem, "What an error code means, and what to do.";
    Get "/readyz" Once Public "readyz" &[], status::readyz, "Whether the server can answer: the log, the views.";
    Get "/v1/allocations" Once Estate "allocations" ALLOCATION, allocations::allocations, "What each centre has before and after the rules, and how it came there.";
    Post "/v1/allocations" Once Estate "create-projects" ALLOCATION, allocations::create_projects, "The same, and creates projects where a rule says so.";
    Post "/v1/amortisations" Once Estate "amortise" &[&FIRST_MONTH, &REASON, &TO_MONTH, &VALIDATE_ONLY], runs::amortise, "Makes the lines of what was paid in advance, day by day.";
    Post "/v1/anomaly-detections" Once Estate "detect-anomalies" &[], anomalies::detect, "Looks at costs by every anomaly rule that is enabled, and tells what is not as it should be.";
    Get "/v1/audit/events" Once Token "audit-events" SEARCH, audit::events, "Records of the log that match.";
    Get "/v1/audit/events:watch" Once Token "audit-watch" WATCH, watch::watch, "Records as they come, as server-sent events.";
    Get "/v1/audit/head" Once Token "audit-head" &[], audit::head, "The signed tree head.";
    Get "/v1/audit/proof" Once Token "audit-proof" &[&FROM_SIZE, &POSITION, &SIZE, &TO_SIZE], audit::proof, "Proves that a record is in the log (position, size), or that the log only grew (from, to).";
    Get "/v1/bill-exports" Once Estate "export-bills" &[&AT, &BASIS, &DRAFT, &FROM_MONTH, &RULE_SET, &MIN_POSITION, &TO_MONTH, &FOCUS_VERSION], exports::export, "Bills' lines as FOCUS writes them, in CSV; with rules, shared charges by the parts they come to.";
    Post "/v1/bill-imports" Once Estate "import-bill" &[&MANNER, &MAPPING, &REASON, &REPEATS, &SOURCE, &STRICT], costs::import, "Takes a bill's file in: CSV, plain or compressed by gzip or zstd, or Parquet.";
    Get "/v1/bill-reconciliations" Once Estate "reconcile-bills" &[&AT, &FROM_MONTH, &MIN_POSITION, &TO_MONTH], reconciliations::reconcile, "Bills beside what their issuers say of invoices and months.";
    Post "/v1/budget-evaluations" Once Estate "evaluate-budgets" &[], budgets::evaluate, "Holds what was spent against every budget that is enabled, and tells what thresholds are reached.";
    Get "/v1/budgets:status" Once Estate "budgets-status" &[&AT, &MIN_POSITION], budgets::status, "Where every budget stands: spent, forecast, and the alerts that stand.";
    Get "/v1/cloud-accounts/{id}/machines" Once Estate "account-machines" &[], sources::machines, "Machines of an account that can be moved to hosts of ours, as its place says now, each with what is in the way; nothing is moved by it.";
    Get "/v1/costs" Once Estate "costs" COSTS, costs::costs, "What bills come to, by group.";
    Get "/v1/costs:explain" Once Estate "explain-costs" EXPLAIN, costs::explain, "Where a number comes from: files, events and lines.";
    Get "/v1/diff" Once Token "diff" &[&FILTER, &FROM, &PAGE_SIZE, &PAGE_TOKEN, &MIN_POSITION, &TO, &VIEW], queries::difference, "What differs between two moments.";
    Get "/v1/forecasts" Once Estate "forecasts" FORECASTS, forecasts::forecasts, "What comes next, by group, with limits and how models did on the past.";
    Get "/v1/hints" Once Token "hints" &[&AT, &COMMITMENT_DAYS, &IDLE_NETWORK_MIB, &IDLE_PERCENT, &MEASURED_DAYS, &MEASURED_PERCENT, &OVERSIZED_PERCENT, &PAGE_SIZE, &MIN_POSITION, &SNAPSHOT_DAYS, &STOPPED_DAYS, &UNATTACHED_DAYS, &UNUSED_PERCENT], hints::list, "Where money can be saved: each hint with what it costs in a month, what that rests on, and what one can do.";
    Get "/v1/hosts/{id}/agent" Once Any "host-agent" &[], agents::show, "Whether a host's agent is heard here, and what it was given.";
    Post "/v1/hosts/{id}/agent/answer" Once Any "agent-answer" &[], agents::answer, "A host's agent: brings what became of an order.";
    Get "/v1/hosts/{id}/agent/consoles/{call}" Once Any "agent-console" &[&EPOCH], consoles::bring, "A host's agent: comes with a console that it was called for, over a WebSocket.";
    Post "/v1/hosts/{id}/agent/join" Once Any "agent-join" &[], agents::join, "A host's agent: begins to work for it, in the next epoch; any agent before it is fenced off.";
    Post "/v1/hosts/{id}/agent/sight" Once Any "agent-sight" &[], agents::sight, "A host's agent: says what the host is.";
    Post "/v1/hosts/{id}/agent/tasks" Once Any "agent-tasks" &[&PREFER], agents::tasks, "A host's agent: asks for orders that it does not work on yet; waits for one with Prefer: wait, at most 30 seconds.";
    Get "/v1/hosts/{id}/devices" Once Estate "host-devices" &[], hosts::devices, "The devices of a host that servers can have, each free, reserved, attached or lost, and how many are left of each sort.";
    Get "/v1/hosts/{id}/leaving" Once Estate "host-leaving" &[], hosts::drain, "Which servers of a host can go elsewhere and where to, and what is in the way of the others; nothing is ordered by it.";
    Get "/v1/hosts/{id}/machines" Once Estate "host-machines" &[], hosts::machines, "Machines of a host that are no servers of ours, each with what is in the way of adopting it and what it would be; nothing is adopted by it.";
    Post "/v1/images/{id}/file" Once Token "upload-image" &[], images::upload, "Takes in the file of an image whose source is a backup store, as the body; sent again, it is found and not taken again.";
    Get "/v1/kpis" Once Estate "kpis" &[&AT, &DRIVER, &FILTER, &FROM_MONTH, &ORGANISATION, &QUANTITY, &RULE_SET, &MIN_POSITION, &TAG_KEYS, &TO_MONTH], kpis::list, "Numbers by which costs are judged, each with its formula and the questions behind it.";
    Post "/v1/placements" Once Token "placements" &[&COUNT_TO, &HOST], placements::ask, "Where a server of this launch would go, everything that is in the way on each host, and how many more of it there is room for; nothing is written.";
    Post "/v1/ratings" Once Estate "rate" &[&FIRST_MONTH, &REASON, &TO_MONTH, &VALIDATE_ONLY], runs::rate, "Makes the lines of what was used, by our own rates.";
    Get "/v1/reports/{id}/answer" Once Estate "report-answer" &[&AT, &FORMAT, &MIN_POSITION], reports::output, "A report's answer as of a position: the same bytes whenever it is asked.";
    Post "/v1/reports/{id}/runs" Once Estate "run-report" &[], reports::run, "Asks a report now, and keeps the answer.";
    Get "/v1/reports/{id}/runs/{digest}" Once Estate "report-run-answer" &[], reports::kept, "What a run of a report gave.";
    Get "/v1/servers/{id}/console" Once Public "server-console" &[], consoles::open, "A console of a server, over a WebSocket; its ticket is in Sec-WebSocket-Protocol: skyledger.console, skyledger.ticket.<ticket>.";
    Post "/v1/usage-imports" Once Estate "import-usage" &[&CLUSTER, &LABEL, &REASON, &SOURCE, &STEP_S, &VALIDATE_ONLY], usages::import, "Takes in what was used, as Prometheus has it: that of a cluster's containers is priced, that of servers is kept by days.";
    Get "/v1/views" Once Token "views" &[], queries::views, "Every view and lens, with its columns.";
    Get "/v1/views/{view}" EachSource Token "view" LIST, queries::list_source, "Rows of a view or lens.";
    Get "/v1/whoami" Once Any "whoami" &[], agents::whoami, "Who asks: the token's name, its role and its reach.";
    Get "/v1/{kinds}" EachKind Token "list" LIST, queries::list_kind, "Resources of this kind.";
    Post "/v1/{kinds}" EachCreated Token "create" COMMAND, commands::create, "Creates one under a new id.";
    Get "/v1/{kinds}/{id}" EachKind Token "get" &[&AT, &IF_NONE_MATCH, &MIN_POSITION], queries::get, "One resource.";
    Get "/v1/{kinds}/{id}/diff" EachKind Token "diff" &[&FROM, &MIN_POSITION, &TO], history::difference, "What of a resource differs between two moments, field by field.";
    Get "/v1/{kinds}/{id}/history" EachKind Token "history" &[&AT, &PAGE_SIZE, &PAGE_TOKEN], history::history, "A resource's events.";
    Get "/v1/{kinds}/{id}/why" EachKind Token "why" &[&AT, &FIELD], history::why, "The event that last set a field of a resource.";
    Post "/v1/{kinds}/{id}/{verb}" EachKind Token "command" COMMAND, commands::command, "Sends a resource a command.";
    Get "/v1/{view}" EachSource Token "rows" LIST, queries::list_source, "Rows of a view or lens.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_their_parameters_are_sorted() {
        let paths: Vec<_> = ROUTES.iter().map(|route| (route.path, route.method.name())).collect();
        assert!(paths.is_sorted(), "{paths:?}");
        for route in ROUTES {
            let names: Vec<_> = route.parameters.iter().map(|one| one.name).collect();
            assert!(names.is_sorted(), "{route:?}: {names:?}");
        }
    }
}
