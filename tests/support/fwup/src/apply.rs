//! `-a`: opens the destination, picks the task and runs its events.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::conf::{Section, parse_number};
use crate::disk::{BLOCK, Disk, Limits};
use crate::failure::{Failure, Result, fail};
use crate::functions::{Call, Context, calls};
use crate::input::Input;
use crate::meta::{self, Opened, PublicKey};
use crate::output::Reporter;
use crate::resource::{Map, check_size, name_of};

/// What the command line asks for.
#[derive(Debug, Default)]
pub struct Request {
    pub device: String,
    pub task: String,
    pub input: Option<String>,
    pub keys: Vec<PublicKey>,
    pub trim: bool,
    pub verify_writes: Option<bool>,
    /// In blocks; zero for no limit.
    pub max_size: u64,
    pub allow_unsafe: bool,
    pub reboot_param_path: Option<String>,
}

/// An opened destination.
pub struct Destination {
    file: File,
    limits: Limits,
}

/// Opens the destination, creating a file where there is none.
pub fn open_destination(request: &Request, reporter: &Reporter) -> Result<Destination> {
    let path = request.device.as_str();
    let max = Some(request.max_size * BLOCK).filter(|max| *max > 0);
    let opened = if will_be_regular(path) {
        if request.trim {
            reporter.info("ignoring --enable-trim since operating on a regular file");
        }
        open_regular(path).map(|file| (file, max, request.verify_writes.unwrap_or(false)))
    } else if path == "/dev/null" {
        let file = OpenOptions::new().write(true).open(path);
        file.map(|file| (file, None, false))
    } else {
        open_device(path, max, reporter)
            .map(|(file, end)| (file, end, request.verify_writes.unwrap_or(true)))
    };
    match opened {
        Ok((file, end, verify)) => Ok(Destination {
            file,
            limits: Limits { end, verify },
        }),
        Err(_) => {
            eprintln!();
            fail(if Path::new(path).exists() {
                format!(
                    "Cannot open '{path}' for output.\nCheck file permissions or the read-only \
                     tab if this is an SD Card."
                )
            } else {
                format!(
                    "Cannot create '{path}'.\nCheck the path and permissions on the containing \
                     directory."
                )
            })
        }
    }
}

fn will_be_regular(path: &str) -> bool {
    match std::fs::metadata(path) {
        Ok(meta) => meta.is_file(),
        Err(error) => error.kind() == ErrorKind::NotFound && !path.starts_with("/dev/"),
    }
}

fn open_regular(path: &str) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)?;
    // Root can open a read-only file for writing; that is taken for a mistake.
    if file.metadata()?.permissions().mode() & 0o222 == 0 {
        return Err(ErrorKind::PermissionDenied.into());
    }
    Ok(file)
}

fn open_device(
    path: &str,
    max: Option<u64>,
    reporter: &Reporter,
) -> std::io::Result<(File, Option<u64>)> {
    let size = File::open(path)
        .and_then(|mut file| file.seek(SeekFrom::End(0)))
        .ok()
        .filter(|size| *size > 0);
    if size.is_none() {
        reporter.info(&format!("Error determining the size of {path}"));
    }
    let end = match (size, max) {
        (Some(size), Some(max)) => Some(size.min(max)),
        (size, max) => size.or(max),
    };
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // The original asks for direct I/O, which character devices refuse.
    if !file.metadata()?.file_type().is_block_device() {
        return Err(ErrorKind::InvalidInput.into());
    }
    Ok((file, end))
}

/// Runs the requested task. What is written is on the disk when this returns.
pub fn apply(request: &Request, destination: Destination, reporter: &mut Reporter) -> Result<()> {
    reporter.advance(0);
    let input = Input::open(request.input.as_deref(), reporter.framing)?;
    let label = request.input.as_deref().unwrap_or("(null)");
    let Opened { zip, conf, .. } = meta::open(input, label, &request.keys)?;
    let mut context = Context {
        conf: &conf,
        disk: Disk::new(destination.file, destination.limits),
        zip,
        reporter,
        allow_unsafe: request.allow_unsafe,
        reboot_param_path: request.reboot_param_path.clone(),
    };
    let result = run(&mut context, &request.task);
    // After a failure this writes what the error handler has left.
    let flushed = context.disk.flush();
    result.and(flushed)?;
    context.reporter.complete();
    Ok(())
}

