//! What support scripts print, as text for the hub, and what can be told from a script's
//! own text. Pure.

/// Most bytes of a script's output that are sent.
pub const OUTPUT_MAX: usize = 64 * 1024;
/// Most bytes of a script.
pub const SCRIPT_MAX: usize = 64 * 1024;

/// Words that no shell script has and most Elixir has.
const ELIXIR: [&str; 12] = [
    "IO.puts",
    "IO.inspect",
    "defmodule ",
    "|> ",
    "iex>",
    "iex(",
    "Nerves.",
    "NervesHub",
    "System.cmd",
    "File.read!",
    "Enum.",
    "Application.get_env",
];

/// The first bytes of an output, and how many there were in all, as text: what is no UTF-8
/// or no printable character is U+FFFD, and what is missing is said.
pub fn printed(first: &[u8], total: u64) -> String {
    let is_cut = total > first.len() as u64;
    let whole = match is_cut {
        true => without_part_of_character(first),
        false => first,
    };
    let mut text = String::with_capacity(whole.len());
    let characters = String::from_utf8_lossy(whole);
    let mut shown = characters.chars();
    for character in shown.by_ref() {
        let character = printable(character);
        // Replacements are longer than what they replace.
        if text.len() + character.len_utf8() > OUTPUT_MAX {
            break;
        }
        text.push(character);
    }
    if is_cut || shown.next().is_some() {
        let kept = text.len();
        text.push_str(&format!(
            "\n[output cut: {total} bytes were printed, the first {kept} are above]"
        ));
    }
    text
}

/// Control characters take six bytes each in a frame, and no terminal wants them.
fn printable(character: char) -> char {
    match character {
        '\t' | '\n' | '\r' | '\x1b' | '\x07' | '\x08' => character,
        control if control.is_ascii_control() => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// Drops the beginning of a character whose rest was cut off.
fn without_part_of_character(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        // Garbage before the end hides it; at most three bytes could be a beginning.
        Err(_) => {
            let start = (bytes.len().saturating_sub(3)..bytes.len())
                .find(|at| bytes[*at] >= 0xC0)
                .filter(|at| {
                    let tail = std::str::from_utf8(&bytes[*at..]);
                    tail.is_err_and(|error| error.error_len().is_none())
                });
            &bytes[..start.unwrap_or(bytes.len())]
        }
        Ok(_) => bytes,
    }
}

/// What the script asks to be run by: the program of its `#!` line and its one argument.
pub fn shebang(text: &str) -> Option<(&str, Option<&str>)> {
    let line = text.strip_prefix("#!")?.lines().next()?.trim();
    let (program, argument) = match line.split_once([' ', '\t']) {
        Some((program, argument)) => (program, Some(argument.trim())),
        None => (line, None),
    };
    (!program.is_empty()).then_some((program, argument))
}

/// Web forms send `\r\n`, which a shell takes for part of the last word.
pub fn with_plain_line_ends(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// Support scripts of Nerves devices are Elixir; this agent has no Elixir.
pub fn looks_like_elixir(text: &str) -> bool {
    shebang(text).is_none() && ELIXIR.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_within_the_cap_is_sent_as_it_is() {
        let text = "ä\tb\r\n\x1b[1mc\x1b[0m";
        assert_eq!(printed(text.as_bytes(), text.len() as u64), text);
        assert_eq!(printed(b"", 0), "");
    }

    #[test]
    fn what_is_no_text_is_marked() {
        assert_eq!(printed(b"a\xffb\0c\x01", 6), "a\u{fffd}b\u{fffd}c\u{fffd}");
        // Not cut: half a character is garbage.
        assert_eq!(printed(b"a\xc3", 2), "a\u{fffd}");
    }

    #[test]
    fn a_cut_says_so_and_splits_no_character() {
        let cut = "\n[output cut: 10 bytes were printed, the first 1 are above]";
        for start in [&b"a\xc3"[..], b"a\xe2\x82", b"a\xf0\x9f\x98"] {
            assert_eq!(printed(start, 10), format!("a{cut}"));
        }
        assert_eq!(
            printed(b"\xffa\xe2\x82", 10),
            "\u{fffd}a\n[output cut: 10 bytes were printed, the first 4 are above]"
        );
    }

    #[test]
    fn replacements_do_not_go_beyond_the_cap() {
        let garbage = vec![0; OUTPUT_MAX];
        let text = printed(&garbage, OUTPUT_MAX as u64);
        assert!(text.len() < OUTPUT_MAX + 100, "{}", text.len());
        assert!(text.ends_with("above]"), "{text:.100}");
    }

    #[test]
    fn shebangs() {
        for (text, expected) in [
            ("#!/bin/sh\necho", Some(("/bin/sh", None))),
            (
                "#! /usr/bin/env  python3 -u \n",
                Some(("/usr/bin/env", Some("python3 -u"))),
            ),
            ("#!/bin/sh", Some(("/bin/sh", None))),
            ("#!\necho", None),
            ("echo #!/bin/sh", None),
            ("", None),
        ] {
            assert_eq!(shebang(text), expected, "{text:?}");
        }
    }

    #[test]
    fn elixir_is_told_from_shell() {
        for text in [
            "IO.puts(\"hello\")",
            "defmodule A do\nend",
            "Nerves.Runtime.KV.get_all() |> IO.inspect()",
            "iex> 1 + 1",
        ] {
            assert!(looks_like_elixir(text), "{text}");
        }
        for text in [
            "echo hello | cat",
            "a=1; test $a -gt 0 || exit 1",
            "#!/usr/bin/env elixir\nIO.puts(1)",
            "cat /etc/nerveshub.conf",
        ] {
            assert!(!looks_like_elixir(text), "{text}");
        }
    }
}
