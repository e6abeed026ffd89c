//! Does what no extension should, when the hub tells it to; for tests, and in debug builds
//! only. Also the smallest example of an extension.

use std::sync::Arc;

use super::{Extension, Kind, Life, Link, Site, Word};
use crate::wire::json::json;

pub const KIND: Kind = Kind {
    name: "mischief",
    versions: &["0.0.1"],
    life: Life::Attached,
    build: |_: &Arc<Site>| Box::new(Mischief),
};

struct Mischief;

impl Extension for Mischief {
    fn run(&mut self, link: &mut Link) -> Result<(), String> {
        loop {
            match link.next(None) {
                Word::Said { event, payload, .. } => match event.as_str() {
                    "echo" => link.push("echo", payload),
                    "panic" => panic!("on purpose"),
                    "fail" => return Err("on purpose".to_owned()),
                    "flood" => (0..1000).for_each(|n| link.push("flood", json!({ "n": n }))),
                    "hang" => loop {
                        std::thread::park();
                    },
                    _ => {}
                },
                Word::Attached { .. }
                | Word::Away
                | Word::Asked { .. }
                | Word::Nudged
                | Word::Due => {}
                Word::Over => return Ok(()),
            }
        }
    }
}
