//! Hardware addresses of servers' interfaces.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::addresses::Ranges;
use crate::kernel::{Refusal, codes, sha256};

/// What ours begin with: locally administered, and customary for QEMU.
const PREFIX: [u8; 3] = [0x52, 0x54, 0x00];
/// How many of ours there are.
const OURS: u32 = 1 << 24;

/// A hardware address (EUI-48) of one interface.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// One of ours: `52:54:00` and the lowest 24 bits of a number.
    pub fn ours(number: u32) -> Self {
        let mut bytes = [0; 6];
        bytes[..3].copy_from_slice(&PREFIX);
        bytes[3..].copy_from_slice(&number.to_be_bytes()[1..]);
        Self(bytes)
    }

    /// One that follows from the id of what it belongs to: locally administered, with 40 bits of the
    /// id's SHA-256 behind the first byte. Two of ten thousand are the same once in twenty thousand
    /// estates.
    pub fn of(id: Uuid) -> Self {
        let digest = sha256(id.as_bytes());
        let mut bytes = [PREFIX[0]; 6];
        bytes[1..].copy_from_slice(&digest[..5]);
        Self(bytes)
    }

    /// The number of one of ours.
    fn number(self) -> Option<u128> {
        let [.., high, middle, low] = self.0;
        let number = u32::from_be_bytes([0, high, middle, low]);
        self.0.starts_with(&PREFIX).then_some(number.into())
    }

    /// Its bytes, as they are sent.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Mac {
    type Err = Refusal;
    /// Reads six pairs of hexadecimal digits, with colons or hyphens. Not for an interface are
    /// addresses of groups, and the one that is all zeros.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let no =
            |what: &str| Err(Refusal::new(&codes::INVALID_FIELD, format!("mac: {text}: {what}")));
        let mut bytes = [0; 6];
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let digits =
                |part: &&str| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
            let part = parts.next().filter(digits);
            let Some(read) = part.and_then(|part| u8::from_str_radix(part, 16).ok()) else {
                return no("it is not six pairs of hexadecimal digits");
            };
            *byte = read;
        }
        if parts.next().is_some() {
            return no("it is not six pairs of hexadecimal digits");
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return no("it is not the address of one interface");
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = Refusal;
    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// Whose each hardware address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Mac, Uuid>", into = "BTreeMap<Mac, Uuid>")]
pub struct Macs {
    taken: BTreeMap<Mac, Uuid>,
    /// The numbers of ours that are nobody's.
    free: Ranges,
}

impl Default for Macs {
    fn default() -> Self {
        BTreeMap::new().into()
    }
}

impl Macs {
    /// One of ours that is nobody's, decided and not yet taken: the one of the random number, or the
    /// next after it.
    ///
    /// # Errors
    /// `no-address-free` when all 2²⁴ are taken.
    pub fn choose(&self, chance: u32) -> Result<Mac, Refusal> {
        let from = u128::from(chance % OURS);
        let found = self.free.next(from).or_else(|| self.free.first());
        found.map(|number| Mac::ours(number as u32)).ok_or_else(|| {
            let detail = format!("all {OURS} hardware addresses of ours are taken");
            Refusal::new(&codes::NO_ADDRESS_FREE, detail)
        })
    }

    /// Makes it the holder's.
    ///
    /// # Errors
    /// `address-taken` when it is somebody's.
    pub fn take(&mut self, mac: Mac, holder: Uuid) -> Result<(), Refusal> {
        if let Some(other) = self.taken.get(&mac) {
            return Err(Refusal::new(&codes::ADDRESS_TAKEN, format!("{mac}: it is {other}'s")));
        }
        if let Some(number) = mac.number() {
            self.free.remove(number, number);
        }
        self.taken.insert(mac, holder);
        Ok(())
    }

    /// Makes it nobody's.
    ///
    /// # Errors
    /// `address-not-given` when it is nobody's.
    pub fn release(&mut self, mac: Mac) -> Result<Uuid, Refusal> {
        let Some(holder) = self.taken.remove(&mac) else {
            return Err(Refusal::new(&codes::ADDRESS_NOT_GIVEN, format!("{mac}: nobody has it")));
        };
        if let Some(number) = mac.number() {
            self.free.insert(number, number);
        }
        Ok(holder)
    }

    /// Makes all of a holder's nobody's.
    pub fn release_all(&mut self, holder: Uuid) {
        let of = |(mac, other): (&Mac, &Uuid)| (*other == holder).then_some(*mac);
        for mac in self.taken.iter().filter_map(of).collect::<Vec<_>>() {
            let _ = self.release(mac);
        }
    }

    /// Whose it is.
    pub fn holder(&self, mac: Mac) -> Option<Uuid> {
        self.taken.get(&mac).copied()
    }
}

impl From<BTreeMap<Mac, Uuid>> for Macs {
    fn from(taken: BTreeMap<Mac, Uuid>) -> Self {
        let mut free = Ranges::of(0, u128::from(OURS) - 1);
        for number in taken.keys().filter_map(|mac| mac.number()) {
            free.remove(number, number);
        }
        Self { taken, free }
    }
}

impl From<Macs> for BTreeMap<Mac, Uuid> {
    fn from(macs: Macs) -> Self {
        macs.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_all_are_taken_it_says_so() {
        let macs = Macs { taken: BTreeMap::new(), free: Ranges::default() };
        let refusal = macs.choose(5).unwrap_err();
        assert_eq!(refusal.detail, "all 16777216 hardware addresses of ours are taken");
    }
}
