//! How many bytes a server has sent and been sent, and how many it may.
//!
//! A counter for each direction of each interface counts the bytes that pass (of IP, without the
//! frame's header), with a limit or without. A limit is a quota beside it that drops what would go
//! beyond; setting another begins from what was counted, so a raise lets packets through at once and
//! is enforced when it is used up too. What the firewall drops is not counted. Counters live as long
//! as the host is up: what they say is reported, and what was counted before a reboot is where a new one
//! begins. What was counted on other hosts is no part of a counter, and is used up in a quota all the same.
//!
//! Packets that pass in the moment between reading a counter and loading a quota are counted, and are
//! beyond the quota: it is late by these, until it is set again.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Deserialize;

use super::{Interface, NetworkFault, Place};

/// The name of the table: not the firewall's, which is replaced whole.
const TABLE: &str = "skyledger-quota";
/// Most bytes that the kernel counts to.
const BYTES_MAX: u64 = i64::MAX as u64;

/// Something for each direction, as the server sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Both<T> {
    /// Towards the server.
    pub ingress: T,
    /// From the server.
    pub egress: T,
}

/// Where counting begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// What was counted here, until the kernel forgot it.
    pub here: Both<u64>,
    /// What was counted on other hosts: it counts for limits, and is no part of what is counted here.
    pub elsewhere: Both<u64>,
}

/// What was used, and may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that passed.
    pub used_bytes: u64,
    /// Bytes that may pass, 1…2⁶³−1; none is no limit.
    pub limit_bytes: Option<u64>,
}

impl Usage {
    /// Whether there is nothing left.
    pub fn is_exceeded(self) -> bool {
        self.limit_bytes.is_some_and(|limit| self.used_bytes >= limit)
    }
}

#[derive(Deserialize)]
struct Listed {
    nftables: Vec<Item>,
}

/// One of these, or something that is not asked for.
#[derive(Deserialize)]
struct Item {
    counter: Option<Object>,
    quota: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    table: String,
    name: String,
    bytes: u64,
}

/// Counts an interface, with these limits.
///
/// What was counted here `before` is where counting begins if the interface is not counted yet, and nothing
/// otherwise. What was counted elsewhere is what limits begin from, as often as they are set.
///
/// # Errors
/// When it is not so afterwards. What nft refuses leaves what was there.
pub async fn set(
    place: &Place,
    tap: &Interface,
    limits: Both<Option<u64>>,
    before: Before,
) -> Result<Both<Usage>, NetworkFault> {
    for bytes in [limits.ingress, limits.egress].into_iter().flatten() {
        if !(1..=BYTES_MAX).contains(&bytes) {
            let why = format!("a quota of {bytes} bytes is not between 1 and {BYTES_MAX}");
            return Err(NetworkFault::Impossible(why));
        }
    }
    let seen = read(place).await?.remove(tap);
    load(place, &transaction(tap, seen, limits, before)).await?;
    let after = read(place).await?.remove(tap).unwrap_or_default();
    let loaded = Both { ingress: after.ingress.limit_bytes, egress: after.egress.limit_bytes };
    if loaded != limits {
        return Err(NetworkFault::differs(format!("quotas of {tap}"), limits, loaded));
    }
    Ok(after)
}

/// Begins to count an interface again, with the limits it has, and gives what it had used. No packet
/// is counted twice or never.
///
/// # Errors
/// When the interface is not counted.
pub async fn reset(place: &Place, tap: &Interface) -> Result<Both<Usage>, NetworkFault> {
    let Some(seen) = read(place).await?.remove(tap) else {
        return Err(NetworkFault::Impossible(format!("{tap} is not counted")));
    };
    let mut was = seen;
    for (direction, usage) in [("ingress", &mut was.ingress), ("egress", &mut was.egress)] {
        // Read and made zero in one.
        let name = format!("{direction}-{tap}");
        let reset = ["-j", "reset", "counter", "bridge", TABLE, name.as_str()];
        let listed: Listed = place.json("nft", &reset).await?;
        let mut counters = listed.nftables.into_iter().filter_map(|item| item.counter);
        let bytes = counters.next().map(|counter| counter.bytes);
        usage.used_bytes = bytes.unwrap_or(usage.used_bytes);
    }
    let limits = Both { ingress: seen.ingress.limit_bytes, egress: seen.egress.limit_bytes };
    set(place, tap, limits, Before::default()).await?;
    Ok(was)
}

