//! The command line, by getopt's rules: bundled short options, abbreviated long ones, any order.

/// Whether an option takes a value.
const LONG: &[(&str, bool, &str)] = &[
    ("apply", false, "a"),
    ("create", false, "c"),
    ("detect", false, "D"),
    ("eject", false, "E"),
    ("no-eject", false, ""),
    ("enable-trim", false, ""),
    ("exit-handshake", false, ""),
    ("framing", false, "F"),
    ("gen-keys", false, "g"),
    ("help", false, "h"),
    ("metadata-key", true, ""),
    ("list", false, "l"),
    ("max-size", true, ""),
    ("metadata", false, "m"),
    ("minimize-writes", false, ""),
    ("no-minimize-writes", false, ""),
    ("private-key", true, ""),
    ("private-key-file", true, "s"),
    ("public-key", true, ""),
    // The space is the original's; an abbreviation finds it all the same.
    ("public-key-file ", true, "p"),
    ("progress-low", true, ""),
    ("progress-high", true, ""),
    ("quiet", false, "q"),
    ("reboot-param-path", true, ""),
    ("sparse-check", true, ""),
    ("sparse-check-size", true, ""),
    ("sign", false, "S"),
    ("task", true, "t"),
    ("unmount", false, "u"),
    ("no-unmount", false, "U"),
    ("unsafe", false, ""),
    ("verbose", false, "v"),
    ("verify", false, "V"),
    ("verify-writes", false, ""),
    ("no-verify-writes", false, ""),
    ("version", false, ""),
];
const SHORT: &str = "acDEFghlmnqSVvUuyZz123456789";
const SHORT_WITH_VALUE: &str = "dfiopst";

/// One thing found on the command line. Options with both forms go by their letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Option(String, Option<String>),
    /// What getopt says on stderr about an option it cannot take.
    Bad(String),
}

/// Splits a command line into its options, in order, and what is left.
pub fn split(args: &[String]) -> (Vec<Item>, Vec<String>) {
    let mut items = Vec::new();
    let mut rest = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            rest.extend(args.cloned());
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            items.push(long_option(long, &mut args));
        } else if arg.len() > 1 && arg.starts_with('-') {
            short_options(&arg[1..], &mut args, &mut items);
        } else {
            rest.push(arg.clone());
        }
    }
    (items, rest)
}

fn long_option<'a>(text: &str, args: &mut impl Iterator<Item = &'a String>) -> Item {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (text, None),
    };
    let exact = LONG.iter().find(|(full, _, _)| *full == name);
    let alike: Vec<_> = LONG
        .iter()
        .filter(|(full, _, _)| full.starts_with(name))
        .collect();
    let (full, takes_value, letter) = match (exact, alike.as_slice()) {
        (Some(found), _) => found,
        (None, [found]) => found,
        (None, []) => return Item::Bad(format!("unrecognized option '--{name}'")),
        (None, many) => {
            let list: String = many
                .iter()
                .map(|(full, _, _)| format!(" '--{full}'"))
                .collect();
            return Item::Bad(format!(
                "option '--{name}' is ambiguous; possibilities:{list}"
            ));
        }
    };
    let key = if letter.is_empty() { full } else { letter };
    match (takes_value, value) {
        (false, Some(_)) => Item::Bad(format!("option '--{full}' doesn't allow an argument")),
        (false, None) => Item::Option(key.to_string(), None),
        (true, value) => match value.or_else(|| args.next().cloned()) {
            Some(value) => Item::Option(key.to_string(), Some(value)),
            None => Item::Bad(format!("option '--{full}' requires an argument")),
        },
    }
}

fn short_options<'a>(
    mut text: &str,
    args: &mut impl Iterator<Item = &'a String>,
    items: &mut Vec<Item>,
) {
    while let Some(letter) = text.chars().next() {
        text = &text[letter.len_utf8()..];
        if SHORT.contains(letter) {
            items.push(Item::Option(letter.to_string(), None));
        } else if SHORT_WITH_VALUE.contains(letter) {
            let value = match text {
                "" => args.next().cloned(),
                attached => Some(attached.to_string()),
            };
            items.push(match value {
                Some(value) => Item::Option(letter.to_string(), Some(value)),
                None => Item::Bad(format!("option requires an argument -- '{letter}'")),
            });
            return;
        } else {
            items.push(Item::Bad(format!("invalid option -- '{letter}'")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(args: &[&str]) -> Item {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        split(&args).0[0].clone()
    }

    #[test]
    fn long_options_may_be_abbreviated() {
        let file = Item::Option("p".into(), Some("x".into()));
        assert_eq!(one(&["--public-key-file", "x"]), file);
        assert_eq!(
            one(&["--public-key", "x"]),
            Item::Option("public-key".into(), Some("x".into()))
        );
        assert_eq!(one(&["--appl"]), Item::Option("a".into(), None));
        assert_eq!(
            one(&["--sp=1"]),
            Item::Bad(
                "option '--sp' is ambiguous; possibilities: '--sparse-check' '--sparse-check-size'"
                    .into()
            )
        );
    }

    #[test]
    fn mistakes_are_told_as_getopt_tells_them() {
        let bad = |args: &[&str], text: &str| assert_eq!(one(args), Item::Bad(text.into()));
        bad(&["--bogus"], "unrecognized option '--bogus'");
        bad(&["-X"], "invalid option -- 'X'");
        bad(&["-d"], "option requires an argument -- 'd'");
        bad(&["--task"], "option '--task' requires an argument");
        bad(&["--apply=3"], "option '--apply' doesn't allow an argument");
    }
}
