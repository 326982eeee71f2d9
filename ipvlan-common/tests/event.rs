//! How seldom a tracer is told of drops.

use ipvlan_common::{Dropped, Event, Hook, SNAP, Sample};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

#[test]
fn the_numbers_of_hooks_are_theirs() {
    for number in 0..5 {
        assert_eq!(
            Hook::from_number(number).map(|hook| hook as u32),
            Some(number)
        );
    }
    assert_eq!(Hook::from_number(5), None);
}

#[test]
fn an_event_has_no_padding() {
    assert_eq!(size_of::<Event>(), 8 + 8 + 4 * 4 + SNAP);
}

#[test]
fn a_new_tracer_hears_nothing_of_an_earlier_ones() {
    let mut sample = Dropped::NONE.sample;
    for _ in 0..=Sample::PER_SECOND {
        sample.take(5, 1);
    }
    assert_eq!(sample.take(6, 1), None, "the second is used up");
    assert_eq!(sample.take(7, 7), Some(0));
}

proptest! {
    /// Every drop is told of, by an event of its own or by the number in the next one; and no
    /// second holds more events than it may.
    #[test]
    fn drops_are_told_or_counted(
        gaps in prop::collection::vec(0..SECOND / 5, 1..400),
        full in prop::collection::vec(prop::bool::weighted(0.1), 400),
    ) {
        let mut sample = Dropped::NONE.sample;
        let mut now = 10 * SECOND;
        let (mut drops, mut told, mut waiting) = (0, 0, 0);
        let mut times = Vec::new();
        for (gap, full) in gaps.into_iter().zip(full) {
            now += gap;
            drops += 1;
            match sample.take(now, SECOND) {
                Some(before) if full => {
                    sample.suppress(before);
                    waiting += 1;
                }
                Some(before) => {
                    prop_assert_eq!(before, waiting);
                    told += 1 + before;
                    waiting = 0;
                    times.push(now);
                }
                None => waiting += 1,
            }
        }
        prop_assert_eq!(told + waiting, drops);
        // The seconds are not a sliding window: two halves of one may touch.
        for (i, time) in times.iter().enumerate() {
            let within = times[i..].iter().filter(|later| **later < time + SECOND).count();
            prop_assert!(within <= 2 * Sample::PER_SECOND as usize);
        }
    }
}
