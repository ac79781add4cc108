//! Small bills by hand: what is booked, what is bad and where, and what is odd.

use std::io::{self, Cursor, Read, Write};

use domain::finops::line::{ChargeCategory, Line};

use super::{BadLine, Bill, BillFault, Mapping, MappingFault, Rule, read};

const HEADING: &str = "BilledCost,BillingAccountId,BillingCurrency,BillingPeriodStart,\
    ChargeCategory,ChargePeriodEnd,ChargePeriodStart,ContractedCost,EffectiveCost,ListCost,\
    ListUnitPrice,PricingQuantity,ServiceName,Tags,x_Extra";
const GOOD: &str = "1.5,a-1,USD,2026-10-01T00:00:00Z,Usage,2026-10-02T00:00:00Z,\
    2026-10-01T00:00:00Z,2,1.25,3,1.5,2,Compute,\"{\"\"env\"\": \"\"prod\"\"}\",more";

fn bill(lines: &[&str]) -> String {
    format!("{HEADING}\n{}\n", lines.join("\n"))
}

/// The good line with one column changed.
fn with(column: &str, value: &str) -> String {
    let place = HEADING.split(',').position(|name| name == column).unwrap();
    let mut fields: Vec<_> = GOOD.split(',').collect();
    fields[place] = value;
    fields.join(",")
}

fn all(bill: &mut Bill<'_>) -> (Vec<Line>, Vec<BadLine>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for line in bill {
        match line {
            Ok(line) => good.push(line),
            Err(line) => bad.push(line),
        }
    }
    (good, bad)
}

/// How often a rule is broken, and where first.
type Found = (Rule, u64, u64);

fn taken(text: &str) -> (Vec<Line>, Vec<BadLine>, Vec<Found>) {
    let mut bill = read(text.as_bytes(), None).unwrap();
    let (good, bad) = all(&mut bill);
    let findings = bill.findings();
    let findings = findings.iter().map(|found| (found.rule, found.count, found.first)).collect();
    (good, bad, findings)
}

