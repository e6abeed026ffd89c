//! `nerveshub-agent settings`, the settings part of `--help`, and the README's reference.
//!
//! Owns the layout only: every word comes from the table. Prints nothing itself.

use std::fmt::Write as _;

use crate::config::table::{SETTINGS, Setting};

/// Columns of `--help`.
const WIDTH: usize = 80;

/// Name, default and meaning, one setting per line, aligned.
pub fn plain() -> String {
    let width = |of: fn(&Setting) -> usize| SETTINGS.iter().map(of).max().unwrap_or(0);
    let names = width(|setting| setting.name.len());
    let defaults = width(|setting| shown_default(setting).chars().count());
    let mut text = format!("{:names$}  {:defaults$}  MEANING\n", "NAME", "DEFAULT");
    for (section, settings) in sections() {
        let _ = writeln!(text, "\n{section}");
        for setting in settings {
            let _ = writeln!(
                text,
                "{:names$}  {:defaults$}  {}",
                setting.name,
                shown_default(setting),
                meaning(setting)
            );
        }
    }
    text.push_str(SYNTAX);
    text
}

/// For `--help`: name and syntax, and below the meaning, within 80 columns.
pub fn help() -> String {
    let mut text = String::new();
    for (section, settings) in sections() {
        let _ = writeln!(text, "{section}:");
        for setting in settings {
            let _ = write!(text, "  {}={}", setting.name, setting.kind.syntax());
            if !setting.default.is_empty() {
                let _ = write!(text, "  [{}]", setting.default);
            }
            text.push('\n');
            wrap(&mut text, &meaning(setting), "      ");
        }
        text.push('\n');
    }
    text.push_str(SYNTAX.trim_start());
    text
}

/// The README's reference: one Markdown table per section.
pub fn markdown() -> String {
    let mut text = String::new();
    for (section, settings) in sections() {
        let _ = write!(
            text,
            "### {section}\n\n| Variable | Value | Default | Meaning |\n| --- | --- | --- | --- |\n"
        );
        for setting in settings {
            let default = match setting.default {
                "" => "–".to_owned(),
                default => format!("`{default}`"),
            };
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {} | {} |",
                setting.name,
                cell(&setting.kind.syntax()),
                cell(&default),
                cell(&meaning(setting))
            );
        }
        text.push('\n');
    }
    text.push_str(SYNTAX.trim_start());
    text
}

/// Syntax that all settings share.
const SYNTAX: &str = "
Durations: 30 or 30s, 500ms, 5m, 24h, 2d. Lists: commas or spaces between words.
Booleans: 1/0, true/false, yes/no, on/off. An empty variable counts as unset.
NAME_FILE names a file that holds the value of NAME.
";

/// Settings by section, in the table's order.
fn sections() -> impl Iterator<Item = (&'static str, &'static [Setting])> {
    SETTINGS
        .chunk_by(|a, b| a.section == b.section)
        .filter_map(|rows| rows.first().map(|first| (first.section, rows)))
}

fn shown_default(setting: &Setting) -> &str {
    match setting.default {
        "" => "–",
        default => default,
    }
}

fn meaning(setting: &Setting) -> String {
    match setting.file_name() {
        Some(name) => format!("{} Also as {name}.", setting.meaning),
        None => setting.meaning.to_owned(),
    }
}

/// A `|` would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn wrap(out: &mut String, text: &str, indent: &str) {
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column == 0 || column + 1 + length > WIDTH {
            out.push_str(if column == 0 { "" } else { "\n" });
            out.push_str(indent);
            column = indent.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_in_every_form() {
        for text in [plain(), help(), markdown()] {
            for setting in SETTINGS {
                assert!(text.contains(setting.name), "{}", setting.name);
                assert!(text.contains(setting.default));
            }
            assert!(text.contains("NERVES_HUB_PRODUCT_SECRET_FILE"));
        }
    }

    #[test]
    fn the_readme_has_the_list_as_it_is() {
        let readme = include_str!("../../README.md");
        assert!(
            readme.contains(markdown().trim()),
            "README.md differs from `nerveshub-agent settings --markdown`"
        );
    }

    #[test]
    fn the_reference_of_updates_names_each_of_their_settings() {
        let text = include_str!("../../etc/doc/updates.md");
        for setting in SETTINGS {
            let named = text.contains(&format!("`{}`", setting.name));
            let expected = ["Updates", "Archives", "Slots"].contains(&setting.section);
            assert!(named || !expected, "{}", setting.name);
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        for line in help().lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn markdown_rows_have_four_cells() {
        for line in markdown().lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 5, "{line}");
        }
    }

    #[test]
    fn plain_columns_line_up() {
        let text = plain();
        let column = |line: &str, word: &str| {
            let at = line.find(word).unwrap();
            line[..at].chars().count()
        };
        let lines: Vec<&str> = text.lines().collect();
        let expected = column(lines[0], "MEANING");
        let host = lines
            .iter()
            .find(|line| line.starts_with("NERVES_HUB_HOST"))
            .unwrap();
        assert_eq!(column(host, "The hub"), expected);
    }
}
