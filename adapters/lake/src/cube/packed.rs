//! Numbers in as few bytes as they need.

use domain::finops::amount::Amount;

/// Powers of ten that an `i64` holds.
const POWERS: [i64; 19] = {
    let mut powers = [1; 19];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// Ten to this power; 18 at most.
pub(super) fn power(exponent: u8) -> i64 {
    POWERS[usize::from(exponent)]
}

/// The codes of some lines.
#[derive(Clone, Debug)]
pub(super) enum Codes {
    /// All the same.
    One(u32),
    Bytes(Box<[u8]>),
    Shorts(Box<[u16]>),
    Words(Box<[u32]>),
}

impl Codes {
    /// How they are stored: how many bytes each has, and these. Of no bytes they are all the first.
    pub(super) fn pack(codes: &[u32]) -> (u8, Vec<u8>) {
        let (first, largest) =
            (codes.first().copied().unwrap_or(0), codes.iter().copied().max().unwrap_or(0));
        if codes.iter().all(|code| *code == first) {
            return (0, Vec::new());
        }
        match largest {
            0..=0xff => (1, codes.iter().map(|code| *code as u8).collect()),
            0x100..=0xffff => {
                (2, codes.iter().flat_map(|code| (*code as u16).to_le_bytes()).collect())
            }
            _ => (4, codes.iter().flat_map(|code| code.to_le_bytes()).collect()),
        }
    }

    /// What was stored, when it is of so many lines and below `limit`.
    pub(super) fn unpack(
        width: u8,
        one: u32,
        bytes: Vec<u8>,
        rows: usize,
        limit: usize,
    ) -> Option<Self> {
        let codes = match width {
            0 if bytes.is_empty() => Self::One(one),
            1 => Self::Bytes(bytes.into()),
            2 => Self::Shorts(
                bytes.as_chunks().0.iter().map(|code| u16::from_le_bytes(*code)).collect(),
            ),
            4 => Self::Words(
                bytes.as_chunks().0.iter().map(|code| u32::from_le_bytes(*code)).collect(),
            ),
            _ => return None,
        };
        let (count, largest) = match &codes {
            Self::One(one) => (rows, *one),
            Self::Bytes(codes) => (codes.len(), codes.iter().max().map_or(0, |one| (*one).into())),
            Self::Shorts(codes) => (codes.len(), codes.iter().max().map_or(0, |one| (*one).into())),
            Self::Words(codes) => (codes.len(), codes.iter().max().copied().unwrap_or(0)),
        };
        (count == rows && (largest as usize) < limit).then_some(codes)
    }

    /// One of them.
    pub(super) fn at(&self, row: usize) -> u32 {
        match self {
            Self::One(code) => *code,
            Self::Bytes(codes) => codes[row].into(),
            Self::Shorts(codes) => codes[row].into(),
            Self::Words(codes) => codes[row],
        }
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Bytes(codes) => codes.len(),
            Self::Shorts(codes) => 2 * codes.len(),
            Self::Words(codes) => 4 * codes.len(),
        }
    }
}

/// The costs of some lines: integers of 1 to 8 or of 16 bytes, each times the same power of ten.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    /// That power, 0 … 18.
    pub(super) exponent: u8,
    /// 0 when all are the same, 1 … 8, 16.
    width: u8,
    one: i128,
    bytes: Box<[u8]>,
    /// The least and the largest integer.
    pub(super) span: (i128, i128),
}

/// How costs are stored.
pub(super) struct PackedCosts {
    pub(super) exponent: u8,
    pub(super) width: u8,
    pub(super) one: Amount,
    pub(super) bytes: Vec<u8>,
}

