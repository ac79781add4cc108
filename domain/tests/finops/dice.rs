//! Chance that is the same every time.

#![expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "chance is made")]

/// Numbers that look like chance, the same every time (xorshift64*).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// From 0 to 1, without it.
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal.
    pub(crate) fn bell(&mut self) -> f64 {
        (0..12).map(|_| self.roll()).sum::<f64>() - 6.0
    }
}
