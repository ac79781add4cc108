//! How fast a server may send and be sent to: token buckets (HTB) on its interface of the host.
//!
//! What goes to the server leaves the host by that interface, and is shaped there. What comes from it
//! is led through a device of its own (`ifb`) and shaped at the end of that. Only these are used, for
//! every kernel has them. A change that fails takes away what it had added and puts back what was
//! there: libvirt's own limits leave half of it behind.

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Interface, NetworkFault, Place};

/// Smallest and largest rate: below 8 kbit/s one packet takes longer than a second, and no host
/// forwards more than 400 Gbit/s.
const RATE_KBIT_S: std::ops::RangeInclusive<u64> = 8..=400_000_000;
/// Bytes that may follow each other at once, at least: ten full frames.
const BURST_MIN: u64 = 15_140;

/// Limits in kbit/s (1,000 bits), 8…400,000,000; none is no limit. Directions are the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Towards the server.
    pub ingress_kbit_s: Option<u64>,
    /// From the server.
    pub egress_kbit_s: Option<u64>,
}

/// What is there, whole or half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    rates: Rates,
    /// Our bucket on the interface.
    bucket: bool,
    /// Our catch of what comes in.
    catch: bool,
    /// The device it is led through.
    through: bool,
    /// The bucket of that.
    through_bucket: bool,
}

#[derive(Deserialize)]
struct Queue {
    kind: String,
    #[serde(default)]
    handle: String,
    #[serde(default)]
    root: bool,
}

impl Rates {
    fn check(&self) -> Result<(), NetworkFault> {
        for rate in [self.ingress_kbit_s, self.egress_kbit_s].into_iter().flatten() {
            if !RATE_KBIT_S.contains(&rate) {
                let (least, most) = (RATE_KBIT_S.start(), RATE_KBIT_S.end());
                let why = format!("a rate of {rate} kbit/s is not between {least} and {most}");
                return Err(NetworkFault::Impossible(why));
            }
        }
        Ok(())
    }
}

/// The device that an interface's packets are led through: `ifb-` and its name, or what stands for a
/// name that is too long for that.
pub fn through(tap: &Interface) -> String {
    let name = format!("ifb-{tap}");
    if name.len() <= 15 {
        return name;
    }
    let digest = Sha256::digest(tap.as_str());
    let number = digest.iter().take(5).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("ifb-{number:010x}")
}

/// What must be run to get from what is there to what is wanted, in order.
fn steps(tap: &Interface, seen: Seen, wanted: Rates) -> Vec<Vec<String>> {
    let tap = tap.as_str();
    let ifb = &through(&Interface(tap.to_owned()));
    let mut steps: Vec<Vec<String>> = Vec::new();
    let mut step = |line: &str| steps.push(line.split(' ').map(str::to_owned).collect());
    let class = |device: &str, rate: u64| {
        let burst = (rate * 125 / 100).max(BURST_MIN);
        format!(
            "tc class replace dev {device} parent 1: classid 1:1 htb rate {rate}kbit \
             burst {burst} cburst {burst} quantum {BURST_MIN}"
        )
    };
    match wanted.ingress_kbit_s {
        Some(rate) => {
            if !seen.bucket {
                step(&format!("tc qdisc replace dev {tap} root handle 1: htb default 1"));
            }
            step(&class(tap, rate));
        }
        None if seen.bucket => step(&format!("tc qdisc del dev {tap} root")),
        None => {}
    }
    if let Some(rate) = wanted.egress_kbit_s {
        if !seen.through {
            step(&format!("ip link add name {ifb} type ifb"));
        }
        step(&format!("ip link set dev {ifb} up"));
        if !seen.through_bucket {
            step(&format!("tc qdisc replace dev {ifb} root handle 1: htb default 1"));
        }
        step(&class(ifb, rate));
        if !seen.catch {
            step(&format!("tc qdisc add dev {tap} handle ffff: ingress"));
        }
        // Last: until then packets go their old way.
        step(&format!(
            "tc filter replace dev {tap} parent ffff: protocol all prio 1 handle 800::1 u32 \
             match u32 0 0 action mirred egress redirect dev {ifb}"
        ));
    } else {
        if seen.catch {
            step(&format!("tc qdisc del dev {tap} ingress"));
        }
        if seen.through {
            step(&format!("ip link del dev {ifb}"));
        }
    }
    steps
}

/// Limits a server's interface, or changes its limits while it is used, or takes them away.
///
/// # Errors
/// When it is not so afterwards; then what was there before is there again, as far as the host still
/// does what it is asked.
pub async fn set(place: &Place, tap: &Interface, wanted: Rates) -> Result<(), NetworkFault> {
    wanted.check()?;
    let before = look(place, tap).await?;
    let Err(fault) = change(place, tap, before, wanted).await else { return Ok(()) };
    let undone = async {
        let half = look(place, tap).await?;
        change(place, tap, half, before.rates).await
    };
    if let Err(again) = undone.await {
        tracing::error!(%tap, %again, "limits of an interface are left half set");
    }
    Err(fault)
}

async fn change(
    place: &Place,
    tap: &Interface,
    seen: Seen,
    wanted: Rates,
) -> Result<(), NetworkFault> {
    for step in steps(tap, seen, wanted) {
        let words = step.iter().map(String::as_str);
        place.tool(&step[0], words.skip(1)).run().await?;
    }
    let after = look(place, tap).await?;
    let whole = Seen {
        rates: wanted,
        bucket: wanted.ingress_kbit_s.is_some(),
        catch: wanted.egress_kbit_s.is_some(),
        through: wanted.egress_kbit_s.is_some(),
        through_bucket: wanted.egress_kbit_s.is_some(),
    };
    if after != whole {
        return Err(NetworkFault::differs(format!("limits of {tap}"), whole, after));
    }
    Ok(())
}