/// Counts an interface no more, and gives what it had used; none when it was not counted.
///
/// # Errors
/// When it still is.
pub async fn remove(place: &Place, tap: &Interface) -> Result<Option<Both<Usage>>, NetworkFault> {
    let Some(seen) = read(place).await?.remove(tap) else { return Ok(None) };
    let mut text = String::new();
    for (direction, usage) in [("ingress", seen.ingress), ("egress", seen.egress)] {
        let name = format!("{direction}-{tap}");
        let _ = writeln!(text, "delete element bridge {TABLE} {direction} {{ \"{tap}\" }}");
        let _ = writeln!(text, "delete chain bridge {TABLE} {name}");
        let _ = writeln!(text, "delete counter bridge {TABLE} {name}");
        if usage.limit_bytes.is_some() {
            let _ = writeln!(text, "delete quota bridge {TABLE} {name}");
        }
    }
    load(place, &text).await?;
    match read(place).await?.get(tap) {
        None => Ok(Some(seen)),
        Some(usage) => Err(NetworkFault::differs(format!("counters of {tap}"), "gone", usage)),
    }
}

/// What every counted interface has used.
///
/// # Errors
/// When nft does not say.
pub async fn read(place: &Place) -> Result<BTreeMap<Interface, Both<Usage>>, NetworkFault> {
    let mut all: BTreeMap<Interface, Both<Usage>> = BTreeMap::new();
    for objects in ["counters", "quotas"] {
        let listed: Listed = place.json("nft", &["-j", "list", objects]).await?;
        for item in listed.nftables {
            let is_limit = item.quota.is_some();
            let object = item.quota.or(item.counter).filter(|object| object.table == TABLE);
            let Some(Object { name, bytes, .. }) = object else { continue };
            let Some((direction, tap)) = name.split_once('-') else { continue };
            let both = all.entry(tap.parse()?).or_default();
            let usage = if direction == "ingress" { &mut both.ingress } else { &mut both.egress };
            if is_limit {
                usage.limit_bytes = Some(bytes);
            } else {
                usage.used_bytes = bytes;
            }
        }
    }
    Ok(all)
}

async fn load(place: &Place, text: &str) -> Result<(), NetworkFault> {
    place.tool("nft", ["-f", "-"]).input(text).run().await?;
    Ok(())
}

