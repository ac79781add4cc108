//! Reads a bill, says what is in it and how long that took, and keeps it when a lake is given:
//! `cargo run --release -p adapters-lake --example read_bill BILL [LAKE]`.

use std::{collections::BTreeMap, fs::File, time::Instant};

use adapters_lake::{Lake, read};
use domain::finops::amount::Amount;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which bill?")?;
    let lake = arguments.next().map(Lake::open).transpose()?;
    let mut writer = lake.as_ref().map(Lake::writer).transpose()?;
    let began = Instant::now();
    let mut bill = read(File::open(path)?, None)?;
    let (mut rows, mut bad) = (0_u64, 0_u64);
    let mut sums: BTreeMap<String, [Amount; 4]> = BTreeMap::new();
    for line in bill.by_ref() {
        let line = match line {
            Ok(line) => line,
            Err(line) => {
                bad += 1;
                if bad <= 20 {
                    println!("bad {line:?}");
                }
                continue;
            }
        };
        rows += 1;
        if !sums.contains_key(line.currency.code()) {
            sums.insert(line.currency.to_string(), [Amount::ZERO; 4]);
        }
        let costs = [line.billed, line.effective, line.list, line.contracted];
        for (sum, cost) in sums.get_mut(line.currency.code()).into_iter().flatten().zip(costs) {
            *sum = sum.checked_add(cost).ok_or("the sum is too large")?;
        }
        if let Some(writer) = &mut writer {
            writer.push(&line)?;
        }
    }
    println!("{rows} lines, {bad} bad, by {}, {:?}", bill.mapping(), began.elapsed());
    for (currency, sums) in sums {
        println!(
            "{currency} billed, effective, list, contracted: {}",
            sums.map(|sum| sum.to_string()).join(", ")
        );
    }
    for finding in bill.findings() {
        println!("{} from line {}: {}", finding.count, finding.first, finding.rule.says());
    }
    if let Some(why) = bill.cut_short() {
        println!("cut short: {why}");
    }
    if let (Some(writer), Some(lake)) = (writer, lake) {
        let segment = writer.finish()?;
        println!("{segment:?} after {:?}", began.elapsed());
        let began = Instant::now();
        let mut back = 0_u64;
        for line in lake.lines(&segment.digest)? {
            line?;
            back += 1;
        }
        println!("{back} lines read back in {:?}", began.elapsed());
    }
    Ok(())
}
