//! `netra collect`: spans of many sidecars in, the whole system at a glance out.
#![forbid(unsafe_code)]

mod batch;
mod books;
mod config;
mod disk;
mod facts;
mod forward;
mod histogram;
mod join;
mod keeper;
mod map;
mod names;
mod receive;
mod reply;
mod reporters;
mod run;
mod sample;
mod serve;
mod show;
mod sidecars;
mod slots;
mod store;
mod trace;
mod wire;

pub use config::{Config, Setting, settings, settings_page};
pub use run::{Failure, map_once, run};
