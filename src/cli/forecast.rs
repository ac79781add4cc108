//! What comes next.

use adapters_console::{exit::Exit, forecasts as show, format, names::resolve, style::Style};

use super::{Failure, grammar::Forecast};
use crate::connection::Connection;

pub(super) async fn run(forecast: Forecast, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = forecast.at.moment()?;
    let mut query = vec![
        ("step", forecast.step),
        ("basis", forecast.basis),
        ("page_size", forecast.limit.to_string()),
    ];
    for (name, kind, kinds, named) in [
        ("rule_set", "rule-set", "rule-sets", forecast.rules),
        ("organisation", "organisation", "organisations", forecast.organisation),
    ] {
        if let Some(named) = named {
            query.push((name, resolve(&client, kind, kinds, &named, at.as_deref()).await?));
        }
    }
    for (name, yes) in [
        ("allocated", forecast.allocated),
        ("draft", forecast.draft),
        ("repriced", forecast.repriced),
        ("running", forecast.running),
    ] {
        query.extend(yes.then(|| (name, "true".to_owned())));
    }
    let mut ids = Vec::new();
    for name in &forecast.driver {
        ids.push(resolve(&client, "driver", "drivers", name, at.as_deref()).await?);
    }
    let drivers = match (forecast.no_drivers, ids.is_empty()) {
        (true, _) => Some("none".to_owned()),
        (false, true) => None,
        (false, false) => Some(ids.join(",")),
    };
    let shifts = (!forecast.shift.is_empty()).then(|| forecast.shift.join(","));
    let by = if forecast.total { Some(String::new()) } else { forecast.by };
    for (name, value) in [
        ("group_by", by),
        ("horizon", forecast.horizon.map(|steps| steps.to_string())),
        ("from_month", forecast.from_month),
        ("to_month", forecast.to_month),
        ("filter", forecast.filter),
        ("currency", forecast.currency),
        ("drivers", drivers),
        ("shifts", shifts),
        ("look_back", forecast.look_back.map(|steps| steps.to_string())),
        ("at", at),
    ] {
        query.extend(value.map(|value| (name, value)));
    }
    let answer = client.get("/v1/forecasts", &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if forecast.output.output.is_for_people() {
        show::table(out, &answer, style)?;
    } else {
        format::document(out, forecast.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}
