//! The functions and requirements a task can use.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::conf::{Section, parse_number};
use crate::disk::{BLOCK, Disk};
use crate::failure::{Result, fail};
use crate::output::Reporter;
use crate::resource::{Cursor, Map, expected_hash, hasher};
use crate::uboot::{Environment, progress_units};
use crate::zip::ZipReader;

/// Functions fwup has and the stand-in does not.
const MISSING: &[&str] = &[
    "fat_attrib",
    "fat_mkfs",
    "fat_write",
    "fat_mv",
    "fat_mv!",
    "fat_rm",
    "fat_rm!",
    "fat_cp",
    "fat_mkdir",
    "fat_setlabel",
    "fat_touch",
    "gpt_write",
    "mbr_write",
    "uboot_recover",
    "pipe_write",
    "ubi_volume_write",
];
const MOST_ARGUMENTS: usize = 10;

/// What a running task works with.
pub struct Context<'a> {
    pub conf: &'a Section,
    pub disk: Disk,
    pub zip: ZipReader,
    pub reporter: &'a mut Reporter,
    pub allow_unsafe: bool,
    pub reboot_param_path: Option<String>,
}

/// One call: the function's name and its arguments.
pub type Call<'a> = &'a [String];

/// Splits `{2,info,hello,4,...}` into calls.
pub fn calls(list: &[String]) -> Result<Vec<Call<'_>>> {
    let mut calls = Vec::new();
    let mut rest = list;
    while let Some((count, tail)) = rest.split_first() {
        let count = parse_number(count).unwrap_or(0) as usize;
        if count == 0 || count > MOST_ARGUMENTS {
            return fail("Unexpected argc value in funlist");
        }
        if tail.len() < count {
            return fail("Unexpected error with funlist");
        }
        let (call, after) = tail.split_at(count);
        calls.push(call);
        rest = after;
    }
    Ok(calls)
}

fn argument<'a>(call: Call<'a>, index: usize) -> Result<&'a str> {
    match call.get(index) {
        Some(text) => Ok(text),
        None => fail(format!("{} needs {index} arguments", call[0])),
    }
}

fn number(call: Call, index: usize) -> Result<u64> {
    let text = argument(call, index)?;
    match parse_number(text) {
        Some(value) => Ok(value),
        None => fail(format!("{}: '{text}' is not a number", call[0])),
    }
}

fn environment<'a>(conf: &'a Section, call: Call) -> Result<&'a Section> {
    let name = argument(call, 1)?;
    match conf.titled("uboot-environment", name) {
        Some(section) => Ok(section),
        None => fail(format!(
            "{} can't find uboot-environment reference {name}",
            call[0]
        )),
    }
}