impl Costs {
    pub(super) fn pack(amounts: &[i128]) -> PackedCosts {
        let exponent = exponent(amounts);
        let scale = i128::from(power(exponent));
        let scaled: Vec<i128> = amounts
            .iter()
            .map(|amount| match i64::try_from(*amount) {
                Ok(amount) => (amount / power(exponent)).into(),
                Err(_) => amount / scale,
            })
            .collect();
        let one = scaled.first().copied().unwrap_or(0);
        if scaled.iter().all(|cost| *cost == one) {
            return PackedCosts { exponent, width: 0, one: Amount(one), bytes: Vec::new() };
        }
        // A sign needs a bit as well.
        let bits = scaled.iter().map(|cost| 129 - (cost ^ (cost >> 127)).leading_zeros()).max();
        let width = match bits.unwrap_or(0).div_ceil(8) {
            width @ 0..=8 => width as usize,
            _ => 16,
        };
        let mut bytes = Vec::with_capacity(width * scaled.len());
        for cost in &scaled {
            bytes.extend_from_slice(&cost.to_le_bytes()[..width]);
        }
        PackedCosts { exponent, width: width as u8, one: Amount::ZERO, bytes }
    }

    pub(super) fn unpack(packed: PackedCosts, rows: usize) -> Option<Self> {
        let PackedCosts { exponent, width, one, bytes } = packed;
        let right = matches!(width, 0..=8 | 16)
            && usize::from(exponent) < POWERS.len()
            && bytes.len() == usize::from(width) * rows;
        if !right {
            return None;
        }
        let mut costs =
            Self { exponent, width, one: one.0, bytes: bytes.into(), span: (one.0, one.0) };
        if width > 0 {
            let mut span = (i128::MAX, i128::MIN);
            costs.each_wide(0..rows, |cost| span = (span.0.min(cost), span.1.max(cost)));
            costs.span = span;
        }
        Some(costs)
    }

    /// Whether each is an `i64`.
    pub(super) fn narrow(&self) -> bool {
        self.width <= 8 && i64::try_from(self.one).is_ok()
    }

    /// Puts a stretch of them into `out`, times `factor`. They must be narrow.
    pub(super) fn fill(&self, from: usize, out: &mut [i64], factor: i64) {
        let width = usize::from(self.width);
        let bytes = &self.bytes[from * width..(from + out.len()) * width];
        match width {
            0 => out.fill(self.one as i64 * factor),
            1 => spread::<1>(bytes, out),
            2 => spread::<2>(bytes, out),
            3 => spread::<3>(bytes, out),
            4 => spread::<4>(bytes, out),
            5 => spread::<5>(bytes, out),
            6 => spread::<6>(bytes, out),
            7 => spread::<7>(bytes, out),
            _ => spread::<8>(bytes, out),
        }
        if width > 0 && factor != 1 {
            for cost in out {
                *cost *= factor;
            }
        }
    }

    /// One of them, whatever its size.
    pub(super) fn at(&self, row: usize) -> i128 {
        let width = usize::from(self.width);
        if width == 0 {
            return self.one;
        }
        let bytes = &self.bytes[row * width..(row + 1) * width];
        let mut whole = [if bytes[width - 1] & 0x80 == 0 { 0 } else { 0xff }; 16];
        whole[..width].copy_from_slice(bytes);
        i128::from_le_bytes(whole)
    }

    fn each_wide(&self, rows: std::ops::Range<usize>, mut take: impl FnMut(i128)) {
        if !self.narrow() {
            rows.for_each(|row| take(self.at(row)));
            return;
        }
        let mut some = [0; 1024];
        let mut from = rows.start;
        while from < rows.end {
            let count = some.len().min(rows.end - from);
            self.fill(from, &mut some[..count], 1);
            some[..count].iter().for_each(|cost| take((*cost).into()));
            from += count;
        }
    }

