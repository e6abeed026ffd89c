//! Gives back what only the way to being idle needed.
//!
//! The kernel maps a program's code generously around each page that is run, and never
//! unmaps it: after start, TLS handshake and join nearly all of the agent and of libc counts
//! as resident, though the idle agent runs a few pages of it. Those come back from the page
//! cache when they are run again.

use std::fs;
use std::ops::Range;
use std::ptr::{self, NonNull};

use nix::sys::mman::{MmapAdvise, madvise};

/// Unmaps the pages of code that are mapped now; those still needed return one by one.
pub fn release_code() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for range in maps.lines().filter_map(code) {
        let Some(start) = NonNull::new(ptr::without_provenance_mut(range.start)) else {
            continue;
        };
        // SAFETY: the range is a private mapping of a file that is executable and not
        // writable, so it holds nothing but the file's own bytes, and those are read again on
        // the next access. The only code that changes mappings is the loader's, which has
        // run, and this.
        let advised = unsafe { madvise(start, range.len(), MmapAdvise::MADV_DONTNEED) };
        if let Err(error) = advised {
            debug!("code stays mapped: {error}");
        }
    }
}

/// The addresses of one line of the memory map if it is code from a file.
fn code(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()? == "r-xp";
    let file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    let number = |text| usize::from_str_radix(text, 16).ok();
    (is_code && file).then_some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_from_files_is_released() {
        for (line, expected) in [
            (
                "1000-3000 r-xp 00000000 fe:00 42     /usr/bin/agent",
                Some(0x1000..0x3000),
            ),
            ("1000-3000 r--p 00000000 fe:00 42     /usr/bin/agent", None),
            ("1000-3000 rw-p 00000000 fe:00 42     /usr/bin/agent", None),
            ("1000-3000 rwxp 00000000 fe:00 42     /usr/bin/agent", None),
            ("7ff0-7ff1 r-xp 00000000 00:00 0      [vdso]", None),
            ("7ff0-7ff1 r-xp 00000000 00:00 0", None),
            ("", None),
            ("zz-3000 r-xp 00000000 fe:00 42 /x", None),
        ] {
            assert_eq!(code(line), expected, "{line}");
        }
    }

    #[test]
    fn the_program_goes_on() {
        release_code();
        assert_eq!("still here".len(), 10);
    }
}