#[test]
fn a_focus_line_is_taken_whole() {
    let (good, bad, findings) = taken(&bill(&[GOOD]));
    assert_eq!((bad, findings), (vec![], vec![]));
    let [line] = &*good else { panic!("{good:?}") };
    assert_eq!((line.number, &*line.billing_account, &*line.service), (2, "a-1", "Compute"));
    let costs = [line.billed, line.effective, line.list, line.contracted];
    assert_eq!(costs.map(|cost| cost.to_string()), ["1.5", "1.25", "3", "2"]);
    assert_eq!((line.month.to_string(), line.currency.code()), ("2026-10".to_owned(), "USD"));
    assert_eq!(line.from.to_rfc3339(), "2026-10-01T00:00:00+00:00");
    assert_eq!(line.to.to_rfc3339(), "2026-10-02T00:00:00+00:00");
    assert_eq!(line.tags, [("env".to_owned(), "prod".to_owned())].into());
    let other = [("ListUnitPrice", "1.5"), ("PricingQuantity", "2"), ("x_Extra", "more")];
    assert_eq!(line.other, other.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
}

#[test]
fn the_order_of_the_columns_is_nothing() {
    let turned = |line: &str| {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        let record = reader.records().next().unwrap().unwrap();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(record.iter().collect::<Vec<_>>().into_iter().rev()).unwrap();
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    };
    let turned = format!("{}{}", turned(HEADING), turned(GOOD));
    assert_ne!(turned, bill(&[GOOD]));
    assert_eq!(taken(&turned), taken(&bill(&[GOOD])));
}

#[test]
fn what_cannot_be_booked_says_its_line_its_column_and_what_it_would_have_cost() {
    for (column, value, reason, worth) in [
        ("BilledCost", "", "is missing", false),
        ("BilledCost", "NULL", "is missing", false),
        ("BilledCost", "1.5 USD", "is not a decimal number", false),
        ("BilledCost", "1e30", "is too large for an amount", false),
        ("BillingAccountId", "", "is missing", true),
        ("BillingCurrency", "", "is missing", false),
        ("BillingCurrency", "dollar", "is not a currency's code", false),
        ("BillingPeriodStart", "", "is missing", true),
        ("BillingPeriodStart", "October", "is not a time", true),
        ("ChargePeriodStart", "2026-10-32", "is not a time", true),
        ("ChargePeriodEnd", "", "is missing", true),
        ("ChargePeriodEnd", "2026-09-30", "is before the charge begins", true),
    ] {
        let (good, bad, findings) = taken(&bill(&[GOOD, &with(column, value), GOOD]));
        let value = if value == "NULL" { "" } else { value };
        let [one] = &*bad else { panic!("{column}={value}: {bad:?}") };
        assert_eq!((one.line, &*one.column, &*one.value, &*one.reason), (3, column, value, reason));
        let billed = one.billed.as_ref().map(|(amount, of)| format!("{amount} {of}"));
        assert_eq!(billed.as_deref(), worth.then_some("1.5 USD"), "{column}={value}");
        assert_eq!(good.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(findings, [], "a bad line has no findings");
    }
    let (_, bad, _) = taken(&bill(&[&with("BilledCost", &"ü".repeat(500))]));
    assert_eq!(bad[0].value, format!("{}…", "ü".repeat(80)));
}

#[test]
fn what_is_odd_is_booked_and_counted_from_its_first_line() {
    for (column, value, rule) in [
        ("ChargeCategory", "", Rule::ChargeCategoryMissing),
        ("ChargeCategory", "Gift", Rule::ChargeCategoryUnknown),
        ("ChargePeriodEnd", "2026-10-01T00:00:00Z", Rule::ChargePeriodEmpty),
        ("ContractedCost", "NULL", Rule::ContractedCostMissing),
        ("BilledCost", "1.5000000000005", Rule::CostRounded),
        ("EffectiveCost", "", Rule::EffectiveCostMissing),
        ("ListCost", "3.1", Rule::ListCostMismatch),
        ("ListCost", "", Rule::ListCostMissing),
        ("BillingPeriodStart", "2026-10-02T00:00:00Z", Rule::MonthNotFromItsFirst),
        ("ServiceName", "", Rule::ServiceNameMissing),
        ("x_Extra", "\"two\nlines\"", Rule::TextOverLines),
        ("Tags", "env=prod", Rule::TagsUnreadable),
        ("ChargePeriodStart", "2026-10-01T00:00:00.0000001Z", Rule::TimeRounded),
        ("ChargePeriodStart", "2026-10-01 00:00:00", Rule::TimeWithoutZone),
    ] {
        let odd = with(column, value);
        let (good, bad, findings) = taken(&bill(&[GOOD, &odd, &odd]));
        let second = if rule == Rule::TextOverLines { 5 } else { 4 };
        assert_eq!((good.len(), bad), (3, vec![]), "{column}={value}");
        assert_eq!(good[2].number, second);
        assert_eq!(findings, [(rule, 2, 3)], "{column}={value}");
    }
}

#[test]
fn what_is_taken_for_what_is_missing_and_the_text_is_kept() {
    let one = |column, value| {
        let (mut good, bad, findings) = taken(&bill(&[&with(column, value)]));
        assert_eq!((good.len(), bad), (1, vec![]));
        (good.remove(0), findings)
    };
    assert_eq!(one("EffectiveCost", "").0.effective.to_string(), "1.5");
    assert_eq!(one("ListCost", "NULL").0.list.to_string(), "0");
    assert_eq!(one("ContractedCost", "").0.contracted.to_string(), "0");
    let (line, findings) = one("EffectiveCost", "n/a");
    assert_eq!(
        (line.effective.to_string(), &*line.other["EffectiveCost"]),
        ("1.5".to_owned(), "n/a")
    );
    assert_eq!(findings, [(Rule::CostUnreadable, 1, 2), (Rule::EffectiveCostMissing, 1, 2)]);
    let (line, _) = one("ChargeCategory", "Gift");
    assert_eq!(
        (line.category, &*line.other["ChargeCategory"]),
        (ChargeCategory::Adjustment, "Gift")
    );
    let (line, _) = one("BilledCost", "0.012264277499950943");
    assert_eq!(line.billed.to_string(), "0.0122642775");
    assert_eq!(line.other["BilledCost"], "0.012264277499950943");
    assert_eq!(one("Tags", "env").0.other["Tags"], "env");
    let (line, _) = one("Tags", "\"{\"\"a\"\": true\x0c}\"");
    assert_eq!(line.other["Tags"], "{\"a\": true\u{c}}");
    assert_eq!(one("Tags", "{}").0.tags, [].into());
    // A month is one where the issuer is.
    assert_eq!(
        one("BillingPeriodStart", "2026-10-01T00:00:00+08:00").0.month.to_string(),
        "2026-10"
    );
}

#[test]
fn tags_without_a_value_are_true() {
    let tags = r#""{""a"": true; ""b"": null; ""c"": 1.50; ""d"": ""x""}""#;
    let line = with("Tags", tags).replace("; ", ", ");
    let (good, _, findings) = taken(&bill(&[&line]));
    let tags: Vec<_> = good[0].tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        (tags, findings),
        (["a=true", "b=true", "c=1.5", "d=x"].map(String::from).into(), vec![])
    );
}

#[test]
fn lines_are_numbered_as_an_editor_does() {
    let text = format!("\u{feff}{HEADING}\n{GOOD}\n\n\n{GOOD}\n1,2\n{GOOD}");
    for text in [text.clone(), text.replace('\n', "\r\n")] {
        let (good, bad, findings) = taken(&text);
        assert_eq!(good.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 5, 7]);
        let [bad] = &*bad else { panic!("{bad:?}") };
        let reason = "has 2 fields where the heading has 15";
        assert_eq!((bad.line, &*bad.column, &*bad.reason), (6, "", reason));
        assert!(good.iter().all(|line| line.other["x_Extra"] == "more"));
        assert_eq!(findings, []);
    }
}