/// What nft reads, as one transaction.
fn transaction(
    tap: &Interface,
    seen: Option<Both<Usage>>,
    limits: Both<Option<u64>>,
    before: Before,
) -> String {
    let mut text = format!("add table bridge {TABLE}\n");
    // After the firewall, that has priority 100.
    for (direction, chain, hook, key) in [
        ("ingress", "forwarded", "forward", "oifname"),
        ("ingress", "from-host", "output", "oifname"),
        ("egress", "sent", "prerouting", "iifname"),
    ] {
        let _ = write!(
            text,
            "add map bridge {TABLE} {direction} {{ type ifname : verdict; }}\n\
             add chain bridge {TABLE} {chain} \
             {{ type filter hook {hook} priority 200; policy accept; }}\n\
             flush chain bridge {TABLE} {chain}\n\
             add rule bridge {TABLE} {chain} {key} vmap @{direction}\n"
        );
    }
    let was = seen.unwrap_or_default();
    let Before { here, elsewhere } = before;
    for (direction, was, limit, here, elsewhere) in [
        ("ingress", was.ingress, limits.ingress, here.ingress, elsewhere.ingress),
        ("egress", was.egress, limits.egress, here.egress, elsewhere.egress),
    ] {
        let name = format!("{direction}-{tap}");
        let _ = write!(
            text,
            "add chain bridge {TABLE} {name}\n\
             flush chain bridge {TABLE} {name}\n\
             add element bridge {TABLE} {direction} {{ \"{tap}\" : goto {name} }}\n"
        );
        let used = if seen.is_some() { was.used_bytes } else { here.min(BYTES_MAX) };
        if seen.is_none() {
            let _ =
                writeln!(text, "add counter bridge {TABLE} {name} {{ packets 0 bytes {used}; }}");
        }
        if was.limit_bytes.is_some() {
            let _ = writeln!(text, "delete quota bridge {TABLE} {name}");
        }
        if let Some(limit) = limit {
            // The kernel takes no quota of which more is used than there is.
            let used = used.saturating_add(elsewhere).min(limit);
            let _ = write!(
                text,
                "add quota bridge {TABLE} {name} {{ over {limit} bytes used {used} bytes; }}\n\
                 add rule bridge {TABLE} {name} quota name \"{name}\" drop\n"
            );
        }
        // Second, for what is dropped is not counted.
        let _ = writeln!(text, "add rule bridge {TABLE} {name} counter name \"{name}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_begins_from_what_was_counted() {
        let tap: Interface = "vnet0".parse().unwrap();
        let own = |text: String| {
            let lines = text.lines().filter(|line| line.contains("-vnet0"));
            lines.map(|line| line.replace(" bridge skyledger-quota", "")).collect::<Vec<_>>()
        };
        let limits = Both { ingress: Some(1_000), egress: None };
        let before = |here| Before { here, ..Before::default() };
        let new = own(transaction(&tap, None, limits, before(Both { ingress: 5, egress: 6 })));
        let expected = [
            "add chain ingress-vnet0",
            "flush chain ingress-vnet0",
            "add element ingress { \"vnet0\" : goto ingress-vnet0 }",
            "add counter ingress-vnet0 { packets 0 bytes 5; }",
            "add quota ingress-vnet0 { over 1000 bytes used 5 bytes; }",
            "add rule ingress-vnet0 quota name \"ingress-vnet0\" drop",
            "add rule ingress-vnet0 counter name \"ingress-vnet0\"",
            "add chain egress-vnet0",
            "flush chain egress-vnet0",
            "add element egress { \"vnet0\" : goto egress-vnet0 }",
            "add counter egress-vnet0 { packets 0 bytes 6; }",
            "add rule egress-vnet0 counter name \"egress-vnet0\"",
        ];
        assert_eq!(new, expected);
        let seen = Both {
            ingress: Usage { used_bytes: 1_200, limit_bytes: Some(1_000) },
            egress: Usage { used_bytes: 70, limit_bytes: None },
        };
        assert!(seen.ingress.is_exceeded() && !seen.egress.is_exceeded());
        let limits = Both { ingress: Some(2_000), egress: Some(50) };
        let raised = own(transaction(&tap, Some(seen), limits, Before::default()));
        let expected = [
            "add chain ingress-vnet0",
            "flush chain ingress-vnet0",
            "add element ingress { \"vnet0\" : goto ingress-vnet0 }",
            "delete quota ingress-vnet0",
            "add quota ingress-vnet0 { over 2000 bytes used 1200 bytes; }",
            "add rule ingress-vnet0 quota name \"ingress-vnet0\" drop",
            "add rule ingress-vnet0 counter name \"ingress-vnet0\"",
            "add chain egress-vnet0",
            "flush chain egress-vnet0",
            "add element egress { \"vnet0\" : goto egress-vnet0 }",
            "add quota egress-vnet0 { over 50 bytes used 50 bytes; }",
            "add rule egress-vnet0 quota name \"egress-vnet0\" drop",
            "add rule egress-vnet0 counter name \"egress-vnet0\"",
        ];
        assert_eq!(raised, expected);
    }

    #[test]
    fn what_was_counted_elsewhere_is_used_up_and_not_counted_here() {
        let tap: Interface = "vnet0".parse().unwrap();
        let of = |text: String| {
            let begins = |line: &&str| line.contains(" bytes") && line.contains("add ");
            let lines: Vec<_> = text.lines().filter(begins).map(str::to_owned).collect();
            lines.into_iter().map(|line| line.replace(" bridge skyledger-quota", "")).collect()
        };
        let limits = Both { ingress: Some(1_000), egress: Some(100) };
        let elsewhere = Both { ingress: 600, egress: 300 };
        let before = Before { here: Both { ingress: 5, egress: 0 }, elsewhere };
        let new: Vec<String> = of(transaction(&tap, None, limits, before));
        let expected = [
            "add counter ingress-vnet0 { packets 0 bytes 5; }",
            "add quota ingress-vnet0 { over 1000 bytes used 605 bytes; }",
            "add counter egress-vnet0 { packets 0 bytes 0; }",
            "add quota egress-vnet0 { over 100 bytes used 100 bytes; }",
        ];
        assert_eq!(new, expected);
        // Known later than the interface, it counts as much, and once.
        let usage = |used_bytes, limit| Usage { used_bytes, limit_bytes: Some(limit) };
        let seen = Both { ingress: usage(7, 1_000), egress: usage(0, 100) };
        let again: Vec<String> = of(transaction(&tap, Some(seen), limits, before));
        assert_eq!(again[0], "add quota ingress-vnet0 { over 1000 bytes used 607 bytes; }");
        assert_eq!(again, of(transaction(&tap, Some(seen), limits, before)));
    }
}
