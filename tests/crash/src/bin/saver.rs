//! Saves to the repository named by its argument until it is killed; prints the number of each version that it was
//! promised.
#![expect(clippy::print_stdout, reason = "the test reads what was promised")]

use chipmink_store::{Place, Store, StoreOptions};
use chipmink_test_crash::namespace;
use chipmink_testkit::toy;
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give a folder")?;
    let durable = std::env::args().nth(2).as_deref() == Some("durable");
    let store =
        Store::open_or_create(Place::parse(&path)?, StoreOptions { durable, ..StoreOptions::default() })?;
    loop {
        let next = store.head().number.0 + 1;
        let time = toy::save(&store, &namespace(next), "")?;
        println!("{time}");
        std::io::stdout().flush()?;
    }
}