impl Context<'_> {
    /// The progress units a call will count for.
    pub fn units(&self, event: &Section, call: Call) -> Result<u64> {
        match call[0].as_str() {
            "raw_write" | "path_write" => match self.conf.titled("file-resource", &event.title) {
                Some(resource) => Ok(Map::of(resource).data_size()),
                None => fail(format!("file-resource '{}' not found", event.title)),
            },
            "raw_memset" => Ok(number(call, 2)? * BLOCK),
            "trim" => Ok(number(call, 2)? / 256),
            "uboot_clearenv" | "uboot_setenv" | "uboot_unsetenv" => {
                Ok(environment(self.conf, call).map_or(BLOCK, progress_units))
            }
            "error" | "info" => Ok(0),
            "execute" | "reboot_param" => Ok(BLOCK),
            name if MISSING.contains(&name) => {
                fail(format!("fwup-standin does not implement {name}"))
            }
            _ => fail("Unknown function"),
        }
    }

    pub fn run(&mut self, event: &Section, call: Call) -> Result<()> {
        match call[0].as_str() {
            "info" => self.reporter.info(argument(call, 1)?),
            "error" => return fail(argument(call, 1)?),
            "raw_write" => return self.raw_write(event, call),
            "path_write" => return self.path_write(event, call),
            "raw_memset" => return self.raw_memset(call),
            "trim" => self.reporter.advance(number(call, 2)? / 256),
            "uboot_clearenv" | "uboot_setenv" | "uboot_unsetenv" => return self.uboot(call),
            "execute" => return self.execute(call),
            "reboot_param" => return self.reboot_param(call),
            name if MISSING.contains(&name) => {
                return fail(format!("fwup-standin does not implement {name}"));
            }
            _ => return fail("Unknown function"),
        }
        Ok(())
    }

    fn raw_write(&mut self, event: &Section, call: Call) -> Result<()> {
        if call.len() > 2 {
            return fail(format!(
                "fwup-standin does not implement raw_write with '{}'",
                call[2]
            ));
        }
        let start = number(call, 1)? * BLOCK;
        let disk = &mut self.disk;
        let mut write = |bytes: &[u8], offset| disk.write(bytes, start + offset, true);
        let end = copy_resource(
            self.conf,
            &mut self.zip,
            self.reporter,
            (event, call),
            &mut write,
        )?;
        // Writes are whole blocks: the last one is filled up with zeros.
        let pad = (BLOCK - end % BLOCK) % BLOCK;
        self.disk.write(&vec![0; pad as usize], start + end, true)
    }

    fn path_write(&mut self, event: &Section, call: Call) -> Result<()> {
        self.require_unsafe(call)?;
        let path = argument(call, 1)?;
        let Ok(file) = File::create(path) else {
            return fail(format!("path_write can't open '{path}'"));
        };
        let mut write = |bytes: &[u8], offset| match file.write_all_at(bytes, offset) {
            Ok(()) => Ok(()),
            Err(_) => fail(format!("path_write failed to write '{path}'")),
        };
        copy_resource(
            self.conf,
            &mut self.zip,
            self.reporter,
            (event, call),
            &mut write,
        )?;
        Ok(())
    }

    fn raw_memset(&mut self, call: Call) -> Result<()> {
        let (start, count) = (number(call, 1)?, number(call, 2)?);
        let block = [number(call, 3)? as u8; BLOCK as usize];
        for index in start..start + count {
            let offset = index * BLOCK;
            if self.disk.write(&block, offset, true).is_err() {
                return fail(format!(
                    "raw_memset couldn't write {BLOCK} bytes to offset {offset}"
                ));
            }
            self.reporter.advance(BLOCK);
        }
        Ok(())
    }

    fn uboot(&mut self, call: Call) -> Result<()> {
        let section = environment(self.conf, call)?;
        let mut env = Environment::empty(section)?;
        match call[0].as_str() {
            "uboot_setenv" => {
                env.read(&mut self.disk)?;
                let (name, value) = (argument(call, 2)?, argument(call, 3)?);
                env.vars.insert(name.to_string(), value.to_string());
            }
            "uboot_unsetenv" => {
                env.read(&mut self.disk)?;
                env.vars.remove(argument(call, 2)?);
            }
            _ => {}
        }
        env.write(&mut self.disk)?;
        self.reporter.advance(progress_units(section));
        Ok(())
    }

    fn execute(&mut self, call: Call) -> Result<()> {
        self.require_unsafe(call)?;
        let command = argument(call, 1)?;
        match shell(command) {
            None => fail(format!("execute couldn't run '{command}'")),
            Some(0) => {
                self.reporter.advance(BLOCK);
                Ok(())
            }
            Some(status) => fail(format!("'{command}' failed with exit status {status}")),
        }
    }

    fn reboot_param(&mut self, call: Call) -> Result<()> {
        let param = argument(call, 1)?;
        let write = |path: &str| std::fs::write(path, param).is_ok();
        match &self.reboot_param_path {
            Some(path) if !write(path) => {
                return fail(format!("reboot-param can't open '{path}'"));
            }
            Some(_) => {}
            None if write("/run/systemd/reboot-param") || write("/run/reboot-param") => {}
            None => return fail("reboot-param can't open under `/run`"),
        }
        self.reporter.advance(BLOCK);
        Ok(())
    }

    fn require_unsafe(&self, call: Call) -> Result<()> {
        match self.allow_unsafe {
            true => Ok(()),
            false => fail(format!("{} requires --unsafe", call[0])),
        }
    }

    /// Whether a task's requirement holds. Those the stand-in does not know never do.
    pub fn requirement_met(&mut self, call: Call) -> bool {
        let text = |index: usize| call.get(index).map_or("", String::as_str);
        match text(0) {
            "require-uboot-variable" => {
                let Ok(mut env) = environment(self.conf, call).and_then(Environment::empty) else {
                    return false;
                };
                env.read(&mut self.disk).is_ok()
                    && env.vars.get(text(2)).is_some_and(|value| value == text(3))
            }
            "require-partition-offset" => {
                match (number(call, 1), number(call, 2), self.partitions()) {
                    (Ok(index), Ok(offset), Some(table)) => {
                        table.get(index as usize) == Some(&(offset as u32))
                    }
                    _ => false,
                }
            }
            "require-execute" => self.allow_unsafe && shell(text(1)) == Some(0),
            _ => false,
        }
    }

    /// First blocks of the four partitions, when there is a partition table.
    pub fn partitions(&mut self) -> Option<[u32; 4]> {
        let mut mbr = [0; BLOCK as usize];
        self.disk.read(&mut mbr, 0).ok()?;
        if mbr[510..] != [0x55, 0xaa] {
            return None;
        }
        Some([0, 1, 2, 3].map(|index| crate::zipheader::le32(&mbr, 446 + index * 16 + 8) as u32))
    }
}