#[test]
fn a_quote_that_nobody_closes_is_not_the_silent_end() {
    // In the last column, where the number of fields would be right.
    let open = with("x_Extra", "\"open");
    let mut lines = vec![GOOD, &open];
    lines.extend([GOOD.split_once(",\"").unwrap().0; 3]);
    for text in [bill(&lines), bill(&[GOOD, "\"1"])] {
        let mut bill = read(text.as_bytes(), None).unwrap();
        let (good, bad) = all(&mut bill);
        assert_eq!((good.len(), bad.len()), (1, 1), "{text}");
        assert_eq!(bad[0].line, 3);
        assert!(bad[0].reason.contains("quote"), "{}", bad[0].reason);
    }
    // One that the next quote closes takes lines with it, and says so.
    let (good, bad, _) = taken(&bill(&[GOOD, "\"1", GOOD, GOOD]));
    assert_eq!((good.len(), bad.len()), (2, 1));
    assert!(bad[0].reason.contains("over 2 lines"), "{}", bad[0].reason);
}

#[test]
fn an_open_quote_does_not_fill_the_memory() {
    let endless = Cursor::new(format!("{HEADING}\n{GOOD}\n\"open")).chain(io::repeat(b'x'));
    let mut bill = read(endless, None).unwrap();
    let (good, bad) = all(&mut bill);
    assert_eq!((good.len(), bad.len()), (1, 1));
    assert_eq!(bad[0].line, 3);
    assert!(bill.cut_short().unwrap().contains("more than 16777216 bytes"));
}

#[test]
fn what_is_not_utf8_is_one_bad_line() {
    let mut bytes = bill(&[GOOD, "BAD", GOOD]).into_bytes();
    let latin = with("ServiceName", "B\u{fc}ro").replace('ü', "\u{1}").into_bytes();
    let latin: Vec<_> = latin.iter().map(|byte| if *byte == 1 { 0xfc } else { *byte }).collect();
    let at = bytes.windows(3).position(|three| three == b"BAD").unwrap();
    bytes.splice(at..at + 3, latin);
    let (good, bad) = all(&mut read(&*bytes, None).unwrap());
    assert_eq!(good.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 4]);
    let [bad] = &*bad else { panic!("{bad:?}") };
    assert_eq!((bad.line, &*bad.column), (3, "ServiceName"));
    assert_eq!(bad.reason, "is not UTF-8 from its byte 1 on");
}

#[test]
fn packed_bills_read_as_plain_ones_and_a_cut_one_says_so() {
    let gzip = |text: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let text = bill(&vec![GOOD; 2000]);
    let (start, end) = text.split_at(text.len() / 3);
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    let (plain, none, _) = taken(&text);
    assert_eq!((plain.len(), none.len()), (2000, 0));
    for packed in [
        gzip(&text),
        [gzip(start), gzip(end)].concat(),
        zstd(&text),
        [zstd(start), zstd(end)].concat(),
    ] {
        let (good, bad) = all(&mut read(&*packed, None).unwrap());
        assert!(good == plain && bad.is_empty());
        let mut cut = read(&packed[..packed.len() - 12], None).unwrap();
        let (good, bad) = all(&mut cut);
        assert!(good.len() <= 2000 && bad.len() == 1, "{} {bad:?}", good.len());
        assert_eq!(cut.cut_short(), Some(&*bad[0].reason));
    }
}

