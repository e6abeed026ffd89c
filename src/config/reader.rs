//! Reads one setting after the other and collects what is wrong.
//!
//! Owns the lookup of a row's variable or `_FILE`, redaction, and warnings about unknown
//! names. Must not know what any setting means: that is the parser's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use super::address::without_userinfo;
use super::error::{ConfigError, Problem};
use super::secret::Secret;
use super::table::{Kind, SETTINGS, Setting};
use super::values;

/// Most bytes read from a `_FILE`.
const MAX_FILE: u64 = 64 * 1024;
/// Variables with this prefix belong to the agent.
const PREFIX: &str = "NERVES_HUB_";

/// A value and the variable it came from.
struct Raw {
    name: String,
    text: String,
}

/// The given variables, and the findings so far.
pub(super) struct Reader {
    vars: BTreeMap<String, OsString>,
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<String>,
    #[cfg(test)]
    pub read: std::collections::BTreeSet<&'static str>,
}

impl Reader {
    /// Empty variables count as unset. Of two equal names the last counts.
    pub fn new(env: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut vars = BTreeMap::new();
        // One by one: collecting would bring in a whole sort.
        vars.extend(
            env.filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.to_string_lossy().into_owned(), value)),
        );
        Self {
            vars,
            errors: Vec::new(),
            warnings: Vec::new(),
            #[cfg(test)]
            read: Default::default(),
        }
    }

    /// The variable by which a value was given, if it was: the name or its `_FILE`.
    pub fn given(&self, setting: &Setting) -> Option<String> {
        if self.vars.contains_key(setting.name) {
            return Some(setting.name.to_owned());
        }
        setting
            .file_name()
            .filter(|name| self.vars.contains_key(name))
    }

    fn raw(&mut self, setting: &'static Setting) -> Option<Raw> {
        #[cfg(test)]
        self.read.insert(setting.name);
        let given = self.explicit(setting);
        match given {
            Ok(Some(raw)) => Some(raw),
            Ok(None) if setting.default.is_empty() => None,
            Ok(None) => Some(Raw {
                name: setting.name.to_owned(),
                text: setting.default.to_owned(),
            }),
            Err(error) => {
                self.errors.push(error);
                None
            }
        }
    }

    fn explicit(&self, setting: &Setting) -> Result<Option<Raw>, ConfigError> {
        let text = match self.vars.get(setting.name) {
            Some(value) => Some(utf8(setting.name, value)?),
            None => None,
        };
        let Some((name, path)) = setting
            .file_name()
            .and_then(|name| self.vars.get(&name).map(|path| (name.clone(), path)))
        else {
            let name = setting.name.to_owned();
            return Ok(text.map(|text| Raw { name, text }));
        };
        if text.is_some() {
            return Err(ConfigError::Conflict {
                first: setting.name.to_owned(),
                second: name,
                fix: "keep one of them".to_owned(),
            });
        }
        let path = utf8(&name, path)?;
        match file_text(&path) {
            Ok(text) => Ok(Some(Raw { name, text })),
            Err(problem) => Err(ConfigError::File {
                name,
                path,
                problem,
            }),
        }
    }

    /// A variable of other programs, for which there is no row.
    pub fn foreign(&self, name: &str) -> Option<OsString> {
        self.vars.get(name).cloned()
    }

    /// The value as `parse` understands it; `None` when unset or wrong.
    pub fn parsed<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        let raw = self.raw(setting)?;
        match parse(&raw.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.invalid(setting, raw, problem);
                None
            }
        }
    }

    fn invalid(&mut self, setting: &Setting, raw: Raw, problem: Problem) {
        // A proxy's password is the only secret part of it.
        let shown = match setting.kind {
            Kind::Text("URL" | "HOST") => Some(without_userinfo(&raw.text)),
            _ if setting.secret => None,
            _ => Some(raw.text),
        };
        self.errors.push(ConfigError::Invalid {
            name: raw.name,
            value: shown,
            problem: problem.what,
            fix: problem.fix,
        });
    }

    /// Adds a finding about a setting's value as given.
    pub fn refuse(&mut self, setting: &'static Setting, problem: Problem) {
        if let Some(raw) = self.raw(setting) {
            self.invalid(setting, raw, problem);
        }
    }

    pub fn text(&mut self, setting: &'static Setting) -> Option<String> {
        self.parsed(setting, |text| Ok(text.to_owned()))
    }

    pub fn path(&mut self, setting: &'static Setting) -> Option<PathBuf> {
        self.text(setting).map(PathBuf::from)
    }

    pub fn header_secret(&mut self, setting: &'static Setting) -> Option<Secret> {
        self.parsed(setting, values::header_text).map(Secret::new)
    }

    pub fn flag(&mut self, setting: &'static Setting) -> Option<bool> {
        self.parsed(setting, values::boolean)
    }

    // The rows are constants and a test reads every one of them, so that the kinds asked
    // for below always are the kinds of the rows.

    /// A duration within the row's range; zero when wrong.
    pub fn duration(&mut self, setting: &'static Setting) -> Duration {
        let Kind::Duration(min, max) = setting.kind else {
            unreachable!("{} is read as a duration", setting.name);
        };
        self.parsed(setting, |text| values::duration_in(text, min, max))
            .unwrap_or_default()
    }

    /// A number within the row's range; zero when wrong.
    pub fn integer(&mut self, setting: &'static Setting) -> u64 {
        let Kind::Integer(min, max) = setting.kind else {
            unreachable!("{} is read as a number", setting.name);
        };
        self.parsed(setting, |text| values::integer(text, min, max))
            .unwrap_or_default()
    }

    /// Bytes within the row's range; zero when wrong.
    pub fn size(&mut self, setting: &'static Setting) -> u64 {
        let Kind::Size(min, max) = setting.kind else {
            unreachable!("{} is read as a size", setting.name);
        };
        self.parsed(setting, |text| values::size_in(text, min, max))
            .unwrap_or_default()
    }

    /// One of the row's words; empty when wrong.
    pub fn choice(&mut self, setting: &'static Setting) -> &'static str {
        let Kind::Choice(words) = setting.kind else {
            unreachable!("{} is read as a choice", setting.name);
        };
        self.parsed(setting, |text| {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
            word.copied()
                .ok_or_else(|| Problem::new("is not known", format!("use {}", words.join(" or "))))
        })
        .unwrap_or_default()
    }

    pub fn list(&mut self, setting: &'static Setting) -> Vec<String> {
        let text = self.text(setting).unwrap_or_default();
        values::list(&text)
    }

    /// Each word of a list as `parse` understands it; a bad word is named by its place,
    /// and shown only when it is short and no secret.
    pub fn each<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Vec<T> {
        const SHOWN: usize = 48;
        let mut good = Vec::new();
        let name = self.given(setting);
        for (index, word) in self.list(setting).iter().enumerate() {
            match parse(word) {
                Ok(value) => good.push(value),
                Err(problem) => self.errors.push(ConfigError::Invalid {
                    name: name.clone().unwrap_or_default(),
                    value: (!setting.secret && word.len() <= SHOWN).then(|| word.clone()),
                    problem: format!("(number {}) {}", index + 1, problem.what),
                    fix: problem.fix,
                }),
            }
        }
        good
    }

    /// The same setting under its capital name, as other programs take it.
    pub fn adopt_capitals(&mut self, setting: &Setting) {
        let capitals = setting.name.to_ascii_uppercase();
        if let Some(value) = self.vars.get(&capitals).cloned() {
            self.vars.entry(setting.name.to_owned()).or_insert(value);
        }
    }

    /// Variables of no row of ours, as they are.
    pub fn others(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, OsString)> {
        let vars = self.vars.iter().filter(|(name, _)| wanted(name));
        vars.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Warns about every `NERVES_HUB_…` that no row knows.
    pub fn warn_unknown(&mut self) {
        let known: Vec<String> = SETTINGS
            .iter()
            .flat_map(|setting| [Some(setting.name.to_owned()), setting.file_name()])
            .flatten()
            .collect();
        for name in self.vars.keys().filter(|name| name.starts_with(PREFIX)) {
            if known.contains(name) {
                continue;
            }
            let nearest = known.iter().min_by_key(|known| distance(known, name));
            self.warnings.push(format!(
                "{name} is not a setting and has no effect; the nearest name is {}",
                nearest.map_or("", String::as_str)
            ));
        }
    }
}

fn utf8(name: &str, value: &OsString) -> Result<String, ConfigError> {
    value
        .to_str()
        .map(|text| text.trim().to_owned())
        .ok_or_else(|| ConfigError::NotUtf8 {
            name: name.to_owned(),
        })
}

/// A file's text without its line ends at the end.
fn file_text(path: &str) -> Result<String, String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err("it is larger than 64 KiB".to_owned());
    }
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text.to_owned())
}

/// Edit distance (Levenshtein) between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distances() {
        assert_eq!(distance("HOST", "HOST"), 0);
        assert_eq!(distance("HOST", "HSOT"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
