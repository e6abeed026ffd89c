//! Update windows: times of the week at which something may be done.

use super::error::Problem;

/// Seconds.
pub const DAY: u64 = 86_400;
pub const WEEK: u64 = 7 * DAY;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// One window: the same time on some days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which it opens, from Monday.
    pub days: [bool; 7],
    /// The minute of the day at which it opens.
    pub from: u16,
    /// The minute at which it is closed again, on the next day if it is not after `from`;
    /// 1440 is midnight.
    pub until: u16,
}

impl Window {
    /// Seconds until it is open, counted from `wall`, a second of the week; zero while it is.
    pub fn opens_in(&self, wall: u64) -> Option<u64> {
        let from = u64::from(self.from) * 60;
        let until = u64::from(self.until) * 60;
        let length = if until > from {
            until - from
        } else {
            DAY + until - from
        };
        let days = (0..7).zip(self.days).filter(|(_, on)| *on);
        let wait = days.map(|(day, _)| {
            let opens = day * DAY + from;
            match (wall + WEEK - opens) % WEEK {
                since if since < length => 0,
                since => WEEK - since,
            }
        });
        wait.min()
    }
}

/// Several windows, with commas or semicolons between them: `Mon-Fri 01:00-05:00, Sat,Sun
/// 00:00-06:00`.
pub fn windows(text: &str) -> Result<Vec<Window>, Problem> {
    let mut windows = Vec::new();
    let mut days = String::new();
    for piece in text.split_inclusive([',', ';']) {
        days.push_str(piece);
        // Days alone are part of what follows.
        if piece.contains(':') {
            windows.push(window(days.trim_end_matches([',', ';']))?);
            days.clear();
        }
    }
    match days.trim().is_empty() {
        true => Ok(windows),
        false => Err(problem()),
    }
}

fn problem() -> Problem {
    Problem::new(
        "is not an update window",
        "write days (or none, for all) and times of day, such as Mon-Fri 01:00-05:00",
    )
}

/// `01:00-05:00`, `Mon-Fri 22:00-04:00`, `Sat,Sun 00:00-24:00`.
fn window(text: &str) -> Result<Window, Problem> {
    let (days, times) = match text.trim().rsplit_once(char::is_whitespace) {
        Some((names, times)) => (days(names).ok_or_else(problem)?, times),
        None => ([true; 7], text.trim()),
    };
    let (from, until) = times.split_once('-').ok_or_else(problem)?;
    let from = minute(from).filter(|minute| *minute < 1440);
    let (from, until) = from.zip(minute(until)).ok_or_else(problem)?;
    Ok(Window { days, from, until })
}

/// `Mon-Fri`, `Sat,Sun`, `Fri-Mon`, in any case.
fn days(text: &str) -> Option<[bool; 7]> {
    let mut on = [false; 7];
    for names in text.split(',') {
        let (first, last) = names.split_once('-').unwrap_or((names, names));
        let (mut day, last) = (weekday(first)?, weekday(last)?);
        on[day] = true;
        while day != last {
            day = (day + 1) % 7;
            on[day] = true;
        }
    }
    Some(on)
}

fn weekday(name: &str) -> Option<usize> {
    let name = name.trim();
    DAYS.iter().position(|day| day.eq_ignore_ascii_case(name))
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let digits = |text: &str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || minutes.len() != 2 || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= 1440).then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days_of(window: &Window) -> Vec<&str> {
        let on = DAYS.iter().zip(window.days).filter(|(_, on)| *on);
        on.map(|(day, _)| *day).collect()
    }

    #[test]
    fn what_is_a_window() {
        for (text, days, from, until) in [
            ("Mon-Fri 01:00-05:00", "Mon Tue Wed Thu Fri", 60, 300),
            ("sat,SUN 0:00-24:00", "Sat Sun", 0, 1440),
            ("Fri-Mon 22:30-04:00", "Mon Fri Sat Sun", 1350, 240),
            ("Mon, Wed-Thu  7:05-7:06", "Mon Wed Thu", 425, 426),
            ("Tue 00:00-00:00", "Tue", 0, 0),
            (" 01:00-05:00 ", "Mon Tue Wed Thu Fri Sat Sun", 60, 300),
        ] {
            let window = window(text).expect(text);
            assert_eq!(days_of(&window).join(" "), days, "{text}");
            assert_eq!((window.from, window.until), (from, until), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "Mon-Fri",
            "Mon 01:00",
            "Mon 1-5",
            "Mon 01:60-02:00",
            "Mon 24:00-02:00",
            "Mon 01:00-24:01",
            "Mon 001:00-02:00",
            "Mon 01:0-02:00",
            "Mo 01:00-02:00",
            "Mon- 01:00-02:00",
            ", 01:00-02:00",
            "Mon 01:00-02:00-03:00",
            "Mon +1:00-02:00",
        ] {
            assert!(window(text).is_err(), "{text}");
            assert!(windows(text).is_err(), "{text}");
        }
        assert!(window("").is_err());
    }

    #[test]
    fn several() {
        for (text, times) in [
            ("", vec![]),
            ("Mon 1:00-2:00", vec![60]),
            ("Sat,Sun 1:00-2:00, Mon,Tue,Wed 2:00-3:00", vec![60, 120]),
            ("1:00-2:00;Mon 2:00-3:00,Tue 3:00-4:00;", vec![60, 120, 180]),
        ] {
            let windows = windows(text).expect(text);
            assert_eq!(
                windows.iter().map(|window| window.from).collect::<Vec<_>>(),
                times
            );
        }
        for text in [
            "Mon 1:00-2:00, Tue",
            "1:00-2:00, x 1:00-2:00",
            ";",
            "1:00-2:00 3:00-4:00",
        ] {
            assert!(windows(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_that_ends_on_the_next_day_is_open_there() {
        let sunday = window("Sun 23:00-01:00").expect("a window");
        assert_eq!(sunday.opens_in(0), Some(0));
        assert_eq!(sunday.opens_in(3_599), Some(0));
        assert_eq!(sunday.opens_in(3_600), Some(WEEK - 2 * 3_600));
        assert_eq!(sunday.opens_in(WEEK - 3_601), Some(1));
        assert_eq!(sunday.opens_in(WEEK - 3_600), Some(0));
    }
}
