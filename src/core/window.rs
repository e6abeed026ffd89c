//! When update windows open: wall-clock times of the week, counted in a time zone whose
//! offset changes. Pure: the zone comes in as a function.

use std::time::Duration;

use crate::config::window::{DAY, WEEK, Window};

/// Seconds east of UTC at that unix time.
pub type Offset<'a> = &'a dyn Fn(u64) -> i64;

/// Changes of the offset that cancel out within this many seconds go unseen.
const STEP: u64 = 6 * 3600;
/// A window that a change of the clock skips in one week opens in the next.
const HORIZON: u64 = 2 * WEEK + DAY;

/// How long from `now` (unix seconds) until one of the windows is open: zero while one is,
/// `None` without any.
pub fn opens_in(windows: &[Window], now: u64, offset: Offset) -> Option<Duration> {
    let mut at = now;
    while at <= now.saturating_add(HORIZON) {
        let wall = second_of_week(at, offset);
        let ahead = windows
            .iter()
            .filter_map(|window| window.opens_in(wall))
            .min()?;
        if ahead == 0 {
            return Some(Duration::from_secs(at - now));
        }
        at = first_change(at, at + ahead, offset).unwrap_or(at + ahead);
    }
    None
}

/// What a clock on the wall shows, in seconds since Monday 00:00.
fn second_of_week(at: u64, offset: Offset) -> u64 {
    /// Thursday, 1970-01-01.
    const EPOCH: i64 = 3 * DAY as i64;
    let at = i64::try_from(at).unwrap_or(i64::MAX / 2);
    (at + EPOCH + offset(at.unsigned_abs()))
        .rem_euclid(WEEK as i64)
        .unsigned_abs()
}

/// The first second within `from ..= until` at which the offset is not `from`'s.
fn first_change(from: u64, until: u64, offset: Offset) -> Option<u64> {
    let before = offset(from);
    let mut same = from;
    while same < until {
        let mut other = until.min(same + STEP);
        if offset(other) == before {
            same = other;
            continue;
        }
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            match offset(middle) == before {
                true => same = middle,
                false => other = middle,
            }
        }
        return Some(other);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Second by second is too slow to try often, and windows know only minutes.
    const MINUTE: u64 = 60;

    /// What the words of a window mean, without any arithmetic on offsets: asked for every
    /// minute, one by one.
    fn naive(windows: &[Window], now: u64, offset: Offset) -> Option<Duration> {
        let open = |at: u64| {
            let wall = at.cast_signed() + offset(at);
            let days = wall.div_euclid(86_400);
            let minute = wall.rem_euclid(86_400) / 60;
            let weekday = (days + 3).rem_euclid(7);
            let on = |window: &Window, weekday: i64| {
                window.days[usize::try_from(weekday).expect("a day")]
            };
            windows.iter().any(|window| {
                let (from, until) = (i64::from(window.from), i64::from(window.until));
                match from < until {
                    true => on(window, weekday) && (from..until).contains(&minute),
                    false => {
                        (on(window, weekday) && minute >= from)
                            || (on(window, (weekday + 6) % 7) && minute < until)
                    }
                }
            })
        };
        // The rest of the minute that now is in is as its beginning.
        let minutes = (now / MINUTE..).map(|minute| now.max(minute * MINUTE));
        let horizon = usize::try_from(HORIZON / MINUTE).expect("small");
        let found = minutes.take(horizon).find(|at| open(*at));
        found.map(|at| Duration::from_secs(at - now))
    }

    prop_compose! {
        fn window()(days in any::<[bool; 7]>(), from in 0u16..1440, until in 0u16..=1440) -> Window {
            Window { days, from, until }
        }
    }

    /// An offset that changes and changes back, as summer time does.
    #[derive(Clone, Debug)]
    struct Zone {
        base: i64,
        shift: i64,
        summer: std::ops::Range<u64>,
    }

    impl Zone {
        fn offset(&self, at: u64) -> i64 {
            let shift = if self.summer.contains(&at) {
                self.shift
            } else {
                0
            };
            self.base + shift
        }
    }

    const START: u64 = 1_700_000_040;

    prop_compose! {
        fn zone()(
            quarters in -48i64..=56,
            shift in prop::sample::select(vec![-7200i64, -3600, -1800, 60, 1800, 3600, 7200, 86_400]),
            from in 0u64..20 * 1440,
            length in 7u64 * 60..20 * 1440,
        ) -> Zone {
            let from = START + from * MINUTE;
            Zone { base: quarters * 900, shift, summer: from..from + length * MINUTE }
        }
    }

    proptest! {
        #[test]
        fn as_counted_minute_by_minute(
            windows in prop::collection::vec(window(), 0..3),
            now in 0u64..20 * DAY,
            zone in zone(),
        ) {
            let offset = |at: u64| zone.offset(at);
            prop_assert_eq!(
                opens_in(&windows, START + now, &offset),
                naive(&windows, START + now, &offset)
            );
        }
    }
}