/// What an interface is limited to now.
///
/// # Errors
/// When it is not there, or the tools do not say.
pub async fn read(place: &Place, tap: &Interface) -> Result<Rates, NetworkFault> {
    Ok(look(place, tap).await?.rates)
}

async fn look(place: &Place, tap: &Interface) -> Result<Seen, NetworkFault> {
    let ifb = through(tap);
    let links: Vec<Value> = place.json("ip", &["-j", "link", "show"]).await?;
    let has = |name: &str| links.iter().any(|link| link["ifname"] == name);
    if !has(tap.as_str()) {
        return Err(NetworkFault::Impossible(format!("there is no interface {tap}")));
    }
    let queues: Vec<Queue> =
        place.json("tc", &["-j", "qdisc", "show", "dev", tap.as_str()]).await?;
    let ours = |queue: &Queue| queue.kind == "htb" && queue.handle == "1:" && queue.root;
    let bucket = queues.iter().any(ours);
    let catch = queues.iter().any(|queue| queue.kind == "ingress");
    let through = has(&ifb);
    let mut seen = Seen { bucket, catch, through, ..Seen::default() };
    if bucket {
        seen.rates.ingress_kbit_s = rate(place, tap.as_str()).await?;
    }
    if through {
        let queues: Vec<Queue> = place.json("tc", &["-j", "qdisc", "show", "dev", &ifb]).await?;
        seen.through_bucket = queues.iter().any(ours);
    }
    if catch && seen.through_bucket {
        let filters: Vec<Value> = place
            .json("tc", &["-j", "filter", "show", "dev", tap.as_str(), "parent", "ffff:"])
            .await?;
        let leads = |filter: &Value| filter["options"]["actions"][0]["to_dev"] == ifb.as_str();
        if filters.iter().any(leads) {
            seen.rates.egress_kbit_s = rate(place, &ifb).await?;
        }
    }
    Ok(seen)
}

/// The rate of a device's bucket, as `tc` writes it in words: not every version has it in JSON.
async fn rate(place: &Place, device: &str) -> Result<Option<u64>, NetworkFault> {
    let tool = place.tool("tc", ["class", "show", "dev", device]);
    let text = tool.text().await?;
    let class = text.lines().find(|line| line.starts_with("class htb 1:1 "));
    let Some((_, rest)) = class.and_then(|line| line.split_once(" rate ")) else { return Ok(None) };
    let word = rest.split(' ').next().unwrap_or_default();
    kbit(word).map(Some).ok_or_else(|| tool.nonsense(format!("a rate of {word}")).into())
}

/// Reads `4Mbit`: `tc` takes the largest unit that leaves no remainder.
fn kbit(word: &str) -> Option<u64> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "bit" => Some(number / 1_000),
        "Kbit" => Some(number),
        "Mbit" => number.checked_mul(1_000),
        "Gbit" => number.checked_mul(1_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_steps_and_the_last_one_leads_packets_there() {
        let tap: Interface = "vnet0".parse().unwrap();
        let wanted = Rates { ingress_kbit_s: Some(4_000), egress_kbit_s: Some(1_000_000) };
        let lines = |seen, wanted| {
            steps(&tap, seen, wanted).iter().map(|step| step.join(" ")).collect::<Vec<_>>()
        };
        let first = "tc class replace dev vnet0 parent 1: classid 1:1 htb rate 4000kbit \
                     burst 15140 cburst 15140 quantum 15140";
        let second = "tc class replace dev ifb-vnet0 parent 1: classid 1:1 htb rate 1000000kbit \
                      burst 1250000 cburst 1250000 quantum 15140";
        let leads = "tc filter replace dev vnet0 parent ffff: protocol all prio 1 handle 800::1 u32 \
                     match u32 0 0 action mirred egress redirect dev ifb-vnet0";
        let from_nothing = [
            "tc qdisc replace dev vnet0 root handle 1: htb default 1",
            first,
            "ip link add name ifb-vnet0 type ifb",
            "ip link set dev ifb-vnet0 up",
            "tc qdisc replace dev ifb-vnet0 root handle 1: htb default 1",
            second,
            "tc qdisc add dev vnet0 handle ffff: ingress",
            leads,
        ];
        assert_eq!(lines(Seen::default(), wanted), from_nothing);
        let all =
            Seen { rates: wanted, bucket: true, catch: true, through: true, through_bucket: true };
        assert_eq!(lines(all, wanted), [first, "ip link set dev ifb-vnet0 up", second, leads]);
        let away = [
            "tc qdisc del dev vnet0 root",
            "tc qdisc del dev vnet0 ingress",
            "ip link del dev ifb-vnet0",
        ];
        assert_eq!(lines(all, Rates::default()), away);
        assert!(lines(Seen::default(), Rates::default()).is_empty());
    }

    #[test]
    fn what_tc_writes_reads() {
        let read = ["4Mbit", "4097Kbit", "8000bit", "10Gbit", "1Gibit", "x"].map(kbit);
        assert_eq!(read, [Some(4_000), Some(4_097), Some(8), Some(10_000_000), None, None]);
    }

    #[test]
    fn long_names_have_a_device_too() {
        let one = through(&"abcdefghijkl".parse().unwrap());
        let other = through(&"abcdefghijkm".parse().unwrap());
        assert_eq!((one.len(), one == other), (14, false));
    }
}
