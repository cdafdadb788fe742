//! Reads everything of the repository named by its argument and prints what went wrong, a line each. The test runs it
//! with little memory: it must end by itself.
#![expect(clippy::print_stdout, reason = "the test reads what went wrong")]

use chipmink_store::{Place, Store, StoreOptions};
use chipmink_testkit::toy;
use chipmink_types::TimeId;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give a folder")?;
    let options = StoreOptions { durable: false, ..StoreOptions::default() };
    let store = match Store::open(Place::parse(&path)?, options) {
        Ok(store) => store,
        Err(error) => {
            println!("open: {error}");
            return Ok(());
        }
    };
    store.void_entries().iter().for_each(|number| println!("void: root entry {number}"));
    for number in 1..=store.head().number.0.min(100) {
        if let Err(error) = toy::load(&store, TimeId(number)) {
            println!("load {number}: {error}");
        }
    }
    match store.verify(true) {
        Ok(report) => report
            .problems
            .iter()
            .for_each(|problem| println!("verify: {}: {}", problem.object, problem.reason)),
        Err(error) => println!("verify: {error}"),
    }
    Ok(())
}