fn run(context: &mut Context, prefix: &str) -> Result<()> {
    let conf = context.conf;
    let tasks = conf
        .named("task")
        .filter(|task| task.title.starts_with(prefix));
    let mut found = None;
    for task in tasks {
        if is_applicable(context, task) {
            found = Some(task);
            break;
        }
    }
    let Some(task) = found else {
        return fail(format!(
            "Couldn't find applicable task '{prefix}'. If task is available, the task's \
             requirements may not be met."
        ));
    };
    count_progress(context, task)?;
    let Err(failure) = run_events(context, task) else {
        return Ok(());
    };
    context.disk.reset();
    match run_event(context, task, "on-error") {
        Ok(()) => Err(failure),
        Err(second) => {
            context.disk.reset();
            Err(second)
        }
    }
}

fn is_applicable(context: &mut Context, task: &Section) -> bool {
    let wanted = task.get("require-partition1-offset").and_then(parse_number);
    if let Some(offset) = wanted
        && context.partitions().map(|table| table[1]) != Some(offset as u32)
    {
        return false;
    }
    match calls(task.list("reqlist")) {
        Ok(calls) => calls.into_iter().all(|call| context.requirement_met(call)),
        Err(_) => false,
    }
}

fn last_event<'a>(task: &'a Section, name: &'a str) -> Option<&'a Section> {
    task.named(name).last()
}

fn count_progress(context: &mut Context, task: &Section) -> Result<()> {
    let known = |event: &&Section| {
        event.name != "on-resource" || context.conf.titled("file-resource", &event.title).is_some()
    };
    let events = last_event(task, "on-init")
        .into_iter()
        .chain(task.named("on-resource"))
        .chain(last_event(task, "on-finish"));
    let mut units = 0;
    for event in events.filter(known) {
        for call in calls(event.list("funlist"))? {
            units += context.units(event, call)?;
        }
    }
    context.reporter.total_units = units;
    Ok(())
}

fn run_event(context: &mut Context, task: &Section, name: &str) -> Result<()> {
    match last_event(task, name) {
        Some(event) => run_calls(context, event),
        None => Ok(()),
    }
}

fn run_calls(context: &mut Context, event: &Section) -> Result<()> {
    let list: Vec<Call> = calls(event.list("funlist"))?;
    list.into_iter()
        .try_for_each(|call| context.run(event, call))
}

fn run_events(context: &mut Context, task: &Section) -> Result<()> {
    let conf = context.conf;
    let mut waiting: Vec<&Section> = task.named("on-resource").collect();
    for event in &waiting {
        if conf.titled("file-resource", &event.title).is_none() {
            return fail(format!(
                "Resource '{}' used, but metadata is missing. Archive is corrupt.",
                event.title
            ));
        }
    }
    run_event(context, task, "on-init")?;
    while let Ok(Some(entry)) = context.zip.next_entry() {
        let name = name_of(&entry.name);
        let Some(event) = task.titled("on-resource", &name) else {
            continue;
        };
        let resource = conf.titled("file-resource", &name);
        let map = resource.map(Map::of).unwrap_or_default();
        let size = Some(entry.size).filter(|_| entry.size_is_set());
        check_size(&name, size, event, &map)?;
        run_calls(context, event)?;
        waiting.retain(|other| other.title != name);
    }
    // The original keeps the newest of the list first.
    if let Some(missing) = waiting.last() {
        return Err(Failure(format!(
            "Resource {} not found in archive",
            missing.title
        )));
    }
    run_event(context, task, "on-finish")
}
