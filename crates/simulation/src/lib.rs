//! A fleet of browsers and servers with everything failing, in one thread and from one number.
//!
//! Several browsers with several tabs each, and a back end, work on one session through two servers that share a tier in
//! memory and a database. Connections break, frames come twice, tabs, browsers and servers crash at any moment, tabs
//! freeze while they lead, a browser's storage fails, is full or loses its last writes, clocks jump, commits fail or
//! succeed without an answer, servers are cut off from the shared tier, and that loses everything or goes back in time.
//! Then everything heals, and what was promised has to be true ([`World::check`]).
//!
//! While it lasts, a connection is worse than a WebSocket: frames of both directions may come twice or change places.
//!
//! One seed is one life: [`live`] with the same seed and plant gives the same [`Life`], its trace included. A
//! [`Plant`] is a mistake made on purpose, to see that lives like these find it.
#![warn(missing_docs)]

mod back_end;
mod browsers;
mod database;
mod life;
mod plants;
mod servers;
mod shared_tier;
mod world;

pub use life::{Life, live, live_recreated, lost_without_browsers};
pub use plants::Plant;
pub use world::World;