#[test]
fn a_heading_is_refused_with_what_it_lacks_or_has_twice() {
    let lacking = HEADING.replace("BillingCurrency", "Money").replace("ChargePeriodEnd", "End");
    let Err(BillFault::Lacking(columns)) = read(lacking.as_bytes(), None) else { panic!() };
    assert_eq!(columns, ["BillingCurrency", "ChargePeriodEnd"]);
    let twice = format!("{HEADING},x_Extra,BilledCost");
    let Err(BillFault::Twice(columns)) = read(twice.as_bytes(), None) else { panic!() };
    assert_eq!(columns, ["BilledCost", "x_Extra"]);
    assert!(matches!(read("a,b\n1,2\n".as_bytes(), None), Err(BillFault::Unknown(_))));
    for nothing in ["", "\n\n", "\"BilledCost"] {
        assert!(
            matches!(read(nothing.as_bytes(), None), Err(BillFault::NoHeading(_))),
            "{nothing}"
        );
    }
    assert_eq!(taken(&format!("{HEADING}\n")).0, []);
}

#[test]
fn the_built_in_mappings_are_read_and_each_is_found_by_its_heading() {
    let mappings = Mapping::built_in();
    let names: Vec<_> = mappings.iter().map(|mapping| &*mapping.name).collect();
    assert_eq!(names, ["aws-cur", "aws-cur-2", "focus", "oci"]);
    for mapping in &mappings {
        let found = Mapping::detect(mapping.detect.iter().map(String::as_str));
        assert_eq!(found.as_ref(), Some(mapping));
        assert!(!mapping.detect.is_empty());
    }
}

#[test]
fn what_aws_covers_by_a_commitment_costs_its_share() {
    let heading = "bill/BillingPeriodStartDate,bill/PayerAccountId,lineItem/LineItemType,\
        lineItem/UsageStartDate,lineItem/UsageEndDate,lineItem/CurrencyCode,\
        lineItem/UnblendedCost,pricing/publicOnDemandCost,reservation/EffectiveCost,\
        savingsPlan/SavingsPlanEffectiveCost,savingsPlan/TotalCommitmentToDate,\
        savingsPlan/UsedCommitment,lineItem/ProductCode,resourceTags/user:env,resourceTags/aws:by";
    let row = |rest: &str| {
        format!("2026-10-01T00:00:00.000Z,p,{rest},AmazonEC2,prod,")
            .replace("TIME", "2026-10-03T04:00:00Z,2026-10-03T05:00:00Z,USD")
    };
    let rows = [
        row("Usage,TIME,6.71E-8,7E-8,0.0,0.0,,"),
        row("SavingsPlanCoveredUsage,TIME,10,10,0.0,7,,"),
        row("SavingsPlanNegation,TIME,-10,,0.0,,,"),
        row("SavingsPlanRecurringFee,TIME,8,,,,8,7"),
        row("DiscountedUsage,TIME,0,4,3,,,"),
        row("Tax,TIME,1,,,,,"),
        row("EdpDiscount,TIME,-2,,,,,"),
        row("Surprise,TIME,1,,,,,"),
    ];
    let legacy = format!("{heading}\n{}\n", rows.join("\n"));
    let snake = "bill_billing_period_start_date,bill_payer_account_id,line_item_line_item_type,\
        line_item_usage_start_date,line_item_usage_end_date,line_item_currency_code,\
        line_item_unblended_cost,pricing_public_on_demand_cost,reservation_effective_cost,\
        savings_plan_savings_plan_effective_cost,savings_plan_total_commitment_to_date,\
        savings_plan_used_commitment,line_item_product_code,resource_tags_user_env,\
        resource_tags_aws_by";
    let second = format!("{snake}\n{}\n", rows.join("\n"));
    for text in [legacy, second] {
        let (good, bad, findings) = taken(&text);
        assert_eq!(bad, []);
        let shown: Vec<_> = good
            .iter()
            .map(|line| {
                format!("{} {} {} {}", line.category.name(), line.billed, line.effective, line.list)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "Usage 0.0000000671 0.0000000671 0.00000007",
                "Usage 10 7 10",
                "Usage -10 0 0",
                "Purchase 8 1 8",
                "Usage 0 3 4",
                "Tax 1 1 1",
                "Credit -2 -2 -2",
                "Adjustment 1 1 1",
            ]
        );
        assert_eq!(findings, [(Rule::ChargeCategoryUnknown, 1, 9)]);
        assert_eq!(good[0].tags, [("env".to_owned(), "prod".to_owned())].into());
        assert_eq!((&*good[0].service, &*good[1].commitment_status), ("AmazonEC2", "Used"));
        assert!(good[7].other.values().any(|value| value == "Surprise"));
    }
}

