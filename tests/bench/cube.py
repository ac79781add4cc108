"""DuckDB's side of the cube's bench. Called by cube.rs, one step after the other:

    cube.py load FOLDER              bill.parquet and inventory.parquet into bill.duckdb; bill.csv, which is FOCUS
    cube.py ask FOLDER RUNS          the questions, so many times each; prints a line of JSON for each
"""

import json
import resource
import sys
import time

import duckdb

FOCUS = """
copy (select
    billed_cost BilledCost, effective_cost EffectiveCost, list_cost ListCost, contracted_cost ContractedCost,
    'generated' BillingAccountId, billing_currency BillingCurrency,
    strftime(billing_period_start, '%Y-%m-%dT%H:%M:%SZ') BillingPeriodStart,
    strftime(billing_period_start + interval 1 month, '%Y-%m-%dT%H:%M:%SZ') BillingPeriodEnd,
    charge_category ChargeCategory, charge_class ChargeClass,
    strftime(charge_period_start, '%Y-%m-%dT%H:%M:%SZ') ChargePeriodStart,
    strftime(charge_period_end, '%Y-%m-%dT%H:%M:%SZ') ChargePeriodEnd,
    sub_account_id SubAccountId, region_id RegionId, service_name ServiceName, service_category ServiceCategory,
    resource_id ResourceId, project_id ResourceType, sku_id SkuId, pricing_category PricingCategory,
    commitment_discount_id CommitmentDiscountId, commitment_discount_status CommitmentDiscountStatus,
    pricing_quantity ConsumedQuantity, 'Hours' ConsumedUnit, provider InvoiceIssuerName, to_json(tags) Tags
from bill) to '{folder}/bill.csv' (header, delimiter ',')
"""


def questions(tag, has):
    month = "strftime(date_trunc('month', charge_period_start), '%Y-%m')"
    period = "strftime(billing_period_start, '%Y-%m')"
    month_first = "date_trunc('month', charge_period_start)"
    of = lambda key: f"sum(case when {has(key)} then effective_cost end)"
    return {
        "1 month, project, tag": (
            f"select {month_first} m, project_id p, {tag('env')} e, sum(effective_cost) c from bill group by 1, 2, 3",
            "select strftime(m, '%Y-%m'), p, e, c from answer",
        ),
        "2 top 20 services": (
            "select service_name s, sum(effective_cost) c from bill where charge_period_start >= '2026-08-01' and "
            "charge_period_start < '2026-11-01' group by 1 order by c desc, s limit 20",
            "select s, c from answer",
        ),
        "3 tag coverage": (
            "select provider p, billing_period_start b, sum(effective_cost) t, "
            f"{of('project')} a, {of('env')} e, {of('team')} o, count(*) n "
            "from bill where charge_category = 'Usage' group by 1, 2",
            "select w, p, strftime(b, '%Y-%m'), c from (select 'all' w, p, b, t c from answer union all "
            "select 'project', p, b, a from answer union all select 'env', p, b, e from answer union all "
            "select 'team', p, b, o from answer)",
        ),
        "4 joined with the inventory": (
            f"select {month_first} m, i.business_unit u, i.cost_center k, sum(effective_cost) c from bill "
            "join inventory i using (resource_id) group by 1, 2, 3",
            "select strftime(m, '%Y-%m'), u, k, c from answer",
        ),
        "5 days of three tags": (
            f"select charge_period_start::date d, sum(effective_cost) c from bill where {tag('env')} = 'prod' and "
            f"{tag('team')} = 'team-07' and {tag('app')} in ('app-001', 'app-010', 'app-100') group by 1",
            "select d::text, c from answer",
        ),
        "6 shared cost by cost": (
            "with x as (select billing_period_start b, project_id p, sum(effective_cost) c from bill group by 1, 2), "
            "d as (select b, p, c from x where p <> 'shared-platform' and c > 0), "
            "s as (select b, c sc from x where p = 'shared-platform'), tt as (select b, sum(c) tc from d group by 1) "
            "select d.b, d.p, d.c, s.sc * d.c / tt.tc al from d join s on d.b = s.b join tt on d.b = tt.b",
            "select strftime(b, '%Y-%m'), p, c from answer",
        ),
    }


def ask(folder, runs):
    db = duckdb.connect(f"{folder}/bill.duckdb", read_only=True, config={"threads": 2})
    spelled = {
        "columns": (lambda key: f"tag_{key}", lambda key: f"tag_{key} is not null"),
        "map": (lambda key: f"tags['{key}']", lambda key: f"tags['{key}'] is not null"),
    }
    for how, (tag, has) in spelled.items():
        for name, (sql, shown) in questions(tag, has).items():
            if how == "map" and name[0] not in "135":
                continue
            cpus, walls = [], []
            for _ in range(runs):
                before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
                answer = db.sql(sql).to_arrow_table()
                walls.append(time.perf_counter() - start)
                after = resource.getrusage(resource.RUSAGE_SELF)
                cpus.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
            rows = db.execute(shown).fetchall()
            rows = [["" if one is None else str(one) for one in row] for row in rows]
            print(json.dumps({"how": how, "name": name, "cpus": cpus, "walls": walls, "rows": rows}), flush=True)


def load(folder):
    db = duckdb.connect(f"{folder}/bill.duckdb", config={"threads": 2})
    for table in ("bill", "inventory"):
        db.execute(f"create table {table} as from '{folder}/{table}.parquet'")
    db.execute(FOCUS.format(folder=folder))


if __name__ == "__main__":
    if sys.argv[1] == "load":
        load(sys.argv[2])
    else:
        ask(sys.argv[2], int(sys.argv[3]))
