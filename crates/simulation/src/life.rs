//! Whole lives: what happens in which order, and what is asked in the end.

use crate::browsers::{BROWSERS, Place, TABS, places};
use crate::plants::Plant;
use crate::servers::{Heard, SERVERS};
use crate::shared_tier::SharedTier;
use crate::world::World;

/// How many things happen in a life before everything heals.
const STEPS: u64 = 600;

/// How a life went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Life {
    /// A number that only the same life has.
    pub trace: u64,
    /// How many accepted commands lost against another history, and were decided again.
    pub forks: usize,
    /// How many commands somebody was told are accepted.
    pub acknowledged: usize,
    /// The promise that was broken, if one was.
    pub broken: Option<String>,
}

/// Half of the lives begin with a session that everybody follows, the others with nothing.
fn begun(seed: u64, plant: Plant) -> Result<World, String> {
    let mut world = World::new(seed, plant);
    if seed % 2 == 1 {
        places().for_each(|at| world.open_tab(at));
        world.submit(Place { browser: 0, tab: 0 });
        world.come_to_rest()?;
    }
    Ok(world)
}

fn told(seed: u64, lived: Result<World, String>) -> Life {
    match lived {
        Ok(mut world) => {
            let broken = world.check().err();
            Life { trace: world.trace(), forks: world.forks, acknowledged: world.acknowledged().count(), broken }
        }
        Err(problem) => Life { trace: seed, forks: 0, acknowledged: 0, broken: Some(problem) },
    }
}

/// The whole life of one fleet.
pub fn live(seed: u64, plant: Plant) -> Life {
    let lived = begun(seed, plant).and_then(|mut world| {
        (0..STEPS).for_each(|_| world.step());
        world.heal()?;
        Ok(world)
    });
    told(seed, lived)
}

/// A life in which, while nobody is connected, the session is deleted and created anew under its id.
pub fn live_recreated(seed: u64, plant: Plant) -> Life {
    let lived = begun(seed * 2 + 1, plant).and_then(|mut world| {
        (0..STEPS / 4).for_each(|_| world.step());
        world.heal()?;
        world.recreate();
        world.come_to_rest()?;
        (0..STEPS / 4).for_each(|_| world.step());
        world.heal()?;
        Ok(world)
    });
    told(seed, lived)
}

/// A fleet in which everything works, until a server crashes, or the shared tier loses everything, or both; its browsers
/// never come back. Answers how many of the changes that a browser was told of did not reach the database.
pub fn lost_without_browsers(seed: u64, server_crashes: bool, tier_fails: bool) -> usize {
    let mut world = World::new(seed, Plant::Nothing);
    places().for_each(|at| world.open_tab(at));
    for browser in 0..BROWSERS {
        world.connect(Place { browser, tab: 0 }, browser % SERVERS);
    }
    for _ in 0..1500 {
        let at = Place { browser: world.dice.usize(..BROWSERS), tab: world.dice.usize(..TABS) };
        let server = world.dice.usize(..SERVERS);
        match world.dice.u64(..100) {
            0..20 => world.submit(at),
            20..35 => drop(world.finish_write(at, true)),
            35..45 => drop(world.hear(at)),
            45..60 => drop(world.deliver_up(Place { tab: 0, ..at }, true)),
            60..80 => drop(world.deliver_down(Place { tab: 0, ..at }, true)),
            80..95 => drop(world.answer(server, true)),
            95..98 => drop(world.listen(server)),
            _ => world.ask(server, |authority, _| authority.flush()),
        }
    }
    if server_crashes {
        world.crash_server(0);
    }
    if tier_fails {
        world.tier = SharedTier::default();
        world.servers.iter_mut().for_each(|server| server.heard.push_back(Heard::Interrupted));
    }
    if server_crashes && tier_fails {
        let (id, state) = (world.id.clone(), world.state().cloned());
        world.servers[0].authority = throughline_core::sync::Authority::new(id, state);
    }
    for _ in 0..2000 {
        for server in 0..SERVERS {
            world.answer(server, true);
            world.listen(server);
            world.ask(server, |authority, _| authority.flush());
        }
    }
    let times = world.effects();
    world.acknowledged().filter(|tag| !times.contains_key(tag)).count()
}