#[test]
fn oracle_has_no_months_and_many_decimals() {
    let text = "lineItem/tenantId,lineItem/intervalUsageStart,lineItem/intervalUsageEnd,\
        product/service,cost/myCost,cost/currencyCode,lineItem/isCorrection,tags/Ns.Key\r\n\
        t,2023-11-13T10:00Z,2023-11-13T11:00:00Z,DATABASE,0.012264277499950943,USD,false,boots\r\n\
        t,2023-11-13T10:00Z,2023-11-13T11:00:00Z,DATABASE,2.323760000E-9,USD,true,\r\n";
    let (good, bad, findings) = taken(text);
    assert_eq!(bad, []);
    let shown = good.iter().map(|line| (line.billed.to_string(), line.effective == line.billed));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [("0.0122642775".to_owned(), true), ("0.000000002324".to_owned(), true)]
    );
    assert_eq!(good[0].month.to_string(), "2023-11");
    assert_eq!((good[0].correction, good[1].correction), (false, true));
    assert_eq!(good[0].other["cost/myCost"], "0.012264277499950943");
    assert_eq!(good[0].tags, [("Ns.Key".to_owned(), "boots".to_owned())].into());
    assert_eq!(good[1].tags, [].into());
    assert_eq!(findings, [(Rule::CostRounded, 2, 2), (Rule::ListCostMissing, 2, 2)]);
}

#[test]
fn a_mapping_of_ones_own_reads_dates_and_numbers_as_they_are_written() {
    let text = r#"{
        "name": "house", "decimal_mark": ",", "thousands_mark": ".", "dates": ["%d.%m.%Y"],
        "columns": {
            "BilledCost": { "add": ["Netto", "Steuer"], "less": ["Rabatt"] }, "BillingPeriodStart": "Monat",
            "ChargePeriodStart": "Von", "ChargePeriodEnd": "Bis", "BillingAccountId": ["Konto", "Kunde"]
        },
        "constants": { "BillingCurrency": "EUR", "ServiceName": "Rack" }, "nulls": ["-"]
    }"#;
    let mapping = Mapping::from_json(text).unwrap();
    let bill = "Kunde;Konto;Netto;Steuer;Rabatt;Monat;Von;Bis;Notiz\n\
        k;-;\"1.234,50\";\"1,5\";\"0,25\";01.10.2026;01.10.2026;02.10.2026;x\n\
        k;q;\"1.5\";;;01.10.2026;01.10.2026;02.10.2026;-\n"
        .replace(';', ",");
    let mut bill = read(bill.as_bytes(), Some(&mapping)).unwrap();
    let (good, bad) = all(&mut bill);
    assert_eq!((bill.mapping(), bad), ("house", vec![]));
    assert_eq!(
        (good[0].billed.to_string(), &*good[0].billing_account),
        ("1235.75".to_owned(), "k")
    );
    assert_eq!((good[1].billed.to_string(), &*good[1].billing_account), ("15".to_owned(), "q"));
    assert_eq!((good[0].currency.code(), &*good[0].service), ("EUR", "Rack"));
    assert_eq!(good[0].from.to_rfc3339(), "2026-10-01T00:00:00+00:00");
    let (noted, not) = (good[0].other.get("Notiz"), good[1].other.get("Notiz"));
    assert_eq!((noted.map(String::as_str), not), (Some("x"), None));
}

