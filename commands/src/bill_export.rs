//! Bills out as FOCUS writes them, as CSV: the same lines that a question of costs counts, and with
//! rules the rows that shared charges become.
//!
//! The lines are read twice: once to tell which columns the file has, once to write it. Memory does
//! not grow with their number.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use domain::finops::{
    allocate::Moved,
    focus::{Allocated, Share, Shares, Survey, Version, rows},
    line::Line,
    ratio::{Ratio, whole},
};

use crate::{
    bills::Counting,
    ports::{BillFault, BillStore},
};

/// Bytes that are handed on at a time.
const PIECE_BYTES: usize = 1 << 16;

/// How charges of pools are shared: by pool, and by what stays apart (currency, month, category).
pub type PoolShares = BTreeMap<(String, String), Shares>;

/// Shared lines are, for an export that says so.
pub struct Shared<'a> {
    /// The centre of a line, before anything is spread.
    pub place: &'a dyn Fn(&Line) -> String,
    /// How pools are spread.
    pub shares: &'a PoolShares,
    /// Names the rules, with their revision.
    pub method: &'a str,
}

impl std::fmt::Debug for Shared<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Shared").field(&self.method).finish()
    }
}

/// What stays apart while costs are spread, as [`PoolShares`] name it.
pub fn stratum(line: &Line) -> String {
    format!("{} {} {}", line.currency, line.month, line.category.name())
}

/// Where the charges of each pool end, from the movements of rules; what a pool gives to another
/// pool ends where that one's charges do.
pub fn pool_shares<'t>(trace: impl IntoIterator<Item = &'t Moved>) -> PoolShares {
    type Given<'t> = Vec<(&'t str, &'t str, &'t Ratio)>;
    let mut given: BTreeMap<(&str, &str), Given<'_>> = BTreeMap::new();
    for moved in trace {
        let from = given.entry((&moved.source, &moved.stratum)).or_default();
        from.push((&moved.target, &moved.rule, &moved.share));
    }
    let mut all = PoolShares::new();
    for (pool, stratum) in given.keys() {
        let mut ends: BTreeMap<&str, (Ratio, BTreeSet<&str>)> = BTreeMap::new();
        let mut arrive = |centre, part: Ratio, rule| {
            let (all, rules) = ends.entry(centre).or_insert_with(|| (whole(0), BTreeSet::new()));
            *all += part;
            rules.insert(rule);
        };
        let mut ways = vec![(*pool, whole(1), "")];
        while let Some((centre, part, rule)) = ways.pop() {
            let further =
                given.get(&(centre, *stratum)).filter(|_| rule.is_empty() || centre != *pool);
            match further {
                Some(further) => {
                    for (target, rule, share) in further {
                        let part = &part * *share;
                        if *target == centre {
                            // It stays there.
                            arrive(target, part, rule);
                        } else if part != whole(0) {
                            ways.push((target, part, rule));
                        }
                    }
                }
                None => arrive(centre, part, rule),
            }
        }
        let share = |(centre, (ratio, rules)): (&str, (Ratio, BTreeSet<&str>))| Share {
            centre: centre.to_owned(),
            rule: Vec::from_iter(rules).join(" + "),
            ratio,
        };
        let shares = ends.into_iter().filter(|(_, (ratio, _))| *ratio != whole(0)).map(share);
        if let Some(shares) = Shares::new(shares.collect()) {
            all.insert(((*pool).to_owned(), (*stratum).to_owned()), shares);
        }
    }
    all
}

/// A field of CSV (RFC 4180).
fn field(text: &str, out: &mut Vec<u8>) {
    if text.contains([',', '"', '\n', '\r']) {
        out.push(b'"');
        out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

fn record<T: AsRef<str>>(fields: &[T], out: &mut Vec<u8>) {
    for (place, text) in fields.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        field(text.as_ref(), out);
    }
    out.push(b'\n');
}

/// Writes the lines piece by piece, and says how many rows that were; `write` says whether more is
/// wanted. Blocks the thread.
pub fn export(
    store: &dyn BillStore,
    counting: &Counting,
    version: Version,
    shared: Option<&Shared<'_>>,
    write: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<u64, BillFault> {
    let mut survey = Survey::default();
    for (_, segment) in counting.segments() {
        for line in store.lines(&segment.digest)? {
            survey.add(&line?);
        }
    }
    let columns: Vec<Cow<'static, str>> = survey.columns(version, shared.is_some());
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    record(&columns, &mut piece);
    let mut written = 0;
    for (_, segment) in counting.segments() {
        for line in store.lines(&segment.digest)? {
            let line = line?;
            let centre = shared.map(|shared| (shared.place)(&line));
            let allocated = shared.zip(centre.as_ref()).map(|(shared, centre)| Allocated {
                centre,
                shares: shared.shares.get(&(centre.clone(), stratum(&line))),
                method: shared.method,
            });
            for row in rows(&line, &columns, allocated) {
                record(&row, &mut piece);
                written += 1;
            }
            if piece.len() >= PIECE_BYTES {
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES));
                if !write(full) {
                    return Ok(written);
                }
            }
        }
    }
    write(piece);
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(source: &str, target: &str, above: i64, below: i64) -> Moved {
        Moved {
            rule: format!("{source} out"),
            stratum: "USD".into(),
            source: source.into(),
            target: target.into(),
            amount: 0,
            share: Ratio::new(above.into(), below.into()),
        }
    }

    #[test]
    fn what_a_pool_gives_to_a_pool_ends_where_that_ones_does() {
        let trace = [
            moved("a", "b", 1, 2),
            moved("a", "x", 1, 3),
            moved("a", "a", 1, 6),
            moved("b", "x", 1, 4),
            moved("b", "y", 3, 4),
        ];
        let shares = pool_shares(&trace);
        let of = |pool: &str| {
            let shares = &shares[&(pool.to_owned(), "USD".to_owned())];
            let shown =
                shares.iter().map(|one| format!("{} {} {}", one.centre, one.ratio, one.rule));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(of("a"), ["a 1/6 a out", "x 11/24 a out + b out", "y 3/8 b out"]);
        assert_eq!(of("b"), ["x 1/4 b out", "y 3/4 b out"]);
    }

    #[test]
    fn a_field_that_needs_it_is_quoted() {
        let mut out = Vec::new();
        record(&["a", "b,c", "d\"e", ""], &mut out);
        assert_eq!(out, b"a,\"b,c\",\"d\"\"e\",\n");
    }
}
