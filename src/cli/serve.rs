//! `skyledger serve`: flags over file over defaults, then a server.

use std::{collections::BTreeSet, time::Duration};

use adapters_console::exit::Exit;

use super::{Failure, grammar::Serve, runtime};
use crate::{
    compose::{self, Manner},
    config::Config,
    local_host::{Libvirt, Means, OwnHost},
    telemetry,
};

/// A flag stands over what the file says.
fn over<T: Clone>(field: &mut T, flag: Option<&T>) {
    if let Some(flag) = flag {
        field.clone_from(flag);
    }
}

fn config_of(serve: &Serve) -> Result<Config, Failure> {
    let mut config = match &serve.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    over(&mut config.data, serve.data.as_ref());
    over(&mut config.listen, serve.listen.as_ref());
    over(&mut config.store, serve.store.as_ref());
    over(&mut config.log, serve.log.as_ref());
    over(&mut config.log_format, serve.log_format.as_ref());
    over(&mut config.sync_interval_s, serve.sync_interval.as_ref());
    config.sim = serve.sim.clone().or(config.sim);
    config.witness = serve.witness.clone().or(config.witness);
    config.check()?;
    Ok(config)
}

pub(super) fn run(serve: Serve) -> Result<Exit, Failure> {
    let config = config_of(&serve)?;
    if serve.print_config {
        print!("{}", config.print());
        return Ok(Exit::Ok);
    }
    let means = if serve.simulated {
        Means::Simulated { pause: Duration::from_millis(serve.simulated_pause_ms) }
    } else {
        let (labels, storages) = (BTreeSet::new(), serve.storage);
        let volume_groups = serve.volume_group;
        Means::Libvirt(Libvirt {
            images_max_bytes: None,
            socket: serve.libvirt,
            labels,
            storages,
            volume_groups,
            reached: None,
        })
    };
    let manner = Manner {
        own_host: serve.local_host.map(|name| OwnHost { name, means }),
        token_file: serve.token_file,
        until_stdin_closes: serve.until_stdin_closes,
    };
    let _telemetry = telemetry::start(&config)?;
    runtime()?.block_on(compose::serve(&config, &manner))?;
    Ok(Exit::Ok)
}
