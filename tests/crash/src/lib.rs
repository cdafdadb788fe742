//! What the crash tests and the process that they kill have in common.

use chipmink_testkit::Random;
use chipmink_testkit::toy::Namespace;

/// The namespace that version `number` of a crash test holds: some of it is older, some is new, now and then a variable is
/// large, and one large variable changes a little each time.
pub fn namespace(number: u64) -> Namespace {
    let mut values = Namespace::new();
    for name in 0..4u64 {
        // Variable k changes in every (k + 1)-th version.
        let mut random = Random::new((name << 32) | (number / (name + 1)));
        let len = if name == 3 && number.is_multiple_of(3) { 66_000 } else { 40 + random.below(200) };
        values.insert(format!("v{name}"), random.bytes(len));
    }
    let mut weights = Random::new(5).bytes(66_000);
    for changed in 1..=number {
        weights[(changed * 7919 % 66_000) as usize] ^= changed as u8 | 1;
    }
    values.insert("weights".to_owned(), weights);
    values
}