    /// What all of them come to, exactly but for what is beyond an `i128`.
    pub(super) fn total(&self, rows: usize) -> i128 {
        let mut total = 0_i128;
        self.each_wide(0..rows, |cost| total = total.wrapping_add(cost));
        total.wrapping_mul(power(self.exponent).into())
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

fn spread<const WIDTH: usize>(bytes: &[u8], out: &mut [i64]) {
    for (packed, cost) in bytes.as_chunks::<WIDTH>().0.iter().zip(out) {
        // At the upper end, so that the shift brings the sign along; four bytes are read as one.
        let mut whole = 0_u64;
        let mut from = 0;
        if let Some(four) = packed.first_chunk() {
            whole = u64::from(u32::from_le_bytes(*four)) << (64 - 8 * WIDTH);
            from = 4;
        }
        for (at, byte) in packed.iter().enumerate().skip(from) {
            whole |= u64::from(*byte) << (64 - 8 * WIDTH + 8 * at);
        }
        *cost = whole.cast_signed() >> (64 - 8 * WIDTH);
    }
}

/// The largest power of ten that divides all of them; the largest there is when they are zero.
fn exponent(amounts: &[i128]) -> u8 {
    let mut exponent = POWERS.len() as u8 - 1;
    for amount in amounts {
        while exponent > 0 {
            let divides = match i64::try_from(*amount) {
                Ok(amount) => amount % power(exponent) == 0,
                Err(_) => amount % i128::from(power(exponent)) == 0,
            };
            if divides {
                break;
            }
            exponent -= 1;
        }
    }
    exponent
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(amounts: &[i128]) -> Costs {
        Costs::unpack(Costs::pack(amounts), amounts.len()).unwrap()
    }

    fn sized() -> impl Strategy<Value = i128> {
        (any::<i128>(), 0..128_u32, 0..13_u32).prop_map(|(number, shift, zeros)| {
            (number >> shift) / 10_i128.pow(zeros) * 10_i128.pow(zeros)
        })
    }

    proptest! {
        #[test]
        fn costs_come_back_as_they_went_in(
            amounts in prop::collection::vec(sized(), 0..50), shift in 0..128_u32,
        ) {
            let amounts: Vec<i128> = amounts.into_iter().map(|amount| amount >> shift).collect();
            let costs = back(&amounts);
            let scale = i128::from(power(costs.exponent));
            let seen: Vec<i128> = (0..amounts.len()).map(|row| costs.at(row) * scale).collect();
            prop_assert_eq!(&seen, &amounts);
            prop_assert!(amounts.iter().all(|one| (costs.span.0..=costs.span.1).contains(&(one / scale))));
            let total = amounts.iter().fold(0_i128, |sum, one| sum.wrapping_add(*one));
            prop_assert_eq!(costs.total(amounts.len()), total);
            if costs.narrow() {
                let mut out = vec![0; amounts.len()];
                costs.fill(0, &mut out, 1);
                prop_assert!(out.iter().zip(&amounts).all(|(one, whole)| i128::from(*one) * scale == *whole));
            }
        }

        #[test]
        fn codes_come_back_as_they_went_in(
            codes in prop::collection::vec(any::<u32>(), 1..50), shift in 0..32_u32,
        ) {
            let codes: Vec<u32> = codes.into_iter().map(|code| (code >> shift).min(u32::MAX - 1)).collect();
            let (width, bytes) = Codes::pack(&codes);
            let limit = u32::MAX as usize;
            let back = Codes::unpack(width, codes[0], bytes, codes.len(), limit).unwrap();
            prop_assert!((0..codes.len()).all(|row| back.at(row) == codes[row]));
        }
    }

    #[test]
    fn what_is_small_is_stored_small() {
        let widths: Vec<_> = [
            &[0, 0][..],
            &[5, 5],
            &[127, -128],
            &[128, -1],
            &[100_000_000_000_000, -200_000_000_000_000],
            &[i128::from(i64::MAX), 1],
            &[i128::from(i64::MAX) + 1, 1],
        ]
        .iter()
        .map(|amounts| Costs::pack(amounts).width)
        .collect();
        assert_eq!(widths, [0, 0, 1, 2, 1, 8, 16]);
        assert_eq!(Codes::unpack(1, 0, vec![1, 2], 2, 2).map(|_| ()), None, "a code without text");
    }
}