#[test]
fn a_wrong_mapping_says_what_is_wrong() {
    let fault = |text: &str| Mapping::from_toml(text).unwrap_err();
    let needed = "BillingAccountId = 'a'\nBillingCurrency = 'a'\nBillingPeriodStart = 'a'\n\
        ChargePeriodEnd = 'a'\nChargePeriodStart = 'a'\n";
    let Err(other) = Mapping::from_toml("name = 'x'\ncolums = {}") else { panic!() };
    assert!(other.to_string().contains("colums"), "{other}");
    let typo = fault("name = 'x'\n[columns]\nBilledCost = [{ colum = 'a' }]");
    assert!(typo.to_string().contains("colum"), "{typo}");
    let unfed = fault(&format!("name = 'x'\n[columns]\n{needed}"));
    assert!(matches!(unfed, MappingFault::Unfed { columns, .. } if columns == ["BilledCost"]));
    let unknown = fault("name = 'x'\n[columns]\nBiledCost = 'a'");
    assert!(matches!(unknown, MappingFault::UnknownColumn { column, .. } if column == "BiledCost"));
    for term in ["{ column = 'a', value = '0' }", "{}", "[]", "{ when = { a = ['*'] } }"] {
        let fault = fault(&format!("name = 'x'\n[columns]\n{needed}BilledCost = {term}"));
        assert!(matches!(fault, MappingFault::Term { .. }), "{term}: {fault}");
    }
    let sum = fault(&format!(
        "name = 'x'\n[columns]\n{needed}BilledCost='b'\nServiceName = {{ add = ['a'] }}"
    ));
    assert!(matches!(sum, MappingFault::Term { column, .. } if column == "ServiceName"));
}

#[test]
fn the_keys_in_a_second_cost_and_usage_report_lose_their_prefix() {
    let text = "bill_billing_period_start_date,bill_payer_account_id,line_item_line_item_type,\
        line_item_usage_start_date,line_item_usage_end_date,line_item_currency_code,\
        line_item_unblended_cost,resource_tags\n\
        2026-10-01T00:00:00Z,p,Usage,2026-10-03T04:00:00Z,2026-10-03T05:00:00Z,USD,1,\
        \"{\"\"user_env\"\":\"\"prod\"\",\"\"aws_by\"\":\"\"me\"\"}\"\n";
    let (good, bad, _) = taken(text);
    assert_eq!(bad, []);
    let tags: Vec<_> = good[0].tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(tags, ["aws_by=me", "env=prod"]);
}

/// Gives a byte at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let some = out.len().min(1);
        self.0.read(&mut out[..some])
    }
}

#[test]
fn a_file_in_pieces_has_the_lines_of_the_whole() {
    let rows: Vec<_> = (0..40)
        .map(|row| with("BilledCost", &format!("{row}.{row:012}5")))
        .chain([with("ChargeCategory", "Gift"), "1,2".to_owned(), with("x_Extra", "\"a\nb\"")])
        .collect();
    let rows: Vec<_> = rows.iter().map(String::as_str).collect();
    let (whole, bad, findings) = taken(&bill(&rows));
    assert_eq!((whole.len(), bad.len(), findings.len()), (42, 1, 3));
    let mut slow = bill(&rows);
    slow.pop();
    let (good, _) = all(&mut read(Slow(slow.as_bytes()), None).unwrap());
    assert_eq!(good, whole);
    for cut in [0, 1, 20, 41, rows.len()] {
        let (start, end) = rows.split_at(cut);
        let (mut first, one, _) = taken(&bill(start));
        let (second, two, _) = taken(&bill(end));
        first.extend(
            second.into_iter().map(|line| Line { number: line.number + cut as u64, ..line }),
        );
        assert_eq!((first, one.len() + two.len()), (whole.clone(), 1), "{cut}");
    }
}

proptest::proptest! {
    /// Whatever a file holds, every line of it is a good or a bad one, and the reader ends.
    #[test]
    fn nothing_in_a_file_stops_the_reader(
        bytes in proptest::collection::vec(proptest::sample::select(&b"1.,\n\r\"\\e-+{}:TZ \xff\xc3\xbc0"[..]), 0..200),
        field in 0..15_usize,
    ) {
        let mut text = format!("{HEADING}\n{GOOD}\n").into_bytes();
        text.extend(&bytes);
        let mut fields: Vec<Vec<u8>> = GOOD.split(',').map(|field| field.as_bytes().to_vec()).collect();
        fields[field] = bytes.iter().copied().filter(|byte| !b",\n\r\"".contains(byte)).collect();
        let mut line = format!("{HEADING}\n{GOOD}\n").into_bytes();
        line.extend(fields.join(&b","[..]));
        for text in [text, line] {
            let (good, bad) = all(&mut read(&*text, None).unwrap());
            proptest::prop_assert_eq!(good[0].number, 2);
            let numbers: Vec<_> = good.iter().map(|line| line.number).collect();
            proptest::prop_assert!(numbers.is_sorted());
            proptest::prop_assert!(good.len() + bad.len() <= 2 + bytes.len());
        }
    }
}