/// The raw wait status of a shell command, as `system` reports it.
fn shell(command: &str) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    let status = Command::new("/bin/sh").args(["-c", command]).status();
    status.ok().map(ExitStatusExt::into_raw)
}

/// Reads the event's resource into `write`, checking length and hash; gives back where it ended.
fn copy_resource(
    conf: &Section,
    zip: &mut ZipReader,
    reporter: &mut Reporter,
    (event, call): (&Section, Call),
    write: &mut dyn FnMut(&[u8], u64) -> Result<()>,
) -> Result<u64> {
    let (function, name) = (call[0].as_str(), event.title.as_str());
    let Some(resource) = conf.titled("file-resource", name) else {
        return fail(format!("{function} can't find file-resource '{name}'"));
    };
    let Some(expected) = expected_hash(resource) else {
        return fail(format!("invalid blake2b hash for '{name}'"));
    };
    let map = Map::of(resource);
    let (length, size, hole) = (map.data_size(), map.size(), map.ending_hole());
    let (mut cursor, mut hash, mut total, mut end) = (Cursor::new(map), hasher(), 0, 0);
    loop {
        let mut count = 0;
        let mut sink = |bytes: &[u8], offset: u64| {
            hash.update(bytes);
            write(bytes, offset)?;
            count = bytes.len() as u64;
            end = offset + count;
            Ok(())
        };
        if !cursor.next(zip, &mut sink)? {
            break;
        }
        total += count;
        reporter.input_bytes = zip.input.bytes;
        reporter.advance(count);
    }
    reporter.input_bytes = zip.input.bytes;
    if hole > 0 {
        let zeros = vec![0; hole.min(BLOCK) as usize];
        write(&zeros, size - zeros.len() as u64)?;
        end = size;
    }
    check_length(function, name, total, length)?;
    if hash.finalize().to_hex().as_str() != expected {
        return fail(format!("{function} detected blake2b mismatch on '{name}'"));
    }
    Ok(end)
}

fn check_length(function: &str, name: &str, total: u64, length: u64) -> Result<()> {
    if total == 0 && length > 0 {
        return fail(format!(
            "{function} didn't write anything and was likely called twice in an on-resource for \
             '{name}'. Try a \"cp\" function."
        ));
    }
    if total != length {
        return fail(format!(
            "{function} wrote {total} bytes for '{name}', but should have written {length}"
        ));
    }
    Ok(())
}
